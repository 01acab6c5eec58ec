//! The life of the vault's keys: made on first use, opened by the KMS, kept open for a while.
//!
//! * A key is made once: the store lets one writer insert version 1, with its log entry in the same change; the
//!   others read the winner's and open that.
//! * An open key is cached under its whole name, for a hard lifetime ([`CacheOptions`]); its state is checked
//!   against a list that is at most a second old (`versions`), so a key that another instance retires, marks
//!   compromised or destroys is unusable here within that second.
//! * One KMS call serves all who wait for the same key (`flight`).
//! * The KMS context is built from the stored key and the vault's identity, never from a request; and a key is
//!   opened only if its row says it is of the tenant whose record refers to it.
//!
//! A key that the KMS itself disables stays usable until its lifetime in the cache ends; [`Keyring::forget_all`]
//! ends it at once.

mod cache;
mod create;
mod flight;
mod lifecycle;
mod open;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use vault_mem::{LockedKey, LockedMemoryError};

use self::cache::{Cache, OpenKey, Slot};
use self::flight::Flights;
use self::versions::Versions;
use crate::crypto::{DataKey, IndexKey, Warrant};
use crate::domain::{Clock, KeyId, KeyPurpose, KeyRecord, TenantId, VaultIdentity};
use crate::kms::{KmsError, WrappingKeys};
use crate::store::{Store, StoreError};

/// How long open keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// From insertion; no use prolongs it.
    pub lifetime: Duration,
    /// A key is opened anew after so many uses. All who waited for one opening count as one use.
    pub max_uses: u64,
    /// Open keys at the same time.
    pub max_entries: usize,
}

/// Makes the log entry that is committed with a new key.
pub trait Journal: Send + Sync + 'static {
    /// The entry's bytes.
    fn key_created(&self, key: &KeyRecord) -> Bytes;
}

/// Figures of the cache since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Open keys now.
    pub entries: usize,
    /// Uses of a key that was open.
    pub hits: u64,
    /// Times that one had to be opened.
    pub misses: u64,
    /// Keys asked of the KMS, to be made or opened; one may be asked of several regions.
    pub kms_calls: u64,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// No KMS key answers: trying again may help.
    #[error("no KMS key is available")]
    KmsUnavailable,
    /// The KMS refuses the use of its key: an operator must act.
    #[error("the KMS refuses the use of its key")]
    KmsRefused,
    /// The key was destroyed, and with it what was sealed under it.
    #[error("the key was destroyed")]
    Destroyed,
    /// The key's state forbids the use: it is compromised, or no version is active.
    #[error("no key in a usable state")]
    Unusable,
    /// The key is not there, is another tenant's, or does not open under its context.
    #[error("the stored key is not what was written")]
    Corrupt,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
    /// No locked memory for the key.
    #[error("no locked memory for a key")]
    LockedMemory,
}

impl From<KmsError> for KeyringError {
    fn from(error: KmsError) -> Self {
        match error {
            KmsError::Unavailable { .. } => Self::KmsUnavailable,
            KmsError::Refused { .. } => Self::KmsRefused,
            KmsError::Invalid { .. } => Self::Corrupt,
            KmsError::LockedMemory => Self::LockedMemory,
            KmsError::Random => Self::Random,
        }
    }
}

impl From<LockedMemoryError> for KeyringError {
    fn from(_: LockedMemoryError) -> Self {
        Self::LockedMemory
    }
}

/// The vault's keys.
pub struct Keyring(Arc<Inner>);

struct Inner {
    identity: VaultIdentity,
    store: Arc<dyn Store>,
    kms: WrappingKeys,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    options: CacheOptions,
    state: Mutex<State>,
    opening: Arc<Flights<Slot, OpenKey>>,
    creating: Arc<Flights<Owned, OpenKey>>,
    listing: Arc<Flights<Owned, Arc<Versions>>>,
    /// Who asks the store for the versions of now; of tenants that share one of these, one at a time.
    asking: [tokio::sync::Mutex<()>; ASKING],
    kms_calls: AtomicU64,
    sweeping: AtomicBool,
}

/// So many tenants' versions are asked for at the same time by who needs those of now.
const ASKING: usize = 16;

/// A tenant's keys for one purpose.
type Owned = (TenantId, KeyPurpose);

struct State {
    cache: Cache,
    versions: HashMap<Owned, Arc<Versions>>,
    /// Counts `forget_all`: what was loaded before one is not kept after it.
    generation: u64,
}

impl Keyring {
    /// A keyring with an empty cache. It must be used within a tokio runtime.
    pub fn new(
        identity: VaultIdentity,
        store: Arc<dyn Store>,
        kms: WrappingKeys,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        options: CacheOptions,
    ) -> Self {
        Self(Arc::new(Inner {
            identity,
            store,
            kms,
            journal,
            clock,
            options,
            state: Mutex::new(State { cache: Cache::new(options), versions: HashMap::new(), generation: 0 }),
            opening: Flights::new(),
            creating: Flights::new(),
            listing: Flights::new(),
            asking: Default::default(),
            kms_calls: AtomicU64::new(0),
            sweeping: AtomicBool::new(false),
        }))
    }

    /// The data key that seals a tenant's new records; made on first use.
    pub async fn active_data_key(&self, tenant: &TenantId) -> Result<Arc<DataKey>, KeyringError> {
        self.0.active(tenant, KeyPurpose::Data).await.and_then(data_key)
    }

    /// The index key of a tenant's new records; made on first use.
    pub async fn active_index_key(&self, tenant: &TenantId) -> Result<Arc<IndexKey>, KeyringError> {
        self.0.active(tenant, KeyPurpose::Index).await.and_then(index_key)
    }

    /// Every version of a tenant's index key that is not gone, as the list of at most a second ago has them, newest
    /// first; empty if it has none. All or an error: a look-up under some of them would silently miss records.
    pub async fn index_keys(&self, tenant: &TenantId) -> Result<Vec<Arc<IndexKey>>, KeyringError> {
        let versions = self.0.versions(tenant, KeyPurpose::Index).await?;
        self.0.open_index_keys(tenant, &versions).await
    }

    /// As [`Keyring::index_keys`], as the store has them now: what any instance has sealed before the call is under one
    /// of these.
    pub async fn index_keys_now(&self, tenant: &TenantId) -> Result<Vec<Arc<IndexKey>>, KeyringError> {
        let versions = self.0.versions_now(tenant, KeyPurpose::Index).await?;
        self.0.open_index_keys(tenant, &versions).await
    }

    /// The data keys of a warrant's records. A key is opened for the tenant of the record that refers to it, and
    /// carries that tenant.
    pub async fn data_keys<A>(
        &self,
        warrant: &Warrant<A>,
    ) -> HashMap<KeyId, Result<Arc<DataKey>, KeyringError>> {
        self.0.data_keys_of(warrant.records()).await
    }

    /// The Ed25519 seed that signs the log; made on first use. Not cached.
    pub async fn log_signing_key(&self) -> Result<LockedKey, KeyringError> {
        self.0.log_signing_key().await
    }

    /// Whether keys could be opened now: at least one KMS key answers.
    pub async fn probe(&self) -> Result<(), KeyringError> {
        Ok(self.0.kms.probe().await?)
    }

    /// Empties the cache. What is being loaded now is not kept either.
    pub fn forget_all(&self) {
        {
            let mut state = self.0.state.lock();
            state.generation += 1;
            state.cache.clear();
            state.versions.clear();
        }
        self.0.opening.clear();
        self.0.creating.clear();
        self.0.listing.clear();
    }

    /// Figures for metrics.
    pub fn stats(&self) -> CacheStats {
        let (entries, hits, misses) = self.0.state.lock().cache.counts();
        CacheStats { entries, hits, misses, kms_calls: self.0.kms_calls.load(Ordering::Relaxed) }
    }
}

fn data_key(key: OpenKey) -> Result<Arc<DataKey>, KeyringError> {
    match key {
        OpenKey::Data(key) => Ok(key),
        OpenKey::Index(_) => Err(KeyringError::Corrupt),
    }
}

fn index_key(key: OpenKey) -> Result<Arc<IndexKey>, KeyringError> {
    match key {
        OpenKey::Index(key) => Ok(key),
        OpenKey::Data(_) => Err(KeyringError::Corrupt),
    }
}
