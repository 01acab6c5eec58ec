use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use vault_proto::v1::AuditEntry;

use super::signature::Secrets;
use super::*;
use crate::access::{Alert, AlertKind};
use crate::app::config::Alerts;
use crate::audit::LogOptions;
use crate::domain::{AlertId, Entity, InstanceId, PrincipalId, TenantId};
use crate::store::LogId;
use crate::store::memory::MemoryStore;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BEGIN: u64 = 1_760_000_000_000_000;

struct SetClock(AtomicU64);

impl SetClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// What a receiver got, and what it answers next.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<String>>,
    status: AtomicU64,
}

impl Receiver {
    fn new(status: u64) -> Arc<Self> {
        Arc::new(Self { got: Mutex::default(), status: AtomicU64::new(status) })
    }

    async fn serve(self: Arc<Self>, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut text = Vec::new();
        loop {
            let mut some = [0; 4096];
            match stream.read(&mut some).await {
                Ok(len @ 1..) => text.extend_from_slice(&some[..len]),
                _ => return,
            }
            let text = String::from_utf8_lossy(&text);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = header(head, "content-length").parse::<usize>().unwrap();
            if body.len() == length {
                break;
            }
        }
        self.got.lock().push(String::from_utf8(text).unwrap());
        let status = self.status.load(Ordering::SeqCst);
        let answer =
            format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    async fn listen(self: &Arc<Self>, tls: Option<TlsAcceptor>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                match &tls {
                    None => Arc::clone(&receiver).serve(tcp).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(tcp).await {
                            Arc::clone(&receiver).serve(stream).await;
                        }
                    }
                }
            }
        });
        port
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name}: {head}"))
}

struct Rig {
    store: MemoryStore,
    clock: Arc<SetClock>,
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, SECRET).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { store: MemoryStore::new(), clock: Arc::new(SetClock(AtomicU64::new(BEGIN))), dir }
    }

    /// An instance that delivers to a URL.
    fn delivery(&self, url: Option<&str>, ca: Option<&str>) -> Delivery {
        let secret = self.dir.path().join("secret");
        let section = Alerts {
            webhook: url.map(str::to_owned),
            secret_file: Some(secret),
            ca: ca.map(|name| self.dir.path().join(name)),
            ..Alerts::default()
        };
        let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) =
            (Arc::new(self.store.clone()), Arc::clone(&self.clock) as _);
        let options = LogOptions { deadline: Duration::from_mins(1), max_in_flight: 64 };
        Delivery {
            log: Arc::new(Log::new(Arc::clone(&store), Arc::clone(&clock), options)),
            leases: Leases::new(Arc::clone(&store), Arc::clone(&clock), InstanceId::random().unwrap()),
            webhook: Webhook::open(&section).unwrap(),
            timeout: Duration::from_secs(30),
            give_up_after: Duration::from_hours(1),
            stopping: CancellationToken::new(),
            store,
            clock,
        }
    }

    async fn raise(&self, id: u8) {
        let alert = Alert {
            id: AlertId::from_bytes([id; 16]),
            kind: AlertKind::LimitReached,
            at: self.clock.now(),
            tenant: Some(TenantId::parse("st-mary").unwrap()),
            principal: PrincipalId::parse("ann").unwrap(),
            request: RequestId::from_bytes([9; 16]),
            grant: None,
            details: Vec::new(),
        };
        self.put(alert.entity().unwrap()).await;
    }

    async fn put(&self, entity: Entity) {
        let change = crate::store::Change { writes: vec![Write::PutEntity(entity)], entries: Vec::new() };
        self.store.commit(change).await.unwrap();
    }

    async fn waiting(&self) -> Vec<Entity> {
        self.store.entities(&EntityScope::Kind(EntityKind::Alert), None, 100).await.unwrap()
    }

    async fn entries(&self) -> Vec<AuditEntry> {
        let entries = self.store.entries(LogId(0), 0, 100, 1 << 20).await.unwrap();
        entries.into_iter().map(|entry| AuditEntry::decode(entry).unwrap()).collect()
    }
}

#[tokio::test]
async fn an_alert_is_signed_tried_again_and_gone_when_the_receiver_has_it() {
    let (rig, receiver) = (Rig::new(), Receiver::new(500));
    let port = receiver.listen(None).await;
    let delivery = rig.delivery(Some(&format!("http://127.0.0.1:{port}/hook?x=1")), None);
    rig.raise(1).await;
    let raised = WaitingAlert::read(&rig.waiting().await[0]).unwrap();
    let mut turn = None;
    // A redirect is not followed and is no delivery either.
    for (attempt, status) in [(1, 500), (2, 302), (3, 404)] {
        receiver.status.store(status, Ordering::SeqCst);
        delivery.look(&mut turn).await.unwrap();
        assert_eq!(receiver.got.lock().len(), attempt);
        let waiting = WaitingAlert::read(&rig.waiting().await[0]).unwrap();
        assert_eq!(waiting.attempts() as usize, attempt);
        assert!(waiting.not_before > rig.clock.now());
        // Not before it is due.
        delivery.look(&mut turn).await.unwrap();
        assert_eq!(receiver.got.lock().len(), attempt);
        rig.clock.pass(LONGEST_WAIT);
    }
    receiver.status.store(204, Ordering::SeqCst);
    delivery.look(&mut turn).await.unwrap();
    assert!(rig.waiting().await.is_empty() && rig.entries().await.is_empty());
    let got = receiver.got.lock().clone();
    assert_eq!(got.len(), 4);
    for got in &got {
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1"), "{head}");
        assert_eq!(body.as_bytes(), raised.body);
        let id = header(head, "webhook-id");
        assert_eq!(id, "01".repeat(16));
        let seconds = header(head, "webhook-timestamp").parse().unwrap();
        let secrets = Secrets::read(&rig.dir.path().join("secret")).unwrap();
        assert_eq!(header(head, "webhook-signature"), secrets.sign(id, seconds, body.as_bytes()));
    }
    // Each delivery has a timestamp of its own, for receivers that refuse old ones.
    assert!(
        got[0].contains("webhook-timestamp: 1760000000") && !got[3].contains("webhook-timestamp: 1760000000")
    );
}

#[tokio::test]
async fn what_nobody_takes_is_given_up_and_on_record() {
    let rig = Rig::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let delivery = rig.delivery(Some(&format!("http://{closed}/")), None);
    rig.raise(1).await;
    let mut turn = None;
    delivery.look(&mut turn).await.unwrap();
    assert_eq!((rig.waiting().await.len(), rig.entries().await.len()), (1, 0));
    rig.clock.pass(Duration::from_hours(2));
    delivery.look(&mut turn).await.unwrap();
    assert!(rig.waiting().await.is_empty());
    let entries = rig.entries().await;
    assert_eq!((entries.len(), entries[0].action()), (1, AuditAction::AlertLost));
    assert_eq!((entries[0].tenant.as_str(), entries[0].cause.as_str()), ("st-mary", "gave_up"));
}

#[tokio::test]
async fn a_torn_row_is_on_record_and_one_of_a_newer_version_waits() {
    let rig = Rig::new();
    rig.raise(1).await;
    rig.raise(2).await;
    let rows = rig.waiting().await;
    let change = |row: &Entity, content| Entity { revision: row.revision + 1, content, ..row.clone() };
    rig.put(change(&rows[0], vec![1, 2, 3])).await;
    rig.put(change(&rows[1], vec![2, 2, 3])).await;
    rig.delivery(None, None).look(&mut None).await.unwrap();
    assert_eq!(rig.waiting().await.len(), 1);
    let entries = rig.entries().await;
    assert_eq!((entries[0].action(), entries[0].cause.as_str()), (AuditAction::AlertLost, "corrupt"));
}

#[tokio::test]
async fn without_a_webhook_none_piles_up() {
    let rig = Rig::new();
    rig.raise(1).await;
    rig.raise(2).await;
    rig.delivery(None, None).look(&mut None).await.unwrap();
    assert!(rig.waiting().await.is_empty() && rig.entries().await.is_empty());
}

#[tokio::test]
async fn one_instance_delivers_and_one_whose_turn_was_taken_writes_nothing() {
    let (rig, receiver) = (Rig::new(), Receiver::new(200));
    let port = receiver.listen(None).await;
    let url = format!("http://127.0.0.1:{port}/");
    let (one, other) = (rig.delivery(Some(&url), None), rig.delivery(Some(&url), None));
    rig.raise(1).await;
    let (mut first, mut second) = (None, None);
    one.look(&mut first).await.unwrap();
    rig.raise(2).await;
    other.look(&mut second).await.unwrap();
    assert!(second.is_none() && receiver.got.lock().len() == 1);
    // The first falls silent, and the second takes its turn: the first changes no row any more, though it has read it as it is.
    tokio::time::pause();
    tokio::time::advance(other.lease()).await;
    tokio::time::resume();
    receiver.status.store(500, Ordering::SeqCst);
    other.look(&mut second).await.unwrap();
    assert!(second.is_some());
    let read = WaitingAlert::read(&rig.waiting().await[0]).unwrap();
    let stale = one.settle(first.as_ref().unwrap(), &read, Ok(())).await;
    assert!(matches!(stale, Err(Trouble::Log(LogError::Conflict { write: 0 }))), "{stale:?}");
    assert_eq!(rig.waiting().await.len(), 1);
}

#[tokio::test]
async fn a_receiver_is_known_by_its_certificate() {
    let (rig, receiver) = (Rig::new(), Receiver::new(200));
    let issuer = |file: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(rig.dir.path().join(file), pem).unwrap();
        Issuer::new(params, key)
    };
    let (own, _) = (issuer("ca.pem"), issuer("other.pem"));
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &own).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let port = receiver.listen(Some(TlsAcceptor::from(Arc::new(config)))).await;
    rig.raise(1).await;
    let alert = WaitingAlert::read(&rig.waiting().await[0]).unwrap();
    let deliver = async |host: &str, ca: &str| {
        let url = format!("https://{host}:{port}/");
        rig.delivery(Some(&url), Some(ca)).webhook.unwrap().deliver(&alert, rig.clock.now()).await
    };
    deliver("localhost", "ca.pem").await.unwrap();
    for (host, ca) in [("localhost", "other.pem"), ("127.0.0.1", "ca.pem")] {
        assert!(matches!(deliver(host, ca).await, Err(NotDelivered::Connect(_))), "{host} {ca}");
    }
    assert_eq!(receiver.got.lock().len(), 1);
}

#[test]
fn waits_grow_and_are_drawn_and_bounded() {
    assert_eq!((wait(0, 0), wait(0, u32::MAX)), (FIRST_WAIT / 2, FIRST_WAIT));
    assert_eq!((wait(3, 0), wait(3, u32::MAX)), (FIRST_WAIT * 4, FIRST_WAIT * 8));
    assert_eq!((wait(40, 0), wait(u32::MAX, u32::MAX)), (LONGEST_WAIT / 2, LONGEST_WAIT));
}

#[tokio::test]
async fn an_alert_that_the_vault_did_not_write_is_told_to_nobody_and_is_on_record() {
    let (rig, receiver) = (Rig::new(), Receiver::new(200));
    let port = receiver.listen(None).await;
    let key = vault_mem::LockedKey::random().unwrap();
    let identity = crate::app::rows::tests::identity();
    let key = Arc::new(crate::crypto::RowKey::new(crate::domain::KeyVersion(1), identity, key));
    let sealed: Arc<dyn Store> = Arc::new(crate::store::SealedStore::new(Arc::new(rig.store.clone()), key));
    rig.raise(1).await;
    rig.raise(2).await;
    // The second one as the vault would write it.
    let own = rig.waiting().await.remove(1);
    let gone = Write::DropEntity { place: own.place.clone(), revision: own.revision };
    rig.store.commit(crate::store::Change { writes: vec![gone], entries: Vec::new() }).await.unwrap();
    let own = Write::PutEntity(Entity { revision: 0, ..own });
    sealed.commit(crate::store::Change { writes: vec![own], entries: Vec::new() }).await.unwrap();
    let delivery = rig.delivery(Some(&format!("http://127.0.0.1:{port}/hook")), None);
    Delivery { store: sealed, ..delivery }.look(&mut None).await.unwrap();
    assert!(rig.waiting().await.is_empty());
    let got = receiver.got.lock().clone();
    assert_eq!(got.len(), 1);
    assert!(got[0].contains(&"02".repeat(16)), "{got:?}");
    let entries = rig.entries().await;
    assert_eq!((entries[0].action(), entries[0].cause.as_str()), (AuditAction::AlertLost, "forged"));
}
