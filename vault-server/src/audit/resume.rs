//! Takes up where the follower left off, and refuses to where the store is not what was signed.
//!
//! Of the tree only whole tiles are kept. Its right edge is made again from them and from the entries after the
//! last whole tile; the root of that edge must be the one in the stored checkpoint, which must bear the
//! signature of the log's key. The entries below the newest, partial tile of level 1 (up to 65,535) are hashed
//! again on the way. Older ones are the offline verifier's business: a start must not take longer with age.

use vault_format::checkpoint::{Checkpoint, CheckpointError};
use vault_format::history::Verifiers;
use vault_format::note::NoteError;
use vault_format::tile::{self, Edge, WIDTH};
use vault_format::tree::Hash;

use super::signing::SigningError;
use crate::store::{LogId, Store, StoreError, TileId};

const TILE: u64 = WIDTH as u64;
/// Bytes asked for at once; a tile's entries may need several reads.
const READ_BYTES: usize = 4 << 20;

/// Why the log can't be followed: it, or what was derived from it, is not what was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowerError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored checkpoint is not one signed by the log's key.
    #[error("stored {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It is not known what signs.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The signer's name can't be one of a log.
    #[error(transparent)]
    Signer(#[from] NoteError),
    /// The checkpoint is not where the derived rows end.
    #[error("the index covers {upto} entries, but the checkpoint {checkpoint:?}")]
    Uneven {
        /// What the derived rows cover.
        upto: u64,
        /// What the checkpoint covers.
        checkpoint: Option<u64>,
    },
    /// A log has entries, and nothing that was signed to compare them with.
    #[error("log {log} has {size} entries and no checkpoint")]
    Unsigned {
        /// Which log.
        log: LogId,
        /// How many entries it has.
        size: u64,
    },
    /// The log was cut.
    #[error("entry {size} is missing: {signed} entries were signed")]
    Cut {
        /// How many entries there are.
        size: u64,
        /// How many were signed.
        signed: u64,
    },
    /// An entry is not what it was when its tile was made.
    #[error("entry {sequence} is not what is in its tile")]
    Entry {
        /// Its sequence number.
        sequence: u64,
    },
    /// A tile is missing or malformed.
    #[error("tile {index} of level {level} is missing or malformed")]
    Tile {
        /// Its level.
        level: u8,
        /// Its index.
        index: u64,
    },
    /// Entries and tiles do not give the signed root.
    #[error(
        "the first {signed} entries are not those that were signed: one from {from} on, or a tile, was changed"
    )]
    Root {
        /// How many entries were signed.
        signed: u64,
        /// The entries before this one agree with their tiles.
        from: u64,
    },
}

/// The tree at the stored checkpoint, and that checkpoint; the empty tree if there is none.
pub(super) async fn resume(
    store: &dyn Store,
    by: &Verifiers,
) -> Result<(Edge, Option<String>), FollowerError> {
    // One that was signed before a mark is checked against the log all the same, and signed anew.
    let open = |text: &str| Checkpoint::open_strict(text, by.as_before_the_mark());
    let (edge, checkpoint) = resume_with(store, open).await?;
    Ok((edge, checkpoint.map(|(_, text)| text)))
}

/// The stored checkpoint, whose signature is not looked at, if all that is there agrees with it.
pub(super) async fn resume_unverified(store: &dyn Store) -> Result<Option<Checkpoint>, FollowerError> {
    let read = |signed: &str| {
        let end = signed.find("\n\n").ok_or(CheckpointError::Malformed)?;
        Checkpoint::parse(&signed[..=end])
    };
    let (_, checkpoint) = resume_with(store, read).await?;
    Ok(checkpoint.map(|(checkpoint, _)| checkpoint))
}

async fn resume_with(
    store: &dyn Store,
    open: impl FnOnce(&str) -> Result<Checkpoint, CheckpointError>,
) -> Result<(Edge, Option<(Checkpoint, String)>), FollowerError> {
    let derived = store.derived(store.log()).await?;
    let Some((signed, text)) = derived.checkpoint else {
        return match derived.upto {
            0 => Ok((Edge::new(), None)),
            upto => Err(FollowerError::Uneven { upto, checkpoint: None }),
        };
    };
    let checkpoint = open(&text)?;
    if checkpoint.size != signed || derived.upto != signed {
        return Err(FollowerError::Uneven { upto: derived.upto, checkpoint: Some(checkpoint.size) });
    }
    let size = store.log_size(store.log()).await?;
    if size < signed {
        return Err(FollowerError::Cut { size, signed });
    }
    let from = signed - signed % TILE;
    let edge = edge(store, signed).await?.ok_or(FollowerError::Root { signed, from })?;
    if edge.root() != checkpoint.root {
        return Err(FollowerError::Root { signed, from });
    }
    Ok((edge, Some((checkpoint, text))))
}

/// The right edge of the tree of the first `size` entries.
pub(super) async fn edge(store: &dyn Store, size: u64) -> Result<Option<Edge>, FollowerError> {
    let mut levels = Vec::new();
    let (mut level, mut count) = (0_u8, size);
    while count > 0 {
        let from = count - count % TILE;
        let mut hashes = Vec::with_capacity(usize::from(WIDTH));
        if level == 0 {
            hashes = leaf_hashes(store, from, count).await?;
        } else {
            for index in from..count {
                let tile = read_tile(store, level - 1, index).await?;
                if level == 1 {
                    check_entries(store, index, &tile).await?;
                }
                hashes.push(tile::tile_root(&tile));
            }
        }
        levels.push(hashes);
        (level, count) = (level + 1, count / TILE);
    }
    Ok(Edge::from_levels(size, levels))
}

async fn read_tile(store: &dyn Store, level: u8, index: u64) -> Result<Vec<Hash>, FollowerError> {
    let bytes = store.tile(store.log(), TileId { level, index }).await?;
    let hashes = bytes.and_then(|bytes| tile::parse_hashes(&bytes));
    let whole = hashes.filter(|hashes| hashes.len() == usize::from(WIDTH));
    whole.ok_or(FollowerError::Tile { level, index })
}

async fn check_entries(store: &dyn Store, index: u64, tile: &[Hash]) -> Result<(), FollowerError> {
    let start = index * TILE;
    let hashes = leaf_hashes(store, start, start + TILE).await?;
    match (start..).zip(hashes.iter().zip(tile)).find(|(_, (entry, kept))| entry != kept) {
        None => Ok(()),
        Some((sequence, _)) => Err(FollowerError::Entry { sequence }),
    }
}

async fn leaf_hashes(store: &dyn Store, start: u64, end: u64) -> Result<Vec<Hash>, FollowerError> {
    let mut hashes = Vec::with_capacity(usize::from(WIDTH));
    let mut next = start;
    while next < end {
        let entries = store.entries(store.log(), next, (end - next) as usize, READ_BYTES).await?;
        if entries.is_empty() {
            return Err(FollowerError::Entry { sequence: next });
        }
        next += entries.len() as u64;
        hashes.extend(entries.iter().map(|entry| Hash::leaf(entry)));
    }
    Ok(hashes)
}
