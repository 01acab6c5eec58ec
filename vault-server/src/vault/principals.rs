//! Who may call, as admins steer it. An admin of a tenant gives and takes roles there, and nothing else of who has roles at
//! other tenants, too; nobody changes what it is itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::access::{
    Action, AlertKind, Caller, Principal, PrincipalKind, Role, TenantScope, generation_place,
    next_generation, read_principal, write_principal,
};
use crate::audit::{AuditAction, Draft, LogError};
use crate::domain::{EntityKind, EntityScope, PrincipalId, TenantId, Timestamp};
use crate::store::{EntityRow, Write};

use super::{Context, Note, Problem, Refused, Vault, whole};

/// A principal, as far as who asks may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPrincipal {
    /// The principal.
    pub principal: Arc<Principal>,
    /// Of its roles those that are shown.
    pub roles: BTreeMap<TenantScope, BTreeSet<Role>>,
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
        Ok(KnownPrincipal { roles: principal.roles.clone(), principal })
    }

    /// Those who have a role at a tenant, or all (`*`), by id.
    pub async fn list_principals(&self, cx: &Context, tenant: &str) -> Result<Vec<KnownPrincipal>, Refused> {
        const ACTION: AuditAction = AuditAction::PrincipalRead;
        let (tenant, draft, ()) =
            self.asked_of_place(cx, ACTION, Action::PrincipalRead, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let directory = self.parts.access.directory();
        let known = directory.principals().map(|principal| shown(principal, tenant.as_ref()));
        Ok(known.filter(|known| tenant.is_none() || !known.roles.is_empty()).collect())
    }

    /// Provisions a principal, or changes one. In force here when this returns, elsewhere within a second.
    pub async fn put_principal(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<PrincipalAsked, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<KnownPrincipal, Refused> {
        let checked = asked.and_then(|asked| Ok((asked, note?)));
        let (tenant, mut draft, (asked, note)) = self.asked_to_change(cx, tenant, checked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("principal", asked.id.to_string()));
        let change = |before: Option<&Principal>| self.changed(&cx.caller, tenant.as_ref(), &asked, before);
        let after = self.change_principal(cx, &asked.id, draft, Problem::Taken, change).await?;
        Ok(shown(&Arc::new(after), tenant.as_ref()))
    }

    /// Disables or enables a principal. In force here when this returns, elsewhere within a second.
    pub async fn set_principal_state(
        &self,
        cx: &Context,
        tenant: &str,
        id: Result<PrincipalId, Refused>,
        enabled: bool,
        note: Result<Note, Refused>,
    ) -> Result<KnownPrincipal, Refused> {
        let checked = id.and_then(|id| Ok((id, note?)));
        let (tenant, mut draft, (id, note)) = self.asked_to_change(cx, tenant, checked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("principal", id.to_string()));
        let change = |before: Option<&Principal>| {
            let before = before.filter(|before| seen_at(before, tenant.as_ref()));
            let before = before.ok_or_else(|| Problem::NotFound.at("id"))?;
            // It is disabled as a whole, for other tenants too. Who is admin at one takes its roles there.
            if !self.answers_for(&cx.caller, before) {
                return Err(Problem::ActionNotAllowed.whole());
            }
            Ok(Principal { enabled, ..before.clone() })
        };
        let after = self.change_principal(cx, &id, draft, Problem::NotFound, change).await?;
        Ok(shown(&Arc::new(after), tenant.as_ref()))
    }

    async fn asked_to_change<T>(
        &self,
        cx: &Context,
        tenant: &str,
        fields: Result<T, Refused>,
    ) -> Result<(Option<TenantId>, Draft, T), Refused> {
        self.asked_of_place(cx, AuditAction::PrincipalChange, Action::PrincipalChange, tenant, fields).await
    }

    /// Changes one principal, or makes it, in one commit with the entry and an alert. Changes come one after another: each is
    /// decided on all principals as they stand at its commit. `hidden`: what is told of one that the caller may not see.
    async fn change_principal(
        &self,
        cx: &Context,
        id: &PrincipalId,
        mut draft: Draft,
        hidden: Problem,
        change: impl Fn(Option<&Principal>) -> Result<Principal, Refused>,
    ) -> Result<Principal, Refused> {
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
        for _ in 0..ATTEMPTS {
            let generation = self.parts.store.entity(&generation_place()).await?;
            let all = self.provisioned().await?;
            let before = all.iter().find(|principal| principal.id == *id);
            // Whoever was changed or disabled a moment ago changes nobody any more.
            let now = all.iter().find(|principal| principal.id == caller.id);
            let refused = if now.map_or(caller.revision.is_some(), |now| now != &**caller) {
                Some(Problem::ChangedMeanwhile.whole())
            } else {
                (before.is_none() && all.len() >= MOST)
                    .then(|| Problem::Field("one of 10,000: there are as many").at("id"))
            };
            if let Some(refused) = refused {
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            }
            let after = change(before).and_then(|after| {
                let free = |identity: &String| {
                    let others = all.iter().filter(|other| other.id != *id);
                    configured.by_identity(identity).is_none()
                        && !others.into_iter().any(|other| other.identities.contains(identity))
                };
                if after.identities.iter().all(free) {
                    Ok(after)
                } else {
                    Err(Problem::Taken.at("identities"))
                }
            });
            let mut after = match after {
                Ok(after) => after,
                Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
            };
            after.revision =
                Some(before.and_then(|before| before.revision).map_or(0, |revision| revision + 1));
            let changes = difference(before, &after, tenant.as_ref());
            if changes.iter().any(|(_, change)| change.len() > MAX_CHANGE) {
                let refused = Problem::Field("one that changes less at once").at("principal");
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            }
            draft.details.retain(|(name, _)| *name == "principal");
            draft.details.extend(changes);
            let generation = next_generation(generation.as_ref()).map_err(|_| Problem::Internal.whole())?;
            let details = draft.details.clone();
            let alert = self.alert(cx, AlertKind::PrincipalChanged, tenant.clone(), None, details)?;
            let writes = vec![Write::PutEntity(generation), Write::PutEntity(write_principal(&after)), alert];
            match self.parts.log.commit(draft.clone(), Vec::new(), writes).await {
                Ok(_) => {
                    self.parts.provisioning.look().await?;
                    return Ok(after);
                }
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
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
                let as_a_whole = |p: &Principal| (p.identities.clone(), p.owner.clone(), p.expires);
                if as_a_whole(before) != as_a_whole(&after) && !self.answers_for(caller, before) {
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

    /// Whether the caller may change principals wherever this one has a role.
    pub(super) fn answers_for(&self, caller: &Caller, principal: &Principal) -> bool {
        let access = &self.parts.access;
        let vault_wide = access.decide_for_vault(caller, Action::PrincipalChange).allowed;
        vault_wide
            || principal.roles.keys().all(|place| match place {
                TenantScope::All => false,
                TenantScope::One(tenant) => {
                    access.decide(caller, tenant, whole(Action::PrincipalChange, None)).allowed
                }
            })
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

/// With the roles that an admin of `tenant` (or of the vault) sees.
fn shown(principal: &Arc<Principal>, tenant: Option<&TenantId>) -> KnownPrincipal {
    let mut roles = principal.roles.clone();
    if let Some(tenant) = tenant {
        roles.retain(|place, _| *place == TenantScope::All || *place == TenantScope::One(tenant.clone()));
    }
    KnownPrincipal { principal: Arc::clone(principal), roles }
}

/// Whether an admin of `tenant` (or of the vault) has it in its list.
fn seen_at(principal: &Principal, tenant: Option<&TenantId>) -> bool {
    tenant.is_none_or(|tenant| !principal.roles_at(&TenantScope::One(tenant.clone())).is_empty())
}

/// What changed, for the log and an alert: of roles those at the tenant that is acted for, or all for an admin of the vault.
fn difference(
    before: Option<&Principal>,
    after: &Principal,
    tenant: Option<&TenantId>,
) -> Vec<(&'static str, String)> {
    let roles = |principal: &Principal| -> BTreeSet<String> {
        let mut roles = principal.roles.clone();
        roles.retain(|place, _| tenant.is_none_or(|tenant| *place == TenantScope::One(tenant.clone())));
        roles
            .iter()
            .flat_map(|(place, roles)| roles.iter().map(move |role| format!("{place}:{role}")))
            .collect()
    };
    let expiry = |principal: &Principal| -> BTreeSet<String> {
        [principal.expires.map_or_else(|| "never".to_owned(), |Timestamp(us)| us.to_string())].into()
    };
    let owner = |principal: &Principal| principal.owner.iter().cloned().collect::<BTreeSet<_>>();
    let enabled = |principal: &Principal| BTreeSet::from([principal.enabled.to_string()]);
    let identities = |principal: &Principal| principal.identities.clone();
    let mut details = vec![("change", if before.is_some() { "changed" } else { "provisioned" }.to_owned())];
    let mut add = |names: [&'static str; 2], of: &dyn Fn(&Principal) -> BTreeSet<String>| {
        let (old, new) = (before.map(of).unwrap_or_default(), of(after));
        for (name, mut there) in
            names.into_iter().zip([new.difference(&old).peekable(), old.difference(&new).peekable()])
        {
            if there.peek().is_some() {
                details.push((name, there.cloned().collect::<Vec<_>>().join(" ")));
            }
        }
    };
    add(["roles_given", "roles_taken"], &roles);
    add(["identities_given", "identities_taken"], &identities);
    add(["owner", "owner_before"], &owner);
    add(["expires_us", "expires_us_before"], &expiry);
    add(["enabled", "enabled_before"], &enabled);
    details
}
