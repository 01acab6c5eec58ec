//! Brings what a query finds in several logs into one order.
//!
//! Of each log the next entry that matches is looked for; the one whose turn it is goes out. Only when every log's
//! next one is known, or the log is at its end, can that be said: a page whose reading is used up before
//! ([`MOST_READ`], for all logs together) ends there. Every page gets on: each log begins with no more than its share
//! of half of the reading, so the rest goes to where the last page stopped.

use std::cmp::Reverse;
use std::collections::VecDeque;

use prost::Message as _;
use vault_proto::v1::AuditEntry;

use super::cursor::Cursor;
use super::query::{Hit, MOST_READ, Query, matches};
use super::scan::{Chunk, Scan, corrupt};
use crate::store::{LogId, Store, StoreError};

/// Entries and bytes read at once from a single log; several share the bytes.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 1 << 20;
const LEAST_CHUNK_BYTES: usize = 64 << 10;

/// What is left of all logs.
pub(super) struct Merge<'a> {
    logs: Vec<Source<'a>>,
    query: &'a Query,
    read: usize,
    bytes_read: usize,
}

/// One log: what was found and has not had its turn, and what is left to be read.
struct Source<'a> {
    /// An entry that does not decode is an error when its turn comes, not before.
    found: VecDeque<(u64, Option<AuditEntry>)>,
    scan: Scan<'a>,
}

impl<'a> Merge<'a> {
    /// Of what is left after `cursor`, or of everything. `covered`: how far the store's own log is indexed.
    pub(super) async fn begin(
        store: &'a dyn Store,
        query: &'a Query,
        logs: &[LogId],
        cursor: Option<&Cursor>,
        covered: u64,
    ) -> Result<Self, StoreError> {
        let share = logs.len().max(1);
        let chunk = Chunk {
            entries: (MOST_READ as u64 / 2 / share as u64).clamp(1, CHUNK),
            bytes: (CHUNK_BYTES / share).max(LEAST_CHUNK_BYTES),
        };
        let mut sources = Vec::with_capacity(logs.len());
        for &log in logs {
            let covered = if log == store.log() { covered } else { store.derived(log).await?.upto };
            let size = store.log_size(log).await?;
            let left = cursor.map_or((0, size), |cursor| cursor.left(log, size));
            let scan = Scan::new(store, query, log, chunk, covered.min(size), left);
            sources.push(Source { found: VecDeque::new(), scan });
        }
        Ok(Self { logs: sources, query, read: 0, bytes_read: 0 })
    }

    /// The next entry that matches; `None` if there is no more, or as much was read as one page may.
    pub(super) async fn next(&mut self) -> Result<Option<Hit>, StoreError> {
        for source in &mut self.logs {
            while source.found.is_empty() && !source.scan.is_done() {
                if self.read >= MOST_READ {
                    return Ok(None);
                }
                let (read, bytes) = source.fill(self.query).await?;
                self.read += read;
                self.bytes_read += bytes;
            }
        }
        let mut heads = Vec::with_capacity(self.logs.len());
        for (n, source) in self.logs.iter().enumerate() {
            if let Some((sequence, entry)) = source.found.front() {
                let entry = entry.as_ref().ok_or_else(|| corrupt(source.scan.log, *sequence))?;
                heads.push((entry.time_us, n));
            }
        }
        let first = if self.query.oldest_first {
            heads.into_iter().min()
        } else {
            heads.into_iter().max_by_key(|(time, n)| (*time, Reverse(*n)))
        };
        let Some(source) = first.and_then(|(_, n)| self.logs.get_mut(n)) else { return Ok(None) };
        let (log, head) = (source.scan.log, source.found.pop_front());
        Ok(head.and_then(|(sequence, entry)| Some(Hit { log, sequence, entry: entry? })))
    }

    /// How many bytes were read.
    pub(super) fn bytes_read(&self) -> usize {
        self.bytes_read
    }

    /// Where it is; `None` if nothing is left.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        let oldest_first = self.query.oldest_first;
        let is_done = |source: &Source<'_>| source.found.is_empty() && source.scan.is_done();
        let position = |source: &Source<'_>| (source.scan.log, source.position(oldest_first));
        (!self.logs.iter().all(is_done)).then(|| Cursor::new(oldest_first, self.logs.iter().map(position)))
    }
}

impl Source<'_> {
    /// Reads on; how many entries, and bytes, that were.
    async fn fill(&mut self, query: &Query) -> Result<(usize, usize), StoreError> {
        let candidates = self.scan.next().await?;
        let (read, mut bytes) = (candidates.len(), 0);
        for (sequence, leaf) in candidates {
            bytes += leaf.len();
            let entry = AuditEntry::decode(leaf).ok();
            if entry.as_ref().is_none_or(|entry| matches(query, entry)) {
                self.found.push_back((sequence, entry));
            }
        }
        Ok((read, bytes))
    }

    /// Where the next page goes on: what was found and did not have its turn will be found again.
    fn position(&self, oldest_first: bool) -> u64 {
        match (self.found.front(), oldest_first) {
            (Some((sequence, _)), true) => *sequence,
            (Some((sequence, _)), false) => sequence + 1,
            (None, true) => self.scan.from,
            (None, false) if self.scan.is_done() => 0,
            (None, false) => self.scan.until,
        }
    }
}
