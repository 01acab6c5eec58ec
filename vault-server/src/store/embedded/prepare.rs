//! A change made ready for the committer by the task that asked for it, so that encoding and hashing use every
//! core and the one committer only checks conditions and numbers entries.

use bytes::Bytes;

use crate::domain::{EntityPlace, JobPlace, KeyId, LeaseName, Record, Timestamp};
use crate::store::embedded::engine::Rows;
use crate::store::embedded::seen::{Foreseen, Seen};
use crate::store::keys::{self, Indexed, Space};
use crate::store::{Change, StoreError, Write, check_lengths, row};

/// A row that a condition is about. Two changes that name the same one do not share a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum RowId {
    Record([u8; 16]),
    Key(Box<[u8]>),
    KeyId([u8; 16]),
    Remembered([u8; 32]),
    Lease(LeaseName),
    Job(Box<[u8]>),
    Entity(EntityPlace),
    Identity,
}

/// What must hold before a write, and what follows from what is there.
#[derive(Debug)]
pub(crate) enum Condition {
    /// No record has the token.
    NewRecord([u8; 16]),
    /// The record there has the revision before this one's; index rows that only one of the two has are put or go.
    NextRecord(Box<Record>),
    /// There is no such key, by name nor by id.
    NewKey { place: Box<[u8]>, id: [u8; 16] },
    /// The key there has this id and the revision before this one.
    NextKey { place: Box<[u8]>, id: [u8; 16], revision: u32 },
    /// No answer is remembered that is unexpired at `at`; the index row of an expired one goes.
    NewAnswer { key: [u8; 32], at: Timestamp, expires: Timestamp },
    /// The lease there has the revision before this one; there is none if this is 0.
    NextLease { name: LeaseName, revision: u64 },
    /// The lease there has this fence.
    Fence { name: LeaseName, fence: u64 },
    /// The key is there and active.
    Active(KeyId),
    /// No record is sealed under the key.
    Unused {
        key: KeyId,
        /// None was, once this batch and all before it could be seen: who asked has looked.
        looked: Option<u64>,
    },
    /// The job there has the revision before this one; there is none if this is 0.
    NextJob { place: JobPlace, revision: u64 },
    /// The entity there, which is changed, has this revision; `None`: there is none.
    NextEntity { place: EntityPlace, there: Option<u64> },
    /// The same of an entity that is not changed.
    Stands { place: EntityPlace, there: Option<u64> },
}

impl Condition {
    /// The rows that it changes.
    pub(crate) fn rows(&self) -> [Option<RowId>; 2] {
        match self {
            Self::NewRecord(token) => [Some(RowId::Record(*token)), None],
            Self::NextRecord(record) => [Some(RowId::Record(*record.token.as_bytes())), None],
            Self::NewKey { place, id } | Self::NextKey { place, id, .. } => {
                [Some(RowId::Key(place.clone())), Some(RowId::KeyId(*id))]
            }
            Self::NewAnswer { key, .. } => [Some(RowId::Remembered(*key)), None],
            Self::NextLease { name, .. } => [Some(RowId::Lease(name.clone())), None],
            Self::NextJob { place, .. } => [Some(RowId::Job(keys::job(place).into())), None],
            Self::NextEntity { place, .. } => [Some(RowId::Entity(place.clone())), None],
            Self::Fence { .. } | Self::Active(_) | Self::Unused { .. } | Self::Stands { .. } => [None, None],
        }
    }

    /// The row that it is about and does not change. A change of that row in the batch at hand must be durable first.
    pub(crate) fn watched(&self) -> Option<RowId> {
        match self {
            Self::Fence { name, .. } => Some(RowId::Lease(name.clone())),
            Self::Active(id) | Self::Unused { key: id, .. } => Some(RowId::KeyId(*id.as_bytes())),
            Self::Stands { place, .. } => Some(RowId::Entity(place.clone())),
            Self::NewRecord(_)
            | Self::NextRecord(_)
            | Self::NewKey { .. }
            | Self::NextKey { .. }
            | Self::NewAnswer { .. }
            | Self::NextLease { .. }
            | Self::NextJob { .. }
            | Self::NextEntity { .. } => None,
        }
    }
}

/// A change, encoded but for what only the committer knows.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// One for each write, in order.
    pub(crate) conditions: Vec<Condition>,
    /// What the writes put, but for the index rows of a changed record: which of them change is known by what is there.
    pub(crate) rows: Rows,
    /// Those index rows, if what is there was seen.
    pub(crate) foreseen: Option<Foreseen>,
    /// Keys that its records are sealed under.
    pub(crate) sealed_under: Vec<KeyId>,
    /// Entries, to be numbered.
    pub(crate) entries: Vec<Bytes>,
}

impl Prepared {
    /// Refuses what is too long.
    pub(crate) fn new(change: Change, seen: &Seen) -> Result<Self, StoreError> {
        check_lengths(&change)?;
        let foreseen = seen.foresee(replaced(&change));
        let mut sealed_under = Vec::new();
        for write in &change.writes {
            if let Write::Insert(record) | Write::Replace(record) = write
                && let Some(key) = record.key_id()
                && !sealed_under.contains(&key)
            {
                sealed_under.push(key);
            }
        }
        let mut rows = Rows::default();
        let conditions = change.writes.into_iter().map(|write| prepare(write, &mut rows)).collect();
        Ok(Self { conditions, rows, foreseen, sealed_under, entries: change.entries })
    }

    /// Tokens of the records that it replaces.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = [u8; 16]> {
        self.conditions.iter().filter_map(|condition| match condition {
            Condition::NextRecord(record) => Some(*record.token.as_bytes()),
            _ => None,
        })
    }

    /// About how many bytes it holds in memory and writes.
    pub(crate) fn bytes(&self) -> usize {
        let foreseen = self.foreseen.as_ref().map_or(0, |foreseen| foreseen.rows.bytes());
        self.rows.bytes() + foreseen + self.entries.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The records that a change replaces, as they will be.
fn replaced(change: &Change) -> impl Iterator<Item = &Record> {
    change.writes.iter().filter_map(|write| match write {
        Write::Replace(record) => Some(record),
        _ => None,
    })
}

/// Puts and removes the index rows that only one of two revisions of a record has.
pub(super) fn put_index_changes(old: &Indexed<'_>, new: &Indexed<'_>, rows: &mut Rows) {
    for space in Indexed::SPACES.into_iter().filter(|space| !old.same_in(*space, new)) {
        let (gone, put) = (old.key_in(space), new.key_in(space));
        if !gone.is_empty() {
            rows.remove(space, &gone);
        }
        if !put.is_empty() {
            rows.put(space, &put, &[]);
        }
    }
}

fn prepare(write: Write, rows: &mut Rows) -> Condition {
    match write {
        Write::Insert(record) => {
            put_record(&record, rows);
            put_indexes(&record, rows);
            Condition::NewRecord(*record.token.as_bytes())
        }
        Write::Replace(record) => {
            put_record(&record, rows);
            Condition::NextRecord(Box::new(record))
        }
        Write::InsertKey(key) => {
            let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
            rows.put_with(Space::Keys, &place, |out| row::write_key(&key, out));
            rows.put(Space::KeyIds, key.id.as_bytes(), &place);
            Condition::NewKey { place: place.into(), id: *key.id.as_bytes() }
        }
        Write::ReplaceKey(key) => {
            let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
            rows.put_with(Space::Keys, &place, |out| row::write_key(&key, out));
            Condition::NextKey { place: place.into(), id: *key.id.as_bytes(), revision: key.revision }
        }
        Write::Remember(answer) => {
            rows.put_with(Space::Remembered, &answer.key, |out| row::write_remembered(&answer, out));
            rows.put(Space::Expiries, &keys::expiry(answer.expires, &answer.key), &[]);
            Condition::NewAnswer { key: answer.key, at: answer.at, expires: answer.expires }
        }
        Write::PutLease(lease) => {
            rows.put_with(Space::Leases, lease.name.as_str().as_bytes(), |out| row::write_lease(&lease, out));
            Condition::NextLease { name: lease.name, revision: lease.revision }
        }
        Write::Fence { lease, fence } => Condition::Fence { name: lease, fence },
        Write::Active(id) => Condition::Active(id),
        Write::Unused(key) => Condition::Unused { key, looked: None },
        Write::PutJob(job) => {
            rows.put_with(Space::Jobs, &keys::job(&job.place), |out| row::write_job(&job, out));
            Condition::NextJob { place: job.place, revision: job.revision }
        }
        Write::PutEntity(entity) => {
            rows.put_with(Space::Entities, &keys::entity(&entity.place), |out| {
                row::write_entity(&entity, out);
            });
            Condition::NextEntity { place: entity.place, there: entity.revision.checked_sub(1) }
        }
        Write::DropEntity { place, revision } => {
            rows.remove(Space::Entities, &keys::entity(&place));
            Condition::NextEntity { place, there: Some(revision) }
        }
        Write::Stands { place, revision } => Condition::Stands { place, there: revision },
    }
}

fn put_record(record: &Record, rows: &mut Rows) {
    rows.put_with(Space::Records, record.token.as_bytes(), |out| row::write_record(record, out));
}

fn put_indexes(record: &Record, rows: &mut Rows) {
    let indexed = Indexed::of(record);
    for space in Indexed::SPACES {
        let key = indexed.key_in(space);
        if !key.is_empty() {
            rows.put(space, &key, &[]);
        }
    }
}
