//! Jobs on records: sealing anew, making indexes anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::shift::{End, Shift, Stop};
use super::walk::{PAGE, Pages, Task, Walked, walk};
use crate::audit::{Item, Outcome};
use crate::crypto::{DataKey, Mandate};
use crate::domain::{ClassName, KeyId, KeyPurpose, KeyRecord, KeyState, TenantId};
use crate::keyring::KeyringError;

/// Records stay that could not be changed; the log names them.
const RECORDS_LEFT: End = End::Failed("records_left");

/// Seals records anew under the active key: those under one version, or under all others.
pub(super) async fn reencrypt(shift: &mut Shift, mandate: &Arc<Mandate>) -> Result<End, Stop> {
    let tenant = mandate.tenant().clone();
    loop {
        let versions = list(shift, &tenant, KeyPurpose::Data).await?;
        let Some(to) = active_data_key(shift, mandate, &versions).await? else {
            return Ok(End::Failed("no_active_key"));
        };
        let chosen = shift.job.order.key;
        let sources = versions.iter().filter(|key| match chosen {
            Some(id) => key.id == id && is_old(key),
            None => is_old(key),
        });
        let (mut round, mut left) = (Round::default(), 0);
        for source in sources {
            if !is_used(shift, source.id).await? {
                continue;
            }
            let from = open(shift, mandate, source.id).await?;
            let task = Task {
                parts: Arc::clone(&shift.parts),
                mandate: Arc::clone(mandate),
                from: HashMap::from([(source.id, from)]),
                to: Arc::clone(&to),
                index: None,
                fence: shift.fence(),
            };
            let walked = walk(shift, task, Pages::OfKey(source.id, None)).await?;
            round.add(shift, walked).await?;
            left += shift.count_of_key(source.id).await?;
        }
        if let Some(end) = round.end(left) {
            return Ok(end);
        }
    }
}

/// Makes indexes anew under the active index key, those that any other version made.
pub(super) async fn reindex(shift: &mut Shift, mandate: &Arc<Mandate>) -> Result<End, Stop> {
    let tenant = mandate.tenant().clone();
    let classes: Vec<ClassName> = shift
        .parts
        .classes
        .iter()
        .filter(|class| class.indexed())
        .map(|class| class.name().clone())
        .collect();
    loop {
        let data = list(shift, &tenant, KeyPurpose::Data).await?;
        let versions = list(shift, &tenant, KeyPurpose::Index).await?;
        let Some(to) = active_data_key(shift, mandate, &data).await? else {
            return Ok(End::Failed("no_active_key"));
        };
        let index = shift.parts.keyring.active_index_key(&tenant).await?;
        let mut from = HashMap::from([(to.id(), Arc::clone(&to))]);
        for key in data.iter().filter(|key| is_old(key)) {
            if is_used(shift, key.id).await? {
                from.insert(key.id, open(shift, mandate, key.id).await?);
            }
        }
        let (mut round, mut left) = (Round::default(), 0);
        for version in
            versions.iter().filter(|key| key.id != index.id() && is_old(key)).map(|key| key.version)
        {
            for class in &classes {
                let task = Task {
                    parts: Arc::clone(&shift.parts),
                    mandate: Arc::clone(mandate),
                    from: from.clone(),
                    to: Arc::clone(&to),
                    index: Some((class.clone(), Arc::clone(&index))),
                    fence: shift.fence(),
                };
                let pages =
                    Pages::OfIndex { tenant: tenant.clone(), class: class.clone(), version, after: None };
                let walked = walk(shift, task, pages).await?;
                round.add(shift, walked).await?;
                left += shift.parts.store.indexed_under(&tenant, class, version, None, 1).await?.len() as u64;
            }
        }
        if let Some(end) = round.end(left) {
            return Ok(end);
        }
    }
}

/// Once over all that is to do.
#[derive(Default)]
struct Round {
    done: u64,
    rotated: bool,
}

impl Round {
    async fn add(&mut self, shift: &mut Shift, walked: Walked) -> Result<(), Stop> {
        self.done += walked.done;
        self.rotated |= walked.rotated;
        shift.job.progress.failed += walked.failed.len() as u64;
        shift.trouble(walked.failed).await
    }

    /// How the job ends, if another round is of no use.
    fn end(&self, left: u64) -> Option<End> {
        match left {
            0 if !self.rotated => Some(End::Done),
            _ if self.rotated || self.done > 0 => None,
            _ => Some(RECORDS_LEFT),
        }
    }
}

async fn list(shift: &Shift, tenant: &TenantId, purpose: KeyPurpose) -> Result<Vec<KeyRecord>, Stop> {
    Ok(shift.parts.keyring.list(Some(tenant), purpose).await?)
}

/// Whether anything is sealed under a key. A page of it, not all: there may be millions.
async fn is_used(shift: &Shift, key: KeyId) -> Result<bool, Stop> {
    Ok(!shift.parts.store.tokens_of_key(key, None, PAGE).await?.is_empty())
}

async fn active_data_key(
    shift: &mut Shift,
    mandate: &Mandate,
    versions: &[KeyRecord],
) -> Result<Option<Arc<DataKey>>, Stop> {
    match versions.iter().find(|key| key.state == KeyState::Active) {
        Some(active) => open(shift, mandate, active.id).await.map(Some),
        None => Ok(None),
    }
}

/// Opens a data key for this job. What can't ever be opened is on record.
async fn open(shift: &mut Shift, mandate: &Mandate, id: KeyId) -> Result<Arc<DataKey>, Stop> {
    shift.spend_kms_calls(1).await?;
    let opened = shift.parts.keyring.data_key_for_job(mandate, id).await;
    if let Err(KeyringError::Corrupt | KeyringError::KmsRefused) = &opened {
        shift
            .trouble(vec![Item { key_id: Some(id), outcome: Outcome::KeyUnusable, ..Item::invalid() }])
            .await?;
    }
    Ok(Arc::new(opened?))
}

/// Whether what is under the key is to be moved.
fn is_old(key: &KeyRecord) -> bool {
    matches!(key.state, KeyState::Retired | KeyState::Compromised)
}
