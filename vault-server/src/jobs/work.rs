//! Jobs on records: sealing anew, making indexes anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::shift::{End, Shift, Stop, is_used};
use super::steps::{Step, reached};
use super::walk::{Pages, Task, Walked, walk};
use crate::audit::{Item, Outcome};
use crate::crypto::{DataKey, Mandate};
use crate::domain::{ClassName, JobKind, KeyId, KeyPurpose, KeyRecord, KeyState, TenantId};
use crate::keyring::KeyringError;

/// Records stay that could not be changed; the log names them.
const RECORDS_LEFT: End = End::Failed("records_left");
/// There is none to seal under.
const NO_ACTIVE_KEY: End = End::Failed("no_active_key");

/// Seals records anew under the active key: those under one version, or under all others.
pub(super) async fn reencrypt(shift: &mut Shift, mandate: &Arc<Mandate>) -> Result<End, Stop> {
    let tenant = mandate.tenant().clone();
    let mut replaced = Replaced::default();
    loop {
        let versions = list(shift, &tenant, KeyPurpose::Data).await?;
        let Some(to) = active_data_key(shift, mandate, &versions).await? else { return Ok(NO_ACTIVE_KEY) };
        replaced.check(&[to.id()])?;
        let known = ids(&versions);
        let chosen = shift.job.order.key;
        let sources = versions.iter().filter(|key| match chosen {
            Some(id) => key.id == id && is_old(key),
            None => is_old(key),
        });
        let mut round = Round::default();
        for source in sources {
            if !is_used(shift, source.id).await? {
                continue;
            }
            // One that can't be opened is no reason to leave the others.
            if let Some(from) = open(shift, mandate, source.id).await? {
                let task = Task {
                    parts: Arc::clone(&shift.parts),
                    mandate: Arc::clone(mandate),
                    from: HashMap::from([(source.id, from)]),
                    known: Arc::clone(&known),
                    to: Arc::clone(&to),
                    index: None,
                    fence: shift.fence(),
                };
                round.add(&walk(shift, task, Pages::OfKey(source.id, None)).await?);
            }
            reached(JobKind::Reencrypt, Step::Unproven);
            round.left |= is_used(shift, source.id).await?;
        }
        match round.end() {
            Some(End::Done) if !shift.end_under(&[to.id()]).await? => replaced.are(&[to.id()]),
            Some(end) => return Ok(end),
            None if round.rotated => replaced.are(&[to.id()]),
            None => {}
        }
    }
}

/// Makes indexes anew under the active index key, those that any other version made.
pub(super) async fn reindex(shift: &mut Shift, mandate: &Arc<Mandate>) -> Result<End, Stop> {
    let tenant = mandate.tenant().clone();
    let indexed = shift.parts.classes.iter().filter(|class| class.indexed());
    let classes: Vec<ClassName> = indexed.map(|class| class.name().clone()).collect();
    let mut replaced = Replaced::default();
    loop {
        let data = list(shift, &tenant, KeyPurpose::Data).await?;
        let versions = list(shift, &tenant, KeyPurpose::Index).await?;
        let Some(to) = active_data_key(shift, mandate, &data).await? else { return Ok(NO_ACTIVE_KEY) };
        let Some(active) = versions.iter().find(|key| key.state == KeyState::Active) else {
            return Ok(NO_ACTIVE_KEY);
        };
        let index = match shift.parts.keyring.active_index_key(&tenant).await {
            Ok(index) => index,
            Err(error) if is_permanent(&error) => return Ok(NO_ACTIVE_KEY),
            Err(error) => return Err(error.into()),
        };
        if index.id() != active.id {
            // One of the two lists is of before a rotation. What was made under that version would be passed over.
            shift.parts.keyring.forget(&tenant, KeyPurpose::Index);
            shift.tick().await?;
            continue;
        }
        replaced.check(&[to.id(), index.id()])?;
        let known = ids(&data);
        let mut from = HashMap::from([(to.id(), Arc::clone(&to))]);
        for key in data.iter().filter(|key| is_old(key)) {
            if is_used(shift, key.id).await?
                && let Some(open) = open(shift, mandate, key.id).await?
            {
                from.insert(key.id, open);
            }
        }
        let mut round = Round::default();
        for version in versions.iter().filter(|key| is_old(key)).map(|key| key.version) {
            for class in &classes {
                let task = Task {
                    parts: Arc::clone(&shift.parts),
                    mandate: Arc::clone(mandate),
                    from: from.clone(),
                    known: Arc::clone(&known),
                    to: Arc::clone(&to),
                    index: Some((class.clone(), Arc::clone(&index))),
                    fence: shift.fence(),
                };
                let pages =
                    Pages::OfIndex { tenant: tenant.clone(), class: class.clone(), version, after: None };
                round.add(&walk(shift, task, pages).await?);
                reached(JobKind::Reindex, Step::Unproven);
                let left = shift.parts.store.indexed_under(&tenant, class, version, None, 1).await?;
                round.left |= !left.is_empty();
            }
        }
        match round.end() {
            Some(End::Done) if !shift.end_under(&[index.id()]).await? => replaced.are(&[to.id(), index.id()]),
            Some(end) => return Ok(end),
            None if round.rotated => replaced.are(&[to.id(), index.id()]),
            None => {}
        }
    }
}

/// Once over all that is to do.
#[derive(Default)]
struct Round {
    done: u64,
    rotated: bool,
    left: bool,
}

impl Round {
    fn add(&mut self, walked: &Walked) {
        self.done += walked.done;
        self.rotated |= walked.rotated;
    }

    /// How the job ends, if another round is of no use.
    fn end(&self) -> Option<End> {
        match self {
            Self { rotated: true, .. } => None,
            Self { left: false, .. } => Some(End::Done),
            Self { done: 0, .. } => Some(RECORDS_LEFT),
            _ => None,
        }
    }
}

/// Active keys of a round after which the store said that one of them is not active.
#[derive(Default)]
struct Replaced(Vec<KeyId>);

impl Replaced {
    fn are(&mut self, keys: &[KeyId]) {
        self.0 = keys.to_vec();
    }

    /// The list is read after that. If it has the same keys, two rows of the store contradict each other, and another round
    /// would end as the one before.
    fn check(&self, keys: &[KeyId]) -> Result<(), Stop> {
        if self.0 != keys {
            return Ok(());
        }
        Err(Stop::Trouble("a key is active by the list of its tenant's, and not by itself".to_owned()))
    }
}

fn ids(versions: &[KeyRecord]) -> Arc<HashSet<KeyId>> {
    Arc::new(versions.iter().map(|key| key.id).collect())
}

async fn list(shift: &Shift, tenant: &TenantId, purpose: KeyPurpose) -> Result<Vec<KeyRecord>, Stop> {
    Ok(shift.parts.keyring.list(Some(tenant), purpose).await?)
}

async fn active_data_key(
    shift: &mut Shift,
    mandate: &Mandate,
    versions: &[KeyRecord],
) -> Result<Option<Arc<DataKey>>, Stop> {
    match versions.iter().find(|key| key.state == KeyState::Active) {
        Some(active) => open(shift, mandate, active.id).await,
        None => Ok(None),
    }
}

/// Opens a data key for this job. `None`: it can't be opened, now or later, and that is on record.
async fn open(shift: &mut Shift, mandate: &Mandate, id: KeyId) -> Result<Option<Arc<DataKey>>, Stop> {
    shift.spend_kms_calls(1).await?;
    match shift.parts.keyring.data_key_for_job(mandate, id).await {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(error) if is_permanent(&error) => {
            let item = Item { key_id: Some(id), outcome: Outcome::KeyUnusable, ..Item::invalid() };
            shift.trouble(vec![item]).await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether trying again is of no use until somebody has done something.
fn is_permanent(error: &KeyringError) -> bool {
    use KeyringError::{
        Corrupt, Destroyed, KmsRefused, KmsUnavailable, LockedMemory, Random, Store, Unusable,
    };
    match error {
        KmsRefused | Destroyed | Unusable | Corrupt => true,
        KmsUnavailable | Store(_) | Random | LockedMemory => false,
    }
}

/// Whether what is under the key is to be moved.
fn is_old(key: &KeyRecord) -> bool {
    matches!(key.state, KeyState::Retired | KeyState::Compromised)
}
