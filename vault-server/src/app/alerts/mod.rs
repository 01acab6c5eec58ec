//! From the rows of alerts to whoever must hear of them.
//!
//! One instance delivers, under a lease; its fence goes with every change of a row. An alert is delivered at least once: its row
//! goes after the receiver said that it has it. Nothing waits for a delivery but the next ones.

mod signature;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use self::webhook::{NotDelivered, Webhook};
use crate::access::{UnreadableAlert, WaitingAlert};
use crate::audit::{AuditAction, Draft, Log, LogError};
use crate::domain::{Clock, EntityKind, EntityPlace, EntityScope, LeaseName, RequestId, Timestamp};
use crate::store::{EntityRow, Held, LeaseError, Leases, Store, StoreError, Write};

/// How often it is looked for alerts.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Rows that are read at once, and deliveries that are made at once.
const PAGE: usize = 256;
const AT_ONCE: usize = 8;
/// The lease outlives a delivery by this.
const RESERVE: Duration = Duration::from_secs(5);
/// After a delivery that failed, the next one waits for so long, and twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// What delivers.
pub struct Delivery {
    /// Where alerts wait.
    pub store: Arc<dyn Store>,
    /// The log.
    pub log: Arc<Log>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Takes the lease for this process.
    pub leases: Leases,
    /// Where they go; `None`: into the operator's log alone.
    pub webhook: Option<Webhook>,
    /// How long a delivery may take.
    pub timeout: Duration,
    /// After how long of trying an alert is given up.
    pub give_up_after: Duration,
    /// Ends it.
    pub stopping: CancellationToken,
}

/// The lease, and when it was last renewed.
struct Turn {
    held: Held,
    renewed: Instant,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("no randomness from the operating system")]
    Random(#[from] getrandom::Error),
}

impl Delivery {
    /// Delivers until the process stops.
    pub async fn run(self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = None;
        let mut telling = true;
        loop {
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let looked = tokio::select! {
                () = self.stopping.cancelled() => break,
                looked = self.look(&mut turn) => looked,
            };
            if let Err(trouble) = &looked {
                // Whatever it was: what is in force is found out anew.
                turn = None;
                if telling {
                    tracing::warn!(%trouble, "alerts can't be delivered now");
                }
            }
            telling = looked.is_ok();
        }
        if let Some(Turn { held, .. }) = turn {
            // Else it ends by itself.
            let _ = self.leases.release(held).await;
        }
    }

    fn lease(&self) -> Duration {
        self.timeout + RESERVE
    }

    /// Takes its turn, if there is anything and it is nobody else's, and delivers what is due.
    async fn look(&self, turn: &mut Option<Turn>) -> Result<(), Trouble> {
        let mut page = self.page(None).await?;
        if page.is_empty() {
            return Ok(());
        }
        if turn.is_none() {
            let name = LeaseName::parse("alerts").expect("a lease's name");
            let Some(held) = self.leases.take(&name, self.lease()).await? else { return Ok(()) };
            *turn = Some(Turn { held, renewed: Instant::now() });
        }
        let Some(turn) = turn else { return Ok(()) };
        while let Some(last) = page.last() {
            let after = last.place().clone();
            if !self.deliver_page(turn, &page).await? {
                break;
            }
            page = self.page(Some(&after)).await?;
        }
        Ok(())
    }

    async fn page(&self, after: Option<&EntityPlace>) -> Result<Vec<EntityRow>, StoreError> {
        self.store.entity_rows(&EntityScope::Kind(EntityKind::Alert), after, PAGE).await
    }

    /// Delivers what is due of a page; whether the receiver is there.
    async fn deliver_page(&self, turn: &mut Turn, page: &[EntityRow]) -> Result<bool, Trouble> {
        let now = self.clock.now();
        let mut due = Vec::new();
        for row in page {
            let entity = match row {
                EntityRow::Sound(entity) => entity,
                // Who wrote it would have somebody told what did not happen.
                EntityRow::Forged { place, revision } => {
                    // A malformed one stays until somebody removes it.
                    if let Some(revision) = revision {
                        self.lose(turn, place, *revision, "forged", Vec::new()).await?;
                    }
                    continue;
                }
            };
            match WaitingAlert::read(entity) {
                // One that waits for longer than any does is of a clock that was wrong.
                Ok(alert) if alert.not_before > now && alert.not_before <= after(now, LONGEST_WAIT) => {}
                Ok(alert) => due.push(alert),
                // It waits for an instance that can read it.
                Err(UnreadableAlert::Version) => {}
                Err(UnreadableAlert::Corrupt) => {
                    tracing::error!(place = ?entity.place, "an alert's row is not what was written");
                    self.lose(turn, &entity.place, entity.revision, "corrupt", Vec::new()).await?;
                }
            }
        }
        // What is new comes first.
        due.sort_by_key(WaitingAlert::attempts);
        for some in due.chunks(AT_ONCE) {
            self.renew(turn).await?;
            let delivered = join_all(some.iter().map(|alert| self.deliver(alert))).await;
            let none = delivered.iter().all(Result::is_err);
            for (alert, delivered) in some.iter().zip(delivered) {
                self.settle(turn, alert, delivered).await?;
            }
            if none {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn deliver(&self, alert: &WaitingAlert) -> Result<(), NotDelivered> {
        let Some(webhook) = &self.webhook else {
            tracing::warn!(alert = alert.kind, id = %alert.id, "an alert, and no webhook to tell it to");
            return Ok(());
        };
        webhook.deliver(alert, self.clock.now()).await
    }

    /// The row goes, or says when it is tried again.
    async fn settle(
        &self,
        turn: &Turn,
        alert: &WaitingAlert,
        delivered: Result<(), NotDelivered>,
    ) -> Result<(), Trouble> {
        let (place, revision, now) = (alert.place(), alert.revision(), self.clock.now());
        let Err(why) = delivered else {
            if self.webhook.is_some() {
                tracing::info!(alert = alert.kind, id = %alert.id, "an alert was delivered");
            }
            let gone = Write::DropEntity { place: place.clone(), revision };
            self.log.write(vec![turn.held.fence(), gone]).await?;
            return Ok(());
        };
        let attempts = alert.attempts().saturating_add(1);
        tracing::warn!(alert = alert.kind, id = %alert.id, attempts, %why, "an alert could not be delivered");
        if now > after(alert.at, self.give_up_after) {
            let details = vec![
                ("alert", alert.id.to_string()),
                ("kind", alert.kind.clone()),
                ("attempts", attempts.to_string()),
            ];
            return self.lose(turn, place, revision, "gave_up", details).await;
        }
        let again = after(now, wait(alert.attempts(), getrandom::u32()?));
        self.log.write(vec![turn.held.fence(), Write::PutEntity(alert.after_failure(again))]).await?;
        Ok(())
    }

    /// An alert that nobody will hear of goes, with an entry that says so.
    async fn lose(
        &self,
        turn: &Turn,
        place: &EntityPlace,
        revision: u64,
        cause: &'static str,
        details: Vec<(&'static str, String)>,
    ) -> Result<(), Trouble> {
        tracing::error!(?place, cause, "an alert is lost");
        let draft = Draft::of_vault(RequestId::random()?, AuditAction::AlertLost);
        let draft = Draft { tenant: place.tenant.clone(), cause, details, ..draft };
        let gone = Write::DropEntity { place: place.clone(), revision };
        self.log.commit(draft, Vec::new(), vec![turn.held.fence(), gone]).await?;
        Ok(())
    }

    async fn renew(&self, turn: &mut Turn) -> Result<(), Trouble> {
        // What is left is enough for a delivery and its write.
        if turn.renewed.elapsed() > RESERVE / 3 {
            let renewed = Instant::now();
            self.leases.renew(&mut turn.held, self.lease()).await?;
            turn.renewed = renewed;
        }
        Ok(())
    }
}

/// How long after a failed delivery the next one is tried: half of the time is drawn.
fn wait(failed_before: u32, drawn: u32) -> Duration {
    let most = FIRST_WAIT.saturating_mul(1 << failed_before.min(16)).min(LONGEST_WAIT);
    most / 2 + (most / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
}
