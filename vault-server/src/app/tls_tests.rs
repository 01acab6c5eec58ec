//! TLS and the listener against a real client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::server::Connected as _;

use super::config::{Limits, Tls};
use super::connections::Connections;
use super::listener::{Incoming, Listener, Surroundings};
use super::metrics::Metrics;
use super::metrics_server::{MetricsServer, Sample};
use super::reload::{self, Reloadable};
use super::tls::{Callers, ReloadingTls};

const DAY: Duration = Duration::from_hours(24);

/// An authority of the tests' own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

#[derive(Clone)]
struct Identity {
    pem: String,
    key: String,
    serial: SerialNumber,
}

/// When something is valid, in days from now.
type Days = std::ops::Range<i64>;

fn day(from_now: i64) -> Duration {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    let shift = DAY * u32::try_from(from_now.unsigned_abs()).unwrap();
    if from_now < 0 { now.checked_sub(shift).unwrap() } else { now + shift }
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, serial: u64, usage: ExtendedKeyUsagePurpose, san: SanType, valid: Days) -> Identity {
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.into());
        params.subject_alt_names = vec![san];
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + day(valid.start);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + day(valid.end);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { pem, key: key.serialize_pem(), serial: serial.into() }
    }

    fn server(&self, serial: u64) -> Identity {
        let san = SanType::DnsName("localhost".try_into().unwrap());
        self.issue(serial, ExtendedKeyUsagePurpose::ServerAuth, san, -1..30)
    }

    fn client(&self, serial: u64, valid: Days) -> Identity {
        let san = SanType::URI("spiffe://test.phi-vault.internal/service".try_into().unwrap());
        self.issue(serial, ExtendedKeyUsagePurpose::ClientAuth, san, valid)
    }

    fn crl(&self, revoked: &[&Identity], valid: Days) -> String {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let revoked_certs = revoked
            .iter()
            .map(|identity| RevokedCertParams {
                serial_number: identity.serial.clone(),
                revocation_time: epoch + day(-1),
                reason_code: None,
                invalidity_date: None,
            })
            .collect();
        CertificateRevocationListParams {
            this_update: epoch + day(valid.start),
            next_update: epoch + day(valid.end),
            crl_number: 1u64.into(),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}

/// A listener with its files.
struct Site {
    dir: tempfile::TempDir,
    authority: Authority,
    tls: Arc<ReloadingTls>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    port: u16,
    incoming: Option<Incoming>,
}

impl Site {
    fn new(crl: Option<&dyn Fn(&Authority) -> String>, limits: &Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("site");
        let path = |name: &str| dir.path().join(name);
        let crl_files: Vec<PathBuf> = crl.iter().map(|_| path("ca.crl")).collect();
        let files = Tls {
            certificate: path("server.pem"),
            key: path("server.key"),
            client_ca: path("ca.pem"),
            crl: crl_files,
            ..Tls::default()
        };
        put(&files.client_ca, &authority.pem);
        if let Some(crl) = crl {
            put(&path("ca.crl"), &crl(&authority));
        }
        let server = authority.server(1);
        put(&files.certificate, &server.pem);
        put(&files.key, &server.key);
        let tls = Arc::new(ReloadingTls::load(files, Callers::Certified).unwrap());
        let metrics = Arc::new(Metrics::new(Vec::new()));
        let connections = Arc::new(Connections::new(metrics.clone()));
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = listener.address().unwrap().port();
        let surroundings =
            Surroundings { tls: tls.clone(), connections: connections.clone(), metrics: metrics.clone() };
        let incoming = Some(listener.accept(surroundings, limits).unwrap());
        Self { dir, authority, tls, connections, metrics, port, incoming }
    }

    fn plain() -> Self {
        Self::new(None, &Limits::default())
    }

    fn put(&self, name: &str, text: &str) {
        put(&self.dir.path().join(name), text);
    }

    /// Echoes what it reads, on every connection.
    fn echo(&mut self) {
        let mut incoming = self.incoming.take().unwrap();
        tokio::spawn(async move {
            while let Some(Ok(mut connection)) = incoming.next().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                        if connection.write_all(&buffer[..length]).await.is_err() {
                            break;
                        }
                        let _ = connection.flush().await;
                    }
                });
            }
        });
    }

    async fn connect(&self, client: Option<&Identity>) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(client, &rustls::version::TLS13, b"h2").await
    }

    async fn connect_with(
        &self,
        client: Option<&Identity>,
        version: &'static rustls::SupportedProtocolVersion,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(self.port, client, version, protocol).await
    }

    async fn connect_to(
        &self,
        port: u16,
        client: Option<&Identity>,
        version: &'static rustls::SupportedProtocolVersion,
        protocol: &[u8],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(client.pem.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }

    /// In TLS 1.3 the client learns of a refusal by its first read: whether an echo comes back.
    async fn serves(&self, client: Option<&Identity>) -> Result<(), String> {
        let mut stream = self.connect(client).await.map_err(|error| error.to_string())?;
        echoes(&mut stream).await.map_err(|error| error.to_string())
    }
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

async fn echoes(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and a settings frame").await?;
    let mut buffer = [0; 45];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut buffer)).await??;
    Ok(())
}

fn server_serial(stream: &TlsStream<TcpStream>) -> u64 {
    let der = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    certificate.raw_serial().iter().fold(0, |serial, byte| serial << 8 | u64::from(*byte))
}

#[tokio::test]
async fn client_of_the_authority_is_served_and_known() {
    let mut site = Site::plain();
    let client = site.authority.client(7, -1..1);
    let mut stream = site.connect(Some(&client)).await.unwrap();
    let connection = site.incoming.as_mut().unwrap().next().await.unwrap().unwrap();
    let peer = connection.connect_info();
    let certificate = CertificateDer::from_pem_slice(client.pem.as_bytes()).unwrap();
    let fingerprint: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        &certificate,
    ))
    .into();
    assert_eq!(peer.credential.fingerprint, fingerprint);
    assert_eq!(peer.source, stream.get_ref().0.local_addr().unwrap());
    drop(connection);
    assert_eq!(site.connections.count(), 0);
    assert!(stream.read(&mut [0; 8]).await.is_err() || stream.get_ref().1.wants_read());
}

#[tokio::test]
async fn client_without_certificate_is_refused() {
    let mut site = Site::plain();
    site.echo();
    assert!(site.serves(None).await.unwrap_err().contains("CertificateRequired"));
    assert_eq!(site.connections.count(), 0);
}

#[tokio::test]
async fn client_of_another_authority_is_refused() {
    let mut site = Site::plain();
    site.echo();
    for name in ["other", "site"] {
        let stranger = Authority::new(name).client(7, -1..1);
        assert!(site.serves(Some(&stranger)).await.is_err(), "{name}");
    }
    assert!(site.serves(Some(&site.authority.client(7, -1..1))).await.is_ok());
}

#[tokio::test]
async fn expired_and_future_certificates_are_refused() {
    let mut site = Site::plain();
    site.echo();
    let error = site.serves(Some(&site.authority.client(7, -3..-1))).await.unwrap_err();
    assert!(error.contains("CertificateExpired"), "{error}");
    assert!(site.serves(Some(&site.authority.client(8, 1..3))).await.is_err());
    // A server's certificate does not make a client.
    assert!(site.serves(Some(&site.authority.server(9))).await.is_err());
}

#[tokio::test]
async fn revoked_certificate_is_refused_and_others_are_not() {
    let mut site = Site::new(Some(&|authority| authority.crl(&[], -1..1)), &Limits::default());
    site.echo();
    let (good, bad) = (site.authority.client(7, -1..1), site.authority.client(8, -1..1));
    assert!(site.serves(Some(&bad)).await.is_ok());
    site.put("ca.crl", &site.authority.crl(&[&bad], -1..1));
    site.tls.reload().unwrap();
    let error = site.serves(Some(&bad)).await.unwrap_err();
    assert!(error.contains("CertificateRevoked"), "{error}");
    assert!(site.serves(Some(&good)).await.is_ok());
}

#[tokio::test]
async fn expired_revocation_list_refuses_everyone() {
    let mut site = Site::new(Some(&|authority| authority.crl(&[], -3..-1)), &Limits::default());
    site.echo();
    let good = site.authority.client(7, -1..1);
    assert!(site.serves(Some(&good)).await.is_err());
    site.put("ca.crl", &site.authority.crl(&[], -1..1));
    site.tls.reload().unwrap();
    assert!(site.serves(Some(&good)).await.is_ok());
}

#[tokio::test]
async fn revocation_list_of_another_authority_does_not_do() {
    let mut site = Site::new(Some(&|_| Authority::new("other").crl(&[], -1..1)), &Limits::default());
    site.echo();
    assert!(site.serves(Some(&site.authority.client(7, -1..1))).await.is_err());
}

#[tokio::test]
async fn live_connection_ends_when_its_certificate_is_revoked() {
    let mut site = Site::new(Some(&|authority| authority.crl(&[], -1..1)), &Limits::default());
    site.echo();
    let (good, bad) = (site.authority.client(7, -1..1), site.authority.client(8, -1..1));
    let mut good_stream = site.connect(Some(&good)).await.unwrap();
    let mut bad_stream = site.connect(Some(&bad)).await.unwrap();
    echoes(&mut good_stream).await.unwrap();
    echoes(&mut bad_stream).await.unwrap();
    site.put("ca.crl", &site.authority.crl(&[&bad], -1..1));
    site.tls.reload().unwrap();
    site.connections.sweep(&site.tls, DAY);
    assert!(echoes(&mut bad_stream).await.is_err());
    assert!(echoes(&mut good_stream).await.is_ok());
    assert!(site.metrics.encode().contains("connections_closed_total{reason=\"certificate\"} 1"));
}

#[tokio::test]
async fn idle_connection_ends_but_not_one_with_a_request_at_work() {
    let mut site = Site::plain();
    let client = site.authority.client(7, -1..1);
    let mut incoming = site.incoming.take().unwrap();
    let mut streams = Vec::new();
    let mut served = Vec::new();
    for _ in 0..2 {
        streams.push(site.connect(Some(&client)).await.unwrap());
        served.push(incoming.next().await.unwrap().unwrap());
    }
    let request = served[0].connect_info().request();
    site.connections.sweep(&site.tls, Duration::ZERO);
    let mut buffer = [0; 8];
    assert!(tokio::time::timeout(Duration::from_millis(50), served[0].read(&mut buffer)).await.is_err());
    assert!(served[1].read(&mut buffer).await.is_err());
    drop(request);
    site.connections.sweep(&site.tls, Duration::ZERO);
    assert!(served[0].read(&mut buffer).await.is_err());
}

#[tokio::test]
async fn older_tls_and_other_protocols_are_refused() {
    let mut site = Site::plain();
    site.echo();
    let client = site.authority.client(7, -1..1);
    assert!(site.connect_with(Some(&client), &rustls::version::TLS12, b"h2").await.is_err());
    assert!(site.connect_with(Some(&client), &rustls::version::TLS13, b"http/1.1").await.is_err());
    assert!(site.connect_with(Some(&client), &rustls::version::TLS13, b"h2").await.is_ok());
}

#[tokio::test]
async fn new_certificate_is_for_new_connections_and_the_old_ones_live_on() {
    let mut site = Site::plain();
    site.echo();
    let client = site.authority.client(7, -1..1);
    let mut old = site.connect(Some(&client)).await.unwrap();
    echoes(&mut old).await.unwrap();
    let renewed = site.authority.server(2);
    site.put("server.pem", &renewed.pem);
    site.put("server.key", &renewed.key);
    site.tls.reload().unwrap();
    let mut new = site.connect(Some(&client)).await.unwrap();
    echoes(&mut new).await.unwrap();
    echoes(&mut old).await.unwrap();
    assert_eq!((server_serial(&old), server_serial(&new)), (1, 2));
}

#[tokio::test]
async fn files_that_do_not_go_together_leave_the_old_ones_in_force() {
    let mut site = Site::new(Some(&|authority| authority.crl(&[], -1..1)), &Limits::default());
    site.echo();
    let client = site.authority.client(7, -1..1);
    let good = site.authority.server(2);
    let san = SanType::DnsName("localhost".try_into().unwrap());
    let expired = site.authority.issue(3, ExtendedKeyUsagePurpose::ServerAuth, san, -3..-1);
    let key = std::fs::read_to_string(site.dir.path().join("server.key")).unwrap();
    for (name, bad) in [
        ("server.pem", good.pem.as_str()),
        ("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("server.pem", ""),
        ("server.key", good.key.as_str()),
        ("server.key", "no key"),
        ("ca.pem", "no certificate"),
        ("ca.crl", "no list"),
    ] {
        let path = site.dir.path().join(name);
        let before = std::fs::read_to_string(&path).unwrap();
        site.put(name, bad);
        let error = site.tls.reload().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert!(!error.contains(key.lines().nth(1).unwrap()), "{error}");
        site.put(name, &before);
    }
    site.put("server.pem", &expired.pem);
    site.put("server.key", &expired.key);
    assert!(site.tls.reload().unwrap_err().to_string().contains("expired"));
    let stream = site.connect(Some(&client)).await.unwrap();
    assert_eq!(server_serial(&stream), 1);
}

#[tokio::test]
async fn watcher_takes_up_new_files_once_they_are_complete() {
    let mut site = Site::plain();
    site.echo();
    let client = site.authority.client(7, -1..1);
    let tls = site.tls.clone();
    let item = Reloadable { name: "tls", files: tls.files(), reload: Box::new(move || Ok(tls.reload()?)) };
    let metrics = site.metrics.clone();
    let watcher = tokio::spawn(async move {
        reload::watch(vec![item], Duration::from_millis(5), &tokio::sync::Notify::new(), &metrics).await;
    });
    let counted = |outcome: &str| format!("reloads_total{{what=\"tls\",outcome=\"{outcome}\"}} 1\n");
    let until = async |text: String| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !site.metrics.encode().contains(&text) {
            assert!(Instant::now() < deadline, "{text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let renewed = site.authority.server(2);
    site.put("server.pem", &renewed.pem);
    until(counted("refused")).await;
    assert_eq!(server_serial(&site.connect(Some(&client)).await.unwrap()), 1);
    site.put("server.key", &renewed.key);
    until(counted("ok")).await;
    assert_eq!(server_serial(&site.connect(Some(&client)).await.unwrap()), 2);
    watcher.abort();
}

#[tokio::test]
async fn stalled_handshakes_hold_up_nobody_and_time_out() {
    let limits = Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() };
    let mut site = Site::new(None, &limits);
    site.echo();
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(TcpStream::connect(("127.0.0.1", site.port)).await.unwrap());
    }
    let begun = Instant::now();
    site.serves(Some(&site.authority.client(7, -1..1))).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    for mut tcp in stalled {
        let closed = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut [0; 8])).await;
        assert!(matches!(closed.expect("closed in time"), Ok(0) | Err(_)));
    }
    assert!(site.metrics.encode().contains("connections_refused_total{reason=\"timeout\"} 50"));
}

#[tokio::test]
async fn client_that_sends_no_preface_is_closed_however_slowly_it_sends() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let mut site = Site::new(None, &limits);
    site.echo();
    let mut stream = site.connect(Some(&site.authority.client(7, -1..1))).await.unwrap();
    let begun = Instant::now();
    while stream.write_all(b"P").await.is_ok() && stream.flush().await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(5), "still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(site.metrics.encode().contains("connections_closed_total{reason=\"preface\"} 1"));
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let mut site = Site::new(None, &limits);
    site.echo();
    let client = site.authority.client(7, -1..1);
    let mut first = site.connect(Some(&client)).await.unwrap();
    echoes(&mut first).await.unwrap();
    assert!(site.serves(Some(&client)).await.is_err());
    echoes(&mut first).await.unwrap();
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while site.serves(Some(&client)).await.is_err() {
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn socket_is_closed_when_the_server_stops_taking_connections() {
    let mut site = Site::plain();
    drop(site.incoming.take());
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", site.port)).await.is_ok() {
        assert!(Instant::now() < deadline, "still accepted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Sampler;

#[async_trait::async_trait]
impl Sample for Sampler {
    async fn sample(&self, metrics: &Metrics) {
        metrics.keyring.set(3, 40, 5, 6);
    }
}

#[tokio::test]
async fn metrics_are_for_clients_of_the_authority_only() {
    let site = Site::plain();
    let address = ([127, 0, 0, 1], 0).into();
    let server =
        MetricsServer::bind(address, site.tls.clone(), site.metrics.clone(), Some(Box::new(Sampler)));
    let server = server.await.unwrap();
    let port = server.address().unwrap().port();
    let serving = tokio::spawn(server.run());
    let client = site.authority.client(7, -1..1);
    let get = async |client: Option<&Identity>, path: &str| {
        let mut stream = site.connect_to(port, client, &rustls::version::TLS13, b"http/1.1").await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8(answer).unwrap())
    };
    let answer = get(Some(&client), "/metrics").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n"), "{answer}");
    assert!(answer.contains("phi_vault_keyring_hits_total 40\n"), "{answer}");
    assert!(get(Some(&client), "/").await.unwrap().starts_with("HTTP/1.1 404 "));
    assert!(get(None, "/metrics").await.is_err());
    assert!(get(Some(&Authority::new("other").client(7, -1..1)), "/metrics").await.is_err());
    serving.abort();
}
