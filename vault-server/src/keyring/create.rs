//! The first version of a key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_mem::LockedKey;

use super::cache::{OpenKey, Slot};
use super::open::open_key;
use super::{Inner, KeyringError};
use crate::domain::{KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion, TenantId};
use crate::kms::KeyContext;
use crate::store::{Change, StoreError, Write};

/// Who made the first version.
pub(super) enum Made {
    Here(KeyRecord, LockedKey),
    Elsewhere,
}

impl Inner {
    /// Makes a tenant's first key for a purpose, or opens the one that was made meanwhile.
    pub(super) async fn create(
        self: &Arc<Self>,
        tenant: &TenantId,
        purpose: KeyPurpose,
    ) -> Result<OpenKey, KeyringError> {
        let generation = self.state.lock().generation;
        self.start_sweeping();
        let inner = self.clone();
        let owned = (tenant.clone(), purpose);
        let load = {
            let (tenant, purpose) = owned.clone();
            async move {
                // Asked again: it may have been made since this load's beginner looked.
                let versions = inner.read_versions(&tenant, purpose, generation).await?;
                if versions.is_empty()
                    && let Made::Here(record, key) = inner.make(Some(&tenant), purpose).await?
                {
                    let slot = Slot { tenant, purpose, id: record.id };
                    let key = open_key(&slot, &record, key)?;
                    inner.keep(slot, key.clone(), generation);
                    return Ok(key);
                }
                let versions = inner.read_versions(&tenant, purpose, generation).await?;
                let record = versions.active().ok_or(KeyringError::Unusable)?;
                inner.open(&tenant, record).await
            }
        };
        self.creating.join(owned, load).await
    }

    pub(super) async fn log_signing_key(&self) -> Result<LockedKey, KeyringError> {
        let purpose = KeyPurpose::LogSigning;
        let versions = self.list(None, purpose).await?;
        if versions.is_empty()
            && let Made::Here(_, key) = self.make(None, purpose).await?
        {
            return Ok(key);
        }
        let versions = if versions.is_empty() { self.list(None, purpose).await? } else { versions };
        self.unwrap(versions.active().ok_or(KeyringError::Unusable)?).await
    }

    /// A new key, wrapped by every KMS key, with its log entry in the same change. One writer wins.
    pub(super) async fn make(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Made, KeyringError> {
        let (record, key) = self.new_key(tenant, purpose, KeyVersion::FIRST).await?;
        Ok(if self.insert(&record).await? { Made::Here(record, key) } else { Made::Elsewhere })
    }

    /// Writes a new key with its log entry; `false` if its place is taken.
    pub(super) async fn insert(&self, record: &KeyRecord) -> Result<bool, KeyringError> {
        let change = Change {
            entries: vec![self.journal.key_created(record)],
            writes: vec![Write::InsertKey(record.clone())],
        };
        match self.store.commit(change).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A new key, wrapped by every KMS key; not kept yet.
    pub(super) async fn new_key(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
        version: KeyVersion,
    ) -> Result<(KeyRecord, LockedKey), KeyringError> {
        let id = KeyId::random().map_err(|_| KeyringError::Random)?;
        let context =
            KeyContext { identity: self.identity.clone(), tenant: tenant.cloned(), purpose, key_id: id };
        self.kms_calls.fetch_add(1, Ordering::Relaxed);
        let (key, wraps) = self.kms.generate(&context).await?;
        let record = KeyRecord {
            id,
            tenant: tenant.cloned(),
            purpose,
            version,
            state: KeyState::Active,
            created: self.clock.now(),
            wraps,
            revision: 0,
            statements: String::new(),
        };
        Ok((record, key))
    }
}
