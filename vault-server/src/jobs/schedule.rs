//! Rotates keys that are due by age or by use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, KeyId, KeyPurpose, KeyRecord, KeyState};
use crate::store::Store;
use crate::vault::{Refused, Vault};

/// How often keys are looked at.
const EVERY: Duration = Duration::from_mins(10);
/// Keys that are looked at at once.
const PAGE: usize = 256;

/// When keys are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// After so long.
    pub after: Option<Duration>,
    /// A data key: after so many records.
    pub after_records: Option<u64>,
}

impl Schedule {
    /// Rotates what is due, now and every ten minutes, until the process stops. Several instances may: a version is
    /// replaced once.
    pub async fn run(
        self,
        vault: Arc<Vault>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) {
        if self == Self::default() {
            return;
        }
        loop {
            if let Err(refused) = self.look(&vault, &*store, &*clock).await {
                tracing::warn!(
                    problem = refused.problem.cause(),
                    "keys that are due could not all be rotated"
                );
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(EVERY) => {}
            }
        }
    }

    async fn look(self, vault: &Vault, store: &dyn Store, clock: &dyn Clock) -> Result<(), Refused> {
        let mut after: Option<KeyId> = None;
        loop {
            let page = store.scan_keys(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for key in page.iter().filter(|key| key.state == KeyState::Active) {
                if let Some(why) = self.due(key, store, clock).await?
                    && let Err(refused) = vault.rotate_due(key, why).await
                {
                    // One tenant's trouble is not another's.
                    tracing::warn!(key = %key.id, problem = refused.problem.cause(), "a key is due, and was not rotated");
                }
            }
        }
    }

    async fn due(
        self,
        key: &KeyRecord,
        store: &dyn Store,
        clock: &dyn Clock,
    ) -> Result<Option<&'static str>, Refused> {
        // A clock that went back makes nothing due.
        let age = Duration::from_micros(clock.now().0.saturating_sub(key.created.0));
        if self.after.is_some_and(|after| age >= after) {
            return Ok(Some("age"));
        }
        match self.after_records {
            Some(most) if key.purpose == KeyPurpose::Data => {
                Ok((store.count_of_key(key.id).await? >= most).then_some("records"))
            }
            _ => Ok(None),
        }
    }
}
