//! Opening a database for a process that must be the only one: what moves a store does not share it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connect::Connector;
use super::database::unavailable;
use super::log::{Wanted, log_number};
use super::open::open_wanting;
use super::options::PostgresOptions;
use super::schema;
use super::statement::Statement;
use crate::domain::VaultIdentity;
use crate::store::{LogId, Store, StoreError};

/// Under this name no instance takes the log for its own: none can have it.
const NAME: &str = "/alone";

/// How often it is looked whether those that were there have gone.
const LOOK: Duration = Duration::from_millis(250);

/// Opens the store of a vault, and takes its first log.
///
/// Waits for one lease, so that the logs of a process that was killed are free by then; [`StoreError::Unavailable`]
/// if one is held after it. Otherwise as [`super::open`].
pub async fn open_alone(
    options: PostgresOptions,
    expected: Option<&VaultIdentity>,
) -> Result<Arc<dyn Store>, StoreError> {
    let until = Instant::now() + options.lease + LOOK * 4;
    loop {
        let held = held_logs(&options).await?;
        let Some(log) = held.first() else { break };
        if Instant::now() >= until {
            return Err(StoreError::Unavailable {
                why: format!("an instance is at work: it holds log {log}"),
            });
        }
        sleep(LOOK).await;
    }
    let options = PostgresOptions { instance: Some(NAME.to_owned()), ..options };
    open_wanting(options, expected, Wanted::First).await
}

/// The logs that are held now, in ascending order.
pub async fn held_logs(options: &PostgresOptions) -> Result<Vec<LogId>, StoreError> {
    let connection = Connector::new(options.clone()).connect().await.map_err(|error| unavailable(&error))?;
    if !schema::is_there(&connection).await? {
        return Ok(Vec::new());
    }
    let held = Statement::new("SELECT log FROM logs WHERE expires >= now() ORDER BY log");
    held.run(connection.client()).await?.iter().map(log_number).collect()
}
