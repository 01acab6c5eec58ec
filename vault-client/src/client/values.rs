//! Batches: many items a call, answered item by item, in order.

use std::sync::atomic::Ordering;

use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic::Code;
use vault_format::purpose::Purpose;
use vault_proto::v1 as wire;
use vault_proto::v1::{
    describe_result, detokenize_result, erase_result, find_result, mask_result, tokenize_result,
};

use super::Client;
use crate::class::DataClass;
use crate::describe::Description;
use crate::error::{Error, ItemError, Reason};
use crate::token::{self, Token};
use crate::value::{Masked, NewValue, Plaintext, SubjectId};
use crate::wire as message;

/// So many parts of one batch are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// More about a tokenize.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenizeOptions {
    /// 1 to 120 printable ASCII characters. The same batch under the same key gets the same tokens, even by
    /// another process, as long as the vault remembers the key (24 hours by default) and this client's
    /// [batch limits](super::ClientBuilder::batch_limits) are the same. `None`: a random one for each call.
    pub idempotency_key: Option<String>,
}

impl TokenizeOptions {
    /// With a key of the caller's.
    pub fn with_key(key: impl Into<String>) -> Self {
        Self { idempotency_key: Some(key.into()) }
    }
}

/// More about a detokenize, for the log. Put no PHI into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DetokenizeOptions {
    /// Free text, at most 512 characters.
    pub reason: String,
    /// A ticket or case number, at most 128 characters.
    pub ticket: String,
}

/// More about an erase, for the log. Put no PHI into it.
#[derive(Debug, Clone, Default)]
pub struct EraseOptions {
    /// Free text, at most 512 characters.
    pub reason: String,
    /// A ticket or case number, at most 128 characters.
    pub ticket: String,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In no particular order; empty if the vault holds no such value.
    pub tokens: Vec<Token>,
    /// There are more than the limit.
    pub truncated: bool,
}

/// What an erase did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    /// The value was there and is gone now.
    Now,
    /// It was gone before.
    Before,
}

/// One result an item, in the order of the items.
type Each<T> = Vec<Result<T, ItemError>>;

impl Client {
    /// Keeps values and gives a token for each. The tokens are durable when this returns.
    ///
    /// A batch of more than the [batch limits](super::ClientBuilder::batch_limits) goes in several messages; if
    /// some of them fail as a whole, their items have that error and the others their tokens. `Err` means that
    /// nothing was answered.
    pub async fn tokenize(&self, values: Vec<NewValue>) -> Result<Each<Token>, Error> {
        self.tokenize_with(values, &TokenizeOptions::default()).await
    }

    /// [`Client::tokenize`] with more to say.
    pub async fn tokenize_with(
        &self,
        values: Vec<NewValue>,
        options: &TokenizeOptions,
    ) -> Result<Each<Token>, Error> {
        let key = match &options.idempotency_key {
            Some(key) => key.clone(),
            None => random_key()?,
        };
        let items: Vec<_> = values.into_iter().map(message::item).collect();
        let parts = self.parts(items, wire::TokenizeItem::encoded_len).into_iter().enumerate();
        let requests = parts.map(|(number, items)| wire::TokenizeRequest {
            tenant: self.tenant(),
            items,
            idempotency_key: if number == 0 { key.clone() } else { format!("{key}/{number}") },
        });
        self.each(requests.collect(), |request| request.items.len(), |request| self.tokenize_part(request))
            .await
    }

    async fn tokenize_part(&self, request: wire::TokenizeRequest) -> Result<Each<Token>, Error> {
        let asked = request.items.len();
        let answer =
            self.call(request, |mut vault, request| async move { vault.tokenize(request).await }).await?;
        tokens(asked, answer)
    }

    /// Gives values back. The vault wants to know why; who may see what for which purpose is its policy.
    pub async fn detokenize(
        &self,
        tokens: &[Token],
        purpose: Purpose,
        options: &DetokenizeOptions,
    ) -> Result<Each<Plaintext>, Error> {
        self.by_token(tokens, |part| self.detokenize_part(part, purpose, options)).await
    }

    async fn detokenize_part(
        &self,
        tokens: Vec<String>,
        purpose: Purpose,
        options: &DetokenizeOptions,
    ) -> Result<Each<Plaintext>, Error> {
        // Values larger than their tokens may not fit one answer: then ask for half of them, and half again.
        let mut todo = vec![tokens];
        let mut done = Vec::new();
        while let Some(mut tokens) = todo.pop() {
            let asked = tokens.len();
            let request = wire::DetokenizeRequest {
                tenant: self.tenant(),
                tokens: tokens.clone(),
                purpose: purpose.code().to_owned(),
                reason: options.reason.clone(),
                ticket: options.ticket.clone(),
            };
            match self
                .call(request, |mut vault, request| async move { vault.detokenize(request).await })
                .await
            {
                Ok(answer) => done.extend(plaintexts(asked, answer)?),
                Err(error) if error.reason() == Reason::ResponseTooLarge && asked > 1 => {
                    let second = tokens.split_off(asked / 2);
                    todo.extend([second, tokens]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Gives the masked form of values: as much as a console may show.
    pub async fn mask(&self, tokens: &[Token]) -> Result<Each<Masked>, Error> {
        self.by_token(tokens, |tokens| async {
            let asked = tokens.len();
            let request = wire::MaskRequest { tenant: self.tenant(), tokens };
            let answer =
                self.call(request, |mut vault, request| async move { vault.mask(request).await }).await?;
            message::results(asked, answer.results, |result| match result.outcome {
                Some(mask_result::Outcome::Masked(text)) => Ok(Ok(Masked::new(text))),
                Some(mask_result::Outcome::Error(error)) => Ok(Err(error.into())),
                None => Err(message::no_outcome()),
            })
        })
        .await
    }

    /// Tells what is known of tokens without any PHI.
    pub async fn describe(&self, tokens: &[Token]) -> Result<Each<Description>, Error> {
        self.by_token(tokens, |tokens| async {
            let asked = tokens.len();
            let request = wire::DescribeRequest { tenant: self.tenant(), tokens };
            let answer =
                self.call(request, |mut vault, request| async move { vault.describe(request).await }).await?;
            message::results(asked, answer.results, |result| match result.outcome {
                Some(describe_result::Outcome::Description(known)) => Ok(Ok(known.into())),
                Some(describe_result::Outcome::Error(error)) => Ok(Err(error.into())),
                None => Err(message::no_outcome()),
            })
        })
        .await
    }

    /// Finds the tokens of values of a class, by equality of their normalized forms; at most `limit` tokens a
    /// value (0: 100; the vault's most is 1,000).
    pub async fn find(
        &self,
        class: &DataClass,
        values: Vec<Plaintext>,
        limit: u32,
    ) -> Result<Each<Found>, Error> {
        let values: Vec<_> = values.into_iter().map(message::value).collect();
        let requests = self.parts(values, wire::Value::encoded_len).into_iter().map(|values| {
            wire::FindRequest { tenant: self.tenant(), data_class: class.as_str().to_owned(), values, limit }
        });
        let send = |request: wire::FindRequest| async {
            let asked = request.values.len();
            let answer =
                self.call(request, |mut vault, request| async move { vault.find(request).await }).await?;
            message::results(asked, answer.results, found)
        };
        let settled = |request: wire::FindRequest| {
            let (tenant, data_class) = (request.tenant, request.data_class);
            let again = move |values| {
                send(wire::FindRequest {
                    tenant: tenant.clone(),
                    data_class: data_class.clone(),
                    values,
                    limit,
                })
            };
            self.settled(request.values, again)
        };
        self.each(requests.collect(), |request| request.values.len(), settled).await
    }

    /// Erases the values of tokens. The tokens stay known; erasing again is not an error.
    pub async fn erase_tokens(
        &self,
        tokens: &[Token],
        options: &EraseOptions,
    ) -> Result<Each<Erased>, Error> {
        self.by_token(tokens, |tokens| async {
            let asked = tokens.len();
            let results = self.erase(tokens, None, options).await?;
            message::results(asked, results, |(_, outcome)| Ok(outcome))
        })
        .await
    }

    /// Erases all values of a person. One result for each token that the person had.
    pub async fn erase_subject(
        &self,
        subject: SubjectId,
        options: &EraseOptions,
    ) -> Result<Vec<(Token, Result<Erased, ItemError>)>, Error> {
        let results = self.erase(Vec::new(), Some(subject), options).await?;
        results.into_iter().map(|(token, outcome)| Ok((own(&token)?, outcome))).collect()
    }

    async fn erase(
        &self,
        tokens: Vec<String>,
        subject: Option<SubjectId>,
        options: &EraseOptions,
    ) -> Result<Vec<(String, Result<Erased, ItemError>)>, Error> {
        let request = wire::EraseRequest {
            tenant: self.tenant(),
            tokens,
            subject: subject.map(|subject| wire::SubjectId { id: subject.into_inner() }),
            reason: options.reason.clone(),
            ticket: options.ticket.clone(),
        };
        let answer =
            self.call(request, |mut vault, request| async move { vault.erase(request).await }).await?;
        let one = |result: wire::EraseResult| match result.outcome {
            Some(erase_result::Outcome::Erased(true)) => Ok((result.token, Ok(Erased::Now))),
            Some(erase_result::Outcome::Erased(false)) => Ok((result.token, Ok(Erased::Before))),
            Some(erase_result::Outcome::Error(error)) => Ok((result.token, Err(error.into()))),
            None => Err(message::no_outcome()),
        };
        answer.results.into_iter().map(one).collect()
    }

    /// Asks for tokens in parts. Those of another environment are refused here, in their places.
    async fn by_token<T, F, Fut>(&self, tokens: &[Token], ask: F) -> Result<Each<T>, Error>
    where
        F: Fn(Vec<String>) -> Fut,
        Fut: Future<Output = Result<Each<T>, Error>>,
    {
        let ours = |token: &&Token| self.refused_here(token).is_none();
        let texts: Vec<_> = tokens.iter().filter(ours).map(ToString::to_string).collect();
        let parts = self.parts(texts, |text| text.len() + 2);
        let settled = |part| self.settled(part, &ask);
        let mut answers = self.each(parts, Vec::len, settled).await?.into_iter();
        let missing = || Error::bad_answer("it has fewer results than were asked for");
        let place = |token| match self.refused_here(token) {
            Some(error) => Ok(Err(error)),
            None => answers.next().ok_or_else(missing),
        };
        tokens.iter().map(place).collect()
    }

    pub(super) fn refused_here(&self, token: &Token) -> Option<ItemError> {
        let ours = self.shared.environment.as_ref().is_none_or(|ours| ours == token.environment());
        (!ours).then(token::foreign)
    }

    /// Asks, and asks again for those items alone whose error may pass: one instance's trouble, or a short one of the
    /// store's or the KMS's. Like other repeats these cost the budget, and end with the deadline of the first asking.
    /// What is still in trouble then keeps its error.
    async fn settled<I, T, F, Fut>(&self, items: Vec<I>, ask: F) -> Result<Each<T>, Error>
    where
        I: Clone,
        F: Fn(Vec<I>) -> Fut,
        Fut: Future<Output = Result<Each<T>, Error>>,
    {
        let limits = self.shared.limits;
        let deadline = Instant::now() + limits.timeout;
        let mut answers = ask(items.clone()).await?;
        for repeat in 1..limits.retry.attempts {
            let asked_wait = answers.iter().filter_map(trouble).map(ItemError::retry_after).max();
            let Some(asked_wait) = asked_wait else { break };
            if !self.wait_for_repeat(repeat, asked_wait, deadline).await {
                break;
            }
            let places: Vec<_> = (0..answers.len()).filter(|at| trouble(&answers[*at]).is_some()).collect();
            self.shared.repeats.fetch_add(1, Ordering::Relaxed);
            let part = places.iter().map(|at| items[*at].clone()).collect();
            let Ok(Ok(again)) = timeout_at(deadline, ask(part)).await else { break };
            for (at, answer) in places.into_iter().zip(again) {
                answers[at] = answer;
            }
        }
        Ok(answers)
    }

    fn parts<T>(&self, items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
        // Three bytes more an item than its own: its tag and length in the message.
        let limits = self.shared.limits;
        message::parts(items, limits.batch_items, limits.batch_bytes, |item| size(item) + 3)
    }

    /// Sends the parts of a batch, a few at once, and joins their answers in order. A part that fails as a whole
    /// gives its error to its items, so that the answers of the others are not lost; if all fail, the call does.
    async fn each<Q, T, F, Fut>(
        &self,
        parts: Vec<Q>,
        items: impl Fn(&Q) -> usize,
        send: F,
    ) -> Result<Each<T>, Error>
    where
        F: Fn(Q) -> Fut,
        Fut: Future<Output = Result<Each<T>, Error>>,
    {
        let sends = parts.into_iter().map(|part| {
            let asked = items(&part);
            let answer = send(part);
            async move { (asked, answer.await) }
        });
        let answers: Vec<_> = stream::iter(sends).buffered(PARTS_AT_ONCE).collect().await;
        if let Some((_, Err(error))) = answers.first()
            && answers.iter().all(|(_, answer)| answer.is_err())
        {
            return Err(error.clone());
        }
        let spread = |(asked, answer): (usize, Result<Each<T>, Error>)| {
            answer.unwrap_or_else(|error| (0..asked).map(|_| Err(error.clone().into())).collect())
        };
        Ok(answers.into_iter().flat_map(spread).collect())
    }
}

/// An item's error that may pass.
fn trouble<T>(answer: &Result<T, ItemError>) -> Option<&ItemError> {
    answer.as_ref().err().filter(|error| error.is_retryable())
}

/// The tokens of a Tokenize's answer.
pub(super) fn tokens(asked: usize, answer: wire::TokenizeResponse) -> Result<Each<Token>, Error> {
    message::results(asked, answer.results, |result| match result.outcome {
        Some(tokenize_result::Outcome::Token(text)) => Ok(Ok(own(&text)?)),
        Some(tokenize_result::Outcome::Error(error)) => Ok(Err(error.into())),
        None => Err(message::no_outcome()),
    })
}

/// The values of a Detokenize's answer.
pub(super) fn plaintexts(asked: usize, answer: wire::DetokenizeResponse) -> Result<Each<Plaintext>, Error> {
    message::results(asked, answer.results, |result| match result.outcome {
        Some(detokenize_result::Outcome::Value(value)) => Ok(Ok(message::plaintext(&value)?)),
        Some(detokenize_result::Outcome::Error(error)) => Ok(Err(error.into())),
        None => Err(message::no_outcome()),
    })
}

fn found(result: wire::FindResult) -> Result<Result<Found, ItemError>, Error> {
    match result.outcome {
        Some(find_result::Outcome::Matches(matches)) => {
            let tokens = matches.tokens.iter().map(|text| own(text)).collect::<Result<_, _>>()?;
            Ok(Ok(Found { tokens, truncated: matches.truncated }))
        }
        Some(find_result::Outcome::Error(error)) => Ok(Err(error.into())),
        None => Err(message::no_outcome()),
    }
}

/// A token that the vault itself gave.
fn own(text: &str) -> Result<Token, Error> {
    text.parse().map_err(|_| Error::bad_answer("what should be a token is none"))
}

/// A random UUID (version 4).
pub(super) fn random_key() -> Result<String, Error> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|_| {
        Error::new(Reason::Internal, Code::Internal, "no randomness from the operating system")
    })?;
    bits[6] = (bits[6] & 0x0f) | 0x40;
    bits[8] = (bits[8] & 0x3f) | 0x80;
    let hex = hex::encode(bits);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_are_uuids_and_differ() {
        let key = random_key().unwrap();
        assert_eq!(key.len(), 36);
        assert_eq!(&key[14..15], "4");
        assert_ne!(key, random_key().unwrap());
    }
}
