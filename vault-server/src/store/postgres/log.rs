//! The log of an instance: taken by lease, written under a fence.
//!
//! `logs` has a row for each log: how many entries it has, how many commits were made to it, and who may write it
//! under which fence. Every commit changes that row, under the condition that the fence is still the instance's. So
//!
//! * an instance whose log somebody else has taken writes nothing any more, however late its statement arrives;
//! * after a lost connection one statement tells what became of a commit: it raises the fence, which waits for a
//!   commit that is under way and stops one that is still to come, and reads how many commits there are.
//!
//! The database's clock says when a lease has expired. That decides only who may take a log, never what is right.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connect::Connection;
use super::error::Failure;
use super::rows::number;
use super::statement::{Statement, int8};
use crate::domain::InstanceId;
use crate::store::{LogId, StoreError};

/// A log that was taken, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grip {
    pub(super) log: LogId,
    pub(super) holder: InstanceId,
    pub(super) fence: u64,
    pub(super) size: u64,
    pub(super) commits: u64,
    /// How long it is held after a sign of life: a commit is one, too.
    pub(super) lease: Duration,
}

/// Stands for the instance of a log that nobody may write any more. No instance can have this name.
const RETIRED: &str = "/retired";

/// Which logs may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// The instance's own; one that was given back, or whose instance has long been silent; or a new one.
    Any,
    /// The first one that is not retired, if nobody holds it.
    First,
    /// One of these, if nobody holds it.
    These(&'a [LogId]),
}

/// After so many leases without a sign of life an instance is thought to be gone for good. After an outage of the
/// database every lease has ended, and who starts then must not take the log of one that is about to renew its own.
const LONG_SILENT: u32 = 10;

/// How often somebody else may be faster.
const ATTEMPTS: usize = 100;

/// Takes a log; `None` if none is wanted that is there.
pub(super) async fn take(
    connection: &Connection,
    wanted: Wanted<'_>,
    instance: Option<&str>,
    lease: Duration,
) -> Result<Option<Grip>, StoreError> {
    let holder = InstanceId::random()
        .map_err(|_| StoreError::Unavailable { why: "no randomness from the operating system".to_owned() })?;
    let instance = instance.unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let mut logs = Statement::new(
            "SELECT log, fence, instance, expires < now() AS free, \
             expires < now() - $1 * interval '1 microsecond' AS silent FROM logs ORDER BY log",
        );
        logs.bind(micros(lease * LONG_SILENT), Type::FLOAT8);
        let logs = logs.run(connection.client()).await?;
        let mut candidates = Vec::new();
        let mut first = None;
        for row in &logs {
            let is = |column| row.try_get::<_, bool>(column).unwrap_or(false);
            let of: &str = row.try_get("instance").unwrap_or(RETIRED);
            let own = !instance.is_empty() && of == instance;
            if of != RETIRED {
                first.get_or_insert(log_number(row)?);
            }
            let fits = match wanted {
                _ if of == RETIRED => false,
                Wanted::Any => own || is("silent"),
                Wanted::First => first == Some(log_number(row)?) && is("free"),
                Wanted::These(logs) => is("free") && logs.contains(&log_number(row)?),
            };
            if fits {
                candidates.push((!own, log_number(row)?, number(row, "fence")?, is("free")));
            }
        }
        // Its own before others.
        candidates.sort_unstable();
        // Who only brings a log to its end leaves it to the instance whose it is.
        let renamed = (!matches!(wanted, Wanted::These(_))).then_some(instance);
        for (other, log, fence, free) in candidates {
            let held = if other { Held::Refuse } else { Held::Take };
            if let Some(grip) = seize(connection, log, fence, holder, renamed, lease, held).await? {
                if !free {
                    tracing::warn!(
                        log = log.0,
                        "the log of this instance's name was still held: if another process has the name, it ends now"
                    );
                }
                return Ok(Some(grip));
            }
        }
        if matches!(wanted, Wanted::These(_)) || (wanted == Wanted::First && first.is_some()) {
            return Ok(None);
        }
        let new = logs.last().map_or(Ok(0), |row| log_number(row).map(|log| log.0 + 1))?;
        if let Some(grip) = create(connection, LogId(new), holder, instance, lease).await? {
            return Ok(Some(grip));
        }
    }
    Err(StoreError::Unavailable { why: "other instances were faster to take each log".to_owned() })
}

/// What to do about a log that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It is of this instance's name: a restart.
    Take,
    /// It was renewed since it was looked at.
    Refuse,
}

async fn seize(
    connection: &Connection,
    log: LogId,
    fence: u64,
    holder: InstanceId,
    instance: Option<&str>,
    lease: Duration,
    held: Held,
) -> Result<Option<Grip>, StoreError> {
    let mut statement = Statement::new(
        "UPDATE logs SET fence = fence + 1, holder = $3, instance = coalesce($4, instance), \
         expires = now() + $5 * interval '1 microsecond' \
         WHERE log = $1 AND fence = $2 AND ($6 OR expires < now()) RETURNING size, commits",
    );
    statement.bind(int4(log), Type::INT4).bind(int8(fence), Type::INT8);
    statement.bind(holder.as_bytes().to_vec(), Type::BYTEA).bind(instance, Type::TEXT);
    statement.bind(micros(lease), Type::FLOAT8).bind(held == Held::Take, Type::BOOL);
    let rows = durably(connection, &statement).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (size, commits) = (number(row, "size")?, number(row, "commits")?);
    Ok(Some(Grip { log, holder, fence: fence + 1, size, commits, lease }))
}

async fn create(
    connection: &Connection,
    log: LogId,
    holder: InstanceId,
    instance: &str,
    lease: Duration,
) -> Result<Option<Grip>, StoreError> {
    let mut statement = Statement::new(
        "INSERT INTO logs (log, size, commits, records, fence, holder, instance, expires) \
         VALUES ($1, 0, 0, 0, 1, $2, $3, now() + $4 * interval '1 microsecond') \
         ON CONFLICT (log) DO NOTHING RETURNING log",
    );
    statement.bind(int4(log), Type::INT4).bind(holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(instance, Type::TEXT).bind(micros(lease), Type::FLOAT8);
    let made = !durably(connection, &statement).await?.is_empty();
    Ok(made.then_some(Grip { log, holder, fence: 1, size: 0, commits: 0, lease }))
}

/// Runs a statement that takes a log: what it reads of the log, and the fence that it raises, are as durable as a commit.
async fn durably(connection: &Connection, statement: &Statement<'_>) -> Result<Vec<Row>, Failure> {
    connection.forget_warnings();
    let rows = statement.run_or_give_up(connection.client()).await?;
    if connection.has_warned() {
        return Err(Failure::Lost("the database warned about a commit".to_owned()));
    }
    Ok(rows)
}

/// What became of a commit whose connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// So many commits were made; none more will be under the old fence.
    Commits(u64),
    /// The log is not this instance's any more, or not there.
    NotHeld,
}

/// Stops what is still to come under the grip's fence, and reads what came. May be repeated.
pub(super) async fn resolve(connection: &Connection, grip: &mut Grip) -> Result<Resolved, Failure> {
    let next = grip.fence + 1;
    let mut statement = Statement::new(
        "UPDATE logs SET fence = $3, expires = now() + $4 * interval '1 microsecond' \
         WHERE log = $1 AND holder = $2 AND fence <= $3 RETURNING commits",
    );
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(int8(next), Type::INT8).bind(micros(grip.lease), Type::FLOAT8);
    let rows = durably(connection, &statement).await?;
    let Some(row) = rows.first() else { return Ok(Resolved::NotHeld) };
    let commits = number(row, "commits").map_err(|error| Failure::Refused(error.to_string()))?;
    grip.fence = next;
    Ok(Resolved::Commits(commits))
}

/// How a log stands for who had it under a grip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has it still.
    Held,
    /// Somebody else has taken it.
    Taken,
    /// The database is not what it was: fences only grow, and no log is ever removed.
    WentBack,
}

/// Who has the log, by the database's word.
pub(super) async fn standing(connection: &Connection, grip: &Grip) -> Result<Standing, Failure> {
    let mut statement = Statement::new("SELECT fence, holder FROM logs WHERE log = $1");
    statement.bind(int4(grip.log), Type::INT4);
    let rows = statement.run(connection.client()).await?;
    let Some(row) = rows.first() else { return Ok(Standing::WentBack) };
    let fence = number(row, "fence").map_err(|error| Failure::Refused(error.to_string()))?;
    let own = row.try_get::<_, &[u8]>("holder").ok() == Some(grip.holder.as_bytes().as_slice());
    Ok(if own && fence >= grip.fence {
        Standing::Held
    } else if !own && fence > grip.fence {
        Standing::Taken
    } else {
        Standing::WentBack
    })
}

/// Holds the log for another lease; `false` if somebody else has it.
pub(super) async fn renew(connection: &Connection, grip: &Grip) -> Result<bool, Failure> {
    let mut statement = Statement::new(
        "UPDATE logs SET expires = now() + $3 * interval '1 microsecond' \
         WHERE log = $1 AND holder = $2 RETURNING log",
    );
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(micros(grip.lease), Type::FLOAT8);
    Ok(!statement.run_or_give_up(connection.client()).await?.is_empty())
}

/// Gives the log back: another may take it at once.
pub(super) async fn give_back(connection: &Connection, grip: &Grip) -> Result<(), Failure> {
    let mut statement =
        Statement::new("UPDATE logs SET expires = 'epoch' WHERE log = $1 AND holder = $2 RETURNING log");
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.run_or_give_up(connection.client()).await.map(|_| ())
}

/// Nobody writes the log any more, this instance's next process neither: it has lost entries that were signed, and
/// going on would fork it. Nor is its number given to another, if the database has lost the log as a whole.
pub(super) async fn retire(connection: &Connection, grip: &Grip) -> Result<(), Failure> {
    let mut statement = Statement::new(
        "INSERT INTO logs (log, size, commits, records, fence, holder, instance, expires) \
         VALUES ($1, 0, 0, 0, $2 + 1, $3, $4, 'epoch') ON CONFLICT (log) DO UPDATE SET \
         fence = greatest(logs.fence, $2) + 1, expires = 'epoch', instance = excluded.instance \
         WHERE logs.holder = $3 OR logs.fence <= $2 RETURNING log",
    );
    statement.bind(int4(grip.log), Type::INT4).bind(int8(grip.fence), Type::INT8);
    statement.bind(grip.holder.as_bytes().to_vec(), Type::BYTEA).bind(RETIRED, Type::TEXT);
    // It must not be taken back, either.
    durably(connection, &statement).await.map(|_| ())
}

/// All logs in which there is, or will be, something to read.
pub(super) fn all_statement() -> Statement<'static> {
    let mut logs = Statement::new("SELECT log FROM logs WHERE size > 0 OR instance <> $1 ORDER BY log");
    logs.bind(RETIRED, Type::TEXT);
    logs
}

/// A log as it was seen: while it stays so, its instance is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) log: LogId,
    fence: u64,
    commits: u64,
    expires: String,
}

/// Logs whose lease has ended and whose newest checkpoint does not cover them.
pub(super) async fn left_alone(connection: &Connection) -> Result<Vec<Sight>, StoreError> {
    let mut logs = Statement::new(
        "SELECT l.log, l.fence, l.commits, l.expires::text AS expires \
         FROM logs l LEFT JOIN log_heads h ON h.log = l.log \
         WHERE l.expires < now() AND l.instance <> $1 AND l.size > coalesce(h.checkpoint_size, -1) ORDER BY l.log",
    );
    logs.bind(RETIRED, Type::TEXT);
    let rows = logs.run(connection.client()).await?;
    let sight = |row: &Row| {
        Ok(Sight {
            log: log_number(row)?,
            fence: number(row, "fence")?,
            commits: number(row, "commits")?,
            expires: row.try_get("expires").unwrap_or_default(),
        })
    };
    rows.iter().map(sight).collect()
}

/// Raises the fence of every other log that nobody holds: an instance that was silent and wakes writes nothing.
pub(super) async fn fence_others(connection: &Connection, own: &Grip) -> Result<(), Failure> {
    let mut statement = Statement::new(
        "UPDATE logs SET fence = fence + 1, holder = $2 WHERE log <> $1 AND expires < now() RETURNING log",
    );
    statement.bind(int4(own.log), Type::INT4).bind(own.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.run_or_give_up(connection.client()).await.map(|_| ())
}

/// A log's number as a column has it.
pub(super) fn int4(log: LogId) -> i32 {
    i32::try_from(log.0).unwrap_or(i32::MAX)
}

/// The log's number of a row.
pub(super) fn log_number(row: &Row) -> Result<LogId, StoreError> {
    let number: Option<i32> = row.try_get("log").ok();
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.map(LogId).ok_or_else(|| StoreError::Corrupt { what: "a log's number".to_owned() })
}

#[expect(clippy::cast_precision_loss, reason = "a lease is far shorter than 2^53 microseconds")]
pub(super) fn micros(lease: Duration) -> f64 {
    lease.as_micros() as f64
}
