//! What rotation, revocation and the jobs need: fresh lists, new versions, keys for jobs, wraps made anew. What of it is
//! written is the caller's to commit, with its log entry.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_mem::LockedKey;

use super::open::open_key;
use super::versions::{Versions, check_state};
use super::{Inner, Keyring, KeyringError, Slot, data_key};
use crate::crypto::{DataKey, Mandate, RowKey};
use crate::domain::{KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion, KmsSet, TenantId};

impl Keyring {
    /// All versions of a key as the store has them now, newest first.
    pub async fn list(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, KeyringError> {
        Ok(self.0.list(tenant, purpose).await?.into_newest_first())
    }

    /// A new version of a tenant's key, active, wrapped by every KMS key. It is nowhere yet but here.
    pub async fn new_version(
        &self,
        tenant: &TenantId,
        purpose: KeyPurpose,
        version: KeyVersion,
    ) -> Result<KeyRecord, KeyringError> {
        Ok(self.0.new_key(Some(tenant), purpose, version).await?.0)
    }

    /// A new version of the vault's signing key, and its seed. It is nowhere yet but here.
    pub async fn new_signing_version(
        &self,
        version: KeyVersion,
    ) -> Result<(KeyRecord, LockedKey), KeyringError> {
        self.0.new_key(None, KeyPurpose::LogSigning, version).await
    }

    /// The Ed25519 seed of a version that may sign. Not cached.
    pub async fn signing_seed(&self, record: &KeyRecord) -> Result<LockedKey, KeyringError> {
        if record.tenant.is_some() || record.purpose != KeyPurpose::LogSigning {
            return Err(KeyringError::Corrupt);
        }
        check_state(record)?;
        self.0.unwrap(record).await
    }

    /// What the rows of the access layer are sealed with; `None` if there never was one. Held open by who asks.
    pub async fn row_key(&self) -> Result<Option<RowKey>, KeyringError> {
        let versions = self.0.list(None, KeyPurpose::RowMac).await?;
        if versions.is_empty() {
            return Ok(None);
        }
        let record = versions.active().ok_or(KeyringError::Unusable)?;
        let key = self.0.unwrap(record).await?;
        Ok(Some(RowKey::new(record.version, self.0.identity.clone(), key)))
    }

    /// The first version of the key of [`Keyring::row_key`]. It is nowhere yet but here.
    pub async fn new_row_key(&self) -> Result<(KeyRecord, RowKey), KeyringError> {
        let (record, key) = self.0.new_key(None, KeyPurpose::RowMac, KeyVersion::FIRST).await?;
        let key = RowKey::new(record.version, self.0.identity.clone(), key);
        Ok((record, key))
    }

    /// Writes a new key, with its log entry; `false` if somebody was faster.
    pub async fn insert(&self, key: &KeyRecord) -> Result<bool, KeyringError> {
        self.0.insert(key).await
    }

    /// The next use of a tenant's keys asks the store how they stand.
    pub fn forget(&self, tenant: &TenantId, purpose: KeyPurpose) {
        {
            let mut state = self.0.state.lock();
            // What is being loaded now may be of before.
            state.generation += 1;
            state.versions.remove(&(tenant.clone(), purpose));
        }
        self.0.listing.clear();
    }

    /// A data key that a job may seal anew what it sealed: also one that callers get nothing of any more. Not cached.
    pub async fn data_key_for_job(&self, mandate: &Mandate, id: KeyId) -> Result<DataKey, KeyringError> {
        let inner = &self.0;
        let record = inner.store.key(id).await?.ok_or(KeyringError::Corrupt)?;
        let tenant = mandate.tenant();
        let is_right =
            record.id == id && record.tenant.as_ref() == Some(tenant) && record.purpose == KeyPurpose::Data;
        if !is_right {
            return Err(KeyringError::Corrupt);
        }
        if record.state == KeyState::Destroyed {
            return Err(KeyringError::Destroyed);
        }
        let slot = Slot { tenant: tenant.clone(), purpose: record.purpose, id };
        let key = data_key(open_key(&slot, &record, inner.unwrap(&record).await?)?)?;
        Ok(Arc::into_inner(key).expect("nobody else has it yet"))
    }

    /// The key with the wraps that it should have: by every KMS key that its tenant may have, and by no other, each of
    /// which opens to it. `None` if it has just these. Its revision is the next one.
    pub async fn rewrapped(&self, record: &KeyRecord) -> Result<Option<KeyRecord>, KeyringError> {
        let inner = &self.0;
        inner.kms_calls.fetch_add(1, Ordering::Relaxed);
        let wraps = inner.kms.rewrap(&record.wraps, &inner.context(record)).await?;
        let revision = record.revision.wrapping_add(1);
        Ok((wraps != record.wraps).then(|| KeyRecord { wraps, revision, ..record.clone() }))
    }

    /// How many KMS keys wrap each key of a tenant, or of the vault's own.
    pub fn kms_keys(&self, tenant: Option<&TenantId>) -> u64 {
        self.0.kms.names_for(tenant).count() as u64
    }

    /// Which KMS keys wrap whose keys here.
    pub fn kms_set(&self) -> KmsSet {
        self.0.kms.set()
    }

    /// KMS keys that have a wrap of a key and are asked nothing about it: not configured, or not among those that its
    /// tenant is pinned to.
    pub fn strays(&self, record: &KeyRecord) -> Vec<String> {
        let asked: Vec<&str> = self.0.kms.names_for(record.tenant.as_ref()).collect();
        let names = record.wraps.iter().map(|wrap| &wrap.wrapping_key);
        names.filter(|name| !asked.contains(&name.as_str())).cloned().collect()
    }
}

impl Inner {
    pub(super) async fn list(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Versions, KeyringError> {
        let asked = tokio::time::Instant::now();
        Versions::new(asked, tenant, purpose, self.store.keys(tenant, purpose).await?)
    }
}
