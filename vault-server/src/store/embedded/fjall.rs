//! fjall: an LSM tree of its own for each space, one journal for all.
//!
//! A batch with a durability is written to the journal and synced there before its rows go into the memtables,
//! so no read sees what is not durable. A batch that was cut short is dropped as a whole when the journal is
//! replayed (it has an item count and a checksum).

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode};

use crate::store::embedded::engine::{Direction, Engine, EngineError, Rows, Visit};
use crate::store::keys::Space;

/// Threads that flush and merge: as many as there are cores, but at least three and at most four. The first one only
/// flushes, and while all others merge it hands a further merge from hand to hand: of two threads that costs a core
/// as long as the one merge takes. One alone would merge before it flushes, and writes would wait for it.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(3, 4)
}

/// How a new space is kept; one that is there stays as it was made.
fn options(space: Space) -> KeyspaceCreateOptions {
    use Space::{
        Entities, Expiries, Indexes, Jobs, KeyIds, Keys, Leases, Log, Meta, Postings, Records, Remembered,
        SealedUnder, Subjects, Tiles,
    };
    let options = KeyspaceCreateOptions::default();
    // What is random or sealed does not get smaller.
    let random = CompressionPolicy::disabled();
    match space {
        Records | Keys | KeyIds | Remembered | Tiles => options.data_block_compression_policy(random),
        // And nobody asks for one row of these: all reads are scans.
        Subjects | Indexes | SealedUnder | Expiries => {
            options.data_block_compression_policy(random).filter_policy(FilterPolicy::disabled())
        }
        Log | Postings | Meta | Leases | Jobs | Entities => options,
    }
}

pub(crate) struct FjallEngine {
    database: Database,
    spaces: Vec<Keyspace>,
}

impl FjallEngine {
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        Self::open_with(dir, cache_bytes, &Space::ALL)
    }

    /// Those that are not there are made: a store of older software has fewer.
    pub(super) fn open_with(dir: &Path, cache_bytes: u64, spaces: &[Space]) -> Result<Self, EngineError> {
        let database = Database::builder(dir)
            .cache_size(cache_bytes)
            .worker_threads(workers())
            // Rows are sealed: there is nothing to gain.
            .journal_compression(CompressionType::None)
            .open()?;
        let spaces = spaces
            .iter()
            .map(|space| database.keyspace(space.name(), || options(*space)))
            .collect::<Result<_, _>>()?;
        Ok(Self { database, spaces })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space.position()]
    }
}

impl Engine for FjallEngine {
    type Row = fjall::Slice;

    const VISIBLE_BEFORE_SYNC: bool = false;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<fjall::Slice>, EngineError> {
        Ok(self.space(space).get(key)?)
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.space(space).contains_key(key)?)
    }

    fn scan(
        &self,
        space: Space,
        (from, until): (&[u8], Option<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let until = until.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.space(space).range::<&[u8], _>((Bound::Included(from), until));
        loop {
            let next = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some(guard) = next else { return Ok(()) };
            let (key, row) = guard.into_inner()?;
            if let ControlFlow::Break(()) = visit(&key, &row) {
                return Ok(());
            }
        }
    }

    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError> {
        let durability = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let len = batch.iter().map(Rows::len).sum();
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), len).durability(Some(durability));
        for (space, key, row) in batch.iter().flat_map(Rows::iter) {
            match row {
                Some(row) => writes.insert(self.space(space), key, row),
                None => writes.remove(self.space(space), key),
            }
        }
        Ok(writes.commit()?)
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.database.disk_space()?)
    }
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        use fjall::Error::{InvalidTag, InvalidTrailer, Storage};
        let why = format!("fjall: {error:?}");
        match error {
            Storage(LsmError::Io(_)) => Self::Failed(why),
            Storage(_) | InvalidTag(_) | InvalidTrailer => Self::Corrupt(why),
            _ => Self::Failed(why),
        }
    }
}
