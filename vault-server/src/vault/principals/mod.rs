//! Who may call, as admins steer it. An admin of a tenant gives and takes roles there, and nothing else of who has roles at
//! other tenants, too; nobody changes what it is itself. What makes more of somebody waits for another admin ([`approve`]).

mod approve;
mod propose;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::access::{
    Action, AlertKind, Caller, Directory, EnrolledKey, Principal, PrincipalKind, Proposed, Role, TenantScope,
    generation_place, next_generation, principal_place, read_principal, state_hash, write_principal,
};
use crate::audit::{AuditAction, Draft};
use crate::domain::{Entity, EntityKind, EntityScope, PrincipalId, TenantId, Timestamp};
use crate::store::{EntityRow, StoreError, Write};

use super::{Context, Note, Problem, Refused, Vault, whole};
use shown::{Differences, difference, seen_at, shown};

pub use approve::{Approved, ProposalNamed};
pub use propose::KnownProposal;

/// What holds for changes of who may.
#[derive(Debug, Clone, Copy)]
pub struct PeopleRules {
    /// Whether what makes more of somebody needs a second person.
    pub second_person: bool,
    /// For how long it waits for one.
    pub wait: Duration,
}

/// What became of a change that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It is made.
    Made(T),
    /// It waits for another person.
    Waits(Box<KnownProposal>),
}

/// A principal, as far as who asks may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPrincipal {
    /// The principal.
    pub principal: Arc<Principal>,
    /// Of its roles those that are shown.
    pub roles: BTreeMap<TenantScope, BTreeSet<Role>>,
    /// Its security keys that are in force, where they were asked for.
    pub keys: Vec<EnrolledKey>,
}

/// A principal as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalAsked {
    /// Which.
    pub id: PrincipalId,
    /// Program or person; does not change.
    pub kind: PrincipalKind,
    /// Canonical, and no two the same.
    pub identities: BTreeSet<String>,
    /// No set in it is empty.
    pub roles: BTreeMap<TenantScope, BTreeSet<Role>>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// From when on it may not call any more.
    pub expires: Option<Timestamp>,
    /// Of the state that was seen; `None` to make a new one.
    pub seen: Option<u64>,
}

/// What whoever changes principals must be allowed to do.
const CHANGE: Action = Action::PrincipalChange;
/// How often a change is tried against others.
const ATTEMPTS: usize = 16;
/// Principals that are read at once.
const PAGE: usize = 1000;
/// So many may be provisioned: each instance reads all of them after a change.
const MOST: usize = 10_000;
/// So much may change at once: it must stand in the log's entry as a whole.
const MAX_CHANGE: usize = 500;

impl Vault {
    /// Who calls.
    pub async fn who_am_i(&self, cx: &Context) -> Result<KnownPrincipal, Refused> {
        let draft =
            Draft::new(cx.request, AuditAction::WhoAmI, crate::audit::Actor::caller_of_vault(&cx.caller));
        self.parts.log.record(draft, Vec::new()).await?;
        let principal = Arc::clone(&cx.caller.principal);
        // Programs have none.
        let keys = match principal.kind {
            PrincipalKind::Human => self.security_keys_of(&principal.id).await?,
            PrincipalKind::Service => Vec::new(),
        };
        Ok(KnownPrincipal { roles: principal.roles.clone(), principal, keys })
    }

    /// Those who have a role at a tenant, or all (`*`), by id.
    pub async fn list_principals(&self, cx: &Context, tenant: &str) -> Result<Vec<KnownPrincipal>, Refused> {
        const ACTION: AuditAction = AuditAction::PrincipalRead;
        let (tenant, draft, ()) =
            self.asked_of_place(cx, ACTION, Action::PrincipalRead, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let directory = self.parts.access.directory();
        let mut keys = self.security_keys().await?;
        let known = directory.principals().map(|principal| {
            let keys = keys.remove(&principal.id).unwrap_or_default();
            KnownPrincipal { keys, ..shown(principal, tenant.as_ref()) }
        });
        Ok(known.filter(|known| tenant.is_none() || !known.roles.is_empty()).collect())
    }

    /// Provisions a principal, or changes one. In force here when this returns, elsewhere within a second.
    pub async fn put_principal(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<PrincipalAsked, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Outcome<KnownPrincipal>, Refused> {
        let checked = asked.and_then(|asked| Ok((asked, note?)));
        let (tenant, mut draft, (asked, note)) = self.asked_to_change(cx, tenant, checked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("principal", asked.id.to_string()));
        let change = |before: Option<&Principal>| self.changed(&cx.caller, tenant.as_ref(), &asked, before);
        self.change_principal(cx, &asked.id, draft, Problem::Taken, change).await
    }

    /// Disables or enables a principal; to enable one makes more of it. In force here when this returns, elsewhere within a second.
    pub async fn set_principal_state(
        &self,
        cx: &Context,
        tenant: &str,
        id: Result<PrincipalId, Refused>,
        enabled: bool,
        note: Result<Note, Refused>,
    ) -> Result<Outcome<KnownPrincipal>, Refused> {
        let checked = id.and_then(|id| Ok((id, note?)));
        let (tenant, mut draft, (id, note)) = self.asked_to_change(cx, tenant, checked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("principal", id.to_string()));
        let change = |before: Option<&Principal>| {
            let before = before.filter(|before| seen_at(before, tenant.as_ref()));
            let before = before.ok_or_else(|| Problem::NotFound.at("id"))?;
            // It is disabled as a whole, for other tenants too. Who is admin at one takes its roles there.
            if !self.answers_for(&cx.caller.principal, CHANGE, before) {
                return Err(Problem::ActionNotAllowed.whole());
            }
            Ok(Principal { enabled, ..before.clone() })
        };
        self.change_principal(cx, &id, draft, Problem::NotFound, change).await
    }

    async fn asked_to_change<T>(
        &self,
        cx: &Context,
        tenant: &str,
        fields: Result<T, Refused>,
    ) -> Result<(Option<TenantId>, Draft, T), Refused> {
        self.asked_of_place(cx, AuditAction::PrincipalChange, CHANGE, tenant, fields).await
    }

    /// Changes one principal, or makes it, in one commit with the entry and an alert; or has it wait for another person, if it
    /// makes more of it. Changes come one after another: each is decided on all principals as they stand at its commit.
    /// `hidden`: what is told of one that the caller may not see.
    async fn change_principal(
        &self,
        cx: &Context,
        id: &PrincipalId,
        mut draft: Draft,
        hidden: Problem,
        change: impl Fn(Option<&Principal>) -> Result<Principal, Refused>,
    ) -> Result<Outcome<KnownPrincipal>, Refused> {
        let tenant = draft.tenant.clone();
        let configured = self.parts.access.configured();
        let caller = &cx.caller.principal;
        let refused = if *id == caller.id || caller.kind != PrincipalKind::Human {
            Some(Problem::SecondPerson.whole())
        } else {
            let listed = configured.principal(id);
            listed.map(|listed| {
                if seen_at(listed, tenant.as_ref()) { Problem::Configured } else { hidden.clone() }.at("id")
            })
        };
        if let Some(refused) = refused {
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        // A row that the vault did not write stands there until somebody removes it.
        if let Err(StoreError::Corrupt { .. }) = self.parts.store.entity(&principal_place(id)).await {
            let refused = Problem::RecordCorrupt.at("id");
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        for _ in 0..ATTEMPTS {
            let generation = self.parts.store.entity(&generation_place()).await?;
            let all = self.provisioned().await?;
            let before = all.iter().find(|principal| principal.id == *id);
            let (after, changes) = match self.decided(caller, &all, before, tenant.as_ref(), &change) {
                Ok(decided) => decided,
                Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
            };
            draft.details.retain(|(name, _)| *name == "principal");
            draft.details.extend(changes);
            let widened = self.parts.access.widened(before, &after);
            if !widened.is_empty() {
                draft.details.push(("widens", widened.join(" ")));
                if self.parts.people.second_person {
                    let change =
                        Proposed::Principal { after: Box::new(after), before: before.map(state_hash) };
                    match self.propose(cx, draft.clone(), change, generation.as_ref()).await? {
                        Some(proposal) => return Ok(Outcome::Waits(Box::new(proposal))),
                        None => continue,
                    }
                }
                draft.details.push(("second_person", "not_asked_for".to_owned()));
            }
            let alert =
                self.alert(cx, AlertKind::PrincipalChanged, tenant.clone(), None, draft.details.clone())?;
            let writes = vec![Write::PutEntity(write_principal(&after)), alert];
            if self.commit_change(draft.clone(), generation.as_ref(), writes, Vec::new()).await? {
                return Ok(Outcome::Made(shown(&Arc::new(after), tenant.as_ref())));
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// What a principal becomes, and what is other about it then: as all of them stand.
    fn decided(
        &self,
        caller: &Principal,
        all: &[Principal],
        before: Option<&Principal>,
        tenant: Option<&TenantId>,
        change: impl Fn(Option<&Principal>) -> Result<Principal, Refused>,
    ) -> Result<(Principal, Differences), Refused> {
        if is_outdated(caller, &self.parts.access.configured(), all) {
            return Err(Problem::ChangedMeanwhile.whole());
        }
        if before.is_none() && all.len() >= MOST {
            return Err(Problem::Field("one of 10,000: there are as many").at("id"));
        }
        let mut after = change(before)?;
        if !self.are_free(&after, all) {
            return Err(Problem::Taken.at("identities"));
        }
        after.revision = Some(before.and_then(|before| before.revision).map_or(0, |revision| revision + 1));
        let changes = difference(before, &after, tenant);
        if changes.iter().any(|(_, change)| change.len() > MAX_CHANGE) {
            return Err(Problem::Field("one that changes less at once").at("principal"));
        }
        Ok((after, changes))
    }

    /// Whether a principal's identities are nobody else's.
    fn are_free(&self, principal: &Principal, all: &[Principal]) -> bool {
        let configured = self.parts.access.configured();
        principal.identities.iter().all(|identity| {
            let others = all.iter().filter(|other| other.id != principal.id);
            configured.by_identity(identity).is_none()
                && !others.into_iter().any(|other| other.identities.contains(identity))
        })
    }

    /// Writes a change of principals as the one after `generation`, and takes it up here; `touch`: what uses the touch up that it
    /// was approved by. `false`: somebody else was faster.
    async fn commit_change(
        &self,
        draft: Draft,
        generation: Option<&Entity>,
        mut writes: Vec<Write>,
        touch: Vec<Write>,
    ) -> Result<bool, Refused> {
        let next = next_generation(generation).map_err(|_| Problem::Internal.whole())?;
        writes.push(Write::PutEntity(next));
        let made = self.commit_touched(draft, Vec::new(), writes, touch).await?;
        if made {
            self.parts.provisioning.look().await?;
        }
        Ok(made)
    }

    /// What becomes of a principal that shall be as `asked`, by an admin of `tenant`, or of the vault.
    fn changed(
        &self,
        caller: &Caller,
        tenant: Option<&TenantId>,
        asked: &PrincipalAsked,
        before: Option<&Principal>,
    ) -> Result<Principal, Refused> {
        let scope =
            |place: &TenantScope| tenant.is_none_or(|tenant| *place == TenantScope::One(tenant.clone()));
        if !asked.roles.keys().all(scope) {
            return Err(Problem::Field("of the tenant that is acted for, and no other").at("roles"));
        }
        let wanted = Principal {
            id: asked.id.clone(),
            kind: asked.kind,
            identities: asked.identities.clone(),
            roles: asked.roles.clone(),
            owner: asked.owner.clone(),
            enabled: true,
            expires: asked.expires,
            revision: None,
        };
        let after = match before {
            None if asked.seen.is_some() => return Err(Problem::NotFound.at("id")),
            None => wanted,
            // To who may not see it, it is a name that is taken.
            Some(before) if asked.seen.is_none() || !seen_at(before, tenant) => {
                return Err(Problem::Taken.at("id"));
            }
            // What somebody is everywhere is not to be made less of at one tenant.
            Some(before) if tenant.is_some() && before.roles.contains_key(&TenantScope::All) => {
                return Err(Problem::ActionNotAllowed.whole());
            }
            Some(before) if before.revision != asked.seen => return Err(Problem::ChangedMeanwhile.whole()),
            Some(before) if before.kind != asked.kind => {
                return Err(Problem::Field("as it was: a program does not become a person").at("kind"));
            }
            Some(before) => {
                let mut roles = before.roles.clone();
                roles.retain(|place, _| !scope(place));
                roles.extend(asked.roles.clone());
                let after = Principal { roles, enabled: before.enabled, ..wanted };
                if is_changed_as_a_whole(before, &after)
                    && !self.answers_for(&caller.principal, CHANGE, before)
                {
                    return Err(Problem::ActionNotAllowed.whole());
                }
                after
            }
        };
        if after.roles.is_empty() {
            return Err(Problem::Field("at least one: to cut a principal off, disable it").at("roles"));
        }
        Ok(after)
    }

    /// Whether somebody may change principals (or approve that) wherever this one has a role.
    pub(super) fn answers_for(&self, who: &Principal, action: Action, principal: &Principal) -> bool {
        let may = |place: &TenantScope| self.parts.access.explain(who, place, whole(action, None)).allowed;
        may(&TenantScope::All) || principal.roles.keys().all(|place| *place != TenantScope::All && may(place))
    }

    /// All that the store has, as it stands now. Whose row the vault did not write is nobody.
    async fn provisioned(&self) -> Result<Vec<Principal>, Refused> {
        let scope = EntityScope::Kind(EntityKind::Principal);
        let mut principals = Vec::new();
        let mut after = None;
        loop {
            let page = self.parts.store.entity_rows(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(principals) };
            after = Some(last.place().clone());
            for entity in page.into_iter().filter_map(EntityRow::sound) {
                principals.extend(read_principal(&entity).map_err(|error| {
                    tracing::error!(place = ?entity.place, %error, "principals can't be changed");
                    Problem::Internal.whole()
                })?);
            }
        }
    }
}

/// Whether it is another as a whole, and not only by its roles somewhere.
fn is_changed_as_a_whole(before: &Principal, after: &Principal) -> bool {
    let as_a_whole = |p: &Principal| (p.identities.clone(), p.owner.clone(), p.expires, p.enabled);
    as_a_whole(before) != as_a_whole(after)
}

/// Whether a caller is not any more what it was when it was let in: whoever was changed or disabled a moment ago, or whose row
/// the vault did not write, changes nobody. Those of the configuration's file are what the file says.
fn is_outdated(caller: &Principal, configured: &Directory, all: &[Principal]) -> bool {
    let now = match caller.revision {
        None => configured.principal(&caller.id).map(|now| &**now),
        Some(_) => all.iter().find(|principal| principal.id == caller.id),
    };
    now != Some(caller)
}
