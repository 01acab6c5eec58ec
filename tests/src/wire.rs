//! The API as bytes: the generated client over a connection of its own, without the client crate's kindnesses
//! (no retries, no batching, no padding).

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use vault_proto::v1::audit_service_client::AuditServiceClient;
use vault_proto::v1::vault_service_client::VaultServiceClient;
use vault_proto::v1::{self, detokenize_result, tokenize_result};

use crate::process::DevVault;

/// The largest answer that is read.
const LARGEST: usize = 64 << 20;

/// One connection.
#[derive(Clone)]
pub struct Wire {
    /// `VaultService`.
    pub vault: VaultServiceClient<Channel>,
    /// `AuditService`.
    pub audit: AuditServiceClient<Channel>,
    /// For other services.
    pub channel: Channel,
}

impl Wire {
    /// Connects as one of the vault's identities.
    ///
    /// # Panics
    /// If it can't.
    pub async fn connect(vault: &DevVault, identity: &str) -> Self {
        Self::try_connect(vault, identity).await.expect("a connection")
    }

    /// Connects, if the server lets it.
    pub async fn try_connect(vault: &DevVault, identity: &str) -> Result<Self, tonic::transport::Error> {
        Self::try_to(vault.dir(), vault.address(), identity).await
    }

    /// Connects to an address as one of the identities of a vault's directory.
    ///
    /// # Panics
    /// If it can't.
    pub async fn to(home: &Path, address: &str, identity: &str) -> Self {
        Self::try_to(home, address, identity).await.expect("a connection")
    }

    async fn try_to(home: &Path, address: &str, identity: &str) -> Result<Self, tonic::transport::Error> {
        let pki = home.join("pki");
        let (identity, to) = (identity.to_owned(), address.to_owned());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (pki, identity, to) = (pki.clone(), identity.clone(), to.clone());
            async move { tls(&pki, &identity, &to, b"h2").await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Self {
            vault: VaultServiceClient::new(channel.clone()).max_decoding_message_size(LARGEST),
            audit: AuditServiceClient::new(channel.clone()),
            channel,
        })
    }

    /// Tokenizes values of one class; every one must be taken.
    pub async fn tokens(&mut self, class: &str, values: &[&str]) -> Vec<String> {
        let items = values.iter().map(|value| item(class, value)).collect();
        let request = v1::TokenizeRequest { items, ..v1::TokenizeRequest::default() };
        let answer = self.vault.tokenize(request).await.expect("tokenize").into_inner();
        answer.results.iter().map(|result| token(result).expect("a token")).collect()
    }

    /// Detokenizes; each result is a value, or a code and a reason.
    pub async fn values(&mut self, tenant: &str, tokens: &[String]) -> Vec<Result<String, v1::ItemError>> {
        let request = detokenize(tenant, tokens);
        let answer = self.vault.detokenize(request).await.expect("detokenize").into_inner();
        answer.results.into_iter().map(value).collect()
    }

    /// Entries of an action, newest first.
    pub async fn entries(&mut self, action: &str) -> Vec<v1::AuditEntry> {
        let mut request = v1::AuditQueryRequest {
            tenant: "*".to_owned(),
            action: action.to_owned(),
            limit: 1000,
            ..v1::AuditQueryRequest::default()
        };
        let mut entries = Vec::new();
        loop {
            let answer = self.audit.query(request.clone()).await.expect("query").into_inner();
            entries.extend(answer.entries.into_iter().filter_map(|record| record.entry));
            if answer.next.is_empty() {
                return entries;
            }
            request.page = answer.next;
        }
    }
}

/// A TLS connection as one of the identities in `pki`.
pub async fn tls(
    pki: &Path,
    identity: &str,
    to: &str,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.pem")).expect("ca.pem")).expect("an authority");
    let chain =
        vec![CertificateDer::from_pem_file(pki.join(format!("{identity}.pem"))).expect("certificate")];
    let key = PrivateKeyDer::from_pem_file(pki.join(format!("{identity}.key"))).expect("key");
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("an identity");
    config.alpn_protocols = vec![protocol.to_vec()];
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let server = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(server, tcp).await
}

/// An item about nobody.
pub fn item(class: &str, value: &str) -> v1::TokenizeItem {
    v1::TokenizeItem {
        data_class: class.to_owned(),
        value: Some(v1::Value { data: value.as_bytes().to_vec().into(), padding: bytes::Bytes::new() }),
        subject: None,
    }
}

/// A request for treatment.
pub fn detokenize(tenant: &str, tokens: &[String]) -> v1::DetokenizeRequest {
    v1::DetokenizeRequest {
        tenant: tenant.to_owned(),
        tokens: tokens.to_vec(),
        purpose: "TREAT".to_owned(),
        ..v1::DetokenizeRequest::default()
    }
}

/// The token of a result.
pub fn token(result: &v1::TokenizeResult) -> Result<String, v1::ItemError> {
    match result.outcome.clone().expect("an outcome") {
        tokenize_result::Outcome::Token(token) => Ok(token),
        tokenize_result::Outcome::Error(error) => Err(error),
    }
}

/// The value of a result.
pub fn value(result: v1::DetokenizeResult) -> Result<String, v1::ItemError> {
    match result.outcome.expect("an outcome") {
        detokenize_result::Outcome::Value(value) => {
            Ok(String::from_utf8(value.data.to_vec()).expect("UTF-8"))
        }
        detokenize_result::Outcome::Error(error) => Err(error),
    }
}
