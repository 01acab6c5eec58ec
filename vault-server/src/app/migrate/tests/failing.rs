//! A store that fails after so many calls, as one does whose process is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId,
};

pub(super) struct Failing {
    store: Arc<dyn Store>,
    left: AtomicUsize,
}

impl Failing {
    pub(super) fn after(calls: usize, store: Arc<dyn Store>) -> Self {
        Self { store, left: AtomicUsize::new(calls) }
    }

    fn call(&self) -> Result<&dyn Store, StoreError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let why = "killed".to_owned();
        if left.is_ok() { Ok(&*self.store) } else { Err(StoreError::Unavailable { why }) }
    }
}

#[async_trait]
impl Store for Failing {
    fn engine(&self) -> &'static str {
        self.store.engine()
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        self.call()?.identity().await
    }

    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError> {
        self.call()?.found(identity).await
    }

    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.call()?.commit(change).await
    }

    async fn commit_until(&self, change: Change, until: Instant) -> Result<Committed, StoreError> {
        self.call()?.commit_until(change, until).await
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.call()?.records(tokens).await
    }

    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.call()?.find(tenant, class, index, limit).await
    }

    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.call()?.tokens_of_subject(tenant, subject, after, limit).await
    }

    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        self.call()?.tokens_of_key(key, after, limit).await
    }

    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError> {
        self.call()?.count_of_key(key).await
    }

    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        self.call()?.indexed_under(tenant, class, version, after, limit).await
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.call()?.keys(tenant, purpose).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.call()?.key(id).await
    }

    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        self.call()?.remembered(key).await
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.call()?.forget(now, limit).await
    }

    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
        self.call()?.lease(name).await
    }

    async fn job(&self, place: &JobPlace) -> Result<Option<Job>, StoreError> {
        self.call()?.job(place).await
    }

    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<Job>, StoreError> {
        self.call()?.jobs(after, limit).await
    }

    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<Job>, StoreError> {
        self.call()?.job_rows(after, limit).await
    }

    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        self.call()?.entity(place).await
    }

    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        self.call()?.entities(of, after, limit).await
    }

    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        self.call()?.entity_rows(of, after, limit).await
    }

    fn log(&self) -> LogId {
        self.store.log()
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        self.call()?.logs().await
    }

    async fn log_size(&self, log: LogId) -> Result<u64, StoreError> {
        self.call()?.log_size(log).await
    }

    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.call()?.entries(log, start, max_entries, max_bytes).await
    }

    fn seal_entries(&self, seals: Arc<EntrySeals>) {
        self.store.seal_entries(seals);
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.call()?.entries_to_sign(log, start, max_entries, max_bytes).await
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        self.call()?.derive(derived).await
    }

    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError> {
        self.call()?.derived(log).await
    }

    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        self.call()?.tile(log, id).await
    }

    async fn postings(
        &self,
        log: LogId,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        self.call()?.postings(log, key, from, until, newest_first, limit).await
    }

    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.call()?.scan_records(after, limit).await
    }

    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError> {
        self.call()?.scan_keys(after, limit).await
    }

    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError> {
        self.call()?.key_rows(after, limit).await
    }

    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.call()?.scan_remembered(after, limit).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.call()?.stats().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
