//! A vault that keeps values in a map, over real TLS, and does as it is told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status, Streaming};
use vault_proto::v1::audit_service_server::AuditServiceServer;
use vault_proto::v1::break_glass_service_server::BreakGlassServiceServer;
use vault_proto::v1::key_service_server::KeyServiceServer;
use vault_proto::v1::vault_service_server::{VaultService, VaultServiceServer};
use vault_proto::v1::*;

use crate::audit::FakeAudit;
use crate::break_glass::FakeBreakGlass;
use crate::keys::FakeKeys;
use crate::pki::Pki;

pub(crate) type Answer<T> = Result<Response<T>, Status>;
type Fault = Box<dyn Fn() -> Result<(), Status> + Send>;

/// What the fake saw, and what it shall do.
#[derive(Default)]
pub(crate) struct State {
    /// Tokens to values.
    pub(crate) values: Mutex<HashMap<String, Vec<u8>>>,
    /// Answers by idempotency key.
    by_key: Mutex<HashMap<String, TokenizeResponse>>,
    /// Requests as they came: number of items, `grpc-timeout`, idempotency key.
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Encoded lengths of the items that came.
    pub(crate) sizes: Mutex<Vec<usize>>,
    /// What the next calls are answered with, after they were carried out.
    pub(crate) faults: Mutex<Vec<Fault>>,
    /// So many of the next calls answer that one of their items is in trouble that may pass.
    pub(crate) troubles: AtomicUsize,
    /// How long calls take.
    pub(crate) delay: Mutex<Duration>,
    /// More values than so many don't fit one answer.
    pub(crate) most_values: AtomicUsize,
    /// Fingerprints of the clients' certificates, by connection.
    pub(crate) clients: Mutex<Vec<Vec<u8>>>,
    /// Logs and their leaves.
    pub(crate) logs: Mutex<BTreeMap<u32, Vec<Vec<u8>>>>,
    /// Versions of keys, oldest first.
    pub(crate) keys: Mutex<Vec<Key>>,
    /// Jobs by id, the same for all instances of a vault.
    pub(crate) jobs: Arc<Mutex<BTreeMap<String, Job>>>,
    /// The next token's number.
    next: AtomicUsize,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) items: usize,
    pub(crate) timeout: String,
    pub(crate) key: String,
    pub(crate) detail: String,
}

impl State {
    pub(crate) fn fail_next(&self, fault: impl Fn() -> Status + Send + 'static) {
        self.faults.lock().unwrap().push(Box::new(move || Err(fault())));
    }

    /// Of another instance of the same vault.
    pub(crate) fn beside(&self) -> Self {
        Self { jobs: Arc::clone(&self.jobs), ..Self::default() }
    }

    pub(crate) fn pass_next(&self) {
        self.faults.lock().unwrap().push(Box::new(|| Ok(())));
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) async fn note<T>(&self, request: &Request<T>, items: usize, key: &str, detail: &str) {
        let timeout = request.metadata().get("grpc-timeout").map(|v| v.to_str().unwrap().to_owned());
        let timeout = timeout.unwrap_or_default();
        self.seen.lock().unwrap().push(Seen { items, timeout, key: key.into(), detail: detail.into() });
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
    }

    pub(crate) fn fault(&self) -> Result<(), Status> {
        let mut faults = self.faults.lock().unwrap();
        if faults.is_empty() { Ok(()) } else { faults.remove(0)() }
    }

    /// The place of the item that this call is in trouble with: the last but one, or the only one.
    fn trouble(&self, items: usize) -> Option<usize> {
        let less = |left: usize| left.checked_sub(1);
        let is_next = self.troubles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        is_next.then(|| items.saturating_sub(2))
    }

    fn keep(&self, request: TokenizeRequest) -> TokenizeResponse {
        if let Some(before) = self.by_key.lock().unwrap().get(&request.idempotency_key) {
            return before.clone();
        }
        let results = request.items.into_iter().map(|item| {
            use prost::Message as _;
            self.sizes.lock().unwrap().push(item.encoded_len());
            let value = item.value.unwrap().data;
            let refused = match &value[..] {
                _ if item.data_class == "nosuch" => Some(Reason::ClassUnknown),
                b"" => Some(Reason::ValueEmpty),
                value if value.starts_with(b"bad") => Some(Reason::ValueInvalid),
                _ => None,
            };
            if let Some(reason) = refused {
                return TokenizeResult { outcome: Some(tokenize_result::Outcome::Error(invalid(reason))) };
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed) as u128;
            let token = token(number);
            self.values.lock().unwrap().insert(token.clone(), value.to_vec());
            TokenizeResult { outcome: Some(tokenize_result::Outcome::Token(token)) }
        });
        let response = TokenizeResponse { results: results.collect() };
        self.by_key.lock().unwrap().insert(request.idempotency_key, response.clone());
        response
    }

    fn give(&self, request: &DetokenizeRequest) -> DetokenizeResponse {
        let values = self.values.lock().unwrap();
        let trouble = self.trouble(request.tokens.len());
        let one = |(at, token): (usize, &String)| {
            let outcome = match values.get(token) {
                _ if trouble == Some(at) => detokenize_result::Outcome::Error(passing()),
                Some(value) => detokenize_result::Outcome::Value(Value {
                    data: value.clone().into(),
                    padding: vec![0; 7].into(),
                }),
                None => detokenize_result::Outcome::Error(unknown()),
            };
            DetokenizeResult { outcome: Some(outcome) }
        };
        DetokenizeResponse { results: request.tokens.iter().enumerate().map(one).collect() }
    }
}

/// A token of environment `dev`.
pub(crate) fn token(number: u128) -> String {
    let environment = vault_client::Environment::parse("dev").unwrap();
    vault_format::token::Token::from_bytes(number.to_be_bytes()).encode(&environment)
}

fn unknown() -> ItemError {
    ItemError { code: 5, reason: Reason::NotFound.into(), ..ItemError::default() }
}

fn passing() -> ItemError {
    let reason = Reason::StoreUnavailable.into();
    ItemError { code: 14, reason, retry_after_ms: 20, ..ItemError::default() }
}

fn invalid(reason: Reason) -> ItemError {
    ItemError { code: 3, reason: reason.into(), field: "items[0].value".into(), ..ItemError::default() }
}

pub(crate) struct Fake(pub(crate) Arc<State>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl VaultService for Fake {
    async fn tokenize(&self, request: Request<TokenizeRequest>) -> Answer<TokenizeResponse> {
        let message = request.get_ref();
        self.0.note(&request, message.items.len(), &message.idempotency_key, "tokenize").await;
        let answer = self.0.keep(request.into_inner());
        self.0.fault()?;
        Ok(Response::new(answer))
    }

    async fn detokenize(&self, request: Request<DetokenizeRequest>) -> Answer<DetokenizeResponse> {
        let message = request.get_ref();
        self.0.note(&request, message.tokens.len(), "", &message.purpose).await;
        self.0.fault()?;
        let most = self.0.most_values.load(Ordering::Relaxed);
        if most > 0 && request.get_ref().tokens.len() > most {
            use tonic_types::{ErrorDetails, StatusExt as _};
            let details = ErrorDetails::with_error_info("RESPONSE_TOO_LARGE", "phi-vault", HashMap::new());
            return Err(Status::with_error_details(tonic::Code::ResourceExhausted, "too large", details));
        }
        Ok(Response::new(self.0.give(request.get_ref())))
    }

    async fn mask(&self, request: Request<MaskRequest>) -> Answer<MaskResponse> {
        self.0.note(&request, request.get_ref().tokens.len(), "", "mask").await;
        self.0.fault()?;
        let values = self.0.values.lock().unwrap();
        let one = |token: &String| MaskResult {
            outcome: Some(match values.get(token) {
                Some(_) => mask_result::Outcome::Masked("***".to_owned()),
                None => mask_result::Outcome::Error(unknown()),
            }),
        };
        Ok(Response::new(MaskResponse { results: request.get_ref().tokens.iter().map(one).collect() }))
    }

    async fn find(&self, request: Request<FindRequest>) -> Answer<FindResponse> {
        self.0.note(&request, request.get_ref().values.len(), "", &request.get_ref().data_class).await;
        self.0.fault()?;
        let values = self.0.values.lock().unwrap();
        let trouble = self.0.trouble(request.get_ref().values.len());
        let one = |(at, value): (usize, &Value)| {
            if trouble == Some(at) {
                return FindResult { outcome: Some(find_result::Outcome::Error(passing())) };
            }
            let matches = values.iter().filter(|(_, kept)| kept[..] == value.data[..]);
            let tokens = matches.map(|(token, _)| token.clone()).collect();
            FindResult {
                outcome: Some(find_result::Outcome::Matches(FindMatches { tokens, truncated: false })),
            }
        };
        let results = request.get_ref().values.iter().enumerate().map(one).collect();
        Ok(Response::new(FindResponse { results }))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Answer<DescribeResponse> {
        self.0.note(&request, request.get_ref().tokens.len(), "", "describe").await;
        self.0.fault()?;
        let one = |_: &String| {
            let known =
                Description { tenant: "t".into(), data_class: "ssn".into(), state: 1, ..Default::default() };
            DescribeResult { outcome: Some(describe_result::Outcome::Description(known)) }
        };
        Ok(Response::new(DescribeResponse { results: request.get_ref().tokens.iter().map(one).collect() }))
    }

    async fn erase(&self, request: Request<EraseRequest>) -> Answer<EraseResponse> {
        self.0.note(&request, request.get_ref().tokens.len(), "", "erase").await;
        let mut values = self.0.values.lock().unwrap();
        let erased: Vec<_> = request
            .get_ref()
            .tokens
            .iter()
            .map(|token| EraseResult {
                token: token.clone(),
                outcome: Some(erase_result::Outcome::Erased(values.remove(token).is_some())),
            })
            .collect();
        self.0.fault()?;
        Ok(Response::new(EraseResponse { results: erased }))
    }

    type TokenizeStreamStream = Answers<TokenizeStreamResponse>;

    async fn tokenize_stream(
        &self,
        request: Request<Streaming<TokenizeStreamRequest>>,
    ) -> Answer<Self::TokenizeStreamStream> {
        let state = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |message| {
            let message = message?;
            state.fault()?;
            let outcome = tokenize_stream_response::Outcome::Response(state.keep(message.request.unwrap()));
            Ok(TokenizeStreamResponse { sequence: message.sequence, outcome: Some(outcome) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type DetokenizeStreamStream = Answers<DetokenizeStreamResponse>;

    async fn detokenize_stream(
        &self,
        request: Request<Streaming<DetokenizeStreamRequest>>,
    ) -> Answer<Self::DetokenizeStreamStream> {
        let state = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |message| {
            let message = message?;
            let request = message.request.unwrap();
            let outcome = if request.tokens.is_empty() {
                detokenize_stream_response::Outcome::Error(ItemError {
                    code: 3,
                    reason: Reason::NoItems.into(),
                    ..ItemError::default()
                })
            } else {
                detokenize_stream_response::Outcome::Response(state.give(&request))
            };
            Ok(DetokenizeStreamResponse { sequence: message.sequence, outcome: Some(outcome) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// A running fake; stops when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) fn uri(&self) -> String {
        format!("https://127.0.0.1:{}", self.address.port())
    }

    /// As if by kill -9: connections end where they are.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a fake. Each connection is a task of its own below one that can be killed.
pub(crate) async fn start(pki: &Pki, state: Arc<State>) -> Running {
    start_on(pki, state, TcpListener::bind("127.0.0.1:0").await.unwrap())
}

/// On a socket that was bound before.
pub(crate) fn start_on(pki: &Pki, state: Arc<State>, listener: TcpListener) -> Running {
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(pki.server_config()));
    let seen = Arc::clone(&state);
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(tcp, _)| tcp);
        Some((accepted, listener))
    })
    .filter_map(move |tcp| {
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        async move {
            let tls = acceptor.accept(tcp.ok()?).await.ok()?;
            let peer = tls.get_ref().1.peer_certificates()?.first()?.to_vec();
            seen.clients.lock().unwrap().push(peer);
            Some(Ok::<_, std::io::Error>(Tls(tls)))
        }
    });
    let service = VaultServiceServer::new(Fake(Arc::clone(&state))).max_decoding_message_size(64 << 20);
    let audit = AuditServiceServer::new(FakeAudit(Arc::clone(&state)));
    let keys = KeyServiceServer::new(FakeKeys(Arc::clone(&state)));
    let break_glass = BreakGlassServiceServer::new(FakeBreakGlass(Arc::clone(&state)));
    let server = Server::builder().add_service(service).add_service(audit).add_service(keys);
    let server = server.add_service(break_glass);
    let server = server.serve_with_incoming(incoming);
    // On a runtime of its own thread, so that killing it drops its connections, too.
    let task = tokio::spawn(async move {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = runtime.spawn(server) => {}
                    _ = stopped => {}
                }
            });
        });
        let _keep = (stop, thread);
        std::future::pending::<()>().await;
    });
    Running { address, state, task }
}

struct Tls(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

impl Connected for Tls {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The certificate in a PEM file, as DER.
pub(crate) fn der(path: &std::path::Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}
