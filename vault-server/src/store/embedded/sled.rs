//! sled: one tree for all spaces, so that one `Batch` is atomic across them.
//!
//! ```text
//! key                                          value
//! space(1) | key                               0(1) | row                              a row of at most 2,048 bytes
//! space(1) | key                               1(1) | chunks(4) | last 8 bytes of row  the head of a longer one
//! 255(1) | space(1) | key | those 8 | number(4)  2,048 bytes of that row, fewer at its end; numbered from 0
//! ```
//!
//! * sled's flush writes its log and calls `sync_file_range`, which neither empties the drive's cache nor writes
//!   the file's metadata: after a power cut flushed rows can be gone. So every flush is followed by an
//!   `fdatasync` of the same file.
//! * sled writes what is larger than a quarter of a segment to a file of its own in `blobs/`, and syncs those
//!   never. A page counts with every row in it: so long rows are in chunks, and no page gets that large
//!   ([`LARGEST_LEAF`], [`LARGEST_INDEX`]).
//! * A row's last bytes are its checksum ([`crate::store::row`]). That they are in the keys of its chunks tells
//!   them from those of the row before: a reader that comes between two batches misses a chunk, and looks again,
//!   but joins no two rows. A batch that replaces or removes a row removes its chunks.
//! * A row that is damaged is given as an empty one, which the check of its checksum refuses by name.
//! * A batch waits until no read of a row is at work, and reads wait until it is applied: so every row that is read, and
//!   every step of a scan, is before a batch or after it. A scan may begin before and end after.
//! * A batch can be read before it is flushed: the store holds reads back until it is.
//! * sled's own threads keep its file locked for a moment after a store is dropped: who opens it anew waits.
//! * Only the committer flushes. It and the writer of derived rows apply their batches one after the other.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sled::{Batch, Db, IVec};

use crate::store::embedded::engine::{Direction, Engine, EngineError, Rows, View, Visit};
use crate::store::keys::Space;
use crate::store::row::CHECKSUM;

/// How long threads of a dropped store may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// A longer row is in chunks of this length. On disk: never change it.
const CHUNK: usize = 2048;

/// sled's default. On disk: sled opens no store of another.
const SEGMENT: usize = 512 << 10;

/// The largest page that is not written to `blobs/` (`reserve_inner` in sled's `pagecache/logger.rs`).
const LARGEST_IN_LOG: usize = SEGMENT / 4 - 20 - 32;

/// More than any key has (`keys`: a posting's has 264 bytes), with what chunks add.
const LARGEST_KEY: usize = 300;

/// Lengths, page ids, bounds: more than sled adds to a key and its value, and to a page.
const OVERHEAD: usize = 20;

/// A leaf is split on the way to its 18th row. One that was seen with fewer than 4 is joined to the one before it
/// (`should_split` and `should_merge` in sled's `node.rs`), and may have grown meanwhile.
const LARGEST_LEAF: usize = 40 * (LARGEST_KEY + 1 + CHUNK + OVERHEAD) + 2 * LARGEST_KEY + OVERHEAD;

/// The same of an index page: split on the way to 258 keys, joined under 64. Its values are page ids.
const LARGEST_INDEX: usize = (257 + 64) * (LARGEST_KEY + OVERHEAD) + 2 * LARGEST_KEY + OVERHEAD;

const _: () =
    assert!(LARGEST_LEAF < LARGEST_IN_LOG && LARGEST_INDEX < LARGEST_IN_LOG, "pages fit into the log");

/// Before a row that is one value.
const WHOLE: u8 = 0;

/// Before the head of a row that is in chunks.
const CHUNKED: u8 = 1;

/// Where chunks are: past all spaces.
const CHUNKS: u8 = u8::MAX;

pub(crate) struct SledEngine {
    tree: Db,
    /// sled's file, by a descriptor of our own: a failed write-back is reported to each descriptor.
    file: File,
    explicit_sync: bool,
    /// Held while a batch is made and applied. Which spaces may have chunks: in the others, no row that a batch
    /// replaces is read for its chunks.
    writing: Mutex<[bool; Space::ALL.len()]>,
}

/// A row's bytes.
pub(crate) enum SledRow {
    /// After their first.
    Whole(IVec),
    /// All of them.
    Joined(Vec<u8>),
}

impl SledEngine {
    /// Without `explicit_sync` it is not durable: for the power-cut rig, to show that.
    pub(crate) fn open(dir: &Path, cache_bytes: u64, explicit_sync: bool) -> Result<Self, EngineError> {
        wait_until_free(&dir.join("db"))?;
        let tree = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT)
            .flush_every_ms(None)
            .open()?;
        let file = File::open(dir.join("db")).map_err(failed)?;
        let mut chunked = [false; Space::ALL.len()];
        for space in Space::ALL {
            let chunks = tree.range([CHUNKS, space as u8]..[CHUNKS, space as u8 + 1]);
            chunked[space.position()] = chunks.into_iter().next().transpose()?.is_some();
        }
        Ok(Self { tree, file, explicit_sync, writing: Mutex::new(chunked) })
    }

    /// The row of the value at `key`. `None` if it was removed meanwhile.
    fn row(&self, key: &[u8], value: IVec) -> Result<Option<SledRow>, EngineError> {
        if let Some(row) = self.join(key, value)? {
            return Ok(Some(row));
        }
        // A batch has replaced it meanwhile, or it is damaged. No batch comes now, so a second look tells.
        let _writing = self.writing.lock();
        let Some(value) = self.tree.get(key)? else { return Ok(None) };
        Ok(Some(self.join(key, value)?.unwrap_or(SledRow::Joined(Vec::new()))))
    }

    /// `None` if it is no value of a row, or lacks a chunk.
    fn join(&self, key: &[u8], value: IVec) -> Result<Option<SledRow>, EngineError> {
        if value.first() == Some(&WHOLE) {
            return Ok(Some(SledRow::Whole(value)));
        }
        let Some(head) = Head::parse(&value) else { return Ok(None) };
        let mut row = Vec::new();
        for number in 0..head.chunks {
            let Some(chunk) = self.tree.get(head.chunk_key(key, number))? else { return Ok(None) };
            row.extend_from_slice(&chunk);
        }
        Ok(Some(SledRow::Joined(row)))
    }
}

impl Engine for SledEngine {
    type View<'a> = &'a Self;

    const VISIBLE_BEFORE_SYNC: bool = true;

    fn view(&self) -> &Self {
        self
    }

    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError> {
        // Of two rows with one key only the last is written, so no chunk of the first is.
        let rows: HashMap<_, _> = batch
            .iter()
            .flat_map(Rows::iter)
            .map(|(space, key, row)| (prefixed(space, key), (space, row)))
            .collect();
        let mut chunked = self.writing.lock();
        let mut writes = Batch::default();
        for (key, (space, row)) in rows {
            let chunked = &mut chunked[space.position()];
            if *chunked && let Some(head) = self.tree.get(&key)?.as_deref().and_then(Head::parse) {
                for number in 0..head.chunks {
                    writes.remove(head.chunk_key(&key, number));
                }
            }
            match row {
                None => writes.remove(key),
                Some(row) if row.len() <= CHUNK => writes.insert(key, [&[WHOLE], row].concat()),
                Some(row) => {
                    *chunked = true;
                    let head = Head::of(row)?;
                    for (number, chunk) in (0..).zip(row.chunks(CHUNK)) {
                        writes.insert(head.chunk_key(&key, number), chunk);
                    }
                    writes.insert(key, head.to_bytes());
                }
            }
        }
        self.tree.apply_batch(writes)?;
        drop(chunked);
        if sync {
            self.tree.flush()?;
            if self.explicit_sync {
                self.file.sync_data().map_err(failed)?;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.tree.size_on_disk()?)
    }
}

impl View for &SledEngine {
    type Row = SledRow;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<SledRow>, EngineError> {
        let key = prefixed(space, key);
        self.tree.get(&key)?.map_or(Ok(None), |value| self.row(&key, value))
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.tree.contains_key(prefixed(space, key))?)
    }

    fn scan(
        &self,
        space: Space,
        (from, until): (&[u8], Option<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let until = until.map_or_else(|| vec![space as u8 + 1], |until| prefixed(space, until));
        let mut rows = self.tree.range((Bound::Included(prefixed(space, from)), Bound::Excluded(until)));
        loop {
            let next = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some(found) = next else { return Ok(()) };
            let (key, value) = found?;
            let Some(row) = self.row(&key, value)? else { continue };
            if let ControlFlow::Break(()) = visit(&key[1..], row.as_ref()) {
                return Ok(());
            }
        }
    }
}

impl AsRef<[u8]> for SledRow {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Whole(value) => value.get(1..).unwrap_or_default(),
            Self::Joined(row) => row,
        }
    }
}

/// Of a row that is in chunks.
struct Head {
    chunks: u32,
    /// The row's last bytes.
    end: [u8; CHECKSUM],
}

impl Head {
    const LEN: usize = 1 + 4 + CHECKSUM;

    fn of(row: &[u8]) -> Result<Self, EngineError> {
        let chunks = u32::try_from(row.len().div_ceil(CHUNK)).ok();
        let (Some(chunks), Some(end)) = (chunks, row.last_chunk()) else {
            return Err(EngineError::Failed("sled: a row of this length has no chunks".to_owned()));
        };
        Ok(Self { chunks, end: *end })
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let [CHUNKED, rest @ ..] = value else { return None };
        let (chunks, end) = rest.split_first_chunk()?;
        Some(Self { chunks: u32::from_be_bytes(*chunks), end: end.try_into().ok()? })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.push(CHUNKED);
        bytes.extend_from_slice(&self.chunks.to_be_bytes());
        bytes.extend_from_slice(&self.end);
        bytes
    }

    /// Where a chunk of the row at `key` is. What follows the key has one length, so no two rows share one.
    fn chunk_key(&self, key: &[u8], number: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + key.len() + CHECKSUM + 4);
        bytes.push(CHUNKS);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&self.end);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes
    }
}

impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Corruption { at, .. } => Self::Corrupt(format!("sled file at {at:?}")),
            sled::Error::Io(error) => failed(error),
            sled::Error::Unsupported(why) | sled::Error::ReportableBug(why) => {
                Self::Failed(format!("sled: {why}"))
            }
            sled::Error::CollectionNotFound(_) => Self::Failed("sled: no such tree".to_owned()),
        }
    }
}

/// The directory is this process's alone: what holds sled's lock can only be threads of a store that was dropped.
fn wait_until_free(db: &Path) -> Result<(), EngineError> {
    if !db.try_exists().map_err(failed)? {
        return Ok(());
    }
    let file = File::open(db).map_err(failed)?;
    let until = Instant::now() + ENDING;
    while let Err(error) = file.try_lock() {
        if matches!(error, TryLockError::Error(_)) || Instant::now() >= until {
            return Err(failed(error));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    file.unlock().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Failed(format!("sled: {error}"))
}

fn prefixed(space: Space, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(space as u8);
    bytes.extend_from_slice(key);
    bytes
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
