//! The end of keys: one version that nothing refers to, or all of a tenant's.
//!
//! What is destroyed here is the wrap, the only form in which the store has the key. Copies of the store from before
//! still have it, and it opens as long as the KMS keys do.

use super::shift::{End, Shift, Stop, is_used};
use super::steps::{Step, reached};
use crate::audit::{AuditAction, Item, Outcome};
use crate::domain::{JobKind, JobState, KeyPurpose, KeyRecord, KeyState, TenantId};
use crate::store::Write;

/// Destroys one version of a data key.
pub(super) async fn destroy(shift: &mut Shift, tenant: &TenantId) -> Result<End, Stop> {
    if !is_approved(shift) {
        return Ok(End::Failed("not_approved"));
    }
    let Some(id) = shift.job.order.key else { return Ok(End::Failed("no_key")) };
    let key = shift.parts.store.key(id).await?.filter(|key| key.tenant.as_ref() == Some(tenant));
    let Some(key) = key else { return Ok(End::Failed("not_found")) };
    match key.state {
        KeyState::Destroyed => return Ok(End::Done),
        KeyState::Active => return Ok(End::Failed("key_active")),
        KeyState::Retired | KeyState::Compromised => {}
    }
    reached(JobKind::Destroy, Step::Unproven);
    if is_used(shift, id).await? {
        return Ok(End::Failed("key_in_use"));
    }
    // The store looks again as it writes, and nothing can be written under a key that is not active.
    end_of(shift, key, Records::None, JobState::Done).await?;
    shift.parts.keyring.forget(tenant, KeyPurpose::Data);
    Ok(End::Done)
}

/// Destroys all of a tenant's keys. What was sealed under them opens nowhere any more.
pub(super) async fn shred(shift: &mut Shift, tenant: &TenantId) -> Result<End, Stop> {
    if !is_approved(shift) {
        return Ok(End::Failed("not_approved"));
    }
    loop {
        let keyring = &shift.parts.keyring;
        let (data, mut left) = (
            keyring.list(Some(tenant), KeyPurpose::Data).await?,
            keyring.list(Some(tenant), KeyPurpose::Index).await?,
        );
        // Oldest first, so that the active one is the last to go, and none is made for want of one.
        left.extend(data);
        left.retain(|key| key.state != KeyState::Destroyed);
        let Some(key) = left.pop() else { break };
        let purpose = key.purpose;
        let then = if left.is_empty() { JobState::Done } else { shift.job.state };
        shift.tick().await?;
        end_of(shift, key, Records::Some, then).await?;
        shift.parts.keyring.forget(tenant, purpose);
    }
    Ok(End::Done)
}

/// Whether records refer to a key that is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Records {
    /// None, or it stays.
    None,
    Some,
}

/// By another than who asked, and not too early, whatever was asked of the row before.
fn is_approved(shift: &Shift) -> bool {
    let job = &shift.job;
    let other = job.approved_by.as_ref().is_some_and(|approver| *approver != job.order.asked_by);
    other && job.order.not_before <= shift.parts.clock.now()
}

/// Destroys a key, with the certificate of that in the log, if the job still stands as it did: a cancel or a pause that
/// was acknowledged comes first. `then`: how the job stands once it is gone.
async fn end_of(shift: &mut Shift, key: KeyRecord, records: Records, then: JobState) -> Result<(), Stop> {
    reached(shift.job.place.kind, Step::Loaded);
    let mut details = vec![
        ("key_purpose", key.purpose.as_str().to_owned()),
        ("key_version", key.version.0.to_string()),
        ("key_created_us", key.created.0.to_string()),
        ("asked_us", shift.job.order.asked.0.to_string()),
        ("not_before_us", shift.job.order.not_before.0.to_string()),
    ];
    if records == Records::None {
        details.push(("records", "0".to_owned()));
    }
    let item = Item { key_id: Some(key.id), outcome: Outcome::Ok, ..Item::invalid() };
    let (id, revision) = (key.id, key.revision.wrapping_add(1));
    let gone = KeyRecord { state: KeyState::Destroyed, wraps: Vec::new(), revision, ..key };
    let mut writes = vec![Write::ReplaceKey(gone)];
    if records == Records::None {
        writes.push(Write::Unused(id));
    }
    shift.job.progress.done += 1;
    reached(shift.job.place.kind, Step::Made);
    shift.write_as_it_stands(AuditAction::KeyDestroy, details, vec![item], writes, then).await?;
    reached(shift.job.place.kind, Step::Committed);
    Ok(())
}
