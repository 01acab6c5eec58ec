//! The embedded store: one process, one directory, no set-up.
//!
//! Writes go to one committer thread, which gives all who wait one sync (`committer`). Reads go to the engine at
//! once and never wait for a lock of the store's.
//!
//! **What reads see.** Nothing that is not durable, whatever it is: an answer remembered, a key or a record that
//! a power cut could take back must not be acted upon. fjall shows a batch only after its sync. sled shows it
//! before: there a read that could have seen the batch at hand waits for that batch's sync before it answers.
//! The log ends where its durable entries end. Only derived rows are shown at once: they can be made again.
//!
//! A read sees whole batches (`engine::View`): a record never without its index rows, nor they without it.
//!
//! Engines stand behind `engine::Engine`, a trait of a few calls; `directory` keeps the directory to one process.

mod by_token;
mod committer;
mod derive;
mod directory;
mod engine;
mod fjall;
mod format;
mod landed;
mod options;
mod prepare;
mod read;
mod seen;
mod sled;
mod touched;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::committer::{BatchLimits, Committer, Done, Job, Progress, Task, Waiting};
use self::directory::LockedDirectory;
use self::engine::{Direction, Engine, Rows};
pub use self::options::{EngineKind, StoreOptions};
use self::prepare::{Condition, Prepared};
use self::seen::Seen;
use crate::domain::{
    self, BlindIndex, ClassName, Entity, EntityPlace, EntityScope, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::keys::{Space, meta};
use crate::store::waiting::{self, Claim, before};
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId, Told, UnderWay, row,
};

/// Opens the store in `dir`, makes it if there is none. Blocks; needs no runtime.
///
/// [`StoreError::Unavailable`] if another process has it open, [`StoreError::Foreign`] if another engine or
/// another version of the software made it.
pub fn open(kind: EngineKind, dir: &Path, options: StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let directory = LockedDirectory::open(dir, kind)?;
    let path = directory.engine();
    Ok(match kind {
        EngineKind::Fjall => {
            let engine = fjall::FjallEngine::open(path, options.cache_bytes)?;
            Arc::new(EmbeddedStore::start(kind.as_str(), engine, Some(directory), &options)?)
        }
        EngineKind::Sled => {
            let engine = sled::SledEngine::open(path, options.cache_bytes, options.sled_explicit_sync)?;
            Arc::new(EmbeddedStore::start(kind.as_str(), engine, Some(directory), &options)?)
        }
    })
}

/// A store over an engine.
struct EmbeddedStore<E: Engine> {
    name: &'static str,
    /// `None` once closed.
    opened: ArcSwapOption<Opened<E>>,
    progress: Arc<Progress>,
    durable: watch::Receiver<u64>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    room: Arc<Semaphore>,
    told: Told,
    room_bytes: u32,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What was read in order to be replaced.
    seen: Arc<Seen>,
    /// One at a time writes derived rows.
    deriving: Arc<Mutex<()>>,
}

/// The engine, and the lock that goes after it.
struct Opened<E> {
    engine: Arc<E>,
    _directory: Option<LockedDirectory>,
}

/// How many batches may wait for the committer, in changes and in bytes. Who comes after that waits for room.
const QUEUED_BATCHES: usize = 4;

/// Rows that a read may pass, if it is not known how many went from where it looks.
const MANY: usize = usize::MAX;

/// The most bytes that may wait.
const MAX_ROOM: usize = 256 << 20;

impl<E: Engine> EmbeddedStore<E> {
    fn start(
        name: &'static str,
        engine: E,
        directory: Option<LockedDirectory>,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        format::check(&engine)?;
        if let Some(directory) = &directory {
            directory.sync().map_err(|error| StoreError::Unavailable { why: error.to_string() })?;
        }
        let progress = Arc::new(Progress::default());
        progress.log_size.store(format::log_end(&engine.view())?, Ordering::SeqCst);
        progress.records.store(read::number(&engine.view(), meta::RECORDS)?.unwrap_or(0), Ordering::SeqCst);
        let limits = BatchLimits { tasks: options.max_batch_changes, bytes: options.max_batch_bytes };
        let engine = Arc::new(engine);
        let room = options.max_batch_bytes.saturating_mul(QUEUED_BATCHES).clamp(1, MAX_ROOM);
        let room_bytes = u32::try_from(room).expect("MAX_ROOM fits");
        let (durable_sender, durable) = watch::channel(0);
        let (sender, receiver) = mpsc::channel(options.max_batch_changes.max(1) * QUEUED_BATCHES);
        let committer = Committer::new(Arc::clone(&engine), Arc::clone(&progress), durable_sender, limits);
        let thread = std::thread::Builder::new()
            .name("store-committer".to_owned())
            .spawn(move || committer.run(receiver))
            .map_err(|error| StoreError::Unavailable { why: format!("no thread: {error}") })?;
        Ok(Self {
            name,
            opened: ArcSwapOption::from_pointee(Opened { engine, _directory: directory }),
            progress,
            durable,
            queue: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            told: Told::default(),
            room_bytes,
            thread: Mutex::new(Some(thread)),
            seen: Arc::default(),
            deriving: Arc::default(),
        })
    }

    /// The engine, unless durability is gone or the store is closed.
    fn usable(&self) -> Result<Arc<Opened<E>>, StoreError> {
        self.progress.fatal().map_or(Ok(()), Err)?;
        self.opened.load_full().ok_or_else(closed)
    }

    /// Reads what is durable. What may take long goes to a thread that may block.
    async fn read<R: Send + 'static>(
        &self,
        rows: usize,
        read: impl FnOnce(&E::View<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let result = self.read_any(rows, read).await;
        if E::VISIBLE_BEFORE_SYNC {
            let started = self.progress.started.load(Ordering::SeqCst);
            // An error means that the committer is gone: then `fatal` says why, or all it began is durable.
            let _ = self.durable.clone().wait_for(|durable| *durable >= started).await;
        }
        self.progress.fatal().map_or(result, Err)
    }

    /// Reads what is there, durable or not.
    async fn read_any<R: Send + 'static>(
        &self,
        rows: usize,
        read: impl FnOnce(&E::View<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        /// About what takes as long as handing it to another thread.
        const INLINE_ROWS: usize = 64;
        let opened = self.usable()?;
        if rows <= INLINE_ROWS {
            return read(&opened.engine.view());
        }
        blocking(move || read(&opened.engine.view())).await
    }

    /// Hands a task to the committer and waits for its answer.
    async fn ask(&self, task: Task, bytes: usize, until: Option<Instant>) -> Result<Done, StoreError> {
        self.usable()?;
        let queue = self.queue.lock().clone().ok_or_else(closed)?;
        let batch = *self.durable.borrow();
        let late = || self.late(batch);
        // What is larger than the queue takes all of it.
        let room = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.room_bytes);
        let room = before(until, Arc::clone(&self.room).acquire_many_owned(room)).await.ok_or_else(late)?;
        let room = room.map_err(|_| closed())?;
        let (claim, (answer, answered)) = (Claim::default(), oneshot::channel());
        let job = Job { task, waiting: Waiting { claim: claim.clone(), answer, _room: room } };
        before(until, queue.send(job)).await.ok_or_else(late)?.map_err(|_| self.ended())?;
        drop(queue);
        let answer = waiting::answer(until, &claim, answered).await.ok_or_else(late)?;
        answer.map_err(|_| self.ended())?
    }

    /// What became of a change that was taken back. This was the newest durable batch when it began to wait.
    fn late(&self, batch: u64) -> StoreError {
        if let Some(fatal) = self.progress.fatal() {
            return fatal;
        }
        if *self.durable.borrow() == batch {
            return StoreError::Unavailable {
                why: "the disk takes no commit; nothing was written".to_owned(),
            };
        }
        if self.told.is_due("late") {
            tracing::warn!(
                "changes wait for longer than their callers do: more is to be written than the disk takes"
            );
        }
        StoreError::Late
    }

    async fn write(&self, change: Change, until: Option<Instant>) -> Result<Committed, StoreError> {
        let mut change = Prepared::new(change, &self.seen)?;
        self.look_ahead(&mut change).await?;
        let bytes = change.bytes();
        match self.ask(Task::Commit(change), bytes, until).await? {
            Done::Committed(committed) => Ok(committed),
            Done::Forgotten(_) | Done::Founded => Err(mixed_up()),
        }
    }

    /// Looks for records under keys that must have none, before the committer does: their rows may be behind many that
    /// went, and everybody waits for the committer.
    async fn look_ahead(&self, change: &mut Prepared) -> Result<(), StoreError> {
        for condition in &mut change.conditions {
            if let Condition::Unused { key, looked } = condition {
                let (key, durable) = (*key, *self.durable.borrow());
                let is_used = self.read(MANY, move |view| read::is_used(view, key)).await?;
                *looked = (!is_used).then_some(durable);
            }
        }
        Ok(())
    }

    /// Why the committer does not answer.
    fn ended(&self) -> StoreError {
        let why = "the committer ended".to_owned();
        self.progress.fatal().unwrap_or(StoreError::Fatal { why })
    }

    fn fail(&self, error: &engine::EngineError) -> StoreError {
        let why = self.progress.fatal.get_or_init(|| format!("a write failed: {error}"));
        StoreError::Fatal { why: why.clone() }
    }
}

#[async_trait]
impl<E: Engine> Store for EmbeddedStore<E> {
    fn engine(&self) -> &'static str {
        self.name
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        self.read(1, |view| read::identity(view)).await
    }

    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError> {
        if self.identity().await?.is_none() {
            let mut rows = Rows::default();
            rows.put_with(Space::Meta, meta::IDENTITY, |out| row::write_identity(identity, out));
            let bytes = rows.bytes();
            match self.ask(Task::Found(rows), bytes, None).await {
                // Somebody else was first: with the same identity, perhaps.
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let there = self.identity().await?;
        if there.as_ref() == Some(identity) {
            return Ok(());
        }
        Err(StoreError::Foreign { why: "it is the store of another vault".to_owned() })
    }

    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.write(change, None).await
    }

    async fn commit_until(&self, change: Change, until: Instant) -> Result<Committed, StoreError> {
        self.write(change, Some(until)).await
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        let tokens = tokens.to_vec();
        self.read(tokens.len(), move |view| read::records(view, &tokens)).await
    }

    async fn records_to_replace(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        let (tokens, seen) = (tokens.to_vec(), Arc::clone(&self.seen));
        // What is read is at least as new as that.
        let durable = *self.durable.borrow();
        self.read(tokens.len(), move |view| {
            let lookups = read::records(view, &tokens)?;
            seen.note(&lookups, durable);
            Ok(lookups)
        })
        .await
    }

    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let (tenant, class) = (tenant.clone(), class.clone());
        self.read(limit, move |view| read::find(view, &tenant, &class, index, limit)).await
    }

    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let tenant = tenant.clone();
        self.read(limit, move |view| read::tokens_of_subject(view, &tenant, subject, after, limit)).await
    }

    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        self.read(MANY, move |view| read::tokens_of_key(view, key, after, limit)).await
    }

    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError> {
        self.read(MANY, move |view| read::count_of_key(view, key)).await
    }

    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        let of = (tenant.clone(), class.clone());
        self.read(MANY, move |view| read::indexed_under(view, (&of.0, &of.1), version, after, limit)).await
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let tenant = tenant.cloned();
        self.read(1, move |view| read::keys(view, tenant.as_ref(), purpose)).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.read(1, move |view| read::key(view, id)).await
    }

    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        let key = *key;
        self.read(1, move |view| read::remembered(view, &key)).await
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let expired = self.read(limit, move |view| read::expired(view, now, limit)).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        let bytes = expired.len() * size_of::<(Timestamp, [u8; 32])>();
        match self.ask(Task::Forget(expired), bytes, None).await? {
            Done::Forgotten(count) => Ok(count),
            Done::Committed(_) | Done::Founded => Err(mixed_up()),
        }
    }

    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
        let name = name.clone();
        self.read(1, move |view| read::lease(view, &name)).await
    }

    async fn job(&self, place: &JobPlace) -> Result<Option<domain::Job>, StoreError> {
        let place = place.clone();
        self.read(1, move |view| read::job(view, &place)).await
    }

    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<domain::Job>, StoreError> {
        let after = after.cloned();
        self.read(limit, move |view| read::jobs(view, after.as_ref(), limit)).await
    }

    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<domain::Job>, StoreError> {
        self.read(limit, move |view| read::job_rows(view, after, limit)).await
    }

    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        let place = place.clone();
        self.read(1, move |view| read::entity(view, &place)).await
    }

    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        let (of, after) = (of.clone(), after.cloned());
        self.read(limit, move |view| read::entities(view, &of, after.as_ref(), limit)).await
    }

    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        let (of, after) = (of.clone(), after.cloned());
        self.read(limit, move |view| read::entity_rows(view, &of, after.as_ref(), limit)).await
    }

    async fn jobs_under_way(&self) -> Result<UnderWay, StoreError> {
        self.read(MANY, |view| read::jobs_under_way(view)).await
    }

    fn log(&self) -> LogId {
        LogId::default()
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        Ok(vec![self.log()])
    }

    async fn log_size(&self, log: LogId) -> Result<u64, StoreError> {
        self.usable()?;
        Ok(if log == self.log() { self.progress.log_size.load(Ordering::SeqCst) } else { 0 })
    }

    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let end = self.log_size(log).await?;
        let rows = max_entries.min(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
        let any = |_: u64, _: &[u8], _: Option<&[u8]>| Ok(());
        self.read_any(rows, move |view| read::entries(view, (start, end), max_entries, max_bytes, any)).await
    }

    fn seal_entries(&self, seals: Arc<EntrySeals>) {
        self.progress.sealing.set(seals);
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let end = self.log_size(log).await?;
        let rows = max_entries.min(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
        let progress = Arc::clone(&self.progress);
        self.read_any(rows, move |view| {
            let check = |sequence, entry: &[u8], seal: Option<&[u8]>| {
                progress.sealing.check(log, sequence, entry, seal)
            };
            read::entries(view, (start, end), max_entries, max_bytes, check)
        })
        .await
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        let opened = self.usable()?;
        let deriving = Arc::clone(&self.deriving);
        let written = blocking(move || {
            let _one_at_a_time = deriving.lock();
            let rows = derive::rows(&opened.engine.view(), &derived)?;
            Ok(opened.engine.apply(&[rows], false))
        });
        written.await?.map_err(|error| self.fail(&error))
    }

    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError> {
        if log != self.log() {
            return Ok(DerivedState::default());
        }
        self.read_any(1, |view| read::derived(view)).await
    }

    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        if log != self.log() {
            return Ok(None);
        }
        self.read_any(1, move |view| read::tile(view, id)).await
    }

    async fn postings(
        &self,
        log: LogId,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        if log != self.log() {
            return Ok(Vec::new());
        }
        let key = key.to_vec();
        let direction = if newest_first { Direction::Backward } else { Direction::Forward };
        self.read_any(limit, move |view| read::postings(view, &key, (from, until), direction, limit)).await
    }

    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.read(limit, move |view| read::scan_records(view, after, limit)).await
    }

    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError> {
        self.read(limit, move |view| read::scan_keys(view, after, limit)).await
    }

    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError> {
        self.read(limit, move |view| read::key_rows(view, after, limit)).await
    }

    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.read(limit, move |view| read::scan_remembered(view, after, limit)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let opened = self.usable()?;
        let disk_bytes = blocking(move || Ok(opened.engine.disk_bytes()?)).await?;
        Ok(Stats {
            disk_bytes,
            records: self.progress.records.load(Ordering::SeqCst),
            entries: self.progress.log_size.load(Ordering::SeqCst),
            ..Stats::default()
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        drop(self.queue.lock().take());
        // It fails when the committer has ended, which it does after the last task.
        let mut durable = self.durable.clone();
        while durable.changed().await.is_ok() {}
        let opened = self.opened.swap(None);
        blocking(move || {
            drop(opened);
            Ok(())
        })
        .await?;
        self.progress.fatal().map_or(Ok(()), Err)
    }
}

impl<E: Engine> Drop for EmbeddedStore<E> {
    /// What was accepted becomes durable, and the directory is free, before it returns.
    fn drop(&mut self) {
        drop(self.queue.get_mut().take());
        if let Some(thread) = self.thread.get_mut().take() {
            // A panic in it is in `progress.fatal`, and nobody is left to be told.
            let _ = thread.join();
        }
    }
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let why = if error.is_panic() { "the engine panicked" } else { "the runtime is stopping" };
        Err(StoreError::Unavailable { why: why.to_owned() })
    })
}

fn closed() -> StoreError {
    StoreError::Unavailable { why: "the store is closed".to_owned() }
}

/// The committer answers a task with that task's kind of answer.
fn mixed_up() -> StoreError {
    StoreError::Unavailable { why: "the committer answered another question".to_owned() }
}
