//! The bare service: the vault's messages and TLS, without a vault.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use vault_proto::v1::vault_service_server::{VaultService, VaultServiceServer};
use vault_proto::v1::{self, detokenize_result, tokenize_result};
use vault_server::app::config::{Limits, Tls};
use vault_server::app::connections::Connections;
use vault_server::app::listener::{Listener, Surroundings};
use vault_server::app::metrics::Metrics;
use vault_server::app::tls::{Callers, ReloadingTls};

/// As long as a token of environment `dev`.
const TOKEN: &str = "phi_dev_00000000000000000000000000000000";
const VALUE: &[u8] = b"999-31-4101";
const PADDING: [u8; 53] = [0; 53];

/// Serves until it is killed; prints its address.
pub(crate) async fn serve(pki: &Path) -> anyhow::Result<()> {
    let limits = Limits::default();
    let metrics = Arc::new(Metrics::new(Vec::new()));
    let tls = Tls {
        certificate: pki.join("server.pem"),
        key: pki.join("server.key"),
        client_ca: pki.join("ca.pem"),
        ..Tls::default()
    };
    let surroundings = Surroundings {
        tls: Arc::new(ReloadingTls::load(tls, Callers::Certified)?),
        connections: Arc::new(Connections::new(Arc::clone(&metrics))),
        metrics,
    };
    let listener = Listener::bind("127.0.0.1:0".parse()?)?;
    println!("ready https://{}", listener.address()?);
    let service = VaultServiceServer::new(Echo)
        .max_decoding_message_size(limits.max_message)
        .max_encoding_message_size(limits.max_message);
    tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(service)
        .serve_with_incoming(listener.accept(surroundings, &limits)?)
        .await?;
    Ok(())
}

struct Echo;

fn tokenized(request: &v1::TokenizeRequest) -> v1::TokenizeResponse {
    let result = |_| v1::TokenizeResult { outcome: Some(tokenize_result::Outcome::Token(TOKEN.to_owned())) };
    v1::TokenizeResponse { results: request.items.iter().map(result).collect() }
}

fn detokenized(request: &v1::DetokenizeRequest) -> v1::DetokenizeResponse {
    let value = || v1::Value { data: Bytes::from_static(VALUE), padding: Bytes::from_static(&PADDING) };
    let result = |_| v1::DetokenizeResult { outcome: Some(detokenize_result::Outcome::Value(value())) };
    v1::DetokenizeResponse { results: request.tokens.iter().map(result).collect() }
}

fn unmeasured<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not measured"))
}

#[tonic::async_trait]
impl VaultService for Echo {
    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        Ok(Response::new(tokenized(request.get_ref())))
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        Ok(Response::new(detokenized(request.get_ref())))
    }

    async fn mask(&self, _: Request<v1::MaskRequest>) -> Result<Response<v1::MaskResponse>, Status> {
        unmeasured()
    }

    async fn find(&self, _: Request<v1::FindRequest>) -> Result<Response<v1::FindResponse>, Status> {
        unmeasured()
    }

    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        unmeasured()
    }

    async fn erase(&self, _: Request<v1::EraseRequest>) -> Result<Response<v1::EraseResponse>, Status> {
        unmeasured()
    }

    type TokenizeStreamStream = BoxStream<'static, Result<v1::TokenizeStreamResponse, Status>>;

    async fn tokenize_stream(
        &self,
        request: Request<Streaming<v1::TokenizeStreamRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        let answers = request.into_inner().map(|message| {
            let v1::TokenizeStreamRequest { sequence, request } = message?;
            let response = tokenized(&request.unwrap_or_default());
            let outcome = Some(v1::tokenize_stream_response::Outcome::Response(response));
            Ok(v1::TokenizeStreamResponse { sequence, outcome })
        });
        Ok(Response::new(answers.boxed()))
    }

    type DetokenizeStreamStream = BoxStream<'static, Result<v1::DetokenizeStreamResponse, Status>>;

    async fn detokenize_stream(
        &self,
        request: Request<Streaming<v1::DetokenizeStreamRequest>>,
    ) -> Result<Response<Self::DetokenizeStreamStream>, Status> {
        let answers = request.into_inner().map(|message| {
            let v1::DetokenizeStreamRequest { sequence, request } = message?;
            let response = detokenized(&request.unwrap_or_default());
            let outcome = Some(v1::detokenize_stream_response::Outcome::Response(response));
            Ok(v1::DetokenizeStreamResponse { sequence, outcome })
        });
        Ok(Response::new(answers.boxed()))
    }
}
