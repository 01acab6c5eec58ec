//! What policies say, and what others would.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::access::{
    Access, Action, GrantSeen, Policies, PolicyError, Principal, Question, TenantScope, matrix,
};
use crate::audit::{AuditAction, Draft};
use crate::domain::{ClassName, PrincipalId, Purpose, TenantId, Timestamp};

use super::{Context, Problem, Refused, Vault};

/// A policy set is at most so long.
const MAX_POLICIES: usize = 256 * 1024;
/// To read and to try a policy set takes up to a second of a core: one at a time.
static ONE: Semaphore = Semaphore::const_new(1);

/// What is wrong with a policy set, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// The policy, if it is one's fault, and the fault.
    pub faults: Vec<(String, String)>,
    /// The ids of its policies.
    pub ids: Vec<String>,
}

/// What is asked about a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessAsked {
    /// Which.
    pub principal: PrincipalId,
    /// What it would do; `None`: anything.
    pub action: Option<Action>,
    /// With values of which class.
    pub class: Option<ClassName>,
    /// What for.
    pub purpose: Option<Purpose>,
    /// Under which grant.
    pub grant: Option<GrantSeen>,
}

/// What a principal may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Each action, whether it is allowed, and the policies that decided.
    pub answers: Vec<(Action, bool, Vec<String>)>,
    /// The roles that count.
    pub roles: Vec<&'static str>,
    /// Why it could not call at all now.
    pub unable: &'static str,
}

impl Vault {
    /// Whether a policy set would be taken.
    pub async fn check_policies(&self, cx: &Context, text: &str) -> Result<Checked, Refused> {
        self.asked_of_policies(cx, "check").await?;
        let Some(text) = Some(text).filter(|text| text.len() <= MAX_POLICIES) else {
            return Err(Problem::Field("at most 256 KiB").at("policies"));
        };
        let policies = match self.parse(text).await? {
            Ok(policies) => policies,
            Err(PolicyError::Invalid(faults)) => {
                let faults = faults.into_iter().map(|fault| (fault.id, fault.reason)).collect();
                return Ok(Checked { faults, ids: Vec::new() });
            }
            Err(error) => {
                return Ok(Checked { faults: vec![(String::new(), error.to_string())], ids: Vec::new() });
            }
        };
        let ids = policies.ids();
        let mut faults = Vec::new();
        if !self.parts.access.with(None, policies).has_admin(self.parts.clock.now()) {
            faults.push((String::new(), "nobody would be left who may change principals".to_owned()));
        }
        Ok(Checked { faults, ids })
    }

    /// What a policy set allows, or the one in force (`""`), as text.
    pub async fn policy_matrix(&self, cx: &Context, text: &str) -> Result<String, Refused> {
        self.asked_of_policies(cx, "matrix").await?;
        let text = if text.is_empty() { self.parts.access.policies() } else { text.to_owned() };
        if text.len() > MAX_POLICIES {
            return Err(Problem::Field("at most 256 KiB").at("policies"));
        }
        let _turn = ONE.try_acquire().map_err(|_| Problem::Overloaded.whole())?;
        let made = tokio::task::spawn_blocking(move || matrix(&text)).await;
        let made = made.map_err(|_| Problem::Internal.whole())?;
        made.map_err(|_| Problem::Field("a policy set that check takes").at("policies"))
    }

    /// What a principal may do at a tenant, and why: by the policies in force, or others.
    pub async fn explain_access(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<AccessAsked, Refused>,
        policies: &str,
    ) -> Result<Explained, Refused> {
        const ACTION: AuditAction = AuditAction::PolicyRead;
        let (tenant, mut draft, asked) =
            self.asked_of_place(cx, ACTION, Action::PolicyRead, tenant, asked).await?;
        draft.details.push(("asked", "explain".to_owned()));
        draft.details.push(("principal", asked.principal.to_string()));
        let found = self.principal_at(&asked.principal, tenant.as_ref());
        let fits = policies.len() <= MAX_POLICIES;
        let other = if policies.is_empty() || !fits { None } else { Some(self.parse(policies).await?) };
        let problem = match (&found, &other) {
            (None, _) => Some(Problem::NotFound.at("principal")),
            (_, Some(Err(_))) => Some(Problem::Field("a policy set that check takes").at("policies")),
            _ if !fits => Some(Problem::Field("at most 256 KiB").at("policies")),
            _ => None,
        };
        if let Some(refused) = problem {
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        self.parts.log.record(draft, Vec::new()).await?;
        let (Some(principal), Ok(other)) = (found, other.transpose()) else {
            return Err(Problem::Internal.whole().logged());
        };
        let access = &self.parts.access;
        let other = other.map(|policies| access.with(None, policies));
        let place = tenant.map_or(TenantScope::All, TenantScope::One);
        let now = self.parts.clock.now();
        Ok(explained(other.as_ref().unwrap_or(access), &principal, &place, &asked, now))
    }

    /// A principal, as far as an admin of a tenant (or of the vault) knows it.
    fn principal_at(&self, id: &PrincipalId, tenant: Option<&TenantId>) -> Option<Arc<Principal>> {
        let directory = self.parts.access.directory();
        let principal = directory.principal(id)?;
        let place = tenant.map(|tenant| TenantScope::One(tenant.clone()));
        place.is_none_or(|place| !principal.roles_at(&place).is_empty()).then(|| Arc::clone(principal))
    }

    /// For what is about no tenant: whoever may read policies somewhere.
    async fn asked_of_policies(&self, cx: &Context, what: &str) -> Result<(), Refused> {
        let mut draft =
            Draft::new(cx.request, AuditAction::PolicyRead, crate::audit::Actor::caller_of_vault(&cx.caller));
        draft.details.push(("asked", what.to_owned()));
        let access = &self.parts.access;
        let question = Question { action: Action::PolicyRead, class: None, purpose: None, grant: None };
        let principal = &cx.caller.principal;
        let verdicts = principal.roles.keys().map(|place| access.explain(principal, place, question));
        let Some(verdict) = verdicts.into_iter().find(|verdict| verdict.allowed) else {
            return Err(self.log_refusal(draft, Vec::new(), Problem::ActionNotAllowed.whole()).await);
        };
        super::add_policies(&mut draft.policies, &verdict);
        self.parts.log.record(draft, Vec::new()).await?;
        Ok(())
    }

    /// Reads policies that somebody gave, where it holds nobody up.
    async fn parse(&self, text: &str) -> Result<Result<Policies, PolicyError>, Refused> {
        let _turn = ONE.try_acquire().map_err(|_| Problem::Overloaded.whole())?;
        let (text, environment) = (text.to_owned(), self.parts.identity.environment.clone());
        let parsed = tokio::task::spawn_blocking(move || Policies::parse(&text, environment)).await;
        parsed.map_err(|_| Problem::Internal.whole())
    }
}

fn explained(
    access: &Access,
    principal: &Principal,
    place: &TenantScope,
    asked: &AccessAsked,
    now: Timestamp,
) -> Explained {
    let actions = asked.action.map_or_else(|| Action::ALL.to_vec(), |action| vec![action]);
    let answers = actions.into_iter().map(|action| {
        let class = asked.class.as_ref().filter(|_| action.of_class());
        let of_detokenize = action == Action::Detokenize;
        let question = Question {
            action,
            class,
            purpose: asked.purpose.filter(|_| of_detokenize),
            grant: asked.grant.filter(|_| of_detokenize),
        };
        let verdict = access.explain(principal, place, question);
        (action, verdict.allowed, verdict.policies.to_vec())
    });
    let unable = if !principal.enabled {
        "principal_disabled"
    } else if principal.expires.is_some_and(|expires| now >= expires) {
        "principal_expired"
    } else {
        ""
    };
    Explained {
        answers: answers.collect(),
        roles: principal.roles_at(place).iter().map(crate::access::Role::as_str).collect(),
        unable,
    }
}
