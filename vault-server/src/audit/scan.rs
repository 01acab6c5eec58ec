//! Reads one log for a query, in the query's order, by its index as far as that goes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::postings;
use super::query::Query;
use crate::store::{LogId, Store, StoreError};

/// How much is read, or looked up, at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    /// So many entries.
    pub(super) entries: u64,
    /// So many bytes and the entry that exceeds them; at least one entry.
    pub(super) bytes: usize,
}

/// What is left to be read of a log: entries in `from..until`, from the end that the order says.
pub(super) struct Scan<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) log: LogId,
    pub(super) query: &'a Query,
    pub(super) chunk: Chunk,
    /// Entries before this one are indexed.
    pub(super) covered: u64,
    pub(super) from: u64,
    pub(super) until: u64,
    /// Keys of the index, any of which an entry must have; empty: none serves.
    keys: Vec<Vec<u8>>,
}

impl<'a> Scan<'a> {
    /// Of entries in `from..until`; those before `covered` are indexed.
    pub(super) fn new(
        store: &'a dyn Store,
        query: &'a Query,
        log: LogId,
        chunk: Chunk,
        covered: u64,
        (from, until): (u64, u64),
    ) -> Self {
        Self { store, log, query, chunk, covered, from, until, keys: index_keys(query) }
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.from >= self.until
    }

    /// The next candidates, in order; takes them off what is left.
    pub(super) async fn next(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let oldest = self.query.oldest_first;
        let indexed = if oldest { self.from < self.covered } else { self.until <= self.covered };
        if indexed && !self.keys.is_empty() { self.by_index().await } else { self.by_reading().await }
    }

    async fn by_index(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let oldest = self.query.oldest_first;
        let (from, until, most) = (self.from, self.until.min(self.covered), self.chunk.entries as usize);
        let mut sequences = Vec::new();
        for key in &self.keys {
            sequences.extend(self.store.postings(self.log, key, from, until, !oldest, most).await?);
        }
        sequences.sort_unstable();
        sequences.dedup();
        if !oldest {
            sequences.reverse();
        }
        // The first of them all are among the first of each key; those after may lack some.
        let more = sequences.len() >= most;
        sequences.truncate(most);
        match (oldest, sequences.last()) {
            (_, Some(&last)) if more => self.leave_off_at(last),
            (true, _) => self.from = until,
            (false, _) => self.until = from,
        }
        let (mut candidates, mut bytes) = (Vec::with_capacity(sequences.len()), 0);
        for sequence in sequences {
            let entry = self.store.entries(self.log, sequence, 1, self.chunk.bytes).await?.into_iter().next();
            let entry = entry.ok_or_else(|| corrupt(self.log, sequence))?;
            bytes += entry.len();
            candidates.push((sequence, entry));
            if bytes >= self.chunk.bytes {
                self.leave_off_at(sequence);
                break;
            }
        }
        Ok(candidates)
    }

    async fn by_reading(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let oldest = self.query.oldest_first;
        let most = self.chunk.entries;
        let (start, end) = if oldest {
            (self.from, self.until.min(self.from + most))
        } else {
            // Not across the border, below which the index serves.
            let border = if self.until > self.covered { self.covered } else { 0 };
            (self.until.saturating_sub(most).max(self.from).max(border), self.until)
        };
        let (mut candidates, mut bytes) = (VecDeque::with_capacity((end - start) as usize), 0);
        let mut next = start;
        while next < end && (!oldest || bytes < self.chunk.bytes) {
            let entries = self.store.entries(self.log, next, (end - next) as usize, self.chunk.bytes).await?;
            if entries.is_empty() {
                return Err(corrupt(self.log, next));
            }
            for entry in entries {
                bytes += entry.len();
                candidates.push_back((next, entry));
                next += 1;
            }
            // Backwards, the last ones are wanted: what there is no room for is read again.
            while !oldest && bytes > self.chunk.bytes && candidates.len() > 1 {
                bytes -= candidates.pop_front().map_or(0, |(_, entry)| entry.len());
            }
        }
        if oldest {
            self.from = next;
        } else {
            self.until = candidates.front().map_or(start, |(sequence, _)| *sequence);
            candidates.make_contiguous().reverse();
        }
        Ok(candidates.into())
    }

    /// What is left begins after this one.
    fn leave_off_at(&mut self, sequence: u64) {
        if self.query.oldest_first { self.from = sequence + 1 } else { self.until = sequence }
    }
}

/// An entry that is not there, or does not decode.
pub(super) fn corrupt(log: LogId, sequence: u64) -> StoreError {
    let of = if log == LogId::default() { String::new() } else { format!(" of log {log}") };
    StoreError::Corrupt { what: format!("log entry {sequence}{of}") }
}

/// Keys of the most selective index for the query.
fn index_keys(query: &Query) -> Vec<Vec<u8>> {
    if let Some(grant) = query.grant {
        return vec![postings::grant(&grant.to_string())];
    }
    if let Some(token) = &query.token {
        return vec![postings::token(token.as_bytes())];
    }
    if !query.subjects.is_empty() {
        return query.subjects.iter().map(|subject| postings::subject(&subject.to_bytes())).collect();
    }
    if let Some(principal) = &query.principal {
        return vec![postings::principal(principal.as_str())];
    }
    match (&query.tenant, query.action) {
        (Some(tenant), Some(action)) => vec![postings::action(action.into(), tenant.as_str())],
        (Some(tenant), None) => vec![postings::tenant(tenant.as_str())],
        (None, _) => Vec::new(),
    }
}
