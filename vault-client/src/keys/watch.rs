//! A job that is watched, over one connection after the other.

use std::time::{Duration, Instant};

use futures::{Stream, stream};
use tonic::{Code, Streaming};
use vault_proto::v1 as wire;

use super::model::{Job, JobId, JobNews, news};
use crate::client::Client;
use crate::error::Error;
use crate::transport::fault;

/// A stream that lived for so long did not break off at once.
const LIVED: Duration = Duration::from_secs(5);
/// The shortest pause before a watch is begun again.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

impl Client {
    /// How a job stands: now, and whenever that changes. The stream ends with the news that the job is over, or, if another
    /// job took its place in the meantime, without.
    ///
    /// A connection that is lost on the way is made anew, to another endpoint if there is one; only when none has
    /// answered for `patience` the stream ends with an error.
    pub async fn watch_job(
        &self,
        id: JobId,
        patience: Duration,
    ) -> Result<impl Stream<Item = Result<JobNews, Error>> + Send + use<>, Error> {
        let request = wire::WatchJobRequest { tenant: self.tenant(), job_id: id.to_string() };
        let answers = self.open_watch(&request).await?;
        let watch = Watch {
            client: self.clone(),
            request,
            answers,
            opened: Instant::now(),
            broken_off: 0,
            patience,
            last: None,
        };
        Ok(stream::try_unfold(watch, async |mut watch| {
            let news = watch.next().await?;
            Ok(news.map(|news| (news, watch)))
        }))
    }

    async fn open_watch(
        &self,
        request: &wire::WatchJobRequest,
    ) -> Result<Streaming<wire::WatchJobResponse>, Error> {
        self.open_keys(async |mut keys| keys.watch_job(request.clone()).await).await
    }
}

/// A job that is watched over one connection after the other.
struct Watch {
    client: Client,
    request: wire::WatchJobRequest,
    answers: Streaming<wire::WatchJobResponse>,
    opened: Instant,
    /// How many connections broke off soon after they were made, one after the other.
    broken_off: u32,
    patience: Duration,
    last: Option<Job>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<JobNews>, Error> {
        if self.last.as_ref().is_some_and(|job| job.state.is_over()) {
            return Ok(None);
        }
        loop {
            match self.answers.message().await {
                Ok(Some(message)) => {
                    let news = news(message)?;
                    // A new connection begins with what the one before may have told.
                    if self.last.as_ref() != Some(&news.job) {
                        self.last = Some(news.job.clone());
                        return Ok(Some(news));
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => {
                    let error = fault::explain(&status, None);
                    if !self.open_anew(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Goes on after an error, if that may help. `false`: the job is no longer there.
    async fn open_anew(&mut self, mut error: Error) -> Result<bool, Error> {
        let lost = Instant::now();
        if self.opened.elapsed() >= LIVED {
            self.broken_off = 0;
        }
        loop {
            let may_pass = error.is_retryable() || error.code() == Code::DeadlineExceeded;
            self.broken_off = self.broken_off.saturating_add(1);
            let pause = self.client.pause(self.broken_off, error.retry_after()).max(LEAST_PAUSE);
            if !may_pass || lost.elapsed() + pause > self.patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            match self.client.open_watch(&self.request).await {
                Ok(answers) => {
                    (self.answers, self.opened) = (answers, Instant::now());
                    return Ok(true);
                }
                Err(gone) if gone.code() == Code::NotFound => return Ok(false),
                Err(again) => error = again,
            }
        }
    }
}
