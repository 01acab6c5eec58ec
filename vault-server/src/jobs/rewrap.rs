//! The job on wraps: each key under every KMS key that its tenant may have, and under no other.

use super::shift::{End, Shift, Stop};
use super::steps::{Step, reached};
use crate::audit::{Item, LogError, Outcome};
use crate::domain::{JobKind, KeyPurpose, KeyRecord, KeyState};
use crate::keyring::KeyringError;
use crate::store::Write;

/// How often a key is tried that others change meanwhile.
const ATTEMPTS: usize = 4;

pub(super) async fn rewrap(shift: &mut Shift) -> Result<End, Stop> {
    let tenant = shift.job.place.tenant.clone();
    let mut failed = Vec::new();
    for purpose in KeyPurpose::of(tenant.as_ref()) {
        for key in shift.parts.keyring.list(tenant.as_ref(), *purpose).await? {
            if key.state == KeyState::Destroyed {
                continue;
            }
            shift.tick().await?;
            if let Some(outcome) = one(shift, key.clone()).await? {
                failed.push(Item { key_id: Some(key.id), outcome, ..Item::invalid() });
            }
        }
    }
    shift.job.progress.failed = failed.len() as u64;
    let end = if failed.is_empty() { End::Done } else { End::Failed("keys_left") };
    shift.trouble(failed).await?;
    Ok(end)
}

/// What to say of the key if its wraps could not be made.
async fn one(shift: &mut Shift, mut key: KeyRecord) -> Result<Option<Outcome>, Stop> {
    for _ in 0..ATTEMPTS {
        reached(JobKind::Rewrap, Step::Loaded);
        let kms_keys = shift.parts.keyring.kms_keys(key.tenant.as_ref());
        shift.spend_kms_calls(1 + 2 * kms_keys).await?;
        let changed = match shift.parts.keyring.rewrapped(&key).await {
            Ok(None) => {
                shift.job.progress.done += 1;
                return Ok(None);
            }
            Ok(Some(changed)) => changed,
            Err(KeyringError::KmsRefused) => return Ok(Some(Outcome::KeyUnusable)),
            Err(KeyringError::Corrupt) => return Ok(Some(Outcome::Corrupt)),
            Err(error) => return Err(error.into()),
        };
        reached(JobKind::Rewrap, Step::Made);
        // The last thing before it: an instance with other KMS keys has said so before it made a key.
        if !shift.agreement.holds().await? {
            return Err(Stop::Disagreed);
        }
        match shift.parts.log.write(vec![shift.fence(), Write::ReplaceKey(changed)]).await {
            Ok(_) => {
                reached(JobKind::Rewrap, Step::Committed);
                shift.job.progress.done += 1;
                return Ok(None);
            }
            Err(LogError::Conflict { write: 0 }) => return Err(Stop::Lost),
            Err(LogError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match shift.parts.store.key(key.id).await? {
            Some(there) if there.state != KeyState::Destroyed => key = there,
            _ => return Ok(None),
        }
    }
    Ok(Some(Outcome::Failed))
}
