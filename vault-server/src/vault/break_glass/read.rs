//! Shows grants: a tenant's to who may see others', to a requester its own.

use crate::access::{Action, Grant, GrantRefusal, GrantState};
use crate::audit::{AuditAction, Draft};
use crate::domain::{EntityKind, EntityPlace, EntityScope, GrantId, PrincipalId, TenantId};
use crate::vault::whole;

use super::{Context, Problem, Refused, Seen, Vault};

/// Which grants to list.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// Only those that wait, for approval or for review.
    pub waiting: bool,
    /// At most so many; 0: the default.
    pub limit: usize,
}

/// Rows that are read at once.
const PAGE: usize = 256;

impl Vault {
    /// The most grants that a list may have.
    pub const MOST_GRANTS: usize = 1000;
    /// How many it has without asking.
    pub const USUAL_GRANTS: usize = 100;

    /// Grants of a tenant, newest first.
    pub async fn list_grants(
        &self,
        cx: &Context,
        tenant: &str,
        listing: Listing,
    ) -> Result<Vec<Grant>, Refused> {
        let (tenant, mut draft, only) = self.may_see_grants(cx, tenant, None).await?;
        if listing.limit > Self::MOST_GRANTS {
            let refused = Problem::Field("at most 1,000").at("limit");
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        draft.details.push(("waiting", listing.waiting.to_string()));
        self.parts.log.record(draft, Vec::new()).await?;
        let mut grants = Vec::new();
        let scope = EntityScope::Tenant(EntityKind::Grant, Some(tenant.clone()));
        let mut after: Option<EntityPlace> = None;
        loop {
            let page = self.parts.store.entities(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place.clone());
            for entity in &page {
                let grant = Grant::read(entity).map_err(|_| Problem::RecordCorrupt.whole())?;
                let is_shown = only.as_ref().is_none_or(|who| grant.terms().requester.principal == *who);
                if !is_shown {
                    continue;
                }
                let grant = match self.due(&grant) {
                    None => grant,
                    Some(over) => self.look(&tenant, grant.terms().id).await?.map_or(over, |seen| seen.grant),
                };
                let waits = matches!(grant.state(), GrantState::Requested | GrantState::Over);
                if waits || !listing.waiting {
                    grants.push(grant);
                }
            }
        }
        grants.sort_by_key(|grant| std::cmp::Reverse((grant.terms().requested, grant.terms().id)));
        grants.truncate(if listing.limit == 0 { Self::USUAL_GRANTS } else { listing.limit });
        Ok(grants)
    }

    /// One grant.
    pub async fn get_grant(
        &self,
        cx: &Context,
        tenant: &str,
        id: Result<GrantId, Refused>,
    ) -> Result<Grant, Refused> {
        let named = id.as_ref().ok().copied();
        let (tenant, mut draft, only) = self.may_see_grants(cx, tenant, named).await?;
        let id = match id {
            Ok(id) => id,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let Seen { grant, .. } = self.look_for(&mut draft, &tenant, id).await?;
        if only.is_some_and(|who| grant.terms().requester.principal != who) {
            return Err(self.not_with_grant(draft, Vec::new(), GrantRefusal::Another).await);
        }
        self.parts.log.record(draft, Vec::new()).await?;
        Ok(grant)
    }

    /// Whether a caller may see grants of a tenant; whose alone, if not everybody's. `named`: the one that it asks for.
    async fn may_see_grants(
        &self,
        cx: &Context,
        tenant: &str,
        named: Option<GrantId>,
    ) -> Result<(TenantId, Draft, Option<PrincipalId>), Refused> {
        let tenant = self.tenant(cx, AuditAction::GrantRead, tenant).await?;
        let mut draft = cx.draft(AuditAction::GrantRead, &tenant);
        draft.grant = named;
        let all = self.decide(cx, &tenant, whole(Action::GrantRead, None));
        if all.allowed {
            draft.policies.extend(all.policies.iter().cloned());
            return Ok((tenant, draft, None));
        }
        self.allow(cx, &mut draft, &tenant, whole(Action::GrantRequest, None), Vec::new).await?;
        Ok((tenant, draft, Some(cx.caller.principal.id.clone())))
    }
}
