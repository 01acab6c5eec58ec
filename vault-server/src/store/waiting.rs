//! A change that waits for its turn: taken up by who writes, or taken back by who has waited long enough, whichever is first.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::{Instant, timeout_at};

/// Whose the change is now. Clones are about the same change.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether this is the first to take it. Who is not leaves it alone.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// Waits until then at most.
pub(super) async fn before<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match until {
        None => Some(work.await),
        Some(until) => timeout_at(until, work).await.ok(),
    }
}

/// The answer to a change; `None` if it was taken back.
pub(super) async fn answer<T>(
    until: Option<Instant>,
    claim: &Claim,
    answered: impl Future<Output = T>,
) -> Option<T> {
    let mut answered = pin!(answered);
    if let Some(answer) = before(until, &mut answered).await {
        return Some(answer);
    }
    if claim.take() { None } else { Some(answered.await) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_up_is_waited_for_and_what_was_not_is_taken_back() {
        let until = Some(Instant::now() + Duration::from_secs(1));
        for taken_up in [true, false] {
            let (claim, (sender, answered)) = (Claim::default(), oneshot::channel());
            let writer = {
                let claim = claim.clone();
                tokio::spawn(async move {
                    let mine = taken_up && claim.take();
                    tokio::time::sleep(Duration::from_secs(9)).await;
                    let mine = mine || claim.take();
                    assert_eq!(mine, taken_up, "it is one or the other");
                    sender.send(7).ok();
                })
            };
            tokio::task::yield_now().await;
            let answer = answer(until, &claim, answered).await;
            assert_eq!(answer.map(Result::unwrap), taken_up.then_some(7));
            writer.await.unwrap();
        }
    }
}
