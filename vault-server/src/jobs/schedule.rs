//! Rotates keys that are due by age or by use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, KeyPurpose, KeyRecord, KeyState, KeyVersion};
use crate::store::{Lookup, Store, StoreError};
use crate::vault::{Refused, Vault};

/// How often keys are looked at.
const EVERY: Duration = Duration::from_mins(10);
/// Keys that are looked at at once, and records.
const PAGE: usize = 256;
/// So many pages of a key's records tell of them all.
const PAGES: usize = 16;

/// When keys are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// After so long.
    pub after: Option<Duration>,
    /// A data key: after so many records that were written under it. Those that a job moved there do not count, or each
    /// re-encryption would make the next rotation due.
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
        let mut after = None;
        loop {
            let page = store.key_rows(after, PAGE).await?;
            for row in &page.malformed {
                // It may be due. The others are.
                tracing::error!(
                    row = row.what,
                    "a key's row is not what was written: nobody rotates that key"
                );
            }
            for key in page.items.iter().filter(|key| key.state == KeyState::Active) {
                if let Some(why) = self.due(key, store, clock).await?
                    && let Err(refused) = vault.rotate_due(key, why).await
                {
                    // One tenant's trouble is not another's.
                    tracing::warn!(key = %key.id, problem = refused.problem.cause(), "a key is due, and was not rotated");
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    pub(super) async fn due(
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
                Ok((written_under(key, most, store).await? >= most).then_some("records"))
            }
            _ => Ok(None),
        }
    }
}

/// How many records were written under a key since it is there, if they may be `most`. Older ones a job moved there.
async fn written_under(key: &KeyRecord, most: u64, store: &dyn Store) -> Result<u64, StoreError> {
    let count = store.count_of_key(key.id).await?;
    // To the first version none is moved.
    if count < most || key.version == KeyVersion(1) {
        return Ok(count);
    }
    let (mut seen, mut new, mut after) = (0, 0, None);
    for _ in 0..PAGES {
        let page = store.tokens_of_key(key.id, after, PAGE).await?;
        for lookup in store.records(&page.items).await? {
            if let Lookup::Found(record) = lookup {
                seen += 1;
                new += u64::from(record.created >= key.created);
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(share(count, new, seen))
}

/// As many of `count` as `new` are of `seen`. Tokens are random: the first ones are as good as any.
fn share(count: u64, new: u64, seen: u64) -> u64 {
    let share = (u128::from(count) * u128::from(new)).checked_div(u128::from(seen)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_tells_of_all() {
        assert_eq!(share(12, 5, 12), 5, "all were seen");
        assert_eq!(share(1 << 40, 1 << 10, 1 << 12), 1 << 38);
        assert_eq!((share(u64::MAX, 4096, 4096), share(7, 0, 0)), (u64::MAX, 0));
    }
}
