//! The one task that writes. It takes whatever changes wait, puts them into one commit, and answers all of them when
//! the database has made it durable. While it waits, the next batch gathers.
//!
//! * Changes that only insert go as one statement in one round trip: the database refuses a row that is there, and the
//!   statement writes nothing if a key that must be active is not. Then, and for all other changes, the rows that the
//!   conditions are about are locked and read first.
//! * Changes that change the same row do not share a batch; nor does one whose condition is about a row with one before
//!   it that changes that row. One that asks whether a key is used shares none with changes of records before it.
//! * When the connection is lost, nothing is answered before the database has said what became of the commit
//!   ([`super::log::resolve`]). If it was made, it is acknowledged; if not, it is made again under the new fence.
//! * An instance whose log was taken by another writes nothing any more: that is fatal.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join;
use futures::join;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;

use super::batch::{
    Batch, Present, RowId, entity_condition, inserts_only, must_be_active, must_be_unused, rows_of, watched,
};
use super::connect::{Connection, Connector};
use super::error::Failure;
use super::log::{Grip, Resolved, give_back, holds, int4, resolve, retire};
use super::rows::{self, number};
use super::statement::{Statement, int8};
use crate::domain::{KeyId, KeyRecord, KeyState, TenantId};
use crate::store::keys;
use crate::store::{Change, Committed, StoreError, Write};

/// A change and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) answer: oneshot::Sender<Result<Committed, StoreError>>,
    /// Room in the queue; given back with the answer.
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the committer tells the rest of the store.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Durable entries of the log.
    pub(super) size: AtomicU64,
    /// The fence in force.
    pub(super) fence: AtomicU64,
    /// Commits whose outcome was not known at first and turned out to have been made.
    pub(super) resolved_made: AtomicU64,
    /// Those that turned out not to have been made.
    pub(super) resolved_not_made: AtomicU64,
    /// Batches that were tried again after a serialization failure.
    pub(super) repeated: AtomicU64,
    /// Why there is no writing any more.
    pub(super) fatal: OnceLock<StoreError>,
}

impl Progress {
    pub(super) fn fatal(&self) -> Option<StoreError> {
        self.fatal.get().cloned()
    }
}

/// The most changes and bytes of a batch.
const BATCH_CHANGES: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

/// How long the database may take for a statement before the connection is given up.
const STATEMENT: Duration = Duration::from_secs(10);

/// And how much longer for each row that it writes.
const WRITE: Duration = Duration::from_micros(500);

/// Begins a transaction. An instance that stands still within one, or is gone without a word, must not keep rows locked
/// that others wait for: the database ends it.
///
/// Read committed, whatever the database's default: what is read once the rows are locked must be what is there by then.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '1s'";

/// How often a batch is tried again because of others.
const ATTEMPTS: u32 = 20;

/// How soon it is tried again to connect.
const RECONNECT: Duration = Duration::from_millis(100);

/// How long changes wait while there is no database, before they are refused.
const NO_DATABASE: Duration = Duration::from_secs(5);

/// How long the last batch may take when the store is closed.
const CLOSING: Duration = Duration::from_secs(10);

pub(super) struct Committer {
    connector: Arc<Connector>,
    connection: Option<Connection>,
    grip: Grip,
    progress: Arc<Progress>,
    closing: CancellationToken,
}

/// What came of a batch: for each change, whether its conditions held.
type Verdicts = Vec<Result<Committed, StoreError>>;

/// What a batch comes to once it is durable.
#[derive(Debug, Clone)]
struct Plan {
    verdicts: Verdicts,
    entries: u64,
    /// Whether there is anything to write.
    writes: bool,
}

/// Why an attempt gave no verdicts.
enum Stopped {
    Failed(Failure),
    /// The fence is not in force any more.
    Fenced,
    /// Nothing was written: a key is not active, or the fence is not in force. Who looks at the rows can tell.
    Unmet,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Committer {
    pub(super) fn new(
        connector: Arc<Connector>,
        connection: Connection,
        grip: Grip,
        progress: Arc<Progress>,
        closing: CancellationToken,
    ) -> Self {
        progress.size.store(grip.size, Ordering::SeqCst);
        progress.fence.store(grip.fence, Ordering::SeqCst);
        Self { connector, connection: Some(connection), grip, progress, closing }
    }

    /// Works until the queue's last sender is gone and the queue is empty; then, after the task that renews the
    /// lease, gives the log back.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>, keeper: JoinHandle<()>) {
        let mut postponed = None;
        loop {
            let first = match postponed.take() {
                Some(job) => Some(job),
                None => queue.recv().await,
            };
            let Some(first) = first else { break };
            let (jobs, later) = gather(first, &mut queue);
            postponed = later;
            self.write(jobs).await;
        }
        self.closing.cancel();
        // It ends with the store, and does not panic.
        let _ = keeper.await;
        if self.progress.fatal.get().is_none()
            && let Some(connection) = &self.connection
            && let Err(failure) = give_back(connection, &self.grip).await
        {
            tracing::warn!(
                why = failure.why(),
                "the log was not given back: another takes it when the lease ends"
            );
        }
    }

    /// Makes the changes durable, then answers.
    async fn write(&mut self, jobs: Vec<Job>) {
        let outcome = match self.progress.fatal() {
            Some(fatal) => Err(fatal),
            None => self.commit(&jobs).await,
        };
        match outcome {
            Ok(verdicts) => {
                for (job, verdict) in jobs.into_iter().zip(verdicts) {
                    // Who gave up waiting does not hear it.
                    let _ = job.answer.send(verdict);
                }
            }
            Err(error) => {
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn commit(&mut self, jobs: &[Job]) -> Result<Verdicts, StoreError> {
        let changes: Vec<&Change> = jobs.iter().map(|job| &job.change).collect();
        if changes.iter().all(|change| change.writes.is_empty() && change.entries.is_empty()) {
            return Ok(vec![Ok(Committed { first_sequence: self.grip.size }); jobs.len()]);
        }
        let rows: usize = changes.iter().map(|change| change.writes.len() + change.entries.len()).sum();
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let mut checked = !changes.iter().all(|change| inserts_only(change));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let grip = self.grip.clone();
            let connection = self.connection().await?;
            let mut plan = None;
            connection.forget_warnings();
            let tried = try_once(connection, &grip, &changes, checked, &mut plan);
            let tried = timeout(STATEMENT + WRITE * rows, tried).await;
            let warned = connection.has_warned();
            let failure = match tried {
                Err(_) => Failure::Lost("a commit took too long".to_owned()),
                // What is not replicated as it should be may not be acknowledged.
                Ok(Ok(_)) if warned => Failure::Lost("the database warned about a commit".to_owned()),
                Ok(Ok(plan)) => return Ok(self.advance(plan)),
                Ok(Err(Stopped::Fenced)) => {
                    return Err(self.fenced().await);
                }
                Ok(Err(Stopped::Unmet)) => {
                    checked = true;
                    continue;
                }
                Ok(Err(Stopped::Failed(failure))) => failure,
            };
            match failure {
                Failure::Duplicate if attempt < ATTEMPTS => {
                    self.roll_back(checked).await;
                    checked = true;
                }
                Failure::Again(_) if attempt < ATTEMPTS => {
                    self.progress.repeated.fetch_add(1, Ordering::Relaxed);
                    self.roll_back(checked).await;
                    sleep(Duration::from_millis(u64::from(attempt.min(8)) * 5)).await;
                }
                Failure::Lost(why) => {
                    tracing::warn!(why, "a commit's connection was lost; asking what became of it");
                    self.connection = None;
                    let made = self.find_out().await?;
                    if let Some(plan) = plan.filter(|_| made) {
                        return Ok(self.advance(plan));
                    }
                }
                refused @ (Failure::Refused(_) | Failure::Again(_) | Failure::Duplicate) => {
                    self.roll_back(checked).await;
                    tracing::warn!(why = refused.why(), "the database refused a commit");
                    return Err(refused.into());
                }
            }
        }
    }

    /// The plan is durable.
    fn advance(&mut self, plan: Plan) -> Verdicts {
        if plan.writes {
            self.grip.size += plan.entries;
            self.grip.commits += 1;
            self.progress.size.store(self.grip.size, Ordering::SeqCst);
        }
        plan.verdicts
    }

    /// The connection, or a new one. Nothing is under way, so that changes may be refused if there is none.
    async fn connection(&mut self) -> Result<&Connection, StoreError> {
        let until = Instant::now() + NO_DATABASE;
        loop {
            // Taken out and put back: a borrow can't leave the loop on one way only.
            if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
                return Ok(self.connection.insert(connection));
            }
            match self.connector.connect().await {
                Ok(connection) => return Ok(self.connection.insert(connection)),
                Err(error) if Instant::now() >= until => {
                    return Err(StoreError::Unavailable { why: format!("database: {error}") });
                }
                Err(_) => sleep(RECONNECT).await,
            }
        }
    }

    /// Whether the commit whose connection was lost was made. Asks until it is told, or the store is closed.
    async fn find_out(&mut self) -> Result<bool, StoreError> {
        // Others may have the lost server still.
        self.connector.renew_connections();
        let mut give_up = None;
        loop {
            match self.ask().await {
                Ok(Resolved::Commits(commits)) => {
                    let made = match commits.checked_sub(self.grip.commits) {
                        Some(0) => false,
                        Some(1) => true,
                        _ => return Err(self.went_back().await),
                    };
                    self.progress.fence.store(self.grip.fence, Ordering::SeqCst);
                    let counter =
                        if made { &self.progress.resolved_made } else { &self.progress.resolved_not_made };
                    counter.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(made, "it is known what became of the commit");
                    return Ok(made);
                }
                Ok(Resolved::Taken) => return Err(self.fail(StoreError::Taken)),
                Err(why) => tracing::warn!(why, "it is not known yet what became of a commit"),
            }
            if self.closing.is_cancelled() {
                let until = *give_up.get_or_insert_with(|| Instant::now() + CLOSING);
                if Instant::now() >= until {
                    return Err(StoreError::Unavailable {
                        why: "it is not known whether it was written".to_owned(),
                    });
                }
            }
            sleep(RECONNECT).await;
        }
    }

    /// Why the log's row is not as this instance left it.
    async fn fenced(&self) -> StoreError {
        let told = match &self.connection {
            Some(connection) => {
                timeout(STATEMENT, holds(connection, &self.grip)).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        // Nobody else has it: then the database itself is not what it was.
        if told == Some(true) { self.went_back().await } else { self.fail(StoreError::Taken) }
    }

    /// As after a failover to a server that did not have every commit which was acknowledged.
    async fn went_back(&self) -> StoreError {
        if let Some(connection) = &self.connection {
            let retired = timeout(STATEMENT, retire(connection, &self.grip)).await;
            if !matches!(retired, Ok(Ok(()))) {
                tracing::error!(
                    log = self.grip.log.0,
                    "the log is not what it was, and could not be retired"
                );
            }
        }
        let why = "the database has lost commits that it had acknowledged".to_owned();
        self.fail(StoreError::Fatal { why })
    }

    async fn ask(&mut self) -> Result<Resolved, String> {
        let connection = self.connector.connect().await.map_err(|error| error.to_string())?;
        connection.forget_warnings();
        let told = timeout(STATEMENT, resolve(&connection, &mut self.grip)).await;
        let told = told.map_err(|_| {
            // A primary without its standby looks like one, and commits nothing.
            self.connector.pass_over();
            "it takes too long".to_owned()
        })?;
        let told = told.map_err(|failure| failure.why().to_owned())?;
        self.connection = Some(connection);
        Ok(told)
    }

    /// Ends a transaction that failed. Without one there is nothing to end.
    async fn roll_back(&mut self, in_transaction: bool) {
        let Some(connection) = self.connection.as_ref().filter(|_| in_transaction) else { return };
        let ended = timeout(STATEMENT, connection.client().batch_execute("ROLLBACK")).await;
        if !matches!(ended, Ok(Ok(()))) {
            self.connection = None;
        }
    }

    fn fail(&self, error: StoreError) -> StoreError {
        self.progress.fatal.get_or_init(|| error).clone()
    }
}

/// The first change, and those behind it that fit into a batch with it; and one that does not.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<Job>, Option<Job>) {
    let mut touched: HashSet<RowId> = HashSet::new();
    let (mut jobs, mut bytes, mut next) = (Vec::new(), 0, Some(first));
    while let Some(job) = next {
        let rows: Vec<_> = job.change.writes.iter().flat_map(rows_of).flatten().collect();
        let watched = job.change.writes.iter().filter_map(watched);
        let asks_of_records = job.change.writes.iter().any(|write| matches!(write, Write::Unused(_)));
        if rows.iter().cloned().chain(watched).any(|row| touched.contains(&row))
            || (asks_of_records && touched.iter().any(|row| matches!(row, RowId::Record(_))))
        {
            return (jobs, Some(job));
        }
        touched.extend(rows);
        bytes += size(&job.change);
        jobs.push(job);
        next = if jobs.len() < BATCH_CHANGES && bytes < BATCH_BYTES { queue.try_recv().ok() } else { None };
    }
    (jobs, None)
}

/// About how many bytes a change has.
pub(super) fn size(change: &Change) -> usize {
    const ROW: usize = 200;
    let of_write = |write: &Write| match write {
        Write::Insert(record) | Write::Replace(record) => ROW + record.sealed_len(),
        Write::Remember(answer) => ROW + answer.tokens.len() * 17,
        Write::InsertKey(key) | Write::ReplaceKey(key) => {
            ROW + key.wraps.iter().map(|wrap| wrap.ciphertext.len() + ROW).sum::<usize>()
        }
        Write::PutLease(_)
        | Write::Fence { .. }
        | Write::Active(_)
        | Write::Unused(_)
        | Write::DropEntity { .. }
        | Write::Stands { .. } => ROW,
        Write::PutEntity(entity) => ROW + entity.content.len(),
        Write::PutJob(job) => ROW + job.cause.len(),
    };
    let entries: usize = change.entries.iter().map(bytes::Bytes::len).sum();
    entries + change.writes.iter().map(of_write).sum::<usize>()
}

/// Writes a batch. `plan` is set before anything is sent that may be made durable.
async fn try_once(
    connection: &Connection,
    grip: &Grip,
    changes: &[&Change],
    checked: bool,
    plan: &mut Option<Plan>,
) -> Result<Plan, Stopped> {
    let client = connection.client();
    let present = if checked { lock(client, grip, changes).await? } else { Present::default() };
    let conflicts: Vec<_> = changes.iter().map(|change| present.conflict(change)).collect();
    let conflicts = if checked { conflicts } else { vec![None; changes.len()] };
    let fine = changes.iter().zip(&conflicts).filter(|(_, conflict)| conflict.is_none());
    let batch = Batch::of(fine.map(|(change, _)| *change), &present);
    let mut sequence = grip.size;
    let verdicts = changes.iter().zip(&conflicts).map(|(change, conflict)| {
        if let Some(write) = *conflict {
            return Err(StoreError::Conflict { write });
        }
        let first_sequence = sequence;
        sequence += change.entries.len() as u64;
        Ok(Committed { first_sequence })
    });
    let verdicts: Verdicts = verdicts.collect();
    let writes = conflicts.iter().any(Option::is_none);
    let planned = plan.insert(Plan { verdicts, entries: batch.entries(), writes }).clone();
    if !writes {
        client.batch_execute("ROLLBACK").await.map_err(Failure::from)?;
        return Ok(planned);
    }
    // Those of a batch that was checked are locked already.
    let active = if checked { BTreeSet::new() } else { must_be_active(changes.iter().copied()) };
    let statement = batch.statement(grip, &active);
    let held = if checked {
        let (held, committed) = join(statement.run(client), client.batch_execute("COMMIT")).await;
        let held = held?;
        committed.map_err(Failure::from)?;
        held
    } else {
        statement.run(client).await?
    };
    match held.len() {
        1 => Ok(planned),
        _ if active.is_empty() => Err(Stopped::Fenced),
        _ => Err(Stopped::Unmet),
    }
}

/// Begins a transaction, makes sure of the fence, and reads and locks what the conditions are about.
async fn lock(client: &Client, grip: &Grip, changes: &[&Change]) -> Result<Present, Stopped> {
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

    let (begun, held, records, keys, answers, leases, jobs, entities, used) = join!(
        client.batch_execute(BEGIN),
        held.run(client),
        records.run(client),
        keys.run(client),
        answers.run(client),
        leases.run(client),
        jobs.run(client),
        lock_entities(client, changes),
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
    for row in entities? {
        let entity = rows::entity(&row).map_err(altered)?;
        present.entities.insert(entity.place, entity.revision);
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

/// The entities that conditions are about, all of them in one order. A batch that changes none shares the locks with others
/// of the kind. What is not there can't be locked: if a condition is that it stays so, its place is taken by a row that
/// goes again, which whoever would put one there waits for.
async fn lock_entities(client: &Client, changes: &[&Change]) -> Result<Vec<Row>, Failure> {
    let writes = || changes.iter().flat_map(|change| &change.writes);
    let conditions = || writes().filter_map(entity_condition);
    let places: Vec<_> = conditions().map(|(place, _)| keys::entity(place)).collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let shared = writes().all(|write| !matches!(write, Write::PutEntity(_) | Write::DropEntity { .. }));
    let mode = if shared { "SHARE" } else { "UPDATE" };
    let mut entities = Statement::new(&format!(
        "SELECT {} FROM entities WHERE place = ANY($1) ORDER BY place FOR {mode}",
        rows::ENTITY
    ));
    entities.bind(places, Type::BYTEA_ARRAY);
    if !writes().any(|write| matches!(write, Write::Stands { revision: None, .. })) {
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
