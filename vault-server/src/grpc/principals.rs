//! `vault.v1.PrincipalService`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::principal_service_server::PrincipalService;

use crate::access::{PrincipalKind, Proposed, Role, TenantScope, canonical_identity};
use crate::audit::AuditAction;
use crate::domain::{PrincipalId, ProposalId, TenantId, Timestamp};
use crate::vault::{
    Approved, ChangeOutcome, GivenFactor, KnownPrincipal, KnownProposal, Note, PrincipalAsked, Problem,
    ProposalNamed, Refused, Vault,
};

use super::break_glass::given;
use super::peer;
use super::security_keys::wire_key;
use super::serve::serve;

/// The most identities, and tenants with roles, that a principal has.
const MOST: usize = 64;
/// The most characters an owner's name has.
const MAX_OWNER: usize = 128;

pub(super) struct PrincipalApi {
    vault: Arc<Vault>,
}

impl PrincipalApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl PrincipalService for PrincipalApi {
    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let until = peer::credential(request.extensions())?.not_after;
        serve(&self.vault, AuditAction::WhoAmI, request, async |vault, cx, _| {
            let principal = vault.who_am_i(cx).await?;
            Ok(v1::WhoAmIResponse {
                principal: Some(wire_principal(&principal)),
                factors: cx.caller.factors.iter().map(ToString::to_string).collect(),
                until_us: until.0,
            })
        })
        .await
    }

    async fn list_principals(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalRead, request, async |vault, cx, request| {
            let principals = vault.list_principals(cx, &request.tenant).await?;
            Ok(v1::ListPrincipalsResponse { principals: principals.iter().map(wire_principal).collect() })
        })
        .await
    }

    async fn put_principal(
        &self,
        request: Request<v1::PutPrincipalRequest>,
    ) -> Result<Response<v1::PutPrincipalResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalChange, request, async |vault, cx, request| {
            let v1::PutPrincipalRequest { tenant, principal, reason, ticket } = request;
            let asked = parse_principal(principal.unwrap_or_default());
            let outcome = vault.put_principal(cx, &tenant, asked, Note::parse(reason, ticket)).await?;
            let (principal, waiting) = wire_outcome(&outcome);
            Ok(v1::PutPrincipalResponse { principal, waiting })
        })
        .await
    }

    async fn set_principal_state(
        &self,
        request: Request<v1::SetPrincipalStateRequest>,
    ) -> Result<Response<v1::SetPrincipalStateResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalChange, request, async |vault, cx, request| {
            let v1::SetPrincipalStateRequest { tenant, id, enabled, reason, ticket } = request;
            let note = Note::parse(reason, ticket);
            let id = parse_id(&id, "id");
            let outcome = vault.set_principal_state(cx, &tenant, id, enabled, note).await?;
            let (principal, waiting) = wire_outcome(&outcome);
            Ok(v1::SetPrincipalStateResponse { principal, waiting })
        })
        .await
    }

    async fn list_principal_changes(
        &self,
        request: Request<v1::ListPrincipalChangesRequest>,
    ) -> Result<Response<v1::ListPrincipalChangesResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalRead, request, async |vault, cx, request| {
            let changes = vault.list_principal_changes(cx, &request.tenant).await?;
            Ok(v1::ListPrincipalChangesResponse { changes: changes.iter().map(wire_change).collect() })
        })
        .await
    }

    async fn approve_principal_change(
        &self,
        request: Request<v1::ApprovePrincipalChangeRequest>,
    ) -> Result<Response<v1::ApprovePrincipalChangeResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalApprove, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let v1::ApprovePrincipalChangeRequest { tenant, id, hash, reason, ticket, .. } = request;
            let named = factor
                .and_then(|factor| parse_named(&id, Note::parse(reason, ticket)?, hash.to_vec(), factor));
            let approved = vault.approve_principal_change(cx, &tenant, named).await?;
            let mut response = v1::ApprovePrincipalChangeResponse::default();
            match approved {
                Approved::Principal(known) => response.principal = Some(wire_principal(&known)),
                Approved::SecurityKey(key) => response.security_key = Some(wire_key(&key)),
            }
            Ok(response)
        })
        .await
    }

    async fn reject_principal_change(
        &self,
        request: Request<v1::RejectPrincipalChangeRequest>,
    ) -> Result<Response<v1::RejectPrincipalChangeResponse>, Status> {
        serve(&self.vault, AuditAction::PrincipalReject, request, async |vault, cx, request| {
            let v1::RejectPrincipalChangeRequest { tenant, id, reason, ticket } = request;
            let named = Note::parse(reason, ticket).and_then(|note| parse_named(&id, note, Vec::new(), None));
            vault.reject_principal_change(cx, &tenant, named).await?;
            Ok(v1::RejectPrincipalChangeResponse {})
        })
        .await
    }
}

fn parse_id(id: &str, field: &str) -> Result<PrincipalId, Refused> {
    PrincipalId::parse(id).map_err(|error| Problem::Field(error.rule).at(field))
}

fn parse_named(
    id: &str,
    note: Note,
    hash: Vec<u8>,
    factor: Option<GivenFactor>,
) -> Result<ProposalNamed, Refused> {
    let id = ProposalId::parse(id).map_err(|error| Problem::Field(error.rule).at("id"))?;
    Ok(ProposalNamed { id, hash, note, factor })
}

fn parse_principal(principal: v1::Principal) -> Result<PrincipalAsked, Refused> {
    let at = |field: &str| format!("principal.{field}");
    let kind = match principal.kind() {
        v1::principal::Kind::Service => PrincipalKind::Service,
        v1::principal::Kind::Human => PrincipalKind::Human,
        v1::principal::Kind::Unspecified => {
            return Err(Problem::Field("SERVICE or HUMAN").at(at("kind")));
        }
    };
    let owner = principal.owner;
    if owner.chars().count() > MAX_OWNER || owner.chars().any(char::is_control) {
        return Err(
            Problem::Field("at most 128 characters, none of them a control character").at(at("owner"))
        );
    }
    Ok(PrincipalAsked {
        id: parse_id(&principal.id, &at("id"))?,
        kind,
        identities: parse_identities(&principal.identities)?,
        roles: parse_roles(&principal.roles)?,
        owner: (!owner.is_empty()).then_some(owner),
        expires: (principal.expires_us != 0).then_some(Timestamp(principal.expires_us)),
        seen: principal.revision.checked_sub(1),
    })
}

fn parse_identities(listed: &[String]) -> Result<BTreeSet<String>, Refused> {
    if !(1..=MOST).contains(&listed.len()) {
        return Err(Problem::Field("1 to 64 identities").at("principal.identities"));
    }
    let mut identities = BTreeSet::new();
    for (index, text) in listed.iter().enumerate() {
        let refused = |rule| Problem::Field(rule).at(format!("principal.identities[{index}]"));
        let canonical = canonical_identity(text).map_err(|_| {
            refused("an identity: spiffe://DOMAIN/PATH, subject:CN=...,O=... or oidc:ISSUER#SUBJECT")
        })?;
        if !identities.insert(canonical.into_owned()) {
            return Err(refused("there once"));
        }
    }
    Ok(identities)
}

fn parse_roles(listed: &[v1::TenantRoles]) -> Result<BTreeMap<TenantScope, BTreeSet<Role>>, Refused> {
    if listed.len() > MOST {
        return Err(Problem::Field("at most 64 tenants").at("principal.roles"));
    }
    let mut roles = BTreeMap::new();
    for (index, v1::TenantRoles { tenant, roles: names }) in listed.iter().enumerate() {
        let refused =
            |field: &str, rule| Problem::Field(rule).at(format!("principal.roles[{index}].{field}"));
        let place = match tenant.as_str() {
            "*" => TenantScope::All,
            tenant => {
                TenantScope::One(TenantId::parse(tenant).map_err(|error| refused("tenant", error.rule))?)
            }
        };
        let held = names.iter().map(|name| Role::parse(name)).collect::<Option<BTreeSet<_>>>();
        let held = held.filter(|held| !held.is_empty());
        let held = held.ok_or_else(|| {
            refused("roles", "one or more of service, console, oncall, approver, rotator, auditor, admin")
        })?;
        if roles.insert(place, held).is_some() {
            return Err(refused("tenant", "there once"));
        }
    }
    Ok(roles)
}

fn wire_outcome(
    outcome: &ChangeOutcome<KnownPrincipal>,
) -> (Option<v1::Principal>, Option<v1::PrincipalChange>) {
    match outcome {
        ChangeOutcome::Made(known) => (Some(wire_principal(known)), None),
        ChangeOutcome::Waits(waits) => (None, Some(wire_change(waits))),
    }
}

fn wire_change(known: &KnownProposal) -> v1::PrincipalChange {
    let KnownProposal { proposal, after, differences, superseded } = known;
    let difference = |(name, value): &(&'static str, String)| v1::principal_change::Difference {
        name: (*name).to_owned(),
        value: value.clone(),
    };
    let security_key = match &proposal.change {
        Proposed::Principal { .. } => None,
        Proposed::SecurityKey { key, label, .. } => Some(v1::SecurityKey {
            fingerprint: key.fingerprint().to_string(),
            kind: key.kind().as_str().to_owned(),
            label: label.clone(),
            ..v1::SecurityKey::default()
        }),
    };
    v1::PrincipalChange {
        id: proposal.id.to_string(),
        tenant: proposal.tenant.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string),
        principal_id: proposal.change.principal().to_string(),
        principal: after.as_ref().map(wire_principal),
        security_key,
        differences: differences.iter().map(difference).collect(),
        asked_by: proposal.asker.principal.to_string(),
        asked_us: proposal.asked.0,
        expires_us: proposal.expires.0,
        reason: proposal.reason.clone(),
        ticket: proposal.ticket.clone(),
        hash: proposal.hash().to_vec().into(),
        superseded: *superseded,
    }
}

fn wire_principal(known: &KnownPrincipal) -> v1::Principal {
    let KnownPrincipal { principal, roles, keys } = known;
    let kind = match principal.kind {
        PrincipalKind::Service => v1::principal::Kind::Service,
        PrincipalKind::Human => v1::principal::Kind::Human,
    };
    let wire_roles = |(place, roles): (&TenantScope, &BTreeSet<Role>)| v1::TenantRoles {
        tenant: place.to_string(),
        roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
    };
    v1::Principal {
        id: principal.id.to_string(),
        kind: kind.into(),
        identities: principal.identities.iter().cloned().collect(),
        roles: roles.iter().map(wire_roles).collect(),
        owner: principal.owner.clone().unwrap_or_default(),
        enabled: principal.enabled,
        expires_us: principal.expires.map_or(0, |time| time.0),
        configured: principal.revision.is_none(),
        revision: principal.revision.map_or(0, |revision| revision + 1),
        security_keys: keys.iter().map(wire_key).collect(),
    }
}
