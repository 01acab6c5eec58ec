//! Changes that share a commit, and the statements that write them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio_postgres::types::Type;

use super::log::{Grip, int4, micros};
use super::rows::{self, entry_checksum};
use super::statement::{DURABLY, Statement, int8};
use super::turn::awaited;
use crate::domain::{
    Body, Entity, EntityPlace, Job, JobPlace, KeyId, KeyRecord, KeyState, LeaseName, Record, TenantId,
};
use crate::store::entry_seals::Sealing;
use crate::store::keys;
use crate::store::{Change, Lease, Remembered, StoreError, Write};

/// A row that a write changes. Two changes that name the same one do not share a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RowId {
    Record([u8; 16]),
    Key(Vec<u8>),
    KeyId([u8; 16]),
    Remembered([u8; 32]),
    Lease(LeaseName),
    Job(JobPlace),
    Entity(EntityPlace),
}

/// The rows that a write changes.
pub(super) fn rows_of(write: &Write) -> [Option<RowId>; 2] {
    match write {
        Write::Insert(record) | Write::Replace(record) => {
            [Some(RowId::Record(*record.token.as_bytes())), None]
        }
        Write::InsertKey(key) | Write::ReplaceKey(key) => {
            let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
            [Some(RowId::Key(place)), Some(RowId::KeyId(*key.id.as_bytes()))]
        }
        Write::Remember(answer) => [Some(RowId::Remembered(answer.key)), None],
        Write::PutLease(lease) => [Some(RowId::Lease(lease.name.clone())), None],
        Write::PutJob(job) => [Some(RowId::Job(job.place.clone())), None],
        Write::PutEntity(entity) => [Some(RowId::Entity(entity.place.clone())), None],
        Write::DropEntity { place, .. } => [Some(RowId::Entity(place.clone())), None],
        Write::Fence { .. } | Write::Active(_) | Write::Unused(_) | Write::Stands { .. } => [None, None],
    }
}

/// The row that a write's condition is about and that it does not change. Who changes it before shares no batch with it.
pub(super) fn watched(write: &Write) -> Option<RowId> {
    match write {
        Write::Fence { lease, .. } => Some(RowId::Lease(lease.clone())),
        Write::Active(id) | Write::Unused(id) => Some(RowId::KeyId(*id.as_bytes())),
        Write::Stands { place, .. } => Some(RowId::Entity(place.clone())),
        Write::Insert(_)
        | Write::Replace(_)
        | Write::InsertKey(_)
        | Write::ReplaceKey(_)
        | Write::Remember(_)
        | Write::PutLease(_)
        | Write::PutJob(_)
        | Write::PutEntity(_)
        | Write::DropEntity { .. } => None,
    }
}

/// The keys that must be active, each once and in the order in which they are locked.
pub(super) fn must_be_active<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeSet<KeyId> {
    let writes = changes.into_iter().flat_map(|change| &change.writes);
    writes.filter_map(|write| if let Write::Active(id) = write { Some(*id) } else { None }).collect()
}

/// The keys whose rows a change must have alone, each once: those that it changes, and those that must be unused.
pub(super) fn claimed(change: &Change) -> BTreeSet<KeyId> {
    let claims = change.writes.iter().filter_map(|write| match write {
        Write::ReplaceKey(key) => Some(key.id),
        Write::Unused(id) => Some(*id),
        _ => None,
    });
    claims.collect()
}

/// The keys that no record may be sealed under, each once.
pub(super) fn must_be_unused<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeSet<KeyId> {
    let writes = changes.into_iter().flat_map(|change| &change.writes);
    writes.filter_map(|write| if let Write::Unused(id) = write { Some(*id) } else { None }).collect()
}

/// Which of the rows that a batch is about are there, and what of them a condition asks.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Revisions by token.
    pub(super) records: BTreeMap<[u8; 16], u32>,
    /// Revisions by id.
    pub(super) keys: BTreeMap<[u8; 16], u32>,
    /// Ids by tenant, purpose and version.
    pub(super) key_places: BTreeMap<Vec<u8>, [u8; 16]>,
    /// Expiries by idempotency hash.
    pub(super) remembered: BTreeMap<[u8; 32], u64>,
    /// Revision and fence by name.
    pub(super) leases: BTreeMap<LeaseName, (u64, u64)>,
    /// Keys that are active.
    pub(super) active: BTreeSet<KeyId>,
    /// Of the keys that must be unused: those that are used.
    pub(super) used: BTreeSet<KeyId>,
    /// Revisions by place.
    pub(super) jobs: BTreeMap<JobPlace, u64>,
    /// Revisions by place.
    pub(super) entities: BTreeMap<EntityPlace, u64>,
    /// Rows that are not what was written: who needs one of them fails, and nobody else.
    pub(super) altered: HashMap<RowId, StoreError>,
}

impl Present {
    /// Whether a change may be made: all its rows can be told, and all its conditions hold.
    pub(super) fn allows(&self, change: &Change) -> Result<(), StoreError> {
        let rows = change.writes.iter().flat_map(|write| rows_of(write).into_iter().chain([watched(write)]));
        if let Some(error) = rows.flatten().find_map(|row| self.altered.get(&row)) {
            return Err(error.clone());
        }
        let conflict = change.writes.iter().position(|write| !self.holds(write));
        conflict.map_or(Ok(()), |write| Err(StoreError::Conflict { write }))
    }

    fn holds(&self, write: &Write) -> bool {
        match write {
            Write::Insert(record) => !self.records.contains_key(record.token.as_bytes()),
            Write::Replace(record) => {
                let there = self.records.get(record.token.as_bytes()).copied();
                there.is_some() && there == record.revision.checked_sub(1)
            }
            Write::InsertKey(key) => {
                let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
                !self.keys.contains_key(key.id.as_bytes()) && !self.key_places.contains_key(&place)
            }
            Write::ReplaceKey(key) => {
                let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
                let there = self.keys.get(key.id.as_bytes()).copied();
                self.key_places.get(&place) == Some(key.id.as_bytes())
                    && there.is_some()
                    && there == key.revision.checked_sub(1)
            }
            Write::Remember(answer) => {
                self.remembered.get(&answer.key).is_none_or(|expires| *expires <= answer.at.0)
            }
            Write::PutLease(lease) => {
                let there = self.leases.get(&lease.name).map(|(revision, _)| *revision);
                there == lease.revision.checked_sub(1)
            }
            Write::Fence { lease, fence } => self.leases.get(lease).is_some_and(|(_, there)| there == fence),
            Write::Active(id) => self.active.contains(id),
            Write::Unused(id) => !self.used.contains(id),
            Write::PutJob(job) => self.jobs.get(&job.place).copied() == job.revision.checked_sub(1),
            Write::PutEntity(_) | Write::DropEntity { .. } | Write::Stands { .. } => entity_condition(write)
                .is_none_or(|(place, there)| self.entities.get(place).copied() == there),
        }
    }
}

/// The entity that a write's condition is about, and the revision that it must have; the inner `None`: none may be there.
pub(super) fn entity_condition(write: &Write) -> Option<(&EntityPlace, Option<u64>)> {
    match write {
        Write::PutEntity(entity) => Some((&entity.place, entity.revision.checked_sub(1))),
        Write::DropEntity { place, revision } => Some((place, Some(*revision))),
        Write::Stands { place, revision } => Some((place, *revision)),
        _ => None,
    }
}

/// The first write of a change to a row that an earlier one of it writes, too.
pub(super) fn twice(change: &Change) -> Option<usize> {
    let mut seen = HashSet::new();
    change.writes.iter().position(|write| !rows_of(write).into_iter().flatten().all(|row| seen.insert(row)))
}

/// Whether every condition is one that the statement which writes checks itself.
pub(super) fn inserts_only(change: &Change) -> bool {
    change
        .writes
        .iter()
        .all(|w| matches!(w, Write::Insert(_) | Write::InsertKey(_) | Write::Remember(_) | Write::Active(_)))
}

/// What a batch writes, sorted by table.
#[derive(Default)]
pub(super) struct Batch<'a> {
    new_records: Vec<&'a Record>,
    records: Vec<&'a Record>,
    new_keys: Vec<&'a KeyRecord>,
    keys: Vec<&'a KeyRecord>,
    new_answers: Vec<&'a Remembered>,
    answers: Vec<&'a Remembered>,
    new_leases: Vec<&'a Lease>,
    leases: Vec<&'a Lease>,
    new_jobs: Vec<&'a Job>,
    jobs: Vec<&'a Job>,
    new_entities: Vec<&'a Entity>,
    entities: Vec<&'a Entity>,
    gone_entities: Vec<&'a EntityPlace>,
    entries: Vec<&'a [u8]>,
}

impl<'a> Batch<'a> {
    /// Of changes whose conditions hold. An answer in `expired` takes the place of one that is there.
    pub(super) fn of(changes: impl IntoIterator<Item = &'a Change>, present: &Present) -> Self {
        let mut batch = Self::default();
        for change in changes {
            batch.entries.extend(change.entries.iter().map(|entry| &entry[..]));
            for write in &change.writes {
                match write {
                    Write::Insert(record) => batch.new_records.push(record),
                    Write::Replace(record) => batch.records.push(record),
                    Write::InsertKey(key) => batch.new_keys.push(key),
                    Write::ReplaceKey(key) => batch.keys.push(key),
                    Write::Remember(answer) if present.remembered.contains_key(&answer.key) => {
                        batch.answers.push(answer);
                    }
                    Write::Remember(answer) => batch.new_answers.push(answer),
                    Write::PutLease(lease) if lease.revision == 0 => batch.new_leases.push(lease),
                    Write::PutLease(lease) => batch.leases.push(lease),
                    Write::PutJob(job) if job.revision == 0 => batch.new_jobs.push(job),
                    Write::PutJob(job) => batch.jobs.push(job),
                    Write::PutEntity(entity) if entity.revision == 0 => batch.new_entities.push(entity),
                    Write::PutEntity(entity) => batch.entities.push(entity),
                    Write::DropEntity { place, .. } => batch.gone_entities.push(place),
                    Write::Fence { .. } | Write::Active(_) | Write::Unused(_) | Write::Stands { .. } => {}
                }
            }
        }
        batch.sort_new();
        batch
    }

    /// What others may insert at the same time goes in one order everywhere: two that insert the same rows in two
    /// orders would wait for each other until the database sees it. Tokens are random, and nobody else has them.
    fn sort_new(&mut self) {
        self.new_keys.sort_by_cached_key(|key| keys::key(key.tenant.as_ref(), key.purpose, key.version));
        self.new_answers.sort_by_key(|answer| answer.key);
        self.new_leases.sort_by(|a, b| a.name.cmp(&b.name));
        self.new_jobs.sort_by_cached_key(|job| keys::job(&job.place));
        self.new_entities.sort_by_cached_key(|entity| keys::entity(&entity.place));
    }

    /// How many entries it appends.
    pub(super) fn entries(&self) -> u64 {
        self.entries.len() as u64
    }

    /// One statement that writes all of it if the grip's fence is still in force and these keys are active, and nothing
    /// otherwise. It returns as many rows as logs it wrote to: one, or none.
    ///
    /// The keys stay locked until it is durable, so that a change of one waits for it; and what is locked is the row as it
    /// is by then, so that a change which was made while this waited is seen. Shared: other instances do the same; but none
    /// is locked while a change of one waits.
    pub(super) fn statement(
        &self,
        grip: &Grip,
        active: &BTreeSet<KeyId>,
        sealing: &Sealing,
    ) -> Statement<'a> {
        let mut statement = Statement::default();
        statement.bind(int4(grip.log), Type::INT4).bind(int8(grip.fence), Type::INT8);
        statement.bind(int8(grip.commits), Type::INT8).bind(int8(self.entries()), Type::INT8);
        statement.bind(int8(self.new_records.len() as u64), Type::INT8);
        statement.bind(grip.holder.as_bytes().to_vec(), Type::BYTEA).bind(micros(grip.lease), Type::FLOAT8);
        let size = statement.bind(int8(grip.size), Type::INT8).count();
        statement.add("WITH ");
        let mut and_active = String::new();
        if !active.is_empty() {
            let ids: Vec<_> = active.iter().map(|id| id.as_bytes().to_vec()).collect();
            let ids = statement.array(ids, Type::BYTEA_ARRAY);
            statement.bind(int8(active.len() as u64), Type::INT8);
            statement.add(&format!(
                "active AS (SELECT id FROM keys WHERE id = ANY({ids}) AND state = {} AND NOT {} \
                 ORDER BY id FOR SHARE), ",
                rows::state(KeyState::Active),
                awaited(&ids)
            ));
            and_active = format!(" AND (SELECT count(*) FROM active) = ${}", statement.count());
        }
        statement.add(&format!(
            "held AS (UPDATE logs SET size = size + $4, commits = commits + 1, records = records + $5, \
             expires = greatest(expires, now() + $7 * interval '1 microsecond') \
             WHERE log = $1 AND fence = $2 AND commits = $3 AND holder = $6 AND size = ${size}{and_active} RETURNING log)"
        ));
        self.append_entries(&mut statement, grip, sealing);
        insert_records(&mut statement, &self.new_records);
        update_records(&mut statement, &self.records);
        insert_keys(&mut statement, &self.new_keys);
        update_keys(&mut statement, &self.keys);
        insert_answers(&mut statement, &self.new_answers);
        update_answers(&mut statement, &self.answers);
        insert_leases(&mut statement, &self.new_leases);
        update_leases(&mut statement, &self.leases);
        if !self.new_jobs.is_empty() {
            let arrays = job_arrays(&mut statement, &self.new_jobs);
            insert(&mut statement, "new_jobs", "jobs", rows::JOB, &arrays);
        }
        if !self.jobs.is_empty() {
            let arrays = job_arrays(&mut statement, &self.jobs);
            update(&mut statement, "old_jobs", "jobs", rows::JOB, "place", &arrays);
        }
        self.write_entities(&mut statement);
        statement.add(&format!(" SELECT log, {DURABLY} FROM held"));
        statement
    }

    fn write_entities(&self, statement: &mut Statement<'a>) {
        if !self.new_entities.is_empty() {
            let arrays = entity_arrays(statement, &self.new_entities);
            insert(statement, "new_entities", "entities", rows::ENTITY, &arrays);
        }
        if !self.entities.is_empty() {
            let arrays = entity_arrays(statement, &self.entities);
            update(statement, "old_entities", "entities", rows::ENTITY, "place", &arrays);
        }
        if !self.gone_entities.is_empty() {
            let places: Vec<_> = self.gone_entities.iter().map(|place| keys::entity(place)).collect();
            let places = statement.array(places, Type::BYTEA_ARRAY);
            statement.add(&format!(
                ", gone_entities AS (DELETE FROM entities t USING held WHERE t.place = ANY({places}))"
            ));
        }
    }

    fn append_entries(&self, statement: &mut Statement<'a>, grip: &Grip, sealing: &Sealing) {
        if self.entries.is_empty() {
            return;
        }
        let sequences = || grip.size..grip.size + self.entries();
        let checksums = sequences().zip(&self.entries);
        let checksums = checksums.map(|(sequence, entry)| entry_checksum(grip.log, sequence, entry).to_vec());
        let seals = sequences().zip(&self.entries);
        let seals = seals.map(|(sequence, entry)| Some(sealing.seal(grip.log, sequence, entry)?.to_vec()));
        let columns = [
            statement.array(sequences().map(int8).collect::<Vec<_>>(), Type::INT8_ARRAY),
            statement.array(self.entries.clone(), Type::BYTEA_ARRAY),
            statement.array(checksums.collect::<Vec<_>>(), Type::BYTEA_ARRAY),
            statement.array(seals.collect::<Vec<_>>(), Type::BYTEA_ARRAY),
        ];
        statement.add(&format!(
            ", entries AS (INSERT INTO log_entries (log, sequence, entry, checksum, seal) \
             SELECT $1, u.* FROM held, unnest({}) AS u (sequence, entry, checksum, seal))",
            columns.join(", ")
        ));
    }
}

/// The columns of a table as arrays, one element for each row.
fn insert(statement: &mut Statement<'_>, name: &str, table: &str, columns: &str, arrays: &[String]) {
    statement.add(&format!(
        ", {name} AS (INSERT INTO {table} ({columns}) SELECT u.* FROM held, unnest({}) AS u ({columns}))",
        arrays.join(", ")
    ));
}

/// `key` is the column that the rows are found by.
fn update(
    statement: &mut Statement<'_>,
    name: &str,
    table: &str,
    columns: &str,
    key: &str,
    arrays: &[String],
) {
    let others = columns.split(", ").filter(|column| *column != key);
    let set: Vec<_> = others.map(|column| format!("{column} = u.{column}")).collect();
    statement.add(&format!(
        ", {name} AS (UPDATE {table} t SET {} FROM held, unnest({}) AS u ({columns}) WHERE t.{key} = u.{key})",
        set.join(", "),
        arrays.join(", ")
    ));
}

fn insert_records<'a>(statement: &mut Statement<'a>, records: &[&'a Record]) {
    if !records.is_empty() {
        let arrays = record_arrays(statement, records);
        insert(statement, "new_records", "records", rows::RECORD, &arrays);
    }
}

fn update_records<'a>(statement: &mut Statement<'a>, records: &[&'a Record]) {
    if !records.is_empty() {
        let arrays = record_arrays(statement, records);
        update(statement, "old_records", "records", rows::RECORD, "token", &arrays);
    }
}

/// In the order of [`rows::RECORD`].
fn record_arrays<'a>(statement: &mut Statement<'a>, records: &[&'a Record]) -> [String; 12] {
    let sealed = |record: &&'a Record| match &record.body {
        Body::Sealed { key_id, key_version, bytes } => Some((key_id, key_version, bytes)),
        Body::Erased { .. } => None,
    };
    let erased = |record: &&Record| match record.body {
        Body::Sealed { .. } => None,
        Body::Erased { at } => Some(int8(at.0)),
    };
    [
        statement.array(each(records, |r| r.token.as_bytes().as_slice()), Type::BYTEA_ARRAY),
        statement.array(each(records, |r| r.tenant.as_str()), Type::TEXT_ARRAY),
        statement.array(each(records, |r| r.class.as_str()), Type::TEXT_ARRAY),
        statement.array(each(records, |r| r.subject.map(|s| s.to_bytes().to_vec())), Type::BYTEA_ARRAY),
        statement.array(each(records, |r| r.index.map(|i| i.to_bytes().to_vec())), Type::BYTEA_ARRAY),
        statement.array(each(records, |r| int8(r.created.0)), Type::INT8_ARRAY),
        statement.array(each(records, |r| sealed(r).map(|s| s.0.as_bytes().as_slice())), Type::BYTEA_ARRAY),
        statement.array(each(records, |r| sealed(r).map(|s| i64::from(s.1.0))), Type::INT8_ARRAY),
        statement.array(each(records, |r| sealed(r).map(|s| s.2.0.as_slice())), Type::BYTEA_ARRAY),
        statement.array(each(records, erased), Type::INT8_ARRAY),
        statement.array(each(records, |r| i64::from(r.revision)), Type::INT8_ARRAY),
        statement.array(each(records, |r| rows::record_checksum(r).to_vec()), Type::BYTEA_ARRAY),
    ]
}

fn each<'a, T, V>(rows: &[&'a T], column: impl Fn(&&'a T) -> V) -> Vec<V> {
    rows.iter().map(column).collect()
}

/// Keys are few: each has statements of its own, since an array of arrays must be rectangular.
fn key_columns<'a>(statement: &mut Statement<'a>, key: &'a KeyRecord) -> Vec<String> {
    let first = statement.bind(key.id.as_bytes().as_slice(), Type::BYTEA).count();
    let names: Vec<_> = key.wraps.iter().map(|wrap| wrap.wrapping_key.as_str()).collect();
    let wraps: Vec<_> = key.wraps.iter().map(|wrap| wrap.ciphertext.as_slice()).collect();
    statement.bind(key.tenant.as_ref().map_or("", TenantId::as_str), Type::TEXT);
    statement.bind(rows::purpose(key.purpose), Type::INT2);
    statement.bind(i64::from(key.version.0), Type::INT8);
    statement.bind(rows::state(key.state), Type::INT2);
    statement.bind(int8(key.created.0), Type::INT8);
    statement.bind(names, Type::TEXT_ARRAY).bind(wraps, Type::BYTEA_ARRAY);
    statement.bind(i64::from(key.revision), Type::INT8);
    statement.bind(rows::key_checksum(key).to_vec(), Type::BYTEA);
    statement.bind(key.statements.as_str(), Type::TEXT);
    (first..first + 11).map(|number| format!("${number}")).collect()
}

fn insert_keys<'a>(statement: &mut Statement<'a>, keys: &[&'a KeyRecord]) {
    for (number, key) in keys.iter().enumerate() {
        let values = key_columns(statement, key).join(", ");
        statement.add(&format!(
            ", new_key_{number} AS (INSERT INTO keys ({}) SELECT {values} FROM held)",
            rows::KEY
        ));
    }
}

fn update_keys<'a>(statement: &mut Statement<'a>, keys: &[&'a KeyRecord]) {
    for (number, key) in keys.iter().enumerate() {
        let values = key_columns(statement, key);
        let set: Vec<_> =
            rows::KEY.split(", ").zip(&values).skip(1).map(|(c, v)| format!("{c} = {v}")).collect();
        statement.add(&format!(
            ", old_key_{number} AS (UPDATE keys SET {} FROM held WHERE id = {})",
            set.join(", "),
            values[0]
        ));
    }
}

fn insert_answers<'a>(statement: &mut Statement<'a>, answers: &[&'a Remembered]) {
    if !answers.is_empty() {
        let arrays = answer_arrays(statement, answers);
        insert(statement, "new_answers", "remembered", rows::REMEMBERED, &arrays);
    }
}

fn update_answers<'a>(statement: &mut Statement<'a>, answers: &[&'a Remembered]) {
    if !answers.is_empty() {
        let arrays = answer_arrays(statement, answers);
        update(statement, "old_answers", "remembered", rows::REMEMBERED, "key", &arrays);
    }
}

/// In the order of [`rows::REMEMBERED`].
fn answer_arrays<'a>(statement: &mut Statement<'a>, answers: &[&'a Remembered]) -> [String; 6] {
    [
        statement.array(each(answers, |a| a.key.as_slice()), Type::BYTEA_ARRAY),
        statement.array(each(answers, |a| a.request.as_slice()), Type::BYTEA_ARRAY),
        statement.array(each(answers, |a| rows::write_tokens(&a.tokens)), Type::BYTEA_ARRAY),
        statement.array(each(answers, |a| int8(a.at.0)), Type::INT8_ARRAY),
        statement.array(each(answers, |a| int8(a.expires.0)), Type::INT8_ARRAY),
        statement.array(each(answers, |a| rows::remembered_checksum(a).to_vec()), Type::BYTEA_ARRAY),
    ]
}

fn insert_leases<'a>(statement: &mut Statement<'a>, leases: &[&'a Lease]) {
    if !leases.is_empty() {
        let arrays = lease_arrays(statement, leases);
        insert(statement, "new_leases", "leases", rows::LEASE, &arrays);
    }
}

fn update_leases<'a>(statement: &mut Statement<'a>, leases: &[&'a Lease]) {
    if !leases.is_empty() {
        let arrays = lease_arrays(statement, leases);
        update(statement, "old_leases", "leases", rows::LEASE, "name", &arrays);
    }
}

/// In the order of [`rows::LEASE`].
fn lease_arrays<'a>(statement: &mut Statement<'a>, leases: &[&'a Lease]) -> [String; 6] {
    [
        statement.array(each(leases, |l| l.name.as_str()), Type::TEXT_ARRAY),
        statement.array(each(leases, |l| l.holder.as_bytes().as_slice()), Type::BYTEA_ARRAY),
        statement.array(each(leases, |l| int8(l.fence)), Type::INT8_ARRAY),
        statement.array(each(leases, |l| int8(l.expires.0)), Type::INT8_ARRAY),
        statement.array(each(leases, |l| int8(l.revision)), Type::INT8_ARRAY),
        statement.array(each(leases, |l| rows::lease_checksum(l).to_vec()), Type::BYTEA_ARRAY),
    ]
}

/// In the order of [`rows::ENTITY`].
fn entity_arrays<'a>(statement: &mut Statement<'a>, entities: &[&'a Entity]) -> [String; 4] {
    let (mut places, mut contents, mut checksums) = (Vec::new(), Vec::new(), Vec::new());
    for (place, content, checksum) in entities.iter().map(|entity| rows::write_entity(entity)) {
        places.push(place);
        contents.push(content);
        checksums.push(checksum.to_vec());
    }
    [
        statement.array(places, Type::BYTEA_ARRAY),
        statement.array(each(entities, |entity| int8(entity.revision)), Type::INT8_ARRAY),
        statement.array(contents, Type::BYTEA_ARRAY),
        statement.array(checksums, Type::BYTEA_ARRAY),
    ]
}

/// In the order of [`rows::JOB`].
fn job_arrays<'a>(statement: &mut Statement<'a>, jobs: &[&'a Job]) -> [String; 4] {
    let rows: Vec<_> = jobs.iter().map(|job| rows::write_job(job)).collect();
    [
        statement.array(rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>(), Type::BYTEA_ARRAY),
        statement.array(each(jobs, |job| int8(job.revision)), Type::INT8_ARRAY),
        statement.array(rows.iter().map(|row| row.1.clone()).collect::<Vec<_>>(), Type::BYTEA_ARRAY),
        statement.array(rows.iter().map(|row| row.2.to_vec()).collect::<Vec<_>>(), Type::BYTEA_ARRAY),
    ]
}
