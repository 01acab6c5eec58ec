//! From a tenant and a purpose, or a record, to an open key.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use vault_mem::LockedKey;

use super::cache::{OpenKey, Slot};
use super::versions::{Versions, check_state};
use super::{ASKING, Inner, KeyringError, data_key, index_key};
use crate::crypto::{DataKey, IndexKey};
use crate::domain::{KeyId, KeyPurpose, KeyRecord, Record, TenantId};
use crate::kms::KeyContext;
use crate::store::StoreError;

/// Keys that one request opens at the same time.
const OPEN_AT_ONCE: usize = 16;
/// Keys are looked at again after that long: it is how far one may be past its bound.
const NO_TIME: Duration = Duration::from_millis(20);
/// How often the store is asked for a list that takes too long to come.
const ATTEMPTS: usize = 2;
/// How long who asks for a list waits for those who asked before.
const TURN: Duration = Duration::from_secs(5);

impl Inner {
    pub(super) async fn active(
        self: &Arc<Self>,
        tenant: &TenantId,
        purpose: KeyPurpose,
    ) -> Result<OpenKey, KeyringError> {
        if let Some(key) = self.hit(tenant, purpose, Versions::active) {
            return Ok(key);
        }
        let versions = self.versions(tenant, purpose).await?;
        match versions.active() {
            Some(record) => self.open(tenant, record).await,
            None if versions.is_empty() => self.create(tenant, purpose).await,
            None => Err(KeyringError::Unusable),
        }
    }

    pub(super) async fn data_keys_of(
        self: &Arc<Self>,
        records: &[Record],
    ) -> HashMap<KeyId, Result<Arc<DataKey>, KeyringError>> {
        let wanted: BTreeSet<(KeyId, TenantId)> =
            records.iter().filter_map(|record| Some((record.key_id()?, record.tenant.clone()))).collect();
        let mut opening = stream::iter(wanted)
            .map(|(id, tenant)| {
                let inner = Arc::clone(self);
                async move { (id, inner.data_key_of(&tenant, id).await) }
            })
            .buffer_unordered(OPEN_AT_ONCE);
        let mut keys = HashMap::new();
        let begun = Instant::now();
        while let Some((id, key)) = opening.next().await {
            // Records of two tenants that name one key: its owner's answer stands. It carries the owner, so it
            // opens none of the other's.
            if key.is_ok() || !keys.contains_key(&id) {
                keys.insert(id, key);
            }
        }
        if begun.elapsed() >= NO_TIME {
            // Those that came first waited here for the others.
            let mut unknown = None;
            for (id, key) in &mut keys {
                let Ok(open) = key else { continue };
                let checked = match &unknown {
                    Some(error) => Err(KeyringError::clone(error)),
                    None => self.check_still(open.tenant(), KeyPurpose::Data, *id).await,
                };
                if let Err(error) = checked {
                    // A store that is too slow to tell is not asked for each of them.
                    unknown = matches!(error, KeyringError::Store(_)).then(|| error.clone());
                    *key = Err(error);
                }
            }
        }
        keys
    }

    async fn data_key_of(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: KeyId,
    ) -> Result<Arc<DataKey>, KeyringError> {
        if let Some(key) = self.hit(tenant, KeyPurpose::Data, |versions| versions.find(id)) {
            return data_key(key);
        }
        let versions = self.fresh_versions(tenant, KeyPurpose::Data).await?;
        let record = match versions.find(id) {
            Some(record) => record.clone(),
            None => Arc::new(self.newer_key(tenant, id).await?),
        };
        data_key(self.open(tenant, &record).await?)
    }

    /// A data key that is not in the list: another instance has just made it, or the record that names it was
    /// tampered with.
    async fn newer_key(&self, tenant: &TenantId, id: KeyId) -> Result<KeyRecord, KeyringError> {
        let record = self.store.key(id).await?.ok_or(KeyringError::Corrupt)?;
        if record.id != id || record.tenant.as_ref() != Some(tenant) || record.purpose != KeyPurpose::Data {
            return Err(KeyringError::Corrupt);
        }
        self.state.lock().versions.remove(&(tenant.clone(), KeyPurpose::Data));
        Ok(record)
    }

    /// The way of nearly every request: a fresh list and an open key, under one lock.
    fn hit(
        &self,
        tenant: &TenantId,
        purpose: KeyPurpose,
        pick: impl FnOnce(&Versions) -> Option<&Arc<KeyRecord>>,
    ) -> Option<OpenKey> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let versions = state.versions.get(&(tenant.clone(), purpose)).filter(|known| known.is_fresh(now))?;
        let id = pick(versions).filter(|record| check_state(record).is_ok())?.id;
        state.cache.get(&Slot { tenant: tenant.clone(), purpose, id }, now)
    }

    /// All versions of a list that may be used, newest first.
    pub(super) async fn open_index_keys(
        self: &Arc<Self>,
        tenant: &TenantId,
        versions: &Versions,
    ) -> Result<Vec<Arc<IndexKey>>, KeyringError> {
        let opening = versions.usable()?.into_iter().map(|record| self.open(tenant, record));
        try_join_all(opening).await?.into_iter().map(index_key).collect()
    }

    /// Opens a key of a list that is fresh.
    pub(super) async fn open(
        self: &Arc<Self>,
        tenant: &TenantId,
        record: &Arc<KeyRecord>,
    ) -> Result<OpenKey, KeyringError> {
        check_state(record)?;
        if record.tenant.as_ref() != Some(tenant) {
            return Err(KeyringError::Corrupt);
        }
        let slot = Slot { tenant: tenant.clone(), purpose: record.purpose, id: record.id };
        let generation = {
            let mut state = self.state.lock();
            if let Some(key) = state.cache.get(&slot, Instant::now()) {
                return Ok(key);
            }
            state.generation
        };
        self.start_sweeping();
        let (inner, record, purpose) = (self.clone(), record.clone(), record.purpose);
        let load = {
            let slot = slot.clone();
            async move {
                // Someone may have opened it between the look above and this load.
                {
                    let mut state = inner.state.lock();
                    if let Some(key) = state.cache.get(&slot, Instant::now()) {
                        return Ok(key);
                    }
                    state.cache.missed();
                }
                let key = open_key(&slot, &record, inner.unwrap(&record).await?)?;
                inner.keep(slot, key.clone(), generation);
                Ok(key)
            }
        };
        let id = slot.id;
        let key = self.opening.join(slot, load).await?;
        self.check_still(tenant, purpose, id).await?;
        Ok(key)
    }

    /// A KMS may take seconds: whether the key may be used still, by a list that is fresh by now.
    async fn check_still(
        self: &Arc<Self>,
        tenant: &TenantId,
        purpose: KeyPurpose,
        id: KeyId,
    ) -> Result<(), KeyringError> {
        let versions = self.fresh_versions(tenant, purpose).await?;
        // One that was made in another instance a moment ago is not in the list yet.
        versions.find(id).map_or(Ok(()), |record| check_state(record))
    }

    pub(super) async fn unwrap(&self, record: &KeyRecord) -> Result<LockedKey, KeyringError> {
        self.kms_calls.fetch_add(1, Ordering::Relaxed);
        Ok(self.kms.unwrap(&record.wraps, &self.context(record)).await?)
    }

    /// From the stored key and the vault's identity; nothing of a request.
    pub(super) fn context(&self, record: &KeyRecord) -> KeyContext {
        KeyContext {
            identity: self.identity.clone(),
            tenant: record.tenant.clone(),
            purpose: record.purpose,
            key_id: record.id,
        }
    }

    /// Keeps an open key, unless everything was forgotten since `generation`.
    pub(super) fn keep(&self, slot: Slot, key: OpenKey, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation {
            state.cache.insert(slot, key, Instant::now());
        }
    }

    /// The versions of a key that are at most [`FRESH`](super::versions::FRESH) old when this returns: nothing is opened by an
    /// answer that was longer on its way.
    async fn fresh_versions(
        self: &Arc<Self>,
        tenant: &TenantId,
        purpose: KeyPurpose,
    ) -> Result<Arc<Versions>, KeyringError> {
        for _ in 0..ATTEMPTS {
            let versions = self.versions(tenant, purpose).await?;
            if versions.is_fresh(Instant::now()) {
                return Ok(versions);
            }
        }
        Err(late())
    }

    /// The versions of a key, at most [`FRESH`](super::versions::FRESH) old when the store answered at once.
    pub(super) async fn versions(
        self: &Arc<Self>,
        tenant: &TenantId,
        purpose: KeyPurpose,
    ) -> Result<Arc<Versions>, KeyringError> {
        let owned = (tenant.clone(), purpose);
        let generation = {
            let state = self.state.lock();
            if let Some(known) = state.versions.get(&owned).filter(|known| known.is_fresh(Instant::now())) {
                return Ok(known.clone());
            }
            state.generation
        };
        let inner = self.clone();
        let load = {
            let (tenant, purpose) = owned.clone();
            async move { inner.read_versions(&tenant, purpose, generation).await }
        };
        self.listing.join(owned, load).await
    }

    /// The versions of a key as the store has them at some time after the call. Who asks while the store is being asked
    /// shares the next answer: a thousand at once are two questions.
    pub(super) async fn versions_now(
        &self,
        tenant: &TenantId,
        purpose: KeyPurpose,
    ) -> Result<Arc<Versions>, KeyringError> {
        let (owned, called) = ((tenant.clone(), purpose), Instant::now());
        let mut hasher = DefaultHasher::new();
        owned.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % ASKING as u64).unwrap_or_default();
        let _turn = timeout(TURN, self.asking[place].lock()).await.map_err(|_| late())?;
        let generation = {
            let state = self.state.lock();
            if let Some(known) = state.versions.get(&owned).filter(|known| known.is_since(called)) {
                return Ok(known.clone());
            }
            state.generation
        };
        self.read_versions(tenant, purpose, generation).await
    }

    /// Asks the store, and drops open keys whose state no longer allows their use.
    pub(super) async fn read_versions(
        &self,
        tenant: &TenantId,
        purpose: KeyPurpose,
        generation: u64,
    ) -> Result<Arc<Versions>, KeyringError> {
        let asked = Instant::now();
        let records = self.store.keys(Some(tenant), purpose).await?;
        let versions = Arc::new(Versions::new(asked, Some(tenant), purpose, records)?);
        let mut state = self.state.lock();
        for record in versions.all().filter(|record| check_state(record).is_err()) {
            state.cache.remove(&Slot { tenant: tenant.clone(), purpose, id: record.id });
        }
        // A tenant without keys is about to get one; "none" is not worth keeping.
        if state.generation == generation && !versions.is_empty() {
            state.versions.insert((tenant.clone(), purpose), versions.clone());
        }
        Ok(versions)
    }

    /// Begins, once, to drop what is over: a key that nobody asks for again stays in memory for at most a quarter
    /// more than its lifetime.
    pub(super) fn start_sweeping(self: &Arc<Self>) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let period = (self.options.lifetime / 4).max(Duration::from_millis(10));
        tokio::spawn(sweep(Arc::downgrade(self), period));
    }
}

/// The store takes too long to tell which versions there are.
fn late() -> KeyringError {
    KeyringError::Store(StoreError::Unavailable { why: "the list of keys came too late".to_owned() })
}

/// Ends with the keyring.
async fn sweep(keyring: Weak<Inner>, period: Duration) {
    loop {
        sleep(period).await;
        let Some(inner) = keyring.upgrade() else { return };
        let now = Instant::now();
        {
            let mut state = inner.state.lock();
            state.cache.sweep(now);
            state.versions.retain(|_, versions| versions.is_fresh(now));
        }
        inner.opening.sweep(now);
        inner.creating.sweep(now);
        inner.listing.sweep(now);
    }
}

pub(super) fn open_key(slot: &Slot, record: &KeyRecord, key: LockedKey) -> Result<OpenKey, KeyringError> {
    let (id, version, tenant) = (record.id, record.version, slot.tenant.clone());
    match record.purpose {
        KeyPurpose::Data => Ok(OpenKey::Data(Arc::new(DataKey::new(id, version, tenant, key)))),
        KeyPurpose::Index => Ok(OpenKey::Index(Arc::new(IndexKey::new(id, version, tenant, key)))),
        // The vault's own, never a tenant's.
        KeyPurpose::LogSigning | KeyPurpose::RowMac => Err(KeyringError::Corrupt),
    }
}
