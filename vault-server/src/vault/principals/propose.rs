//! Asks for a change that makes more of somebody, and shows those that wait.

use crate::access::{Action, AlertKind, Party, Principal, Proposal, Proposed, generation_place};
use crate::audit::{self, AuditAction, Draft, LogError};
use crate::domain::{Entity, EntityKind, EntityScope, ProposalId, TenantId, Timestamp};
use crate::store::{EntityRow, Write};

use super::{Context, KnownPrincipal, Problem, Refused, Vault, difference, shown};

/// A change that waits, as far as who asks may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProposal {
    /// The change.
    pub proposal: Proposal,
    /// The principal as it shall be, with the roles that are shown; `None`: it is about a security key.
    pub after: Option<KnownPrincipal>,
    /// What is other than now.
    pub differences: Vec<(&'static str, String)>,
    /// Whether the principal was changed since: then nobody can approve it.
    pub superseded: bool,
}

/// Rows that are read at once.
const PAGE: usize = 256;
/// So many changes of one asker may wait: somebody has to read them.
const MOST_WAITING: usize = 32;

impl Vault {
    /// Changes that wait at a tenant, or all (`*`), the oldest first.
    pub async fn list_principal_changes(
        &self,
        cx: &Context,
        tenant: &str,
    ) -> Result<Vec<KnownProposal>, Refused> {
        const ACTION: AuditAction = AuditAction::PrincipalRead;
        let (tenant, mut draft, ()) =
            self.asked_of_place(cx, ACTION, Action::PrincipalRead, tenant, Ok(())).await?;
        draft.details.push(("what", "changes".to_owned()));
        self.parts.log.record(draft, Vec::new()).await?;
        let all = self.provisioned().await?;
        let now = self.parts.clock.now();
        let mut waiting = self.proposals(&scope(tenant.as_ref())).await?;
        waiting.retain(|(proposal, _)| !proposal.is_over(now));
        waiting.sort_by_key(|(proposal, _)| (proposal.asked, proposal.id));
        Ok(waiting.into_iter().map(|(proposal, _)| known(proposal, &all, tenant.as_ref())).collect())
    }

    /// Has a change wait for another person, in one commit with the entry and an alert. What the same asker asked for already
    /// is answered as it is. `None`: who may call has changed meanwhile; decide again.
    pub(in crate::vault) async fn propose(
        &self,
        cx: &Context,
        mut draft: Draft,
        change: Proposed,
        generation: Option<&Entity>,
    ) -> Result<Option<KnownProposal>, Refused> {
        if let Some(name) = deceiving(&draft) {
            let refused = Problem::Field("printable characters in one line").at(name);
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        let tenant = draft.tenant.clone();
        let (asker, now) = (Party::of(&cx.caller), self.parts.clock.now());
        draft.action = AuditAction::PrincipalAsk;
        let mut waiting = self.proposals(&scope(tenant.as_ref())).await?;
        waiting.retain(|(waits, _)| !waits.is_over(now) && waits.asker.principal == asker.principal);
        let all = self.provisioned().await?;
        if let Some((same, _)) = waiting.iter().find(|(waits, _)| waits.change == change) {
            draft.details.push(("proposal", same.id.to_string()));
            self.parts.log.record(draft, Vec::new()).await?;
            return Ok(Some(known(same.clone(), &all, tenant.as_ref())));
        }
        if waiting.len() >= MOST_WAITING {
            let full = Problem::Field("by somebody of whose changes fewer than 32 wait: have some answered");
            return Err(self.log_refusal(draft, Vec::new(), full.at("principal")).await);
        }
        let wait = u64::try_from(self.parts.people.wait.as_micros()).unwrap_or(u64::MAX);
        let proposal = Proposal {
            id: ProposalId::random().map_err(|_| Problem::Internal.whole())?,
            tenant: tenant.clone(),
            asker,
            request: cx.request,
            asked: now,
            expires: Timestamp(now.0.saturating_add(wait)),
            change,
            reason: draft.reason.clone(),
            ticket: draft.ticket.clone(),
        };
        let row = proposal.entity().ok_or_else(|| Problem::Internal.whole())?;
        draft.details.push(("proposal", proposal.id.to_string()));
        draft.details.push(("expires_at_us", proposal.expires.0.to_string()));
        let details = draft.details.clone();
        let alert = self.alert(cx, AlertKind::PrincipalChangeAsked, tenant.clone(), None, details)?;
        // Whoever was changed or disabled a moment ago asks for nothing any more.
        let writes = vec![Write::PutEntity(row), alert, stands(generation)];
        match self.parts.log.commit(draft, Vec::new(), writes).await {
            Ok(_) => Ok(Some(known(proposal, &all, tenant.as_ref()))),
            Err(LogError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes changes away whose time is over; how many. Rows that others take at the same time are none of its business.
    pub async fn sweep_principal_changes(&self) -> Result<usize, Refused> {
        let mut swept = 0;
        for (proposal, revision) in self.proposals(&EntityScope::Kind(EntityKind::Proposal)).await? {
            if !proposal.is_over(self.parts.clock.now()) {
                continue;
            }
            let place = Proposal::place(proposal.tenant.as_ref(), proposal.id);
            match self.parts.log.write(vec![Write::DropEntity { place, revision }]).await {
                Ok(_) => swept += 1,
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(swept)
    }

    /// Those of a scope, with their revisions, also those whose time is over. One whose row is not what was written can't be
    /// approved: it is left out, and that is told.
    pub(super) async fn proposals(&self, scope: &EntityScope) -> Result<Vec<(Proposal, u64)>, Refused> {
        let (mut proposals, mut after) = (Vec::new(), None);
        loop {
            let page = self.parts.store.entity_rows(scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(proposals) };
            after = Some(last.place().clone());
            // One that the vault did not write was told when it was read.
            for entity in page.into_iter().filter_map(EntityRow::sound) {
                match Proposal::read(&entity) {
                    Ok(proposal) => proposals.push((proposal, entity.revision)),
                    Err(error) => tracing::error!(place = ?entity.place, %error, "left out"),
                }
            }
        }
    }
}

/// Which text could deceive who reads it and answers for what it read.
fn deceiving(draft: &Draft) -> Option<&'static str> {
    let texts = [("reason", &draft.reason), ("ticket", &draft.ticket)].into_iter();
    let mut texts = texts.chain(draft.details.iter().map(|(name, text)| (*name, text)));
    texts.find(|(_, text)| !audit::is_plain(text)).map(|(name, _)| name)
}

/// Those of a tenant; without one all there are.
fn scope(tenant: Option<&TenantId>) -> EntityScope {
    match tenant {
        None => EntityScope::Kind(EntityKind::Proposal),
        Some(tenant) => EntityScope::Tenant(EntityKind::Proposal, Some(tenant.clone())),
    }
}

/// All principals are as they were read with this generation.
pub(super) fn stands(generation: Option<&Entity>) -> Write {
    Write::Stands { place: generation_place(), revision: generation.map(|generation| generation.revision) }
}

/// As an admin of `tenant` (or of the vault) sees it.
fn known(proposal: Proposal, all: &[Principal], tenant: Option<&TenantId>) -> KnownProposal {
    let now = all.iter().find(|principal| principal.id == *proposal.change.principal());
    let superseded = !proposal.is_of(now);
    let (after, differences) = match &proposal.change {
        Proposed::Principal { after, .. } => {
            let principal = std::sync::Arc::new((**after).clone());
            (Some(shown(&principal, tenant)), difference(now, after, tenant))
        }
        Proposed::SecurityKey { key, .. } => {
            (None, vec![("security_key_given", key.fingerprint().to_string())])
        }
    };
    KnownProposal { proposal, after, differences, superseded }
}
