//! A clock that nobody sets back.

use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::Timestamp;

/// The latest time that was told, and when that was by the clock that only goes on.
#[derive(Default)]
pub(super) struct Steady(Mutex<Option<(Timestamp, Instant)>>);

impl Steady {
    /// What the clock tells, or, if it was set back, what it would tell if it had not been.
    pub(super) fn now(&self, told: Timestamp) -> Timestamp {
        self.at(told, Instant::now())
    }

    fn at(&self, told: Timestamp, instant: Instant) -> Timestamp {
        let mut latest = self.0.lock();
        let expected = latest.map_or(Timestamp(0), |(time, then)| {
            let passed = instant.saturating_duration_since(then).as_micros();
            Timestamp(time.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
        });
        if told >= expected {
            *latest = Some((told, instant));
        }
        told.max(expected)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_where_it_was() {
        let (steady, begin) = (Steady::default(), Instant::now());
        let at = |told: u64, after: u64| {
            steady.at(Timestamp(told * 1_000_000), begin + Duration::from_secs(after)).0 / 1_000_000
        };
        assert_eq!(at(5_000, 0), 5_000);
        assert_eq!(at(5_010, 10), 5_010);
        assert_eq!(at(1_000, 20), 5_020);
        assert_eq!(at(1_600, 620), 5_620);
        assert_eq!(at(9_000, 630), 9_000, "set forward");
    }
}
