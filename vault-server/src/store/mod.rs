//! What is kept, and what is promised of it.
//!
//! * What was acknowledged is durable and survives a power cut. What was not may be there or not, never half.
//! * A [`Change`] is atomic: its writes and its log entries, all or none. Concurrent changes share a sync.
//! * A conditional write has one winner: the loser's change is [`StoreError::Conflict`] and left nothing.
//! * A failed sync is fatal: [`StoreError::Fatal`] from then on, for everyone, until the process starts anew.
//! * Corruption is an error that names the record, never a panic, never another record's bytes, never silence.
//!
//! One conformance suite (`conformance`) holds every engine to them.

pub mod embedded;
pub mod memory;
pub mod postgres;

mod entity_row;
mod entry_seals;
mod keys;
mod lease;
mod page;
mod row;
mod sealed;
mod told;
mod waiting;

#[cfg(test)]
mod conformance;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

pub use self::entity_row::EntityRow;
pub use self::entry_seals::{EntrySeals, Unsealed};
pub use self::lease::{Held, Lease, LeaseError, Leases};
pub use self::page::{Cursor, Malformed, Page};
pub use self::sealed::SealedStore;
use self::told::Told;
use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, MAX_SEALED_ENTITY, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};

/// Something to write; each is conditional, and a condition that does not hold is a conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new record; its token must not be there.
    Insert(Record),
    /// A changed record; the row there must have revision `record.revision - 1`.
    Replace(Record),
    /// A new key; its (tenant, purpose, version) must not be there.
    InsertKey(KeyRecord),
    /// A changed key; the row there must have revision `key.revision - 1`.
    ReplaceKey(KeyRecord),
    /// What was answered under an idempotency key; none that is unexpired at `remembered.at` may be there.
    Remember(Remembered),
    /// A lease that is taken, renewed or given back; the row there must have revision `lease.revision - 1`, and
    /// none may be there if that is 0.
    PutLease(Lease),
    /// Writes nothing: the lease must still be held under this fence. Every write that a worker makes under a
    /// lease comes with one.
    Fence {
        /// Which lease.
        lease: LeaseName,
        /// The fence it was taken under.
        fence: u64,
    },
    /// Writes nothing: the key must be there and active. Every write that seals under a key, or makes an index with it,
    /// comes with one: so nothing lands under a key from the moment that another one took its place.
    Active(KeyId),
    /// Writes nothing: no record may be sealed under the key. A key is destroyed under it. Like every condition it is
    /// about what is there before the change; writes that come with [`Write::Active`] are held back until it is durable.
    Unused(KeyId),
    /// A job that is begun or changed; the row at its place must have revision `job.revision - 1`, and none may be there
    /// if that is 0.
    PutJob(Job),
    /// An entity that is begun or changed; the row at its place must have revision `entity.revision - 1`, and none may be
    /// there if that is 0. Its content is at most [`MAX_ENTITY`](crate::domain::MAX_ENTITY) bytes, and
    /// [`MAX_SEALED_ENTITY`] with its seal.
    PutEntity(Entity),
    /// An entity that goes; the row there must have this revision.
    DropEntity {
        /// Where it stands.
        place: EntityPlace,
        /// The revision it has.
        revision: u64,
    },
    /// Writes nothing: an entity must be as it was when it was read. Like every condition it is about what is there before
    /// the change, and it holds until the change is durable.
    Stands {
        /// Where it stands.
        place: EntityPlace,
        /// The revision it has; `None`: none may be there.
        revision: Option<u64>,
    },
}

/// The number of a log within its vault. Each process that writes has a log of its own; an embedded store has one
/// process and so one log, 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u32);

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// An answered write, so that its repetition gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Keyed hash of principal, tenant and idempotency key.
    pub key: [u8; 32],
    /// Keyed hash of the request, to tell a repetition from a conflict.
    pub request: [u8; 32],
    /// The tokens answered, item by item; `None` for a refused item.
    pub tokens: Vec<Option<Token>>,
    /// When it was written.
    pub at: Timestamp,
    /// When it may be forgotten.
    pub expires: Timestamp,
}

/// An atomic change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// In order; at most one for each row.
    pub writes: Vec<Write>,
    /// Log entries, in order, each at most [`MAX_ENTRY`] bytes; they get consecutive sequence numbers.
    pub entries: Vec<Bytes>,
}

/// The most an entry may have, so that it fits a C2SP entry bundle.
pub const MAX_ENTRY: usize = 65_535;

/// Refuses a change with something longer than any engine takes.
fn check_lengths(change: &Change) -> Result<(), StoreError> {
    let too_long = |why: &str| Err(StoreError::Unavailable { why: why.to_owned() });
    if change.entries.iter().any(|entry| entry.len() > MAX_ENTRY) {
        return too_long("a log entry is too long");
    }
    let long =
        |write: &Write| matches!(write, Write::PutEntity(entity) if entity.content.len() > MAX_SEALED_ENTITY);
    if change.writes.iter().any(long) {
        return too_long("the content of an entity is too long");
    }
    Ok(())
}

/// A durable change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Sequence number of the change's first entry in the store's own log (the log's size, if it had none).
    pub first_sequence: u64,
}

/// What is kept under a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The record.
    Found(Box<Record>),
    /// Nothing.
    Missing,
    /// A row that is not what was written.
    Corrupt,
}

/// The place of a tile of the log's tree (C2SP tlog-tiles): level and index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    /// 0 is the level of the leaves' hashes.
    pub level: u8,
    /// From the left.
    pub index: u64,
}

/// A row of an index over the log: `key` is the audit layer's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// What is looked up; at most 255 bytes.
    pub key: Vec<u8>,
    /// An entry it stands in.
    pub sequence: u64,
}

/// What follows from the log's entries and can be made again from them: one atomic write, ordered after the
/// entries it is made of, not synced by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Entries before this are covered by what was derived before. A store in which they are not refuses all of it:
    /// what it lost would be missing for good.
    pub from: u64,
    /// Entries before this are covered by all derived rows. Never goes back.
    pub upto: u64,
    /// Whole tiles (256 hashes, 8192 bytes each).
    pub tiles: Vec<(TileId, Bytes)>,
    /// Index rows.
    pub postings: Vec<Posting>,
    /// The newest signed checkpoint (its text), and its size.
    pub checkpoint: Option<(u64, String)>,
}

impl Derived {
    /// That it joins what is there, which goes as far as `there`.
    pub(crate) fn joins(&self, there: u64) -> Result<(), StoreError> {
        if self.from <= there {
            return Ok(());
        }
        let from = self.from;
        Err(StoreError::Unavailable {
            why: format!("what is derived from the log ends at entry {there}, not at {from}"),
        })
    }
}

/// How far the derived rows of a log go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DerivedState {
    /// As in [`Derived`].
    pub upto: u64,
    /// The newest signed checkpoint and its size.
    pub checkpoint: Option<(u64, String)>,
}

/// Why the store did not do it. None names a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The condition of `writes[write]` did not hold; nothing was written.
    #[error("condition of write {write} does not hold")]
    Conflict {
        /// Which.
        write: usize,
    },
    /// Not now; nothing was written, or it is not known whether (`maybe`).
    #[error("store not available: {why}")]
    Unavailable {
        /// For the operator.
        why: String,
    },
    /// It waited for too long behind others; nothing was written.
    #[error("more is to be written than the store can write: nothing was")]
    Late,
    /// Durability is gone: a sync failed, now or before. The process must stop serving.
    #[error("store failed for good: {why}")]
    Fatal {
        /// For the operator.
        why: String,
    },
    /// Another instance writes this one's log now. The process must stop serving; a new one takes another log.
    #[error("another instance has taken this one's log")]
    Taken,
    /// A row is not what was written.
    #[error("corrupt {what}")]
    Corrupt {
        /// Which row: its kind and its name.
        what: String,
    },
    /// The store belongs to another vault, or to another version of the software.
    #[error("wrong store: {why}")]
    Foreign {
        /// For the operator.
        why: String,
    },
}

/// An engine. All calls may be made from any number of tasks.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Name of the engine, for people: `fjall`, `sled`, `memory`.
    fn engine(&self) -> &'static str;

    /// Whether other processes may have it open at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Which vault this store is of; `None` before [`Store::found`].
    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError>;

    /// Makes it the store of a vault, durably. [`StoreError::Foreign`] if it is of another one.
    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError>;

    /// Writes a change. When it returns `Ok`, the change is durable.
    ///
    /// Dropping the future does not undo it: the change may still be written.
    async fn commit(&self, change: Change) -> Result<Committed, StoreError>;

    /// As [`Store::commit`], but what the store has not begun to write by then is not written: [`StoreError::Late`] if others
    /// were in its way, [`StoreError::Unavailable`] if the store wrote nothing at all meanwhile.
    async fn commit_until(&self, change: Change, until: Instant) -> Result<Committed, StoreError>;

    /// Records by token, in the order asked for.
    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError>;

    /// [`Store::records`], for who is about to replace them. An engine may keep in mind what it read, so that it need not look a
    /// second time before it writes.
    async fn records_to_replace(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.records(tokens).await
    }

    /// At most `limit` tokens whose record has this index, in order of their bytes.
    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError>;

    /// Tokens of a subject that still hold a value, in order of their bytes, past `after`, at most `limit`.
    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError>;

    /// Tokens whose record is sealed under a key, in order of their bytes, past `after`, at most `limit`.
    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError>;

    /// How many records are sealed under a key. A row that is not what was written counts: it was one once.
    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError>;

    /// Tokens of a tenant and class whose record has an index that a version of the index key made, in the order of the
    /// indexes' bytes, past `after`, at most `limit`.
    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError>;

    /// All versions of a key, oldest first. `tenant` is `None` for the vault's own keys.
    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError>;

    /// A key by its id.
    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError>;

    /// What was answered under an idempotency key, expired or not.
    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError>;

    /// Forgets at most `limit` answers that expired before `now`; how many it forgot.
    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// A lease, held or not.
    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError>;

    /// The job at a place, under way or over.
    async fn job(&self, place: &JobPlace) -> Result<Option<Job>, StoreError>;

    /// Jobs in order of their places (the vault's own first, tenants by name, kinds by number), past `after`, at most
    /// `limit`.
    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<Job>, StoreError>;

    /// The same, but a row that is not what was written is handed out as one, and is in the way of no other.
    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<Job>, StoreError>;

    /// The entity at a place.
    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError>;

    /// Entities in order of their places, past `after`, at most `limit`.
    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError>;

    /// As [`Store::entities`], but a row that the vault did not write is handed out as one, and is in the way of no other. An
    /// engine knows those that are malformed; [`SealedStore`] knows the others, too. One that is at no place of an entity is
    /// told to the operator and passed over: nobody looks there.
    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError>;

    /// Jobs that are not over, in order of their places. A row that is not what was written is named, and is in the way
    /// of no other.
    async fn jobs_under_way(&self) -> Result<UnderWay, StoreError> {
        let mut found = UnderWay::default();
        let mut after: Option<JobPlace> = None;
        loop {
            let page = self.jobs(after.as_ref(), PAGE_OF_JOBS).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.place.clone());
            found.jobs.extend(page.into_iter().filter(|job| !job.state.is_over()));
        }
    }

    /// The log that this store writes.
    fn log(&self) -> LogId;

    /// All logs of the vault, those of other processes too, in ascending order.
    async fn logs(&self) -> Result<Vec<LogId>, StoreError>;

    /// How many entries a log has. All before it are durable.
    async fn log_size(&self, log: LogId) -> Result<u64, StoreError>;

    /// Entries of a log from `start`, in order: at least one if there is one, then as many as fit `max_entries`
    /// and `max_bytes`.
    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError>;

    /// From now on each entry that is written gets a seal beside it, and [`Store::entries_to_sign`] looks at them.
    fn seal_entries(&self, seals: Arc<EntrySeals>);

    /// As [`Store::entries`], for who signs them: one that the vault did not write is [`StoreError::Corrupt`], which names it.
    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError>;

    /// Takes the log of an instance that fell silent, if there is one whose entries are not all under a checkpoint:
    /// a store of its own, for that log, which nobody writes meanwhile. Its [`Store::close`] gives the log back and
    /// leaves this store as it is. An engine with one log has none to take.
    async fn adopt(&self) -> Result<Option<Arc<dyn Store>>, StoreError> {
        Ok(None)
    }

    /// Writes derived rows of the store's own log.
    async fn derive(&self, derived: Derived) -> Result<(), StoreError>;

    /// How far derived rows of a log go.
    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError>;

    /// A whole tile.
    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError>;

    /// Sequences under an index key within `from..until`, at most `limit`, oldest or newest first.
    async fn postings(
        &self,
        log: LogId,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError>;

    /// Records in order of their tokens, past `after`, at most `limit`. A row that is not what was written is an
    /// error that names it: what can't be read is not passed over.
    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError>;

    /// All keys in order of their ids, past `after`, at most `limit`.
    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError>;

    /// The same, but a row that is not what was written is handed out as one, and is in the way of no other.
    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError>;

    /// Remembered answers in order of their keys, past `after`, at most `limit`.
    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError>;

    /// Bytes on disk, records and log entries, for metrics; approximate.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Ends the engine after what was accepted is durable. Calls after it are `Unavailable`.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Jobs that are looked at at once.
const PAGE_OF_JOBS: usize = 256;

/// What [`Store::jobs_under_way`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Jobs that wait, run or rest.
    pub jobs: Vec<Job>,
    /// Names of rows that are not what was written.
    pub corrupt: Vec<String>,
}

impl UnderWay {
    fn push(&mut self, row: Result<Job, StoreError>) -> Result<(), StoreError> {
        match row {
            Ok(job) if job.state.is_over() => {}
            Ok(job) => self.jobs.push(job),
            Err(StoreError::Corrupt { what }) => self.corrupt.push(what),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Approximate figures of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Records, erased ones included.
    pub records: u64,
    /// Log entries.
    pub entries: u64,
    /// Commits whose connection was lost and that turned out to have been made.
    pub resolved_made: u64,
    /// Commits whose connection was lost and that turned out not to have been made; they were made again.
    pub resolved_not_made: u64,
    /// Commits that were tried again because others were at the same rows.
    pub repeated: u64,
}

/// The error that names a row. Keys hold ids, tokens and keyed hashes only: all are safe to log.
fn corrupt(space: keys::Space, key: &[u8]) -> StoreError {
    StoreError::Corrupt { what: format!("{} {}", space.name(), hex::encode(key)) }
}
