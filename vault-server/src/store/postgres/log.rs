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
}

/// Which logs may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The instance's own, one that nobody holds, or a new one.
    Any,
    /// The first one, if nobody holds it.
    First,
    /// One that nobody holds and whose newest checkpoint does not cover it.
    Orphan,
}

/// How often somebody else may be faster.
const ATTEMPTS: usize = 100;

/// Takes a log; `None` if none is wanted that is there.
pub(super) async fn take(
    connection: &Connection,
    wanted: Wanted,
    instance: Option<&str>,
    lease: Duration,
) -> Result<Option<Grip>, StoreError> {
    let holder = InstanceId::random()
        .map_err(|_| StoreError::Unavailable { why: "no randomness from the operating system".to_owned() })?;
    let instance = instance.unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let logs = Statement::new(
            "SELECT l.log, l.fence, l.instance, l.expires < now() AS free, \
             l.size > coalesce(h.checkpoint_size, -1) AS uncovered \
             FROM logs l LEFT JOIN log_heads h ON h.log = l.log ORDER BY l.log",
        );
        let logs = logs.run(connection.client()).await?;
        let mut candidates = Vec::new();
        for row in &logs {
            let is = |column| row.try_get::<_, bool>(column).unwrap_or(false);
            let own = !instance.is_empty() && row.try_get("instance").ok() == Some(instance);
            let fits = match wanted {
                Wanted::Any => own || is("free"),
                Wanted::First => row.try_get("log").ok() == Some(0_i32) && is("free"),
                Wanted::Orphan => is("free") && is("uncovered"),
            };
            if fits {
                candidates.push((!own, log_number(row)?, number(row, "fence")?, is("free")));
            }
        }
        // Its own before others.
        candidates.sort_unstable();
        // Who only brings a log to its end leaves it to the instance whose it is.
        let renamed = (wanted == Wanted::Any).then_some(instance);
        for (_, log, fence, free) in candidates {
            if let Some(grip) = seize(connection, log, fence, holder, renamed, lease).await? {
                if !free {
                    tracing::warn!(
                        log = log.0,
                        "the log of this instance's name was still held: if another process has the name, it ends now"
                    );
                }
                return Ok(Some(grip));
            }
        }
        if wanted == Wanted::Orphan || (wanted == Wanted::First && !logs.is_empty()) {
            return Ok(None);
        }
        let new = logs.last().map_or(Ok(0), |row| log_number(row).map(|log| log.0 + 1))?;
        if let Some(grip) = create(connection, LogId(new), holder, instance, lease).await? {
            return Ok(Some(grip));
        }
    }
    Err(StoreError::Unavailable { why: "other instances were faster to take each log".to_owned() })
}

async fn seize(
    connection: &Connection,
    log: LogId,
    fence: u64,
    holder: InstanceId,
    instance: Option<&str>,
    lease: Duration,
) -> Result<Option<Grip>, StoreError> {
    let mut statement = Statement::new(
        "UPDATE logs SET fence = fence + 1, holder = $3, instance = coalesce($4, instance), \
         expires = now() + $5 * interval '1 microsecond' \
         WHERE log = $1 AND fence = $2 RETURNING size, commits",
    );
    statement.bind(int4(log), Type::INT4).bind(int8(fence), Type::INT8);
    statement.bind(holder.as_bytes().to_vec(), Type::BYTEA).bind(instance, Type::TEXT);
    statement.bind(micros(lease), Type::FLOAT8);
    let rows = statement.run(connection.client()).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (size, commits) = (number(row, "size")?, number(row, "commits")?);
    Ok(Some(Grip { log, holder, fence: fence + 1, size, commits }))
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
    let made = !statement.run(connection.client()).await?.is_empty();
    Ok(made.then_some(Grip { log, holder, fence: 1, size: 0, commits: 0 }))
}

/// What became of a commit whose connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// So many commits were made; none more will be under the old fence.
    Commits(u64),
    /// Somebody else has the log.
    Taken,
}

/// Stops what is still to come under the grip's fence, and reads what came. May be repeated.
pub(super) async fn resolve(connection: &Connection, grip: &mut Grip) -> Result<Resolved, Failure> {
    let next = grip.fence + 1;
    let mut statement = Statement::new(
        "UPDATE logs SET fence = $3 WHERE log = $1 AND holder = $2 AND fence <= $3 RETURNING commits",
    );
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(int8(next), Type::INT8);
    let rows = statement.run(connection.client()).await?;
    let Some(row) = rows.first() else { return Ok(Resolved::Taken) };
    let commits = number(row, "commits").map_err(|error| Failure::Refused(error.to_string()))?;
    // A warning here says that this statement, too, is not replicated as it should be.
    if connection.has_warned() {
        return Err(Failure::Lost("the database warned about a commit".to_owned()));
    }
    grip.fence = next;
    Ok(Resolved::Commits(commits))
}

/// Whether the log is still held under the grip's fence.
pub(super) async fn holds(connection: &Connection, grip: &Grip) -> Result<bool, Failure> {
    let mut statement = Statement::new("SELECT log FROM logs WHERE log = $1 AND holder = $2 AND fence = $3");
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(int8(grip.fence), Type::INT8);
    Ok(!statement.run(connection.client()).await?.is_empty())
}

/// Holds the log for another lease; `false` if somebody else has it. A lease of nothing gives it back.
pub(super) async fn renew(connection: &Connection, grip: &Grip, lease: Duration) -> Result<bool, Failure> {
    let mut statement = Statement::new(
        "UPDATE logs SET expires = now() + $3 * interval '1 microsecond' \
         WHERE log = $1 AND holder = $2 RETURNING log",
    );
    // Just before now, so that it has expired by then.
    let micros = if lease.is_zero() { -1.0 } else { micros(lease) };
    statement.bind(int4(grip.log), Type::INT4).bind(grip.holder.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(micros, Type::FLOAT8);
    Ok(!statement.run(connection.client()).await?.is_empty())
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
fn micros(lease: Duration) -> f64 {
    lease.as_micros() as f64
}
