//! The one thread that writes. It takes whatever changes wait, checks their conditions, numbers their entries,
//! applies them as one batch of the engine with one sync, and only then answers all of them. While it syncs,
//! the next batch gathers in the queue; nothing waits on purpose.
//!
//! * A change that is about a row which the batch at hand already changes goes into the next batch, so that a
//!   condition is always checked against what is durable: there is no second picture of the store in memory.
//! * A change whose condition does not hold adds no row and takes no sequence.
//! * The first failed apply or sync ends it: that batch and all that follow are [`StoreError::Fatal`]. Nothing
//!   is tried again: after a failed sync nobody knows which pages the disk has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::domain::{KeyId, KeyState, Record, Timestamp};
use crate::store::embedded::engine::{Engine, Rows, View};
use crate::store::embedded::landed::Landed;
use crate::store::embedded::prepare::{Condition, Prepared, RowId, put_index_changes};
use crate::store::embedded::read;
use crate::store::embedded::seen::Rewritten;
use crate::store::embedded::touched::{Taken, Touched};
use crate::store::entry_seals::Sealing;
use crate::store::keys::{self, Indexed, Space};
use crate::store::row::{self, RecordRow};
use crate::store::waiting::Claim;
use crate::store::{Committed, LogId, StoreError, corrupt};

/// What the committer is asked for.
#[derive(Debug)]
pub(crate) enum Task {
    /// A change.
    Commit(Prepared),
    /// To forget these answers: those of them that still expire at that time.
    Forget(Vec<(Timestamp, [u8; 32])>),
    /// To put rows, the identity's among them, if that is not there.
    Found(Rows),
}

/// A task and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) waiting: Waiting,
}

/// Who waits for a task.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Taken by who puts it into a batch.
    pub(crate) claim: Claim,
    pub(crate) answer: oneshot::Sender<Result<Done, StoreError>>,
    /// Room in the queue; given back with the answer.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// What was done, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Committed(Committed),
    Forgotten(usize),
    Founded,
}

/// How large a batch gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
}

/// What the committer tells the store's readers.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The batch that is being applied, or was last. Set before its first row can be seen.
    pub(crate) started: AtomicU64,
    /// Durable log entries.
    pub(crate) log_size: AtomicU64,
    /// Durable records.
    pub(crate) records: AtomicU64,
    /// Why there is no durability any more.
    pub(crate) fatal: OnceLock<String>,
    /// What seals entries.
    pub(crate) sealing: Sealing,
}

impl Progress {
    /// The error from now on, if there is one.
    pub(crate) fn fatal(&self) -> Option<StoreError> {
        self.fatal.get().map(|why| StoreError::Fatal { why: why.clone() })
    }
}

/// The thread's state. The engine is let go before `durable`, whose end tells that the thread has ended.
pub(crate) struct Committer<E: Engine> {
    engine: Arc<E>,
    progress: Arc<Progress>,
    limits: BatchLimits,
    batch: Batch,
    landed: Landed,
    rewritten: Rewritten,
    durable: watch::Sender<u64>,
}

/// What gathers.
#[derive(Debug, Default)]
struct Batch {
    number: u64,
    /// Rows that its tasks are about, and which task.
    touched: Touched,
    /// Keys that were looked up, and whether each is active. It holds for the batch: who comes after a change of a key
    /// is not in it.
    active: HashMap<KeyId, bool>,
    parts: Vec<Rows>,
    /// Rows that only the committer can number: entries. They come after the others.
    own: Rows,
    bytes: usize,
    done: Vec<(Waiting, Done)>,
    log_size: u64,
    records: u64,
}

/// Why a task is not in the batch.
enum NotNow {
    /// Another task of the batch is about the same row.
    Later,
    Refused(StoreError),
}

/// What a task adds to what it asked for.
#[derive(Default)]
struct Effects {
    /// Rows that follow from what is there. They come after the task's own.
    rows: Rows,
    new_records: u64,
    forgotten: usize,
    /// The records that it replaces are as they were seen: what follows was foreseen.
    as_seen: bool,
}

impl<E: Engine> Committer<E> {
    /// `durable` becomes the number of each batch once it is durable, and `u64::MAX` when none will be.
    pub(crate) fn new(
        engine: Arc<E>,
        progress: Arc<Progress>,
        durable: watch::Sender<u64>,
        limits: BatchLimits,
    ) -> Self {
        let batch = Batch {
            log_size: progress.log_size.load(Ordering::SeqCst),
            records: progress.records.load(Ordering::SeqCst),
            ..Batch::default()
        };
        Self {
            engine,
            progress,
            limits,
            batch,
            landed: Landed::default(),
            rewritten: Rewritten::default(),
            durable,
        }
    }

    /// Works until the queue's last sender is gone and the queue is empty.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut postponed = None;
        while let Some(first) = postponed.take().or_else(|| queue.blocking_recv()) {
            let mut next = Some(first);
            while let Some(job) = next {
                postponed = self.admit(job);
                let full =
                    self.batch.done.len() >= self.limits.tasks || self.batch.bytes >= self.limits.bytes;
                next = if full || postponed.is_some() { None } else { queue.try_recv().ok() };
            }
            self.write();
        }
    }

    /// Takes a job into the batch, or answers it, or gives it back to be the first of the next batch.
    fn admit(&mut self, job: Job) -> Option<Job> {
        if let Some(fatal) = self.progress.fatal() {
            // Who gave up waiting does not hear it.
            let _ = job.waiting.answer.send(Err(fatal));
            return None;
        }
        let number = self.batch.done.len();
        let verdict = self.check(number, &job.task);
        if verdict.is_err() {
            self.batch.touched.give_back(number);
        }
        match verdict {
            // Taken back meanwhile.
            Ok(_) if !job.waiting.claim.take() => {
                self.batch.touched.give_back(number);
                None
            }
            Ok(effects) => {
                if let Task::Commit(change) = &job.task {
                    let batch = self.batch.number + 1;
                    self.landed.note(&change.sealed_under, batch);
                    change.replaced().for_each(|token| self.rewritten.note(token, batch));
                }
                let done = self.batch.add(job.task, effects, &self.progress.sealing);
                self.batch.done.push((job.waiting, done));
                None
            }
            Err(NotNow::Later) => Some(job),
            Err(NotNow::Refused(error)) => {
                let _ = job.waiting.answer.send(Err(error));
                None
            }
        }
    }

    fn check(&mut self, number: usize, task: &Task) -> Result<Effects, NotNow> {
        let mut effects = Effects::default();
        match task {
            Task::Commit(change) => {
                effects.as_seen = self.is_as_seen(change);
                for (write, condition) in change.conditions.iter().enumerate() {
                    for id in condition.rows().into_iter().flatten() {
                        self.touch(id, number, write)?;
                    }
                    let changed = condition.watched().and_then(|id| self.batch.touched.by(&id));
                    if changed.is_some_and(|by| by != number) {
                        return Err(NotNow::Later);
                    }
                    self.check_condition(condition, (number, write), &mut effects)?;
                }
            }
            Task::Forget(answers) => {
                for (expires, key) in answers {
                    self.touch(RowId::Remembered(*key), number, 0)?;
                    self.check_forget(*expires, key, &mut effects)?;
                }
            }
            Task::Found(_) => {
                self.touch(RowId::Identity, number, 0)?;
                if self.contains(Space::Meta, keys::meta::IDENTITY)? {
                    return Err(conflict(0));
                }
            }
        }
        Ok(effects)
    }

    fn touch(&mut self, id: RowId, number: usize, write: usize) -> Result<(), NotNow> {
        match self.batch.touched.take(id, number) {
            Ok(()) => Ok(()),
            // Two writes of one change to one row: its first would be lost.
            Err(Taken { by }) if by == number => Err(conflict(write)),
            Err(Taken { .. }) => Err(NotNow::Later),
        }
    }

    fn check_condition(
        &mut self,
        condition: &Condition,
        (number, write): (usize, usize),
        effects: &mut Effects,
    ) -> Result<(), NotNow> {
        match condition {
            Condition::NextLease { name, revision } => {
                let there = self.read(|view| read::lease(view, name))?.map(|lease| lease.revision);
                if there == revision.checked_sub(1) { Ok(()) } else { Err(conflict(write)) }
            }
            Condition::Fence { name, fence } => {
                let there = self.read(|view| read::lease(view, name))?.map(|lease| lease.fence);
                if there == Some(*fence) { Ok(()) } else { Err(conflict(write)) }
            }
            Condition::Active(id) => {
                if self.is_active(*id)? {
                    Ok(())
                } else {
                    Err(conflict(write))
                }
            }
            Condition::Unused { key, looked } => {
                // Records that the batch at hand writes are not there to be seen yet.
                if self.batch.touched.has_records_of_others(number) {
                    return Err(NotNow::Later);
                }
                // It may be behind a million rows that went: who asked has looked, so that nobody waits for that here.
                if looked.is_some_and(|looked| self.landed.none_since(*key, looked)) {
                    return Ok(());
                }
                if self.read(|view| read::is_used(view, *key))? { Err(conflict(write)) } else { Ok(()) }
            }
            Condition::NextJob { place, revision } => {
                let there = self.read(|view| read::job(view, place))?.map(|job| job.revision);
                if there == revision.checked_sub(1) { Ok(()) } else { Err(conflict(write)) }
            }
            Condition::NextEntity { place, there } | Condition::Stands { place, there } => {
                let found = self.read(|view| read::entity(view, place))?.map(|entity| entity.revision);
                if found == *there { Ok(()) } else { Err(conflict(write)) }
            }
            Condition::NewRecord(token) => {
                effects.new_records += 1;
                if self.contains(Space::Records, token)? { Err(conflict(write)) } else { Ok(()) }
            }
            Condition::NextRecord(_) if effects.as_seen => Ok(()),
            Condition::NextRecord(record) => self.check_next_record(record, write, effects),
            Condition::NewKey { place, id } => {
                let there = self.contains(Space::Keys, place)? || self.contains(Space::KeyIds, id)?;
                if there { Err(conflict(write)) } else { Ok(()) }
            }
            Condition::NextKey { place, id, revision } => {
                let row = self.get(Space::Keys, place)?.ok_or_else(|| conflict(write))?;
                let there = row::read_key(place, row.as_ref()).map_err(|_| refused(Space::Keys, place))?;
                let follows = revision.checked_sub(1) == Some(there.revision) && there.id.as_bytes() == id;
                if follows { Ok(()) } else { Err(conflict(write)) }
            }
            Condition::NewAnswer { key, at, expires } => {
                let Some(row) = self.get(Space::Remembered, key)? else { return Ok(()) };
                let there =
                    row::read_remembered(key, row.as_ref()).map_err(|_| refused(Space::Remembered, key))?;
                if there.expires > *at {
                    return Err(conflict(write));
                }
                if there.expires != *expires {
                    effects.rows.remove(Space::Expiries, &keys::expiry(there.expires, key));
                }
                Ok(())
            }
        }
    }

    fn check_next_record(&self, next: &Record, write: usize, effects: &mut Effects) -> Result<(), NotNow> {
        let token = next.token.as_bytes();
        let row = self.get(Space::Records, token)?.ok_or_else(|| conflict(write))?;
        let there = RecordRow::read(token, row.as_ref()).map_err(|_| refused(Space::Records, token))?;
        if next.revision.checked_sub(1) != Some(there.revision) {
            return Err(conflict(write));
        }
        put_index_changes(&there.indexed(token), &Indexed::of(next), &mut effects.rows);
        Ok(())
    }

    /// Whether the records that a change replaces were seen, all of them, and are still as they were.
    fn is_as_seen(&self, change: &Prepared) -> bool {
        change.foreseen.as_ref().is_some_and(|foreseen| {
            change.replaced().all(|token| self.rewritten.is_unchanged(&token, foreseen.durable))
        })
    }

    fn check_forget(&self, expires: Timestamp, key: &[u8; 32], effects: &mut Effects) -> Result<(), NotNow> {
        if let Some(row) = self.get(Space::Remembered, key)? {
            let there =
                row::read_remembered(key, row.as_ref()).map_err(|_| refused(Space::Remembered, key))?;
            // Another answer since: it has an expiry of its own.
            if there.expires != expires {
                return Ok(());
            }
            effects.rows.remove(Space::Remembered, key);
            effects.forgotten += 1;
        }
        effects.rows.remove(Space::Expiries, &keys::expiry(expires, key));
        Ok(())
    }

    /// Nearly every change asks, and most ask about the same few keys: one look for each in a batch.
    fn is_active(&mut self, id: KeyId) -> Result<bool, NotNow> {
        if let Some(active) = self.batch.active.get(&id) {
            return Ok(*active);
        }
        let key = self.read(|view| read::key(view, id))?;
        let active = key.is_some_and(|key| key.state == KeyState::Active);
        self.batch.active.insert(id, active);
        Ok(active)
    }

    fn read<R>(&self, read: impl FnOnce(&E::View<'_>) -> Result<R, StoreError>) -> Result<R, NotNow> {
        read(&self.engine.view()).map_err(NotNow::Refused)
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, NotNow> {
        self.engine.view().contains(space, key).map_err(|error| NotNow::Refused(error.into()))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<<E::View<'_> as View>::Row>, NotNow> {
        self.engine.view().get(space, key).map_err(|error| NotNow::Refused(error.into()))
    }

    /// Makes the batch durable, then answers.
    fn write(&mut self) {
        let batch = &mut self.batch;
        if batch.done.is_empty() {
            batch.active.clear();
            return;
        }
        if batch.records != self.progress.records.load(Ordering::SeqCst) {
            batch.own.put(Space::Meta, keys::meta::RECORDS, &batch.records.to_be_bytes());
        }
        batch.parts.push(std::mem::take(&mut batch.own));
        batch.number += 1;
        let outcome = if batch.parts.iter().all(Rows::is_empty) {
            Ok(())
        } else {
            self.progress.started.store(batch.number, Ordering::SeqCst);
            self.engine.apply(&batch.parts, true)
        };
        let failure = outcome.err().map(|error| {
            let why = self.progress.fatal.get_or_init(|| format!("a commit failed: {error}"));
            StoreError::Fatal { why: why.clone() }
        });
        if failure.is_none() {
            self.progress.log_size.store(batch.log_size, Ordering::SeqCst);
            self.progress.records.store(batch.records, Ordering::SeqCst);
        }
        self.durable.send_replace(if failure.is_none() { batch.number } else { u64::MAX });
        batch.parts.clear();
        batch.touched.clear();
        batch.active.clear();
        batch.bytes = 0;
        for (waiting, done) in batch.done.drain(..) {
            // Who gave up waiting does not hear it.
            let _ = waiting.answer.send(failure.clone().map_or(Ok(done), Err));
        }
    }
}

impl<E: Engine> Drop for Committer<E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.progress.fatal.get_or_init(|| "the engine panicked".to_owned());
        }
    }
}

impl Batch {
    /// Adds an admitted task's rows.
    fn add(&mut self, task: Task, effects: Effects, sealing: &Sealing) -> Done {
        match task {
            Task::Commit(change) => {
                let committed = Committed { first_sequence: self.log_size };
                self.bytes += change.bytes() + effects.rows.bytes();
                for entry in &change.entries {
                    let seal = sealing.seal(LogId::default(), self.log_size, entry);
                    self.own.put_entry(self.log_size, entry, seal.as_ref());
                    self.log_size += 1;
                }
                self.records += effects.new_records;
                let foreseen = change.foreseen.filter(|_| effects.as_seen).map(|foreseen| foreseen.rows);
                self.parts.extend([change.rows, effects.rows]);
                self.parts.extend(foreseen);
                Done::Committed(committed)
            }
            Task::Forget(_) => {
                self.parts.push(effects.rows);
                Done::Forgotten(effects.forgotten)
            }
            Task::Found(rows) => {
                self.parts.push(rows);
                Done::Founded
            }
        }
    }
}

fn conflict(write: usize) -> NotNow {
    NotNow::Refused(StoreError::Conflict { write })
}

fn refused(space: Space, key: &[u8]) -> NotNow {
    NotNow::Refused(corrupt(space, key))
}
