//! [`Access`]: the directory and the policies that are in force, and the questions that can be asked of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::access::decisions::Decisions;
use crate::access::question::Asked;
use crate::access::widening;
use crate::access::{
    Action, Caller, Credential, Directory, Fingerprint, GrantUse, ListedKey, OpenAction, Permit, Policies,
    Principal, PrincipalKind, Question, TenantScope, Verdict,
};
use crate::crypto::Detokenize;
use crate::domain::class::MaskView;
use crate::domain::{ClassName, PrincipalId, Purpose, Record, RequestId, TenantId, Timestamp};

/// Who may call, and what they may do. Shared by all requests; a reload swaps everything at once.
pub struct Access {
    state: ArcSwap<State>,
    looks: Looks,
}

/// Why a credential gives no caller. What an outsider gets to see is the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// No principal has this identity.
    #[error("no such principal")]
    Unknown,
    /// Several principals have identities of this credential.
    #[error("the credential names several principals")]
    Ambiguous,
    /// It was disabled.
    #[error("the principal is disabled")]
    Disabled,
    /// Its time is over.
    #[error("the principal has expired")]
    Expired,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid yet")]
    CertificateNotYetValid,
    /// The certificate is not valid any more: connections may outlive it.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// Whether it was disabled meanwhile can't be known: the store has not told for too long.
    #[error("the principals have not been looked at for too long")]
    Stale,
}

impl Unauthenticated {
    /// For the log's cause.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "principal_unknown",
            Self::Ambiguous => "principal_ambiguous",
            Self::Disabled => "principal_disabled",
            Self::Expired => "principal_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateExpired => "certificate_expired",
            Self::Stale => "principals_stale",
        }
    }
}

/// Why a caller gets no tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// Not the name of a tenant.
    #[error("not the name of a tenant")]
    Invalid,
    /// None was named, and the caller serves several.
    #[error("the caller serves several tenants: name one")]
    Ambiguous,
    /// The caller has no role there.
    #[error("the tenant is not the caller's")]
    NotAllowed,
}

impl Access {
    /// With what is in force at first.
    pub fn new(directory: Directory, policies: Policies) -> Self {
        let state = State::new(1, Arc::new(directory), Arc::default(), Arc::new(policies));
        Self { state: ArcSwap::from_pointee(state), looks: Looks::default() }
    }

    /// Puts another directory and other policies in force, both at once: for every question asked after this
    /// returns. Both were checked when they were parsed; a bad one never gets here. Answers with the new generation.
    pub fn reload(&self, directory: Directory, policies: Policies) -> u64 {
        let (directory, policies) = (Arc::new(directory), Arc::new(policies));
        let before = self.state.rcu(|state| {
            let provisioned = Arc::clone(&state.provisioned);
            State::new(state.generation + 1, Arc::clone(&directory), provisioned, Arc::clone(&policies))
        });
        before.generation + 1
    }

    /// Puts what is provisioned in the vault in force, beside what is configured.
    pub(super) fn provision(&self, provisioned: Vec<Principal>) {
        let provisioned: Arc<[_]> = provisioned.into_iter().map(Arc::new).collect();
        self.state.rcu(|state| {
            let (configured, policies) = (Arc::clone(&state.configured), Arc::clone(&state.policies));
            State::new(state.generation + 1, configured, Arc::clone(&provisioned), policies)
        });
    }

    /// Now, for [`Access::looked`].
    pub(super) fn moment(&self) -> u64 {
        self.looks.elapsed()
    }

    /// Notes that what is in force is what the store had at a moment.
    pub(super) fn looked(&self, moment: u64) {
        self.looks.note(moment);
    }

    /// All principals that are in force, provisioned and configured.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.state.load().directory)
    }

    /// Those of the configuration's file.
    pub fn configured(&self) -> Arc<Directory> {
        Arc::clone(&self.state.load().configured)
    }

    /// Counts directories and policies, from 1.
    pub fn generation(&self) -> u64 {
        self.state.load().generation
    }

    /// Who calls. For each request anew, so that whoever was disabled is refused on live connections, too.
    pub fn authenticate(&self, credential: &Credential, now: Timestamp) -> Result<Caller, Unauthenticated> {
        if now < credential.not_before {
            return Err(Unauthenticated::CertificateNotYetValid);
        }
        if now > credential.not_after {
            return Err(Unauthenticated::CertificateExpired);
        }
        if self.looks.are_stale(self.looks.elapsed()) {
            return Err(Unauthenticated::Stale);
        }
        let state = self.state.load();
        let (principal, identity) = state.named_by(credential)?;
        if !principal.enabled {
            return Err(Unauthenticated::Disabled);
        }
        if principal.expires.is_some_and(|expires| now >= expires) {
            return Err(Unauthenticated::Expired);
        }
        Ok(Caller {
            principal: Arc::clone(principal),
            credential: credential.fingerprint,
            identity: identity.to_owned(),
            factors: credential.factors(),
            source: credential.source,
        })
    }

    /// A principal by its id.
    pub fn principal(&self, id: &PrincipalId) -> Option<Arc<Principal>> {
        self.state.load().directory.principal(id).cloned()
    }

    /// A security key that the principals file lists.
    pub fn listed_key(&self, key: &Fingerprint) -> Option<ListedKey> {
        self.state.load().directory.security_key(key).cloned()
    }

    /// Those that it lists for a principal.
    pub fn listed_keys_of(&self, principal: &PrincipalId) -> Vec<ListedKey> {
        self.state.load().directory.security_keys_of(principal).cloned().collect()
    }

    /// Which tenant is meant: the one asked for, if the caller has a role there; for `""` the only one it serves.
    pub fn tenant(&self, caller: &Caller, asked: &str) -> Result<TenantId, TenantError> {
        let principal = &caller.principal;
        if asked.is_empty() {
            let mut scopes = principal.roles.keys();
            return match (scopes.next(), scopes.next()) {
                (Some(TenantScope::One(tenant)), None) => Ok(tenant.clone()),
                _ => Err(TenantError::Ambiguous),
            };
        }
        let tenant = TenantId::parse(asked).map_err(|_| TenantError::Invalid)?;
        let place = TenantScope::One(tenant.clone());
        if principal.roles_at(&place).is_empty() { Err(TenantError::NotAllowed) } else { Ok(tenant) }
    }

    /// Whether the caller may do it with this tenant's data.
    pub fn decide(&self, caller: &Caller, tenant: &TenantId, question: Question<'_>) -> Verdict {
        self.state.load().decide(&caller.principal, &TenantScope::One(tenant.clone()), question)
    }

    /// Whether the caller may do it with the vault as a whole: read the log of all tenants, and of none. Only roles
    /// that are held everywhere count.
    pub fn decide_for_vault(&self, caller: &Caller, action: Action) -> Verdict {
        let question = Question { action, class: None, purpose: None, grant: None };
        self.state.load().decide(&caller.principal, &TenantScope::All, question)
    }

    /// What would be decided if a principal asked, whether it can call or not.
    pub fn explain(&self, principal: &Principal, place: &TenantScope, question: Question<'_>) -> Verdict {
        self.state.load().decide(principal, place, question)
    }

    /// By what a change makes more of somebody; empty: by nothing. `before`: `None` for one that is not there yet.
    pub fn widened(&self, before: Option<&Principal>, after: &Principal) -> Vec<&'static str> {
        widening::widened(&self.state.load().policies, before, after)
    }

    /// As it would be with other policies, and perhaps another file of principals.
    #[must_use]
    pub fn with(&self, directory: Option<Directory>, policies: Policies) -> Self {
        let state = self.state.load();
        let configured = directory.map_or_else(|| Arc::clone(&state.configured), Arc::new);
        let state = State::new(1, configured, Arc::clone(&state.provisioned), Arc::new(policies));
        Self { state: ArcSwap::from_pointee(state), looks: Looks::default() }
    }

    /// The policies that are in force, as they were written.
    pub fn policies(&self) -> String {
        self.state.load().policies.text().to_owned()
    }

    /// Whether there is anybody who may change principals: a person who can call, at some tenant or everywhere. Without one
    /// nobody could mend what is wrong with principals.
    pub fn has_admin(&self, now: Timestamp) -> bool {
        let state = self.state.load();
        let question = Question { action: Action::PrincipalChange, class: None, purpose: None, grant: None };
        let can_call = |principal: &&Arc<Principal>| {
            principal.kind == PrincipalKind::Human
                && principal.enabled
                && principal.expires.is_none_or(|expires| now < expires)
        };
        state.directory.principals().filter(can_call).any(|principal| {
            principal.roles.keys().any(|place| state.decide(principal, place, question).allowed)
        })
    }

    /// Sorts records out: one verdict for each, in order, and a permit for the allowed ones, in order. A record of
    /// another tenant than `tenant` is never allowed.
    pub fn permit<A: OpenAction>(
        &self,
        caller: &Caller,
        request: RequestId,
        tenant: &TenantId,
        purpose: Option<Purpose>,
        records: Vec<Record>,
    ) -> (Permit<A>, Vec<Verdict>) {
        self.sort_out(caller, request, tenant, (purpose, None), records)
    }

    /// As [`Access::permit`], for values under a grant of break-glass. What the grant is not about is never allowed.
    pub fn permit_under(
        &self,
        caller: &Caller,
        request: RequestId,
        tenant: &TenantId,
        using: &GrantUse,
        records: Vec<Record>,
    ) -> (Permit<Detokenize>, Vec<Verdict>) {
        let asked = (Some(Purpose::BreakTheGlass), Some(using));
        self.sort_out(caller, request, tenant, asked, records)
    }

    fn sort_out<A: OpenAction>(
        &self,
        caller: &Caller,
        request: RequestId,
        tenant: &TenantId,
        (purpose, using): (Option<Purpose>, Option<&GrantUse>),
        records: Vec<Record>,
    ) -> (Permit<A>, Vec<Verdict>) {
        let state = self.state.load();
        let place = TenantScope::One(tenant.clone());
        // A request has many records of few classes.
        let mut by_class: Vec<(ClassName, Verdict)> = Vec::new();
        let mut verdicts = Vec::with_capacity(records.len());
        let mut allowed = Vec::with_capacity(records.len());
        for record in records {
            let verdict = if record.tenant != *tenant || using.is_some_and(|using| !using.covers(&record)) {
                Verdict::foreign()
            } else if let Some((_, verdict)) = by_class.iter().find(|(class, _)| *class == record.class) {
                verdict.clone()
            } else {
                let grant = using.map(GrantUse::seen);
                let question = Question { action: A::ACTION, class: Some(&record.class), purpose, grant };
                let verdict = state.decide(&caller.principal, &place, question);
                by_class.push((record.class.clone(), verdict.clone()));
                verdict
            };
            if verdict.allowed {
                allowed.push(record);
            }
            verdicts.push(verdict);
        }
        let used = by_class.iter().filter(|(_, verdict)| verdict.allowed);
        let policies: BTreeSet<_> = used.flat_map(|(_, verdict)| verdict.policies.iter().cloned()).collect();
        (Permit::new(request, allowed, policies), verdicts)
    }

    /// How much of a value the caller's masks show.
    pub fn mask_view(&self, caller: &Caller, tenant: &TenantId) -> MaskView {
        let question = Question { action: Action::MaskYear, class: None, purpose: None, grant: None };
        if self.decide(caller, tenant, question).allowed { MaskView::Year } else { MaskView::Standard }
    }
}

/// When the store was last asked who is provisioned. Never, where nobody asks: there all principals are configured.
struct Looks {
    begin: Instant,
    /// Milliseconds after `begin`, and 1.
    last: AtomicU64,
}

/// So long after the last look nobody is let in: an instance that does not hear of changes must not go on by old ones.
const STALE: Duration = Duration::from_secs(5);

impl Default for Looks {
    fn default() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Looks {
    fn note(&self, moment: u64) {
        self.last.fetch_max(moment + 1, Ordering::AcqRel);
    }

    fn are_stale(&self, now: u64) -> bool {
        let last = self.last.load(Ordering::Acquire);
        last > 0 && now + 1 > last + STALE.as_millis() as u64
    }

    fn elapsed(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }
}

/// What is in force, and what it has decided so far.
struct State {
    generation: u64,
    configured: Arc<Directory>,
    provisioned: Arc<[Arc<Principal>]>,
    /// Both.
    directory: Arc<Directory>,
    policies: Arc<Policies>,
    decisions: Decisions,
}

impl State {
    fn new(
        generation: u64,
        configured: Arc<Directory>,
        provisioned: Arc<[Arc<Principal>]>,
        policies: Arc<Policies>,
    ) -> Self {
        let (directory, clashing) = configured.with(&provisioned);
        if !clashing.is_empty() {
            tracing::error!(principals = ?clashing, "left out: the configuration's file has their ids or identities");
        }
        let directory = Arc::new(directory);
        Self { generation, configured, provisioned, directory, policies, decisions: Decisions::default() }
    }

    /// The one principal that a credential names, and by which of its identities.
    fn named_by<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> Result<(&'a Arc<Principal>, &'a str), Unauthenticated> {
        let mut named: Option<(&Arc<Principal>, &str)> = None;
        for identity in &credential.identities {
            let Some(principal) = self.directory.by_identity(identity) else { continue };
            match named {
                Some((other, _)) if other.id != principal.id => return Err(Unauthenticated::Ambiguous),
                Some(_) => {}
                None => named = Some((principal, identity)),
            }
        }
        named.ok_or(Unauthenticated::Unknown)
    }

    fn decide(&self, principal: &Principal, place: &TenantScope, question: Question<'_>) -> Verdict {
        let roles = principal.roles_at(place);
        if roles.is_empty() {
            return Verdict::foreign();
        }
        let asked = Asked {
            principal: principal.id.clone(),
            kind: principal.kind,
            roles,
            place: place.clone(),
            action: question.action,
            class: question.class.cloned(),
            purpose: question.purpose,
            grant: question.grant,
        };
        self.decisions.get_or_decide(asked, |asked| self.policies.evaluate(asked))
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
