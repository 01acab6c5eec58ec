//! What the store needs of a key-value engine, and nothing more.

use std::ops::{ControlFlow, Range};

use crate::crypto::ENTRY_SEAL;
use crate::store::StoreError;
use crate::store::keys::Space;
use crate::store::row;

/// What an engine said went wrong. Engines name files, blocks and offsets, never contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// A read or a write failed.
    #[error("{0}")]
    Failed(String),
    /// The engine's own checks found its files changed.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

impl From<EngineError> for StoreError {
    /// For reads; a failed write is fatal and says so itself.
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Failed(why) => Self::Unavailable { why },
            EngineError::Corrupt(what) => Self::Corrupt { what },
        }
    }
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Smallest key first.
    Forward,
    /// Greatest key first.
    Backward,
}

/// Visits a row: its key and its bytes.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An ordered key-value engine with atomic batches.
pub(crate) trait Engine: Send + Sync + 'static {
    /// What its readers read from.
    type View<'a>: View;

    /// Whether a read can see a batch before [`Engine::apply`] has synced it. If so, the store holds reads back.
    const VISIBLE_BEFORE_SYNC: bool;

    /// The rows as they are now. Whatever was applied is in it.
    fn view(&self) -> Self::View<'_>;

    /// Applies all rows, in order, atomically. With `sync`, they are durable when it returns `Ok`.
    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> Result<u64, EngineError>;
}

/// Rows, of whole batches only: who has seen one row of a batch sees its others too, wherever it looks from then on, in this call
/// and in every later one. A record and its index rows are written by one batch, and read by several calls.
pub(crate) trait View {
    /// A row's bytes as the engine gives them.
    type Row: AsRef<[u8]>;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Self::Row>, EngineError>;

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, EngineError>;

    /// Visits the rows of `range` until told to stop. `None` is the end of the space.
    fn scan(
        &self,
        space: Space,
        range: (&[u8], Option<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError>;
}

/// Rows to write or to remove, one behind the other in one buffer: a row costs no allocation of its own.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    buffer: Vec<u8>,
    rows: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    space: Space,
    key: Range<usize>,
    row: Option<Range<usize>>,
}

impl Rows {
    /// Puts a row: what `write` appends is its content; the checksum is added.
    pub(crate) fn put_with(&mut self, space: Space, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let key_at = self.push(key);
        write(&mut self.buffer);
        let sum = row::checksum(space, key, &self.buffer[key_at.end..]);
        self.buffer.extend_from_slice(&sum);
        let row = Some(key_at.end..self.buffer.len());
        self.rows.push(Place { space, key: key_at, row });
    }

    /// Puts a row with this content.
    pub(crate) fn put(&mut self, space: Space, key: &[u8], content: &[u8]) {
        self.put_with(space, key, |buffer| buffer.extend_from_slice(content));
    }

    /// Puts a log entry, with its seal if it has one.
    pub(crate) fn put_entry(&mut self, sequence: u64, entry: &[u8], seal: Option<&[u8; ENTRY_SEAL]>) {
        let key_at = self.push(&sequence.to_be_bytes());
        self.buffer.extend_from_slice(entry);
        self.buffer.extend_from_slice(seal.map_or(&[], <[_; _]>::as_slice));
        let content = &self.buffer[key_at.end..];
        let sum = row::entry_checksum(sequence, content, seal.is_some());
        self.buffer.extend_from_slice(&sum);
        let row = Some(key_at.end..self.buffer.len());
        self.rows.push(Place { space: Space::Log, key: key_at, row });
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, space: Space, key: &[u8]) {
        let key = self.push(key);
        self.rows.push(Place { space, key, row: None });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many bytes its keys and rows have.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Space, key and row (`None`: to be removed) of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Space, &[u8], Option<&[u8]>)> {
        self.rows.iter().map(|place| {
            (place.space, &self.buffer[place.key.clone()], place.row.clone().map(|row| &self.buffer[row]))
        })
    }

    fn push(&mut self, key: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        start..self.buffer.len()
    }
}
