//! Calls of an identity provider: over TLS only, without following redirects, bounded in time and size.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;

use crate::failure::{Exit, Failure};

const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;

/// Speaks to one identity provider.
pub(super) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, Failure> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(ca)?)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }

    /// Gets a document.
    pub(super) async fn get<A: DeserializeOwned>(&self, uri: &str) -> Result<A, Failure> {
        let (status, body) = self.send(uri, "GET", Vec::new()).await?;
        if status != http::StatusCode::OK {
            return Err(unavailable(uri, &status));
        }
        serde_json::from_slice(&body).map_err(|_| unavailable(uri, &"an answer that can't be read"))
    }

    /// Sends a form; what comes back, good or bad, if it is JSON.
    pub(super) async fn post<A: DeserializeOwned>(
        &self,
        uri: &str,
        form: &[(&str, &str)],
    ) -> Result<A, Failure> {
        let fields: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let (status, body) = self.send(uri, "POST", fields.join("&").into_bytes()).await?;
        serde_json::from_slice(&body).map_err(|_| unavailable(uri, &status))
    }

    async fn send(
        &self,
        uri: &str,
        method: &str,
        body: Vec<u8>,
    ) -> Result<(http::StatusCode, Bytes), Failure> {
        let parsed: Uri = uri.parse().map_err(|_| unavailable(uri, &"not a URL"))?;
        if parsed.scheme_str() != Some("https") {
            return Err(unavailable(uri, &"does not begin with https://"));
        }
        let request = Request::builder()
            .method(method)
            .uri(parsed)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("user-agent", concat!("vaultctl/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(|error| unavailable(uri, &error))?;
        let answered = async {
            let answer = self.0.request(request).await.map_err(|error| unavailable(uri, &chain(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| unavailable(uri, &error))?.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, answered).await.map_err(|_| unavailable(uri, &"no answer in time"))?
    }
}

pub(super) fn unavailable(uri: &str, what: &dyn std::fmt::Display) -> Failure {
    let message = format!("the identity provider: {uri}: {what}");
    Failure::new(Exit::Unavailable, vault_client::Reason::Connection, message)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// `application/x-www-form-urlencoded`
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        let place = ca.map_or_else(|| "the system's".to_owned(), |file| file.display().to_string());
        Failure::wrong_use(format!("{place} certificates of authorities: {error}"))
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?;
    let Some(file) = ca else {
        return Ok(builder.with_native_roots().map_err(|error| wrong(&error))?.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_so_that_a_value_stays_one() {
        assert_eq!(encoded("urn:a b&c=d"), "urn%3Aa%20b%26c%3Dd");
    }
}
