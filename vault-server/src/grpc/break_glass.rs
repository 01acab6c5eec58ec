//! `vault.v1.BreakGlassService`.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::break_glass_service_server::BreakGlassService;

use crate::access::{Grant, GrantScope, GrantState, ReviewVerdict};
use crate::audit::AuditAction;
use crate::domain::{Environment, GrantId, Timestamp};
use crate::vault::{
    Approving, AskedScope, Denying, GivenFactor, GrantAsked, Listing, Problem, Refused, Revealed, Reviewing,
    Vault,
};

use super::serve::serve;
use super::status::item_error;
use super::vault::wire_value;
use super::{Observer, parse};

pub(super) struct BreakGlassApi {
    vault: Arc<Vault>,
    observer: Arc<dyn Observer>,
}

impl BreakGlassApi {
    pub(super) fn new(vault: Arc<Vault>, observer: Arc<dyn Observer>) -> Self {
        Self { vault, observer }
    }
}

#[tonic::async_trait]
impl BreakGlassService for BreakGlassApi {
    async fn request_grant(
        &self,
        request: Request<v1::RequestGrantRequest>,
    ) -> Result<Response<v1::RequestGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantRequest, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let tenant = std::mem::take(&mut request.tenant);
            let environment = &vault.identity().environment;
            let asked = factor.and_then(|factor| asked(request, factor, environment));
            let grant = vault.request_grant(cx, &tenant, asked).await?;
            Ok(v1::RequestGrantResponse { grant: Some(wire_grant(&grant, environment)) })
        })
        .await
    }

    async fn approve_grant(
        &self,
        request: Request<v1::ApproveGrantRequest>,
    ) -> Result<Response<v1::ApproveGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantApprove, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let asked = factor.and_then(|factor| {
                let id = grant_id(&request.grant_id)?;
                Ok(Approving { id, terms: request.terms_hash.to_vec(), notes: request.notes, factor })
            });
            let grant = vault.approve_grant(cx, &request.tenant, asked).await?;
            Ok(v1::ApproveGrantResponse { grant: Some(wire_grant(&grant, &vault.identity().environment)) })
        })
        .await
    }

    async fn deny_grant(
        &self,
        request: Request<v1::DenyGrantRequest>,
    ) -> Result<Response<v1::DenyGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantDeny, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let asked = factor.and_then(|factor| {
                Ok(Denying { id: grant_id(&request.grant_id)?, notes: request.notes, factor })
            });
            let grant = vault.deny_grant(cx, &request.tenant, asked).await?;
            Ok(v1::DenyGrantResponse { grant: Some(wire_grant(&grant, &vault.identity().environment)) })
        })
        .await
    }

    async fn reveal(
        &self,
        request: Request<v1::RevealRequest>,
    ) -> Result<Response<v1::RevealResponse>, Status> {
        serve(&self.vault, AuditAction::Detokenize, request, async |vault, cx, request| {
            let environment = &vault.identity().environment;
            let tokens = parse::tokens(&request.tokens, environment);
            let id = grant_id(&request.grant_id);
            let (revealed, grant) = vault.reveal(cx, &request.tenant, id, tokens).await?;
            let ok = revealed.iter().filter(|revealed| revealed.outcome.is_ok()).count();
            self.observer.items("reveal", ok, revealed.len() - ok);
            let results = revealed.into_iter().enumerate().map(|(at, revealed)| {
                let asked = request.tokens.get(at);
                wire_revealed(revealed, asked, at, environment)
            });
            Ok(v1::RevealResponse {
                results: results.collect(),
                grant: Some(wire_grant(&grant, environment)),
            })
        })
        .await
    }

    async fn close_grant(
        &self,
        request: Request<v1::CloseGrantRequest>,
    ) -> Result<Response<v1::CloseGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantEnd, request, async |vault, cx, request| {
            let asked = grant_id(&request.grant_id).map(|id| (id, request.notes));
            let grant = vault.close_grant(cx, &request.tenant, asked).await?;
            Ok(v1::CloseGrantResponse { grant: Some(wire_grant(&grant, &vault.identity().environment)) })
        })
        .await
    }

    async fn review_grant(
        &self,
        request: Request<v1::ReviewGrantRequest>,
    ) -> Result<Response<v1::ReviewGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantReview, request, async |vault, cx, request| {
            let asked = verdict(request.verdict).and_then(|verdict| {
                Ok(Reviewing { id: grant_id(&request.grant_id)?, verdict, notes: request.notes })
            });
            let grant = vault.review_grant(cx, &request.tenant, asked).await?;
            Ok(v1::ReviewGrantResponse { grant: Some(wire_grant(&grant, &vault.identity().environment)) })
        })
        .await
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        serve(&self.vault, AuditAction::GrantRead, request, async |vault, cx, request| {
            let listing = Listing { waiting: request.waiting, limit: request.limit as usize };
            let grants = vault.list_grants(cx, &request.tenant, listing).await?;
            let environment = &vault.identity().environment;
            let grants = grants.iter().map(|grant| wire_grant(grant, environment)).collect();
            Ok(v1::ListGrantsResponse { grants })
        })
        .await
    }

    async fn get_grant(
        &self,
        request: Request<v1::GetGrantRequest>,
    ) -> Result<Response<v1::GetGrantResponse>, Status> {
        serve(&self.vault, AuditAction::GrantRead, request, async |vault, cx, request| {
            let grant = vault.get_grant(cx, &request.tenant, grant_id(&request.grant_id)).await?;
            Ok(v1::GetGrantResponse {
                grant: Some(wire_grant(&grant, &vault.identity().environment)),
                terms_hash: grant.terms().hash().to_vec().into(),
            })
        })
        .await
    }
}

/// The second factor of a request, which is without it by now.
pub(super) fn given(
    factor: Option<v1::SecondFactor>,
    rest: &impl Message,
) -> Result<Option<GivenFactor>, Refused> {
    let Some(factor) = factor else { return Ok(None) };
    GivenFactor::parse(&factor.challenge_id, factor.signature, &rest.encode_to_vec()).map(Some)
}

fn asked(
    request: v1::RequestGrantRequest,
    factor: Option<GivenFactor>,
    environment: &Environment,
) -> Result<GrantAsked, Refused> {
    let scope = request.scope.unwrap_or_default();
    let classes = scope.data_classes.iter().enumerate();
    let classes = classes.map(|(at, name)| parse::class(name, format!("scope.data_classes[{at}]")));
    let classes = classes.collect::<Result<_, _>>()?;
    let subject = parse::subject(scope.subject, "scope.subject")?;
    let scope = match (subject, scope.tokens.is_empty()) {
        (None, _) => AskedScope::Tokens(parse::tokens(&scope.tokens, environment)),
        (Some(subject), true) => AskedScope::Subject(subject),
        (Some(_), false) => {
            return Err(Problem::Field("either tokens or a subject, not both").at("scope.subject"));
        }
    };
    let rule = Problem::Field("1 to 128 printable ASCII characters");
    let key = parse::idempotency(&request.idempotency_key)?.ok_or_else(|| rule.at("idempotency_key"))?;
    Ok(GrantAsked {
        scope,
        classes,
        reason_code: request.reason_code,
        reason: request.reason,
        ticket: request.ticket,
        duration: request.duration_s,
        values: request.values,
        key,
        factor,
    })
}

fn grant_id(text: &str) -> Result<GrantId, Refused> {
    GrantId::parse(text).map_err(|_| Problem::Field("32 hexadecimal digits").at("grant_id"))
}

fn verdict(number: i32) -> Result<ReviewVerdict, Refused> {
    match v1::ReviewVerdict::try_from(number) {
        Ok(v1::ReviewVerdict::Justified) => Ok(ReviewVerdict::Justified),
        Ok(v1::ReviewVerdict::NotJustified) => Ok(ReviewVerdict::NotJustified),
        Ok(v1::ReviewVerdict::Escalated) => Ok(ReviewVerdict::Escalated),
        Ok(v1::ReviewVerdict::Unspecified) | Err(_) => {
            Err(Problem::Field("one of the verdicts").at("verdict"))
        }
    }
}

fn wire_revealed(
    revealed: Revealed,
    asked: Option<&String>,
    at: usize,
    environment: &Environment,
) -> v1::RevealResult {
    use v1::reveal_result::Outcome;
    let token = match (asked, revealed.token) {
        (Some(asked), _) => asked.clone(),
        (None, Some(token)) => token.encode(environment),
        (None, None) => String::new(),
    };
    match revealed.outcome {
        Ok((class, opened)) => v1::RevealResult {
            token,
            data_class: class.to_string(),
            outcome: Some(Outcome::Value(wire_value(&opened))),
        },
        Err(problem) => v1::RevealResult {
            token,
            data_class: String::new(),
            outcome: Some(Outcome::Error(item_error(&problem, || format!("tokens[{at}]")))),
        },
    }
}

fn wire_grant(grant: &Grant, environment: &Environment) -> v1::Grant {
    let terms = grant.terms();
    let time = |at: Option<Timestamp>| at.map_or(0, |at| at.0);
    let (tokens, of_subject) = match &terms.scope {
        GrantScope::Tokens(tokens) => (tokens.iter().map(|token| token.encode(environment)).collect(), false),
        GrantScope::Subject(_) => (Vec::new(), true),
    };
    let (end, review) = (grant.end(), grant.reviewed());
    v1::Grant {
        id: terms.id.to_string(),
        tenant: terms.tenant.to_string(),
        state: wire_state(grant.state()).into(),
        requester: terms.requester.principal.to_string(),
        approvers: grant.approvals().iter().map(|approval| approval.by.principal.to_string()).collect(),
        approvals_needed: terms.approvals_needed,
        tokens,
        of_subject,
        data_classes: terms.classes.iter().map(ToString::to_string).collect(),
        reason_code: terms.reason_code.clone(),
        reason: terms.reason.clone(),
        ticket: terms.ticket.clone(),
        values_allowed: terms.values,
        values_seen: grant.seen(),
        requested_us: terms.requested.0,
        approved_us: time(grant.approved()),
        expires_us: time(grant.expires()),
        first_used_us: time(grant.first_used()),
        over_us: time(end.map(|end| end.at)),
        ended: end.map(|end| end.how.as_str().to_owned()).unwrap_or_default(),
        ended_by: end.and_then(|end| end.by.as_ref()).map(ToString::to_string).unwrap_or_default(),
        review_due_us: time(grant.review_due()),
        reviewer: review.map(|review| review.by.to_string()).unwrap_or_default(),
        verdict: review.map_or(v1::ReviewVerdict::Unspecified, |review| wire_verdict(review.verdict)).into(),
        review_notes: review.map(|review| review.notes.clone()).unwrap_or_default(),
        duration_s: terms.duration,
        unapproved: grant.is_unapproved(),
        lapses_us: terms.requested.0.saturating_add(u64::from(terms.wait) * 1_000_000),
    }
}

fn wire_state(state: GrantState) -> v1::GrantState {
    match state {
        GrantState::Requested => v1::GrantState::Requested,
        GrantState::Active => v1::GrantState::Active,
        GrantState::Denied => v1::GrantState::Denied,
        GrantState::Lapsed => v1::GrantState::Lapsed,
        GrantState::Over => v1::GrantState::Over,
        GrantState::Reviewed => v1::GrantState::Reviewed,
    }
}

fn wire_verdict(verdict: ReviewVerdict) -> v1::ReviewVerdict {
    match verdict {
        ReviewVerdict::Justified => v1::ReviewVerdict::Justified,
        ReviewVerdict::NotJustified => v1::ReviewVerdict::NotJustified,
        ReviewVerdict::Escalated => v1::ReviewVerdict::Escalated,
    }
}
