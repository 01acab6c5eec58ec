//! fjall: an LSM tree of its own for each space, one journal for all.
//!
//! A batch with a durability is written to the journal and synced there before its rows go into the memtables,
//! so no read sees what is not durable. A batch that was cut short is dropped as a whole when the journal is
//! replayed (it has an item count and a checksum).
//!
//! A batch's rows go into the memtables one by one, and a plain read sees them come. Nor is a snapshot that is taken
//! meanwhile of whole batches: a flush in the background may have raised what is visible past a batch that is half
//! there. So snapshots are taken between batches only, one after each, and all reads are of the last of them.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Snapshot,
};
use parking_lot::Mutex;

use crate::store::embedded::engine::{Direction, Engine, EngineError, Rows, View, Visit};
use crate::store::keys::Space;

/// Threads that flush and merge: as many as there are cores, but at least three and at most four. The first one only
/// flushes, and while all others merge it hands a further merge from hand to hand: of two threads that costs a core
/// as long as the one merge takes. One alone would merge before it flushes, and writes would wait for it.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(3, 4)
}

/// So many memtables of a space that wait to be flushed, and fjall halts who wrote to it (`local_backpressure` in its
/// `keyspace/mod.rs`).
const HALTED_MEMTABLES: usize = 4;
/// So many tables that wait to be merged, and it slows them.
const SLOWED_TABLES: usize = 20;
/// How long a batch that nobody waits for is held back for that.
const ROOM: Duration = Duration::from_secs(10);

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
    /// What was there after the last batch.
    last: ArcSwap<Snapshot>,
    /// Held while a batch is applied and until `last` has it.
    applying: Mutex<()>,
}

/// The engine's rows after some batch.
pub(crate) struct FjallView<'a> {
    spaces: &'a [Keyspace],
    moment: Guard<Arc<Snapshot>>,
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
        let last = ArcSwap::from_pointee(database.snapshot());
        Ok(Self { database, spaces, last, applying: Mutex::default() })
    }

    /// Waits until fjall has flushed and merged what it has of these spaces. It would hold such a batch back itself, and
    /// with it all that come after: those that somebody waits for.
    fn wait_for_room(&self, touched: &[bool; Space::ALL.len()]) {
        let begun = Instant::now();
        let spaces = || self.spaces.iter().zip(touched).filter(|(_, touched)| **touched);
        let is_crowded = |space: &Keyspace| {
            space.sealed_memtable_count() + 1 >= HALTED_MEMTABLES || space.l0_table_count() >= SLOWED_TABLES
        };
        while spaces().any(|(space, _)| is_crowded(space)) && begun.elapsed() < ROOM {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl FjallView<'_> {
    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space.position()]
    }
}

impl Engine for FjallEngine {
    type View<'a> = FjallView<'a>;

    const VISIBLE_BEFORE_SYNC: bool = false;

    fn view(&self) -> FjallView<'_> {
        FjallView { spaces: &self.spaces, moment: self.last.load() }
    }

    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError> {
        let durability = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let len = batch.iter().map(Rows::len).sum();
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), len).durability(Some(durability));
        let mut touched = [false; Space::ALL.len()];
        for (space, key, row) in batch.iter().flat_map(Rows::iter) {
            touched[space.position()] = true;
            match row {
                Some(row) => writes.insert(&self.spaces[space.position()], key, row),
                None => writes.remove(&self.spaces[space.position()], key),
            }
        }
        if !sync {
            self.wait_for_room(&touched);
        }
        let _one_at_a_time = self.applying.lock();
        writes.commit()?;
        self.last.store(Arc::new(self.database.snapshot()));
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.database.disk_space()?)
    }
}

impl View for FjallView<'_> {
    type Row = fjall::Slice;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<fjall::Slice>, EngineError> {
        Ok(self.moment.get(self.space(space), key)?)
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.moment.contains_key(self.space(space), key)?)
    }

    fn scan(
        &self,
        space: Space,
        (from, until): (&[u8], Option<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let until = until.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.moment.range::<&[u8], _>(self.space(space), (Bound::Included(from), until));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SPACES: [Space; 2] = [Space::Tiles, Space::Postings];

    /// Puts all rows anew, in both spaces.
    fn put(engine: &FjallEngine, content: u64) {
        let mut rows = Rows::default();
        for (space, key) in SPACES.iter().flat_map(|space| (0..250_u32).map(move |key| (*space, key))) {
            rows.put(space, &key.to_be_bytes(), &content.to_be_bytes());
        }
        engine.apply(&[rows], true).unwrap();
    }

    #[test]
    fn a_view_is_of_whole_batches_while_others_are_applied_and_flushed() {
        const BATCHES: u64 = 200;
        let dir = tempfile::tempdir().unwrap();
        let engine = FjallEngine::open(dir.path(), 32 << 20).unwrap();
        put(&engine, 0);
        let over = AtomicBool::new(false);
        let begun = Instant::now();
        let is_over = || over.load(Ordering::SeqCst) || begun.elapsed() > Duration::from_mins(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over() {
                    for space in SPACES {
                        engine.spaces[space.position()].rotate_memtable_and_wait().unwrap();
                    }
                }
            });
            let reader = scope.spawn(|| {
                let (mut views, mut last) = (0, 0);
                while !is_over() {
                    let view = engine.view();
                    let mut found = Vec::new();
                    for space in SPACES {
                        view.scan(space, (&[], None), Direction::Forward, &mut |_, row| {
                            found.push(u64::from_be_bytes(*row.first_chunk().unwrap()));
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                    }
                    assert_eq!(found.len(), 500);
                    assert!(found.iter().all(|content| *content == found[0]), "{found:?}");
                    assert!(found[0] >= last, "a later view is of no earlier batch");
                    (views, last) = (views + 1, found[0]);
                }
                views
            });
            for batch in 1..=BATCHES {
                put(&engine, batch);
                let now = engine.view().get(SPACES[1], &7_u32.to_be_bytes()).unwrap().unwrap();
                assert_eq!(now[..8], batch.to_be_bytes(), "what was applied is seen");
            }
            over.store(true, Ordering::SeqCst);
            assert!(reader.join().unwrap() > 0);
        });
    }
}
