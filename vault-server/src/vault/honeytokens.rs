//! Honeytokens: values that nobody has any business with, planted by admins. Whoever touches one is answered as for any other.

use crate::access::{Action, Honeytoken, Honeytokens};
use crate::audit::{AuditAction, Item, LogError, Outcome};
use crate::domain::{EntityKind, EntityScope, KeyPurpose, Token};
use crate::store::Write;

use super::{Context, NewValue, Note, Problem, Refused, Vault};

/// How often a change is tried against others.
const ATTEMPTS: usize = 16;
/// Rows that are read at once.
const PAGE: usize = 1000;

impl Vault {
    /// The most characters a label has.
    pub const MAX_LABEL: usize = 128;

    /// Plants an invented value: its token is like any other. In force here when this returns, elsewhere within a second.
    pub async fn plant_honeytoken(
        &self,
        cx: &Context,
        tenant: &str,
        new: Result<NewValue, Refused>,
        label: Result<String, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Honeytoken, Refused> {
        const ACTION: AuditAction = AuditAction::HoneytokenChange;
        let fields = new.and_then(|new| Ok((new, label?, note?)));
        let (tenant, mut draft, (new, label, note)) =
            self.asked(cx, ACTION, Action::HoneytokenChange, tenant, fields).await?;
        note.into_draft(&mut draft);
        draft.details.push(("change", "planted".to_owned()));
        let accepted = match self.fitting(new) {
            Ok(accepted) => accepted,
            Err(problem) => return Err(self.log_refusal(draft, Vec::new(), problem.at("value")).await),
        };
        for _ in 0..ATTEMPTS {
            let generation = self.parts.store.entity(&Honeytokens::generation_place()).await?;
            let keys = self.write_keys(&tenant).await?;
            let now = self.parts.clock.now();
            let record = self.seal(&tenant, &keys, &accepted, now)?;
            let planted = Honeytoken {
                tenant: tenant.clone(),
                token: record.token,
                class: record.class.clone(),
                label: label.clone(),
                planted: now,
                planted_by: cx.caller.principal.id.clone(),
                touched: None,
                revision: 0,
            };
            let items = vec![Item::of_record(&record, Outcome::Ok)];
            let mut writes = vec![
                Write::PutEntity(Honeytokens::next_generation(generation.as_ref())),
                Write::PutEntity(planted.entity()),
                Write::Insert(record),
            ];
            writes.extend(keys.are_active());
            match self.parts.log.commit(draft.clone(), items, writes).await {
                Ok(_) => {
                    self.parts.honeytokens.look().await?;
                    return Ok(planted);
                }
                // Somebody else's change, or a rotation.
                Err(LogError::Conflict { .. }) => {
                    self.parts.keyring.forget(&tenant, KeyPurpose::Data);
                    self.parts.keyring.forget(&tenant, KeyPurpose::Index);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// Those of a tenant.
    pub async fn list_honeytokens(&self, cx: &Context, tenant: &str) -> Result<Vec<Honeytoken>, Refused> {
        let (tenant, draft, ()) =
            self.asked(cx, AuditAction::HoneytokenRead, Action::HoneytokenRead, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let scope = EntityScope::Tenant(EntityKind::Honeytoken, Some(tenant));
        let mut known = Vec::new();
        let mut after = None;
        loop {
            let page = self.parts.store.entities(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(known) };
            after = Some(last.place.clone());
            for entity in &page {
                known.push(Honeytoken::read(entity).ok_or_else(|| Problem::RecordCorrupt.whole())?);
            }
        }
    }

    /// From now on it is a token like any other, here when this returns and elsewhere within a second.
    pub async fn remove_honeytoken(
        &self,
        cx: &Context,
        tenant: &str,
        token: Result<Token, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<(), Refused> {
        const ACTION: AuditAction = AuditAction::HoneytokenChange;
        let fields = token.and_then(|token| Ok((token, note?)));
        let (tenant, mut draft, (token, note)) =
            self.asked(cx, ACTION, Action::HoneytokenChange, tenant, fields).await?;
        note.into_draft(&mut draft);
        draft.details.push(("change", "removed".to_owned()));
        let place = Honeytoken::place_of(&tenant, token);
        for _ in 0..ATTEMPTS {
            let generation = self.parts.store.entity(&Honeytokens::generation_place()).await?;
            let Some(there) = self.parts.store.entity(&place).await? else {
                let items = vec![Item::of_token(token, Outcome::Unknown)];
                return Err(self.log_refusal(draft, items, Problem::NotFound.at("token")).await);
            };
            let writes = vec![
                Write::PutEntity(Honeytokens::next_generation(generation.as_ref())),
                Write::DropEntity { place: place.clone(), revision: there.revision },
            ];
            let items = vec![Item::of_token(token, Outcome::Ok)];
            match self.parts.log.commit(draft.clone(), items, writes).await {
                Ok(_) => return Ok(self.parts.honeytokens.look().await?),
                Err(LogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::Overloaded.whole())
    }
}
