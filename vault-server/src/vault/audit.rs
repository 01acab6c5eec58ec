//! Reads the logs. Reading them is itself on record, before anything is shown.

use crate::access::{Action, Verdict};
use crate::audit::{self, AuditAction, Decision, Draft, Item, Outcome, Page, Query};
use crate::crypto;
use crate::domain::{GrantId, PrincipalId, SubjectId, TenantId, Timestamp};
use crate::store::LogId;

use super::{Context, ParsedToken, Problem, Refused, Vault, whole};

/// What to look for; what is `None` does not narrow.
pub struct AuditQuery {
    /// Entries of a token.
    pub token: Option<ParsedToken>,
    /// Entries of a person.
    pub subject: Option<SubjectId>,
    /// Entries of a caller.
    pub principal: Option<PrincipalId>,
    /// Entries of an action.
    pub action: Option<AuditAction>,
    /// Entries of a grant of break-glass.
    pub grant: Option<GrantId>,
    /// From here on.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// Where the last page ended.
    pub page: String,
    /// In the log's order, or backwards.
    pub oldest_first: bool,
}

/// How long a fresh checkpoint may take.
const FRESH: std::time::Duration = std::time::Duration::from_secs(10);

/// Whose entries are read.
pub enum AuditScope {
    /// One tenant's.
    Tenant(TenantId),
    /// All, and the vault's own.
    Vault,
}

/// A log's state, and what verifies it.
pub struct SignedLog {
    /// The signed checkpoint.
    pub checkpoint: String,
    /// The newest key, under the log's name.
    pub verifier: String,
    /// Which keys have signed, from the first ([`vault_format::history`]); empty while there is one.
    pub statements: String,
}

impl Vault {
    /// The most entries of a page.
    pub const MOST_ENTRIES: usize = 1000;
    /// How many a page has without asking.
    pub const USUAL_ENTRIES: usize = 100;

    /// Finds entries.
    pub async fn audit_query(
        &self,
        cx: &Context,
        asked_tenant: &str,
        query: Result<AuditQuery, Refused>,
    ) -> Result<Page, Refused> {
        const ACTION: AuditAction = AuditAction::AuditQuery;
        let (scope, mut draft) = self.scope(cx, ACTION, Action::AuditQuery, asked_tenant).await?;
        let checked = match query {
            Ok(query) => self.query(&scope, query).await,
            Err(refused) => Err(refused),
        };
        let query = match checked {
            Ok(query) => query,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let items = query.as_ref().map(|query| asked(query, &mut draft.details)).unwrap_or_default();
        self.parts.log.record(draft, items).await?;
        // A person of whom the tenant has no key: nothing was ever kept about them.
        let Some(query) = query else { return Ok(Page { entries: Vec::new(), next: None }) };
        let covered = self.parts.follower.covered();
        audit::query(&self.parts.store, covered, &query).await.map_err(|error| match error {
            audit::QueryError::Page => Problem::Field("the `next` of an earlier answer").at("page"),
            audit::QueryError::Subjects => Problem::Internal.whole(),
            audit::QueryError::Store(error) => error.into(),
        })
    }

    /// The logs of the vault: number, origin, and how many entries the newest checkpoint covers.
    pub async fn audit_logs(&self, cx: &Context) -> Result<Vec<(LogId, String, u64)>, Refused> {
        const ACTION: AuditAction = AuditAction::AuditCheckpoint;
        let mut draft = self.vault_wide(cx, ACTION, Action::AuditCheckpoint).await?;
        draft.details = vec![("what", "logs".to_owned())];
        self.parts.log.record(draft, Vec::new()).await?;
        let mut logs = Vec::new();
        for log in self.parts.store.logs().await? {
            let size = self.parts.store.derived(log).await?.checkpoint.map_or(0, |(size, _)| size);
            logs.push((log, audit::origin(&self.parts.identity, log), size));
        }
        Ok(logs)
    }

    /// The newest signed checkpoint of a log, or one that covers everything written to it before the call; and what
    /// verifies it.
    pub async fn checkpoint(&self, cx: &Context, log: LogId, fresh: bool) -> Result<SignedLog, Refused> {
        const ACTION: AuditAction = AuditAction::AuditCheckpoint;
        let mut draft = self.vault_wide(cx, ACTION, Action::AuditCheckpoint).await?;
        draft.details = vec![("log", log.to_string())];
        let draft = self.known_log(draft, log).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let (follower, store) = (&self.parts.follower, &*self.parts.store);
        let newest = if fresh { None } else { follower.newest_checkpoint() };
        let checkpoint = match newest {
            _ if log != store.log() => audit::checkpoint_of_other(store, log, fresh, FRESH).await,
            Some(checkpoint) => Ok(checkpoint),
            None => follower.fresh_checkpoint(FRESH).await,
        };
        let checkpoint = checkpoint.map_err(|error| {
            tracing::error!(%log, %error, "no checkpoint");
            Problem::LogUnavailable.whole()
        })?;
        // Read after the checkpoint: they name whatever signed it.
        let (newest, statements) = self.signing_history().await?;
        let origin = audit::origin(&self.parts.identity, log);
        let verifier = newest.named(&origin).map_err(|_| Problem::Internal.whole())?.to_key();
        Ok(SignedLog { checkpoint, verifier, statements })
    }

    /// Lets a caller read whole entries of everybody, and says how far the log goes.
    pub async fn audit_export(&self, cx: &Context, log: LogId, start: u64, end: u64) -> Result<(), Refused> {
        const ACTION: AuditAction = AuditAction::AuditExport;
        let mut draft = self.vault_wide(cx, ACTION, Action::AuditExport).await?;
        draft.details =
            vec![("log", log.to_string()), ("start", start.to_string()), ("end", end.to_string())];
        let draft = self.known_log(draft, log).await?;
        let covered = if log == self.parts.store.log() {
            self.parts.follower.covered()
        } else {
            self.parts.store.derived(log).await?.upto
        };
        if start > end || end > covered {
            let refused = Problem::Field("start <= end <= the size of the newest checkpoint").at("end");
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        self.parts.log.record(draft, Vec::new()).await?;
        Ok(())
    }

    /// Leaves of a log from `start`, as many as make a message, none at or past `end`.
    pub async fn leaves(&self, log: LogId, start: u64, end: u64) -> Result<Vec<bytes::Bytes>, Refused> {
        const MOST: usize = 1024;
        const BYTES: usize = 1 << 20;
        let left = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX).min(MOST);
        Ok(self.parts.store.entries(log, start, left, BYTES).await?)
    }

    /// The draft, if the vault has this log. Otherwise the refusal is in the log.
    async fn known_log(&self, draft: Draft, log: LogId) -> Result<Draft, Refused> {
        if log == self.parts.store.log() || self.parts.store.logs().await?.contains(&log) {
            return Ok(draft);
        }
        let refused = Problem::Field("the number of a log of this vault").at("log");
        Err(self.log_refusal(draft, Vec::new(), refused).await)
    }

    /// `None`: nothing can match.
    async fn query(&self, scope: &AuditScope, query: AuditQuery) -> Result<Option<Query>, Refused> {
        if query.limit > Self::MOST_ENTRIES {
            return Err(Problem::Field("at most 1,000").at("limit"));
        }
        let mut subjects = Vec::new();
        if let Some(subject) = &query.subject {
            let AuditScope::Tenant(tenant) = scope else {
                return Err(
                    Problem::Field("of one tenant: a person is known within a tenant only").at("subject")
                );
            };
            let keys = self.parts.keyring.index_keys_now(tenant).await?;
            if keys.is_empty() {
                return Ok(None);
            }
            subjects = keys.iter().map(|key| crypto::subject_ref(key, subject)).collect();
        }
        Ok(Some(Query {
            tenant: match scope {
                AuditScope::Tenant(tenant) => Some(tenant.clone()),
                AuditScope::Vault => None,
            },
            token: query.token.transpose().map_err(|problem| problem.at("token"))?,
            subjects,
            principal: query.principal,
            action: query.action,
            grant: query.grant,
            since: query.since,
            until: query.until,
            limit: if query.limit == 0 { Self::USUAL_ENTRIES } else { query.limit },
            page: query.page,
            oldest_first: query.oldest_first,
        }))
    }

    /// Whose entries a caller may read. A refusal is in the log.
    async fn scope(
        &self,
        cx: &Context,
        action: AuditAction,
        question: Action,
        asked: &str,
    ) -> Result<(AuditScope, Draft), Refused> {
        if asked == "*" {
            let draft = self.vault_wide(cx, action, question).await?;
            return Ok((AuditScope::Vault, draft));
        }
        let tenant = self.tenant(cx, action, asked).await?;
        let mut draft = cx.draft(action, &tenant);
        self.allow(cx, &mut draft, &tenant, whole(question, None), Vec::new).await?;
        Ok((AuditScope::Tenant(tenant), draft))
    }

    /// Asks policy about something that concerns the whole vault.
    pub(super) async fn vault_wide(
        &self,
        cx: &Context,
        action: AuditAction,
        question: Action,
    ) -> Result<Draft, Refused> {
        let mut draft = Draft::new(cx.request, action, audit::Actor::caller_of_vault(&cx.caller));
        let Verdict { allowed, policies, .. } = self.parts.access.decide_for_vault(&cx.caller, question);
        draft.policies.extend(policies.iter().cloned());
        if allowed {
            draft.decision = Decision::Allow;
            return Ok(draft);
        }
        Err(self.log_refusal(draft, Vec::new(), Problem::ActionNotAllowed.whole()).await)
    }
}

/// What a query asks, for its own entry: whom and what it is about as items, the rest as details.
fn asked(query: &Query, details: &mut Vec<(&'static str, String)>) -> Vec<Item> {
    if let Some(principal) = &query.principal {
        details.push(("principal", principal.to_string()));
    }
    if let Some(action) = query.action {
        details.push(("action", action.as_str_name().to_owned()));
    }
    if let Some(grant) = query.grant {
        details.push(("grant", grant.to_string()));
    }
    for (name, time) in [("since_us", query.since), ("until_us", query.until)] {
        if let Some(Timestamp(us)) = time {
            details.push((name, us.to_string()));
        }
    }
    details.push(("limit", query.limit.to_string()));
    let token = query.token.map(|token| Item::of_token(token, Outcome::Ok));
    let subject = |subject: &_| Item { subject: Some(*subject), outcome: Outcome::Ok, ..Item::invalid() };
    token.into_iter().chain(query.subjects.iter().map(subject)).collect()
}
