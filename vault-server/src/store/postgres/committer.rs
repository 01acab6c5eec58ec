//! The one task that writes. It takes whatever changes wait, puts them into one commit, and answers all of them when
//! the database has made it durable. While it waits, the next batch gathers.
//!
//! * Changes that only insert go as one statement in one round trip: the database refuses a row that is there, and the
//!   statement writes nothing if a key that must be active is not. Then, and for all other changes, the rows that the
//!   conditions are about are locked and read first.
//! * Changes that change the same row do not share a batch; nor does one whose condition is about a row with one before
//!   it that changes that row. One that must have a key's row alone shares none at all, and says that it waits
//!   for the key ([`super::turn`]).
//! * When the connection is lost, nothing is answered before the database has said what became of the commit
//!   ([`super::log::resolve`]). If it was made, it is acknowledged; if not, it is made again under the new fence.
//! * An instance whose log was taken by another writes nothing any more: that is fatal.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::join;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Present, claimed, inserts_only, must_be_active};
use super::connect::Connection;
use super::database::Database;
use super::error::Failure;
use super::gather::{Job, gather};
use super::locks::lock;
use super::log::{Grip, Resolved, give_back, resolve};
use super::lost::{AGAIN, Patience, went_back, why_lost};
use super::turn::{LOOK, TURN, announce, withdraw};
use crate::domain::KeyId;
use crate::store::entry_seals::Sealing;
use crate::store::{Change, Committed, StoreError};

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
    /// Batches that were written, or of which it is known that nothing was to be.
    pub(super) written: AtomicU64,
    /// Batches that were tried again after a serialization failure.
    pub(super) repeated: AtomicU64,
    /// Why there is no writing any more.
    pub(super) fatal: OnceLock<StoreError>,
}

impl Progress {
    /// The grip with the fence that is in force.
    pub(super) fn grip(&self, begun: &Grip) -> Grip {
        Grip { fence: self.fence.load(Ordering::SeqCst), ..begun.clone() }
    }

    pub(super) fn fatal(&self) -> Option<StoreError> {
        self.fatal.get().cloned()
    }
}

/// How long the database may take for a statement before the connection is given up.
const STATEMENT: Duration = Duration::from_secs(10);

/// And how much longer for each row that it writes.
const WRITE: Duration = Duration::from_micros(500);

/// How often a batch is tried again because of others.
const ATTEMPTS: u32 = 20;

/// How long changes wait while there is no database, before they are refused.
const NO_DATABASE: Duration = Duration::from_secs(5);

pub(super) struct Committer {
    database: Arc<Database>,
    connection: Option<Connection>,
    grip: Grip,
    progress: Arc<Progress>,
    closing: CancellationToken,
    /// Why nothing more is tried.
    given_up: Option<StoreError>,
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
pub(super) enum Stopped {
    Failed(Failure),
    /// The fence is not in force any more.
    Fenced,
    /// Nothing was written: a key is not active or awaited, or the fence is not in force. Who looks at the rows can tell.
    Unmet,
    /// Nothing was written: a change waits for one of the keys.
    Awaited,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Committer {
    pub(super) fn new(
        database: Arc<Database>,
        connection: Connection,
        grip: Grip,
        progress: Arc<Progress>,
        closing: CancellationToken,
    ) -> Self {
        progress.size.store(grip.size, Ordering::SeqCst);
        progress.fence.store(grip.fence, Ordering::SeqCst);
        Self { database, connection: Some(connection), grip, progress, closing, given_up: None }
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
        let outcome = match self.progress.fatal().or_else(|| self.given_up.clone()) {
            Some(error) => Err(error),
            None => self.commit(&jobs).await,
        };
        match outcome {
            Ok(verdicts) => {
                if !jobs.is_empty() {
                    self.progress.written.fetch_add(1, Ordering::SeqCst);
                }
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
        let claims = changes.iter().flat_map(|change| claimed(change)).collect();
        let settled = self.settle(&changes, &claims).await;
        let made = matches!(&settled, Ok(verdicts) if verdicts.iter().all(Result::is_ok));
        if !made && !claims.is_empty() {
            self.withdraw(&claims).await;
        }
        settled
    }

    /// Tries until it is known what came of it. Who claims keys has only so much time for it.
    async fn settle(
        &mut self,
        changes: &[&Change],
        claims: &BTreeSet<KeyId>,
    ) -> Result<Verdicts, StoreError> {
        let until = Instant::now() + TURN;
        let rows: usize = changes.iter().map(|change| change.writes.len() + change.entries.len()).sum();
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let mut checked = !changes.iter().all(|change| inserts_only(change));
        let mut attempt = 0;
        loop {
            let grip = self.grip.clone();
            let database = Arc::clone(&self.database);
            let connection = self.connection().await?;
            let mut plan = None;
            connection.forget_warnings();
            let tried = try_once(connection, &database.sealing, &grip, changes, claims, checked, &mut plan);
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
                Ok(Err(Stopped::Awaited)) => {
                    checked = true;
                    sleep(LOOK).await;
                    continue;
                }
                Ok(Err(Stopped::Failed(failure))) => failure,
            };
            attempt += 1;
            match failure {
                Failure::Duplicate if attempt < ATTEMPTS => {
                    self.roll_back(checked).await;
                    checked = true;
                }
                Failure::Again(_) if attempt < ATTEMPTS && (claims.is_empty() || Instant::now() < until) => {
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
                    // Something ends the connection at this very batch each time; others wait behind it.
                    if attempt >= ATTEMPTS {
                        return Err(Failure::Lost(why).into());
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
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            // Others may be to the same server, which may not be the one that takes writes any more.
            self.database.connector.renew_connections();
        }
        loop {
            let usable = |connection: &Connection| {
                !connection.is_closed() && self.database.connector.is_current(connection)
            };
            // Taken out and put back: a borrow can't leave the loop on one way only.
            if let Some(connection) = self.connection.take().filter(usable) {
                return Ok(self.connection.insert(connection));
            }
            match self.database.connector.connect().await {
                Ok(connection) => return Ok(self.connection.insert(connection)),
                Err(error) if Instant::now() >= until => {
                    return Err(StoreError::Unavailable { why: format!("database: {error}") });
                }
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    /// Whether the commit whose connection was lost was made. Asks until it is told, or the store is closed.
    async fn find_out(&mut self) -> Result<bool, StoreError> {
        // Others may have the lost server still.
        self.database.connector.renew_connections();
        let closing = self.closing.clone();
        let mut patience = Patience::new(&closing);
        loop {
            match self.ask().await {
                Ok(Resolved::Commits(commits)) => {
                    let made = match commits.checked_sub(self.grip.commits) {
                        Some(0) => false,
                        Some(1) => true,
                        _ => {
                            let error = went_back(&self.database.connector, &self.grip, &self.closing).await;
                            return Err(self.fail(error));
                        }
                    };
                    self.progress.fence.store(self.grip.fence, Ordering::SeqCst);
                    let counter =
                        if made { &self.progress.resolved_made } else { &self.progress.resolved_not_made };
                    counter.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(made, "it is known what became of the commit");
                    return Ok(made);
                }
                Ok(Resolved::NotHeld) => return Err(self.fenced().await),
                Err(why) => tracing::warn!(why, "it is not known yet what became of a commit"),
            }
            if !patience.again().await {
                return Err(self.give_up("it is not known whether it was written"));
            }
        }
    }

    /// Why the log's row is not as this instance left it.
    async fn fenced(&mut self) -> StoreError {
        match why_lost(&self.database.connector, &self.grip, &self.closing).await {
            Some(error) => self.fail(error),
            None => self.give_up("it is not known who has the log"),
        }
    }

    /// The store is being closed, and what became of a commit is not known: another one would be made on top of it.
    fn give_up(&mut self, why: &str) -> StoreError {
        let error = StoreError::Unavailable { why: why.to_owned() };
        self.given_up.insert(error).clone()
    }

    async fn ask(&mut self) -> Result<Resolved, String> {
        let connection = self.database.connector.connect().await.map_err(|error| error.to_string())?;
        connection.forget_warnings();
        let told = timeout(STATEMENT, resolve(&connection, &mut self.grip)).await;
        let told = told.map_err(|_| {
            // A primary without its standby looks like one, and commits nothing.
            self.database.connector.pass_over();
            "it takes too long".to_owned()
        })?;
        let told = told.map_err(|failure| failure.why().to_owned())?;
        self.connection = Some(connection);
        Ok(told)
    }

    /// Others need not keep off these keys any more. If they are not told, they do until the note's time is over.
    async fn withdraw(&self, claims: &BTreeSet<KeyId>) {
        let Some(connection) = &self.connection else { return };
        let gone = withdraw(claims);
        if !matches!(timeout(TURN, gone.run(connection.client())).await, Ok(Ok(_))) {
            tracing::debug!("a note that a change waits for a key was left behind");
        }
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

/// Writes a batch. `plan` is set before anything is sent that may be made durable.
async fn try_once(
    connection: &Connection,
    sealing: &Sealing,
    grip: &Grip,
    changes: &[&Change],
    claims: &BTreeSet<KeyId>,
    checked: bool,
    plan: &mut Option<Plan>,
) -> Result<Plan, Stopped> {
    let client = connection.client();
    if !claims.is_empty() {
        announce(client, claims).await?;
    }
    let present = if checked { lock(client, grip, changes).await? } else { Present::default() };
    let allowed = |change: &&Change| if checked { present.allows(change) } else { Ok(()) };
    let allowed: Vec<_> = changes.iter().map(allowed).collect();
    let fine = changes.iter().zip(&allowed).filter(|(_, allowed)| allowed.is_ok());
    let batch = Batch::of(fine.map(|(change, _)| *change), &present);
    let mut sequence = grip.size;
    let writes = allowed.iter().any(Result::is_ok);
    let verdicts = changes.iter().zip(allowed).map(|(change, allowed)| {
        allowed?;
        let first_sequence = sequence;
        sequence += change.entries.len() as u64;
        Ok(Committed { first_sequence })
    });
    let verdicts: Verdicts = verdicts.collect();
    let planned = plan.insert(Plan { verdicts, entries: batch.entries(), writes }).clone();
    if !writes {
        client.batch_execute("ROLLBACK").await.map_err(Failure::from)?;
        return Ok(planned);
    }
    // Those of a batch that was checked are locked already.
    let active = if checked { BTreeSet::new() } else { must_be_active(changes.iter().copied()) };
    let statement = batch.statement(grip, &active, sealing);
    let held = if checked {
        let gone =
            async { if claims.is_empty() { Ok(Vec::new()) } else { withdraw(claims).run(client).await } };
        let (held, gone, committed) = join!(statement.run(client), gone, client.batch_execute("COMMIT"));
        let held = held?;
        gone?;
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
