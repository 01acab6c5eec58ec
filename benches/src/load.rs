//! The callers: the generated client over TLS 1.3 with a client certificate, nothing between; and tasks of a service that
//! share a `vault_client::Client`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use vault_client::{DataClass, NewValue, Plaintext, SubjectId};
use vault_proto::v1::vault_service_client::VaultServiceClient;
use vault_proto::v1::{self, detokenize_result, tokenize_result};

/// Connections that the callers share, as a pool of backend services would.
const CONNECTIONS: usize = 4;
const BATCH: usize = 1000;
const STREAM_BATCH: usize = 100;
/// How long callers call before it counts.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    DetokenizeOne,
    DetokenizeBatch,
    DetokenizeStream,
    TokenizeOne,
    TokenizeBatch,
    /// By `vault_client`, which makes one request of calls at the same time.
    DetokenizeShared,
    TokenizeShared,
}

impl Case {
    /// What clients of a service can do, and a bare one, too.
    pub(crate) const ALL: &[Case] = &[
        Self::DetokenizeOne,
        Self::DetokenizeBatch,
        Self::DetokenizeStream,
        Self::TokenizeOne,
        Self::TokenizeBatch,
    ];

    /// What tasks do that share a client of `vault_client`.
    pub(crate) const SHARED: &[Case] = &[Self::DetokenizeShared, Self::TokenizeShared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DetokenizeOne => "detokenize, one a call",
            Self::DetokenizeBatch => "detokenize, 1,000 a call",
            Self::DetokenizeStream => "detokenize, stream of 100s",
            Self::TokenizeOne => "tokenize, one a call",
            Self::TokenizeBatch => "tokenize, 1,000 a call",
            Self::DetokenizeShared => "detokenize, vault-client",
            Self::TokenizeShared => "tokenize, vault-client",
        }
    }

    pub(crate) fn items(self) -> usize {
        match self {
            Self::DetokenizeOne | Self::TokenizeOne | Self::DetokenizeShared | Self::TokenizeShared => 1,
            Self::DetokenizeBatch | Self::TokenizeBatch => BATCH,
            Self::DetokenizeStream => STREAM_BATCH,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) items_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

type Client = VaultServiceClient<Channel>;

/// A server under load.
pub(crate) struct Target {
    clients: Vec<Client>,
    shared: vault_client::Client,
    tokens: Arc<Vec<String>>,
}

impl Target {
    /// The callers are spread over the addresses.
    pub(crate) async fn connect(pki: &Path, addresses: &[&str]) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS.next_multiple_of(addresses.len()) {
            clients.push(connect(pki, addresses[number % addresses.len()]).await?);
        }
        let mut shared = vault_client::Client::builder()
            .ca_file(pki.join("ca.pem"))
            .identity_files(pki.join("service.pem"), pki.join("service.key"));
        for address in addresses {
            shared = shared.endpoint(format!("https://{address}"));
        }
        let shared = shared.connect()?;
        let response = clients[0].clone().tokenize(tokenize_request(BATCH)).await?.into_inner();
        let tokens = response.results.into_iter().map(|result| match result.outcome {
            Some(tokenize_result::Outcome::Token(token)) => Ok(token),
            other => anyhow::bail!("no token: {other:?}"),
        });
        Ok(Self { tokens: Arc::new(tokens.collect::<Result<_, _>>()?), clients, shared })
    }

    /// Runs a case with so many callers for so long.
    pub(crate) async fn measure(
        &self,
        case: Case,
        callers: usize,
        time: Duration,
    ) -> anyhow::Result<Figures> {
        let callers = if case.items() == 1 { callers } else { callers.div_ceil(8) };
        let from = Instant::now() + WARM_UP;
        let until = from + time;
        let mut running = JoinSet::new();
        for caller in 0..callers {
            let client = self.clients[caller % self.clients.len()].clone();
            let (tokens, shared) = (Arc::clone(&self.tokens), self.shared.clone());
            running.spawn(async move {
                match case {
                    Case::DetokenizeStream => stream(client, &tokens, from, until).await,
                    Case::DetokenizeShared | Case::TokenizeShared => {
                        single_calls(shared, case, &tokens, caller, from, until).await
                    }
                    _ => calls(client, case, &tokens, caller, from, until).await,
                }
            });
        }
        let mut times = Vec::new();
        while let Some(done) = running.join_next().await {
            times.extend(done??);
        }
        anyhow::ensure!(!times.is_empty(), "nothing was answered in time");
        times.sort_unstable();
        let items = times.len() * case.items();
        Ok(Figures {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            items_per_second: items as f64 / time.as_secs_f64(),
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        })
    }
}

/// Calls one after the other; gives how long each took that ended within the measured time.
async fn calls(
    mut client: Client,
    case: Case,
    tokens: &[String],
    caller: usize,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut next = caller * 17;
    loop {
        let started = Instant::now();
        match case {
            Case::DetokenizeOne => {
                let token = tokens[next % tokens.len()].clone();
                check_values(&client.detokenize(detokenize_request(vec![token])).await?.into_inner(), 1)?;
            }
            Case::DetokenizeBatch => {
                let request = detokenize_request(tokens.to_vec());
                check_values(&client.detokenize(request).await?.into_inner(), tokens.len())?;
            }
            Case::TokenizeOne | Case::TokenizeBatch => {
                let response = client.tokenize(tokenize_request(case.items())).await?.into_inner();
                let token =
                    |r: &v1::TokenizeResult| matches!(r.outcome, Some(tokenize_result::Outcome::Token(_)));
                anyhow::ensure!(response.results.iter().all(token), "an item failed");
            }
            Case::DetokenizeStream | Case::DetokenizeShared | Case::TokenizeShared => {
                anyhow::bail!("called otherwise")
            }
        }
        next += 1;
        let now = Instant::now();
        if now > until {
            return Ok(times);
        }
        if started >= from {
            times.push(now - started);
        }
    }
}

/// Calls for one value, one after the other, by a client that others use at the same time.
async fn single_calls(
    client: vault_client::Client,
    case: Case,
    tokens: &[String],
    caller: usize,
    from: Instant,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let tokens = tokens.iter().map(|token| token.parse()).collect::<Result<Vec<vault_client::Token>, _>>()?;
    let options = vault_client::DetokenizeOptions::default();
    let mut times = Vec::new();
    for next in caller * 17.. {
        let started = Instant::now();
        if case == Case::DetokenizeShared {
            let token = &tokens[next % tokens.len()];
            let value = client.detokenize_one(token, vault_client::Purpose::Treatment, &options).await?;
            // To see that it came.
            anyhow::ensure!(!value.expose().is_empty(), "no value");
        } else {
            let value = Plaintext::new("999-31-4101".to_owned());
            let about = SubjectId::new(format!("p-{:04}", next % 500))?;
            client.tokenize_one(NewValue::new(DataClass::SSN, value).about(about)).await?;
        }
        let now = Instant::now();
        if now > until {
            break;
        }
        if started >= from {
            times.push(now - started);
        }
    }
    Ok(times)
}

/// A stream that keeps a few messages in flight.
async fn stream(
    mut client: Client,
    tokens: &[String],
    from: Instant,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    const IN_FLIGHT: usize = 4;
    let (send, receive) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let batch: Vec<String> = tokens[..STREAM_BATCH].to_vec();
    let feeder = tokio::spawn(async move {
        let mut sequence = 0;
        while Instant::now() < until {
            let request = Some(detokenize_request(batch.clone()));
            if send.send(v1::DetokenizeStreamRequest { sequence, request }).await.is_err() {
                break;
            }
            sequence += 1;
        }
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut answers = client.detokenize_stream(requests).await?.into_inner();
    let mut times = Vec::new();
    let mut last = Instant::now();
    while let Some(answer) = answers.next().await {
        let Some(v1::detokenize_stream_response::Outcome::Response(response)) = answer?.outcome else {
            anyhow::bail!("a message failed");
        };
        check_values(&response, STREAM_BATCH)?;
        let now = Instant::now();
        if last >= from && now <= until {
            times.push(now - last);
        }
        last = now;
    }
    feeder.await?;
    Ok(times)
}

fn check_values(response: &v1::DetokenizeResponse, count: usize) -> anyhow::Result<()> {
    let value = |r: &v1::DetokenizeResult| matches!(r.outcome, Some(detokenize_result::Outcome::Value(_)));
    anyhow::ensure!(response.results.len() == count && response.results.iter().all(value), "an item failed");
    Ok(())
}

fn detokenize_request(tokens: Vec<String>) -> v1::DetokenizeRequest {
    v1::DetokenizeRequest { tokens, purpose: "TREAT".to_owned(), ..v1::DetokenizeRequest::default() }
}

fn tokenize_request(count: usize) -> v1::TokenizeRequest {
    let item = |number: usize| v1::TokenizeItem {
        data_class: "ssn".to_owned(),
        value: Some(v1::Value {
            data: Bytes::from_static(b"999-31-4101"),
            padding: Bytes::from_static(&[0; 53]),
        }),
        subject: Some(v1::SubjectId { id: format!("p-{:04}", number / 2) }),
    };
    v1::TokenizeRequest { items: (0..count).map(item).collect(), ..v1::TokenizeRequest::default() }
}

async fn connect(pki: &Path, address: &str) -> anyhow::Result<Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem"))?)?;
    let chain = CertificateDer::pem_file_iter(pki.join("service.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(pki.join("service.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let to = address.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (tls, to) = (tls.clone(), to.clone());
        async move {
            let tcp = TcpStream::connect(to).await?;
            tcp.set_nodelay(true)?;
            let stream =
                tls.connect(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()), tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_with_connector(connector)
        .await
        .context("can't connect")?;
    Ok(VaultServiceClient::new(channel).max_decoding_message_size(64 << 20))
}
