//! A circuit breaker: after several failures in a row the KMS is left alone for a while, so that callers fail
//! over (or fail) at once instead of each waiting out a deadline, and a KMS that is down is not kept down.
//!
//! ```text
//! closed --failures in a row--> open --open_for--> half-open --success--> closed
//!                                ^                     |
//!                                +------failure--------+
//! ```
//!
//! Half-open lets one call through. If its end is never reported (its caller went away), the next one is let
//! through after another `open_for`. Pure: time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open.
    pub open_for: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(5) }
    }
}

/// What became of a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, be it by a refusal.
    Answered,
    /// It was not.
    Failed,
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { next: Instant },
}

impl Breaker {
    /// A closed one.
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Whether a call may go through now. Its end must be told to [`Self::record`].
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until: due } | State::HalfOpen { next: due } if now >= due => {
                self.state = State::HalfOpen { next: now + self.options.open_for };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// Tells how a call that was let through ended.
    pub fn record(&mut self, outcome: Outcome, now: Instant) {
        self.state = match (outcome, self.state) {
            (Outcome::Answered, _) => State::Closed { failures: 0 },
            (Outcome::Failed, State::Closed { failures }) if failures + 1 < self.options.failures => {
                State::Closed { failures: failures + 1 }
            }
            (Outcome::Failed, State::Closed { .. } | State::HalfOpen { .. }) => {
                State::Open { until: now + self.options.open_for }
            }
            // A straggler from before it opened tells nothing new.
            (Outcome::Failed, open @ State::Open { .. }) => open,
        };
    }

    /// Whether calls are being kept away.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(BreakerOptions { failures: 3, open_for: 10 * SECOND }), Instant::now())
    }

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            assert!(breaker.admit(now));
            breaker.record(Outcome::Failed, now);
        }
        (breaker, now)
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (mut breaker, now) = breaker();
        for _ in 0..10 {
            breaker.record(Outcome::Failed, now);
            breaker.record(Outcome::Failed, now);
            breaker.record(Outcome::Answered, now);
        }
        assert!(breaker.admit(now));
        let (mut breaker, now) = opened();
        assert!(!breaker.admit(now));
    }

    #[test]
    fn it_lets_one_call_through_when_its_time_is_over() {
        let (mut breaker, now) = opened();
        assert!(!breaker.admit(now + 9 * SECOND));
        assert!(breaker.admit(now + 10 * SECOND));
        assert!(!breaker.admit(now + 10 * SECOND), "one only");
    }

    #[test]
    fn the_trial_call_closes_it_or_opens_it_again() {
        let (mut breaker, now) = opened();
        let later = now + 10 * SECOND;
        assert!(breaker.admit(later));
        breaker.record(Outcome::Answered, later);
        assert!(!breaker.is_open());
        assert!(breaker.admit(later) && breaker.admit(later));

        let (mut breaker, now) = opened();
        let later = now + 10 * SECOND;
        assert!(breaker.admit(later));
        breaker.record(Outcome::Failed, later);
        assert!(!breaker.admit(later + 9 * SECOND));
        assert!(breaker.admit(later + 10 * SECOND));
    }

    #[test]
    fn a_trial_call_that_never_ends_does_not_keep_it_open_for_good() {
        let (mut breaker, now) = opened();
        assert!(breaker.admit(now + 10 * SECOND));
        assert!(!breaker.admit(now + 19 * SECOND));
        assert!(breaker.admit(now + 20 * SECOND));
    }

    #[test]
    fn stragglers_do_not_prolong_it() {
        let (mut breaker, now) = opened();
        breaker.record(Outcome::Failed, now + 9 * SECOND);
        assert!(breaker.admit(now + 10 * SECOND));
    }
}
