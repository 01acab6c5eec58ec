//! The rows that the conditions of a batch are about: locked, then read.

use std::collections::BTreeSet;

use futures::join;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::batch::{Present, RowId, claimed, entity_condition, must_be_active, must_be_unused};
use super::committer::Stopped;
use super::error::Failure;
use super::log::{Grip, int4};
use super::rows::{self, number};
use super::statement::{Statement, int8};
use super::turn::{TURN, awaited};
use crate::domain::{KeyId, KeyRecord, KeyState, LeaseName, TenantId};
use crate::store::keys;
use crate::store::{Change, StoreError, Write};

/// Begins a transaction. An instance that stands still within one, or is gone without a word, must not keep rows locked
/// that others wait for: the database ends it.
///
/// Read committed, whatever the database's default: what is read once the rows are locked must be what is there by then.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// Begins a transaction, reads and locks what the conditions are about, and makes sure of the fence. Keys come first: who
/// waits for one holds nothing yet.
pub(super) async fn lock(client: &Client, grip: &Grip, changes: &[&Change]) -> Result<Present, Stopped> {
    let claims = changes.iter().any(|change| !claimed(change).is_empty());
    // Not a bound for each wait: one lock that others share is waited for holder by holder.
    let begin = if claims {
        format!("{BEGIN}; SET LOCAL statement_timeout = {}", TURN.as_millis())
    } else {
        BEGIN.to_owned()
    };
    let unbound = async {
        // A commit is not given up halfway.
        if claims { client.batch_execute("SET LOCAL statement_timeout TO DEFAULT").await } else { Ok(()) }
    };
    let (keys, held) = (lock_keys(changes, claims), lock_log(grip));
    let (records, answers) = (lock_records(changes), lock_answers(changes));
    let (leases, jobs) = (lock_leases(changes), lock_jobs(changes));
    let unused = must_be_unused(changes.iter().copied());
    // Sent in this order, and looked at in this order: what comes behind a failure only says that there was one.
    let (begun, keys, unbound, held, records, answers, leases, jobs, entities, used) = join!(
        client.batch_execute(&begin),
        keys.run(client),
        unbound,
        held.run(client),
        records.run(client),
        answers.run(client),
        leases.run(client),
        jobs.run(client),
        lock_entities(client, changes),
        used_keys(client, &unused),
    );
    begun.map_err(Failure::from)?;
    let keys = keys?;
    unbound.map_err(Failure::from)?;
    let fenced = held?.is_empty().then_some(Stopped::Fenced);
    if let Some(stopped) = fenced.or_else(|| are_awaited(&keys).then_some(Stopped::Awaited)) {
        client.batch_execute("ROLLBACK").await.map_err(Failure::from)?;
        return Err(stopped);
    }
    let mut present = Present::default();
    read_records(&records?, &mut present)?;
    read_answers(&answers?, &mut present)?;
    read_leases(&leases?, &mut present)?;
    read_jobs(&jobs?, &mut present)?;
    read_entities(&entities?, &mut present)?;
    for row in keys.iter().filter(|row| is_key(row)) {
        read_key(row, &mut present)?;
    }
    for row in used? {
        let id = row.try_get::<_, &[u8]>("id").ok().and_then(|id| id.try_into().ok());
        let id = id.ok_or_else(|| Failure::Refused("corrupt key id".to_owned()))?;
        present.used.insert(KeyId::from_bytes(id));
    }
    Ok(present)
}

fn writes<'a>(changes: &[&'a Change]) -> impl Iterator<Item = &'a Write> {
    changes.iter().flat_map(|change| &change.writes)
}

/// No row: the fence is not in force.
fn lock_log(grip: &Grip) -> Statement<'_> {
    let mut held = Statement::new(
        "SELECT log FROM logs WHERE log = $1 AND fence = $2 AND commits = $3 AND holder = $4 AND size = $5 FOR UPDATE",
    );
    held.bind(int4(grip.log), Type::INT4).bind(int8(grip.fence), Type::INT8);
    held.bind(int8(grip.commits), Type::INT8).bind(grip.holder.as_bytes().as_slice(), Type::BYTEA);
    held.bind(int8(grip.size), Type::INT8);
    held
}

fn lock_records<'a>(changes: &[&'a Change]) -> Statement<'a> {
    let tokens = writes(changes).filter_map(|write| match write {
        Write::Insert(record) | Write::Replace(record) => Some(record.token.as_bytes().as_slice()),
        _ => None,
    });
    let mut records =
        Statement::new("SELECT token, revision FROM records WHERE token = ANY($1) ORDER BY token FOR UPDATE");
    records.bind(tokens.collect::<Vec<_>>(), Type::BYTEA_ARRAY);
    records
}

fn read_records(rows: &[Row], present: &mut Present) -> Result<(), Failure> {
    for row in rows {
        let token = *rows::token(row).map_err(|error| refused(&error))?.as_bytes();
        match number(row, "revision") {
            Ok(revision) => {
                present.records.insert(token, u32::try_from(revision).unwrap_or(u32::MAX));
            }
            Err(error) => {
                present.altered.insert(RowId::Record(token), error);
            }
        }
    }
    Ok(())
}

fn lock_answers<'a>(changes: &[&'a Change]) -> Statement<'a> {
    let keys = writes(changes).filter_map(|write| match write {
        Write::Remember(answer) => Some(answer.key.as_slice()),
        _ => None,
    });
    let mut answers =
        Statement::new("SELECT key, expires FROM remembered WHERE key = ANY($1) ORDER BY key FOR UPDATE");
    answers.bind(keys.collect::<Vec<_>>(), Type::BYTEA_ARRAY);
    answers
}

fn read_answers(rows: &[Row], present: &mut Present) -> Result<(), Failure> {
    for row in rows {
        let key = row.try_get::<_, &[u8]>("key").ok().and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| Failure::Refused("corrupt idempotency hash".to_owned()))?;
        match number(row, "expires") {
            Ok(expires) => {
                present.remembered.insert(key, expires);
            }
            Err(error) => {
                present.altered.insert(RowId::Remembered(key), error);
            }
        }
    }
    Ok(())
}

fn lock_leases<'a>(changes: &[&'a Change]) -> Statement<'a> {
    let names = writes(changes).filter_map(|write| match write {
        Write::PutLease(lease) => Some(lease.name.as_str()),
        Write::Fence { lease, .. } => Some(lease.as_str()),
        _ => None,
    });
    let mut leases = Statement::new(&format!(
        "SELECT {} FROM leases WHERE name = ANY($1) ORDER BY name FOR UPDATE",
        rows::LEASE
    ));
    leases.bind(names.collect::<Vec<_>>(), Type::TEXT_ARRAY);
    leases
}

fn read_leases(rows: &[Row], present: &mut Present) -> Result<(), Failure> {
    for row in rows {
        match rows::lease(row) {
            Ok(lease) => {
                present.leases.insert(lease.name, (lease.revision, lease.fence));
            }
            Err(error) => {
                let name = row.try_get::<_, &str>("name").ok().and_then(|name| LeaseName::parse(name).ok());
                let name = name.ok_or_else(|| refused(&error))?;
                present.altered.insert(RowId::Lease(name), error);
            }
        }
    }
    Ok(())
}

fn read_jobs(rows: &[Row], present: &mut Present) -> Result<(), Failure> {
    for row in rows {
        match rows::job(row) {
            Ok(job) => {
                present.jobs.insert(job.place, job.revision);
            }
            Err(error) => {
                let place = row.try_get::<_, &[u8]>("place").ok().and_then(keys::parse_job);
                let place = place.ok_or_else(|| refused(&error))?;
                present.altered.insert(RowId::Job(place), error);
            }
        }
    }
    Ok(())
}

/// A row that was found by its name and has another.
fn refused(error: &StoreError) -> Failure {
    Failure::Refused(error.to_string())
}

fn read_key(row: &Row, present: &mut Present) -> Result<(), Failure> {
    let key = match rows::key(row) {
        Ok(key) => key,
        Err(error) => {
            let id = row.try_get::<_, &[u8]>("id").ok().and_then(|id| id.try_into().ok());
            let id = id.ok_or_else(|| refused(&error))?;
            present.altered.extend(rows::key_place(row).map(|place| (RowId::Key(place), error.clone())));
            present.altered.insert(RowId::KeyId(id), error);
            return Ok(());
        }
    };
    if key.state == KeyState::Active {
        present.active.insert(key.id);
    }
    let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
    present.keys.insert(*key.id.as_bytes(), key.revision);
    present.key_places.insert(place, *key.id.as_bytes());
    Ok(())
}

/// Keys that a batch makes or changes.
fn changed_keys<'a>(changes: &[&'a Change]) -> Vec<&'a KeyRecord> {
    let writes = changes.iter().flat_map(|change| &change.writes);
    let of_keys = writes.filter_map(|write| match write {
        Write::InsertKey(key) | Write::ReplaceKey(key) => Some(key),
        _ => None,
    });
    of_keys.collect()
}

/// Those, and the keys that must be active or unused: all of them in one order. Who claims none shares the lock with others
/// of the kind, if nobody waits for one of the keys: so what is written under a key is either seen by who needs it unused,
/// or waits. There is a row at least, which says whether somebody waits.
fn lock_keys(changes: &[&Change], claims: bool) -> Statement<'static> {
    let changed = changed_keys(changes);
    let active = must_be_active(changes.iter().copied());
    let unused = must_be_unused(changes.iter().copied());
    let ids = changed.iter().map(|key| key.id).chain(active).chain(unused).map(|id| id.as_bytes().to_vec());
    let ids: Vec<_> = ids.collect();
    let mut keys = Statement::default();
    let ids = keys.array(ids, Type::BYTEA_ARRAY);
    let awaited = if claims { "false".to_owned() } else { awaited(&ids) };
    keys.add(&format!(
        "WITH turn AS (SELECT {awaited} AS awaited), locked AS (SELECT {} FROM keys \
         WHERE NOT (SELECT awaited FROM turn) AND (id = ANY({ids})",
        rows::KEY
    ));
    if !changed.is_empty() {
        let tenant = |key: &&KeyRecord| key.tenant.as_ref().map_or("", TenantId::as_str).to_owned();
        let tenants = keys.array(changed.iter().map(tenant).collect::<Vec<_>>(), Type::TEXT_ARRAY);
        let purposes = changed.iter().map(|key| rows::purpose(key.purpose)).collect::<Vec<_>>();
        let purposes = keys.array(purposes, Type::INT2_ARRAY);
        let versions = changed.iter().map(|key| i64::from(key.version.0)).collect::<Vec<_>>();
        let versions = keys.array(versions, Type::INT8_ARRAY);
        keys.add(&format!(
            " OR (tenant, purpose, version) IN (SELECT * FROM unnest({tenants}, {purposes}, {versions}))"
        ));
    }
    let strength = if claims { "UPDATE" } else { "SHARE" };
    keys.add(&format!(
        ") ORDER BY id FOR {strength}) SELECT turn.awaited, locked.* FROM turn LEFT JOIN locked ON true"
    ));
    keys
}

/// Whether nothing was locked because a change waits for one of the keys.
fn are_awaited(keys: &[Row]) -> bool {
    keys.first().is_some_and(|row| row.try_get("awaited").unwrap_or(false))
}

/// A row that says nothing but that has no id.
fn is_key(row: &Row) -> bool {
    !matches!(row.try_get::<_, Option<&[u8]>>("id"), Ok(None))
}

/// Which of these keys are used. To be asked once they are locked: each statement sees what was committed by then.
///
/// Two bounds and an order say what an equality would, so that only the index on keys fits, however many records the
/// database believes to be under one.
async fn used_keys(client: &Client, keys: &BTreeSet<KeyId>) -> Result<Vec<Row>, Failure> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut used = Statement::new(
        "SELECT u.id FROM unnest($1::bytea[]) AS u (id) WHERE (SELECT r.key_id FROM records r \
         WHERE r.key_id >= u.id AND r.key_id <= u.id ORDER BY r.key_id, r.token LIMIT 1) IS NOT NULL",
    );
    used.bind(keys.iter().map(|id| id.as_bytes().to_vec()).collect::<Vec<_>>(), Type::BYTEA_ARRAY);
    used.run(client).await
}

fn lock_jobs(changes: &[&Change]) -> Statement<'static> {
    let writes = changes.iter().flat_map(|change| &change.writes);
    let places = writes.filter_map(|write| match write {
        Write::PutJob(job) => Some(keys::job(&job.place)),
        _ => None,
    });
    let mut jobs = Statement::new(&format!(
        "SELECT {} FROM jobs WHERE place = ANY($1) ORDER BY place FOR UPDATE",
        rows::JOB
    ));
    jobs.bind(places.collect::<Vec<_>>(), Type::BYTEA_ARRAY);
    jobs
}

/// The entities that conditions are about, all of them in one order. A batch that changes none shares the locks with others
/// of the kind. What is not there can't be locked: if a condition is that it stays so, its place is taken by a row that
/// goes again, which whoever would put one there waits for.
async fn lock_entities(client: &Client, changes: &[&Change]) -> Result<Vec<Row>, Failure> {
    let conditions = || writes(changes).filter_map(entity_condition);
    let places: Vec<_> = conditions().map(|(place, _)| keys::entity(place)).collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let shared =
        writes(changes).all(|write| !matches!(write, Write::PutEntity(_) | Write::DropEntity { .. }));
    let mode = if shared { "SHARE" } else { "UPDATE" };
    let mut entities = Statement::new(&format!(
        "SELECT {} FROM entities WHERE place = ANY($1) ORDER BY place FOR {mode}",
        rows::ENTITY
    ));
    entities.bind(places, Type::BYTEA_ARRAY);
    if !writes(changes).any(|write| matches!(write, Write::Stands { revision: None, .. })) {
        return entities.run(client).await;
    }
    let absent = conditions().filter(|(_, there)| there.is_none()).map(|(place, _)| keys::entity(place));
    let absent: Vec<_> = absent.collect();
    let mut take = Statement::new(
        "INSERT INTO entities (place, revision, content, checksum) \
         SELECT place, -1, '', '' FROM unnest($1::bytea[]) AS u (place) ORDER BY place \
         ON CONFLICT (place) DO NOTHING",
    );
    take.bind(absent.clone(), Type::BYTEA_ARRAY);
    let mut leave = Statement::new("DELETE FROM entities WHERE place = ANY($1) AND revision = -1");
    leave.bind(absent, Type::BYTEA_ARRAY);
    let (taken, left, entities) = join!(take.run(client), leave.run(client), entities.run(client));
    taken?;
    left?;
    entities
}

fn read_entities(rows: &[Row], present: &mut Present) -> Result<(), Failure> {
    for row in rows {
        match rows::entity(row) {
            Ok(entity) => {
                present.entities.insert(entity.place, entity.revision);
            }
            Err(error) => {
                let place = row.try_get::<_, &[u8]>("place").ok().and_then(keys::parse_entity);
                let place = place.ok_or_else(|| refused(&error))?;
                present.altered.insert(RowId::Entity(place), error);
            }
        }
    }
    Ok(())
}
