//! How often, and for how long, a KMS call is tried: decorrelated jitter under a total deadline.
//!
//! The wait before try n+1 is `min(cap, uniform(base, 3 x previous wait))` ("Exponential Backoff and Jitter", AWS
//! Architecture Blog): callers that failed together do not come back together.

use std::time::Duration;

use tokio::time::Instant;

/// Times and counts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries, the first included; at least 1.
    pub attempts: u32,
    /// Time for each try.
    pub attempt_timeout: Duration,
    /// Time for all of them, waits included. No try begins that cannot wait its pause out before it.
    pub deadline: Duration,
    /// Shortest pause.
    pub base: Duration,
    /// Longest pause.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            attempt_timeout: Duration::from_secs(1),
            deadline: Duration::from_millis(2_500),
            base: Duration::from_millis(25),
            cap: Duration::from_millis(400),
        }
    }
}

impl RetryPolicy {
    /// Begins a call.
    pub fn begin(self, now: Instant) -> Attempts {
        Attempts { policy: self, ends: now + self.deadline, made: 0, pause: self.base }
    }
}

/// The tries of one call.
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    ends: Instant,
    made: u32,
    pause: Duration,
}

impl Attempts {
    /// Time for the try that begins now; zero when the deadline is over.
    pub fn timeout(&self, now: Instant) -> Duration {
        self.policy.attempt_timeout.min(self.ends.saturating_duration_since(now))
    }

    /// How long to wait before another try, after one failed; `None`: give up. `random` is uniform over `u32`.
    pub fn pause(&mut self, now: Instant, random: u32) -> Option<Duration> {
        self.made += 1;
        if self.made >= self.policy.attempts {
            return None;
        }
        let base = self.policy.base;
        let spread = (self.pause * 3).saturating_sub(base);
        let share = f64::from(random) / f64::from(u32::MAX);
        self.pause = (base + spread.mul_f64(share)).min(self.policy.cap);
        (now + self.pause < self.ends).then_some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_stay_between_base_and_cap_and_end_after_the_last_attempt(
            randoms in proptest::collection::vec(any::<u32>(), 10)
        ) {
            let policy = RetryPolicy { attempts: 6, deadline: Duration::from_hours(1), ..RetryPolicy::default() };
            let now = Instant::now();
            let mut attempts = policy.begin(now);
            let pauses: Vec<_> = randoms.iter().map_while(|r| attempts.pause(now, *r)).collect();
            prop_assert_eq!(pauses.len(), 5);
            let mut before = policy.base;
            for pause in pauses {
                prop_assert!((policy.base..=policy.cap).contains(&pause));
                prop_assert!(pause <= before * 3);
                before = pause;
            }
        }
    }

    #[test]
    fn nothing_goes_past_the_deadline() {
        let policy = RetryPolicy { attempts: 100, ..RetryPolicy::default() };
        let begin = Instant::now();
        let mut attempts = policy.begin(begin);
        let late = begin + policy.deadline - Duration::from_millis(10);
        assert_eq!(attempts.timeout(late), Duration::from_millis(10));
        assert_eq!(attempts.pause(late, 0), None);
        assert_eq!(attempts.timeout(begin + policy.deadline * 2), Duration::ZERO);
    }
}
