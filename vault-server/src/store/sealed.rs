//! A store whose entities are sealed ([`crate::crypto::RowKey`]): what is read of them is what the vault wrote at that place,
//! whoever else can write to the database.
//!
//! * `PutEntity` seals; every read opens. What does not open is [`StoreError::Corrupt`], which names the place, and is told to the
//!   operator. It is never passed over in silence: [`Store::entity_rows`] hands it out as what it is.
//! * Rows that begin, go and stand by their revisions do so as in the engine below; a revision is not under the seal.
//! * So a row that was the vault's own once, and is put back at its place, opens again; and one that is gone is not missed.

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId, Told, UnderWay, Write,
};
use crate::crypto::RowKey;
use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};

/// An engine, and the key of its entities.
pub struct SealedStore {
    engine: Arc<dyn Store>,
    key: Arc<RowKey>,
    told: Told,
}

impl SealedStore {
    /// The entities of an engine, sealed.
    pub fn new(engine: Arc<dyn Store>, key: Arc<RowKey>) -> Self {
        Self { engine, key, told: Told::default() }
    }

    fn sealed(&self, mut change: Change) -> Change {
        for write in &mut change.writes {
            if let Write::PutEntity(entity) = write {
                entity.content = self.key.seal(&entity.place, &entity.content);
            }
        }
        change
    }

    fn open(&self, entity: Entity) -> Result<Entity, (Entity, StoreError)> {
        match self.key.open(&entity.place, &entity.content) {
            Ok(content) => Ok(Entity { content, ..entity }),
            Err(why) => {
                let error = self.forged(&entity.place, why);
                Err((entity, error))
            }
        }
    }

    /// The error that names a row. The operator is told: at once, and then once in a while.
    fn forged(&self, place: &EntityPlace, why: impl Display) -> StoreError {
        let error = forged(place, why);
        if self.told.is_due(&error.to_string()) {
            tracing::error!(%error, "a row of the access layer was not written by the vault");
        }
        error
    }

    /// Of the engine's error about a row, where it is malformed: the one that names it.
    fn malformed(&self, place: &EntityPlace, error: StoreError) -> StoreError {
        match error {
            StoreError::Corrupt { .. } => self.forged(place, MALFORMED),
            error => error,
        }
    }
}

const MALFORMED: &str = "it is malformed";

/// The error that names a row.
fn forged(place: &EntityPlace, why: impl Display) -> StoreError {
    let EntityPlace { kind, tenant, name } = place;
    let of = tenant.as_ref().map_or("the vault", TenantId::as_str);
    StoreError::Corrupt { what: format!("{} {name:?} of {of}: {why}", kind.as_str()) }
}

#[async_trait]
impl Store for SealedStore {
    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.engine.commit(self.sealed(change)).await
    }

    async fn commit_until(&self, change: Change, until: Instant) -> Result<Committed, StoreError> {
        self.engine.commit_until(self.sealed(change), until).await
    }

    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        let found = self.engine.entity(place).await.map_err(|error| self.malformed(place, error))?;
        // Where it was looked for is what it must be sealed for.
        let found = found.map(|entity| self.open(Entity { place: place.clone(), ..entity }));
        found.transpose().map_err(|(_, error)| error)
    }

    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        let page = self.engine.entities(of, after, limit).await?;
        page.into_iter().map(|entity| self.open(entity).map_err(|(_, error)| error)).collect()
    }

    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        let page = self.engine.entity_rows(of, after, limit).await?;
        let rows = page.into_iter().map(|row| match row {
            EntityRow::Sound(entity) => match self.open(entity) {
                Ok(entity) => EntityRow::Sound(entity),
                Err((Entity { place, revision, .. }, _)) => {
                    EntityRow::Forged { place, revision: Some(revision) }
                }
            },
            EntityRow::Forged { place, revision } => {
                self.forged(&place, MALFORMED);
                EntityRow::Forged { place, revision }
            }
        });
        Ok(rows.collect())
    }

    async fn adopt(&self) -> Result<Option<Arc<dyn Store>>, StoreError> {
        let adopted = self.engine.adopt().await?;
        Ok(adopted.map(|engine| Arc::new(Self::new(engine, Arc::clone(&self.key))) as Arc<dyn Store>))
    }

    // The rest is the engine's.

    fn engine(&self) -> &'static str {
        self.engine.engine()
    }

    fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        self.engine.identity().await
    }

    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError> {
        self.engine.found(identity).await
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.engine.records(tokens).await
    }

    async fn records_to_replace(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.engine.records_to_replace(tokens).await
    }

    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.engine.find(tenant, class, index, limit).await
    }

    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.engine.tokens_of_subject(tenant, subject, after, limit).await
    }

    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        self.engine.tokens_of_key(key, after, limit).await
    }

    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError> {
        self.engine.count_of_key(key).await
    }

    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        self.engine.indexed_under(tenant, class, version, after, limit).await
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.engine.keys(tenant, purpose).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.engine.key(id).await
    }

    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        self.engine.remembered(key).await
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.engine.forget(now, limit).await
    }

    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
        self.engine.lease(name).await
    }

    async fn job(&self, place: &JobPlace) -> Result<Option<Job>, StoreError> {
        self.engine.job(place).await
    }

    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<Job>, StoreError> {
        self.engine.jobs(after, limit).await
    }

    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<Job>, StoreError> {
        self.engine.job_rows(after, limit).await
    }

    async fn jobs_under_way(&self) -> Result<UnderWay, StoreError> {
        self.engine.jobs_under_way().await
    }

    fn log(&self) -> LogId {
        self.engine.log()
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        self.engine.logs().await
    }

    async fn log_size(&self, log: LogId) -> Result<u64, StoreError> {
        self.engine.log_size(log).await
    }

    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.engine.entries(log, start, max_entries, max_bytes).await
    }

    fn seal_entries(&self, seals: Arc<EntrySeals>) {
        self.engine.seal_entries(seals);
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.engine.entries_to_sign(log, start, max_entries, max_bytes).await
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        self.engine.derive(derived).await
    }

    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError> {
        self.engine.derived(log).await
    }

    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        self.engine.tile(log, id).await
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
        self.engine.postings(log, key, from, until, newest_first, limit).await
    }

    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.engine.scan_records(after, limit).await
    }

    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError> {
        self.engine.scan_keys(after, limit).await
    }

    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError> {
        self.engine.key_rows(after, limit).await
    }

    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.engine.scan_remembered(after, limit).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.engine.stats().await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.engine.close().await
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
