//! One call: a deadline, an endpoint, and another attempt where that is safe and may help.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use vault_proto::v1::audit_service_client::AuditServiceClient;
use vault_proto::v1::key_service_client::KeyServiceClient;
use vault_proto::v1::security_key_service_client::SecurityKeyServiceClient;
use vault_proto::v1::session_service_client::SessionServiceClient;
use vault_proto::v1::vault_service_client::VaultServiceClient;

use super::Client;
use crate::error::{Error, Reason};
use crate::retry;
use crate::transport::bearer::Channel;
use crate::transport::pool::{Lane, Tried};

/// The most an answer may be; the vault's own bound is lower.
pub(crate) const MOST_ANSWER: usize = 64 << 20;
/// So near the deadline an attempt's failure counts as the deadline's.
const SLACK: Duration = Duration::from_millis(5);

/// The service's generated client on a channel.
fn vault(channel: Channel) -> VaultServiceClient<Channel> {
    VaultServiceClient::new(channel).max_decoding_message_size(MOST_ANSWER)
}

/// The log's generated client on a channel.
fn audit(channel: Channel) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(channel).max_decoding_message_size(MOST_ANSWER)
}

/// The keys' generated client on a channel.
fn keys(channel: Channel) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(channel).max_decoding_message_size(MOST_ANSWER)
}

impl Client {
    /// Makes a unary call of the vault's, which all are safe to repeat (see [`retry`]).
    pub(super) async fn call<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(VaultServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.repeat(|channel, left| send(vault(channel), within(message.clone(), left))).await
    }

    /// The same of the log's.
    pub(crate) async fn call_audit<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(AuditServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.repeat(|channel, left| send(audit(channel), within(message.clone(), left))).await
    }

    /// The same of the keys': one that is safe to repeat.
    pub(crate) async fn call_keys<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(KeyServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.repeat(|channel, left| send(keys(channel), within(message.clone(), left))).await
    }

    /// The same of one that is not.
    pub(crate) async fn call_keys_once<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        F: FnOnce(KeyServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let left = self.limits().timeout;
        self.once(|channel| send(keys(channel), within(message, left))).await
    }

    /// Makes a unary call of another service: one that is safe to repeat.
    pub(crate) async fn call_of<C, Q, A, F, Fut>(
        &self,
        service: impl Fn(Channel) -> C,
        message: Q,
        send: F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(C, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.repeat(|channel, left| send(service(channel), within(message.clone(), left))).await
    }

    /// The same of one that is not.
    pub(crate) async fn call_of_once<C, Q, A, F, Fut>(
        &self,
        service: impl FnOnce(Channel) -> C,
        message: Q,
        send: F,
    ) -> Result<A, Error>
    where
        F: FnOnce(C, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let left = self.limits().timeout;
        self.once(|channel| send(service(channel), within(message, left))).await
    }

    /// The same of the security keys', which all are safe to repeat.
    pub(crate) async fn call_security_keys<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(SecurityKeyServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let client = |channel| SecurityKeyServiceClient::new(channel).max_decoding_message_size(MOST_ANSWER);
        self.repeat(|channel, left| send(client(channel), within(message.clone(), left))).await
    }

    /// A call of the sessions', which is not repeated.
    pub(crate) async fn call_sessions_once<Q, A, F, Fut>(&self, message: Q, send: F) -> Result<A, Error>
    where
        F: FnOnce(SessionServiceClient<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let left = self.limits().timeout;
        self.once(|channel| send(SessionServiceClient::new(channel), within(message, left))).await
    }

    /// Opens a stream of the keys', which is as good from any endpoint. It has no deadline as a whole.
    pub(crate) async fn open_keys<A, F, Fut>(&self, send: F) -> Result<A, Error>
    where
        F: Fn(KeyServiceClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.repeat(|channel, _| send(keys(channel))).await
    }

    /// How long to wait before trying something for the `repeat`th time again (from 1).
    pub(crate) fn pause(&self, repeat: u32, asked: Option<Duration>) -> Duration {
        self.limits().retry.pause(repeat, asked, retry::dice())
    }

    async fn repeat<A, F, Fut>(&self, attempt: F) -> Result<A, Error>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let shared = &*self.shared;
        let policy = shared.limits.retry;
        let deadline = Instant::now() + shared.limits.timeout;
        let mut tried = Tried::default();
        let mut rounds = 1;
        let mut is_first = true;
        loop {
            let lane = shared.pool.pick(&mut tried);
            let begun = Instant::now();
            let left = deadline.saturating_duration_since(begun);
            // An endpoint that is silent, as one whose machine is gone, must leave time for another.
            let is_last = !is_first || policy.attempts <= 1 || !shared.pool.has_other(lane);
            is_first = false;
            let patience = if is_last { left } else { left / 2 };
            let outcome = tokio::time::timeout(patience, attempt(lane.channel(), patience)).await;
            let late = || if is_last { Error::deadline() } else { Error::connection("no answer in time") };
            let error = match outcome {
                Ok(Ok(answer)) => {
                    lane.succeeded();
                    shared.budget.deposit();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if status_is_late(&status, begun + patience) => late(),
                Ok(Err(status)) => lane.explain(&status),
                Err(_) => late(),
            };
            note(lane, Some(&error));
            if !error.is_retryable() || policy.attempts <= 1 {
                return Err(error);
            }
            // Another endpoint may be asked at once, and it does not cost the budget: the calls that a lost instance
            // leaves behind are no more than the others would have had without it.
            if !(is_of_endpoint(&error) && shared.pool.has_untried(&tried)) {
                if rounds >= policy.attempts
                    || !self.wait_for_repeat(rounds, error.retry_after(), deadline).await
                {
                    return Err(error);
                }
                rounds += 1;
                tried = Tried::default();
            }
            shared.repeats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits before repeat number `repeat` (from 1). `false`: the budget is spent, or there is no time.
    pub(super) async fn wait_for_repeat(
        &self,
        repeat: u32,
        asked: Option<Duration>,
        deadline: Instant,
    ) -> bool {
        let pause = self.pause(repeat, asked);
        if !self.shared.budget.withdraw() || Instant::now() + pause >= deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// Opens a stream of the vault's. It has no deadline as a whole; its opening has.
    pub(super) async fn open<A, F, Fut>(&self, send: F) -> Result<A, Error>
    where
        F: FnOnce(VaultServiceClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.once(|channel| send(vault(channel))).await
    }

    /// The same of the log's.
    pub(crate) async fn open_audit<A, F, Fut>(&self, send: F) -> Result<A, Error>
    where
        F: FnOnce(AuditServiceClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.once(|channel| send(audit(channel))).await
    }

    async fn once<A, F, Fut>(&self, attempt: F) -> Result<A, Error>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let lane = self.shared.pool.pick(&mut Tried::default());
        let outcome = match tokio::time::timeout(self.limits().timeout, attempt(lane.channel())).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(lane.explain(&status)),
            Err(_) => Err(Error::deadline()),
        };
        note(lane, outcome.as_ref().err());
        outcome
    }
}

/// An endpoint that is not available, or too slow, is better left alone for a while. Any other answer is a sign of life.
fn note(lane: &Lane, error: Option<&Error>) {
    match error {
        Some(error) if error.is_retryable() || error.code() == Code::DeadlineExceeded => {
            lane.failed(error.retry_after());
        }
        _ => lane.succeeded(),
    }
}

/// Whether the trouble is this endpoint's alone: it is gone, or stops. Store, log and KMS are the same for all.
fn is_of_endpoint(error: &Error) -> bool {
    error.retry_after().is_none() || error.reason() == Reason::ShuttingDown
}

/// The transport ends calls by their `grpc-timeout` itself, as cancelled.
fn status_is_late(status: &Status, deadline: Instant) -> bool {
    use std::error::Error as _;

    status.source().is_some() && Instant::now() + SLACK >= deadline
}

fn within<Q>(message: Q, left: Duration) -> Request<Q> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}
