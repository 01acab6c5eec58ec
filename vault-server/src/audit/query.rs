//! Reads all logs of the vault: by token, person, principal, action, time; newest or oldest first; page by page.
//!
//! Within a log entries keep their order, whatever their times; between logs, which nothing orders, the time
//! decides, and where that is the same, the number of the log.
//!
//! What the follower has indexed is found by the most selective index there is for the query; what it has not
//! reached yet is read entry by entry. So an entry is found from the moment it is durable. Every entry is decoded
//! and compared with the whole query, whatever index named it. A page reads at most [`MOST_READ`] entries and then
//! says where to go on, even if it has found none.

use std::sync::Arc;

use vault_proto::v1::AuditEntry;

use super::cursor::Cursor;
use super::entry::AuditAction;
use super::merge::Merge;
use crate::domain::{GrantId, PrincipalId, SubjectRef, TenantId, Timestamp, Token};
use crate::store::{LogId, Store, StoreError};

/// The most entries one page reads.
pub const MOST_READ: usize = 10_000;
/// The most entries one page returns.
pub const MOST_RETURNED: usize = 1000;
/// A page that has read so many bytes ends with its next match.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// The most subject references of a query: versions of a tenant's index key.
const MOST_SUBJECTS: usize = 64;

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
    /// About this grant of break-glass, or done under it.
    pub grant: Option<GrantId>,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Before then.
    pub until: Option<Timestamp>,
    /// At most so many, and at most [`MOST_RETURNED`].
    pub limit: usize,
    /// Where the last page ended: its `next`. Empty: from the start.
    pub page: String,
    /// The oldest first, not the newest.
    pub oldest_first: bool,
}

/// An entry that was found, and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// In which log.
    pub log: LogId,
    /// Where in it.
    pub sequence: u64,
    /// What it says.
    pub entry: AuditEntry,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order.
    pub entries: Vec<Hit>,
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

/// A page of the entries that match. `covered`: entries of the store's own log before it are indexed, as
/// [`FollowerHandle::covered`](super::FollowerHandle::covered) says; the store knows how far other logs are.
///
/// A later page has what was written since the first one, in a new log too, when the oldest come first: it would
/// come last. When the newest come first it would have come before the first page, and is left out.
pub async fn query(store: &Arc<dyn Store>, covered: u64, query: &Query) -> Result<Page, QueryError> {
    if query.subjects.len() > MOST_SUBJECTS {
        return Err(QueryError::Subjects);
    }
    let cursor = match &*query.page {
        "" => None,
        page => Some(Cursor::parse(page, query.oldest_first).ok_or(QueryError::Page)?),
    };
    let logs = store.logs().await?;
    if cursor.as_ref().is_some_and(|cursor| cursor.logs().any(|log| !logs.contains(&log))) {
        return Err(QueryError::Page);
    }
    let mut merge = Merge::begin(&**store, query, &logs, cursor.as_ref(), covered).await?;
    let limit = query.limit.clamp(1, MOST_RETURNED);
    let mut entries = Vec::new();
    while let Some(hit) = merge.next().await? {
        entries.push(hit);
        if entries.len() == limit || merge.bytes_read() >= MOST_BYTES {
            break;
        }
    }
    Ok(Page { entries, next: merge.cursor().map(|cursor| cursor.to_string()) })
}

/// Whether an entry is what is asked for.
pub(super) fn matches(query: &Query, entry: &AuditEntry) -> bool {
    let of_subject = |item: &[u8]| query.subjects.iter().any(|subject| item == subject.to_bytes());
    let by = entry.actor.as_ref().map_or("", |actor| actor.principal.as_str());
    query.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == entry.tenant)
        && query.token.is_none_or(|token| entry.items.iter().any(|item| item.token == token.as_bytes()[..]))
        && (query.subjects.is_empty() || entry.items.iter().any(|item| of_subject(&item.subject)))
        && query.principal.as_ref().is_none_or(|principal| principal.as_str() == by)
        && query.action.is_none_or(|action| i32::from(action) == entry.action)
        && query.grant.is_none_or(|grant| grant.to_string() == entry.grant)
        && query.since.is_none_or(|since| entry.time_us >= since.0)
        && query.until.is_none_or(|until| entry.time_us < until.0)
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
