//! Asks an issuer for its keys: OpenID Connect Discovery 1.0, section 4, and RFC 7517. Over TLS only; redirects are not
//! followed; no more is read than there may be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::super::config::OidcIssuer;
use crate::access::oidc::{KeySet, MAX_SET};

/// Where an issuer's keys come from.
pub(super) struct Source {
    issuer: String,
    jwks_uri: Option<String>,
    timeout: Duration,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// What of a provider's metadata counts here.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    /// Reads the authority's certificates.
    pub(super) fn new(issuer: &OidcIssuer, timeout: Duration) -> anyhow::Result<Self> {
        let tls = client_config(issuer.ca.as_deref())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        // Keys are asked for seldom: a connection that was left open would only have died meanwhile.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { issuer: issuer.issuer.clone(), jwks_uri: issuer.jwks_uri.clone(), timeout, client })
    }

    /// The keys, as they are now.
    pub(super) async fn keys(&self) -> anyhow::Result<KeySet> {
        let fetch = async {
            let uri = match &self.jwks_uri {
                Some(uri) => uri.clone(),
                None => self.discover().await?,
            };
            let set = self.get(&uri).await?;
            KeySet::parse(&set).with_context(|| uri)
        };
        tokio::time::timeout(self.timeout, fetch).await.context("it takes too long")?
    }

    async fn discover(&self) -> anyhow::Result<String> {
        let uri = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata = self.get(&uri).await?;
        let metadata: Metadata = serde_json::from_slice(&metadata)
            .ok()
            .with_context(|| format!("{uri}: not a provider's metadata"))?;
        // Section 4.3: a provider that speaks for another one is not believed.
        ensure!(metadata.issuer == self.issuer, "{uri}: is about another issuer");
        Ok(metadata.jwks_uri)
    }

    async fn get(&self, uri: &str) -> anyhow::Result<Bytes> {
        let parsed: Uri = uri.parse().with_context(|| format!("{uri:?} is no URL"))?;
        ensure!(parsed.scheme_str() == Some("https"), "{uri:?} does not begin with https://");
        let request = Request::get(parsed)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("phi-vault/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())?;
        let answer = self.client.request(request).await.with_context(|| uri.to_owned())?;
        if answer.status() != StatusCode::OK {
            bail!("{uri}: {}", answer.status());
        }
        let body = Limited::new(answer.into_body(), MAX_SET).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).with_context(|| uri.to_owned())?;
        Ok(body.to_bytes())
    }
}

fn client_config(ca: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let Some(file) = ca else {
        use hyper_rustls::ConfigBuilderExt as _;
        let builder = builder.with_native_roots().context("the system's authorities")?;
        return Ok(builder.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(|| file.display().to_string())? {
        roots.add(certificate.with_context(|| file.display().to_string())?)?;
    }
    ensure!(!roots.is_empty(), "{}: no certificate in PEM", file.display());
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
