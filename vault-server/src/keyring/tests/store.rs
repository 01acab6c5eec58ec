//! A store of keys, with what a test wants to go wrong.

use async_trait::async_trait;
use tokio::time::Instant;
use tokio::time::sleep;

use super::*;
use crate::store::EntrySeals;

/// Keeps keys and log entries; knows nothing else.
#[derive(Default)]
pub(super) struct KeyStore {
    pub(super) keys: Mutex<Vec<KeyRecord>>,
    pub(super) entries: Mutex<Vec<Bytes>>,
    pub(super) reads: AtomicU64,
    pub(super) down: AtomicBool,
    /// Time a commit takes.
    pub(super) slow: Duration,
    /// How long the answer to the next question for the list is on its way.
    pub(super) delay: Mutex<Duration>,
}

impl KeyStore {
    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::Relaxed) { no() } else { Ok(()) }
    }

    pub(super) fn change(&self, id: KeyId, change: impl FnOnce(&mut KeyRecord)) {
        change(self.keys.lock().iter_mut().find(|key| key.id == id).unwrap());
    }

    pub(super) fn only(&self) -> KeyRecord {
        let keys = self.keys.lock();
        assert_eq!(keys.len(), 1);
        keys[0].clone()
    }
}

fn no<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable { why: "told to".to_owned() })
}

#[async_trait]
impl Store for KeyStore {
    fn engine(&self) -> &'static str {
        "keys"
    }
    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        no()
    }
    async fn found(&self, _: &VaultIdentity) -> Result<(), StoreError> {
        no()
    }
    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.up()?;
        sleep(self.slow).await;
        let mut keys = self.keys.lock();
        let [Write::InsertKey(new)] = change.writes.as_slice() else { return no() };
        let name = |key: &KeyRecord| (key.tenant.clone(), key.purpose, key.version);
        if keys.iter().any(|key| name(key) == name(new)) {
            return Err(StoreError::Conflict { write: 0 });
        }
        keys.push(new.clone());
        self.entries.lock().extend(change.entries);
        Ok(Committed { first_sequence: 0 })
    }
    async fn commit_until(&self, change: Change, _: Instant) -> Result<Committed, StoreError> {
        self.commit(change).await
    }
    async fn records(&self, _: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        no()
    }
    async fn find(
        &self,
        _: &TenantId,
        _: &ClassName,
        _: BlindIndex,
        _: usize,
    ) -> Result<Vec<Token>, StoreError> {
        no()
    }
    async fn tokens_of_subject(
        &self,
        _: &TenantId,
        _: SubjectRef,
        _: Option<Token>,
        _: usize,
    ) -> Result<Vec<Token>, StoreError> {
        no()
    }
    async fn tokens_of_key(&self, _: KeyId, _: Option<Cursor>, _: usize) -> Result<Page<Token>, StoreError> {
        no()
    }
    async fn count_of_key(&self, _: KeyId) -> Result<u64, StoreError> {
        no()
    }
    async fn indexed_under(
        &self,
        _: &TenantId,
        _: &ClassName,
        _: KeyVersion,
        _: Option<Cursor>,
        _: usize,
    ) -> Result<Page<Token>, StoreError> {
        no()
    }
    async fn job_rows(&self, _: Option<Cursor>, _: usize) -> Result<Page<Job>, StoreError> {
        no()
    }
    async fn key_rows(&self, _: Option<Cursor>, _: usize) -> Result<Page<KeyRecord>, StoreError> {
        no()
    }
    async fn job(&self, _: &JobPlace) -> Result<Option<Job>, StoreError> {
        no()
    }
    async fn jobs(&self, _: Option<&JobPlace>, _: usize) -> Result<Vec<Job>, StoreError> {
        no()
    }
    async fn entity(&self, _: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        no()
    }
    async fn entities(
        &self,
        _: &EntityScope,
        _: Option<&EntityPlace>,
        _: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        no()
    }
    async fn entity_rows(
        &self,
        _: &EntityScope,
        _: Option<&EntityPlace>,
        _: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        no()
    }
    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.up()?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        // Others run while it is asked.
        tokio::task::yield_now().await;
        let is_one = |key: &&KeyRecord| key.tenant.as_ref() == tenant && key.purpose == purpose;
        let found = self.keys.lock().iter().filter(is_one).cloned().collect();
        let delay = std::mem::take(&mut *self.delay.lock());
        sleep(delay).await;
        Ok(found)
    }
    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.up()?;
        Ok(self.keys.lock().iter().find(|key| key.id == id).cloned())
    }
    async fn remembered(&self, _: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        no()
    }
    async fn forget(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        no()
    }
    async fn log_size(&self, _: LogId) -> Result<u64, StoreError> {
        no()
    }
    async fn entries(&self, _: LogId, _: u64, _: usize, _: usize) -> Result<Vec<Bytes>, StoreError> {
        no()
    }
    fn seal_entries(&self, _: Arc<EntrySeals>) {}
    async fn entries_to_sign(&self, _: LogId, _: u64, _: usize, _: usize) -> Result<Vec<Bytes>, StoreError> {
        no()
    }
    async fn derive(&self, _: Derived) -> Result<(), StoreError> {
        no()
    }
    async fn derived(&self, _: LogId) -> Result<DerivedState, StoreError> {
        no()
    }
    async fn tile(&self, _: LogId, _: TileId) -> Result<Option<Bytes>, StoreError> {
        no()
    }
    async fn postings(
        &self,
        _: LogId,
        _: &[u8],
        _: u64,
        _: u64,
        _: bool,
        _: usize,
    ) -> Result<Vec<u64>, StoreError> {
        no()
    }
    fn log(&self) -> LogId {
        LogId::default()
    }
    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        no()
    }
    async fn lease(&self, _: &LeaseName) -> Result<Option<Lease>, StoreError> {
        no()
    }
    async fn scan_records(&self, _: Option<Token>, _: usize) -> Result<Vec<Record>, StoreError> {
        no()
    }
    async fn scan_keys(&self, _: Option<KeyId>, _: usize) -> Result<Vec<KeyRecord>, StoreError> {
        no()
    }
    async fn scan_remembered(&self, _: Option<[u8; 32]>, _: usize) -> Result<Vec<Remembered>, StoreError> {
        no()
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        no()
    }
    async fn close(&self) -> Result<(), StoreError> {
        no()
    }
}
