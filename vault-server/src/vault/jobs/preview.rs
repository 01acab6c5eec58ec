//! What a job would have to do, and what that costs.

use super::{JobAsked, PAGE};
use crate::audit::AuditAction;
use crate::domain::{JobBudget, JobKind, JobPlace, KeyId, KeyPurpose, KeyRecord, KeyState, TenantId};
use crate::store::Lookup;
use crate::vault::{Context, Problem, Refused, Vault};

/// What a job would have to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// Records or keys.
    pub items: u64,
    /// Bytes of records, about.
    pub bytes: u64,
    /// Calls of the KMS.
    pub kms_calls: u64,
    /// What they cost, in millionths; 0 without a configured price.
    pub kms_cost_micros: u64,
    /// How long it takes at the budget that is asked for, about.
    pub seconds: u64,
    /// Why it would be refused now.
    pub refused: Option<Problem>,
}

/// Records that a preview looks at to tell the size of all.
const SAMPLE: usize = 256;

/// The versions of a tenant's keys.
struct Keys {
    data: Vec<KeyRecord>,
    index: Vec<KeyRecord>,
}

impl Keys {
    fn version(&self, id: KeyId) -> Option<&KeyRecord> {
        self.data.iter().chain(&self.index).find(|key| key.id == id)
    }

    /// How many are not destroyed.
    fn there(&self) -> u64 {
        there(&self.data) + there(&self.index)
    }
}

impl Vault {
    /// What a job would have to do.
    pub async fn preview_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
    ) -> Result<Preview, Refused> {
        let (tenant, draft, asked) = self.asked_of_job(cx, AuditAction::JobRead, tenant, asked).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let mut preview = self.preview(tenant.as_ref(), &asked).await?;
        let under_way = self.parts.store.job(&JobPlace { tenant, kind: asked.kind }).await?;
        let other =
            under_way.is_some_and(|job| !job.state.is_over() && !self.is_ordered_so(&job.order, &asked));
        if other {
            preview.refused.get_or_insert(Problem::JobUnderWay);
        }
        Ok(preview)
    }

    pub(super) async fn preview(
        &self,
        tenant: Option<&TenantId>,
        asked: &JobAsked,
    ) -> Result<Preview, Refused> {
        let keyring = &self.parts.keyring;
        let Some(tenant) = tenant else {
            let mut preview = Preview::default();
            for purpose in KeyPurpose::of(None) {
                preview.items += keyring.list(None, *purpose).await?.len() as u64;
            }
            return Ok(self.priced_rewrap(None, preview, asked.budget));
        };
        let keys = self.keys_of_tenant(tenant).await?;
        let refused = self.refusal_of(&keys, asked).await?;
        if refused == Some(Problem::NotFound) {
            return Ok(Preview { refused, ..Preview::default() });
        }
        let preview = match asked.kind {
            JobKind::Reencrypt => self.preview_reencrypt(&keys, asked.key).await?,
            JobKind::Reindex => self.preview_reindex(tenant, &keys).await?,
            JobKind::Rewrap => {
                let preview = Preview { items: keys.there(), ..Preview::default() };
                return Ok(self.priced_rewrap(Some(tenant), preview, asked.budget));
            }
            JobKind::Destroy => Preview { items: 1, ..Preview::default() },
            JobKind::Shred => Preview { items: keys.there(), ..Preview::default() },
        };
        Ok(self.priced(Preview { refused, ..preview }, asked.budget))
    }

    /// Why a job would be refused now. Nothing is counted.
    pub(super) async fn refusal(
        &self,
        tenant: Option<&TenantId>,
        asked: &JobAsked,
    ) -> Result<Option<Problem>, Refused> {
        let Some(tenant) = tenant else { return Ok(None) };
        self.refusal_of(&self.keys_of_tenant(tenant).await?, asked).await
    }

    async fn keys_of_tenant(&self, tenant: &TenantId) -> Result<Keys, Refused> {
        let keyring = &self.parts.keyring;
        let (data, index) = (
            keyring.list(Some(tenant), KeyPurpose::Data).await?,
            keyring.list(Some(tenant), KeyPurpose::Index).await?,
        );
        Ok(Keys { data, index })
    }

    async fn refusal_of(&self, keys: &Keys, asked: &JobAsked) -> Result<Option<Problem>, Refused> {
        if keys.data.is_empty() && keys.index.is_empty() {
            return Ok(Some(Problem::NotFound));
        }
        let version = |id: KeyId| keys.version(id).ok_or(Problem::NotFound);
        Ok(match (asked.kind, asked.key) {
            (JobKind::Reindex | JobKind::Rewrap, _) | (JobKind::Reencrypt, None) => None,
            (JobKind::Reencrypt, Some(id)) => version(id).map_or_else(Some, unfit),
            (JobKind::Destroy, None) => Some(Problem::NotFound),
            (JobKind::Destroy, Some(id)) => {
                let mut refused = version(id).map_or_else(Some, unfit);
                if refused.is_none() && !self.parts.store.tokens_of_key(id, None, 1).await?.is_empty() {
                    refused = Some(Problem::KeyInUse);
                }
                refused
            }
            (JobKind::Shred, _) => (keys.there() == 0).then_some(Problem::KeyDestroyed),
        })
    }

    /// The records of one version, or of all old ones.
    async fn preview_reencrypt(&self, keys: &Keys, key: Option<KeyId>) -> Result<Preview, Refused> {
        let mut preview = Preview::default();
        let one = |one: &&KeyRecord| key.map_or_else(|| is_old(one), |id| one.id == id);
        for key in keys.data.iter().filter(one) {
            let count = self.parts.store.count_of_key(key.id).await?;
            preview.items += count;
            preview.bytes += count * self.usual_size(key.id).await?;
            preview.kms_calls += 1;
        }
        preview.kms_calls += 1;
        Ok(preview)
    }

    async fn preview_reindex(&self, tenant: &TenantId, keys: &Keys) -> Result<Preview, Refused> {
        let active = keys.data.iter().find(|key| key.state == KeyState::Active);
        let items = self.count_indexed(tenant, &keys.index).await?;
        let size = match active {
            Some(key) => self.usual_size(key.id).await?,
            None => 0,
        };
        let kms_calls = there(&keys.data) + 1;
        Ok(Preview { items, bytes: items * size, kms_calls, ..Preview::default() })
    }

    fn priced(&self, preview: Preview, asked: JobBudget) -> Preview {
        let rules = &self.parts.jobs;
        Preview {
            kms_cost_micros: preview.kms_calls * rules.kms_price / 10_000,
            seconds: preview.bytes.checked_div(self.budget(asked).bytes).unwrap_or(0),
            ..preview
        }
    }

    /// A rewrap: every wrap is opened, a missing one made and opened.
    fn priced_rewrap(&self, tenant: Option<&TenantId>, preview: Preview, asked: JobBudget) -> Preview {
        let rules = &self.parts.jobs;
        let kms_calls = preview.items * (1 + 2 * self.parts.keyring.kms_keys(tenant));
        Preview {
            kms_calls,
            kms_cost_micros: kms_calls * rules.kms_price / 10_000,
            seconds: kms_calls.checked_div(u64::from(self.budget(asked).kms_calls)).unwrap_or(0),
            ..preview
        }
    }

    /// About how many bytes a record under a key has.
    async fn usual_size(&self, key: KeyId) -> Result<u64, Refused> {
        let tokens = self.parts.store.tokens_of_key(key, None, SAMPLE).await?;
        let lookups = self.parts.store.records(&tokens.items).await?;
        let sizes = lookups.iter().filter_map(|lookup| match lookup {
            Lookup::Found(record) => Some(record.sealed_len() as u64),
            Lookup::Missing | Lookup::Corrupt => None,
        });
        let sizes: Vec<u64> = sizes.collect();
        Ok(sizes.iter().sum::<u64>().checked_div(sizes.len() as u64).unwrap_or(0))
    }

    /// Records whose index another version than the active one made, those too whose row can't be read: they are in the way of its
    /// end as the others are.
    async fn count_indexed(&self, tenant: &TenantId, keys: &[KeyRecord]) -> Result<u64, Refused> {
        let mut count = 0;
        for key in keys.iter().filter(|key| is_old(key)) {
            for class in self.parts.classes.iter().filter(|class| class.indexed()) {
                let mut after = None;
                loop {
                    let store = &self.parts.store;
                    let page = store.indexed_under(tenant, class.name(), key.version, after, PAGE).await?;
                    count += page.len() as u64;
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }
}

/// Why a version's records can't be sealed anew, or the version destroyed: that is for old versions of data keys.
fn unfit(key: &KeyRecord) -> Option<Problem> {
    if key.purpose != KeyPurpose::Data {
        return Some(Problem::KeyState);
    }
    match key.state {
        KeyState::Active => Some(Problem::KeyActive),
        KeyState::Destroyed => Some(Problem::KeyDestroyed),
        KeyState::Retired | KeyState::Compromised => None,
    }
}

fn is_old(key: &KeyRecord) -> bool {
    matches!(key.state, KeyState::Retired | KeyState::Compromised)
}

fn there(keys: &[KeyRecord]) -> u64 {
    keys.iter().filter(|key| key.state != KeyState::Destroyed).count() as u64
}

#[cfg(test)]
#[path = "preview_tests.rs"]
mod tests;
