//! The part of a store that the log needs, in memory, with the faults a test wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId,
};

#[derive(Default)]
pub(super) struct Inner {
    pub(super) entries: Vec<Bytes>,
    pub(super) upto: u64,
    pub(super) checkpoint: Option<(u64, String)>,
    pub(super) tiles: BTreeMap<TileId, Bytes>,
    pub(super) postings: BTreeSet<(Vec<u8>, u64)>,
    /// Where each step of the follower ended.
    pub(super) derived_at: Vec<u64>,
    /// How many entries were asked for.
    pub(super) entries_read: usize,
    /// An entry that somebody alters when so many were asked for.
    pub(super) alter_after: Option<(usize, usize)>,
    /// What the next commits, derives or adoptions answer.
    pub(super) fault: Option<StoreError>,
    /// Logs of instances that fell silent.
    adoptable: VecDeque<Arc<TestStore>>,
    /// What was not written by the vault.
    pub(super) forged: BTreeSet<u64>,
    /// Others are in the way of every commit.
    pub(super) late: bool,
    closed: bool,
}

pub(super) struct TestStore {
    pub(super) inner: Mutex<Inner>,
    log: LogId,
    blocked: watch::Sender<bool>,
}

impl TestStore {
    pub(super) fn new() -> Self {
        Self::of(LogId::default())
    }

    /// Of another instance.
    pub(super) fn of(log: LogId) -> Self {
        Self { inner: Mutex::new(Inner::default()), log, blocked: watch::Sender::new(false) }
    }

    /// Has these logs for whoever takes one.
    pub(super) fn to_adopt<'a>(&self, logs: impl IntoIterator<Item = &'a Arc<TestStore>>) {
        self.inner.lock().adoptable.extend(logs.into_iter().cloned());
    }

    pub(super) fn left_to_adopt(&self) -> usize {
        self.inner.lock().adoptable.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// While blocked, commits hang.
    pub(super) fn block(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    pub(super) fn fail(&self, fault: Option<StoreError>) {
        self.inner.lock().fault = fault;
    }
}

#[async_trait]
impl Store for TestStore {
    fn engine(&self) -> &'static str {
        "test"
    }

    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        self.blocked.subscribe().wait_for(|blocked| !blocked).await.unwrap();
        let mut inner = self.inner.lock();
        if let Some(fault) = inner.fault.clone() {
            return Err(fault);
        }
        let first_sequence = inner.entries.len() as u64;
        inner.entries.extend(change.entries);
        Ok(Committed { first_sequence })
    }

    /// Commits that hang have been begun.
    async fn commit_until(&self, change: Change, _: Instant) -> Result<Committed, StoreError> {
        if self.inner.lock().late {
            return Err(StoreError::Late);
        }
        self.commit(change).await
    }

    async fn log_size(&self, _: LogId) -> Result<u64, StoreError> {
        Ok(self.inner.lock().entries.len() as u64)
    }

    async fn entries(
        &self,
        _: LogId,
        start: u64,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let mut inner = self.inner.lock();
        let mut total = 0;
        let fits = |entry: &&Bytes| {
            let first = total == 0;
            total += entry.len();
            first || total <= bytes
        };
        let found: Vec<_> =
            inner.entries.iter().skip(start as usize).take(most).take_while(fits).cloned().collect();
        inner.entries_read += found.len();
        let read = inner.entries_read;
        if let Some((_, altered)) = inner.alter_after.take_if(|(after, _)| *after <= read) {
            inner.entries[altered] = Bytes::from_static(b"altered");
        }
        Ok(found)
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let entries = self.entries(log, start, most, bytes).await?;
        let forged = self.inner.lock().forged.range(start..start + entries.len() as u64).next().copied();
        forged.map_or(Ok(entries), |sequence| {
            Err(StoreError::Corrupt { what: format!("log entry {sequence}") })
        })
    }

    fn log(&self) -> LogId {
        self.log
    }

    async fn adopt(&self) -> Result<Option<Arc<dyn Store>>, StoreError> {
        let mut inner = self.inner.lock();
        match inner.fault.clone() {
            Some(fault) => Err(fault),
            None => Ok(inner.adoptable.pop_front().map(|store| store as _)),
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.lock().closed = true;
        Ok(())
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        Ok(vec![self.log()])
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if let Some(fault) = inner.fault.clone() {
            return Err(fault);
        }
        derived.joins(inner.upto)?;
        assert!(derived.upto >= inner.upto, "derived rows never go back");
        inner.derived_at.push(derived.upto);
        inner.upto = derived.upto;
        inner.tiles.extend(derived.tiles);
        inner.postings.extend(derived.postings.into_iter().map(|row| (row.key, row.sequence)));
        inner.checkpoint = derived.checkpoint.or(inner.checkpoint.take());
        Ok(())
    }

    async fn derived(&self, _: LogId) -> Result<DerivedState, StoreError> {
        let inner = self.inner.lock();
        Ok(DerivedState { upto: inner.upto, checkpoint: inner.checkpoint.clone() })
    }

    async fn tile(&self, _: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner.lock().tiles.get(&id).cloned())
    }

    async fn postings(
        &self,
        _: LogId,
        key: &[u8],
        from: u64,
        until: u64,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let inner = self.inner.lock();
        let rows = inner.postings.range((key.to_vec(), from)..(key.to_vec(), until)).map(|row| row.1);
        Ok(if newest_first { rows.rev().take(limit).collect() } else { rows.take(limit).collect() })
    }

    // The log needs none of these.

    fn seal_entries(&self, _: Arc<EntrySeals>) {
        unreachable!()
    }

    async fn identity(&self) -> Result<Option<VaultIdentity>, StoreError> {
        unreachable!()
    }
    async fn found(&self, _: &VaultIdentity) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn records(&self, _: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        unreachable!()
    }
    async fn find(
        &self,
        _: &TenantId,
        _: &ClassName,
        _: BlindIndex,
        _: usize,
    ) -> Result<Vec<Token>, StoreError> {
        unreachable!()
    }
    async fn tokens_of_subject(
        &self,
        _: &TenantId,
        _: SubjectRef,
        _: Option<Token>,
        _: usize,
    ) -> Result<Vec<Token>, StoreError> {
        unreachable!()
    }
    async fn tokens_of_key(&self, _: KeyId, _: Option<Cursor>, _: usize) -> Result<Page<Token>, StoreError> {
        unreachable!()
    }
    async fn count_of_key(&self, _: KeyId) -> Result<u64, StoreError> {
        unreachable!()
    }
    async fn indexed_under(
        &self,
        _: &TenantId,
        _: &ClassName,
        _: KeyVersion,
        _: Option<Cursor>,
        _: usize,
    ) -> Result<Page<Token>, StoreError> {
        unreachable!()
    }
    async fn job_rows(&self, _: Option<Cursor>, _: usize) -> Result<Page<Job>, StoreError> {
        unreachable!()
    }
    async fn key_rows(&self, _: Option<Cursor>, _: usize) -> Result<Page<KeyRecord>, StoreError> {
        unreachable!()
    }
    async fn job(&self, _: &JobPlace) -> Result<Option<Job>, StoreError> {
        unreachable!()
    }
    async fn jobs(&self, _: Option<&JobPlace>, _: usize) -> Result<Vec<Job>, StoreError> {
        unreachable!()
    }
    async fn entity(&self, _: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        unreachable!()
    }
    async fn entities(
        &self,
        _: &EntityScope,
        _: Option<&EntityPlace>,
        _: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        unreachable!()
    }
    async fn entity_rows(
        &self,
        _: &EntityScope,
        _: Option<&EntityPlace>,
        _: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        unreachable!()
    }
    async fn keys(&self, _: Option<&TenantId>, _: KeyPurpose) -> Result<Vec<KeyRecord>, StoreError> {
        unreachable!()
    }
    async fn key(&self, _: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        unreachable!()
    }
    async fn remembered(&self, _: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
        unreachable!()
    }
    async fn forget(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        unreachable!()
    }
    async fn lease(&self, _: &LeaseName) -> Result<Option<Lease>, StoreError> {
        unreachable!()
    }
    async fn scan_records(&self, _: Option<Token>, _: usize) -> Result<Vec<Record>, StoreError> {
        unreachable!()
    }
    async fn scan_keys(&self, _: Option<KeyId>, _: usize) -> Result<Vec<KeyRecord>, StoreError> {
        unreachable!()
    }
    async fn scan_remembered(&self, _: Option<[u8; 32]>, _: usize) -> Result<Vec<Remembered>, StoreError> {
        unreachable!()
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        unreachable!()
    }
}
