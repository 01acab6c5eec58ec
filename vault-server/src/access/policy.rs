//! Cedar policies: read, checked against the schema, asked.
//!
//! * Nothing is allowed that no policy permits; a `forbid` wins; a policy that fails to evaluate denies (Cedar alone
//!   would skip it, and a skipped `forbid` forbids nothing).
//! * Every policy has an id of its own by `@id("...")`: it goes into the log with each decision.
//! * A policy set with an error, or even a warning, of the strict validator is not taken.

use std::collections::BTreeSet;
use std::fmt;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicyId, PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use miette::Diagnostic as _;

use crate::access::question::Asked;
use crate::access::{TenantScope, Verdict};
use crate::domain::{ClassName, Environment, TenantId};

const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
pub(super) const BUILTIN: &str = include_str!("../../policies/default.cedar");

/// Ids go into every log entry that they decided.
const MAX_ID: usize = 64;

/// A policy set that was checked, for a vault of one environment.
pub struct Policies {
    text: String,
    set: PolicySet,
    schema: Schema,
    types: Types,
    authorizer: Authorizer,
    environment: Environment,
    /// Classes that policies name, and so could treat unlike others.
    classes: Vec<EntityUid>,
    /// Tenants, the same.
    tenants: Vec<EntityUid>,
}

/// Why a policy set is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The schema of the program itself: a fault of its own.
    #[error("policy schema: {0}")]
    Schema(String),
    /// Not Cedar.
    #[error("policies: {0}")]
    Syntax(String),
    /// A policy can't be named in the log.
    #[error("policies: the one that begins with {0:?} has no @id(\"...\")")]
    NoId(String),
    /// A policy's name does not fit the log.
    #[error("policies: an @id has 1 to {MAX_ID} characters of a-z, A-Z, 0-9 and '-_.', unlike {0:?}")]
    BadId(String),
    /// Two policies could not be told apart in the log.
    #[error("policies: {0:?} is the @id of two")]
    DuplicateId(String),
    /// Nothing here fills templates in.
    #[error("policies: templates are not supported")]
    Template,
    /// Against the schema.
    #[error("policies: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<InvalidPolicy>),
}

/// A policy that the validator refuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvalidPolicy {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.id, self.reason)
    }
}

impl Policies {
    /// The set that comes with the program.
    pub fn builtin(environment: Environment) -> Result<Self, PolicyError> {
        Self::parse(BUILTIN, environment)
    }

    /// A site's own set, in Cedar's syntax.
    pub fn parse(text: &str, environment: Environment) -> Result<Self, PolicyError> {
        let schema = schema()?;
        let set = named(text)?;
        validate(&set, &schema)?;
        let types = Types::new()?;
        let (classes, tenants) = (literals(&set, &types.class), literals(&set, &types.tenant));
        let text = text.to_owned();
        Ok(Self { text, set, schema, types, authorizer: Authorizer::new(), environment, classes, tenants })
    }

    /// As they were written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The ids of all policies, sorted.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.set.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort_unstable();
        ids
    }

    /// The classes that they name.
    pub(super) fn named_classes(&self) -> Vec<ClassName> {
        self.classes.iter().filter_map(|uid| ClassName::parse(uid.id().unescaped()).ok()).collect()
    }

    /// The tenants that they name: a tenant has no other mark by which they could tell it from others.
    pub(super) fn named_tenants(&self) -> Vec<TenantId> {
        self.tenants.iter().filter_map(|uid| TenantId::parse(uid.id().unescaped()).ok()).collect()
    }

    /// What the policies say.
    pub(super) fn evaluate(&self, asked: &Asked) -> Verdict {
        if asked.action.of_class() && asked.place == TenantScope::All {
            // A value is always some tenant's.
            return Verdict::of_policy(false, Vec::new());
        }
        let place = self.types.place(&asked.place);
        if let Some(class) = &asked.class {
            return self.ask(asked, &self.types.uid(&self.types.class, class.as_str()));
        }
        let verdict = self.ask(asked, &place);
        if verdict.allowed || !asked.action.of_class() {
            return verdict;
        }
        // Not for any class: but perhaps for one that a policy names.
        let of_named =
            self.classes.iter().map(|class| self.ask(asked, class)).find(|verdict| verdict.allowed);
        of_named.unwrap_or(verdict)
    }

    fn ask(&self, asked: &Asked, resource: &EntityUid) -> Verdict {
        let response = match self.request(asked, resource) {
            Ok((request, entities)) => self.authorizer.is_authorized(&request, &self.set, &entities),
            Err(error) => {
                tracing::debug!(action = asked.action.as_str(), %error, "not a question for policies: denied");
                return Verdict::of_policy(false, Vec::new());
            }
        };
        let failed = response.diagnostics().errors().map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
        });
        let failed: Vec<_> = failed.collect();
        if !failed.is_empty() {
            tracing::error!(policies = ?failed, "policies failed to evaluate: denied");
            return Verdict::of_policy(false, failed);
        }
        let decided = response.diagnostics().reason().map(ToString::to_string).collect();
        Verdict::of_policy(response.decision() == Decision::Allow, decided)
    }

    fn request(&self, asked: &Asked, resource: &EntityUid) -> Result<(Request, Entities), BadQuestion> {
        let types = &self.types;
        let principal = types.uid(&types.principal, asked.principal.as_str());
        let action = types.uid(&types.action, asked.action.as_str());
        let mut context = vec![(
            "environment".to_owned(),
            RestrictedExpression::new_string(self.environment.as_str().to_owned()),
        )];
        if let Some(purpose) = asked.purpose {
            let purpose = types.uid(&types.purpose, purpose.code());
            context.push(("purpose".to_owned(), RestrictedExpression::new_entity_uid(purpose)));
        }
        if let Some(grant) = asked.grant {
            let approvals = RestrictedExpression::new_long(grant.approvals.into());
            let grant = RestrictedExpression::new_record([("approvals".to_owned(), approvals)]);
            context.push(("grant".to_owned(), grant.map_err(BadQuestion::new)?));
        }
        let context = Context::from_pairs(context).map_err(BadQuestion::new)?;
        let request = Request::new(principal.clone(), action, resource.clone(), context, Some(&self.schema))
            .map_err(BadQuestion::new)?;

        let kind = RestrictedExpression::new_string(asked.kind.as_str().to_owned());
        let roles = asked.roles.iter().map(|role| types.uid(&types.role, role.as_str())).collect();
        let vault = types.place(&TenantScope::All);
        let mut entities = vec![
            Entity::new(principal, [("kind".to_owned(), kind)].into(), roles).map_err(BadQuestion::new)?,
            Entity::with_uid(vault.clone()),
        ];
        let place = types.place(&asked.place);
        if *resource.type_name() == types.class {
            entities.push(Entity::new_no_attrs(resource.clone(), [place.clone()].into()));
        }
        if place != vault {
            entities.push(Entity::new_no_attrs(place, [vault].into()));
        }
        let entities = Entities::from_entities(entities, Some(&self.schema)).map_err(BadQuestion::new)?;
        Ok((request, entities))
    }
}

/// What policies name of a type, each once.
fn literals(set: &PolicySet, of: &EntityTypeName) -> Vec<EntityUid> {
    let all = set.policies().flat_map(cedar_policy::Policy::entity_literals);
    let named: BTreeSet<_> = all.filter(|uid| uid.type_name() == of).collect();
    named.into_iter().collect()
}

/// The schema does not know such a question; it has no answer but no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BadQuestion(String);

impl BadQuestion {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

fn schema() -> Result<Schema, PolicyError> {
    let (schema, warnings) =
        Schema::from_cedarschema_str(SCHEMA).map_err(|error| PolicyError::Schema(error.to_string()))?;
    match warnings.map(|warning| warning.to_string()).next() {
        Some(warning) => Err(PolicyError::Schema(warning)),
        None => Ok(schema),
    }
}

/// Reads policies and gives each the id that its `@id` says.
fn named(text: &str) -> Result<PolicySet, PolicyError> {
    let anonymous: PolicySet =
        text.parse().map_err(|error: cedar_policy::ParseErrors| PolicyError::Syntax(syntax(&error, text)))?;
    if anonymous.num_of_templates() > 0 {
        return Err(PolicyError::Template);
    }
    let mut set = PolicySet::new();
    for policy in anonymous.policies() {
        let id = policy.annotation("id");
        let id = id.ok_or_else(|| PolicyError::NoId(beginning(&policy.to_string())))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(PolicyError::BadId(beginning(id)));
        }
        set.add(policy.new_id(PolicyId::new(id))).map_err(|_| PolicyError::DuplicateId(id.to_owned()))?;
    }
    Ok(set)
}

/// A syntax error with its line, which Cedar gives as an offset.
fn syntax(errors: &cedar_policy::ParseErrors, text: &str) -> String {
    let described = errors.iter().map(|error| {
        let label = error.labels().and_then(|mut labels| labels.next());
        let before = label.and_then(|label| text.get(..label.offset()));
        let line = before.map(|before| before.matches('\n').count() + 1);
        line.map_or_else(|| error.to_string(), |line| format!("line {line}: {error}"))
    });
    described.collect::<Vec<_>>().join("; ")
}

fn beginning(policy: &str) -> String {
    policy.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(60).collect()
}

fn validate(set: &PolicySet, schema: &Schema) -> Result<(), PolicyError> {
    let result = Validator::new(schema.clone()).validate(set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|e| (e.policy_id().to_string(), e.to_string()));
    let warnings = result.validation_warnings().map(|w| (w.policy_id().to_string(), w.to_string()));
    let fault = |(id, reason)| InvalidPolicy { id, reason };
    let mut faults: Vec<_> = errors.map(fault).collect();
    if faults.is_empty() {
        faults = warnings.map(fault).collect();
    }
    faults.sort();
    faults.dedup();
    if faults.is_empty() { Ok(()) } else { Err(PolicyError::Invalid(faults)) }
}

/// The schema's entity types, parsed once.
struct Types {
    principal: EntityTypeName,
    role: EntityTypeName,
    action: EntityTypeName,
    purpose: EntityTypeName,
    vault: EntityTypeName,
    tenant: EntityTypeName,
    class: EntityTypeName,
}

impl Types {
    fn new() -> Result<Self, PolicyError> {
        let name = |name: &str| name.parse().map_err(|_| PolicyError::Schema(name.to_owned()));
        Ok(Self {
            principal: name("Principal")?,
            role: name("Role")?,
            action: name("Action")?,
            purpose: name("Purpose")?,
            vault: name("Vault")?,
            tenant: name("Tenant")?,
            class: name("DataClass")?,
        })
    }

    fn place(&self, place: &TenantScope) -> EntityUid {
        match place {
            TenantScope::One(tenant) => self.uid(&self.tenant, tenant.as_str()),
            TenantScope::All => self.uid(&self.vault, "vault"),
        }
    }

    #[expect(clippy::unused_self, reason = "reads better beside place()")]
    fn uid(&self, of: &EntityTypeName, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
