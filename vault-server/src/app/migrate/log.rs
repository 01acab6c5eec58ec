//! The log of a move: its entries, and what is derived from them.

use std::sync::Arc;

use bytes::Bytes;

use super::copy::Move;
use super::error::{MoveError, Of as _, Side};
use crate::audit::{self, AuditAction, Deriver};
use crate::store::{Change, Derived, LogId, Store, StoreError};

/// The log that is moved: an embedded store has no other.
const LOG: LogId = LogId(0);

/// Bytes of entries that are read at once.
const READ: usize = 1 << 20;

/// What the new log has beyond the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// Nothing yet.
    Same,
    /// The entry of the move.
    Move,
}

impl Move<'_> {
    /// From now on what is written to the new store has a seal, and what is not signed yet must have one there.
    pub(super) fn seal_entries(&self, new: &dyn Store) {
        if let Some(seals) = &self.seals {
            new.seal_entries(Arc::clone(seals));
        }
    }

    /// Appends the entries that are not there yet. What is under a checkpoint gets no seal, and the rest one only if it had
    /// one: a move makes no entry the vault's that was not.
    pub(super) async fn copy_log(&self, old: &dyn Store, new: &dyn Store) -> Result<(), MoveError> {
        let size = old.log_size(LOG).await.of(Side::Old)?;
        let signed = old.derived(LOG).await.of(Side::Old)?.checkpoint.map_or(0, |(signed, _)| signed);
        let mut at = new.log_size(LOG).await.of(Side::New)?;
        loop {
            if at >= signed {
                self.seal_entries(new);
            }
            if at >= size {
                return Ok(());
            }
            // A page ends where the signed part does.
            let end = if at < signed { signed.min(size) } else { size };
            let most = self.limits.entries.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let entries = if at < signed {
                old.entries(LOG, at, most, READ).await
            } else {
                old.entries_to_sign(LOG, at, most, READ).await
            };
            let entries = entries.of(Side::Old)?;
            let count = some(entries.len(), at).of(Side::Old)?;
            let committed = new.commit(Change { writes: Vec::new(), entries }).await.of(Side::New)?;
            if committed.first_sequence != at {
                return Err(MoveError::different(entry(at), "has another sequence in the new store"));
            }
            at += count;
            self.progress.at("copied", "log entries", at);
        }
    }

    /// Makes tiles and index rows anew of the new store's own entries, up to the newest checkpoint. The rest is the
    /// follower's.
    pub(super) async fn derive(&self, old: &dyn Store, new: &dyn Store) -> Result<(), MoveError> {
        let Some((signed, text)) = old.derived(LOG).await.of(Side::Old)?.checkpoint else { return Ok(()) };
        if new.derived(LOG).await.of(Side::New)?.upto > signed {
            return Err(MoveError::different("log 0", "the index of the new store goes farther"));
        }
        let mut deriver = Deriver::resume(new).await.of(Side::New)?;
        while deriver.size() < signed {
            let at = deriver.size();
            let most = self.limits.entries.min(usize::try_from(signed - at).unwrap_or(usize::MAX));
            let entries = new.entries(LOG, at, most, READ).await.of(Side::New)?;
            some(entries.len(), at).of(Side::New)?;
            new.derive(deriver.append(entries)).await.of(Side::New)?;
            self.progress.at("indexed", "log entries", deriver.size());
        }
        let last = Derived {
            from: signed,
            upto: signed,
            tiles: Vec::new(),
            postings: Vec::new(),
            checkpoint: Some((signed, text)),
        };
        new.derive(last).await.of(Side::New)
    }

    /// The new log has the old one's `size` entries, and beyond these no more than `end`.
    pub(super) async fn compare_end(&self, new: &dyn Store, size: u64, end: LogEnd) -> Result<(), MoveError> {
        let there = new.log_size(LOG).await.of(Side::New)?;
        if there < size {
            return Err(MoveError::different(entry(there), "is in the old store only"));
        }
        let beyond = new.entries(LOG, size, 2, READ).await.of(Side::New)?;
        let is_move = |entry: &Bytes| audit::action_of(entry) == Some(AuditAction::StoreMoved);
        match (end, beyond.as_slice()) {
            (LogEnd::Same, []) => Ok(()),
            (LogEnd::Move, []) => {
                Err(MoveError::different(entry(size), "should say that the store was moved"))
            }
            (LogEnd::Move, [first, ..]) if is_move(first) && there == size + 1 => Ok(()),
            (LogEnd::Move, [first, ..]) if is_move(first) => {
                Err(MoveError::different(entry(size + 1), "is in the new store only: it was used"))
            }
            _ => Err(MoveError::different(entry(size), "is in the new store only")),
        }
    }

    /// Compares entries, and what is derived from those of the new store: tiles, and the root under the checkpoint.
    pub(super) async fn compare_log(&self, old: &dyn Store, new: &dyn Store) -> Result<(), MoveError> {
        let size = old.log_size(LOG).await.of(Side::Old)?;
        let (before, after) = (old.derived(LOG).await.of(Side::Old)?, new.derived(LOG).await.of(Side::New)?);
        if before != after {
            return Err(MoveError::different("the newest checkpoint", "is not the same in both stores"));
        }
        let checkpoint = audit::check_log(new).await.of(Side::New)?;
        let signed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let (mut deriver, mut at) = (Deriver::default(), 0);
        while at < size {
            // A page ends where the signed part does.
            let end = if at < signed { signed } else { size };
            let most = self.limits.entries.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let (ours, theirs) = if at < signed {
                (old.entries(LOG, at, most, READ).await, new.entries(LOG, at, most, READ).await)
            } else {
                let ours = old.entries_to_sign(LOG, at, most, READ).await;
                (ours, new.entries_to_sign(LOG, at, most, READ).await)
            };
            let (mut ours, theirs) = (ours.of(Side::Old)?, theirs.of(Side::New)?);
            some(theirs.len(), at).of(Side::New)?;
            ours.truncate(theirs.len());
            let count = some(ours.len(), at).of(Side::Old)?;
            if let Some(bad) = ours.iter().zip(&theirs).position(|(old, new)| old != new) {
                return Err(MoveError::different(entry(at + bad as u64), "is not the same in both stores"));
            }
            if at < signed {
                let derived = deriver.append(theirs.into_iter().take(ours.len()).collect());
                compare_tiles(new, derived).await?;
            }
            at += count;
            self.progress.at("compared", "log entries", at);
        }
        if checkpoint.is_some_and(|checkpoint| checkpoint.root != deriver.root()) {
            return Err(MoveError::different("the tree's root", "is not that of the signed checkpoint"));
        }
        Ok(())
    }
}

async fn compare_tiles(new: &dyn Store, derived: Derived) -> Result<(), MoveError> {
    for (id, tile) in derived.tiles {
        if new.tile(LOG, id).await.of(Side::New)?.as_ref() != Some(&tile) {
            let what = format!("tile {} of level {}", id.index, id.level);
            return Err(MoveError::different(what, "is not that of its entries in the new store"));
        }
    }
    Ok(())
}

/// Nothing where there must be something is a lost entry.
fn some(count: usize, at: u64) -> Result<u64, StoreError> {
    if count == 0 { Err(StoreError::Corrupt { what: entry(at) }) } else { Ok(count as u64) }
}

fn entry(sequence: u64) -> String {
    format!("log entry {sequence}")
}
