//! Gives values under a grant. Each value counts, in the commit of the entry that says it is opened.

use std::time::Duration;

use crate::access::{Action, AlertKind, Grant, GrantScope, GrantUse, Question};
use crate::audit::{AuditAction, Decision, Draft, Item, LogError, Outcome};
use crate::crypto::Detokenize;
use crate::domain::{ClassName, GrantId, Purpose, TenantId, Token};
use crate::store::{Lookup, Write};
use crate::vault::opening::Opening;
use crate::vault::{Opened, ParsedToken, denied_tokens};

use super::{Context, Problem, Refused, Seen, Vault};

/// What one token came to.
pub struct Revealed {
    /// The token, if it was one.
    pub token: Option<Token>,
    /// Its class and value.
    pub outcome: Result<(ClassName, Opened), Problem>,
}

/// How often a use is tried against others of the same grant: each time it does not come to pass, another did, and a grant
/// is good for so many.
const ATTEMPTS: u32 = 64;
/// Tokens of a person that are looked up at once, and shown with one call.
const PAGE: usize = 256;
const MOST: usize = 1000;

impl Vault {
    /// Values of the tokens under a grant; without tokens, of all that the grant is about.
    pub async fn reveal(
        &self,
        cx: &Context,
        asked_tenant: &str,
        id: Result<GrantId, Refused>,
        tokens: Vec<ParsedToken>,
    ) -> Result<(Vec<Revealed>, Grant), Refused> {
        let tenant = self.tenant(cx, AuditAction::Detokenize, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Detokenize, &tenant);
        draft.purpose = Some(Purpose::BreakTheGlass);
        let id = match id {
            Ok(_) if tokens.len() > MOST => Err(Problem::TooManyItems { most: MOST }.at("tokens")),
            id => id,
        };
        let id = match id {
            Ok(id) => id,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        for attempt in 0..ATTEMPTS {
            let mut draft = draft.clone();
            let Seen { grant, revision } = self.look_for(&mut draft, &tenant, id).await?;
            let known = self.grants_known.for_how_long(&grant);
            let using = match grant.use_by(&cx.caller, self.parts.clock.now(), known) {
                Ok(using) => using,
                Err(refusal) => {
                    return Err(self.not_with_grant(draft, denied_tokens(&tokens), refusal).await);
                }
            };
            self.in_the_name_of(&mut draft, &grant);
            let question = Question {
                action: Action::Detokenize,
                class: None,
                purpose: draft.purpose,
                grant: Some(using.seen()),
            };
            self.allow(cx, &mut draft, &tenant, question, || denied_tokens(&tokens)).await?;
            let wanted = if tokens.is_empty() { self.all_of(&tenant, &grant).await? } else { tokens.clone() };
            let seen = Seen { grant, revision };
            match self.count(cx, &tenant, draft, &wanted, seen, (&using, attempt == 0)).await? {
                Some((opening, grant)) => {
                    return self.revealed(cx, &tenant, opening, &wanted, grant).await;
                }
                None => rest(attempt).await?,
            }
        }
        Err(self.log_refusal(draft, denied_tokens(&tokens), Problem::Overloaded.whole()).await)
    }

    #[expect(clippy::unused_self, reason = "one of a kind with the others")]
    fn in_the_name_of(&self, draft: &mut Draft, grant: &Grant) {
        let terms = grant.terms();
        draft.reason.clone_from(&terms.reason);
        draft.ticket.clone_from(&terms.ticket);
        draft.details.push(("reason_code", terms.reason_code.clone()));
    }

    /// Sorts the tokens out, and writes that those which may be opened are: the entry, the count and, the first time, the
    /// alert, in one commit. `None`: somebody else was faster; look again.
    async fn count(
        &self,
        cx: &Context,
        tenant: &TenantId,
        mut draft: Draft,
        tokens: &[ParsedToken],
        seen: Seen,
        (using, is_first): (&GrantUse, bool),
    ) -> Result<Option<(Opening<Detokenize>, Grant)>, Refused> {
        let Seen { grant, revision } = seen;
        let mut sorting = self.sorted::<Detokenize>(cx, tenant, &mut draft, tokens, Some(using)).await?;
        let records = sorting.take_allowed();
        let (permit, verdicts) =
            self.parts.access.permit_under(&cx.caller, cx.request, tenant, using, records);
        sorting.permitted(&permit, &verdicts, &mut draft);
        let count = permit.records().len();
        if count == 0 {
            if tokens.is_empty() {
                // A person of whom nothing is kept.
                draft.decision = Decision::Deny;
                sorting.items = names(&grant);
            }
            return Ok(Some((self.nothing_to_open(cx, draft, sorting).await?, grant)));
        }
        // A limit is of the principal, whatever it does by: once for each request.
        if is_first {
            self.within_limits(cx, tenant, Action::Detokenize, &draft, &sorting.items).await?;
        }
        let next = match grant.used(using, count) {
            Ok(next) => next,
            Err(refusal) => {
                return Err(self.not_with_grant(draft, denied_tokens(tokens), refusal).await);
            }
        };
        let entity = next.entity(revision + 1).ok_or_else(|| Problem::Internal.whole())?;
        let mut writes = vec![Write::PutEntity(entity)];
        if grant.first_used().is_none() {
            draft.details.push(("emergency_override", "started".to_owned()));
            writes.push(self.grant_alert(cx, AlertKind::GrantFirstUse, &next)?);
        }
        draft.details.push(("values_seen", next.seen().to_string()));
        let items = std::mem::take(&mut sorting.items);
        let touched = self.honeytokens_among(&draft, &items);
        let (draft, mut beside, fresh) = self.tell(cx, draft, &items, &touched)?;
        beside.writes.splice(0..0, writes);
        match self.parts.log.before_open_with(draft, &permit, items, beside).await {
            Ok(receipt) => {
                self.parts.honeytokens.learn(&fresh);
                let id = Some(next.terms().id);
                Ok(Some((self.opened(sorting, permit, &receipt, id).await?, next)))
            }
            Err(LogError::Conflict { .. }) => {
                self.parts.honeytokens.refresh(&fresh).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens what was counted.
    async fn revealed(
        &self,
        cx: &Context,
        tenant: &TenantId,
        opening: Opening<Detokenize>,
        tokens: &[ParsedToken],
        grant: Grant,
    ) -> Result<(Vec<Revealed>, Grant), Refused> {
        let values = self
            .open_all(cx, tenant, opening, |warrant, n, key| {
                let class = warrant.records()[n].class.clone();
                Ok((class, self.open_value(warrant, n, key)?))
            })
            .await?;
        let revealed = tokens.iter().zip(values);
        let revealed = revealed
            .map(|(token, outcome)| Revealed { token: token.as_ref().ok().copied(), outcome })
            .collect();
        // That it is used up is put on record now if that can be, or by the sweep.
        let grant = match self.look(tenant, grant.terms().id).await {
            Ok(Some(Seen { grant, .. })) => grant,
            Ok(None) | Err(_) => grant,
        };
        Ok((revealed, grant))
    }

    /// All tokens that a grant is about: for a person those of its classes, so many at the most.
    async fn all_of(&self, tenant: &TenantId, grant: &Grant) -> Result<Vec<ParsedToken>, Refused> {
        let names = match &grant.terms().scope {
            GrantScope::Tokens(tokens) => return Ok(tokens.iter().copied().map(Ok).collect()),
            GrantScope::Subject(names) => names,
        };
        let mut all = Vec::new();
        for name in names {
            let mut after = None;
            loop {
                let page = self.parts.store.tokens_of_subject(tenant, *name, after, PAGE).await?;
                let Some(last) = page.last().copied() else { break };
                after = Some(last);
                for lookup in self.parts.store.records(&page).await? {
                    match lookup {
                        // An index row may be stale or may have been moved: the record has the last word.
                        Lookup::Found(record)
                            if record.subject == Some(*name)
                                && grant.terms().classes.contains(&record.class) =>
                        {
                            all.push(Ok(record.token));
                        }
                        Lookup::Found(_) | Lookup::Missing => {}
                        Lookup::Corrupt => return Err(Problem::RecordCorrupt.whole()),
                    }
                    if all.len() >= MOST {
                        return Ok(all);
                    }
                }
            }
        }
        Ok(all)
    }
}

/// Whom a grant is about, for the entry of a look that found nothing.
fn names(grant: &Grant) -> Vec<Item> {
    match &grant.terms().scope {
        GrantScope::Tokens(_) => Vec::new(),
        GrantScope::Subject(names) => {
            let item = |name: &_| Item { subject: Some(*name), outcome: Outcome::Unknown, ..Item::invalid() };
            names.iter().map(item).collect()
        }
    }
}

/// Lets others have their turn, for a time of which no two know.
async fn rest(attempt: u32) -> Result<(), Refused> {
    let most = u64::from(attempt.min(15) + 1) * 2_000;
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| Problem::Internal.whole())?;
    tokio::time::sleep(Duration::from_micros(u64::from_le_bytes(bytes) % most)).await;
    Ok(())
}
