//! Asks for a grant.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::access::{Action, AlertKind, Grant, GrantScope, Party, Terms};
use crate::audit::{AuditAction, Draft, Item, Outcome};
use crate::crypto;
use crate::domain::{
    ClassName, GrantId, IdempotencyKey, SecondFactorAction, SubjectId, SubjectRef, TenantId, Timestamp, Token,
};
use crate::store::{Lookup, Write};
use crate::vault::request::Words;

use super::desk::{self, Desk};
use super::pending::Pending;
use super::{ATTEMPTS, Beside, Context, Problem, Refused, Seen, Touch, Vault, about, classes, seconds};
use crate::vault::{GivenFactor, ParsedToken};

/// What a grant is asked for about.
pub enum AskedScope {
    /// Tokens.
    Tokens(Vec<ParsedToken>),
    /// All values of a person.
    Subject(SubjectId),
}

/// A grant as it is asked for.
pub struct GrantAsked {
    /// About what.
    pub scope: AskedScope,
    /// Classes of values that may be seen.
    pub classes: Vec<ClassName>,
    /// Why.
    pub reason_code: String,
    /// In words.
    pub reason: String,
    /// A case number.
    pub ticket: String,
    /// How long it is to be good for, in seconds; 0: the default.
    pub duration: u32,
    /// How many values; 0: the default.
    pub values: u32,
    /// Names the request, so that it may be repeated.
    pub key: IdempotencyKey,
    /// The second factor.
    pub factor: Option<GivenFactor>,
}

/// The most tokens that one grant may be about.
const MOST_TOKENS: usize = 256;
/// The most classes that one may name.
const MOST_CLASSES: usize = 64;
/// One that is refused since so many are open may be asked for again when one of them is over.
const AGAIN: Duration = Duration::from_mins(1);

impl Vault {
    /// Asks for a grant; the same that was asked for under the same idempotency key.
    pub async fn request_grant(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<GrantAsked, Refused>,
    ) -> Result<Grant, Refused> {
        let (tenant, mut draft, mut asked) =
            self.asked(cx, AuditAction::GrantRequest, Action::GrantRequest, tenant, asked).await?;
        self.person(cx, &draft).await?;
        let factor = asked.factor.take();
        let (terms, items) = match self.terms(cx, &tenant, asked).await {
            Ok(known) => known,
            Err((refused, items)) => return Err(self.log_refusal(draft, items, refused).await),
        };
        describe(&mut draft, &terms);
        if let Some(grant) = self.repeated(&draft, &items, &terms).await? {
            return Ok(grant);
        }
        // What would be refused anyway is refused before a touch is used up.
        self.desk(&draft, &terms).await?;
        let touch = self.touched(cx, &draft, SecondFactorAction::GrantRequest, factor).await?;
        self.begin_grant(cx, draft, items, terms, touch).await
    }

    async fn begin_grant(
        &self,
        cx: &Context,
        mut draft: Draft,
        items: Vec<Item>,
        terms: Terms,
        touch: Touch,
    ) -> Result<Grant, Refused> {
        draft.details.push(("security_key", touch.key().to_owned()));
        let requester = terms.requester.clone().touched(touch.key());
        let terms = Terms { requester, ..terms };
        let touch = touch.into_writes();
        for _ in 0..ATTEMPTS {
            if let Some(grant) = self.repeated(&draft, &items, &terms).await? {
                return Ok(grant);
            }
            let mut desk = self.desk(&draft, &terms).await?;
            desk.grants.push((terms.tenant.clone(), terms.id));
            let grant = Grant::asked(terms.clone());
            let mut writes = vec![Write::PutEntity(desk.entity()), Pending::begin(&terms.tenant, terms.id)];
            writes.push(self.grant_alert(cx, AlertKind::GrantRequested, &grant)?);
            if grant.is_unapproved() {
                writes.push(self.grant_alert(cx, AlertKind::GrantUnapproved, &grant)?);
            }
            let beside = Beside { writes, touch: touch.clone() };
            let put = self.put_grant(draft.clone(), items.clone(), (grant, None), beside).await?;
            if let Some(Seen { grant, .. }) = put {
                self.grants_known.for_how_long(&grant);
                return Ok(grant);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// What was asked for under the same idempotency key before. Another request under it is refused.
    async fn repeated(&self, draft: &Draft, items: &[Item], terms: &Terms) -> Result<Option<Grant>, Refused> {
        let Some(Seen { grant, .. }) = self.look(&terms.tenant, terms.id).await? else { return Ok(None) };
        let mut draft = draft.clone();
        if !grant.terms().asks_the_same(terms) {
            let refused = Problem::IdempotencyConflict.at("idempotency_key");
            return Err(self.log_refusal(draft, items.to_vec(), refused).await);
        }
        draft.details.push(("repeated", "true".to_owned()));
        self.parts.log.record(draft, items.to_vec()).await?;
        Ok(Some(grant))
    }

    /// The requester's desk, without what is settled. Refused if there is no place for one more.
    async fn desk(&self, draft: &Draft, terms: &Terms) -> Result<Desk, Refused> {
        let place = Desk::place(&terms.requester.principal);
        let entity = self.parts.store.entity(&place).await?;
        let mut desk = Desk::read(place, entity.as_ref()).ok_or_else(|| self.corrupt(terms.id))?;
        let now = self.parts.clock.now();
        let (mut unsettled, mut open, mut overdue) = (Vec::new(), 0, false);
        for (tenant, id) in std::mem::take(&mut desk.grants) {
            let Some(Seen { grant, .. }) = self.look(&tenant, id).await? else {
                return Err(self.corrupt(id));
            };
            open += usize::from(grant.state().is_open());
            overdue |= grant.is_overdue(now);
            if !grant.state().is_settled() {
                unsettled.push((tenant, id));
            }
        }
        desk.grants = unsettled;
        let problem = if overdue || desk.grants.len() >= desk::MOST {
            Problem::ReviewOverdue
        } else if open >= self.parts.grants.max_open {
            Problem::LimitReached { limit: "open_grants", again: AGAIN }
        } else {
            return Ok(desk);
        };
        Err(self.log_refusal(draft.clone(), Vec::new(), problem.whole()).await)
    }

    /// What is asked for, checked.
    async fn terms(
        &self,
        cx: &Context,
        tenant: &TenantId,
        asked: GrantAsked,
    ) -> Result<(Terms, Vec<Item>), (Refused, Vec<Item>)> {
        let rules = &self.parts.grants;
        let bare = |refused: Refused| (refused, Vec::new());
        let GrantAsked { scope, classes, reason_code, reason, ticket, duration, values, key, .. } = asked;
        let id = grant_id(self.parts.identity.vault.as_bytes(), tenant, cx, &key);
        let classes = self.known_classes(classes).map_err(bare)?;
        if !rules.reason_codes.contains(&reason_code) {
            return Err(bare(
                Problem::Field("one of the reason codes of the configuration").at("reason_code"),
            ));
        }
        let reason = Words::REASON.parse(reason, "reason").map_err(bare)?;
        let ticket = Words::TICKET.parse(ticket, "ticket").map_err(bare)?;
        let duration = match duration {
            0 => seconds(rules.duration.min(rules.max_duration(tenant))),
            n if n <= seconds(rules.max_duration(tenant)) => n,
            _ => {
                return Err(bare(Problem::Field("no longer than the configuration allows").at("duration_s")));
            }
        };
        let most = rules.max_values(tenant);
        let (scope, items) = self.scope_of(tenant, scope).await?;
        let usual = match &scope {
            GrantScope::Tokens(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            GrantScope::Subject(_) => rules.values.min(most),
        };
        let values = if values == 0 { usual } else { values };
        if values > most {
            return Err((Problem::Field("no more than the configuration allows").at("values"), items));
        }
        let terms = Terms {
            id,
            tenant: tenant.clone(),
            requester: Party::of(&cx.caller),
            scope,
            classes,
            reason_code,
            reason,
            ticket,
            duration,
            values,
            approvals_needed: rules.approvals(tenant),
            wait: seconds(rules.wait),
            review_within: seconds(rules.review_within),
            requested: self.parts.clock.now().max(Timestamp(1)),
        };
        Ok((terms, items))
    }

    fn known_classes(&self, classes: Vec<ClassName>) -> Result<Vec<ClassName>, Refused> {
        if !(1..=MOST_CLASSES).contains(&classes.len()) {
            return Err(Problem::Field("1 to 64 data classes").at("scope.data_classes"));
        }
        if let Some(at) = classes.iter().position(|class| self.parts.classes.get(class).is_none()) {
            return Err(Problem::ClassUnknown.at(format!("scope.data_classes[{at}]")));
        }
        Ok(classes.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn scope_of(
        &self,
        tenant: &TenantId,
        scope: AskedScope,
    ) -> Result<(GrantScope, Vec<Item>), (Refused, Vec<Item>)> {
        match scope {
            AskedScope::Tokens(tokens) => self.scope_of_tokens(tenant, &tokens).await,
            AskedScope::Subject(subject) => {
                let bare = |refused: Refused| (refused, Vec::new());
                let keys =
                    self.parts.keyring.index_keys_now(tenant).await.map_err(|error| bare(error.into()))?;
                let names: Vec<SubjectRef> =
                    keys.iter().map(|key| crypto::subject_ref(key, &subject)).collect();
                if names.is_empty() {
                    // The tenant has kept nothing of anybody.
                    return Err(bare(Problem::NotFound.at("scope.subject")));
                }
                let item = |name: &SubjectRef| Item {
                    subject: Some(*name),
                    outcome: Outcome::Ok,
                    ..Item::invalid()
                };
                let items = names.iter().map(item).collect();
                Ok((GrantScope::Subject(names), items))
            }
        }
    }

    /// All of the tenant's, or none.
    async fn scope_of_tokens(
        &self,
        tenant: &TenantId,
        tokens: &[ParsedToken],
    ) -> Result<(GrantScope, Vec<Item>), (Refused, Vec<Item>)> {
        if !(1..=MOST_TOKENS).contains(&tokens.len()) {
            let rule = Problem::Field("1 to 256 tokens, or a subject").at("scope.tokens");
            return Err((rule, Vec::new()));
        }
        let lookups = self.look_up(tokens).await.map_err(|refused| (refused, Vec::new()))?;
        let mut scope: Vec<Token> = Vec::with_capacity(tokens.len());
        let mut items = Vec::with_capacity(tokens.len());
        let mut wrong: Option<Refused> = None;
        for (at, (token, lookup)) in tokens.iter().zip(lookups).enumerate() {
            let (problem, item) = match (token, lookup) {
                (Err(problem), _) => (Some(problem.clone()), Item::invalid()),
                (Ok(token), Some(Lookup::Found(record))) if record.tenant == *tenant => {
                    if !scope.contains(token) {
                        scope.push(*token);
                    }
                    (None, Item::of_record(&record, Outcome::Ok))
                }
                (Ok(token), Some(Lookup::Found(_))) => {
                    (Some(Problem::NotFound), Item::of_token(*token, Outcome::ForeignTenant))
                }
                (Ok(token), Some(Lookup::Corrupt)) => {
                    (Some(Problem::RecordCorrupt), Item::of_token(*token, Outcome::Corrupt))
                }
                (Ok(token), Some(Lookup::Missing) | None) => {
                    (Some(Problem::NotFound), Item::of_token(*token, Outcome::Unknown))
                }
            };
            items.push(item);
            if let (None, Some(problem)) = (&wrong, problem) {
                wrong = Some(problem.at(format!("scope.tokens[{at}]")));
            }
        }
        match wrong {
            None => Ok((GrantScope::Tokens(scope), items)),
            Some(refused) => {
                let denied = items.into_iter().map(|item| match item.outcome {
                    Outcome::Ok => Item { outcome: Outcome::Denied, ..item },
                    _ => item,
                });
                Err((refused, denied.collect()))
            }
        }
    }
}

/// One id for each idempotency key of a caller's, so that the store itself lets there be one grant.
fn grant_id(vault: &[u8; 16], tenant: &TenantId, cx: &Context, key: &IdempotencyKey) -> GrantId {
    let mut hash = Sha256::new();
    hash.update(b"phi-vault grant id v1\0");
    hash.update(vault);
    for part in [tenant.as_str(), cx.caller.principal.id.as_str(), key.as_str()] {
        // All three have at most 128 characters.
        hash.update([u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        hash.update(part);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    let (id, _) = bytes.split_first_chunk::<16>().expect("32 bytes begin with 16");
    GrantId::from_bytes(*id)
}

fn describe(draft: &mut Draft, terms: &Terms) {
    draft.grant = Some(terms.id);
    draft.reason.clone_from(&terms.reason);
    draft.ticket.clone_from(&terms.ticket);
    let grant = Grant::asked(terms.clone());
    draft.details.extend([
        ("reason_code", terms.reason_code.clone()),
        ("about", about(&grant)),
        ("data_classes", classes(&grant)),
        ("values_allowed", terms.values.to_string()),
        ("duration_s", terms.duration.to_string()),
        ("approvals_needed", terms.approvals_needed.to_string()),
    ]);
}
