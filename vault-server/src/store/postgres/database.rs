//! What the logs of a process share: connections for reads, and which logs are whose.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;

use super::connect::{ConnectError, Connector, Manager};
use super::error::Failure;
use super::log::Sight;
use super::statement::Statement;
use crate::store::entry_seals::Sealing;
use crate::store::{LogId, StoreError};

/// How long a read may take, with the wait for a connection and another attempt.
pub(super) const READ: Duration = Duration::from_secs(5);
/// A deadline that was noticed so late was not the database's to keep.
const STOOD_STILL: Duration = Duration::from_millis(500);

/// What all logs of a process share.
pub(super) struct Database {
    pub(super) connector: Arc<Connector>,
    pub(super) pool: Pool<Manager>,
    /// The logs that this process writes.
    pub(super) own: Mutex<BTreeSet<LogId>>,
    /// What seals entries.
    pub(super) sealing: Sealing,
    /// Logs of others that nobody holds, and since when they have been as they are.
    pub(super) silent: Mutex<Vec<(Sight, Instant)>>,
}

/// How a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// In one round trip.
    AsItIs,
    /// The same, a statement that says [`DURABLY`](super::statement::DURABLY): a warning means that it is not.
    Durably,
    /// So that all it reads is as durable as a commit, and with an end to its wait for a lock.
    LikeACommit,
}

/// Why a statement gave nothing.
enum Unanswered {
    NotAsked(StoreError),
    Failed(Failure),
}

impl From<Unanswered> for StoreError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotAsked(error) => error,
            Unanswered::Failed(failure) => failure.into(),
        }
    }
}

impl Database {
    /// Logs of others that have been left alone for a whole lease, by this process's own clock and with the database
    /// there all the time: after an outage every lease has ended, and its holder is about to renew it.
    pub(super) fn given_up(&self, sights: Result<Vec<Sight>, StoreError>) -> Result<Vec<LogId>, StoreError> {
        let mut silent = self.silent.lock();
        let before = std::mem::take(&mut *silent);
        let own = self.own.lock();
        for sight in sights?.into_iter().filter(|sight| !own.contains(&sight.log)) {
            let since =
                before.iter().find(|(seen, _)| *seen == sight).map_or_else(Instant::now, |(_, since)| *since);
            silent.push((sight, since));
        }
        let lease = self.connector.options().lease;
        Ok(silent.iter().filter(|(_, since)| since.elapsed() >= lease).map(|(sight, _)| sight.log).collect())
    }

    pub(super) async fn query(&self, statement: &Statement<'_>) -> Result<Vec<Row>, StoreError> {
        self.query_as(statement, How::AsItIs).await
    }

    /// Runs a statement that inserts rows, and says [`DURABLY`](super::statement::DURABLY). `None`: one of them is there
    /// already, and nothing was written.
    pub(super) async fn insert(&self, statement: &Statement<'_>) -> Result<Option<Vec<Row>>, StoreError> {
        match self.attempt(statement, How::Durably).await {
            Err(Unanswered::Failed(Failure::Duplicate)) => Ok(None),
            answered => Ok(Some(answered?)),
        }
    }

    /// Runs a statement that may be repeated: on another connection if the first is lost and there is time.
    pub(super) async fn query_as(&self, statement: &Statement<'_>, how: How) -> Result<Vec<Row>, StoreError> {
        Ok(self.attempt(statement, how).await?)
    }

    async fn attempt(&self, statement: &Statement<'_>, how: How) -> Result<Vec<Row>, Unanswered> {
        let (mut last, mut until) = (None, Instant::now() + READ);
        for _ in 0..2 {
            if Instant::now() >= until + STOOD_STILL {
                // Not the database was late, but this process's clock: it was stopped, or its machine was.
                until = Instant::now() + READ;
            }
            let connection = match timeout_at(until, self.pool.get()).await {
                Ok(Ok(connection)) => connection,
                Err(_) | Ok(Err(PoolError::Timeout(_))) => continue,
                Ok(Err(error)) => return Err(Unanswered::NotAsked(pool_error(&error))),
            };
            connection.forget_warnings();
            let ran = match how {
                How::AsItIs | How::Durably => timeout_at(until, statement.run(connection.client())).await,
                How::LikeACommit => timeout_at(until, statement.run_or_give_up(connection.client())).await,
            };
            let failure = match ran {
                Ok(Ok(_)) if how != How::AsItIs && connection.has_warned() => {
                    Failure::Lost("the database warned about a commit".to_owned())
                }
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Lost("it does not answer".to_owned()),
            };
            match failure {
                // It is closed, and the pool makes another.
                Failure::Lost(_) => drop(Object::take(connection)),
                Failure::Again(_) => {}
                Failure::Refused(_) | Failure::Duplicate => return Err(Unanswered::Failed(failure)),
            }
            last = Some(failure);
        }
        let no_connection = || Unanswered::NotAsked(unavailable(&"no connection in time"));
        Err(last.map_or_else(no_connection, Unanswered::Failed))
    }
}

pub(super) fn unavailable(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable { why: format!("database: {error}") }
}

fn pool_error(error: &PoolError<ConnectError>) -> StoreError {
    match error {
        PoolError::Backend(error) => unavailable(error),
        _ => unavailable(&"no connection in time"),
    }
}
