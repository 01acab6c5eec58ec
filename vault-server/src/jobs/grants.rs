//! Ends grants of break-glass whose time is over or whose values were all seen, though nobody looks at them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::LeaseName;
use crate::store::Leases;
use crate::vault::{Refused, Vault};

/// How often grants are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long the work stays with an instance that fell silent.
const LEASE: Duration = Duration::from_secs(15);

/// Ends grants until the process stops. Every instance looks, so that each knows since when a grant is in force, whatever
/// its clock says; one of them writes.
pub async fn end_grants(vault: Arc<Vault>, leases: Leases, stopping: CancellationToken) {
    let name = LeaseName::parse("grants/end").expect("a lease's name");
    loop {
        if let Err(refused) = look(&vault, &leases, &name).await {
            tracing::warn!(problem = refused.problem.cause(), "grants could not all be looked at");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}

async fn look(vault: &Vault, leases: &Leases, name: &LeaseName) -> Result<(), Refused> {
    let due = vault.grants_due().await?;
    if due.is_empty() {
        return Ok(());
    }
    let Some(held) = leases.take(name, LEASE).await? else { return Ok(()) };
    for grant in &due {
        if let Err(refused) = vault.end_due(grant, held.fence()).await {
            // One grant's trouble is not another's.
            tracing::warn!(problem = refused.problem.cause(), "a grant is over, and was not ended");
        }
    }
    // If it was lost, somebody else does it.
    let _ = leases.release(held).await;
    Ok(())
}
