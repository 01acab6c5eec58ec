//! Reads the log: by token, person, principal, action, time; newest or oldest first; page by page.
//!
//! What the follower has indexed is found by the most selective index there is for the query; what it has not
//! reached yet is read entry by entry. So an entry is found from the moment it is durable. Every entry is decoded
//! and compared with the whole query, whatever index named it. A page reads at most [`MOST_READ`] entries and then
//! says where to go on, even if it has found none.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vault_proto::v1::AuditEntry;

use super::entry::AuditAction;
use super::postings;
use crate::domain::{PrincipalId, SubjectRef, TenantId, Timestamp, Token};
use crate::store::{Store, StoreError};

/// The most entries one page reads.
pub const MOST_READ: usize = 10_000;
/// The most entries one page returns.
pub const MOST_RETURNED: usize = 1000;
/// A page that has read so many bytes ends with its next match.
const MOST_BYTES: usize = 4 << 20;
/// The most subject references of a query: versions of a tenant's index key.
const MOST_SUBJECTS: usize = 64;
/// Entries read, or looked up, at once.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 1 << 20;

/// What is asked. Each field narrows the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whose entries; `None`: all, and those of no tenant.
    pub tenant: Option<TenantId>,
    /// With an item about this token.
    pub token: Option<Token>,
    /// With an item about this person: one reference for each version of the tenant's index key. Empty: any;
    /// who looks for a person without a reference finds nothing, and must not ask.
    pub subjects: Vec<SubjectRef>,
    /// By this principal.
    pub principal: Option<PrincipalId>,
    /// Of this kind.
    pub action: Option<AuditAction>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// At most so many, and at most [`MOST_RETURNED`].
    pub limit: usize,
    /// Where the last page ended: its `next`. Empty: from the start.
    pub page: String,
    /// By ascending sequence.
    pub oldest_first: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Sequence numbers and entries.
    pub entries: Vec<(u64, AuditEntry)>,
    /// What to give as `page` to get more; `None`: there is no more.
    pub next: Option<String>,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a `next` of a page in this order.
    #[error("not a page of this query")]
    Page,
    /// Too many subject references.
    #[error("too many subject references")]
    Subjects,
    /// The store did not answer, or an entry does not decode.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A page of the entries that match. `covered`: entries before it are indexed, as
/// [`FollowerHandle::covered`](super::FollowerHandle::covered) says.
pub async fn query(store: &Arc<dyn Store>, covered: u64, query: &Query) -> Result<Page, QueryError> {
    if query.subjects.len() > MOST_SUBJECTS {
        return Err(QueryError::Subjects);
    }
    let size = store.log_size(store.log()).await?;
    let (mut from, mut until) = (0, size);
    if !query.page.is_empty() {
        let at = parse_cursor(&query.page, query.oldest_first).ok_or(QueryError::Page)?.min(size);
        if query.oldest_first { from = at } else { until = at }
    }
    let keys = index_keys(query);
    let mut scan = Scan { store: &**store, keys, covered: covered.min(size), from, until, query };
    let limit = query.limit.clamp(1, MOST_RETURNED);
    let (mut found, mut read, mut bytes_read) = (Vec::new(), 0, 0);
    while scan.from < scan.until && read < MOST_READ {
        let batch = scan.next().await?;
        for (sequence, bytes) in batch {
            read += 1;
            bytes_read += bytes.len();
            let entry = AuditEntry::decode(bytes)
                .map_err(|_| StoreError::Corrupt { what: format!("log entry {sequence}") })?;
            if matches(query, &entry) {
                found.push((sequence, entry));
                if found.len() == limit || bytes_read >= MOST_BYTES {
                    scan.leave_off_at(sequence);
                    return Ok(Page { entries: found, next: scan.cursor() });
                }
            }
        }
    }
    Ok(Page { entries: found, next: scan.cursor() })
}

/// What is left to be read: entries in `from..until`, from the end that the order says.
struct Scan<'a> {
    store: &'a dyn Store,
    /// Keys of the index, any of which an entry must have; empty: none serves.
    keys: Vec<Vec<u8>>,
    covered: u64,
    from: u64,
    until: u64,
    query: &'a Query,
}

impl Scan<'_> {
    /// The next candidates, in order; takes them off what is left.
    async fn next(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let oldest = self.query.oldest_first;
        let indexed = if oldest { self.from < self.covered } else { self.until <= self.covered };
        if indexed && !self.keys.is_empty() { self.by_index().await } else { self.by_reading().await }
    }

    async fn by_index(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let oldest = self.query.oldest_first;
        let (from, until) = (self.from, self.until.min(self.covered));
        let mut sequences = Vec::new();
        for key in &self.keys {
            sequences.extend(
                self.store.postings(self.store.log(), key, from, until, !oldest, CHUNK as usize).await?,
            );
        }
        sequences.sort_unstable();
        sequences.dedup();
        if !oldest {
            sequences.reverse();
        }
        // The first of them all are among the first of each key; those after may lack some.
        let more = sequences.len() >= CHUNK as usize;
        sequences.truncate(CHUNK as usize);
        match (oldest, sequences.last()) {
            (_, Some(&last)) if more => self.leave_off_at(last),
            (true, _) => self.from = until,
            (false, _) => self.until = from,
        }
        let mut candidates = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let entry =
                self.store.entries(self.store.log(), sequence, 1, CHUNK_BYTES).await?.into_iter().next();
            let missing = || StoreError::Corrupt { what: format!("log entry {sequence}") };
            candidates.push((sequence, entry.ok_or_else(missing)?));
        }
        Ok(candidates)
    }

    async fn by_reading(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let (start, end) = if self.query.oldest_first {
            (self.from, self.until.min(self.from + CHUNK))
        } else {
            // Not across the border, below which the index serves.
            let border = if self.until > self.covered { self.covered } else { 0 };
            (self.until.saturating_sub(CHUNK).max(self.from).max(border), self.until)
        };
        let mut candidates = Vec::with_capacity((end - start) as usize);
        let mut next = start;
        while next < end {
            let entries =
                self.store.entries(self.store.log(), next, (end - next) as usize, CHUNK_BYTES).await?;
            if entries.is_empty() {
                return Err(StoreError::Corrupt { what: format!("log entry {next}") });
            }
            let first = next;
            next += entries.len() as u64;
            candidates.extend((first..).zip(entries));
        }
        if self.query.oldest_first {
            self.from = end;
        } else {
            self.until = start;
            candidates.reverse();
        }
        Ok(candidates)
    }

    /// What is left begins after this one.
    fn leave_off_at(&mut self, sequence: u64) {
        if self.query.oldest_first { self.from = sequence + 1 } else { self.until = sequence }
    }

    fn cursor(&self) -> Option<String> {
        let (order, at) = if self.query.oldest_first { ('o', self.from) } else { ('n', self.until) };
        (self.from < self.until).then(|| format!("{order}{at:x}"))
    }
}

fn parse_cursor(text: &str, oldest_first: bool) -> Option<u64> {
    let digits = text.strip_prefix(if oldest_first { 'o' } else { 'n' })?;
    let at = u64::from_str_radix(digits, 16).ok()?;
    (format!("{at:x}") == digits).then_some(at)
}

/// Keys of the most selective index for the query.
fn index_keys(query: &Query) -> Vec<Vec<u8>> {
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

fn matches(query: &Query, entry: &AuditEntry) -> bool {
    let of_subject = |item: &[u8]| query.subjects.iter().any(|subject| item == subject.to_bytes());
    let by = entry.actor.as_ref().map_or("", |actor| actor.principal.as_str());
    query.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == entry.tenant)
        && query.token.is_none_or(|token| entry.items.iter().any(|item| item.token == token.as_bytes()[..]))
        && (query.subjects.is_empty() || entry.items.iter().any(|item| of_subject(&item.subject)))
        && query.principal.as_ref().is_none_or(|principal| principal.as_str() == by)
        && query.action.is_none_or(|action| i32::from(action) == entry.action)
        && query.since.is_none_or(|since| entry.time_us >= since.0)
        && query.until.is_none_or(|until| entry.time_us < until.0)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
