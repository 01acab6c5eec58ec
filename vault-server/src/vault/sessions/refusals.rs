//! How many refusals of callers without a certificate are put on record: an entry of the log is a sync of the disk, and
//! without a certificate anybody on the network can ask for one.

use std::time::Instant;

use parking_lot::Mutex;

/// So many at once, and so many a second.
const BURST: f64 = 200.0;
const EACH_SECOND: f64 = 50.0;

pub(super) struct Refusals(Mutex<Bucket>);

struct Bucket {
    left: f64,
    filled: Instant,
    unrecorded: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Bucket { left: BURST, filled: Instant::now(), unrecorded: 0 }))
    }
}

impl Refusals {
    /// Whether one more is recorded: how many were not since the last one that was.
    pub(super) fn take(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock();
        let since = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.left = (bucket.left + since * EACH_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.left < 1.0 {
            bucket.unrecorded += 1;
            return None;
        }
        bucket.left -= 1.0;
        Some(std::mem::take(&mut bucket.unrecorded))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_is_told_with_the_next() {
        let (refusals, begin) = (Refusals::default(), Instant::now());
        let recorded = (0..1000).filter(|_| refusals.at(begin).is_some()).count();
        assert_eq!(recorded, 200);
        assert_eq!(refusals.at(begin + Duration::from_secs(1)), Some(800));
        assert_eq!(refusals.at(begin + Duration::from_secs(1)), Some(0));
    }
}
