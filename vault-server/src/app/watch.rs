//! What watches over those who may: limits, honeytokens, and the alerts of both.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::alerts::{Delivery, Webhook};
use super::config::Config;
use super::wire::Context;
use crate::access::{Honeytokens, UsageLimits};
use crate::audit::Log;
use crate::domain::{Clock, InstanceId};
use crate::store::{Leases, Store};

/// How often counters of limits are swept whose windows are over.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Which tokens nobody has reason to use, kept at what the store has.
pub(super) async fn honeytokens(
    store: &Arc<dyn Store>,
    context: &Context,
) -> anyhow::Result<Arc<Honeytokens>> {
    let honeytokens = Arc::new(Honeytokens::new(Arc::clone(store)));
    honeytokens.look().await.context("the honeytokens")?;
    tokio::spawn(Arc::clone(&honeytokens).run(context.stopping.clone()));
    Ok(honeytokens)
}

/// How much a principal may use; what is over is swept.
pub(super) fn usage(
    config: &Config,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    context: &Context,
) -> anyhow::Result<Arc<UsageLimits>> {
    let rules = config.usage.rules().map_err(|(option, why)| anyhow::anyhow!("{option}: {why}"))?;
    let usage = Arc::new(UsageLimits::new(Arc::clone(store), Arc::clone(clock), rules));
    let (sweeping, stopping) = (Arc::clone(&usage), context.stopping.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            if let Err(error) = sweeping.sweep().await {
                tracing::warn!(%error, "old counters can't be swept");
            }
        }
    });
    Ok(usage)
}

/// What brings alerts to where they go.
pub(super) fn delivery(
    config: &Config,
    store: &Arc<dyn Store>,
    log: &Arc<Log>,
    clock: &Arc<dyn Clock>,
    context: &Context,
) -> anyhow::Result<Delivery> {
    Ok(Delivery {
        store: Arc::clone(store),
        log: Arc::clone(log),
        clock: Arc::clone(clock),
        leases: Leases::new(Arc::clone(store), Arc::clone(clock), InstanceId::random()?),
        webhook: Webhook::open(&config.alerts).context("[alerts]")?,
        timeout: config.alerts.timeout,
        give_up_after: config.alerts.give_up_after,
        stopping: context.stopping.clone(),
    })
}
