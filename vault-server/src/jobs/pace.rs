//! No more than so much in a second.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Keeps to a rate; 0 is no bound. What was spent is waited for afterwards, and rest is not saved up.
#[derive(Debug)]
pub(super) struct Pace {
    a_second: u64,
    free: Instant,
}

impl Pace {
    pub(super) fn new(a_second: u64) -> Self {
        Self { a_second, free: Instant::now() }
    }

    /// Spends, and waits until that is paid for. A little may be owed, so that the waits are few.
    pub(super) async fn spend(&mut self, amount: u64) {
        if self.a_second == 0 {
            return;
        }
        let now = Instant::now();
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.a_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST);
        self.free = self.free.max(now) + cost;
        if self.free > now + OWED {
            sleep_until(self.free - OWED).await;
        }
    }
}

/// What may be owed.
const OWED: Duration = Duration::from_millis(20);
/// The longest wait: less than a lease.
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_none_is_no_bound() {
        let begin = Instant::now();
        let mut pace = Pace::new(1000);
        for _ in 0..100 {
            pace.spend(100).await;
        }
        let took = begin.elapsed().as_secs_f64();
        assert!((9.9..=10.1).contains(&took), "{took}");
        let begin = Instant::now();
        let mut free = Pace::new(0);
        for _ in 0..100 {
            free.spend(1 << 40).await;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
