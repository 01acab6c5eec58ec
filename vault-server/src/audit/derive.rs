//! What follows from entries: the tree's leaves, whole tiles, index rows.
//!
//! The follower makes them as the log grows ([`append`]); who moves a log to another store makes them anew of its
//! entries alone ([`Deriver`]), without the key that signs: the checkpoint is brought along.

use bytes::Bytes;
use prost::Message as _;
use vault_format::checkpoint::Checkpoint;
use vault_format::tile::{self, Edge, Kind};
use vault_format::tree::Hash;
use vault_proto::v1::AuditEntry;

use super::entry::AuditAction;
use super::postings;
use super::resume::{FollowerError, edge, resume_unverified};
use crate::store::{Derived, Posting, Store, TileId};

/// An entry, and what it says; `None` if it does not decode.
pub(super) type Read = (Bytes, Option<AuditEntry>);

/// What some entries add.
pub(super) struct Rows {
    pub(super) tiles: Vec<(TileId, Bytes)>,
    pub(super) postings: Vec<Posting>,
}

/// Reads an entry.
pub(super) fn read(bytes: Bytes) -> Read {
    // Its fields share the entry's memory.
    let decoded = AuditEntry::decode(bytes.clone()).ok();
    (bytes, decoded)
}

/// Appends the next entries to the tree.
pub(super) fn append(edge: &mut Edge, entries: &[Read]) -> Rows {
    let start = edge.size();
    let (mut tiles, mut rows) = (Vec::new(), Vec::new());
    for ((bytes, entry), sequence) in entries.iter().zip(start..) {
        edge.push(Hash::leaf(bytes), |tile, hashes| {
            if let Kind::Hashes(level) = tile.kind {
                tiles.push((TileId { level, index: tile.index }, tile::tile_bytes(hashes).into()));
            }
        });
        if let Some(entry) = entry {
            rows.extend(postings::keys(entry).into_iter().map(|key| Posting { key, sequence }));
        } else {
            // It stays in the tree, where the verifier names it.
            tracing::error!(sequence, "a log entry does not decode");
        }
    }
    Rows { tiles, postings: rows }
}

/// Makes the derived rows of a log anew.
#[derive(Debug, Default)]
pub struct Deriver {
    edge: Edge,
}

impl Deriver {
    /// Goes on where a store's derived rows end.
    pub async fn resume(store: &dyn Store) -> Result<Self, FollowerError> {
        let upto = store.derived(store.log()).await?.upto;
        let lost = FollowerError::Root { signed: upto, from: upto - upto % u64::from(tile::WIDTH) };
        Ok(Self { edge: edge(store, upto).await?.ok_or(lost)? })
    }

    /// What the next entries add; without a checkpoint.
    pub fn append(&mut self, entries: Vec<Bytes>) -> Derived {
        let from = self.edge.size();
        let entries: Vec<_> = entries.into_iter().map(read).collect();
        let Rows { tiles, postings } = append(&mut self.edge, &entries);
        Derived { from, upto: self.edge.size(), tiles, postings, checkpoint: None }
    }

    /// How many entries it was given.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Root of the tree of those entries.
    pub fn root(&self) -> Hash {
        self.edge.root()
    }
}

/// Whether the follower could take up a store's own log, but for the signature, which needs the log's key: entries,
/// tiles and checkpoint agree. The checkpoint, if there is one.
pub async fn check_log(store: &dyn Store) -> Result<Option<Checkpoint>, FollowerError> {
    resume_unverified(store).await
}

/// What an entry is about; `None` if it does not decode.
pub fn action_of(entry: &[u8]) -> Option<AuditAction> {
    AuditEntry::decode(entry).ok().map(|entry| entry.action())
}
