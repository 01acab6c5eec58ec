//! The vault's logs, for those who may read them (auditors, admins).
//!
//! Each instance of a vault writes a log of its own; they are numbered from 0. A query reads all of them.

use std::time::{Duration, SystemTime};

use futures::{Stream, stream};
use vault_proto::v1 as wire;

pub use vault_proto::v1::{
    Actor, AuditEntry, AuditItem, AuditLog, AuditRecord, actor, audit_entry, audit_item,
};

use crate::break_glass::GrantId;
use crate::client::Client;
use crate::error::Error;
use crate::token::Token;
use crate::transport::fault;
use crate::value::SubjectId;

/// What to look for in the log; everything that is set narrows the result.
#[derive(Default)]
pub struct AuditQuery {
    /// Entries that name this token.
    pub token: Option<Token>,
    /// Entries about this person, by the application's id.
    pub subject: Option<SubjectId>,
    /// Entries of this principal.
    pub principal: Option<String>,
    /// Entries of this action: `tokenize`, `detokenize`, `erase` ...
    pub action: Option<String>,
    /// Entries that are about this grant of break-glass, or were done under it.
    pub grant: Option<GrantId>,
    /// From this instant on.
    pub since: Option<SystemTime>,
    /// Before this instant.
    pub until: Option<SystemTime>,
    /// At most so many a page; 0 means 100, the most is 1,000.
    pub limit: u32,
    /// Where the last page ended: [`AuditPage::next`].
    pub page: Option<String>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
}

/// A page of the log.
#[derive(Debug)]
pub struct AuditPage {
    /// Entries with their places: the number of their log, and their position in it.
    pub entries: Vec<AuditRecord>,
    /// For [`AuditQuery::page`]; `None`: there is no more.
    pub next: Option<String>,
}

/// A signed checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The signed note: origin, size, root, signature lines.
    pub note: String,
    /// The key that it verifies with. Only a key that came another way proves anything.
    pub verifier_key: String,
    /// Statements that lead from any key that has signed to this one; empty while there has been one.
    pub signing_keys: String,
}

/// Consecutive leaves of a log, as their exact bytes.
#[derive(Debug)]
pub struct Leaves {
    /// The place of the first.
    pub start: u64,
    /// Encoded entries.
    pub leaves: Vec<bytes::Bytes>,
}

impl Client {
    /// Looks entries up. Reading the log is itself logged.
    pub async fn audit_query(&self, query: AuditQuery) -> Result<AuditPage, Error> {
        let request = wire::AuditQueryRequest {
            tenant: self.tenant(),
            token: query.token.map(|token| token.to_string()).unwrap_or_default(),
            subject: query.subject.map(SubjectId::into_inner).unwrap_or_default(),
            principal: query.principal.unwrap_or_default(),
            action: query.action.unwrap_or_default(),
            since_us: micros(query.since),
            until_us: micros(query.until),
            limit: query.limit,
            page: query.page.unwrap_or_default(),
            oldest_first: query.oldest_first,
            grant: query.grant.map(|grant| grant.to_string()).unwrap_or_default(),
        };
        let answer =
            self.call_audit(request, |mut audit, request| async move { audit.query(request).await }).await?;
        Ok(AuditPage { entries: answer.entries, next: Some(answer.next).filter(|next| !next.is_empty()) })
    }

    /// The logs of the vault, in the order of their numbers.
    pub async fn audit_logs(&self) -> Result<Vec<AuditLog>, Error> {
        let request = wire::ListLogsRequest {};
        let answer = self
            .call_audit(request, |mut audit, request| async move { audit.list_logs(request).await })
            .await?;
        if !answer.logs.is_sorted_by(|one, next| one.log < next.log) {
            return Err(Error::bad_answer("logs are named twice or out of order"));
        }
        Ok(answer.logs)
    }

    /// The newest signed checkpoint of a log; with `fresh`, one that covers all its entries written before the call.
    pub async fn audit_checkpoint(&self, log: u32, fresh: bool) -> Result<Checkpoint, Error> {
        let request = wire::GetCheckpointRequest { fresh, log };
        let answer = self
            .call_audit(request, |mut audit, request| async move { audit.get_checkpoint(request).await })
            .await?;
        Ok(Checkpoint {
            note: answer.checkpoint,
            verifier_key: answer.verifier_key,
            signing_keys: answer.signing_keys,
        })
    }

    /// The leaves of a log from `start` up to `end` (exclusive), in order and without gaps. A stream that breaks off ends
    /// with an error; go on from where it ended.
    pub async fn audit_entries(
        &self,
        log: u32,
        start: u64,
        end: u64,
    ) -> Result<impl Stream<Item = Result<Leaves, Error>> + Send + use<>, Error> {
        let request = wire::GetEntriesRequest { start, end, log };
        let answers = self.open_audit(|mut audit| async move { audit.get_entries(request).await }).await?;
        let timeout = self.limits().timeout;
        Ok(stream::try_unfold((answers, start), move |(mut answers, next)| async move {
            if next >= end {
                return Ok(None);
            }
            let message = tokio::time::timeout(timeout, answers.message()).await;
            let message = message.map_err(|_| Error::deadline())?;
            let Some(part) = message.map_err(|status| fault::explain(&status, None))? else {
                return Err(Error::connection("the log's stream ended early"));
            };
            let count = part.leaves.len() as u64;
            if part.start != next || count == 0 || count > end - next {
                return Err(Error::bad_answer("entries are missing or out of order"));
            }
            Ok(Some((Leaves { start: part.start, leaves: part.leaves }, (answers, next + count))))
        }))
    }
}

fn micros(time: Option<SystemTime>) -> u64 {
    let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    time.map_or(0, |time| u64::try_from(since(time).as_micros()).unwrap_or(u64::MAX))
}
