//! The rows that the conditions of a batch are about: locked, then read.

use std::collections::BTreeSet;

use futures::join;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::batch::{Present, must_be_active, must_be_unused};
use super::committer::Stopped;
use super::error::Failure;
use super::log::{Grip, int4};
use super::rows::{self, number};
use super::statement::{Statement, int8};
use crate::domain::{KeyId, KeyRecord, KeyState, TenantId};
use crate::store::keys;
use crate::store::{Change, StoreError, Write};

/// Begins a transaction. An instance that stands still within one, or is gone without a word, must not keep rows locked
/// that others wait for: the database ends it.
///
/// Read committed, whatever the database's default: what is read once the rows are locked must be what is there by then.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// Begins a transaction, makes sure of the fence, and reads and locks what the conditions are about.
pub(super) async fn lock(client: &Client, grip: &Grip, changes: &[&Change]) -> Result<Present, Stopped> {
    let writes = || changes.iter().flat_map(|change| &change.writes);
    let mut held = Statement::new(
        "SELECT log FROM logs WHERE log = $1 AND fence = $2 AND commits = $3 AND holder = $4 FOR UPDATE",
    );
    held.bind(int4(grip.log), Type::INT4)
        .bind(int8(grip.fence), Type::INT8)
        .bind(int8(grip.commits), Type::INT8);
    held.bind(grip.holder.as_bytes().as_slice(), Type::BYTEA);

    let of_records = writes().filter_map(|write| match write {
        Write::Insert(record) | Write::Replace(record) => Some(record.token.as_bytes().as_slice()),
        _ => None,
    });
    let of_records: Vec<_> = of_records.collect();
    let mut records =
        Statement::new("SELECT token, revision FROM records WHERE token = ANY($1) ORDER BY token FOR UPDATE");
    records.bind(of_records, Type::BYTEA_ARRAY);

    let changed = changed_keys(changes);
    let keys = lock_keys(&changed, changes);
    let unused = must_be_unused(changes.iter().copied());

    let of_answers = writes().filter_map(|write| match write {
        Write::Remember(answer) => Some(answer.key.as_slice()),
        _ => None,
    });
    let of_answers: Vec<_> = of_answers.collect();
    let mut answers =
        Statement::new("SELECT key, expires FROM remembered WHERE key = ANY($1) ORDER BY key FOR UPDATE");
    answers.bind(of_answers, Type::BYTEA_ARRAY);

    let of_leases = writes().filter_map(|write| match write {
        Write::PutLease(lease) => Some(lease.name.as_str()),
        Write::Fence { lease, .. } => Some(lease.as_str()),
        _ => None,
    });
    let of_leases: Vec<_> = of_leases.collect();
    let mut leases = Statement::new(&format!(
        "SELECT {} FROM leases WHERE name = ANY($1) ORDER BY name FOR UPDATE",
        rows::LEASE
    ));
    leases.bind(of_leases, Type::TEXT_ARRAY);

    let jobs = lock_jobs(changes);

    let (begun, held, records, keys, answers, leases, jobs, used) = join!(
        client.batch_execute(BEGIN),
        held.run(client),
        records.run(client),
        keys.run(client),
        answers.run(client),
        leases.run(client),
        jobs.run(client),
        used_keys(client, &unused),
    );
    begun.map_err(Failure::from)?;
    if held?.is_empty() {
        client.batch_execute("ROLLBACK").await.map_err(Failure::from)?;
        return Err(Stopped::Fenced);
    }
    let altered = |error: StoreError| Failure::Refused(error.to_string());
    let mut present = Present::default();
    for row in records? {
        let revision = number(&row, "revision").map_err(altered)?;
        let revision = u32::try_from(revision).unwrap_or(u32::MAX);
        present.records.insert(*rows::token(&row).map_err(altered)?.as_bytes(), revision);
    }
    for row in keys? {
        let key = match rows::key(&row) {
            Ok(key) => key,
            // Then it is not known to be active: that is for those who need it.
            Err(_) if changed.is_empty() => continue,
            Err(error) => return Err(altered(error).into()),
        };
        if key.state == KeyState::Active {
            present.active.insert(key.id);
        }
        let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
        present.keys.insert(*key.id.as_bytes(), key.revision);
        present.key_places.insert(place, *key.id.as_bytes());
    }
    for row in used? {
        let id = row.try_get::<_, &[u8]>("id").ok().and_then(|id| id.try_into().ok());
        let id = id.ok_or_else(|| Failure::Refused("corrupt key id".to_owned()))?;
        present.used.insert(KeyId::from_bytes(id));
    }
    for row in answers? {
        let key = row.try_get::<_, &[u8]>("key").ok().and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| Failure::Refused("corrupt idempotency hash".to_owned()))?;
        present.remembered.insert(key, number(&row, "expires").map_err(altered)?);
    }
    for row in leases? {
        let lease = rows::lease(&row).map_err(altered)?;
        present.leases.insert(lease.name, (lease.revision, lease.fence));
    }
    for row in jobs? {
        let job = rows::job(&row).map_err(altered)?;
        present.jobs.insert(job.place, job.revision);
    }
    Ok(present)
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

/// Those, and the keys that must be active or unused: all of them in one order. Who changes none and needs none unused
/// shares the lock with others of the kind: so what is written under a key is either seen by who needs it unused, or waits.
fn lock_keys(changed: &[&KeyRecord], changes: &[&Change]) -> Statement<'static> {
    let active = must_be_active(changes.iter().copied());
    let unused = must_be_unused(changes.iter().copied());
    let shared = changed.is_empty() && unused.is_empty();
    let ids = changed.iter().map(|key| key.id).chain(active).chain(unused).map(|id| id.as_bytes().to_vec());
    let ids: Vec<_> = ids.collect();
    let mut keys = Statement::new(&format!("SELECT {} FROM keys WHERE id = ANY($1)", rows::KEY));
    keys.bind(ids, Type::BYTEA_ARRAY);
    if shared {
        keys.add(" ORDER BY id FOR SHARE");
        return keys;
    }
    let tenant = |key: &&KeyRecord| key.tenant.as_ref().map_or("", TenantId::as_str).to_owned();
    keys.add(
        " OR (tenant, purpose, version) IN (SELECT * FROM unnest($2::text[], $3::int2[], $4::int8[])) \
         ORDER BY id FOR UPDATE",
    );
    keys.bind(changed.iter().map(tenant).collect::<Vec<_>>(), Type::TEXT_ARRAY);
    keys.bind(changed.iter().map(|key| rows::purpose(key.purpose)).collect::<Vec<_>>(), Type::INT2_ARRAY);
    keys.bind(changed.iter().map(|key| i64::from(key.version.0)).collect::<Vec<_>>(), Type::INT8_ARRAY);
    keys
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
