//! Which changes of the queue share a batch.

use std::collections::HashSet;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::batch::{RowId, claimed, rows_of, watched};
use crate::store::waiting::Claim;
use crate::store::{Change, Committed, StoreError, Write};

/// A change and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    /// Taken by who puts it into a batch.
    pub(super) claim: Claim,
    pub(super) answer: oneshot::Sender<Result<Committed, StoreError>>,
    /// Room in the queue; given back with the answer.
    pub(super) _room: OwnedSemaphorePermit,
}

/// The most changes and bytes of a batch.
const BATCH_CHANGES: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

/// The first change, and those behind it that fit into a batch with it; and one that does not. What was taken back is left out. A change that must have
/// a key's row alone shares none: others do not wait with it, nor fail with it.
pub(super) fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<Job>, Option<Job>) {
    let mut touched: HashSet<RowId> = HashSet::new();
    let (mut jobs, mut bytes, mut next) = (Vec::new(), 0, Some(first));
    while let Some(job) = next {
        let rows: Vec<_> = job.change.writes.iter().flat_map(rows_of).flatten().collect();
        let watched = job.change.writes.iter().filter_map(watched);
        let alone = !claimed(&job.change).is_empty();
        if alone && jobs.is_empty() {
            return (if job.claim.take() { vec![job] } else { Vec::new() }, None);
        }
        if alone || rows.iter().cloned().chain(watched).any(|row| touched.contains(&row)) {
            return (jobs, Some(job));
        }
        if job.claim.take() {
            touched.extend(rows);
            bytes += size(&job.change);
            jobs.push(job);
        }
        next = if jobs.len() < BATCH_CHANGES && bytes < BATCH_BYTES { queue.try_recv().ok() } else { None };
    }
    (jobs, None)
}

/// About how many bytes a change has.
pub(super) fn size(change: &Change) -> usize {
    const ROW: usize = 200;
    let of_write = |write: &Write| match write {
        Write::Insert(record) | Write::Replace(record) => ROW + record.sealed_len(),
        Write::Remember(answer) => ROW + answer.tokens.len() * 17,
        Write::InsertKey(key) | Write::ReplaceKey(key) => {
            ROW + key.wraps.iter().map(|wrap| wrap.ciphertext.len() + ROW).sum::<usize>()
        }
        Write::PutLease(_)
        | Write::Fence { .. }
        | Write::Active(_)
        | Write::Unused(_)
        | Write::DropEntity { .. }
        | Write::Stands { .. } => ROW,
        Write::PutEntity(entity) => ROW + entity.content.len(),
        Write::PutJob(job) => ROW + job.cause.len(),
    };
    let entries: usize = change.entries.iter().map(bytes::Bytes::len).sum();
    entries + change.writes.iter().map(of_write).sum::<usize>()
}
