//! Finds tokens by value.

use std::sync::Arc;

use crate::access::{Action, Question};
use crate::audit::{AuditAction, Item, Outcome};
use crate::crypto::{self, IndexKey};
use crate::domain::class::DataClass;
use crate::domain::{BlindIndex, ClassName, Plaintext, Record, TenantId, Token};
use crate::store::Lookup;

use super::{Context, Problem, Refused, Vault, decision, denied, whole};

/// How often it is looked again, because of what others changed meanwhile.
const ATTEMPTS: usize = 4;

/// What one value was found under.
pub struct Found {
    /// The tokens, at most as many as asked for.
    pub tokens: Vec<Token>,
    /// There are more.
    pub truncated: bool,
}

impl Vault {
    /// The most tokens a value that a caller may ask for.
    pub const MOST_MATCHES: usize = 1000;
    /// The most tokens that one request may come to: all of them are in its log entry.
    pub const MOST_MATCHES_AT_ALL: usize = 10_000;
    /// How many it gets without asking.
    pub const USUAL_MATCHES: usize = 100;

    /// Finds the tokens of values, value by value.
    pub async fn find(
        &self,
        cx: &Context,
        asked_tenant: &str,
        class: Result<ClassName, Refused>,
        values: Result<Vec<Result<Plaintext, Problem>>, Refused>,
        limit: usize,
    ) -> Result<Vec<Result<Found, Problem>>, Refused> {
        let tenant = self.tenant(cx, AuditAction::Find, asked_tenant).await?;
        let mut draft = cx.draft(AuditAction::Find, &tenant);
        let (values, class) = match values.and_then(|values| Ok((values, self.check_find(class, limit)?))) {
            Ok(checked) => checked,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        let count = values.len();
        let refused = || std::iter::repeat_with(denied).take(count).collect();
        self.allow(cx, &mut draft, &tenant, whole(Action::Find, None), refused).await?;
        let question =
            Question { action: Action::Find, class: Some(class.name()), purpose: None, grant: None };
        self.allow(cx, &mut draft, &tenant, question, refused).await?;
        let limit = if limit == 0 { Self::USUAL_MATCHES } else { limit };
        let (results, items) = self.find_all(&tenant, class, &values, limit).await?;
        if results.iter().flatten().map(|found| found.tokens.len()).sum::<usize>() > Self::MOST_MATCHES_AT_ALL
        {
            // Nothing is told, so nothing of it is on record but that it was asked.
            return Err(self.log_refusal(draft, Vec::new(), Problem::ResponseTooLarge.whole()).await);
        }
        draft.decision = decision(&items);
        self.within_limits(cx, &tenant, Action::Find, &draft, &items).await?;
        self.record_watched(cx, draft, items).await?;
        Ok(results)
    }

    fn check_find(&self, class: Result<ClassName, Refused>, limit: usize) -> Result<&DataClass, Refused> {
        if limit > Self::MOST_MATCHES {
            return Err(Problem::Field("at most 1,000").at("limit"));
        }
        let class = self.parts.classes.get(&class?).ok_or_else(|| Problem::ClassUnknown.at("data_class"))?;
        if class.indexed() { Ok(class) } else { Err(Problem::ClassNotIndexed.at("data_class")) }
    }

    /// Looks under every version of the tenant's index key, and again if there turns out to be a newer one: another
    /// instance may have made it, and sealed under it, before this one knew of it.
    async fn find_all(
        &self,
        tenant: &TenantId,
        class: &DataClass,
        values: &[Result<Plaintext, Problem>],
        limit: usize,
    ) -> Result<(Vec<Result<Found, Problem>>, Vec<Item>), Refused> {
        let mut keys = self.parts.keyring.index_keys(tenant).await?;
        for _ in 0..ATTEMPTS {
            let looked = self.look_under(&keys, tenant, class, values, limit).await?;
            let now = self.parts.keyring.index_keys_now(tenant).await?;
            if now.iter().all(|key| keys.iter().any(|known| known.id() == key.id())) {
                return Ok(looked);
            }
            keys = now;
        }
        Err(Problem::Overloaded.whole())
    }

    async fn look_under(
        &self,
        keys: &[Arc<IndexKey>],
        tenant: &TenantId,
        class: &DataClass,
        values: &[Result<Plaintext, Problem>],
        limit: usize,
    ) -> Result<(Vec<Result<Found, Problem>>, Vec<Item>), Refused> {
        let (mut results, mut items, mut told) = (Vec::with_capacity(values.len()), Vec::new(), 0);
        for value in values {
            let result = match value {
                Ok(value) => self.find_one(tenant, class, keys, value, limit, &mut items).await?,
                Err(problem) => Err(problem.clone()),
            };
            if result.is_err() {
                items.push(Item { class: Some(class.name().clone()), ..Item::invalid() });
            }
            told += result.as_ref().map_or(0, |found| found.tokens.len());
            results.push(result);
            if told > Self::MOST_MATCHES_AT_ALL {
                break;
            }
        }
        Ok((results, items))
    }

    /// `keys`: newest first. A job moves a record from an older one to the newest meanwhile: so the oldest is looked
    /// under first, and what is not there any more is found under the newest.
    async fn find_one(
        &self,
        tenant: &TenantId,
        class: &DataClass,
        keys: &[Arc<IndexKey>],
        value: &Plaintext,
        limit: usize,
        items: &mut Vec<Item>,
    ) -> Result<Result<Found, Problem>, Refused> {
        let normalized = match class.normalize(value, self.parts.clock.now()) {
            Ok(normalized) => normalized,
            Err(invalid) => return Ok(Err(Problem::Value(invalid))),
        };
        let mut records = Vec::new();
        for key in keys.iter().rev() {
            let index = crypto::blind_index(key, class.name(), &normalized);
            match self.of_index(tenant, class.name(), index, limit).await? {
                Ok(found) => records.extend(found),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        records.sort_unstable_by_key(|record: &Record| record.token);
        records.dedup_by_key(|record| record.token);
        let truncated = records.len() > limit;
        records.truncate(limit);
        let matches = u32::try_from(records.len()).unwrap_or(u32::MAX);
        if records.is_empty() {
            items.push(Item { class: Some(class.name().clone()), outcome: Outcome::Ok, ..Item::invalid() });
        }
        items.extend(records.iter().map(|record| Item { matches, ..Item::of_record(record, Outcome::Ok) }));
        Ok(Ok(Found { tokens: records.into_iter().map(|record| record.token).collect(), truncated }))
    }

    /// The records of an index, all of them or more than `limit`. What is erased between the look at the index and that at the
    /// records makes room for others that were past the limit.
    async fn of_index(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Result<Vec<Record>, Problem>, Refused> {
        let mut most = limit + 1;
        for _ in 0..ATTEMPTS {
            let tokens = self.parts.store.find(tenant, class, index, most).await?;
            let mut records = Vec::with_capacity(tokens.len());
            for lookup in self.parts.store.records(&tokens).await? {
                match lookup {
                    // An index row may be stale or may have been moved: the record has the last word.
                    Lookup::Found(record)
                        if record.tenant == *tenant
                            && record.class == *class
                            && record.index == Some(index) =>
                    {
                        records.push(*record);
                    }
                    Lookup::Found(_) | Lookup::Missing => {}
                    Lookup::Corrupt => return Ok(Err(Problem::RecordCorrupt)),
                }
            }
            if tokens.len() < most || records.len() > limit {
                return Ok(Ok(records));
            }
            most += tokens.len() - records.len();
        }
        Err(Problem::Overloaded.whole())
    }
}
