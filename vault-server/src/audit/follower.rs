//! Follows the log and derives from it: Merkle tree, tiles, index rows, signed checkpoints.
//!
//! A task of its own, never in a request's way. It does nothing while nothing is new, and work in proportion to
//! what is; every step is one atomic write of whole tiles, index rows and the checkpoint of exactly those
//! entries, so that it can be taken up from wherever it ended ([`super::resume`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use vault_format::checkpoint::Checkpoint;
use vault_format::note::{NoteError, Verifier};
use vault_format::tile::Edge;
use vault_format::tree::Hash;

use super::derive::{self, Read, Rows};
use super::recent::Recent;
pub use super::resume::FollowerError;
use super::resume::resume;
use super::signing::{SigningKeys, SigningSource};
use crate::domain::{Clock, Timestamp};
use crate::store::{Derived, Store, StoreError};

/// What one step takes in: bounds its memory, and how long it keeps a thread.
const STEP_ENTRIES: u64 = 1024;
const STEP_BYTES: usize = 1 << 20;
/// The most that is taken in of entries none of which says that its request ends there.
const REQUEST_BYTES: usize = 64 << 20;
/// How often what does not pass by itself is told.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

/// How it follows.
#[derive(Debug, Clone, Copy)]
pub struct FollowerOptions {
    /// How long an entry may wait for a checkpoint that covers it.
    pub checkpoint_every: Duration,
}

/// Why there is no fresh checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FreshError {
    /// Not in time.
    #[error("no checkpoint in time")]
    Timeout,
    /// The follower has stopped.
    #[error("the log is not followed any more")]
    Stopped,
    /// The store did not say how many entries there are.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The follower of one log.
pub struct Follower {
    store: Arc<dyn Store>,
    recent: Arc<Recent>,
    signing: Arc<dyn SigningSource>,
    origin: String,
    clock: Arc<dyn Clock>,
    edge: Edge,
    /// What was signed, and is not there, or not known to be: sizes of the tree and the roots that it must come to again,
    /// ascending.
    signed: VecDeque<(u64, Hash)>,
    /// What was told last, and when.
    told: Option<(FollowerError, Instant)>,
    progress: watch::Sender<Progress>,
}

/// What entries are read for.
#[derive(Debug, Clone, Copy)]
enum Entries {
    /// To be signed for the first time: each must have its seal.
    New,
    /// To be compared with a root that was signed.
    Signed,
}

/// How far it is.
#[derive(Clone)]
struct Progress {
    size: u64,
    checkpoint: Option<Arc<str>>,
    /// Those that signed it; those of the start if it is from before this process.
    keys: Arc<SigningKeys>,
    signed_at: Option<Timestamp>,
}

/// A follower at work. Dropping it lets the follower go on; [`FollowerHandle::stop`] ends it.
pub struct FollowerHandle {
    store: Arc<dyn Store>,
    progress: watch::Receiver<Progress>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    /// Takes up where the last one ended, and checks that what is there is what was signed: see
    /// [`FollowerError`].
    pub async fn start(
        store: Arc<dyn Store>,
        signing: Arc<dyn SigningSource>,
        origin: &str,
        clock: Arc<dyn Clock>,
        options: FollowerOptions,
    ) -> Result<FollowerHandle, FollowerError> {
        Self::start_beside(store, Arc::default(), signing, origin, clock, options).await
    }

    /// As [`Follower::start`], beside the log that keeps in `recent` what it writes.
    pub async fn start_beside(
        store: Arc<dyn Store>,
        recent: Arc<Recent>,
        signing: Arc<dyn SigningSource>,
        origin: &str,
        clock: Arc<dyn Clock>,
        options: FollowerOptions,
    ) -> Result<FollowerHandle, FollowerError> {
        let keys = signing.now().await?;
        let (edge, checkpoint) = resume(&*store, &keys.verifiers(origin)?).await?;
        check_end(&*store, edge.size()).await?;
        let begun =
            Progress { size: edge.size(), checkpoint: checkpoint.map(Into::into), keys, signed_at: None };
        let (sender, progress) = watch::channel(begun);
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let origin = origin.to_owned();
        let follower = Self {
            store: Arc::clone(&store),
            recent,
            signing,
            origin,
            clock,
            edge,
            signed: VecDeque::new(),
            told: None,
            progress: sender,
        };
        let task = tokio::spawn(follower.run(options, Arc::clone(&wake), stop.clone()));
        Ok(FollowerHandle { store, progress, wake, stop, task: Mutex::new(Some(task)) })
    }

    async fn run(mut self, options: FollowerOptions, wake: Arc<Notify>, stop: CancellationToken) {
        let mut ticks = interval(options.checkpoint_every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
                () = wake.notified() => false,
            };
            match self.catch_up().await {
                Ok(()) => {}
                Err(error @ (StoreError::Fatal { .. } | StoreError::Taken)) => {
                    tracing::error!(%error, "the log is not followed any more");
                    return;
                }
                // What is not derived now will be at the next tick.
                Err(error) => {
                    self.tell(&FollowerError::Store(error));
                    match self.go_back().await {
                        // As was just said.
                        Ok(()) | Err(FollowerError::Store(StoreError::Unavailable { .. })) => {}
                        Err(error) => self.tell(&error),
                    }
                }
            }
            if last {
                return;
            }
        }
    }

    /// Tells why it is not followed: what does not pass by itself once in a while.
    fn tell(&mut self, error: &FollowerError) {
        if matches!(
            error,
            FollowerError::Store(StoreError::Unavailable { .. } | StoreError::Late)
                | FollowerError::Signing(_)
        ) {
            tracing::warn!(%error, "the log could not be followed");
            return;
        }
        let now = Instant::now();
        let known = self.told.as_ref().filter(|(told, _)| told == error);
        if known.is_none_or(|(_, at)| now.duration_since(*at) >= TOLD_AGAIN) {
            tracing::error!(%error, "the log is not what the vault wrote: no more of it is signed");
            self.told = Some((error.clone(), now));
        }
    }

    /// Derives from all entries there are.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let size = self.store.log_size(self.store.log()).await?;
        loop {
            let keys = self.signing.now().await.map_err(|error| unavailable(&error))?;
            // The empty log gets a checkpoint, too, and each one by the keys that sign now.
            if self.edge.size() >= size && self.is_signed_by(&keys) {
                return Ok(());
            }
            self.step(size, keys).await?;
        }
    }

    /// A store that outlives this process may have lost what was derived last, though no entry: a database that was failed
    /// over from. Then what it lost is derived anew, if its entries are those that were signed: an older checkpoint may as
    /// well have been put back, and an entry after it altered.
    async fn go_back(&mut self) -> Result<(), FollowerError> {
        if self.store.derived(self.store.log()).await?.upto >= self.edge.size() {
            return Ok(());
        }
        let keys = self.signing.now().await?;
        let (edge, _) = resume(&*self.store, &keys.verifiers(&self.origin)?).await?;
        if edge.size() >= self.edge.size() {
            // What was thought lost has arrived since.
            return Ok(());
        }
        let mut signed = self.retrace(edge.clone()).await?;
        signed.append(&mut self.signed);
        self.signed = signed;
        let (from, until) = (edge.size(), self.edge.size());
        tracing::warn!(from, until, "the store lost what was derived from these entries: it is derived anew");
        // The newest checkpoint stays: it was signed, and its entries are there.
        self.progress.send_modify(|at| at.size = from);
        self.edge = edge;
        Ok(())
    }

    /// The steps from an edge to the one that was signed last. They are held to these when they are made: nothing is signed
    /// of entries that are altered between here and there.
    async fn retrace(&self, mut edge: Edge) -> Result<VecDeque<(u64, Hash)>, FollowerError> {
        let (from, signed) = (edge.size(), self.edge.size());
        let mut steps = VecDeque::new();
        while edge.size() < signed {
            for (entry, _) in self.whole_requests(edge.size(), signed, Entries::Signed).await? {
                edge.push(Hash::leaf(&entry), |_, _| {});
            }
            steps.push_back((edge.size(), edge.root()));
        }
        if edge.root() != self.edge.root() {
            return Err(FollowerError::Root { signed, from });
        }
        Ok(steps)
    }

    /// Derives from the next entries before `size`. What is in memory changes only after what is in the store.
    async fn step(&mut self, size: u64, keys: Arc<SigningKeys>) -> Result<(), StoreError> {
        let start = self.edge.size();
        let signed = self.signed.front().copied();
        let entries = match signed {
            Some((end, _)) => self.all(start, end).await?,
            None => self.whole_requests(start, size, Entries::New).await?,
        };
        let mut edge = self.edge.clone();
        let Rows { tiles, postings } = derive::append(&mut edge, &entries);
        if let Some((end, root)) = signed
            && edge.root() != root
        {
            return Err(StoreError::Corrupt {
                what: format!("log entry: one of {start}..{end}, which were signed"),
            });
        }
        let checkpoint = self.sign(&edge, &keys)?;
        if signed.is_none() {
            // Whatever becomes of it: there is no other root of this size.
            self.signed.push_front((edge.size(), edge.root()));
        }
        let upto = edge.size();
        let newest = Some((upto, checkpoint.clone()));
        self.store.derive(Derived { from: start, upto, tiles, postings, checkpoint: newest }).await?;
        self.edge = edge;
        self.signed.pop_front();
        let (now, is_behind) = (Some(self.clock.now()), !self.signed.is_empty());
        self.progress.send_modify(|at| {
            // What was given out is not followed by a smaller one.
            let known = at.checkpoint.take().filter(|_| is_behind);
            let checkpoint = known.or_else(|| Some(checkpoint.into()));
            *at = Progress { size: upto, checkpoint, keys, signed_at: now };
        });
        Ok(())
    }

    /// The next entries before `size`, about as many as a step takes in. They end where a request does: a
    /// checkpoint does not come between its parts.
    async fn whole_requests(&self, start: u64, size: u64, of: Entries) -> Result<Vec<Read>, StoreError> {
        let (mut entries, mut bytes): (Vec<Read>, _) = (Vec::new(), 0);
        let mut next = start;
        while next < size {
            let most = (size - next).min(STEP_ENTRIES) as usize;
            let read = self.read(next, most, of).await?;
            if read.is_empty() {
                return Err(StoreError::Corrupt { what: format!("log entry {next}") });
            }
            next += read.len() as u64;
            bytes += read.iter().map(Bytes::len).sum::<usize>();
            entries.extend(read.into_iter().map(derive::read));
            let ends = |(_, entry): &Read| {
                entry.as_ref().is_none_or(|entry| entry.part.saturating_add(1) >= entry.parts)
            };
            if let Some(last) = entries.iter().rposition(ends) {
                entries.truncate(last + 1);
                break;
            }
            // So that entries which say that their request goes on and on are not read to the log's end at once.
            if bytes >= REQUEST_BYTES {
                break;
            }
        }
        Ok(entries)
    }

    /// All entries of `start..end`, which a step took in before.
    async fn all(&self, start: u64, end: u64) -> Result<Vec<Read>, StoreError> {
        let mut entries: Vec<Read> = Vec::new();
        let mut next = start;
        while next < end {
            let most = usize::try_from(end - next).unwrap_or(usize::MAX);
            let read = self.read(next, most, Entries::Signed).await?;
            if read.is_empty() {
                return Err(StoreError::Corrupt { what: format!("log entry {next}") });
            }
            next += read.len() as u64;
            entries.extend(read.into_iter().map(derive::read));
        }
        Ok(entries)
    }

    /// The next entries: those that were kept, or else from the store what is before them.
    async fn read(&self, next: u64, most: usize, of: Entries) -> Result<Vec<Bytes>, StoreError> {
        let kept = self.recent.entries(next, most, STEP_BYTES);
        if !kept.is_empty() {
            return Ok(kept);
        }
        let most = most_before(self.recent.first(), next, most);
        match of {
            Entries::New => self.store.entries_to_sign(self.store.log(), next, most, STEP_BYTES).await,
            Entries::Signed => self.store.entries(self.store.log(), next, most, STEP_BYTES).await,
        }
    }

    /// Whether the newest checkpoint is. One from before this process is signed anew if these would sign it otherwise.
    fn is_signed_by(&self, keys: &Arc<SigningKeys>) -> bool {
        let progress = self.progress.borrow();
        let Some(checkpoint) = progress.checkpoint.as_deref() else { return false };
        if progress.signed_at.is_some() {
            return Arc::ptr_eq(&progress.keys, keys);
        }
        self.sign(&self.edge, keys).is_ok_and(|signed| signed == checkpoint)
    }

    fn sign(&self, edge: &Edge, keys: &SigningKeys) -> Result<String, StoreError> {
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: edge.size(), root: edge.root() };
        // A signer's name has no character that a checkpoint may not have.
        keys.sign(&self.origin, &checkpoint.text()).map_err(|error| unavailable(&error))
    }
}

/// Whether the vault wrote what stands in its log behind a checkpoint. Who writes behind what it did not would never come to
/// sign it.
async fn check_end(store: &dyn Store, signed: u64) -> Result<(), StoreError> {
    let (log, mut next) = (store.log(), signed);
    let size = store.log_size(log).await?;
    while next < size {
        let read = store.entries_to_sign(log, next, STEP_ENTRIES as usize, STEP_BYTES).await?;
        if read.is_empty() {
            return Err(StoreError::Corrupt { what: format!("log entry {next}") });
        }
        next += read.len() as u64;
    }
    Ok(())
}

fn unavailable(error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable { why: error.to_string() }
}

/// How many entries from `next` on to read from the store, if `first` is the first that was kept. One that is not behind
/// `next` was kept after those from `next` on were asked for: it bounds nothing.
fn most_before(first: Option<u64>, next: u64, most: usize) -> usize {
    let missing = first.and_then(|first| first.checked_sub(next)).filter(|missing| *missing > 0);
    missing.and_then(|missing| usize::try_from(missing).ok()).map_or(most, |missing| most.min(missing))
}

impl FollowerHandle {
    /// A checkpoint that covers every entry written before the call.
    pub async fn fresh_checkpoint(&self, within: Duration) -> Result<String, FreshError> {
        let until = Instant::now() + within;
        let size = timeout_at(until, self.store.log_size(self.store.log()))
            .await
            .map_err(|_| FreshError::Timeout)??;
        let mut progress = self.progress.clone();
        self.wake.notify_one();
        let covers = progress.wait_for(|at| at.size >= size && at.checkpoint.is_some());
        let covered = timeout_at(until, covers).await.map_err(|_| FreshError::Timeout)?;
        let covered = covered.map_err(|_| FreshError::Stopped)?;
        covered.checkpoint.as_deref().map(ToOwned::to_owned).ok_or(FreshError::Stopped)
    }

    /// The newest checkpoint, if there is one yet.
    pub fn newest_checkpoint(&self) -> Option<String> {
        self.progress.borrow().checkpoint.as_deref().map(ToOwned::to_owned)
    }

    /// Entries before this one are in the tree, under the newest checkpoint, and in the index.
    pub fn covered(&self) -> u64 {
        self.progress.borrow().size
    }

    /// When the newest checkpoint was signed; `None` if that was before this process.
    pub fn signed_at(&self) -> Option<Timestamp> {
        self.progress.borrow().signed_at
    }

    /// What verifies the checkpoints of any log of the vault: the same key signs them all.
    pub fn verifier_key_of(&self, origin: &str) -> Result<String, NoteError> {
        Ok(self.newest_key().named(origin)?.to_key())
    }

    /// The newest key that has signed here, under the vault's name.
    pub fn newest_key(&self) -> Verifier {
        self.progress.borrow().keys.newest().clone()
    }

    /// Whether it still follows the log.
    pub fn is_running(&self) -> bool {
        self.progress.has_changed().is_ok()
    }

    /// Derives from what is there, and ends. Gives up after `within`: all of it can be made again.
    pub async fn stop(&self, within: Duration) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take() {
            let abort = task.abort_handle();
            if timeout(within, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
