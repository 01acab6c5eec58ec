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
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::crypto::ENTRY_SEAL;
use crate::domain::{
    BlindIndex, Body, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose,
    KeyRecord, KeyState, KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token,
    VaultIdentity,
};
use crate::store::entry_seals::Sealing;
use crate::store::keys::Space;
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, EntrySeals, Lease, LogId, Lookup, Page,
    Remembered, Stats, Store, StoreError, TileId, UnderWay, Write, check_lengths, corrupt, keys,
};

/// A store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
    log: LogId,
    sealing: Arc<Sealing>,
    blocked: Arc<watch::Sender<bool>>,
}

type KeyName = (Option<TenantId>, KeyPurpose, KeyVersion);

#[derive(Default)]
struct Rows {
    identity: Option<VaultIdentity>,
    records: BTreeMap<Token, Record>,
    keys: BTreeMap<KeyName, KeyRecord>,
    remembered: BTreeMap<[u8; 32], Remembered>,
    leases: BTreeMap<LeaseName, Lease>,
    jobs: BTreeMap<JobPlace, Job>,
    entities: BTreeMap<EntityPlace, Entity>,
    /// Places of those that can't be read.
    malformed: BTreeSet<EntityPlace>,
    /// Other rows that can't be read: where an embedded engine has them.
    altered: BTreeSet<(Space, Vec<u8>)>,
    /// Records that are gone, and not the rows that refer to them.
    lost: BTreeSet<Token>,
    logs: BTreeMap<LogId, LogRows>,
    /// What the next commit fails with.
    next_failure: Option<StoreError>,
    /// What somebody changes after so many looks at an index.
    after_finds: Option<(usize, Change)>,
    /// What everything fails with.
    failure: Option<StoreError>,
}

#[derive(Clone, Default)]
struct LogRows {
    entries: Vec<Bytes>,
    /// Beside them.
    seals: Vec<Option<[u8; ENTRY_SEAL]>>,
    tiles: BTreeMap<TileId, Bytes>,
    postings: BTreeSet<(Vec<u8>, u64)>,
    derived: DerivedState,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            rows: Arc::default(),
            log: LogId::default(),
            sealing: Arc::default(),
            blocked: Arc::new(watch::Sender::new(false)),
        }
    }

    /// The same store as another instance has it: with a log of its own.
    #[must_use]
    pub fn instance(&self, log: LogId) -> Self {
        self.rows.lock().logs.entry(log).or_default();
        Self { log, sealing: Arc::default(), ..self.clone() }
    }

    /// The next commit fails with this and writes nothing. After [`StoreError::Fatal`] so does everything.
    pub fn fail_next_commit(&self, error: StoreError) {
        self.rows.lock().next_failure = Some(error);
    }

    /// Somebody makes this change when an index was looked at so often from now on, before the next look at anything.
    pub fn change_after_finds(&self, finds: usize, change: Change) {
        self.rows.lock().after_finds = Some((finds, change));
    }

    /// Puts a malformed row at an entity's place, as a disk or a stray hand does.
    pub fn malform(&self, place: EntityPlace) {
        self.rows.lock().malformed.insert(place);
    }

    /// The same at a job's place.
    pub fn malform_job(&self, place: &JobPlace) {
        self.alter(Space::Jobs, keys::job(place));
    }

    /// The same at a key's id, for who reads rows by the page.
    pub fn malform_key(&self, id: KeyId) {
        self.alter(Space::KeyIds, id.as_bytes().to_vec());
    }

    /// The same among the tokens of what is sealed under a key.
    pub fn malform_token_of_key(&self, key: KeyId, token: &[u8]) {
        self.alter(Space::SealedUnder, [&keys::sealed_under(key)[..], token].concat());
    }

    /// The same among the tokens of what has an index.
    pub fn malform_index(&self, tenant: &TenantId, class: &ClassName, index: BlindIndex, token: &[u8]) {
        self.alter(Space::Indexes, [&keys::index(tenant, class, index)[..], token].concat());
    }

    /// Takes a record away, and leaves the rows that refer to it.
    pub fn lose(&self, token: Token) {
        self.rows.lock().lost.insert(token);
    }

    fn alter(&self, space: Space, key: Vec<u8>) {
        self.rows.lock().altered.insert((space, key));
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

    fn read_log<R>(&self, log: LogId, read: impl FnOnce(&LogRows) -> R) -> Result<R, StoreError> {
        self.read(|rows| read(rows.logs.get(&log).unwrap_or(&LogRows::default())))
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
            Write::PutLease(lease) => {
                let there = self.leases.get(&lease.name).map(|there| there.revision);
                there == lease.revision.checked_sub(1)
            }
            Write::Fence { lease, fence } => {
                self.leases.get(lease).is_some_and(|there| there.fence == *fence)
            }
            Write::Active(id) => self.keys.values().any(|key| key.id == *id && key.state == KeyState::Active),
            Write::Unused(id) => {
                let prefix = keys::sealed_under(*id);
                let of_key = |(space, key): &(Space, Vec<u8>)| {
                    *space == Space::SealedUnder && key.starts_with(&prefix)
                };
                !self.records.values().any(|record| is_under(record, *id)) && !self.altered.iter().any(of_key)
            }
            Write::PutJob(job) => {
                let there = self.jobs.get(&job.place).map(|there| there.revision);
                there == job.revision.checked_sub(1)
            }
            Write::PutEntity(entity) => self.entity_revision(&entity.place) == entity.revision.checked_sub(1),
            Write::DropEntity { place, revision } => self.entity_revision(place) == Some(*revision),
            Write::Stands { place, revision } => self.entity_revision(place) == *revision,
        }
    }

    fn entity_revision(&self, place: &EntityPlace) -> Option<u64> {
        self.entities.get(place).map(|entity| entity.revision)
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
            Write::PutLease(lease) => {
                self.leases.insert(lease.name.clone(), lease);
            }
            Write::PutJob(job) => {
                self.jobs.insert(job.place.clone(), job);
            }
            Write::PutEntity(entity) => {
                self.entities.insert(entity.place.clone(), entity);
            }
            Write::DropEntity { place, .. } => {
                self.entities.remove(&place);
            }
            Write::Fence { .. } | Write::Active(_) | Write::Unused(_) | Write::Stands { .. } => {}
        }
    }

    fn commit(&mut self, log: LogId, change: Change, sealing: &Sealing) -> Result<Committed, StoreError> {
        check_lengths(&change)?;
        for (number, write) in change.writes.iter().enumerate() {
            named_entity(write).map_or(Ok(()), |place| self.well_formed(place))?;
            let twice = change.writes[..number].iter().any(|before| same_row(before, write));
            if twice || !self.check(write) {
                return Err(StoreError::Conflict { write: number });
            }
        }
        change.writes.into_iter().for_each(|write| self.write(write));
        let rows = self.logs.entry(log).or_default();
        let first_sequence = rows.entries.len() as u64;
        let sequences = (first_sequence..).zip(&change.entries);
        rows.seals.extend(sequences.map(|(sequence, entry)| sealing.seal(log, sequence, entry)));
        rows.entries.extend(change.entries);
        Ok(Committed { first_sequence })
    }

    fn well_formed(&self, place: &EntityPlace) -> Result<(), StoreError> {
        if self.malformed.contains(place) { Err(malformed(place)) } else { Ok(()) }
    }

    /// The rows of a space whose key begins with `prefix`, and those of them that were altered.
    fn page<T>(
        &self,
        (space, prefix): (Space, &[u8]),
        rows: impl Iterator<Item = (Vec<u8>, T)>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<T>, StoreError> {
        let mut sorted: BTreeMap<_, _> = rows.map(|(key, row)| (key, Some(row))).collect();
        let altered = self.altered.iter().filter(|(of, key)| *of == space && key.starts_with(prefix));
        sorted.extend(altered.map(|(_, key)| (key.clone(), None)));
        // What follows the prefix where a token is at the end.
        let more = match space {
            Space::SealedUnder => 16,
            Space::Indexes => 16 + 16,
            _ => usize::MAX - prefix.len(),
        };
        let mut page = Page::default();
        for (key, row) in sorted.into_iter().filter(|(key, _)| after.is_none_or(|after| *key > after.place)) {
            if page.len() == limit {
                break;
            }
            let token = keys::token_at_end(&key).filter(|_| key.len() == prefix.len() + more);
            page.push(token, row.ok_or_else(|| corrupt(space, &key)))?;
            page.next = (page.len() == limit).then(|| Cursor::behind(&key));
        }
        Ok(page)
    }

    /// A row that may have been altered.
    fn unaltered<T>(&self, space: Space, key: &[u8], row: Option<T>) -> Result<Option<T>, StoreError> {
        if self.altered.contains(&(space, key.to_vec())) { Err(corrupt(space, key)) } else { Ok(row) }
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

fn is_under(record: &Record, key: KeyId) -> bool {
    matches!(record.body, Body::Sealed { key_id, .. } if key_id == key)
}

fn malformed(place: &EntityPlace) -> StoreError {
    corrupt(Space::Entities, &keys::entity(place))
}

/// The entity that a write's condition is about.
fn named_entity(write: &Write) -> Option<&EntityPlace> {
    match write {
        Write::Stands { place, .. } => Some(place),
        write => changed_entity(write),
    }
}

fn changed_entity(write: &Write) -> Option<&EntityPlace> {
    match write {
        Write::PutEntity(entity) => Some(&entity.place),
        Write::DropEntity { place, .. } => Some(place),
        _ => None,
    }
}

fn same_row(a: &Write, b: &Write) -> bool {
    use Write::{Insert, InsertKey, PutJob, PutLease, Remember, Replace, ReplaceKey};
    if let (Some(a), Some(b)) = (changed_entity(a), changed_entity(b)) {
        return a == b;
    }
    match (a, b) {
        (Insert(a) | Replace(a), Insert(b) | Replace(b)) => a.token == b.token,
        (InsertKey(a) | ReplaceKey(a), InsertKey(b) | ReplaceKey(b)) => name(a) == name(b) || a.id == b.id,
        (Remember(a), Remember(b)) => a.key == b.key,
        (PutLease(a), PutLease(b)) => a.name == b.name,
        (PutJob(a), PutJob(b)) => a.place == b.place,
        _ => false,
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn is_shared(&self) -> bool {
        true
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
        rows.commit(self.log, change, &self.sealing)
    }

    /// It takes no time.
    async fn commit_until(&self, change: Change, _: Instant) -> Result<Committed, StoreError> {
        self.commit(change).await
    }

    async fn records(&self, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
        // As any engine: others have their turn meanwhile.
        yield_now().await;
        self.read(|rows| {
            let found = |token| rows.records.get(token).filter(|_| !rows.lost.contains(token)).cloned();
            let lookup = |token| found(token).map_or(Lookup::Missing, |one| Lookup::Found(Box::new(one)));
            tokens.iter().map(lookup).collect()
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
        let found = self.read(|rows| rows.tokens(is_one, None, limit))?;
        let mut rows = self.rows.lock();
        if let Some((finds, change)) = rows.after_finds.take() {
            if finds > 1 {
                rows.after_finds = Some((finds - 1, change));
            } else {
                rows.commit(self.log, change, &self.sealing)?;
            }
        }
        Ok(found)
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
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        let prefix = keys::sealed_under(key);
        self.read(|rows| {
            let found = rows.records.values().filter(|record| record.key_id() == Some(key));
            let found = found.map(|record| ([&prefix[..], record.token.as_bytes()].concat(), record.token));
            rows.page((Space::SealedUnder, &prefix), found, after.as_ref(), limit)
        })?
    }

    async fn count_of_key(&self, key: KeyId) -> Result<u64, StoreError> {
        Ok(self.tokens_of_key(key, None, usize::MAX).await?.len() as u64)
    }

    async fn indexed_under(
        &self,
        tenant: &TenantId,
        class: &ClassName,
        version: KeyVersion,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Token>, StoreError> {
        let prefix = keys::indexes_under(tenant, class, version);
        self.read(|rows| {
            let of_class = rows.records.values().filter(|r| r.tenant == *tenant && r.class == *class);
            let found = of_class.filter_map(|record| Some((record.index?, record.token)));
            let found = found.filter(|(index, _)| index.version == version).map(|(index, token)| {
                ([&keys::index(tenant, class, index)[..], token.as_bytes()].concat(), token)
            });
            rows.page((Space::Indexes, &prefix), found, after.as_ref(), limit)
        })?
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

    async fn lease(&self, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
        self.read(|rows| rows.leases.get(name).cloned())
    }

    async fn job(&self, place: &JobPlace) -> Result<Option<Job>, StoreError> {
        self.read(|rows| rows.unaltered(Space::Jobs, &keys::job(place), rows.jobs.get(place).cloned()))?
    }

    async fn job_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<Job>, StoreError> {
        self.read(|rows| {
            let jobs = rows.jobs.values().map(|job| (keys::job(&job.place), job.clone()));
            rows.page((Space::Jobs, &[]), jobs, after.as_ref(), limit)
        })?
    }

    async fn jobs(&self, after: Option<&JobPlace>, limit: usize) -> Result<Vec<Job>, StoreError> {
        self.read(|rows| {
            let past = rows.jobs.values().filter(|job| after.is_none_or(|after| job.place > *after));
            past.take(limit).cloned().collect()
        })
    }

    async fn entity(&self, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
        self.read(|rows| rows.well_formed(place).map(|()| rows.entities.get(place).cloned()))?
    }

    async fn entities(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<Entity>, StoreError> {
        let sound = |row: EntityRow| match row {
            EntityRow::Sound(entity) => Ok(entity),
            EntityRow::Forged { place, .. } => Err(malformed(&place)),
        };
        self.entity_rows(of, after, limit).await?.into_iter().map(sound).collect()
    }

    async fn entity_rows(
        &self,
        of: &EntityScope,
        after: Option<&EntityPlace>,
        limit: usize,
    ) -> Result<Vec<EntityRow>, StoreError> {
        let is_one = |place: &&EntityPlace| of.contains(place) && after.is_none_or(|after| *place > after);
        self.read(|rows| {
            let places: BTreeSet<_> = rows.entities.keys().chain(&rows.malformed).filter(is_one).collect();
            let row = |place: &EntityPlace| match rows.entities.get(place) {
                Some(entity) if !rows.malformed.contains(place) => EntityRow::Sound(entity.clone()),
                _ => EntityRow::Forged { place: place.clone(), revision: None },
            };
            places.into_iter().take(limit).map(row).collect()
        })
    }

    async fn jobs_under_way(&self) -> Result<UnderWay, StoreError> {
        let page = self.job_rows(None, usize::MAX).await?;
        let corrupt = page.malformed.into_iter().map(|row| row.what).collect();
        let mut found = UnderWay { jobs: Vec::new(), corrupt };
        page.items.into_iter().try_for_each(|job| found.push(Ok(job)))?;
        Ok(found)
    }

    fn log(&self) -> LogId {
        self.log
    }

    async fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        let own = self.log;
        self.read(|rows| {
            rows.logs.keys().copied().chain([own]).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    async fn log_size(&self, log: LogId) -> Result<u64, StoreError> {
        self.read_log(log, |log| log.entries.len() as u64)
    }

    async fn entries(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.read_log(log, |log| {
            let mut bytes = 0;
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let fits = |(number, entry): &(usize, &Bytes)| {
                bytes += entry.len();
                *number == 0 || (*number < max_entries && bytes <= max_bytes)
            };
            let entries = log.entries.iter().skip(start).enumerate().take_while(fits);
            entries.map(|(_, entry)| entry.clone()).collect()
        })
    }

    fn seal_entries(&self, seals: Arc<EntrySeals>) {
        self.sealing.set(seals);
    }

    async fn entries_to_sign(
        &self,
        log: LogId,
        start: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let entries = self.entries(log, start, max_entries, max_bytes).await?;
        let first = usize::try_from(start).unwrap_or(usize::MAX);
        let seals = self.read_log(log, |log| log.seals.iter().skip(first).copied().collect::<Vec<_>>())?;
        for ((sequence, entry), seal) in (start..=u64::MAX).zip(&entries).zip(&seals) {
            self.sealing.check(log, sequence, entry, seal.as_ref().map(<[_; _]>::as_slice))?;
        }
        Ok(entries)
    }

    async fn derive(&self, derived: Derived) -> Result<(), StoreError> {
        let mut rows = self.rows.lock();
        rows.failure.clone().map_or(Ok(()), Err)?;
        let log = rows.logs.entry(self.log).or_default();
        derived.joins(log.derived.upto)?;
        log.tiles.extend(derived.tiles);
        log.postings.extend(derived.postings.into_iter().map(|posting| (posting.key, posting.sequence)));
        log.derived.upto = log.derived.upto.max(derived.upto);
        let size = log.derived.checkpoint.as_ref().map_or(0, |(size, _)| *size);
        if let Some(checkpoint) = derived.checkpoint.filter(|checkpoint| checkpoint.0 >= size) {
            log.derived.checkpoint = Some(checkpoint);
        }
        Ok(())
    }

    async fn derived(&self, log: LogId) -> Result<DerivedState, StoreError> {
        self.read_log(log, |log| log.derived.clone())
    }

    async fn tile(&self, log: LogId, id: TileId) -> Result<Option<Bytes>, StoreError> {
        self.read_log(log, |log| log.tiles.get(&id).cloned())
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
        self.read_log(log, |log| {
            if from >= until {
                return Vec::new();
            }
            let found = log.postings.range((key.to_vec(), from)..(key.to_vec(), until));
            let found = found.map(|(_, sequence)| *sequence);
            if newest_first { found.rev().take(limit).collect() } else { found.take(limit).collect() }
        })
    }

    async fn scan_records(&self, after: Option<Token>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.read(|rows| {
            let past = rows.records.values().filter(|record| after.is_none_or(|after| record.token > after));
            past.take(limit).cloned().collect()
        })
    }

    async fn scan_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyRecord>, StoreError> {
        self.read(|rows| {
            let mut keys: Vec<_> = rows.keys.values().cloned().collect();
            keys.retain(|key| after.is_none_or(|after| key.id > after));
            keys.sort_by_key(|key| key.id);
            keys.truncate(limit);
            keys
        })
    }

    async fn key_rows(&self, after: Option<Cursor>, limit: usize) -> Result<Page<KeyRecord>, StoreError> {
        self.read(|rows| {
            let keys = rows.keys.values().map(|key| (key.id.as_bytes().to_vec(), key.clone()));
            rows.page((Space::KeyIds, &[]), keys, after.as_ref(), limit)
        })?
    }

    async fn scan_remembered(
        &self,
        after: Option<[u8; 32]>,
        limit: usize,
    ) -> Result<Vec<Remembered>, StoreError> {
        self.read(|rows| {
            let past = rows.remembered.values().filter(|answer| after.is_none_or(|after| answer.key > after));
            past.take(limit).cloned().collect()
        })
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(|rows| Stats {
            disk_bytes: 0,
            records: rows.records.len() as u64,
            entries: rows.logs.values().map(|log| log.entries.len() as u64).sum(),
            ..Stats::default()
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

        fn malform(&self, key: &[u8]) {
            // There are no others.
            if let Some(place) = keys::parse_entity(key) {
                Self::malform(self, place);
            }
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
        assert_eq!(store.log_size(store.log()).await, Err(fatal));
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
