//! What is told while it lasts: a plain line every few seconds.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often.
const EVERY: Duration = Duration::from_secs(3);

/// Tells how far it is.
pub(super) struct Progress {
    tell: bool,
    state: Mutex<State>,
}

struct State {
    /// What is at work, since when, and from which count on.
    phase: (&'static str, &'static str),
    since: Instant,
    from: u64,
    told: Instant,
}

impl Progress {
    /// On standard error.
    pub(super) fn told() -> Self {
        Self::new(true)
    }

    /// To nobody.
    #[cfg(test)]
    pub(super) fn silent() -> Self {
        Self::new(false)
    }

    fn new(tell: bool) -> Self {
        let now = Instant::now();
        Self { tell, state: Mutex::new(State { phase: ("", ""), since: now, from: 0, told: now }) }
    }

    /// So many are done of what is at work.
    pub(super) fn at(&self, verb: &'static str, what: &'static str, count: u64) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.phase != (verb, what) {
            (state.phase, state.since, state.from) = ((verb, what), now, count);
        }
        if self.tell && now - state.told >= EVERY {
            state.told = now;
            let millis = (now - state.since).as_millis().max(1);
            let rate = u128::from(count - state.from) * 1000 / millis;
            eprintln!("{verb} {count} {what}, {rate} a second");
        }
    }
}
