//! sled: one tree for all spaces, the space's number before each key, so that one `Batch` is atomic across them.
//!
//! * sled's flush writes its log and calls `sync_file_range`, which neither empties the drive's cache nor writes
//!   the file's metadata: after a power cut flushed rows can be gone. So every flush is followed by an
//!   `fdatasync` of the same file.
//! * sled writes pages that have grown large to files of their own in `blobs/` and syncs those never. Nothing
//!   here mends that: with rows of many kilobytes a power cut can leave a store that does not open.
//! * A batch can be read before it is flushed: the store holds reads back until it is.
//! * Only the committer flushes.

use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use sled::{Batch, Db, IVec};

use crate::store::embedded::engine::{Direction, Engine, EngineError, Rows, Visit};
use crate::store::keys::Space;

pub(crate) struct SledEngine {
    tree: Db,
    /// sled's file, by a descriptor of our own: a failed write-back is reported to each descriptor.
    file: File,
    explicit_sync: bool,
}

impl SledEngine {
    /// Without `explicit_sync` it is not durable: for the power-cut rig, to show that.
    pub(crate) fn open(dir: &Path, cache_bytes: u64, explicit_sync: bool) -> Result<Self, EngineError> {
        let tree = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None).open()?;
        let file = File::open(dir.join("db")).map_err(failed)?;
        Ok(Self { tree, file, explicit_sync })
    }
}

impl Engine for SledEngine {
    type Row = IVec;

    const VISIBLE_BEFORE_SYNC: bool = true;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<IVec>, EngineError> {
        Ok(self.tree.get(prefixed(space, key))?)
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
            let Some(row) = next else { return Ok(()) };
            let (key, row) = row?;
            if let ControlFlow::Break(()) = visit(&key[1..], &row) {
                return Ok(());
            }
        }
    }

    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError> {
        let mut writes = Batch::default();
        for (space, key, row) in batch.iter().flat_map(Rows::iter) {
            match row {
                Some(row) => writes.insert(prefixed(space, key), row),
                None => writes.remove(prefixed(space, key)),
            }
        }
        self.tree.apply_batch(writes)?;
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

fn failed(error: impl std::fmt::Display) -> EngineError {
    EngineError::Failed(format!("sled: {error}"))
}

fn prefixed(space: Space, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(space as u8);
    bytes.extend_from_slice(key);
    bytes
}
