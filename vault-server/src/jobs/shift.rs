//! One worker's time with one job.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::agreement::Agreement;
use super::pace::Pace;
use super::steps::{Step, reached};
use super::worker::Parts;
use crate::audit::{AuditAction, Beside, Draft, Item, LogError};
use crate::domain::{Job, JobProgress, JobState, KeyId};
use crate::keyring::KeyringError;
use crate::store::{Held, LeaseError, StoreError, Write};
use crate::vault::job_draft;

/// How often progress is written down, and a pause or a cancel noticed.
const REPORT: Duration = Duration::from_millis(500);

/// Why a worker lays a job down before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// Another worker has taken the lease.
    Lost,
    /// Somebody paused or cancelled it.
    Told,
    /// The process ends.
    Stopping,
    /// Instances are configured with different KMS keys.
    Disagreed,
    /// A row that the job needs is not what was written: it can't be done until somebody has mended that.
    Corrupt(String),
    /// Store, log or KMS do not do it now: later, perhaps by another worker.
    Trouble(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Corrupt(error.to_string()),
            StoreError::Conflict { .. }
            | StoreError::Late
            | StoreError::Unavailable { .. }
            | StoreError::Fatal { .. }
            | StoreError::Taken
            | StoreError::Foreign { .. } => Self::Trouble(error.to_string()),
        }
    }
}

impl From<KeyringError> for Stop {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Store(error) => error.into(),
            error => Self::Trouble(error.to_string()),
        }
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Trouble(error.to_string())
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// It can't be done: a word.
    Failed(&'static str),
}

pub(super) struct Shift {
    pub(super) parts: Arc<Parts>,
    pub(super) agreement: Arc<Agreement>,
    pub(super) job: Job,
    /// How far it was when that was counted last.
    counted: JobProgress,
    held: Held,
    renewed: Instant,
    reported: Instant,
    bytes: Pace,
    kms_calls: Pace,
}

impl Shift {
    pub(super) fn new(parts: Arc<Parts>, agreement: Arc<Agreement>, job: Job, held: Held) -> Self {
        let (budget, counted) = (job.order.budget, job.progress);
        let now = Instant::now();
        Self {
            parts,
            agreement,
            job,
            counted,
            held,
            renewed: now,
            reported: now,
            bytes: Pace::new(budget.bytes),
            kms_calls: Pace::new(u64::from(budget.kms_calls)),
        }
    }

    /// The condition that goes with every write.
    pub(super) fn fence(&self) -> Write {
        self.held.fence()
    }

    /// Between steps: keeps the lease, tells how far it is, and hears whether it shall go on.
    pub(super) async fn tick(&mut self) -> Result<(), Stop> {
        if self.parts.stopping.is_cancelled() {
            return Err(Stop::Stopping);
        }
        let lease = self.parts.options.lease;
        if self.renewed.elapsed() >= lease / 3 {
            match self.parts.leases.renew(&mut self.held, lease).await {
                Ok(()) => self.renewed = Instant::now(),
                Err(LeaseError::Lost(_)) => return Err(Stop::Lost),
                Err(LeaseError::Store(error)) => return Err(error.into()),
            }
        }
        if self.reported.elapsed() >= REPORT {
            self.report().await?;
        }
        Ok(())
    }

    /// Counts bytes that were written, and waits as the budget wants for all that were worked on.
    pub(super) async fn spend_bytes(&mut self, written: u64, worked_on: u64) -> Result<(), Stop> {
        self.job.progress.bytes += written;
        self.bytes.spend(worked_on);
        self.wait().await
    }

    /// Counts calls of the KMS, and waits as the budget wants.
    pub(super) async fn spend_kms_calls(&mut self, calls: u64) -> Result<(), Stop> {
        self.job.progress.kms_calls += calls;
        self.kms_calls.spend(calls);
        self.wait().await
    }

    /// In short stretches: the lease is kept, and who pauses or stops it is heard.
    async fn wait(&mut self) -> Result<(), Stop> {
        while let Some(wait) = self.bytes.owes().max(self.kms_calls.owes()) {
            tokio::time::sleep(wait.min(REPORT)).await;
            self.tick().await?;
        }
        Ok(())
    }

    /// Writes down how far it is.
    pub(super) async fn report(&mut self) -> Result<(), Stop> {
        self.reported = Instant::now();
        reached(self.job.place.kind, Step::Counted);
        self.put(self.job.state, "", &[]).await?;
        reached(self.job.place.kind, Step::Reported);
        Ok(())
    }

    /// Puts what could not be changed on record.
    pub(super) async fn trouble(&mut self, items: Vec<Item>) -> Result<(), Stop> {
        if items.is_empty() {
            return Ok(());
        }
        tracing::error!(job = %self.job.id, items = items.len(), "a job can't change items");
        let draft = job_draft(&self.job, AuditAction::JobTrouble);
        self.parts.log.commit(draft, items, vec![self.fence()]).await?;
        Ok(())
    }

    /// Ends the job, with its figures in the log, if that was not done with its last step.
    pub(super) async fn end(&mut self, end: End) -> Result<(), Stop> {
        let ended = match end {
            End::Done if self.job.state == JobState::Done => return Ok(()),
            End::Done => self.put(JobState::Done, "", &[]).await,
            End::Failed(cause) => self.put(JobState::Failed, cause, &[]).await,
        };
        ended.map(|_| ())
    }

    /// Ends the job as done, if these keys are active still. `false`: one is not, and there is more to do.
    pub(super) async fn end_under(&mut self, keys: &[KeyId]) -> Result<bool, Stop> {
        reached(self.job.place.kind, Step::Proven);
        let active: Vec<_> = keys.iter().map(|key| Write::Active(*key)).collect();
        self.put(JobState::Done, "", &active).await
    }

    /// Writes what can't be taken back, with its entry and with the job's row in the same commit: if somebody paused or
    /// cancelled the job before, nothing of it is written. `then`: how the job stands from then on; if that is its end,
    /// that is on record with it, since nobody could cancel it any more.
    pub(super) async fn write_as_it_stands(
        &mut self,
        action: AuditAction,
        details: Vec<(&'static str, String)>,
        items: Vec<Item>,
        writes: Vec<Write>,
        then: JobState,
    ) -> Result<(), Stop> {
        let job = self.next(then);
        let mut draft = job_draft(&job, action);
        draft.details.extend(details);
        let writes = [self.fence(), Write::PutJob(job.clone())].into_iter().chain(writes).collect();
        let ends = then == JobState::Done;
        let entries = ends.then(|| (end_draft(&job), Vec::new())).into_iter().collect();
        match self.parts.log.commit_with(draft, items, Beside { writes, entries }).await {
            Ok(_) => {
                self.take_over(job);
                Ok(())
            }
            Err(LogError::Conflict { write: 0 }) => Err(Stop::Lost),
            Err(LogError::Conflict { write: 1 }) => Err(Stop::Told),
            Err(LogError::Conflict { .. }) => Err(Stop::Trouble("a key was changed meanwhile".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// The job as it was written down.
    fn take_over(&mut self, job: Job) {
        self.parts.tally.worked(job.place.kind, &self.counted, &job.progress);
        self.counted = job.progress;
        self.job = job;
    }

    fn next(&self, state: JobState) -> Job {
        let (changed, revision) = (self.parts.clock.now(), self.job.revision + 1);
        let mut job = Job { state, changed, revision, ..self.job.clone() };
        // It was not counted at first, or more came meanwhile.
        job.progress.total = job.progress.total.max(job.progress.done + job.progress.failed);
        job
    }

    /// Puts on record that a job of the vault's own begins.
    pub(super) async fn put_begin(&mut self) -> Result<(), Stop> {
        let state = self.job.state;
        self.write_as_it_stands(AuditAction::JobBegin, Vec::new(), Vec::new(), Vec::new(), state).await?;
        reached(self.job.place.kind, Step::Begun);
        Ok(())
    }

    /// Gives the lease back.
    pub(super) async fn release(self) {
        if let Err(error) = self.parts.leases.release(self.held).await {
            tracing::debug!(%error, "a job's lease was not given back: it ends by itself");
        }
    }

    /// Changes the job's row, with an entry if it ends. What others did with it meanwhile is obeyed. `false`: one of the conditions
    /// does not hold, and nothing is changed.
    async fn put(&mut self, state: JobState, cause: &str, conditions: &[Write]) -> Result<bool, Stop> {
        loop {
            let job = Job { cause: cause.to_owned(), ..self.next(state) };
            let mut writes = vec![self.fence(), Write::PutJob(job.clone())];
            writes.extend_from_slice(conditions);
            let committed = match state {
                JobState::Done | JobState::Failed => {
                    self.parts.log.commit(end_draft(&job), Vec::new(), writes).await
                }
                _ => self.parts.log.write(writes).await,
            };
            match committed {
                Ok(_) => {
                    self.take_over(job);
                    return Ok(true);
                }
                Err(LogError::Conflict { write: 0 }) => return Err(Stop::Lost),
                Err(LogError::Conflict { write: 1 }) => self.obey().await?,
                Err(LogError::Conflict { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn obey(&mut self) -> Result<(), Stop> {
        let there = self.parts.store.job(&self.job.place).await?;
        match there {
            // One that was paused meanwhile, and begun again, may be another's to allow, or not due yet.
            Some(there)
                if there.id == self.job.id
                    && there.state == JobState::Running
                    && there.order == self.job.order
                    && there.approved_by == self.job.approved_by =>
            {
                self.job.revision = there.revision;
                Ok(())
            }
            _ => Err(Stop::Told),
        }
    }
}

/// The entry of a job's end, with its figures.
fn end_draft(job: &Job) -> Draft {
    let mut draft = job_draft(job, AuditAction::JobEnd);
    let progress = &job.progress;
    draft.cause = if job.state == JobState::Failed { "job_failed" } else { "" };
    draft.details.extend([
        ("state", job.state.as_str().to_owned()),
        ("total", progress.total.to_string()),
        ("done", progress.done.to_string()),
        ("failed", progress.failed.to_string()),
        ("bytes", progress.bytes.to_string()),
        ("kms_calls", progress.kms_calls.to_string()),
        ("why", job.cause.clone()),
    ]);
    draft
}

/// Whether any record is sealed under a key. Not how many: that takes a look at each.
pub(super) async fn is_used(shift: &Shift, key: KeyId) -> Result<bool, Stop> {
    Ok(!shift.parts.store.tokens_of_key(key, None, 1).await?.is_empty())
}
