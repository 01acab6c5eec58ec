//! The wire: HTTP/1.1 over TLS.

use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Device, Fault, Shared};

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("told to")]
struct Closed;

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve(listener: TcpListener, config: rustls::ServerConfig, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        if *shared.fault.lock() == Some(Fault::Down) {
            continue;
        }
        let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // A caller that goes away is no fault of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(|_| Closed)?.to_bytes();
    *shared.requests.lock().entry(path.clone()).or_default() += 1;
    let fault = *shared.fault.lock();
    match fault {
        Some(Fault::Down) => return Err(Closed),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Garbage) => return Ok(reply(StatusCode::OK, "<html>log in</html>".to_owned())),
        Some(Fault::Error) => return Ok(reply(StatusCode::INTERNAL_SERVER_ERROR, String::new())),
        Some(Fault::WrongIssuer) | None => {}
    }
    let issuer = &shared.issuer;
    let form = String::from_utf8_lossy(&body).into_owned();
    let (status, answer) = match path.as_str() {
        "/.well-known/openid-configuration" => {
            let named = if fault.is_some() { "https://other.example.org" } else { issuer };
            let metadata = json!({
                "issuer": named,
                "jwks_uri": format!("{issuer}/keys"),
                "token_endpoint": format!("{issuer}/token"),
                "device_authorization_endpoint": format!("{issuer}/device"),
            });
            (StatusCode::OK, metadata)
        }
        "/keys" => (StatusCode::OK, shared.keys.lock().set()),
        "/device" => (StatusCode::OK, shared.begin_device()),
        "/token" => shared.end_device(&form),
        _ => (StatusCode::NOT_FOUND, json!({})),
    };
    Ok(reply(status, answer.to_string()))
}

impl Shared {
    fn begin_device(&self) -> Value {
        let mut devices = self.devices.lock();
        let (code, user_code) = (format!("device-{}", devices.len()), format!("WDJB-{:04}", devices.len()));
        devices.insert(code.clone(), Device { user_code: user_code.clone(), ..Device::default() });
        json!({
            "device_code": code, "user_code": user_code, "verification_uri": format!("{}/activate", self.issuer),
            "expires_in": 120, "interval": 1,
        })
    }

    fn end_device(&self, form: &str) -> (StatusCode, Value) {
        let refused = |error: &str| (StatusCode::BAD_REQUEST, json!({ "error": error }));
        if !form.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code") {
            return refused("unsupported_grant_type");
        }
        let code = form.split('&').find_map(|field| field.strip_prefix("device_code=")).unwrap_or_default();
        let devices = self.devices.lock();
        let Some(device) = devices.get(code).filter(|device| !device.user_code.is_empty()) else {
            return refused("invalid_grant");
        };
        match &device.subject {
            _ if device.denied => refused("access_denied"),
            None => refused("authorization_pending"),
            Some(subject) => {
                let token = self.keys.lock().sign("RS256", &self.claims(subject));
                (StatusCode::OK, json!({ "access_token": token, "token_type": "Bearer" }))
            }
        }
    }
}

fn reply(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer
}
