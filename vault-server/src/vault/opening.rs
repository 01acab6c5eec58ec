//! The way that detokenize and mask share: from tokens to a warrant for those that may be opened.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::{OpenAction, Question, Verdict};
use crate::audit::{AuditAction, Draft, Item, Outcome};
use crate::crypto::{DataKey, OpenError, Warrant};
use crate::domain::{Body, KeyId, Purpose, Record, TenantId, Token};
use crate::keyring::KeyringError;
use crate::store::Lookup;

use super::{
    Context, ParsedToken, Problem, Refused, Vault, add_policies, breathe, decision, warrant::warrant,
};

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
}

/// A token's record, or why there is none, with its entry for the log.
struct Sorted {
    slot: Slot,
    item: Item,
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
        let lookups = self.look_up(&tokens).await?;
        let mut sealed = Vec::new();
        let mut sorted = Vec::with_capacity(tokens.len());
        for (token, lookup) in tokens.into_iter().zip(lookups) {
            sorted.push(self.sort::<A>(cx, tenant, draft.purpose, token, lookup, &mut sealed, &mut draft));
        }
        let size: usize = sealed.iter().map(Record::sealed_len).sum();
        if size > self.parts.limits.response_bytes {
            let items =
                sorted.into_iter().map(|sorted| Item { outcome: Outcome::Denied, ..sorted.item }).collect();
            return Err(self.log_refusal(draft, items, Problem::ResponseTooLarge.whole()).await);
        }
        let (permit, verdicts) =
            self.parts.access.permit::<A>(&cx.caller, cx.request, tenant, draft.purpose, sealed);
        apply(&mut sorted, &verdicts, &mut draft);
        let (slots, items): (Vec<_>, Vec<_>) = sorted.into_iter().map(|s| (s.slot, s.item)).unzip();
        draft.decision = decision(&items);
        if permit.records().is_empty() {
            draft.cause = "no_item_allowed";
            self.parts.log.record(draft, items).await?;
            return Ok(Opening { slots, warrant: None, keys: HashMap::new() });
        }
        let receipt = self.parts.log.before_open(draft, &permit, items).await?;
        let warrant = warrant(permit, &receipt)?;
        let keys = self.parts.keyring.data_keys(&warrant).await;
        Ok(Opening { slots, warrant: Some(warrant), keys })
    }

    /// Records of the well-formed tokens, each at its token's place.
    pub(super) async fn look_up(&self, tokens: &[ParsedToken]) -> Result<Vec<Option<Lookup>>, Refused> {
        let good: Vec<Token> = tokens.iter().filter_map(|token| token.as_ref().ok().copied()).collect();
        let mut found = self.parts.store.records(&good).await?.into_iter();
        Ok(tokens.iter().map(|token| if token.is_ok() { found.next() } else { None }).collect())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `opening`, with its whole state")]
    fn sort<A: OpenAction>(
        &self,
        cx: &Context,
        tenant: &TenantId,
        purpose: Option<Purpose>,
        token: ParsedToken,
        lookup: Option<Lookup>,
        sealed: &mut Vec<Record>,
        draft: &mut Draft,
    ) -> Sorted {
        let token = match token {
            Ok(token) => token,
            Err(problem) => return Sorted { slot: Slot::Refused(problem), item: Item::invalid() },
        };
        let refused = |problem, item| Sorted { slot: Slot::Refused(problem), item };
        match lookup {
            None | Some(Lookup::Missing) => {
                refused(Problem::NotFound, Item::of_token(token, Outcome::Unknown))
            }
            Some(Lookup::Corrupt) => refused(Problem::RecordCorrupt, Item::of_token(token, Outcome::Corrupt)),
            Some(Lookup::Found(record)) if record.tenant != *tenant => {
                refused(Problem::NotFound, Item::of_record(&record, Outcome::ForeignTenant))
            }
            Some(Lookup::Found(record)) => match record.body {
                // Whether it was erased is told only to those who could have had it.
                Body::Erased { .. } => {
                    let question = Question { action: A::ACTION, class: Some(&record.class), purpose };
                    let verdict = self.decide(cx, tenant, question);
                    add_policies(&mut draft.policies, &verdict);
                    if verdict.allowed {
                        refused(Problem::Erased, Item::of_record(&record, Outcome::Erased))
                    } else {
                        refused(Problem::NotFound, Item::of_record(&record, Outcome::Denied))
                    }
                }
                Body::Sealed { .. } => {
                    let item = Item::of_record(&record, Outcome::Ok);
                    sealed.push(*record);
                    Sorted { slot: Slot::Warranted(sealed.len() - 1), item }
                }
            },
        }
    }

    /// Opens all that the warrant is for. Records that do not open get an entry of their own.
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
                    let record = &warrant.records()[n];
                    let result = open_one(warrant, n, &opening.keys, &open);
                    if let Err(Problem::RecordCorrupt) = result {
                        failed.push(Item::of_record(record, Outcome::Corrupt));
                    }
                    result
                }
            };
            results.push(result);
            breathe(place).await;
        }
        if !failed.is_empty() {
            tracing::error!(request = %cx.request, records = failed.len(), "records do not open: tampered or corrupt");
            let mut draft = cx.draft(AuditAction::OpenFailed, tenant);
            draft.cause = "record_corrupt";
            draft.decision = decision(&failed);
            self.parts.log.record(draft, failed).await?;
        }
        Ok(results)
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

/// Puts the verdicts on the sealed records into their slots and items; what is left is numbered as in the permit.
fn apply(sorted: &mut [Sorted], verdicts: &[Verdict], draft: &mut Draft) {
    let mut allowed = 0;
    for Sorted { slot, item } in sorted {
        let Slot::Warranted(n) = *slot else { continue };
        let verdict = &verdicts[n];
        add_policies(&mut draft.policies, verdict);
        if verdict.allowed {
            *slot = Slot::Warranted(allowed);
            allowed += 1;
        } else {
            *slot = Slot::Refused(Problem::NotFound);
            item.outcome = Outcome::Denied;
        }
    }
}
