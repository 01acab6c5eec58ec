//! `vault.v1.VaultService`.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::Semaphore;

use tonic::{Request, Response, Status, Streaming};
use vault_proto::v1::vault_service_server::VaultService;
use vault_proto::v1::{self, detokenize_result, erase_result, find_result, mask_result, tokenize_result};

use crate::access::Credential;
use crate::audit::AuditAction;
use crate::domain::{Body, Timestamp, Token};
use crate::vault::{
    Context, Described, EraseTarget, Erased, Found, Note, Opened, ParsedToken, Problem, Refused, Vault,
};

use super::status::{item_error, message_error, status};
use super::{Observer, WireLimits, parse, peer};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct VaultApi {
    service: Arc<Service>,
}

struct Service {
    /// Places for messages of streams.
    places: Semaphore,
    vault: Arc<Vault>,
    observer: Arc<dyn Observer>,
    limits: WireLimits,
}

impl VaultApi {
    pub(super) fn new(vault: Arc<Vault>, observer: Arc<dyn Observer>, limits: WireLimits) -> Self {
        let places = Semaphore::new(limits.stream_messages);
        Self { service: Arc::new(Service { places, vault, observer, limits }) }
    }

    /// Serves one call: who calls, what they get, and the count of it.
    async fn serve<Q, A, F>(
        &self,
        action: AuditAction,
        request: Request<Q>,
        serve: F,
    ) -> Result<Response<A>, Status>
    where
        F: AsyncFnOnce(&Service, &Context, Q) -> Result<A, Refused>,
        A: Items,
    {
        let credential = peer::credential(request.extensions())?;
        let answer = self.service.one(&credential, action, request.into_inner(), serve).await;
        answer.map(Response::new).map_err(|refused| status(&refused))
    }
}

impl VaultApi {
    /// Serves the messages of a stream, a few at once, and answers in their order.
    fn bulk<M, A, F, S>(
        &self,
        request: Request<Streaming<M>>,
        serve: S,
    ) -> Result<Response<Answers<A>>, Status>
    where
        M: Send + 'static,
        A: Send + 'static,
        F: Future<Output = A> + Send + 'static,
        S: Fn(Arc<Service>, Arc<Credential>, M) -> F + Send + 'static,
    {
        let credential = peer::credential(request.extensions())?;
        let service = Arc::clone(&self.service);
        let WireLimits { stream_window, stream_idle, .. } = service.limits;
        let messages = tokio_stream::StreamExt::timeout(request.into_inner(), stream_idle);
        let answers = messages.map(move |message| {
            let places = Arc::clone(&service);
            let message = message.map_err(|_| idle()).flatten();
            let answer = message.map(|message| serve(Arc::clone(&service), Arc::clone(&credential), message));
            async move {
                let _place = places.places.acquire().await.map_err(|_| idle())?;
                Ok(answer?.await)
            }
        });
        Ok(Response::new(Box::pin(answers.buffered(stream_window))))
    }
}

impl Service {
    async fn one<Q, A: Items>(
        &self,
        credential: &Credential,
        action: AuditAction,
        request: Q,
        serve: impl AsyncFnOnce(&Self, &Context, Q) -> Result<A, Refused>,
    ) -> Result<A, Refused> {
        let cx = self.vault.enter(credential, action).await?;
        let answer = match serve(self, &cx, request).await {
            Ok(answer) => answer,
            Err(refused) => return Err(self.vault.refuse(&cx, action, refused).await),
        };
        let (ok, failed) = answer.count();
        self.observer.items(A::ACTION, ok, failed);
        Ok(answer)
    }

    /// Items, unless there are none or too many: before anything is made of them.
    fn bounded<T>(&self, items: Vec<T>, field: &str) -> Result<Vec<T>, Refused> {
        self.vault.check_count(items.len(), field).map(|()| items)
    }

    fn tokens(&self, texts: &[String]) -> Result<Vec<ParsedToken>, Refused> {
        self.vault.check_count(texts.len(), "tokens")?;
        Ok(parse::tokens(texts, &self.vault.identity().environment))
    }

    fn text(&self, token: Token) -> String {
        token.encode(&self.vault.identity().environment)
    }

    async fn tokenize(
        &self,
        cx: &Context,
        request: v1::TokenizeRequest,
    ) -> Result<v1::TokenizeResponse, Refused> {
        let items = self.bounded(request.items, "items").map(parse::new_values);
        let idempotency = parse::idempotency(&request.idempotency_key);
        let results = self.vault.tokenize(cx, &request.tenant, items, idempotency).await?;
        let results = results.into_iter().enumerate().map(|(i, result)| v1::TokenizeResult {
            outcome: Some(match result {
                Ok(token) => tokenize_result::Outcome::Token(self.text(token)),
                Err(problem) => tokenize_result::Outcome::Error(item_error(&problem, || {
                    format!("items[{i}].{}", input(&problem))
                })),
            }),
        });
        Ok(v1::TokenizeResponse { results: results.collect() })
    }

    async fn detokenize(
        &self,
        cx: &Context,
        request: v1::DetokenizeRequest,
    ) -> Result<v1::DetokenizeResponse, Refused> {
        let tokens = self.tokens(&request.tokens);
        let purpose = parse::purpose(&request.purpose);
        let note = Note::parse(request.reason, request.ticket);
        let results = self.vault.detokenize(cx, &request.tenant, tokens, purpose, note).await?;
        let results = results.into_iter().enumerate().map(|(i, result)| v1::DetokenizeResult {
            outcome: Some(match result {
                Ok(opened) => detokenize_result::Outcome::Value(wire_value(&opened)),
                Err(problem) => detokenize_result::Outcome::Error(token_error(&problem, i)),
            }),
        });
        Ok(v1::DetokenizeResponse { results: results.collect() })
    }

    async fn mask(&self, cx: &Context, request: v1::MaskRequest) -> Result<v1::MaskResponse, Refused> {
        let tokens = self.tokens(&request.tokens);
        let results = self.vault.mask(cx, &request.tenant, tokens).await?;
        let results = results.into_iter().enumerate().map(|(i, result)| v1::MaskResult {
            outcome: Some(match result {
                // Exposed: wire response; the masked form, after the receipt.
                Ok(masked) => mask_result::Outcome::Masked(masked.expose().to_owned()),
                Err(problem) => mask_result::Outcome::Error(token_error(&problem, i)),
            }),
        });
        Ok(v1::MaskResponse { results: results.collect() })
    }

    async fn find(&self, cx: &Context, request: v1::FindRequest) -> Result<v1::FindResponse, Refused> {
        let class = parse::class(&request.data_class, "data_class");
        let values = self.bounded(request.values, "values");
        let values = values.map(|values| values.into_iter().map(|value| parse::value(Some(value))).collect());
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let results = self.vault.find(cx, &request.tenant, class, values, limit).await?;
        let results = results.into_iter().enumerate().map(|(i, result)| v1::FindResult {
            outcome: Some(match result {
                Ok(Found { tokens, truncated }) => find_result::Outcome::Matches(v1::FindMatches {
                    tokens: tokens.into_iter().map(|token| self.text(token)).collect(),
                    truncated,
                }),
                Err(problem) => find_result::Outcome::Error(item_error(&problem, || format!("values[{i}]"))),
            }),
        });
        Ok(v1::FindResponse { results: results.collect() })
    }

    async fn describe(
        &self,
        cx: &Context,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeResponse, Refused> {
        let tokens = self.tokens(&request.tokens);
        let results = self.vault.describe(cx, &request.tenant, tokens).await?;
        let results = results.into_iter().enumerate().map(|(i, result)| v1::DescribeResult {
            outcome: Some(match result {
                Ok(described) => v1::describe_result::Outcome::Description(description(&described)),
                Err(problem) => v1::describe_result::Outcome::Error(token_error(&problem, i)),
            }),
        });
        Ok(v1::DescribeResponse { results: results.collect() })
    }

    async fn erase(&self, cx: &Context, request: v1::EraseRequest) -> Result<v1::EraseResponse, Refused> {
        let target = match parse::erase_target(request.subject, !request.tokens.is_empty()) {
            Ok(None) => self.tokens(&request.tokens).map(EraseTarget::Tokens),
            Ok(Some(subject)) => Ok(EraseTarget::Subject(subject)),
            Err(refused) => Err(refused),
        };
        let note = Note::parse(request.reason, request.ticket);
        let results = self.vault.erase(cx, &request.tenant, target, note).await?;
        let results = results.into_iter().enumerate().map(|(i, Erased { token, outcome })| v1::EraseResult {
            token: token
                .map_or_else(|| request.tokens.get(i).cloned().unwrap_or_default(), |token| self.text(token)),
            outcome: Some(match outcome {
                Ok(erased) => erase_result::Outcome::Erased(erased),
                Err(problem) => erase_result::Outcome::Error(token_error(&problem, i)),
            }),
        });
        Ok(v1::EraseResponse { results: results.collect() })
    }
}

#[tonic::async_trait]
impl VaultService for VaultApi {
    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        self.serve(AuditAction::Tokenize, request, Service::tokenize).await
    }

    async fn detokenize(
        &self,
        request: Request<v1::DetokenizeRequest>,
    ) -> Result<Response<v1::DetokenizeResponse>, Status> {
        self.serve(AuditAction::Detokenize, request, Service::detokenize).await
    }

    async fn mask(&self, request: Request<v1::MaskRequest>) -> Result<Response<v1::MaskResponse>, Status> {
        self.serve(AuditAction::Mask, request, Service::mask).await
    }

    async fn find(&self, request: Request<v1::FindRequest>) -> Result<Response<v1::FindResponse>, Status> {
        self.serve(AuditAction::Find, request, Service::find).await
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        self.serve(AuditAction::Describe, request, Service::describe).await
    }

    async fn erase(&self, request: Request<v1::EraseRequest>) -> Result<Response<v1::EraseResponse>, Status> {
        self.serve(AuditAction::Erase, request, Service::erase).await
    }

    type TokenizeStreamStream = Answers<v1::TokenizeStreamResponse>;

    async fn tokenize_stream(
        &self,
        request: Request<Streaming<v1::TokenizeStreamRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        use v1::tokenize_stream_response::Outcome;
        self.bulk(request, |service, credential, message| async move {
            let v1::TokenizeStreamRequest { sequence, request } = message;
            let request = request.unwrap_or_default();
            let answer = service.one(&credential, AuditAction::Tokenize, request, Service::tokenize).await;
            let outcome =
                answer.map_or_else(|refused| Outcome::Error(message_error(&refused)), Outcome::Response);
            v1::TokenizeStreamResponse { sequence, outcome: Some(outcome) }
        })
    }

    type DetokenizeStreamStream = Answers<v1::DetokenizeStreamResponse>;

    async fn detokenize_stream(
        &self,
        request: Request<Streaming<v1::DetokenizeStreamRequest>>,
    ) -> Result<Response<Self::DetokenizeStreamStream>, Status> {
        use v1::detokenize_stream_response::Outcome;
        self.bulk(request, |service, credential, message| async move {
            let v1::DetokenizeStreamRequest { sequence, request } = message;
            let request = request.unwrap_or_default();
            let answer =
                service.one(&credential, AuditAction::Detokenize, request, Service::detokenize).await;
            let outcome =
                answer.map_or_else(|refused| Outcome::Error(message_error(&refused)), Outcome::Response);
            v1::DetokenizeStreamResponse { sequence, outcome: Some(outcome) }
        })
    }
}

fn idle() -> Status {
    Status::deadline_exceeded("the stream had no message for too long")
}

/// How the items of an answer fared, for the metrics.
trait Items {
    const ACTION: &'static str;
    /// How many well, how many not.
    fn count(&self) -> (usize, usize);
}

macro_rules! items {
    ($($answer:ident $outcome:ident $action:literal;)*) => {
        $(impl Items for v1::$answer {
            const ACTION: &'static str = $action;
            fn count(&self) -> (usize, usize) {
                let failed = self
                    .results
                    .iter()
                    .filter(|result| matches!(result.outcome, Some(v1::$outcome::Outcome::Error(_))))
                    .count();
                (self.results.len() - failed, failed)
            }
        })*
    };
}

items! {
    TokenizeResponse tokenize_result "tokenize";
    DetokenizeResponse detokenize_result "detokenize";
    MaskResponse mask_result "mask";
    FindResponse find_result "find";
    DescribeResponse describe_result "describe";
    EraseResponse erase_result "erase";
}

/// The field of a tokenize item that a problem is with.
fn input(problem: &Problem) -> &'static str {
    match problem {
        Problem::ClassUnknown | Problem::ActionNotAllowed => "data_class",
        Problem::Field(_) => "subject",
        _ => "value",
    }
}

fn token_error(problem: &Problem, i: usize) -> v1::ItemError {
    item_error(problem, || format!("tokens[{i}]"))
}

pub(super) fn wire_value(opened: &Opened) -> v1::Value {
    static ZEROS: [u8; 4096] = [0; 4096];
    let padding = if opened.padding <= ZEROS.len() {
        Bytes::from_static(&ZEROS[..opened.padding])
    } else {
        vec![0; opened.padding].into()
    };
    // Exposed: wire response, after the receipt.
    v1::Value { data: Bytes::copy_from_slice(opened.value.expose().as_bytes()), padding }
}

fn description(Described(record): &Described) -> v1::Description {
    use v1::description::State;
    let (state, erased, key_version) = match &record.body {
        Body::Sealed { key_version, .. } => (State::Active, None, key_version.0),
        Body::Erased { at } => (State::Erased, Some(timestamp(*at)), 0),
    };
    v1::Description {
        tenant: record.tenant.to_string(),
        data_class: record.class.to_string(),
        state: state.into(),
        created: Some(timestamp(record.created)),
        erased,
        key_version,
        has_subject: record.subject.is_some(),
        indexed: record.index.is_some(),
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    const SECOND: u64 = 1_000_000;
    prost_types::Timestamp {
        seconds: i64::try_from(at.0 / SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % SECOND * 1000).unwrap_or(0),
    }
}
