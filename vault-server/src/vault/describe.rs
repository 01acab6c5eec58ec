//! Tells what is known of tokens without PHI.

use crate::access::{Action, Question};
use crate::audit::{AuditAction, Item, Outcome};
use crate::domain::{Body, Record, Sealed, TenantId};
use crate::store::Lookup;

use super::{Context, ParsedToken, Problem, Refused, Vault, add_policies, decision, denied_tokens, whole};

/// A record without its sealed bytes.
pub struct Described(pub Box<Record>);

/// So many records are read at once.
const CHUNK: usize = 1024;

fn without_value(mut record: Box<Record>) -> Box<Record> {
    if let Body::Sealed { bytes, .. } = &mut record.body {
        *bytes = Sealed(Vec::new());
    }
    record
}

impl Vault {
    /// Describes tokens, item by item.
    pub async fn describe(
        &self,
        cx: &Context,
        asked_tenant: &str,
        tokens: Result<Vec<ParsedToken>, Refused>,
    ) -> Result<Vec<Result<Described, Problem>>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Describe, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Describe, &tenant);
        let tokens = match tokens {
            Ok(tokens) => tokens,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let question = whole(Action::Describe, None);
        self.allow(cx, &mut draft, &tenant, question, || denied_tokens(&tokens)).await?;
        let mut results = Vec::with_capacity(tokens.len());
        let mut items = Vec::with_capacity(tokens.len());
        for chunk in tokens.chunks(CHUNK) {
            let lookups = self.look_up(chunk).await?;
            for (token, lookup) in chunk.iter().zip(lookups) {
                let (result, item) = match token {
                    Err(problem) => (Err(problem.clone()), Item::invalid()),
                    Ok(token) => {
                        match self.visible(cx, &tenant, Action::Describe, lookup, &mut draft.policies) {
                            Ok(record) => {
                                let item = Item::of_record(&record, Outcome::Ok);
                                (Ok(Described(without_value(record))), item)
                            }
                            Err((problem, outcome)) => (Err(problem), Item::of_token(*token, outcome)),
                        }
                    }
                };
                results.push(result);
                items.push(item);
            }
        }
        draft.decision = decision(&items);
        self.parts.log.record(draft, items).await?;
        Ok(results)
    }

    /// A record of this tenant that the caller may do `action` with, or what to tell and what to log.
    pub(super) fn visible(
        &self,
        cx: &Context,
        tenant: &TenantId,
        action: Action,
        lookup: Option<Lookup>,
        policies: &mut std::collections::BTreeSet<String>,
    ) -> Result<Box<Record>, (Problem, Outcome)> {
        let record = match lookup {
            None | Some(Lookup::Missing) => return Err((Problem::NotFound, Outcome::Unknown)),
            Some(Lookup::Corrupt) => return Err((Problem::RecordCorrupt, Outcome::Corrupt)),
            Some(Lookup::Found(record)) => record,
        };
        if record.tenant != *tenant {
            return Err((Problem::NotFound, Outcome::ForeignTenant));
        }
        let verdict = self.decide(
            cx,
            tenant,
            Question { action, class: Some(&record.class), purpose: None, grant: None },
        );
        add_policies(policies, &verdict);
        if verdict.allowed { Ok(record) } else { Err((Problem::NotFound, Outcome::Denied)) }
    }
}
