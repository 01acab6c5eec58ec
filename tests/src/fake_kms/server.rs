//! The wire: HTTP/1.1, `X-Amz-Target: TrentService.<operation>`, JSON in and out, byte strings in base64.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::keys::{Code, Keys, Pairs, random};
use super::{Fault, Request, Shared};

type Answer = Response<Full<Bytes>>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("told to")]
struct Closed;

/// Serves until it is dropped; its connections end with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            // A caller that goes away is no fault of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: Arc<Shared>, request: hyper::Request<Incoming>) -> Result<Answer, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let operation = header("x-amz-target").strip_prefix("TrentService.").unwrap_or("").to_owned();
    let parsed: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let noted = Request {
        operation: operation.clone(),
        body: parsed.clone(),
        text: format!("{} {:?}\n{}", head.uri, head.headers, String::from_utf8_lossy(&body)),
    };
    let fault = shared.control.lock().receive(noted, Instant::now());
    match &fault {
        Some(Fault::Status(status)) => {
            return Ok(reply(StatusCode::from_u16(*status).map_err(|_| Closed)?, Bytes::new()));
        }
        Some(Fault::Error(code)) => return Ok(error(code)),
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => return Err(Closed),
        Some(Fault::Garbage) => return Ok(reply(StatusCode::OK, "<html>not JSON</html>".into())),
        Some(Fault::PlaintextOf(_) | Fault::KeyId(_)) | None => {}
    }
    if header("authorization").is_empty() {
        return Ok(error("MissingAuthenticationTokenException"));
    }
    if shared.control.lock().denied.contains(&operation.as_str()) {
        return Ok(error("AccessDeniedException"));
    }
    let done = perform(&shared.keys.lock(), &operation, &parsed);
    Ok(match done {
        Ok(mut body) => {
            *shared.control.lock().answered.entry(operation).or_default() += 1;
            tamper(&mut body, fault);
            reply(StatusCode::OK, body.to_string().into())
        }
        Err(code) => error(code),
    })
}

fn perform(keys: &Keys, operation: &str, body: &Value) -> Result<Value, Code> {
    let named = body["KeyId"].as_str();
    let context = || pairs(&body["EncryptionContext"]);
    let required = || named.ok_or("ValidationException");
    match operation {
        "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => {
            let key = keys.usable(required()?)?;
            if body["KeySpec"].as_str() != Some("AES_256") {
                return Err("ValidationException");
            }
            let plain = random::<32>().map_err(|_| "KMSInternalException")?;
            let blob = key.seal(&plain, &context()?).map_err(|_| "KMSInternalException")?;
            let mut answer = json!({ "KeyId": key.arn, "CiphertextBlob": STANDARD.encode(blob) });
            if operation == "GenerateDataKey" {
                answer["Plaintext"] = STANDARD.encode(plain).into();
            }
            Ok(answer)
        }
        "Encrypt" => {
            let key = keys.usable(required()?)?;
            let plain = bytes(&body["Plaintext"])?;
            if !(1..=4096).contains(&plain.len()) {
                return Err("ValidationException");
            }
            let blob = key.seal(&plain, &context()?).map_err(|_| "KMSInternalException")?;
            Ok(json!({ "KeyId": key.arn, "CiphertextBlob": STANDARD.encode(blob) }))
        }
        "Decrypt" => {
            let (key, plain) = keys.decrypt(named, &bytes(&body["CiphertextBlob"])?, &context()?)?;
            Ok(json!({ "KeyId": key.arn, "Plaintext": STANDARD.encode(plain) }))
        }
        "ReEncrypt" => {
            let blob = bytes(&body["CiphertextBlob"])?;
            let from = pairs(&body["SourceEncryptionContext"])?;
            let (source, plain) = keys.decrypt(body["SourceKeyId"].as_str(), &blob, &from)?;
            let target = keys.usable(body["DestinationKeyId"].as_str().ok_or("ValidationException")?)?;
            let to = pairs(&body["DestinationEncryptionContext"])?;
            let blob = target.seal(&plain, &to).map_err(|_| "KMSInternalException")?;
            Ok(json!({
                "KeyId": target.arn, "SourceKeyId": source.arn, "CiphertextBlob": STANDARD.encode(blob)
            }))
        }
        "DescribeKey" => {
            let key = keys.get(required()?).ok_or("NotFoundException")?;
            let state = format!("{:?}", key.status);
            let enabled = state == "Enabled";
            Ok(json!({ "KeyMetadata": {
                "KeyId": key.id, "Arn": key.arn, "KeyState": state, "Enabled": enabled
            }}))
        }
        _ => Err("UnknownOperationException"),
    }
}

/// Makes a right answer wrong, if told to.
fn tamper(body: &mut Value, fault: Option<Fault>) {
    match fault {
        Some(Fault::PlaintextOf(len)) => body["Plaintext"] = STANDARD.encode(vec![1; len]).into(),
        Some(Fault::KeyId(other)) => body["KeyId"] = other.into(),
        _ => {}
    }
}

fn pairs(context: &Value) -> Result<Pairs, Code> {
    let none = Map::new();
    let context = match context {
        Value::Null => &none,
        Value::Object(context) => context,
        _ => return Err("SerializationException"),
    };
    context
        .iter()
        .map(|(name, value)| Ok((name.clone(), value.as_str().ok_or("SerializationException")?.to_owned())))
        .collect()
}

fn bytes(value: &Value) -> Result<Vec<u8>, Code> {
    STANDARD.decode(value.as_str().ok_or("ValidationException")?).map_err(|_| "SerializationException")
}

fn error(code: &str) -> Answer {
    let status = match code {
        "KMSInternalException" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = json!({ "__type": code, "message": "" });
    reply(status, body.to_string().into())
}

fn reply(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
