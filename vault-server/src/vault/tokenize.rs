//! Takes values in.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use crate::access::{Action, Question};
use crate::audit::{AuditAction, Decision, Draft, Item, LogError, Outcome};
use crate::crypto::{self, DataKey, Fingerprint, IndexKey, Place};
use crate::domain::class::{DataClass, InvalidValue, Normalized};
use crate::domain::{Body, IdempotencyKey, KeyPurpose, Record, TenantId, Timestamp, Token};
use crate::store::{Remembered, Write};

use super::{Context, NewValue, Problem, Refused, Vault, add_policies, breathe, decision, denied, whole};

/// A value that may be kept.
pub(super) struct Accepted<'a> {
    class: &'a DataClass,
    new: NewValue,
    normalized: Normalized,
}

/// The items of a request, after validation.
type Judged<'a> = Vec<Result<Accepted<'a>, Problem>>;

/// The keys that a write needs.
pub(super) struct WriteKeys {
    data: Arc<DataKey>,
    index: Arc<IndexKey>,
}

impl WriteKeys {
    /// That they are active still is a condition of every write that they were used for.
    pub(super) fn are_active(&self) -> [Write; 2] {
        [Write::Active(self.data.id()), Write::Active(self.index.id())]
    }
}

/// How an idempotent write ended.
enum Attempt {
    Done(Vec<Option<Token>>),
    /// Somebody else's write of the same key came first: look again.
    Raced,
    /// A key was replaced meanwhile: seal under the new one.
    Rotated,
}

impl Vault {
    /// Keeps values, item by item, and gives their tokens.
    pub async fn tokenize(
        &self,
        cx: &Context,
        asked_tenant: &str,
        items: Result<Vec<Result<NewValue, Refused>>, Refused>,
        idempotency: Result<Option<IdempotencyKey>, Refused>,
    ) -> Result<Vec<Result<Token, Problem>>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Tokenize, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Tokenize, &tenant);
        let (items, idempotency) = match items.and_then(|items| Ok((items, idempotency?))) {
            Ok(checked) => checked,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let count = items.len();
        self.allow(cx, &mut draft, &tenant, whole(Action::Tokenize, None), || {
            std::iter::repeat_with(denied).take(count).collect()
        })
        .await?;
        let judged = self.judge(cx, &tenant, items, &mut draft);
        if judged.iter().all(Result::is_err) {
            draft.decision = Decision::Deny;
            draft.cause = "no_item_allowed";
            let items = judged.iter().map(refused_item).collect();
            Box::pin(self.parts.log.record(draft, items)).await?;
            return Ok(judged
                .into_iter()
                .map(|item| item.map_or_else(Err, |_| Err(Problem::Internal)))
                .collect());
        }
        let tokens = self.keep_once(cx, &draft, &tenant, &judged, idempotency.as_ref()).await?;
        Ok(judged
            .into_iter()
            .zip(tokens)
            .map(|(item, token)| item.and_then(|_| token.ok_or(Problem::IdempotencyConflict)))
            .collect())
    }

    /// Which items may be kept.
    fn judge(
        &self,
        cx: &Context,
        tenant: &TenantId,
        items: Vec<Result<NewValue, Refused>>,
        draft: &mut Draft,
    ) -> Judged<'_> {
        items
            .into_iter()
            .map(|item| {
                let new = item.map_err(|refused| refused.problem)?;
                let class = self.parts.classes.get(&new.class).ok_or(Problem::ClassUnknown)?;
                let question = Question {
                    action: Action::Tokenize,
                    class: Some(class.name()),
                    purpose: None,
                    grant: None,
                };
                let verdict = self.decide(cx, tenant, question);
                add_policies(&mut draft.policies, &verdict);
                if !verdict.allowed {
                    return Err(Problem::ActionNotAllowed);
                }
                self.fitting(new)
            })
            .collect()
    }

    /// A value that is one of its class.
    pub(super) fn fitting(&self, new: NewValue) -> Result<Accepted<'_>, Problem> {
        let class = self.parts.classes.get(&new.class).ok_or(Problem::ClassUnknown)?;
        let most = self.parts.limits.value_bytes;
        // Exposed: its length alone.
        if new.value.expose().len() > most {
            return Err(Problem::Value(InvalidValue::TooLarge { most }));
        }
        let normalized = class.normalize(&new.value, self.parts.clock.now()).map_err(Problem::Value)?;
        Ok(Accepted { class, new, normalized })
    }

    /// Keeps the values unless the same request was kept before; then gives that one's tokens.
    async fn keep_once(
        &self,
        cx: &Context,
        draft: &Draft,
        tenant: &TenantId,
        judged: &Judged<'_>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<Option<Token>>, Refused> {
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let keys = self.write_keys(tenant).await?;
            if let Some(key) = key
                && let Some(tokens) = Box::pin(self.recall(cx, draft, tenant, judged, key)).await?
            {
                return Ok(tokens);
            }
            let memory = key.map(|key| memory(cx, tenant, &keys.index, judged, key));
            match self.keep(draft.clone(), tenant, &keys, judged, memory).await? {
                Attempt::Done(tokens) => return Ok(tokens),
                Attempt::Raced => {}
                Attempt::Rotated => {
                    self.parts.keyring.forget(tenant, KeyPurpose::Data);
                    self.parts.keyring.forget(tenant, KeyPurpose::Index);
                }
            }
        }
        Err(Problem::Overloaded.whole())
    }

    pub(super) async fn write_keys(&self, tenant: &TenantId) -> Result<WriteKeys, Refused> {
        let keyring = &self.parts.keyring;
        let (data, index) = (keyring.active_data_key(tenant).await?, keyring.active_index_key(tenant).await?);
        Ok(WriteKeys { data, index })
    }

    /// The tokens that were answered under this idempotency key, if any were; looked up under every version of
    /// the tenant's index key, so that a rotation forgets nothing.
    async fn recall(
        &self,
        cx: &Context,
        draft: &Draft,
        tenant: &TenantId,
        judged: &Judged<'_>,
        key: &IdempotencyKey,
    ) -> Result<Option<Vec<Option<Token>>>, Refused> {
        let now = self.parts.clock.now();
        for index in self.parts.keyring.index_keys(tenant).await? {
            let memory = memory(cx, tenant, &index, judged, key);
            let Some(remembered) = self.parts.store.remembered(&memory.name).await? else { continue };
            if remembered.expires <= now {
                continue;
            }
            // The answer is bound, too: nobody puts another token into it.
            let expected = memory.request(&remembered.tokens);
            let same = bool::from(remembered.request.ct_eq(&expected));
            if !same || remembered.tokens.len() != judged.len() {
                let refused = Problem::IdempotencyConflict.at("idempotency_key");
                return Err(self.log_refusal(draft.clone(), Vec::new(), refused).await);
            }
            let items: Vec<Item> = remembered
                .tokens
                .iter()
                .zip(judged)
                .map(|(token, item)| match (token, item) {
                    (Some(token), Ok(accepted)) => Item {
                        class: Some(accepted.new.class.clone()),
                        ..Item::of_token(*token, Outcome::Ok)
                    },
                    (_, Ok(accepted)) => class_item(&accepted.new, Outcome::Failed),
                    (_, Err(_)) => refused_item(item),
                })
                .collect();
            let mut draft = draft.clone();
            draft.decision = decision(&items);
            draft.details.push(("repeated", "true".to_owned()));
            self.parts.log.record(draft, items).await?;
            return Ok(Some(remembered.tokens));
        }
        Ok(None)
    }

    /// Seals the values and writes them with their entry.
    async fn keep(
        &self,
        mut draft: Draft,
        tenant: &TenantId,
        keys: &WriteKeys,
        judged: &Judged<'_>,
        memory: Option<Memory>,
    ) -> Result<Attempt, Refused> {
        let now = self.parts.clock.now();
        let mut writes = Vec::with_capacity(judged.len() + 3);
        let mut items = Vec::with_capacity(judged.len());
        let mut tokens = Vec::with_capacity(judged.len());
        for (place, item) in judged.iter().enumerate() {
            let Ok(accepted) = item else {
                items.push(refused_item(item));
                tokens.push(None);
                continue;
            };
            let record = self.seal(tenant, keys, accepted, now)?;
            items.push(Item::of_record(&record, Outcome::Ok));
            tokens.push(Some(record.token));
            writes.push(Write::Insert(record));
            breathe(place).await;
        }
        draft.decision = decision(&items);
        let remember = writes.len();
        let remembering = memory.is_some();
        if let Some(memory) = memory {
            let (key, request) = (memory.name, memory.request(&tokens));
            let lifetime = u64::try_from(self.parts.limits.remember.as_micros()).unwrap_or(u64::MAX);
            let expires = Timestamp(now.0.saturating_add(lifetime));
            writes.push(Write::Remember(Remembered {
                key,
                request,
                tokens: tokens.clone(),
                at: now,
                expires,
            }));
        }
        let guards = writes.len();
        writes.extend(keys.are_active());
        match self.parts.log.commit(draft, items, writes).await {
            Ok(_) => Ok(Attempt::Done(tokens)),
            Err(LogError::Conflict { write }) if remembering && write == remember => Ok(Attempt::Raced),
            Err(LogError::Conflict { write }) if write >= guards => Ok(Attempt::Rotated),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn seal(
        &self,
        tenant: &TenantId,
        keys: &WriteKeys,
        accepted: &Accepted<'_>,
        created: Timestamp,
    ) -> Result<Record, Refused> {
        let Accepted { class, new, normalized } = accepted;
        let fault = |_| Problem::Internal.whole();
        let token = crypto::random_token().map_err(fault)?;
        let subject = new.subject.as_ref().map(|subject| crypto::subject_ref(&keys.index, subject));
        let index = class.indexed().then(|| crypto::blind_index(&keys.index, class.name(), normalized));
        let place = Place {
            identity: &self.parts.identity,
            token,
            tenant,
            class: class.name(),
            subject,
            index,
            created,
        };
        let padded = class.padded_len(new.value.expose().len()); // Exposed: its length alone, for padding.
        let bytes =
            crypto::seal(&place, &keys.data, &new.value, padded).map_err(|_| Problem::Internal.whole())?;
        Ok(Record {
            token,
            tenant: tenant.clone(),
            class: class.name().clone(),
            subject,
            index,
            created,
            body: Body::Sealed { key_id: keys.data.id(), key_version: keys.data.version(), bytes },
            revision: 0,
        })
    }
}

/// Keyed hashes of an idempotency key, and of the request made with it as far as it goes.
struct Memory {
    name: [u8; 32],
    so_far: Fingerprint,
}

impl Memory {
    /// The hash of the request and of its answer.
    fn request(self, tokens: &[Option<Token>]) -> [u8; 32] {
        let add = |hash: Fingerprint, token: &Option<Token>| match token {
            Some(token) => hash.field(token.as_bytes()),
            None => hash.field(b""),
        };
        tokens.iter().fold(self.so_far, add).finish()
    }
}

fn memory(
    cx: &Context,
    tenant: &TenantId,
    index: &IndexKey,
    judged: &Judged<'_>,
    key: &IdempotencyKey,
) -> Memory {
    let name = Fingerprint::new(index, "idempotency key")
        .field(tenant.as_str().as_bytes())
        .field(cx.caller.principal.id.as_str().as_bytes())
        .field(key.as_str().as_bytes())
        .finish();
    // The kind of each item before its fields, and their number before all: no two requests read alike.
    let mut request = Fingerprint::new(index, "tokenize request").field(&(judged.len() as u64).to_be_bytes());
    for item in judged {
        request = match item {
            Err(problem) => request.field(&[0]).field(problem.cause().as_bytes()),
            Ok(Accepted { new, .. }) => {
                // Exposed: into a keyed hash, to tell a repetition from another request.
                let subject = new.subject.as_ref().map_or("", |subject| subject.expose());
                request
                    .field(&[1])
                    .field(new.class.as_str().as_bytes())
                    .field(new.value.expose().as_bytes())
                    .field(subject.as_bytes())
            }
        };
    }
    Memory { name, so_far: request }
}

fn refused_item(item: &Result<Accepted<'_>, Problem>) -> Item {
    match item {
        Err(Problem::ActionNotAllowed) => denied(),
        _ => Item::invalid(),
    }
}

fn class_item(new: &NewValue, outcome: Outcome) -> Item {
    Item { class: Some(new.class.clone()), outcome, ..Item::invalid() }
}
