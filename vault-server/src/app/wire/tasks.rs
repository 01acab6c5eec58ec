//! What goes on beside the requests, until the vault stops; and how it ends then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::audit::own;
use super::{Context, Ground, rules};
use crate::app::config::Config;
use crate::app::watch;
use crate::audit::{AuditAction, FollowerHandle, Log};
use crate::domain::{Clock, InstanceId};
use crate::jobs::{self, Tally, Workers};
use crate::store::{Leases, Store};
use crate::vault::Vault;

/// How long the log's last checkpoint may take when the vault stops.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);
/// How long jobs may take to be laid down when the vault stops.
const LAST_STEP: Duration = Duration::from_secs(5);
/// How often expired idempotency keys are forgotten, and how many at once.
const FORGET_EVERY: Duration = Duration::from_mins(1);
const FORGET_AT_ONCE: usize = 10_000;

/// Work on keys: jobs, as people asked for them, and rotations that are due. And alerts go where they go to.
pub(super) async fn begin(
    config: &Config,
    context: &Context,
    ground: &Ground,
    vault: &Arc<Vault>,
    tally: &Arc<Tally>,
) -> anyhow::Result<JoinHandle<()>> {
    let Ground { store, log, clock, .. } = ground;
    let workers = Workers::new(jobs::Parts {
        identity: vault.identity().clone(),
        classes: Arc::clone(&ground.classes),
        store: Arc::clone(store),
        keyring: Arc::clone(&ground.keyring),
        log: Arc::clone(log),
        clock: Arc::clone(clock),
        leases: leases(ground)?,
        tally: Arc::clone(tally),
        options: rules::workers(config),
        stopping: context.stopping.clone(),
    });
    tokio::spawn(watch::delivery(config, store, log, clock, context)?.run());
    let (scheduler, stopping) = (Arc::clone(vault), context.stopping.clone());
    tokio::spawn(rules::schedule(config).run(scheduler, Arc::clone(store), Arc::clone(clock), stopping));
    workers.announce().await.context("what this instance says of its KMS keys")?;
    let workers = tokio::spawn(workers.run());
    tokio::spawn(jobs::end_grants(Arc::clone(vault), leases(ground)?, context.stopping.clone()));
    Ok(workers)
}

/// Takes leases for this process.
fn leases(ground: &Ground) -> anyhow::Result<Leases> {
    Ok(Leases::new(Arc::clone(&ground.store), Arc::clone(&ground.clock), InstanceId::random()?))
}

/// What is over is taken away.
pub(super) fn tidy(context: &Context, ground: &Ground, vault: &Arc<Vault>) {
    let (store, clock) = (Arc::clone(&ground.store), Arc::clone(&ground.clock));
    tokio::spawn(forget(store, clock, context.stopping.clone()));
    tokio::spawn(sweep(Arc::clone(vault), context.stopping.clone()));
}

/// Forgets idempotency keys whose time is over.
async fn forget(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        while let Ok(FORGET_AT_ONCE) = store.forget(clock.now(), FORGET_AT_ONCE).await {}
    }
}

/// Sweeps away what people began and did not end.
async fn sweep(vault: Arc<Vault>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        if let Err(refused) = vault.sweep_challenges().await {
            tracing::warn!(cause = refused.problem.cause(), "stale challenges were not swept away");
        }
        if let Err(refused) = vault.sweep_principal_changes().await {
            tracing::warn!(
                cause = refused.problem.cause(),
                "changes that nobody approved were not swept away"
            );
        }
    }
}

/// Lays jobs down, and ends log and store.
pub(super) async fn close(
    workers: JoinHandle<()>,
    log: Arc<Log>,
    follower: Arc<FollowerHandle>,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    // A step that hangs in the KMS writes nothing without its lease.
    let _ = tokio::time::timeout(LAST_STEP, workers).await;
    if !log.is_failed() {
        log.record(own(AuditAction::Stop, Vec::new())?, Vec::new()).await.context("the log's last entry")?;
    }
    follower.stop(LAST_CHECKPOINT).await;
    Ok(store.close().await?)
}
