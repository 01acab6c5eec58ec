//! Security keys: enrolled for people by two other people, taken back by one of those or by their owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::{
    Action, AlertKind, Confirmation, EnrolledKey, Fingerprint, ListedKey, Principal, PrincipalKind, Proposed,
    Revoked, SecurityKey, TenantScope, generation_place,
};
use crate::audit::{Actor, AuditAction, Draft, LogError, is_plain};
use crate::domain::{
    EntityKind, EntityScope, PrincipalId, ProposalId, SecondFactorAction, TenantId, Timestamp,
};
use crate::store::Write;

use super::{Context, GivenFactor, Note, Problem, Refused, Vault};

/// A security key that is to be enrolled.
pub struct Enrollment {
    /// Whose.
    pub principal: PrincipalId,
    /// The key.
    pub key: SecurityKey,
    /// What people call it.
    pub label: String,
    /// What the caller says about it.
    pub note: Note,
}

/// A security key that is to be taken back.
pub struct Revocation {
    /// Whose.
    pub principal: PrincipalId,
    /// Which.
    pub key: Fingerprint,
    /// What the caller says about it.
    pub note: Note,
}

/// What is known of a key.
pub(super) struct KeyRow {
    /// The key, if it is somebody's, or was until it was taken back. One that the file does not list any more is nobody's.
    pub(super) known: Option<EnrolledKey>,
    /// The revision of its row, if it has one.
    pub(super) before: Option<u64>,
    /// The counter of its newest signature, whosever it was.
    counter: u32,
}

/// How often a change is tried against others who change the same key.
const ATTEMPTS: usize = 8;
/// Rows that are read with one look.
const PAGE: usize = 512;
/// Security keys of a principal that are in force.
const MOST_KEYS: usize = 16;

impl Vault {
    /// Enrolls a security key, or has that wait for another person. The same key for the same person again is answered as it is.
    pub async fn enroll_security_key(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<Enrollment, Refused>,
    ) -> Result<(EnrolledKey, Option<ProposalId>), Refused> {
        let (tenant, mut draft, asked) =
            self.asked(cx, AuditAction::SecurityKeyChange, Action::PrincipalChange, tenant, asked).await?;
        let Enrollment { principal, key, label, note } = asked;
        note.into_draft(&mut draft);
        let fingerprint = key.fingerprint();
        draft.details.extend(details("enroll", &principal, &fingerprint));
        let rule = Problem::Field("a key with a comment in one line, of which every character shows");
        let may = self.may_enroll(cx, &tenant, &principal);
        if let Err(refused) = may.and(is_plain(&label).then_some(()).ok_or_else(|| rule.at("public_key"))) {
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        for _ in 0..ATTEMPTS {
            let generation = self.parts.store.entity(&generation_place()).await?;
            let KeyRow { known, .. } = self.key_row(&fingerprint).await?;
            if let Some(known) = known.filter(|known| known.is_in_force_of(&principal)) {
                draft.details.push(("enrolled", "false".to_owned()));
                self.parts.log.record(draft, Vec::new()).await?;
                return Ok((known, None));
            }
            let by = cx.caller.principal.id.clone();
            let enrolled = self.enrolled(&principal, key.clone(), label.clone(), by).await?;
            let (enrolled, before) = match enrolled {
                Ok(enrolled) => enrolled,
                Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
            };
            if self.parts.people.second_person {
                let (principal, key, label) = (principal.clone(), Box::new(key.clone()), label.clone());
                let change = Proposed::SecurityKey { principal, key, label };
                match self.propose(cx, draft.clone(), change, generation.as_ref()).await? {
                    Some(waits) => return Ok((enrolled, Some(waits.proposal.id))),
                    None => continue,
                }
            }
            let row = enrolled.entity(before).ok_or_else(|| Problem::Internal.whole())?;
            let mut draft = draft.clone();
            draft.details.push(("second_person", "not_asked_for".to_owned()));
            let about = draft.details.clone();
            let alert = self.alert(cx, AlertKind::SecurityKeyEnrolled, tenant.clone(), None, about)?;
            match self.parts.log.commit(draft, Vec::new(), vec![Write::PutEntity(row), alert]).await {
                Ok(_) => return Ok((enrolled, None)),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// A key as it is once it is enrolled, and the revision of the row that it takes the place of. Refused: it is another's, or
    /// one that was taken back, which stays so; or its owner has too many.
    pub(super) async fn enrolled(
        &self,
        principal: &PrincipalId,
        key: SecurityKey,
        label: String,
        by: PrincipalId,
    ) -> Result<Result<(EnrolledKey, Option<u64>), Refused>, Refused> {
        let KeyRow { known, before, counter } = self.key_row(&key.fingerprint()).await?;
        if known.is_some() {
            return Ok(Err(Problem::Taken.at("public_key")));
        }
        if self.security_keys_of(principal).await?.len() >= MOST_KEYS {
            let full = Problem::Field("a person with fewer than 16 security keys: revoke one first");
            return Ok(Err(full.at("id")));
        }
        let enrolled = EnrolledKey {
            principal: principal.clone(),
            key,
            label,
            enrolled: self.parts.clock.now(),
            enrolled_by: Some(by),
            confirmed: Confirmation::Waits,
            revoked: None,
            counter,
        };
        Ok(Ok((enrolled, before)))
    }

    /// Shows that the caller has a security key that others enrolled for it: from now on it is a second factor.
    pub async fn confirm_security_key(
        &self,
        cx: &Context,
        asked: Result<(Fingerprint, Option<GivenFactor>), Refused>,
    ) -> Result<EnrolledKey, Refused> {
        let actor = Actor::caller_of_vault(&cx.caller);
        let mut draft = Draft::new(cx.request, AuditAction::SecurityKeyChange, actor);
        let (fingerprint, factor) = match asked {
            Ok(asked) => asked,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let owner = &cx.caller.principal.id;
        draft.details.extend(details("confirm", owner, &fingerprint));
        let known = self.key_row(&fingerprint).await?.known.filter(|known| known.is_in_force_of(owner));
        let Some(known) = known else {
            let refused = Problem::NotFound.at("fingerprint");
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        };
        if known.confirmed != Confirmation::Waits {
            draft.details.push(("confirmed", "false".to_owned()));
            self.parts.log.record(draft, Vec::new()).await?;
            return Ok(known);
        }
        let touch = self.touched(cx, &draft, SecondFactorAction::KeyConfirm, factor).await?;
        if touch.key() != fingerprint.to_string() {
            let refused = Problem::SecondFactor("second_factor_key_foreign").whole();
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        match self.parts.log.commit(draft.clone(), Vec::new(), touch.into_writes()).await {
            Ok(_) => {}
            Err(LogError::Conflict { .. }) => {
                let refused = Problem::SecondFactor("second_factor_used").whole();
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            }
            Err(error) => return Err(error.into()),
        }
        let confirmed = self.key_row(&fingerprint).await?.known;
        confirmed.ok_or_else(|| Problem::NotFound.at("fingerprint").logged())
    }

    /// Takes a security key back; for good. Also one of the configuration's file: what was lost can't wait for a file.
    pub async fn revoke_security_key(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<Revocation, Refused>,
    ) -> Result<(), Refused> {
        let action = AuditAction::SecurityKeyChange;
        let own = asked.as_ref().is_ok_and(|asked| asked.principal == cx.caller.principal.id);
        let (tenant, mut draft, asked) = if own {
            let tenant = self.tenant(cx, action, tenant).await?;
            let draft = cx.draft(action, &tenant);
            (tenant, draft, asked?)
        } else {
            self.asked(cx, action, Action::PrincipalChange, tenant, asked).await?
        };
        let Revocation { principal, key: fingerprint, note } = asked;
        note.into_draft(&mut draft);
        draft.details.extend(details("revoke", &principal, &fingerprint));
        if !own && let Err(refused) = self.answered_for(cx, &tenant, &principal) {
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        for _ in 0..ATTEMPTS {
            let KeyRow { known, before, .. } = self.key_row(&fingerprint).await?;
            let Some(known) = known.filter(|known| known.principal == principal) else {
                let refused = Problem::NotFound.at("fingerprint");
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            };
            let mut writes = Vec::new();
            if known.revoked.is_none() {
                let (by, at) = (cx.caller.principal.id.clone(), self.parts.clock.now());
                let revoked = EnrolledKey { revoked: Some(Revoked { by, at }), ..known };
                let row = revoked.entity(before).ok_or_else(|| Problem::Internal.whole())?;
                writes.push(Write::PutEntity(row));
            }
            match self.parts.log.commit(draft.clone(), Vec::new(), writes).await {
                Ok(_) => return Ok(()),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// What is known of a key: from its row, or from the configuration's file.
    pub(super) async fn key_row(&self, fingerprint: &Fingerprint) -> Result<KeyRow, Refused> {
        let place = EnrolledKey::place(fingerprint).ok_or_else(|| Problem::Internal.whole())?;
        let row = self.parts.store.entity(&place).await?;
        let listed = self.parts.access.listed_key(fingerprint);
        let Some(row) = row else {
            let known = listed.map(|listed| of_file(listed, self.parts.clock.now()));
            return Ok(KeyRow { known, before: None, counter: 0 });
        };
        let known = EnrolledKey::open(&row).ok_or_else(|| Problem::RecordCorrupt.whole())?;
        let holds = known.revoked.is_some() || stands(&known, listed.as_ref());
        let counter = known.counter;
        Ok(KeyRow { known: holds.then_some(known), before: Some(row.revision), counter })
    }

    /// A principal's keys that are in force, by fingerprint; those that are not confirmed yet, too.
    pub(super) async fn security_keys_of(
        &self,
        principal: &PrincipalId,
    ) -> Result<Vec<EnrolledKey>, Refused> {
        let mut keys = self.security_keys().await?;
        Ok(keys.remove(principal).unwrap_or_default())
    }

    /// Everybody's.
    pub(super) async fn security_keys(&self) -> Result<BTreeMap<PrincipalId, Vec<EnrolledKey>>, Refused> {
        let directory = self.parts.access.directory();
        let of = |principal: &Arc<Principal>| self.parts.access.listed_keys_of(&principal.id);
        let mut listed: Vec<_> = directory.principals().flat_map(of).collect();
        let scope = EntityScope::Tenant(EntityKind::SecurityKey, None);
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = self.parts.store.entity_rows(&scope, after.as_ref(), PAGE).await?;
            after = page.last().map(|row| row.place().clone());
            let is_last = page.len() < PAGE;
            for row in page {
                // Whosever it is: it is good for nothing, and keeps nobody else from using theirs.
                let place = row.place().clone();
                let Some(known) = row.sound().as_ref().and_then(EnrolledKey::open) else {
                    tracing::error!(?place, "a security key's row is not what was written");
                    continue;
                };
                let at = listed.iter().position(|listed| listed.key == known.key);
                let listed = at.map(|at| listed.swap_remove(at));
                if known.revoked.is_none() && stands(&known, listed.as_ref()) {
                    keys.push(known);
                }
            }
            if is_last {
                break;
            }
        }
        let now = self.parts.clock.now();
        keys.extend(listed.into_iter().map(|listed| of_file(listed, now)));
        keys.sort_by_key(|known| known.key.fingerprint());
        let mut of = BTreeMap::<_, Vec<_>>::new();
        for known in keys {
            of.entry(known.principal.clone()).or_default().push(known);
        }
        Ok(of)
    }

    /// Whether somebody has, or ever had, a security key that counted. Where none is found and there is a row that the vault did
    /// not write, that can't be said.
    pub(super) async fn ever_had_a_key(&self, principal: &PrincipalId) -> Result<bool, Refused> {
        if !self.parts.access.listed_keys_of(principal).is_empty() {
            return Ok(true);
        }
        let scope = EntityScope::Tenant(EntityKind::SecurityKey, None);
        let (mut after, mut unknown) = (None, false);
        loop {
            let page = self.parts.store.entity_rows(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place().clone());
            for row in page {
                match row.sound().as_ref().and_then(EnrolledKey::open) {
                    Some(known)
                        if known.principal == *principal && known.confirmed != Confirmation::Waits =>
                    {
                        return Ok(true);
                    }
                    Some(_) => {}
                    None => unknown = true,
                }
            }
        }
        if unknown { Err(Problem::RecordCorrupt.whole()) } else { Ok(false) }
    }

    /// Whether the caller may enroll keys for this person.
    fn may_enroll(&self, cx: &Context, tenant: &TenantId, principal: &PrincipalId) -> Result<(), Refused> {
        let of = self.answered_for(cx, tenant, principal)?;
        // A second factor that one gives oneself, or that a program gives, is none.
        if *principal == cx.caller.principal.id || cx.caller.principal.kind != PrincipalKind::Human {
            return Err(Problem::SecondPerson.whole());
        }
        if of.kind != PrincipalKind::Human {
            return Err(Problem::Field("a person: programs have no security keys").at("id"));
        }
        Ok(())
    }

    /// A principal that the caller may change as a whole: it has a role at this tenant, and the caller may change
    /// principals wherever it has one.
    fn answered_for(
        &self,
        cx: &Context,
        tenant: &TenantId,
        principal: &PrincipalId,
    ) -> Result<Arc<Principal>, Refused> {
        let place = TenantScope::One(tenant.clone());
        let of = self.parts.access.principal(principal).filter(|of| !of.roles_at(&place).is_empty());
        let of = of.ok_or_else(|| Problem::NotFound.at("id"))?;
        let who = &cx.caller.principal;
        if self.answers_for(who, Action::PrincipalChange, &of) {
            Ok(of)
        } else {
            Err(Problem::ActionNotAllowed.whole())
        }
    }
}

/// Whether a key's row is as good as it says: one that came with the file is good while the file lists it for the same
/// person.
fn stands(known: &EnrolledKey, listed: Option<&ListedKey>) -> bool {
    known.enrolled_by.is_some() || listed.is_some_and(|listed| listed.principal == known.principal)
}

/// A key of the file that has no row yet.
fn of_file(listed: ListedKey, now: Timestamp) -> EnrolledKey {
    let ListedKey { principal, key, label } = listed;
    EnrolledKey {
        principal,
        key,
        label,
        enrolled: now,
        enrolled_by: None,
        confirmed: Confirmation::NotAsked,
        revoked: None,
        counter: 0,
    }
}

fn details(change: &'static str, principal: &PrincipalId, key: &Fingerprint) -> [(&'static str, String); 3] {
    [("change", change.to_owned()), ("principal", principal.to_string()), ("security_key", key.to_string())]
}

#[cfg(test)]
#[path = "security_keys_tests.rs"]
mod tests;
