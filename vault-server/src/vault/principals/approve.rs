//! Approves and rejects changes that make more of somebody: another person than who asked for them.

use std::sync::Arc;

use crate::access::{
    Action, AlertKind, EnrolledKey, Party, Principal, PrincipalKind, Proposal, ProposalRefusal, Proposed,
    TenantScope, generation_place, write_principal,
};
use crate::audit::{AuditAction, Draft, LogError};
use crate::domain::{Entity, EntityKind, EntityScope, ProposalId, SecondFactorAction, TenantId};
use crate::store::Write;
use crate::vault::{GivenFactor, Touch, whole};

use super::propose::stands;
use super::{
    ATTEMPTS, CHANGE, Context, KnownPrincipal, Note, Problem, Refused, Vault, difference,
    is_changed_as_a_whole, is_outdated, shown,
};

/// A change that is to be answered.
pub struct ProposalNamed {
    /// Which.
    pub id: ProposalId,
    /// For an approval: the SHA-256 of what was seen.
    pub hash: Vec<u8>,
    /// What the caller says about it.
    pub note: Note,
    /// For an approval: the second factor, if one came.
    pub factor: Option<GivenFactor>,
}

/// What was approved, and is so from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approved {
    /// A principal.
    Principal(KnownPrincipal),
    /// A security key.
    SecurityKey(Box<EnrolledKey>),
}

/// What an approval is decided on: all of it as it stands at the commit.
struct Standing {
    generation: Option<Entity>,
    all: Vec<Principal>,
    proposal: Proposal,
    revision: u64,
}

impl Vault {
    /// Approves a change, and so makes it, by a touch of the caller's security key if it ever had one. In force here when this
    /// returns, elsewhere within a second.
    pub async fn approve_principal_change(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<ProposalNamed, Refused>,
    ) -> Result<Approved, Refused> {
        const ACTION: AuditAction = AuditAction::PrincipalApprove;
        let (tenant, mut draft, ProposalNamed { id, hash, note, factor }) =
            self.asked_of_place(cx, ACTION, Action::PrincipalApprove, tenant, asked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("proposal", id.to_string()));
        if cx.caller.principal.kind != PrincipalKind::Human {
            return Err(self.log_refusal(draft, Vec::new(), Problem::SecondPerson.whole()).await);
        }
        // What would be refused anyway is refused before a touch is used up.
        let (_, about) = self.approvable(cx, tenant.as_ref(), (id, &hash), &draft).await?;
        let action = SecondFactorAction::PrincipalChangeApprove;
        let touch = self.touched_by_approver(cx, &about, action, factor).await?;
        draft.details.extend(touch.iter().map(|touch| ("security_key", touch.key().to_owned())));
        let touch = touch.map(Touch::into_writes).unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let (standing, draft) = self.approvable(cx, tenant.as_ref(), (id, &hash), &draft).await?;
            if let Some(approved) = self.make(cx, tenant.as_ref(), standing, draft, touch.clone()).await? {
                return Ok(approved);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// A change that the caller may approve as it stands and as it was seen (its hash).
    async fn approvable(
        &self,
        cx: &Context,
        tenant: Option<&TenantId>,
        (id, hash): (ProposalId, &[u8]),
        draft: &Draft,
    ) -> Result<(Standing, Draft), Refused> {
        let (standing, draft) = self.standing(cx, tenant, id, draft).await?;
        match self.may_approve(cx, &standing, hash) {
            Ok(()) => Ok((standing, draft)),
            Err(refusal) => Err(self.not_approved(draft, refusal).await),
        }
    }

    /// Rejects a change that waits, or takes one's own back.
    pub async fn reject_principal_change(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<ProposalNamed, Refused>,
    ) -> Result<(), Refused> {
        const ACTION: AuditAction = AuditAction::PrincipalReject;
        let (tenant, mut draft, ProposalNamed { id, note, .. }) =
            self.asked_of_place(cx, ACTION, Action::PrincipalApprove, tenant, asked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("proposal", id.to_string()));
        for _ in 0..ATTEMPTS {
            let (standing, draft) = self.standing(cx, tenant.as_ref(), id, &draft).await?;
            let Standing { generation, proposal, revision, .. } = standing;
            let place = Proposal::place(proposal.tenant.as_ref(), id);
            let writes = vec![Write::DropEntity { place, revision }, stands(generation.as_ref())];
            match self.parts.log.commit(draft, Vec::new(), writes).await {
                Ok(_) => return Ok(()),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// A change as it stands, and who may call as that stands; the entry of what is to be done about it.
    async fn standing(
        &self,
        cx: &Context,
        tenant: Option<&TenantId>,
        id: ProposalId,
        draft: &Draft,
    ) -> Result<(Standing, Draft), Refused> {
        let generation = self.parts.store.entity(&generation_place()).await?;
        let all = self.provisioned().await?;
        if is_outdated(&cx.caller.principal, &self.parts.access.configured(), &all) {
            let refused = Problem::ChangedMeanwhile.whole();
            return Err(self.log_refusal(draft.clone(), Vec::new(), refused).await);
        }
        let scope = match tenant {
            None => EntityScope::Kind(EntityKind::Proposal),
            Some(tenant) => EntityScope::Tenant(EntityKind::Proposal, Some(tenant.clone())),
        };
        let found = self.proposals(&scope).await?.into_iter().find(|(proposal, _)| proposal.id == id);
        let Some((proposal, revision)) = found else {
            return Err(self.log_refusal(draft.clone(), Vec::new(), Problem::NotFound.at("id")).await);
        };
        let mut draft = draft.clone();
        draft.details.extend([
            ("principal", proposal.change.principal().to_string()),
            ("asked_by", proposal.asker.principal.to_string()),
            ("asked_in", proposal.request.to_string()),
        ]);
        Ok((Standing { generation, all, proposal, revision }, draft))
    }

    /// Whether the caller may approve it, and who asked may still ask for it.
    fn may_approve(&self, cx: &Context, standing: &Standing, hash: &[u8]) -> Result<(), ProposalRefusal> {
        let Standing { all, proposal, .. } = standing;
        let now = self.parts.clock.now();
        proposal.may_approve(&Party::of(&cx.caller), hash, now)?;
        let asker = self.as_it_is(all, &proposal.asker.principal).filter(|asker| {
            let can_call = asker.enabled && asker.expires.is_none_or(|expires| now < expires);
            can_call && asker.kind == PrincipalKind::Human
        });
        let asker = asker.ok_or(ProposalRefusal::Asker)?;
        let before = self.as_it_is(all, proposal.change.principal());
        if !self.may_make(&asker, CHANGE, proposal, before.as_deref()) {
            return Err(ProposalRefusal::Asker);
        }
        let free = match &proposal.change {
            Proposed::Principal { after, .. } => {
                proposal.is_of(before.as_deref().filter(|before| before.revision.is_some()))
                    && before.as_ref().is_none_or(|before| before.revision.is_some())
                    && self.are_free(after, all)
            }
            Proposed::SecurityKey { .. } => before.is_some(),
        };
        if !free {
            return Err(ProposalRefusal::Superseded);
        }
        if !self.may_make(&cx.caller.principal, Action::PrincipalApprove, proposal, before.as_deref()) {
            return Err(ProposalRefusal::Approver);
        }
        Ok(())
    }

    /// A principal as it is at this commit: of the store, or of the configuration's file.
    fn as_it_is(&self, all: &[Principal], id: &crate::domain::PrincipalId) -> Option<Arc<Principal>> {
        let configured = self.parts.access.configured();
        let provisioned = || all.iter().find(|principal| principal.id == *id).cloned().map(Arc::new);
        configured.principal(id).cloned().or_else(provisioned)
    }

    /// Whether somebody may do (ask for, approve) what a change does.
    fn may_make(
        &self,
        who: &Principal,
        action: Action,
        proposal: &Proposal,
        before: Option<&Principal>,
    ) -> bool {
        let place = proposal.tenant.clone().map_or(TenantScope::All, TenantScope::One);
        let there = self.parts.access.explain(who, &place, whole(action, None)).allowed;
        let as_a_whole = match (&proposal.change, before) {
            (Proposed::Principal { after, .. }, Some(before)) => is_changed_as_a_whole(before, after),
            (Proposed::Principal { .. }, None) => false,
            (Proposed::SecurityKey { .. }, _) => true,
        };
        there && (!as_a_whole || before.is_some_and(|before| self.answers_for(who, action, before)))
    }

    /// Makes the change, in one commit with the entry and an alert. `None`: something was changed meanwhile; look again.
    async fn make(
        &self,
        cx: &Context,
        tenant: Option<&TenantId>,
        standing: Standing,
        mut draft: Draft,
        touch: Vec<Write>,
    ) -> Result<Option<Approved>, Refused> {
        let Standing { generation, all, proposal, revision } = standing;
        let scope = proposal.tenant.clone();
        let gone = Write::DropEntity { place: Proposal::place(scope.as_ref(), proposal.id), revision };
        match proposal.change {
            Proposed::Principal { after, .. } => {
                let before = all.iter().find(|principal| principal.id == after.id);
                draft.details.extend(difference(before, &after, scope.as_ref()));
                let details = draft.details.clone();
                let alert = self.alert(cx, AlertKind::PrincipalChanged, scope, None, details)?;
                let writes = vec![gone, Write::PutEntity(write_principal(&after)), alert];
                let made = self.commit_change(draft, generation.as_ref(), writes, touch).await?;
                Ok(made.then(|| Approved::Principal(shown(&Arc::new(*after), tenant))))
            }
            Proposed::SecurityKey { principal, key, label } => {
                let by = proposal.asker.principal;
                let (enrolled, before) = match self.enrolled(&principal, *key, label, by).await? {
                    Ok(enrolled) => enrolled,
                    Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
                };
                let row = enrolled.entity(before).ok_or_else(|| Problem::Internal.whole())?;
                draft.details.push(("security_key", enrolled.key.fingerprint().to_string()));
                let details = draft.details.clone();
                let alert = self.alert(cx, AlertKind::SecurityKeyEnrolled, scope, None, details)?;
                let writes = vec![gone, Write::PutEntity(row), alert, stands(generation.as_ref())];
                let made = self.commit_touched(draft, Vec::new(), writes, touch).await?;
                Ok(made.then(|| Approved::SecurityKey(Box::new(enrolled))))
            }
        }
    }

    /// What can't be approved: on record with the true cause.
    async fn not_approved(&self, mut draft: Draft, refusal: ProposalRefusal) -> Refused {
        draft.details.push(("why", refusal.as_str().to_owned()));
        let refused = match refusal {
            ProposalRefusal::Expired => Problem::NotFound.at("id"),
            ProposalRefusal::SecondPerson => Problem::SecondPerson.whole(),
            ProposalRefusal::Content => Problem::ChangedMeanwhile.at("hash"),
            ProposalRefusal::Superseded | ProposalRefusal::Asker => Problem::ChangedMeanwhile.whole(),
            ProposalRefusal::Approver => Problem::ActionNotAllowed.whole(),
        };
        self.log_refusal(draft, Vec::new(), refused).await
    }
}
