//! Writes entries: durable before anything comes of them, or refused within a stated time.
//!
//! A change that was handed to the store is let run to its end by a task of its own: a caller that gave up, or
//! whose deadline passed, leaves no change half acknowledged. It keeps its place among those in flight until the
//! store is done with it, so that a store that hangs can't pile up more than `max_in_flight` of them. What the store has not
//! begun to write by the deadline it does not write: nobody waits for it any more.
//!
//! Entries are encoded when a method is called, and not when its future is first polled: a future carries their bytes alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::entry::{Decision, Draft, Item, Outcome, TooLarge};
use super::receipt::Receipt;
use super::recent::Recent;
use crate::access::{OpenAction, Permit};
use crate::domain::Clock;
use crate::store::{Change, Committed, Store, StoreError, Write};

/// How long, and how much.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Until when a caller has its answer.
    pub deadline: Duration,
    /// How many changes the store may be busy with; more are refused at once.
    pub max_in_flight: usize,
}

/// Why nothing was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The store can't be written to now.
    #[error("the log is not available")]
    Unavailable,
    /// The store took too long. The entries may still be written.
    #[error("the log did not answer in time")]
    Deadline,
    /// Too many changes are in flight, or before this one; nothing was written.
    #[error("the log is overloaded")]
    Overloaded,
    /// The condition of a write did not hold; nothing was written.
    #[error("the condition of write {write} does not hold")]
    Conflict {
        /// Which write.
        write: usize,
    },
    /// A row that the change is about is not what was written; nothing was written.
    #[error("a row is not what was written")]
    Corrupt,
    /// Durability is gone: the process must stop serving.
    #[error("the log failed for good")]
    Fatal,
    /// The entries would not say what the permit allows: a mistake of ours.
    #[error("the log entries do not agree with the permit")]
    Mismatch,
    /// The entry would be too large.
    #[error("too much for a log entry")]
    TooLarge,
}

/// What is written in the same commit as an entry.
#[derive(Debug, Default)]
pub struct Beside {
    /// Rows.
    pub writes: Vec<Write>,
    /// Further entries, after it.
    pub entries: Vec<(Draft, Vec<Item>)>,
}

impl From<Vec<Write>> for Beside {
    fn from(writes: Vec<Write>) -> Self {
        Self { writes, entries: Vec::new() }
    }
}

/// The log, for writing.
pub struct Log {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    in_flight: Arc<Semaphore>,
    failure: CancellationToken,
    taken: Arc<AtomicBool>,
    recent: Option<Arc<Recent>>,
    observe: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// How long after the deadline the store may take to say that it has not begun to write a change.
const ANSWER: Duration = Duration::from_millis(100);

impl Log {
    /// Writes to a store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: LogOptions) -> Self {
        Self {
            store,
            clock,
            deadline: options.deadline,
            in_flight: Arc::new(Semaphore::new(options.max_in_flight)),
            failure: CancellationToken::new(),
            taken: Arc::default(),
            recent: None,
            observe: Arc::new(|_| {}),
        }
    }

    /// Keeps what it writes for a follower of the same log.
    #[must_use]
    pub fn beside(self, recent: Arc<Recent>) -> Self {
        Self { recent: Some(recent), ..self }
    }

    /// Tells how long each change took until it was durable.
    #[must_use]
    pub fn observed(self, observe: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { observe: Arc::new(observe), ..self }
    }

    /// Writes that the permit's records are about to be opened. The receipt exists only after the entries are
    /// durable. Refused unless the items that are OK are exactly the permit's records, in order.
    pub fn before_open<A: OpenAction>(
        &self,
        draft: Draft,
        permit: &Permit<A>,
        items: Vec<Item>,
    ) -> impl Future<Output = Result<Receipt<A>, LogError>> + Send {
        self.before_open_with(draft, permit, items, Beside::default())
    }

    /// As [`Log::before_open`], with writes in the same commit: what counts a value is durable with the entry that says it is
    /// opened, or nothing is. [`LogError::Conflict`]: a write's condition did not hold, and there is no receipt.
    #[expect(clippy::needless_pass_by_value, reason = "handed over, or the future would borrow it")]
    pub fn before_open_with<A: OpenAction>(
        &self,
        draft: Draft,
        permit: &Permit<A>,
        items: Vec<Item>,
        beside: impl Into<Beside>,
    ) -> impl Future<Output = Result<Receipt<A>, LogError>> + Send {
        let change = if agrees(&draft, permit, &items) {
            self.encoded(&draft, &items, beside.into())
        } else {
            Err(LogError::Mismatch)
        };
        async move {
            self.change(change?).await?;
            let tokens = permit.records().iter().map(|record| record.token).collect();
            Ok(Receipt::new(permit.request(), tokens))
        }
    }

    /// Writes and their entries, as one change.
    pub fn commit(
        &self,
        draft: Draft,
        items: Vec<Item>,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Committed, LogError>> + Send {
        self.commit_with(draft, items, writes.into())
    }

    /// An entry, and what is written beside it, as one change.
    #[expect(clippy::needless_pass_by_value, reason = "handed over, or the future would borrow it")]
    pub fn commit_with(
        &self,
        draft: Draft,
        items: Vec<Item>,
        beside: Beside,
    ) -> impl Future<Output = Result<Committed, LogError>> + Send {
        let change = self.encoded(&draft, &items, beside);
        async move { self.change(change?).await }
    }

    fn encoded(&self, draft: &Draft, items: &[Item], beside: Beside) -> Result<Change, LogError> {
        let now = self.clock.now();
        let mut entries = draft.encode(now, items).map_err(|TooLarge| LogError::TooLarge)?;
        for (draft, items) in &beside.entries {
            entries.extend(draft.encode(now, items).map_err(|TooLarge| LogError::TooLarge)?);
        }
        Ok(Change { writes: beside.writes, entries })
    }

    /// Writes without an entry of their own: those of a job whose beginning is on record.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Committed, LogError> {
        self.change(Change { writes, entries: Vec::new() }).await
    }

    async fn change(&self, change: Change) -> Result<Committed, LogError> {
        if self.is_failed() {
            return Err(LogError::Fatal);
        }
        let slot = Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| LogError::Overloaded)?;
        let begun = Instant::now();
        let until = begun + self.deadline;
        let (store, failure, observe) =
            (Arc::clone(&self.store), self.failure.clone(), Arc::clone(&self.observe));
        let taken = Arc::clone(&self.taken);
        let recent = self.recent.clone().map(|recent| (recent, change.entries.clone()));
        let change = tokio::spawn(async move {
            let committed = store.commit_until(change, until).await;
            if committed.is_ok() {
                observe(begun.elapsed());
            }
            if committed == Err(StoreError::Taken) {
                taken.store(true, Ordering::SeqCst);
            }
            if let (Ok(committed), Some((recent, entries))) = (&committed, recent) {
                recent.keep(committed.first_sequence, entries);
            }
            let committed = committed.map_err(|error| refuse(&error));
            if committed == Err(LogError::Fatal) {
                failure.cancel();
            }
            drop(slot);
            committed
        });
        match timeout_at(until + ANSWER, change).await {
            Ok(Ok(committed)) => committed,
            // The store panicked, or the process is stopping: it is not known what was written.
            Ok(Err(_)) => Err(LogError::Unavailable),
            Err(_) => Err(LogError::Deadline),
        }
    }

    /// Entries alone.
    pub fn record(
        &self,
        draft: Draft,
        items: Vec<Item>,
    ) -> impl Future<Output = Result<Committed, LogError>> + Send {
        self.commit(draft, items, Vec::new())
    }

    /// Whether durability is gone. Everything is refused from then on.
    pub fn is_failed(&self) -> bool {
        self.failure.is_cancelled()
    }

    /// Cancelled when durability is gone, so that the process stops serving.
    pub fn failure(&self) -> CancellationToken {
        self.failure.clone()
    }

    /// Whether it failed because another instance writes it now.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// How many more changes may be in flight.
    #[cfg(test)]
    pub(super) fn free_slots(&self) -> usize {
        self.in_flight.available_permits()
    }
}

/// Whether what will be on record is what the permit allows.
fn agrees<A: OpenAction>(draft: &Draft, permit: &Permit<A>, items: &[Item]) -> bool {
    let action = draft.action.as_str_name().strip_prefix("ACTION_").unwrap_or_default();
    let records = permit.records();
    let allowed = items.iter().filter(|item| item.outcome == Outcome::Ok);
    draft.request == permit.request()
        && action.eq_ignore_ascii_case(A::ACTION.as_str())
        && (records.is_empty() || draft.decision != Decision::Deny)
        && records.iter().all(|record| draft.tenant.as_ref() == Some(&record.tenant))
        && permit.policies().is_subset(&draft.policies)
        && allowed.cloned().eq(records.iter().map(|record| Item::of_record(record, Outcome::Ok)))
}

fn refuse(error: &StoreError) -> LogError {
    match error {
        StoreError::Conflict { write } => LogError::Conflict { write: *write },
        StoreError::Fatal { .. } | StoreError::Taken => {
            tracing::error!(%error, "the log can't be written any more; the vault stops serving");
            LogError::Fatal
        }
        // The store has told.
        StoreError::Late => LogError::Overloaded,
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "a change is about a row that is not what was written");
            LogError::Corrupt
        }
        StoreError::Unavailable { .. } | StoreError::Foreign { .. } => {
            tracing::warn!(%error, "the log can't be written");
            LogError::Unavailable
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
