//! Sees to it that every entry comes under a checkpoint, that of an instance which crashed before it signed one, too.
//!
//! What an instance wrote last is durable, but nobody follows its log any more. Every other instance looks for such
//! a log now and then ([`Store::adopt`]), follows it to its end, and gives it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::follower::{Follower, FollowerError, FollowerOptions, FreshError};
use super::origin::origin;
use super::signing::SigningSource;
use crate::domain::{Clock, VaultIdentity};
use crate::store::{Store, StoreError};

/// How often logs to take are looked for.
const EVERY: Duration = Duration::from_secs(5);
/// How long the way to a log's end may take at once. What was done of it stays done.
const SETTLE: Duration = Duration::from_mins(1);
/// How long the follower of a log may take to end.
const STOP: Duration = Duration::from_secs(5);

/// Why a log could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log is not what was signed.
    #[error("the log is not what was signed: {0}")]
    Follower(#[from] FollowerError),
    /// Its last entries are not under a checkpoint yet.
    #[error(transparent)]
    Fresh(#[from] FreshError),
}

/// Takes logs of instances that fell silent. Nothing that goes wrong there is a reason to stop serving.
pub struct Adopter {
    store: Arc<dyn Store>,
    identity: VaultIdentity,
    signing: Arc<dyn SigningSource>,
    clock: Arc<dyn Clock>,
    options: FollowerOptions,
}

impl Adopter {
    /// With the vault's keys.
    pub fn new(
        store: Arc<dyn Store>,
        identity: VaultIdentity,
        signing: Arc<dyn SigningSource>,
        clock: Arc<dyn Clock>,
        options: FollowerOptions,
    ) -> Self {
        Self { store, identity, signing, clock, options }
    }

    /// Looks for logs to take, again and again, until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.round(&stopping).await {
                tracing::warn!(%error, "logs of other instances could not be looked for");
            }
        }
    }

    /// Takes all logs that there are to take, one after the other. One that can't be brought to its end is given
    /// back only after the others had their turn: it would be the next that is taken.
    async fn round(&self, stopping: &CancellationToken) -> Result<(), StoreError> {
        let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
        let mut ended = Ok(());
        while !stopping.is_cancelled() {
            let taken = match self.store.adopt().await {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(error) => {
                    ended = Err(error);
                    break;
                }
            };
            let log = taken.log();
            match self.settle(&taken, stopping).await {
                Ok(()) => give_back(&*taken).await,
                Err(error) => {
                    tracing::error!(%log, %error, "the log of a crashed instance could not be brought to its end");
                    kept.push(taken);
                }
            }
            if !seen.insert(log) {
                break;
            }
        }
        for taken in kept {
            give_back(&*taken).await;
        }
        ended
    }

    /// Follows a log until all its entries are under a checkpoint, or until `stopping`.
    async fn settle(&self, taken: &Arc<dyn Store>, stopping: &CancellationToken) -> Result<(), AdoptError> {
        let log = taken.log();
        let (signing, clock) = (Arc::clone(&self.signing), Arc::clone(&self.clock));
        let origin = origin(&self.identity, log);
        let follower = Follower::start(Arc::clone(taken), signing, &origin, clock, self.options).await?;
        let fresh = tokio::select! {
            fresh = follower.fresh_checkpoint(SETTLE) => fresh.map(Some),
            () = stopping.cancelled() => Ok(None),
        };
        follower.stop(STOP).await;
        if fresh?.is_some() {
            let entries = follower.covered();
            tracing::info!(%log, entries, "the log of a crashed instance ends under a checkpoint");
        }
        Ok(())
    }
}

/// The lease of what can't be given back ends by itself.
async fn give_back(taken: &dyn Store) {
    if let Err(error) = taken.close().await {
        tracing::warn!(log = %taken.log(), %error, "the log of a crashed instance could not be given back");
    }
}

#[cfg(test)]
#[path = "adopter_tests.rs"]
mod tests;
