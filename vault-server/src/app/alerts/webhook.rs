//! One delivery: a connection, a POST, a status. hyper's client over tokio-rustls, which are here already: nothing that follows
//! redirects, keeps cookies or asks the environment for a proxy, and nothing kept between deliveries.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::signature::{Secrets, SecretsError};
use crate::access::WaitingAlert;
use crate::app::config::{self, Alerts};
use crate::domain::Timestamp;

/// A receiver of alerts.
pub struct Webhook {
    uri: Uri,
    secrets: PathBuf,
    tls: Option<TlsConnector>,
    timeout: Duration,
}

/// Why an alert was not delivered. Without the receiver's URL: its path may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum NotDelivered {
    /// No connection to the receiver.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The receiver broke off.
    #[error("broken off: {0}")]
    Http(#[from] hyper::Error),
    /// The receiver did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The receiver answered, but not that it took it.
    #[error("answered {0}")]
    Status(StatusCode),
    /// It can't be signed.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

impl Webhook {
    /// As configured; `None` if alerts go nowhere.
    pub fn open(section: &Alerts) -> anyhow::Result<Option<Self>> {
        let (Some(url), Some(secrets)) = (&section.webhook, &section.secret_file) else { return Ok(None) };
        let uri = config::receiver(url).context("alerts.webhook")?;
        Secrets::read(secrets)?;
        let tls = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { Some(tls(section)?) } else { None };
        Ok(Some(Self { uri, secrets: secrets.clone(), tls, timeout: section.timeout }))
    }

    /// Delivers an alert. At `Ok` the receiver has it.
    pub async fn deliver(&self, alert: &WaitingAlert, now: Timestamp) -> Result<(), NotDelivered> {
        match tokio::time::timeout(self.timeout, self.post(alert, now)).await {
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status)) => Err(NotDelivered::Status(status)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NotDelivered::Timeout),
        }
    }

    async fn post(&self, alert: &WaitingAlert, now: Timestamp) -> Result<StatusCode, NotDelivered> {
        let (id, seconds) = (alert.id.to_string(), now.0 / 1_000_000);
        let signature = Secrets::read(&self.secrets)?.sign(&id, seconds, &alert.body);
        let authority = self.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let request = Request::post(self.uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, concat!("phi-vault/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(alert.body.clone())))
            .map_err(|error| NotDelivered::Connect(io::Error::other(error)))?;
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(NotDelivered::Connect)?;
        match &self.tls {
            None => exchange(tcp, request).await,
            Some(tls) => {
                let name = ServerName::try_from(host)
                    .map_err(|error| NotDelivered::Connect(io::Error::other(error)))?;
                exchange(tls.connect(name, tcp).await.map_err(NotDelivered::Connect)?, request).await
            }
        }
    }
}

/// One request and the status of its answer, on a connection that ends with it. The answer's body is not read.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, NotDelivered> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => Ok(answer?.status()),
        ended = connection => {
            ended?;
            // The connection ended in good order: the answer is there, or will never be.
            Ok(answer.await?.status())
        }
    }
}

fn tls(section: &Alerts) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match &section.ca {
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                let certificate = certificate.ok().with_context(|| format!("{}: no PEM", file.display()))?;
                roots.add(certificate).with_context(|| file.display().to_string())?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    anyhow::ensure!(!roots.is_empty(), "no authority for the receiver of alerts: set alerts.ca");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
