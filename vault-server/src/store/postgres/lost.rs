//! What it means that the row of this instance's log is not as the instance left it, and what follows: somebody else has
//! the log, or the database is not what it was. Either way this instance writes nothing any more.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Connection, Connector};
use super::error::Failure;
use super::log::{Grip, Standing, retire, standing};
use crate::store::StoreError;

/// How long the database may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How soon it is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// How long what must be known is still asked for when the store is being closed.
const CLOSING: Duration = Duration::from_secs(10);

/// Asks for as long as the store is open, and a while longer.
pub(super) struct Patience<'a> {
    closing: &'a CancellationToken,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(closing: &'a CancellationToken) -> Self {
        Self { closing, until: None }
    }

    /// Waits until it may be asked again; `false` if it may not.
    pub(super) async fn again(&mut self) -> bool {
        if self.closing.is_cancelled() {
            let until = *self.until.get_or_insert_with(|| Instant::now() + CLOSING);
            if Instant::now() >= until {
                return false;
            }
        }
        sleep(AGAIN).await;
        true
    }
}

/// The error for good: [`StoreError::Taken`], or [`StoreError::Fatal`] once nobody can go on with the log. Asks until it
/// is told; `None` if the store was closed before.
pub(super) async fn why_lost(
    connector: &Connector,
    grip: &Grip,
    closing: &CancellationToken,
) -> Option<StoreError> {
    let mut patience = Patience::new(closing);
    let stands = loop {
        match ask(connector, async |connection| standing(connection, grip).await).await {
            Ok(stands) => break stands,
            Err(why) => tracing::warn!(why, "it is not known yet who has the log"),
        }
        if !patience.again().await {
            return None;
        }
    };
    match stands {
        Standing::Taken => Some(StoreError::Taken),
        // Nobody else has it: then the database itself is not what it was.
        Standing::Held | Standing::WentBack => Some(went_back(connector, grip, closing).await),
    }
}

/// As after a failover to a server that did not have every commit which was acknowledged: this instance's next process
/// would fork the log. Tries until it can't.
pub(super) async fn went_back(connector: &Connector, grip: &Grip, closing: &CancellationToken) -> StoreError {
    let mut patience = Patience::new(closing);
    while let Err(why) = ask(connector, async |connection| retire(connection, grip).await).await {
        tracing::error!(log = grip.log.0, why, "the log is not what it was, and is not retired yet");
        if !patience.again().await {
            break;
        }
    }
    StoreError::Fatal { why: "the database has lost commits that it had acknowledged".to_owned() }
}

async fn ask<T>(
    connector: &Connector,
    question: impl AsyncFnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, String> {
    let connection = connector.connect().await.map_err(|error| error.to_string())?;
    connection.forget_warnings();
    let told = timeout(ANSWER, question(&connection)).await.map_err(|_| {
        // A primary without its standby looks like one, and commits nothing.
        connector.pass_over();
        "it takes too long".to_owned()
    })?;
    told.map_err(|failure| failure.why().to_owned())
}
