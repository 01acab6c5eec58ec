//! No more than so much in a second.

use std::time::Duration;

use tokio::time::Instant;

/// What may be owed, so that waits are few.
const OWED: Duration = Duration::from_millis(20);

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

    pub(super) fn spend(&mut self, amount: u64) {
        if self.a_second == 0 {
            return;
        }
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.a_second);
        self.free =
            self.free.max(Instant::now()) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    }

    /// How long to wait until what was spent is paid for.
    pub(super) fn owes(&self) -> Option<Duration> {
        let wait = self.free.saturating_duration_since(Instant::now());
        wait.checked_sub(OWED).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn spend(pace: &mut Pace, times: usize, amount: u64) -> f64 {
        let begin = Instant::now();
        for _ in 0..times {
            pace.spend(amount);
            while let Some(wait) = pace.owes() {
                tokio::time::sleep(wait).await;
            }
        }
        begin.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_none_is_no_bound() {
        let took = spend(&mut Pace::new(1000), 100, 100).await;
        assert!((9.9..=10.2).contains(&took), "{took}");
        let took = spend(&mut Pace::new(10), 3, 100).await;
        assert!((29.9..=30.2).contains(&took), "{took}");
        assert!(spend(&mut Pace::new(0), 100, 1 << 40).await < 0.001);
    }

    #[tokio::test(start_paused = true)]
    async fn rest_is_not_saved_up() {
        let mut pace = Pace::new(1000);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(spend(&mut pace, 10, 1000).await > 9.9);
    }
}
