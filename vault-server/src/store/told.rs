//! What is told to the operator again and again, told once in a while.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So long the same thing is not told again.
const PAUSE: Duration = Duration::from_mins(5);
/// What is remembered. Of two that share a slot each makes room for the other: told too often, never too seldom.
const SLOTS: usize = 256;

/// What was told a moment ago. It does not grow.
pub(super) struct Told {
    /// Nobody who writes rows knows which of them share one.
    hasher: RandomState,
    slots: Mutex<[Option<(u64, Instant)>; SLOTS]>,
}

impl Default for Told {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: Mutex::new([None; SLOTS]) }
    }
}

impl Told {
    /// Whether it is to be told, which it is with that.
    pub(super) fn is_due(&self, what: &str) -> bool {
        let (hash, now) = (self.hasher.hash_one(what), Instant::now());
        let slot = &mut self.slots.lock()[hash as usize % SLOTS];
        let told = slot.is_some_and(|(of, at)| of == hash && now.duration_since(at) < PAUSE);
        if !told {
            *slot = Some((hash, now));
        }
        !told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_told_at_once_and_then_once_in_a_while() {
        let told = Told::default();
        assert!(told.is_due("a"));
        assert!(!told.is_due("a"));
        let second = Duration::from_secs(1);
        tokio::time::advance(PAUSE.saturating_sub(second)).await;
        assert!(!told.is_due("a"), "what was held back does not hold back longer");
        tokio::time::advance(second).await;
        assert!(told.is_due("a") && !told.is_due("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_back_for_another() {
        let told = Told::default();
        assert!((0..10 * SLOTS).all(|number| told.is_due(&number.to_string())));
    }
}
