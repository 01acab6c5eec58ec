//! `vault.v1.PolicyService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::policy_service_server::PolicyService;

use crate::access::{Action, GrantSeen};
use crate::audit::AuditAction;
use crate::domain::{ClassName, PrincipalId, Purpose};
use crate::vault::{AccessAsked, Problem, Refused, Vault};

use super::serve::serve;

const ACTION: AuditAction = AuditAction::PolicyRead;

pub(super) struct PolicyApi {
    vault: Arc<Vault>,
}

impl PolicyApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl PolicyService for PolicyApi {
    async fn check_policies(
        &self,
        request: Request<v1::CheckPoliciesRequest>,
    ) -> Result<Response<v1::CheckPoliciesResponse>, Status> {
        serve(&self.vault, ACTION, request, async |vault, cx, request| {
            let checked = vault.check_policies(cx, &request.policies).await?;
            let faults = checked.faults.into_iter().map(|(policy, fault)| v1::PolicyFault { policy, fault });
            Ok(v1::CheckPoliciesResponse { faults: faults.collect(), ids: checked.ids })
        })
        .await
    }

    async fn get_matrix(
        &self,
        request: Request<v1::GetMatrixRequest>,
    ) -> Result<Response<v1::GetMatrixResponse>, Status> {
        serve(&self.vault, ACTION, request, async |vault, cx, request| {
            Ok(v1::GetMatrixResponse { text: vault.policy_matrix(cx, &request.policies).await? })
        })
        .await
    }

    async fn explain_access(
        &self,
        request: Request<v1::ExplainAccessRequest>,
    ) -> Result<Response<v1::ExplainAccessResponse>, Status> {
        serve(&self.vault, ACTION, request, async |vault, cx, request| {
            let asked = parse(&request);
            let explained = vault.explain_access(cx, &request.tenant, asked, &request.policies).await?;
            let answers = explained.answers.into_iter().map(|(action, allowed, policies)| {
                v1::AccessExplained { action: action.as_str().to_owned(), allowed, policies }
            });
            Ok(v1::ExplainAccessResponse {
                answers: answers.collect(),
                roles: explained.roles.into_iter().map(str::to_owned).collect(),
                unable: explained.unable.to_owned(),
            })
        })
        .await
    }
}

fn parse(request: &v1::ExplainAccessRequest) -> Result<AccessAsked, Refused> {
    let principal =
        PrincipalId::parse(&request.principal).map_err(|error| Problem::Field(error.rule).at("principal"))?;
    let action = |name: &str| {
        let known = Action::ALL.iter().find(|action| action.as_str() == name).copied();
        known.ok_or_else(|| Problem::Field("the name of an action, such as detokenize").at("action"))
    };
    let class = |name: &str| ClassName::parse(name).map_err(|_| Problem::ClassUnknown.at("data_class"));
    let purpose = |code: &str| Purpose::parse(code).ok_or_else(|| Problem::PurposeUnknown.at("purpose"));
    Ok(AccessAsked {
        principal,
        action: given(&request.action).map(action).transpose()?,
        class: given(&request.data_class).map(class).transpose()?,
        purpose: given(&request.purpose).map(purpose).transpose()?,
        grant: request.with_grant.then_some(GrantSeen { approvals: request.approvals }),
    })
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
