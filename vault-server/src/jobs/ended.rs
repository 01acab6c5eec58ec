//! The end of keys: one version that nothing refers to, or all of a tenant's.
//!
//! What is destroyed here is the wrap, the only form in which the store has the key. Copies of the store from before
//! still have it, and it opens as long as the KMS keys do.

use super::shift::{End, Shift, Stop};
use crate::audit::{AuditAction, Item, LogError, Outcome};
use crate::domain::{KeyPurpose, KeyRecord, KeyState, TenantId};
use crate::store::Write;
use crate::vault::job_draft;

/// Destroys one version of a data key.
pub(super) async fn destroy(shift: &mut Shift, tenant: &TenantId) -> Result<End, Stop> {
    let Some(id) = shift.job.order.key else { return Ok(End::Failed("no_key")) };
    let key = shift.parts.store.key(id).await?.filter(|key| key.tenant.as_ref() == Some(tenant));
    let Some(key) = key else { return Ok(End::Failed("not_found")) };
    match key.state {
        KeyState::Destroyed => return Ok(End::Done),
        KeyState::Active => return Ok(End::Failed("key_active")),
        KeyState::Retired | KeyState::Compromised => {}
    }
    // Nothing can be written under a key that is not active: from zero there is no way back.
    if shift.parts.store.count_of_key(id).await? > 0 {
        return Ok(End::Failed("key_in_use"));
    }
    end_of(shift, key).await?;
    shift.parts.keyring.forget(tenant, KeyPurpose::Data);
    Ok(End::Done)
}

/// Destroys all of a tenant's keys. What was sealed under them opens nowhere any more.
pub(super) async fn shred(shift: &mut Shift, tenant: &TenantId) -> Result<End, Stop> {
    for purpose in [KeyPurpose::Data, KeyPurpose::Index] {
        loop {
            // Oldest first, so that the active one is the last to go, and none is made for want of one.
            let mut keys = shift.parts.keyring.list(Some(tenant), purpose).await?;
            keys.retain(|key| key.state != KeyState::Destroyed);
            let Some(key) = keys.pop() else { break };
            shift.tick().await?;
            end_of(shift, key).await?;
        }
        shift.parts.keyring.forget(tenant, purpose);
    }
    Ok(End::Done)
}

/// Destroys a key, with the certificate of that in the log.
async fn end_of(shift: &mut Shift, key: KeyRecord) -> Result<(), Stop> {
    let mut draft = job_draft(&shift.job, AuditAction::KeyDestroy);
    draft.details.extend([
        ("key_purpose", key.purpose.as_str().to_owned()),
        ("key_version", key.version.0.to_string()),
        ("key_created_us", key.created.0.to_string()),
        ("asked_us", shift.job.order.asked.0.to_string()),
        ("not_before_us", shift.job.order.not_before.0.to_string()),
        ("records", shift.parts.store.count_of_key(key.id).await?.to_string()),
    ]);
    let item = Item { key_id: Some(key.id), outcome: Outcome::Ok, ..Item::invalid() };
    let revision = key.revision.wrapping_add(1);
    let gone = KeyRecord { state: KeyState::Destroyed, wraps: Vec::new(), revision, ..key };
    match shift.parts.log.commit(draft, vec![item], vec![shift.fence(), Write::ReplaceKey(gone)]).await {
        Ok(_) => {
            shift.job.progress.done += 1;
            Ok(())
        }
        Err(LogError::Conflict { write: 0 }) => Err(Stop::Lost),
        Err(error) => Err(error.into()),
    }
}
