//! Streams for bulk: batches go in, their results come out in order.
//!
//! The next batch is taken from the source when the transport has room for it and no more than [`MOST_UNREAD`] are
//! without an answer that was taken, so a slow vault slows the source, and so does a slow reader of the answers.
//! A stream is not repeated: what was not answered when it broke is the caller's to send again (tokenize: with the
//! same idempotency key, [`TokenizeBatch::with_key`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::Semaphore;
use tonic::Streaming;
use vault_format::purpose::Purpose;
use vault_proto::v1 as wire;
use vault_proto::v1::{detokenize_stream_response, tokenize_stream_response};

use super::Client;
use super::values::{self, DetokenizeOptions};
use crate::error::{Error, ItemError};
use crate::token::Token;
use crate::transport::fault;
use crate::value::{NewValue, Plaintext};

/// So many batches may be on their way, or answered and not read.
const MOST_UNREAD: usize = 32;

/// A batch's results, or why the batch as a whole failed; the stream goes on after that.
pub type BatchResult<T> = Result<Vec<Result<T, ItemError>>, ItemError>;

/// A batch for [`Client::tokenize_stream`]. It goes as one message, so keep it to a few thousand values.
pub struct TokenizeBatch {
    values: Vec<NewValue>,
    key: Option<String>,
}

impl TokenizeBatch {
    /// A batch under a key of the caller's: sent again, in another stream or by another process, it gets the
    /// same tokens.
    pub fn with_key(values: Vec<NewValue>, key: impl Into<String>) -> Self {
        Self { values, key: Some(key.into()) }
    }
}

impl From<Vec<NewValue>> for TokenizeBatch {
    fn from(values: Vec<NewValue>) -> Self {
        Self { values, key: None }
    }
}

/// What is between the batches that go and the answers that come.
struct Flow {
    /// How many items each batch had that was sent and is not answered yet.
    pending: Mutex<VecDeque<usize>>,
    /// For batches to come.
    places: Semaphore,
}

impl Client {
    /// Tokenizes batch after batch over one stream. Results come in order. An `Err` ends the stream.
    pub async fn tokenize_stream<S, B>(
        &self,
        batches: S,
    ) -> Result<impl Stream<Item = Result<BatchResult<Token>, Error>> + Send + use<S, B>, Error>
    where
        S: Stream<Item = B> + Send + 'static,
        B: Into<TokenizeBatch>,
    {
        let tenant = self.tenant();
        let stream_key = values::random_key()?;
        let flow = Flow::new();
        let sent = Arc::clone(&flow);
        let requests = paced(batches, Arc::clone(&flow)).enumerate().map(move |(sequence, batch)| {
            let batch: TokenizeBatch = batch.into();
            sent.push(batch.values.len());
            let request = wire::TokenizeRequest {
                tenant: tenant.clone(),
                items: batch.values.into_iter().map(crate::wire::item).collect(),
                idempotency_key: batch.key.unwrap_or_else(|| format!("{stream_key}/{sequence}")),
            };
            wire::TokenizeStreamRequest { sequence: sequence as u64, request: Some(request) }
        });
        let answers = self.open(|mut vault| async move { vault.tokenize_stream(requests).await }).await?;
        Ok(in_order(answers, flow, self.limits().timeout, |asked, answer: wire::TokenizeStreamResponse| {
            match answer.outcome {
                Some(tokenize_stream_response::Outcome::Response(response)) => {
                    Ok((answer.sequence, Ok(values::tokens(asked, response)?)))
                }
                Some(tokenize_stream_response::Outcome::Error(error)) => {
                    Ok((answer.sequence, Err(error.into())))
                }
                None => Err(crate::wire::no_outcome()),
            }
        }))
    }

    /// Detokenizes batch after batch over one stream. Results come in order. An `Err` ends the stream.
    ///
    /// Each batch is authorized and logged by itself.
    pub async fn detokenize_stream<S>(
        &self,
        batches: S,
        purpose: Purpose,
        options: &DetokenizeOptions,
    ) -> Result<impl Stream<Item = Result<BatchResult<Plaintext>, Error>> + Send + use<S>, Error>
    where
        S: Stream<Item = Vec<Token>> + Send + 'static,
    {
        let (tenant, options) = (self.tenant(), options.clone());
        let flow = Flow::new();
        let sent = Arc::clone(&flow);
        let requests = paced(batches, Arc::clone(&flow)).enumerate().map(move |(sequence, tokens)| {
            sent.push(tokens.len());
            let request = wire::DetokenizeRequest {
                tenant: tenant.clone(),
                tokens: tokens.iter().map(ToString::to_string).collect(),
                purpose: purpose.code().to_owned(),
                reason: options.reason.clone(),
                ticket: options.ticket.clone(),
            };
            wire::DetokenizeStreamRequest { sequence: sequence as u64, request: Some(request) }
        });
        let answers = self.open(|mut vault| async move { vault.detokenize_stream(requests).await }).await?;
        Ok(in_order(answers, flow, self.limits().timeout, |asked, answer: wire::DetokenizeStreamResponse| {
            match answer.outcome {
                Some(detokenize_stream_response::Outcome::Response(response)) => {
                    Ok((answer.sequence, Ok(values::plaintexts(asked, response)?)))
                }
                Some(detokenize_stream_response::Outcome::Error(error)) => {
                    Ok((answer.sequence, Err(error.into())))
                }
                None => Err(crate::wire::no_outcome()),
            }
        }))
    }
}

impl Flow {
    fn new() -> Arc<Self> {
        Arc::new(Self { pending: Mutex::default(), places: Semaphore::new(MOST_UNREAD) })
    }

    fn push(&self, items: usize) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_back(items);
    }

    fn pop(&self) -> Option<usize> {
        let items = self.pending.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.places.add_permits(usize::from(items.is_some()));
        items
    }

    fn owes(&self) -> bool {
        !self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// The batches, each when there is a place for it.
fn paced<S: Stream>(batches: S, flow: Arc<Flow>) -> impl Stream<Item = S::Item> {
    stream::unfold((Box::pin(batches), flow), |(mut batches, flow)| async move {
        flow.places.acquire().await.ok()?.forget();
        let batch = batches.next().await?;
        Some((batch, (batches, flow)))
    })
}

/// Where the answers of a stream are read.
struct Answers<A, F> {
    stream: Streaming<A>,
    flow: Arc<Flow>,
    timeout: Duration,
    next: u64,
    parse: F,
}

/// Reads answers; each must be the next batch's, and none may be missing at the end.
fn in_order<A, T, F>(
    stream: Streaming<A>,
    flow: Arc<Flow>,
    timeout: Duration,
    parse: F,
) -> impl Stream<Item = Result<BatchResult<T>, Error>> + Send + use<A, T, F>
where
    A: Send + 'static,
    T: Send + 'static,
    F: Fn(usize, A) -> Result<(u64, BatchResult<T>), Error> + Send + 'static,
{
    let answers = Answers { stream, flow, timeout, next: 0, parse };
    stream::try_unfold(answers, |mut answers| async move {
        let Some(answer) = answers.receive().await? else { return Ok(None) };
        let asked = answers.flow.pop().ok_or_else(|| Error::bad_answer("an answer to nothing"))?;
        let (sequence, outcome) = (answers.parse)(asked, answer)?;
        if sequence != answers.next {
            return Err(Error::bad_answer("answers are out of order"));
        }
        answers.next += 1;
        Ok(Some((outcome, answers)))
    })
}

impl<A, F> Answers<A, F> {
    /// The deadline is for an answer that is owed; a source that is slow to give batches has none.
    async fn receive(&mut self) -> Result<Option<A>, Error> {
        loop {
            let owed_before = self.flow.owes();
            match tokio::time::timeout(self.timeout, self.stream.message()).await {
                Ok(Ok(None)) if self.flow.owes() => return Err(Error::connection("the stream ended early")),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => return Err(fault::explain(&status, None)),
                Err(_) if owed_before => return Err(Error::deadline()),
                Err(_) => {}
            }
        }
    }
}
