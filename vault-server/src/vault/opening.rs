//! The way that detokenize and mask share: from tokens to a warrant for those that may be opened.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use crate::access::{GrantUse, OpenAction, Permit, Question, Verdict};
use crate::audit::{AuditAction, Draft, Item, Outcome, Receipt};
use crate::crypto::{DataKey, OpenError, Warrant};
use crate::domain::{ClassName, GrantId, KeyId, Record, TenantId, Token};
use crate::keyring::KeyringError;
use crate::store::Lookup;

use super::{
    Context, ParsedToken, Problem, Refused, Vault, add_policies, breathe, decision, warrant::warrant,
};

/// So many tokens are looked up at once; what of them may not be opened is dropped before the next ones.
const CHUNK: usize = 1024;

/// What became of one token before anything was opened.
enum Slot {
    /// Refused: what the caller is told.
    Refused(Problem),
    /// Record `n` of the warrant.
    Warranted(usize),
}

/// Tokens on the way to their values.
pub(super) struct Opening<A> {
    slots: Vec<Slot>,
    warrant: Option<Warrant<A>>,
    keys: HashMap<KeyId, Result<Arc<DataKey>, KeyringError>>,
    /// What it is done under: who looks at a grant must see what did not open, too.
    grant: Option<GrantId>,
}

/// Tokens, sorted so far.
pub(super) struct Sorting {
    slots: Vec<Slot>,
    /// What the log is told of each.
    pub(super) items: Vec<Item>,
    /// Records that policy allows to open, and their size.
    allowed: Vec<Record>,
    size: usize,
    /// Whether each class is allowed: what was looked up at once has many records of few. The permit decides again.
    classes: Vec<(ClassName, bool)>,
}

impl Vault {
    /// From tokens to a warrant. The entry is durable when this returns, and the keys are open.
    pub(super) async fn opening<A: OpenAction>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        mut draft: Draft,
        tokens: Vec<ParsedToken>,
    ) -> Result<Opening<A>, Refused> {
        let mut sorting = self.sorted::<A>(cx, tenant, &mut draft, &tokens, None).await?;
        let records = sorting.take_allowed();
        let (permit, verdicts) =
            self.parts.access.permit::<A>(&cx.caller, cx.request, tenant, draft.purpose, records);
        sorting.permitted(&permit, &verdicts, &mut draft);
        self.within_limits(cx, tenant, A::ACTION, &draft, &sorting.items).await?;
        if permit.records().is_empty() {
            return Box::pin(self.nothing_to_open(cx, draft, sorting)).await;
        }
        let grant = draft.grant;
        let receipt = self.before_open_watched(cx, draft, &permit, take(&mut sorting.items)).await?;
        self.opened(sorting, permit, &receipt, grant).await
    }

    /// Sorts tokens out: those whose records may be opened, under a grant if there is one, and what is told of the others.
    pub(super) async fn sorted<A: OpenAction>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        draft: &mut Draft,
        tokens: &[ParsedToken],
        using: Option<&GrantUse>,
    ) -> Result<Sorting, Refused> {
        let mut sorting = Sorting {
            slots: Vec::with_capacity(tokens.len()),
            items: Vec::with_capacity(tokens.len()),
            allowed: Vec::new(),
            size: 0,
            classes: Vec::new(),
        };
        for chunk in tokens.chunks(CHUNK) {
            let lookups = self.look_up(chunk).await?;
            // Policy may have changed meanwhile, and what is erased has no permit that decides again.
            sorting.classes.clear();
            for (token, lookup) in chunk.iter().zip(lookups) {
                self.sort::<A>(cx, tenant, (token, lookup), &mut sorting, draft, using);
            }
            if sorting.size > self.parts.limits.response_bytes {
                let items = undelivered(sorting.items, tokens);
                let refused = Problem::ResponseTooLarge.whole();
                return Err(self.log_refusal_watched(cx, draft.clone(), items, refused).await);
            }
        }
        Ok(sorting)
    }

    /// Puts it on record that no item is allowed.
    pub(super) async fn nothing_to_open<A>(
        &self,
        cx: &Context,
        mut draft: Draft,
        sorting: Sorting,
    ) -> Result<Opening<A>, Refused> {
        draft.cause = "no_item_allowed";
        let grant = draft.grant;
        self.record_watched(cx, draft, sorting.items).await?;
        Ok(Opening { slots: sorting.slots, warrant: None, keys: HashMap::new(), grant })
    }

    /// The warrant, now that there is a receipt, and the keys that it needs.
    pub(super) async fn opened<A: OpenAction>(
        &self,
        sorting: Sorting,
        permit: Permit<A>,
        receipt: &Receipt<A>,
        grant: Option<GrantId>,
    ) -> Result<Opening<A>, Refused> {
        let warrant = warrant(permit, receipt)?;
        let keys = self.parts.keyring.data_keys(&warrant).await;
        Ok(Opening { slots: sorting.slots, warrant: Some(warrant), keys, grant })
    }

    /// Records of the well-formed tokens, each at its token's place.
    pub(super) async fn look_up(&self, tokens: &[ParsedToken]) -> Result<Vec<Option<Lookup>>, Refused> {
        let good: Vec<Token> = tokens.iter().filter_map(|token| token.as_ref().ok().copied()).collect();
        let mut found = self.parts.store.records(&good).await?.into_iter();
        Ok(tokens.iter().map(|token| if token.is_ok() { found.next() } else { None }).collect())
    }

    /// Puts one token where it belongs. A record that may not be opened is let go at once.
    fn sort<A: OpenAction>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        (token, lookup): (&ParsedToken, Option<Lookup>),
        sorting: &mut Sorting,
        draft: &mut Draft,
        using: Option<&GrantUse>,
    ) {
        let (slot, item) = match token {
            Err(problem) => (Slot::Refused(problem.clone()), Item::invalid()),
            Ok(token) => match self.openable::<A>(cx, tenant, lookup, &mut sorting.classes, draft, using) {
                Err((problem, outcome, None)) => (Slot::Refused(problem), Item::of_token(*token, outcome)),
                Err((problem, outcome, Some(record))) => {
                    (Slot::Refused(problem), Item::of_record(&record, outcome))
                }
                Ok(record) if using.is_some_and(|using| sorting.allowed.len() >= using.left()) => {
                    (Slot::Refused(Problem::GrantState), Item::of_record(&record, Outcome::Denied))
                }
                Ok(record) => {
                    let item = Item::of_record(&record, Outcome::Ok);
                    sorting.size += record.sealed_len();
                    sorting.allowed.push(*record);
                    (Slot::Warranted(sorting.allowed.len() - 1), item)
                }
            },
        };
        sorting.slots.push(slot);
        sorting.items.push(item);
    }

    /// A record of this tenant that policy allows to open and that still has its value; or what the caller is told,
    /// what the log is told, and the record if the log may tell more of it (never of another tenant's).
    #[expect(clippy::type_complexity, reason = "three things to be told, used in one place")]
    fn openable<A: OpenAction>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        lookup: Option<Lookup>,
        classes: &mut Vec<(ClassName, bool)>,
        draft: &mut Draft,
        using: Option<&GrantUse>,
    ) -> Result<Box<Record>, (Problem, Outcome, Option<Box<Record>>)> {
        let record = match lookup {
            None | Some(Lookup::Missing) => return Err((Problem::NotFound, Outcome::Unknown, None)),
            Some(Lookup::Corrupt) => return Err((Problem::RecordCorrupt, Outcome::Corrupt, None)),
            Some(Lookup::Found(record)) => record,
        };
        if record.tenant != *tenant {
            return Err((Problem::NotFound, Outcome::ForeignTenant, None));
        }
        if using.is_some_and(|using| !using.covers(&record)) {
            return Err((Problem::NotFound, Outcome::Denied, Some(record)));
        }
        let known = classes.iter().find(|(class, _)| *class == record.class).map(|(_, allowed)| *allowed);
        let allowed = known.unwrap_or_else(|| {
            let question = Question {
                action: A::ACTION,
                class: Some(&record.class),
                purpose: draft.purpose,
                grant: using.map(GrantUse::seen),
            };
            let verdict = self.decide(cx, tenant, question);
            add_policies(&mut draft.policies, &verdict);
            classes.push((record.class.clone(), verdict.allowed));
            verdict.allowed
        });
        if !allowed {
            Err((Problem::NotFound, Outcome::Denied, Some(record)))
        } else if record.key_id().is_none() {
            // Whether it was erased is told only to those who could have had it.
            Err((Problem::Erased, Outcome::Erased, Some(record)))
        } else {
            Ok(record)
        }
    }

    /// Opens all that the warrant is for. Those that do not open get an entry of their own, since their request's entry
    /// says that they were allowed.
    pub(super) async fn open_all<A, T>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        opening: Opening<A>,
        open: impl Fn(&Warrant<A>, usize, &DataKey) -> Result<T, OpenError>,
    ) -> Result<Vec<Result<T, Problem>>, Refused> {
        let mut failed = Vec::new();
        let mut results = Vec::with_capacity(opening.slots.len());
        for (place, slot) in opening.slots.into_iter().enumerate() {
            let result = match (slot, &opening.warrant) {
                (Slot::Refused(problem), _) => Err(problem),
                (Slot::Warranted(_), None) => Err(Problem::Internal),
                (Slot::Warranted(n), Some(warrant)) => {
                    let result = open_one(warrant, n, &opening.keys, &open);
                    if let Err(problem) = &result {
                        failed.push(Item::of_record(&warrant.records()[n], not_opened(problem)));
                    }
                    result
                }
            };
            results.push(result);
            breathe(place).await;
        }
        if !failed.is_empty() {
            Box::pin(self.record_failed(cx, tenant, opening.grant, failed)).await?;
        }
        Ok(results)
    }

    /// Puts on record what was allowed but did not open.
    async fn record_failed(
        &self,
        cx: &Context,
        tenant: &TenantId,
        grant: Option<GrantId>,
        failed: Vec<Item>,
    ) -> Result<(), Refused> {
        let corrupt = failed.iter().filter(|item| item.outcome == Outcome::Corrupt).count();
        if corrupt > 0 {
            tracing::error!(request = %cx.request, corrupt, "records do not open: tampered or corrupt");
        }
        let mut draft = cx.draft(AuditAction::OpenFailed, tenant);
        draft.grant = grant;
        draft.cause = if corrupt > 0 { "record_corrupt" } else { "not_opened" };
        draft.decision = decision(&failed);
        self.parts.log.record(draft, failed).await?;
        Ok(())
    }
}

fn open_one<A, T>(
    warrant: &Warrant<A>,
    n: usize,
    keys: &HashMap<KeyId, Result<Arc<DataKey>, KeyringError>>,
    open: &impl Fn(&Warrant<A>, usize, &DataKey) -> Result<T, OpenError>,
) -> Result<T, Problem> {
    let id = warrant.records()[n].key_id().ok_or(Problem::Erased)?;
    match keys.get(&id) {
        Some(Ok(key)) => open(warrant, n, key).map_err(Problem::from),
        Some(Err(error)) => Err(error.clone().into()),
        None => Err(Problem::Internal),
    }
}

/// What the log says of a record that was allowed but did not open.
fn not_opened(problem: &Problem) -> Outcome {
    match problem {
        Problem::RecordCorrupt => Outcome::Corrupt,
        Problem::KeyDestroyed | Problem::KeyUnusable => Outcome::KeyUnusable,
        _ => Outcome::Failed,
    }
}

impl Sorting {
    /// The records that may be opened, for a permit.
    pub(super) fn take_allowed(&mut self) -> Vec<Record> {
        take(&mut self.allowed)
    }

    /// Policy may have changed since the records were sorted: the permit has the last word. What is left is numbered as
    /// in the permit.
    pub(super) fn permitted<A>(&mut self, permit: &Permit<A>, verdicts: &[Verdict], draft: &mut Draft) {
        draft.policies.extend(permit.policies().iter().cloned());
        let mut allowed = 0;
        for (slot, item) in self.slots.iter_mut().zip(&mut self.items) {
            let Slot::Warranted(n) = *slot else { continue };
            if verdicts[n].allowed {
                *slot = Slot::Warranted(allowed);
                allowed += 1;
            } else {
                *slot = Slot::Refused(Problem::NotFound);
                item.outcome = Outcome::Denied;
                add_policies(&mut draft.policies, &verdicts[n]);
            }
        }
        draft.decision = decision(&self.items);
    }
}

/// The items of a request that was given up: none of its values was delivered.
fn undelivered(sorted: Vec<Item>, tokens: &[ParsedToken]) -> Vec<Item> {
    let rest = tokens[sorted.len()..].iter().map(|token| match token {
        Ok(token) => Item::of_token(*token, Outcome::Failed),
        Err(_) => Item::invalid(),
    });
    let ended = |item: Item| match item.outcome {
        Outcome::Ok => Item { outcome: Outcome::Failed, ..item },
        _ => item,
    };
    sorted.into_iter().map(ended).chain(rest).collect()
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
