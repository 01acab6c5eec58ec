//! A store in memory, for unit tests of what stands on a store: nothing is durable, and faults can be had.
//!
//! It is written apart from the embedded store, in maps of the domain's own types: the conformance suite holds
//! both to the same promises, so it is also the model of what an engine should do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::{
    BlindIndex, Body, ClassName, KeyId, KeyPurpose, KeyRecord, KeyVersion, Record, SubjectRef, TenantId,
    Timestamp, Token, VaultIdentity,
};
use crate::store::{
    Change, Committed, Derived, DerivedState, Lookup, MAX_ENTRY, Remembered, Stats, Store, StoreError,
    TileId, Write,
};

/// A store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
    blocked: Arc<watch::Sender<bool>>,
}

type KeyName = (Option<TenantId>, KeyPurpose, KeyVersion);

#[derive(Default)]
struct Rows {
    identity: Option<VaultIdentity>,
    records: BTreeMap<Token, Record>,
    keys: BTreeMap<KeyName, KeyRecord>,
    remembered: BTreeMap<[u8; 32], Remembered>,
    log: Vec<Bytes>,
    tiles: BTreeMap<TileId, Bytes>,
    postings: BTreeSet<(Vec<u8>, u64)>,
    upto: u64,
    checkpoint: Option<(u64, String)>,
    /// What the next commit fails with.
    next_failure: Option<StoreError>,
    /// What everything fails with.
    failure: Option<StoreError>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self { rows: Arc::default(), blocked: Arc::new(watch::Sender::new(false)) }
    }

    /// The next commit fails with this and writes nothing. After [`StoreError::Fatal`] so does everything.
    pub fn fail_next_commit(&self, error: StoreError) {
        self.rows.lock().next_failure = Some(error);
    }

    /// Commits wait until [`MemoryStore::unblock_commits`].
    pub fn block_commits(&self) {
        self.blocked.send_replace(true);
    }

    /// Commits go on.
    pub fn unblock_commits(&self) {
        self.blocked.send_replace(false);
    }

    fn read<R>(&self, read: impl FnOnce(&Rows) -> R) -> Result<R, StoreError> {
        let rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        Ok(read(&rows))
    }
}

impl Rows {
    fn check(&self, write: &Write) -> bool {
        match write {
            Write::Insert(record) => !self.records.contains_key(&record.token),
            Write::Replace(record) => {
                let there = self.records.get(&record.token).map(|there| there.revision);
                there.is_some() && there == record.revision.checked_sub(1)
            }
            Write::InsertKey(key) => {
                !self.keys.contains_key(&name(key)) && self.keys.values().all(|there| there.id != key.id)
            }
            Write::ReplaceKey(key) => self.keys.get(&name(key)).is_some_and(|there| {
                Some(there.revision) == key.revision.checked_sub(1) && there.id == key.id
            }),
            Write::Remember(answer) => {
                self.remembered.get(&answer.key).is_none_or(|there| there.expires <= answer.at)
            }
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Insert(record) | Write::Replace(record) => {
                self.records.insert(record.token, record);
            }
            Write::InsertKey(key) | Write::ReplaceKey(key) => {
                self.keys.insert(name(&key), key);
            }
            Write::Remember(answer) => {
                self.remembered.insert(answer.key, answer);
            }
        }
    }

    fn commit(&mut self, change: Change) -> Result<Committed, StoreError> {
        if change.entries.iter().any(|entry| entry.len() > MAX_ENTRY) {
            return Err(StoreError::Unavailable { why: "a log entry is too long".to_owned() });
        }
        for (number, write) in change.writes.iter().enumerate() {
            let twice = change.writes[..number].iter().any(|before| same_row(before, write));
            if twice || !self.check(write) {
                return Err(StoreError::Conflict { write: number });
            }
        }
        change.writes.into_iter().for_each(|write| self.write(write));
        let first_sequence = self.log.len() as u64;
        self.log.extend(change.entries);
        Ok(Committed { first_sequence })
    }

    fn tokens(&self, is_one: impl Fn(&Record) -> bool, after: Option<Token>, limit: usize) -> Vec<Token> {
        let past = |token: &Token| after.is_none_or(|after| *token > after);
        let found = self.records.values().filter(|record| past(&record.token) && is_one(record));
        found.map(|record| record.token).take(limit).collect()
    }
}

fn name(key: &KeyRecord) -> KeyName {
    (key.tenant.clone(), key.purpose, key.version)
}

fn same_row(a: &Write, b: &Write) -> bool {
    use Write::{Insert, InsertKey, Remember, Replace, ReplaceKey};
    match (a, b) {
        (Insert(a) | Replace(a), Insert(b) | Replace(b)) => a.token == b.token,
        (InsertKey(a) | ReplaceKey(a), InsertKey(b) | ReplaceKey(b)) => name(a) == name(b) || a.id == b.id,
        (Remember(a), Remember(b)) => a.key == b.key,
        _ => false,
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn engine(&self) -> &'static str {
        "memory"
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        self.read(|rows| rows.identity.clone())
    }

    async fn found(&self, identity: &VaultIdentity) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        if rows.identity.get_or_insert_with(|| identity.clone()) == identity {
            return Ok(());
        }
        Err(StoreError::Foreign { why: "it is the store of another vault".to_owned() })
    }

    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        // The sender is `self`'s: it is not gone.
        let _ = self.blocked.subscribe().wait_for(|blocked| !blocked).await;
        let mut rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        if let Some(error) = rows.next_failure.take() {
            if matches!(error, StoreError::Fatal { .. }) {
                rows.failure = Some(error.clone());
            }
            return Err(error);
        }
        rows.commit(change)
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        self.read(|rows| {
            let found = |token| rows.records.get(token).cloned().map(Box::new);
            tokens.iter().map(|token| found(token).map_or(Lookup::Missing, Lookup::Found)).collect()
        })
    }

    async fn find(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        index: BlindIndex,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let is_one = |r: &Record| r.tenant == *tenant && r.class == *class && r.index == Some(index);
        self.read(|rows| rows.tokens(is_one, None, limit))
    }

    async fn tokens_of_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectRef,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        let holds_value = |r: &Record| matches!(r.body, Body::Sealed { .. });
        let is_one = |r: &Record| r.tenant == *tenant && r.subject == Some(subject) && holds_value(r);
        self.read(|rows| rows.tokens(is_one, after, limit))
    }

    async fn tokens_of_key(
        &self,
        key: KeyId,
        after: Option<Token>,
        limit: usize,
    ) -> Result<Vec<Token>, StoreError> {
        self.read(|rows| rows.tokens(|record| record.key_id() == Some(key), after, limit))
    }

    async fn keys(
        &self,
        tenant: Option<&TenantId>,
        purpose: KeyPurpose,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let is_one = |key: &&KeyRecord| key.tenant.as_ref() == tenant && key.purpose == purpose;
        self.read(|rows| rows.keys.values().filter(is_one).cloned().collect())
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.read(|rows| rows.keys.values().find(|key| key.id == id).cloned())
    }

    async fn remembered(&self, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        self.read(|rows| rows.remembered.get(key).cloned())
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        let expired = rows.remembered.values().filter(|answer| answer.expires < now);
        let expired: Vec<_> = expired.map(|answer| answer.key).take(limit).collect();
        for key in &expired {
            rows.remembered.remove(key);
        }
        Ok(expired.len())
    }

    async fn log_size(&self) -> Result<u64, StoreError> {
        self.read(|rows| rows.log.len() as u64)
    }

    async fn entries(
        &self,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.read(|rows| {
            let mut bytes = 0;
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let fits = |(number, entry): &(usize, &Bytes)| {
                bytes += entry.len();
                *number == 0 || (*number < max_entries && bytes <= max_bytes)
            };
            let entries = rows.log.iter().skip(start).enumerate().take_while(fits);
            entries.map(|(_, entry)| entry.clone()).collect()
        })
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        rows.tiles.extend(derived.tiles);
        rows.postings.extend(derived.postings.into_iter().map(|posting| (posting.key, posting.sequence)));
        rows.upto = rows.upto.max(derived.upto);
        let size = rows.checkpoint.as_ref().map_or(0, |(size, _)| *size);
        if let Some(checkpoint) = derived.checkpoint.filter(|checkpoint| checkpoint.0 >= size) {
            rows.checkpoint = Some(checkpoint);
        }
        Ok(())
    }

    async fn derived(&self) -> Result<DerivedState, StoreError> {
        self.read(|rows| DerivedState { upto: rows.upto, checkpoint: rows.checkpoint.clone() })
    }

    async fn tile(&self, id: TileId) -> Result<Option<Bytes>, StoreError> {
        self.read(|rows| rows.tiles.get(&id).cloned())
    }

    async fn postings(
        &self,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        self.read(|rows| {
            if from >= until {
                return Vec::new();
            }
            let found = rows.postings.range((key.to_vec(), from)..(key.to_vec(), until));
            let found = found.map(|(_, sequence)| *sequence);
            if newest_first { found.rev().take(limit).collect() } else { found.take(limit).collect() }
        })
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(|rows| Stats {
            disk_bytes: 0,
            records: rows.records.len() as u64,
            entries: rows.log.len() as u64,
        })
    }

    async fn close(&self) -> Result<(), StoreError> {
        let why = "the store is closed".to_owned();
        self.rows.lock().failure.get_or_insert(StoreError::Unavailable { why });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Backend, change, conformance_tests, record, token};

    impl Backend for MemoryStore {
        fn open(&self) -> Arc<dyn Store> {
            Arc::new(self.clone())
        }
    }

    conformance_tests!(MemoryStore::new());

    #[tokio::test]
    async fn a_failed_commit_writes_nothing_and_the_next_one_goes_through() {
        let store = MemoryStore::new();
        let error = StoreError::Unavailable { why: "test".to_owned() };
        store.fail_next_commit(error.clone());
        let insert = || change([Write::Insert(record(1))], &["a"]);
        assert_eq!(store.commit(insert()).await, Err(error));
        assert_eq!(store.records(&[token(1)]).await, Ok(vec![Lookup::Missing]));
        assert_eq!(store.commit(insert()).await, Ok(Committed { first_sequence: 0 }));
    }

    #[tokio::test]
    async fn a_fatal_failure_stays() {
        let store = MemoryStore::new();
        let fatal = StoreError::Fatal { why: "test".to_owned() };
        store.fail_next_commit(fatal.clone());
        assert_eq!(store.commit(Change::default()).await, Err(fatal.clone()));
        assert_eq!(store.commit(Change::default()).await, Err(fatal.clone()));
        assert_eq!(store.log_size().await, Err(fatal));
    }

    #[tokio::test]
    async fn blocked_commits_wait() {
        let store = MemoryStore::new();
        store.block_commits();
        let mut commit = Box::pin(store.commit(Change::default()));
        assert!(futures::poll!(&mut commit).is_pending());
        store.unblock_commits();
        assert!(commit.await.is_ok());
    }
}
