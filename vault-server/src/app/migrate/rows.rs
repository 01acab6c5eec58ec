//! The kinds of rows that are moved as they are: each is scanned in the order of its names.

use async_trait::async_trait;

use crate::domain::{
    Entity, EntityKind, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyRecord, Record, TenantId,
    Timestamp, Token,
};
use crate::store::{Remembered, Store, StoreError, Write};

/// A kind of row.
#[async_trait]
pub(super) trait Row: Clone + PartialEq + Send + Sync {
    /// What it is found by.
    type Name: Ord + Clone + Send + Sync;

    /// One of them, and many, for people.
    const ONE: &'static str;
    const MANY: &'static str;

    async fn page(
        store: &dyn Store,
        after: Option<&Self::Name>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError>;

    fn name(&self) -> Self::Name;

    /// Its name, for people.
    fn named(name: &Self::Name) -> String;

    /// Whether it may be left behind.
    fn is_over(&self, _now: Timestamp) -> bool {
        false
    }

    /// About how many bytes it has.
    fn bytes(&self) -> usize;

    /// Writes it to a store that has none of its name.
    fn insert(self) -> Write;
}

#[async_trait]
impl Row for Record {
    type Name = [u8; 16];

    const ONE: &'static str = "record";
    const MANY: &'static str = "records";

    async fn page(
        store: &dyn Store,
        after: Option<&[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        store.scan_records(after.copied().map(Token::from_bytes), limit).await
    }

    fn name(&self) -> [u8; 16] {
        *self.token.as_bytes()
    }

    fn named(name: &[u8; 16]) -> String {
        hex::encode(name)
    }

    fn bytes(&self) -> usize {
        256 + self.sealed_len()
    }

    fn insert(self) -> Write {
        Write::Insert(self)
    }
}

#[async_trait]
impl Row for KeyRecord {
    type Name = [u8; 16];

    const ONE: &'static str = "key";
    const MANY: &'static str = "keys";

    async fn page(
        store: &dyn Store,
        after: Option<&[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        // Few are many here: each has a statement of its own.
        store.scan_keys(after.copied().map(KeyId::from_bytes), limit.min(64)).await
    }

    fn name(&self) -> [u8; 16] {
        *self.id.as_bytes()
    }

    fn named(name: &[u8; 16]) -> String {
        hex::encode(name)
    }

    fn bytes(&self) -> usize {
        256 + self.statements.len()
            + self.wraps.iter().map(|wrap| wrap.ciphertext.len() + wrap.wrapping_key.len()).sum::<usize>()
    }

    fn insert(self) -> Write {
        Write::InsertKey(self)
    }
}

#[async_trait]
impl Row for Remembered {
    type Name = [u8; 32];

    const ONE: &'static str = "remembered answer";
    const MANY: &'static str = "remembered answers";

    async fn page(
        store: &dyn Store,
        after: Option<&[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        // One may have as many tokens as a request has items.
        store.scan_remembered(after.copied(), limit.min(16)).await
    }

    fn name(&self) -> [u8; 32] {
        self.key
    }

    fn named(name: &[u8; 32]) -> String {
        hex::encode(name)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.expires < now
    }

    fn bytes(&self) -> usize {
        128 + 17 * self.tokens.len()
    }

    fn insert(self) -> Write {
        Write::Remember(self)
    }
}

/// All but its revision, which counts the changes of one store's row.
#[async_trait]
impl Row for Job {
    type Name = JobPlace;

    const ONE: &'static str = "job";
    const MANY: &'static str = "jobs";

    async fn page(
        store: &dyn Store,
        after: Option<&JobPlace>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let jobs = store.jobs(after, limit).await?;
        Ok(jobs.into_iter().map(|job| Job { revision: 0, ..job }).collect())
    }

    fn name(&self) -> JobPlace {
        self.place.clone()
    }

    fn named(name: &JobPlace) -> String {
        let tenant = name.tenant.as_ref().map_or("the vault", TenantId::as_str);
        format!("{} of {tenant}", name.kind.as_str())
    }

    fn bytes(&self) -> usize {
        512 + self.cause.len()
    }

    fn insert(self) -> Write {
        Write::PutJob(self)
    }
}

/// All but its revision, as with jobs.
#[async_trait]
impl Row for Entity {
    type Name = EntityPlace;

    const ONE: &'static str = "entity";
    const MANY: &'static str = "entities";

    /// Kind by kind: that is the order of their places.
    async fn page(
        store: &dyn Store,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        // One has at most 32 KiB.
        let limit = limit.min(128);
        let mut page = Vec::new();
        for kind in EntityKind::ALL.iter().filter(|kind| after.is_none_or(|after| **kind >= after.kind)) {
            let of_kind = store.entities(&EntityScope::Kind(*kind), after, limit - page.len()).await?;
            page.extend(of_kind.into_iter().map(|entity| Entity { revision: 0, ..entity }));
            if page.len() == limit {
                break;
            }
        }
        Ok(page)
    }

    fn name(&self) -> EntityPlace {
        self.place.clone()
    }

    fn named(name: &EntityPlace) -> String {
        let tenant = name.tenant.as_ref().map_or("the vault", TenantId::as_str);
        format!("{} {:?} of {tenant}", name.kind.as_str(), name.name)
    }

    fn bytes(&self) -> usize {
        256 + self.content.len()
    }

    fn insert(self) -> Write {
        Write::PutEntity(self)
    }
}
