//! The use cases, one file each. Here permits and receipts meet.
//!
//! Every use case goes the same way: the caller's tenant, the request's own limits, what policy says of the
//! action, the records, what policy says of each, the log, and only then the values. What is refused on
//! that way is in the log before the caller learns of it. Refusing is boxed, so that requests which are not refused, nearly
//! all, carry no place for it.

mod alerts;
mod audit;
mod break_glass;
mod describe;
mod detokenize;
mod erase;
mod find;
mod honeytokens;
mod jobs;
mod keys;
mod limits;
mod mask;
mod opening;
mod policy;
mod principals;
mod problem;
mod request;
mod second_factor;
mod security_keys;
mod sessions;
mod signing;
#[cfg(test)]
mod testing;
mod tokenize;
mod warrant;
mod watched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::access::{
    Access, Action, Caller, Credential, Honeytokens, Provisioning, Question, TenantError, UsageLimits,
    Verdict,
};
use crate::audit::{Actor, AuditAction, Decision, Draft, FollowerHandle, Item, Log, Outcome};
use crate::domain::class::Classes;
use crate::domain::{Clock, Purpose, RequestId, TenantId, VaultIdentity};
use crate::keyring::Keyring;
use crate::store::Store;

pub use audit::{AuditQuery, AuditScope, SignedLog};
pub use break_glass::{
    Approving, AskedScope, Denying, GrantAsked, GrantDue, GrantRules, Listing, Revealed, Reviewing,
    TenantRules,
};
pub use describe::Described;
pub use detokenize::Opened;
pub use erase::{EraseTarget, Erased};
pub use find::Found;
pub use jobs::{JobApproval, JobAsked, JobControl, JobRules, Preview, job_draft};
pub use keys::KnownKey;
pub use policy::{AccessAsked, Checked, Explained};
pub use principals::{
    Approved, KnownPrincipal, KnownProposal, Outcome as ChangeOutcome, PeopleRules, PrincipalAsked,
    ProposalNamed,
};
pub use problem::{Problem, Refused};
pub use request::{NewValue, Note, ParsedToken};
pub use second_factor::{BegunFactor, GivenFactor, SecondFactorRules, Touch};
pub use security_keys::{Enrollment, Revocation};
pub use sessions::{Bearer, OpenedSession, Sessions};

/// What a request may ask for at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Items in a request.
    pub items: usize,
    /// Bytes of a value, whatever its class allows.
    pub value_bytes: usize,
    /// Bytes of an answer, as far as values make them.
    pub response_bytes: usize,
    /// How long the answer to a write is remembered under its idempotency key.
    pub remember: Duration,
}

/// Everything the use cases work with.
pub struct Parts {
    /// Which vault this is.
    pub identity: VaultIdentity,
    /// The data classes.
    pub classes: Arc<Classes>,
    /// Where things are kept.
    pub store: Arc<dyn Store>,
    /// Open keys.
    pub keyring: Arc<Keyring>,
    /// Who may.
    pub access: Arc<Access>,
    /// How that is kept at what the store has.
    pub provisioning: Arc<Provisioning>,
    /// Which tokens nobody has reason to use.
    pub honeytokens: Arc<Honeytokens>,
    /// How much a principal may use.
    pub usage: Arc<UsageLimits>,
    /// The log.
    pub log: Arc<Log>,
    /// The log's tree and checkpoints.
    pub follower: Arc<FollowerHandle>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What a request may ask for.
    pub limits: Limits,
    /// What holds for jobs.
    pub jobs: JobRules,
    /// What holds for grants of break-glass.
    pub grants: GrantRules,
    /// What holds for changes of who may.
    pub people: PeopleRules,
    /// What holds for second factors.
    pub second_factor: SecondFactorRules,
    /// What people need who come by an identity provider; `None`: nobody does.
    pub sessions: Option<Sessions>,
}

/// The vault.
pub struct Vault {
    parts: Parts,
    grants_known: break_glass::KnownGrants,
}

/// One request of a known caller.
pub struct Context {
    /// Who asks.
    pub caller: Caller,
    /// Names the request in the log and in the answer.
    pub request: RequestId,
}

impl Context {
    /// An entry for the log of something that this request does with a tenant's data.
    fn draft(&self, action: AuditAction, tenant: &TenantId) -> Draft {
        let actor = Actor::caller(&self.caller, tenant);
        Draft { tenant: Some(tenant.clone()), ..Draft::new(self.request, action, actor) }
    }
}

impl Vault {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        Self { parts, grants_known: break_glass::KnownGrants::default() }
    }

    /// Which vault this is.
    pub fn identity(&self) -> &VaultIdentity {
        &self.parts.identity
    }

    /// Who calls. A credential that names nobody provisioned is refused, and the refusal is in the log first.
    pub async fn enter(&self, credential: &Credential, action: AuditAction) -> Result<Context, Refused> {
        let request = RequestId::random().map_err(|_| Problem::Internal.whole())?;
        match self.admit(credential, action).await {
            Ok(caller) => Ok(Context { caller, request }),
            Err(turned_away) => Err(self.turn_away(credential, action, request, turned_away).await),
        }
    }

    /// Puts on record that a credential was turned away; what its holder is told.
    fn turn_away<'a>(
        &'a self,
        credential: &'a Credential,
        action: AuditAction,
        request: RequestId,
        turned_away: sessions::NoCaller,
    ) -> BoxFuture<'a, Refused> {
        async move {
            let Some(unrecorded) = self.may_record(credential) else {
                return Problem::Overloaded.whole().of(request).logged();
            };
            let mut draft = Draft::new(request, action, Actor::unknown(credential));
            draft.decision = Decision::Deny;
            draft.cause = turned_away.cause;
            if unrecorded > 0 {
                draft.details.push(("unrecorded", unrecorded.to_string()));
            }
            match self.parts.log.record(draft, Vec::new()).await {
                Ok(_) => turned_away.problem.whole().of(request).logged(),
                Err(error) => error.into(),
            }
        }
        .boxed()
    }

    /// Whether a credential names somebody who may call now.
    pub async fn knows(&self, credential: &Credential, action: AuditAction) -> bool {
        self.admit(credential, action).await.is_ok()
    }

    /// Puts on record that something of a caller's was refused before it could be read.
    pub async fn refused_unread(&self, credential: &Credential, action: AuditAction, cause: &'static str) {
        let Ok(cx) = self.enter(credential, action).await else { return };
        let mut draft = Draft::new(cx.request, action, Actor::caller_of_vault(&cx.caller));
        draft.decision = Decision::Deny;
        draft.cause = cause;
        if let Err(error) = self.parts.log.record(draft, Vec::new()).await {
            tracing::error!(%error, "a refusal is not on record");
        }
    }

    /// Puts a refusal into the log that no use case has put there: what failed on the way (the KMS, the store) or was
    /// refused before a use case saw it.
    pub fn refuse<'a>(
        &'a self,
        cx: &'a Context,
        action: AuditAction,
        refused: Refused,
    ) -> BoxFuture<'a, Refused> {
        async move {
            if refused.logged {
                return refused.of(cx.request);
            }
            let draft = Draft::new(cx.request, action, Actor::caller_of_vault(&cx.caller));
            self.log_refusal(draft, Vec::new(), refused).await.of(cx.request)
        }
        .boxed()
    }

    /// The tenant a request is about. A refusal is in the log.
    async fn tenant(&self, cx: &Context, action: AuditAction, asked: &str) -> Result<TenantId, Refused> {
        let problem = match self.parts.access.tenant(&cx.caller, asked) {
            Ok(tenant) => return Ok(tenant),
            Err(TenantError::Invalid) => {
                Problem::Field("a tenant's name: a-z, 0-9 and '-', at most 63 characters")
            }
            Err(TenantError::Ambiguous) => {
                Problem::Field("named: the caller serves several tenants, or none by itself")
            }
            Err(TenantError::NotAllowed) => Problem::TenantNotAllowed,
        };
        Err(self.refuse(cx, action, problem.at("tenant")).await)
    }

    /// Whether the action may be done at all. A refusal is in the log with the items it was asked for.
    async fn allow(
        &self,
        cx: &Context,
        draft: &mut Draft,
        tenant: &TenantId,
        question: Question<'_>,
        items: impl FnOnce() -> Vec<Item>,
    ) -> Result<(), Refused> {
        let verdict = self.decide(cx, tenant, question);
        draft.policies.extend(verdict.policies.iter().cloned());
        if verdict.allowed {
            return Ok(());
        }
        let refused = Problem::ActionNotAllowed.whole();
        Err(self.log_refusal_watched(cx, draft.clone(), items(), refused).await)
    }

    fn decide(&self, cx: &Context, tenant: &TenantId, question: Question<'_>) -> Verdict {
        self.parts.access.decide(&cx.caller, tenant, question)
    }

    /// Logs a refusal of a whole request, unless it is on record; what comes back is what the caller is told.
    fn log_refusal(&self, mut draft: Draft, items: Vec<Item>, refused: Refused) -> BoxFuture<'_, Refused> {
        async move {
            if refused.logged {
                return refused;
            }
            draft.decision = Decision::Deny;
            draft.cause = refused.problem.cause();
            match self.parts.log.record(draft, items).await {
                Ok(_) => refused.logged(),
                // The refusal could not be made durable: not even that much is told.
                Err(error) => error.into(),
            }
        }
        .boxed()
    }

    /// As [`Vault::log_refusal`], for requests that may be about values.
    fn log_refusal_watched<'a>(
        &'a self,
        cx: &'a Context,
        mut draft: Draft,
        items: Vec<Item>,
        refused: Refused,
    ) -> BoxFuture<'a, Refused> {
        async move {
            draft.decision = Decision::Deny;
            draft.cause = refused.problem.cause();
            match self.record_watched(cx, draft, items).await {
                Ok(()) => refused.logged(),
                Err(error) => error,
            }
        }
        .boxed()
    }

    /// Refuses a request that asks for nothing or for too much. Before anything is made of its items.
    pub fn check_count(&self, count: usize, field: &str) -> Result<(), Refused> {
        match count {
            0 => Err(Problem::NoItems.at(field)),
            n if n > self.parts.limits.items => {
                Err(Problem::TooManyItems { most: self.parts.limits.items }.at(field))
            }
            _ => Ok(()),
        }
    }

    /// Whether a stream may go on: its caller is asked for anew, and what it does, as for a call of its own. `tenant`:
    /// whose keys or data it is about; `None` for the vault as a whole.
    pub async fn enter_for(
        &self,
        credential: &Credential,
        action: AuditAction,
        question: Action,
        tenant: Option<&TenantId>,
    ) -> Result<(), Refused> {
        let cx = self.enter(credential, action).await?;
        let Some(tenant) = tenant else {
            return self.vault_wide(&cx, action, question).await.map(drop);
        };
        let mut draft = cx.draft(action, tenant);
        self.allow(&cx, &mut draft, tenant, whole(question, None), Vec::new).await
    }
}

/// An item that was denied before it was looked at.
fn denied() -> Item {
    Item { outcome: Outcome::Denied, ..Item::invalid() }
}

/// Tokens of a request that was denied as a whole, as they came.
fn denied_tokens(tokens: &[ParsedToken]) -> Vec<Item> {
    let item = |token: &ParsedToken| match token {
        Ok(token) => Item::of_token(*token, Outcome::Denied),
        Err(_) => Item::invalid(),
    };
    tokens.iter().map(item).collect()
}

/// A question about an action as a whole.
fn whole(action: Action, purpose: Option<Purpose>) -> Question<'static> {
    Question { action, class: None, purpose, grant: None }
}

/// What the items of a request say about it.
fn decision(items: &[Item]) -> Decision {
    let done = items.iter().filter(|item| item.outcome == Outcome::Ok).count();
    match done {
        0 if !items.is_empty() => Decision::Deny,
        n if n == items.len() => Decision::Allow,
        _ => Decision::Partial,
    }
}

/// Collects the ids of deciding policies.
fn add_policies(into: &mut BTreeSet<String>, verdict: &Verdict) {
    for policy in verdict.policies.iter() {
        if !into.contains(policy) {
            into.insert(policy.clone());
        }
    }
}

/// Lets other requests run after a stretch of computing.
async fn breathe(item: usize) {
    const STRETCH: usize = 512;
    if item % STRETCH == STRETCH - 1 {
        tokio::task::yield_now().await;
    }
}
