//! The log: written from the vault's start to its end, followed, signed, and watched.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::Context;
use crate::app::config::Config;
use crate::app::metrics::Metrics;
use crate::app::shutdown::Fatality;
use crate::audit::{
    self, Adopter, AuditAction, Draft, Follower, FollowerHandle, FollowerOptions, Log, LogOptions, Recent,
    SigningSource, VaultSigning,
};
use crate::domain::{Clock, RequestId};
use crate::keyring::Keyring;
use crate::store::{Store, StoreError};

/// How many changes the store may be busy with.
const CHANGES_IN_FLIGHT: usize = 16 * 1024;

/// The log, who follows it, and who brings the logs of crashed instances to their end.
pub(super) struct Journal {
    pub log: Arc<Log>,
    pub follower: Arc<FollowerHandle>,
    pub adopter: Adopter,
}

/// Opens this instance's log, and begins to follow it.
pub(super) async fn open(
    config: &Config,
    store: &Arc<dyn Store>,
    keyring: &Arc<Keyring>,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Journal> {
    let recent = Arc::<Recent>::default();
    let log = Log::new(
        Arc::clone(store),
        Arc::clone(clock),
        LogOptions { deadline: config.audit.deadline, max_in_flight: CHANGES_IN_FLIGHT },
    );
    let durations = metrics.log_commit.clone();
    let log = log.observed(move |time| durations.observe(time.as_secs_f64()));
    let log = Arc::new(log.beside(Arc::clone(&recent)));
    let (follower, adopter) = follow(config, store, recent, keyring, clock).await?;
    Ok(Journal { log, follower: Arc::new(follower), adopter })
}

/// Begins to follow this instance's log; who brings the logs of crashed ones to their end has the same key.
async fn follow(
    config: &Config,
    store: &Arc<dyn Store>,
    recent: Arc<Recent>,
    keyring: &Arc<Keyring>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(FollowerHandle, Adopter)> {
    let identity = config.identity();
    let origin = audit::origin(&identity, store.log());
    let overlap = config.keys.signing_overlap;
    let signing: Arc<dyn SigningSource> =
        Arc::new(VaultSigning::new(Arc::clone(keyring), &identity, Arc::clone(clock), overlap));
    drop(signing.now().await.context("the log's signing key")?);
    let options = FollowerOptions { checkpoint_every: config.audit.checkpoint_every };
    let adopter = Adopter::new(Arc::clone(store), identity, Arc::clone(&signing), Arc::clone(clock), options);
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    let follower = Follower::start_beside(store, recent, signing, &origin, clock, options).await;
    Ok((follower.context("the audit log is not what was signed")?, adopter))
}

/// Says in the log that the vault starts, and with what.
pub(super) async fn begin(
    config: &Config,
    log: &Log,
    store: &Arc<dyn Store>,
    wrapping_keys: String,
) -> anyhow::Result<()> {
    let details = begun(config, store, wrapping_keys);
    log.record(own(AuditAction::Start, details)?, Vec::new()).await.context("the log's first entry")?;
    Ok(())
}

/// What the log says of a start.
fn begun(config: &Config, store: &Arc<dyn Store>, wrapping_keys: String) -> Vec<(&'static str, String)> {
    let mut details = vec![
        ("engine", store.engine().to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("wrapping_keys", wrapping_keys),
    ];
    if !config.access.second_person_for_roles {
        tracing::warn!("one admin alone can give anybody any role: access.second_person_for_roles = false");
        details.push(("second_person_for_roles", "false".to_owned()));
    }
    if config.audit.sign_unsealed_entries {
        tracing::warn!(
            "log entries without a seal are signed, whoever wrote them: audit.sign_unsealed_entries = true"
        );
        details.push(("sign_unsealed_entries", "true".to_owned()));
    }
    if !config.second_factor.for_approvals {
        tracing::warn!(
            "destructions and changes of who may are approved without a touch: second_factor.for_approvals = false"
        );
        details.push(("second_factor_for_approvals", "false".to_owned()));
    }
    details
}

/// An entry of the vault itself.
pub(super) fn own(action: AuditAction, details: Vec<(&'static str, String)>) -> anyhow::Result<Draft> {
    let request = RequestId::random().context("no randomness from the operating system")?;
    Ok(Draft { details, ..Draft::of_vault(request, action) })
}

/// Once the log has failed, nothing can be promised any more. An idle instance learns so, too.
pub(super) async fn watch(log: Arc<Log>, store: Arc<dyn Store>, context: Context) {
    const LOOK: Duration = Duration::from_secs(1);
    let gone = async {
        loop {
            match store.log_size(store.log()).await {
                Err(StoreError::Taken) => return Fatality::LogTaken,
                Err(StoreError::Fatal { why }) => return Fatality::StoreFailed(why),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::select! {
        () = context.stopping.cancelled() => {}
        fatality = gone => context.fatal.trip(fatality),
        () = log.failure().cancelled_owned() => context.fatal.trip(if log.is_taken() {
            Fatality::LogTaken
        } else {
            Fatality::StoreFailed("a commit could not be made durable".to_owned())
        }),
    }
}
