//! What the policies say, and what others would: for admins and auditors. Nothing is changed here.
//!
//! ```no_run
//! use vault_client::policy::AccessQuestion;
//!
//! # async fn example(vault: vault_client::Client) -> Result<(), vault_client::Error> {
//! let mut question = AccessQuestion::of("ann");
//! question.action = "detokenize".to_owned();
//! let answer = vault.explain_access(&question).await?;
//! assert!(answer.actions.iter().all(|action| !action.allowed));
//! # Ok(()) }
//! ```

use vault_proto::v1 as wire;
use vault_proto::v1::policy_service_client::PolicyServiceClient;

use crate::client::Client;
use crate::error::Error;

/// What there is to say about a policy set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCheck {
    /// Why it would not be taken; empty: it would.
    pub faults: Vec<PolicyFault>,
    /// The ids of its policies.
    pub ids: Vec<String>,
}

/// Something that is wrong with a policy set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// The id of the policy, if it is one's.
    pub policy: String,
    /// What is wrong.
    pub fault: String,
}

/// Whether a principal may do something, at the client's tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessQuestion {
    /// Who: a principal of the tenant.
    pub principal: String,
    /// What: `detokenize` ...; empty: each action.
    pub action: String,
    /// To values of which class; empty: at all.
    pub class: String,
    /// For which purpose of use; empty: none.
    pub purpose: String,
    /// As if there were a grant of break-glass with so many approvals.
    pub grant: Option<u32>,
    /// By which policies (Cedar); empty: those in force.
    pub policies: String,
}

impl AccessQuestion {
    /// All that a principal may do without more, by the policies in force.
    pub fn of(principal: impl Into<String>) -> Self {
        let (action, class, purpose, policies) = Default::default();
        Self { principal: principal.into(), action, class, purpose, grant: None, policies }
    }
}

/// What a principal may do, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessAnswer {
    /// By action.
    pub actions: Vec<ActionAnswer>,
    /// The roles that count at the tenant.
    pub roles: Vec<String>,
    /// Why it could not call at all now, whatever policies say (`principal_disabled`); empty: it could.
    pub unable: String,
}

/// Whether an action is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionAnswer {
    /// Its name.
    pub action: String,
    /// Whether it is.
    pub allowed: bool,
    /// The permits of what is, the forbids of what is not; empty: nothing permits it.
    pub policies: Vec<String>,
}

impl Client {
    /// Whether the vault would take a policy set: syntax, schema, and that it locks not every admin out.
    pub async fn check_policies(&self, policies: &str) -> Result<PolicyCheck, Error> {
        let request = wire::CheckPoliciesRequest { policies: policies.to_owned() };
        let answer = self
            .call_of(PolicyServiceClient::new, request, async |mut service, request| {
                service.check_policies(request).await
            })
            .await?;
        let fault = |wire::PolicyFault { policy, fault }| PolicyFault { policy, fault };
        Ok(PolicyCheck { faults: answer.faults.into_iter().map(fault).collect(), ids: answer.ids })
    }

    /// What a policy set allows, by role and action, as a text; of that in force for an empty one.
    pub async fn policy_matrix(&self, policies: &str) -> Result<String, Error> {
        let request = wire::GetMatrixRequest { policies: policies.to_owned() };
        let answer = self
            .call_of(PolicyServiceClient::new, request, async |mut service, request| {
                service.get_matrix(request).await
            })
            .await?;
        Ok(answer.text)
    }

    /// What a principal may do, and why.
    pub async fn explain_access(&self, question: &AccessQuestion) -> Result<AccessAnswer, Error> {
        let AccessQuestion { principal, action, class, purpose, grant, policies } = question.clone();
        let request = wire::ExplainAccessRequest {
            tenant: self.tenant(),
            principal,
            action,
            data_class: class,
            purpose,
            with_grant: grant.is_some(),
            approvals: grant.unwrap_or(0),
            policies,
        };
        let answer = self
            .call_of(PolicyServiceClient::new, request, async |mut service, request| {
                service.explain_access(request).await
            })
            .await?;
        let action =
            |wire::AccessExplained { action, allowed, policies }| ActionAnswer { action, allowed, policies };
        Ok(AccessAnswer {
            actions: answer.answers.into_iter().map(action).collect(),
            roles: answer.roles,
            unable: answer.unable,
        })
    }
}
