//! When a call is repeated, and after how long.
//!
//! Nearly every unary call of the API is safe to repeat: reads change nothing but the log; erasing twice is erasing once;
//! each tokenize carries an idempotency key, the same in every attempt; a rotation names the version that it replaces; a
//! job is begun once, and what is done to one says how it shall stand. So what decides is the code, in [`advice`], but that a vault which
//! has too much to do may put a call off.
//! A rotation of whichever version is made once (`Client::call_keys_once`). Streams are never repeated here: half of one may have been answered.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::error::Reason;

/// How often and how long to try. The default: 4 attempts, 50 ms doubling to 2 s, full jitter.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts of one call in all; 1 means no repeats.
    pub attempts: u32,
    /// Upper bound of the first pause; doubles with each.
    pub first_pause: Duration,
    /// Upper bound of any pause that the vault did not ask for.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 4, first_pause: Duration::from_millis(50), longest_pause: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// Never repeats a call.
    pub const NEVER: Self = Self { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// The pause before repeat number `repeat` (from 1): between nothing and a bound that doubles ("full jitter"),
    /// and never less than the vault asked for. `dice` is uniform over all of `u32`.
    pub(crate) fn pause(&self, repeat: u32, asked: Option<Duration>, dice: u32) -> Duration {
        let bound =
            self.first_pause.saturating_mul(1 << repeat.saturating_sub(1).min(16)).min(self.longest_pause);
        asked.unwrap_or_default() + bound.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

/// What to do about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    Repeat,
    GiveUp,
}

/// The one place that says which codes are repeated.
fn advice(code: Code) -> Advice {
    match code {
        Code::Unavailable => Advice::Repeat,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Advice::GiveUp,
    }
}

/// Whether a call that ended so may be repeated. A vault that has too much to do and says when to come again has opened nothing.
pub(crate) fn may_repeat(code: Code, reason: Reason, asked: Option<Duration>) -> bool {
    let is_put_off = code == Code::ResourceExhausted && reason == Reason::Overloaded && asked.is_some();
    is_put_off || advice(code) == Advice::Repeat
}

/// Keeps repeats a fraction of all calls, so that clients don't keep a vault down that tries to come back: each
/// repeat costs one, each success gives back a tenth, and there is never more than [`Budget::MOST`].
pub(crate) struct Budget(AtomicU32);

impl Budget {
    const REPEAT: u32 = 10;
    const SUCCESS: u32 = 1;
    const MOST: u32 = 20 * Self::REPEAT;

    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(Self::MOST))
    }

    pub(crate) fn deposit(&self) {
        let add = |left: u32| Some((left + Self::SUCCESS).min(Self::MOST));
        // Always `Ok`: `add` never declines.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(crate) fn withdraw(&self) -> bool {
        let take = |left: u32| left.checked_sub(Self::REPEAT);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// A number uniform over `u32`. Without randomness jitter is lost, nothing else.
pub(crate) fn dice() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unavailable_is_repeated_and_what_the_vault_put_off() {
        let soon = Some(Duration::from_millis(200));
        for number in 0..=16 {
            let code = Code::from_i32(number);
            for (reason, asked) in [
                (Reason::Overloaded, None),
                (Reason::Overloaded, soon),
                (Reason::LimitReached, soon),
                (Reason::ResponseTooLarge, None),
            ] {
                let put_off =
                    code == Code::ResourceExhausted && (reason, asked) == (Reason::Overloaded, soon);
                let expected = code == Code::Unavailable || put_off;
                assert_eq!(may_repeat(code, reason, asked), expected, "{code:?} {reason:?} {asked:?}");
            }
        }
    }

    #[test]
    fn pauses_double_up_to_the_bound_and_honour_the_vaults_wish() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(1, None, u32::MAX), Duration::from_millis(50));
        assert_eq!(policy.pause(2, None, u32::MAX), Duration::from_millis(100));
        assert_eq!(policy.pause(40, None, u32::MAX), Duration::from_secs(2));
        assert_eq!(policy.pause(3, None, 0), Duration::ZERO);
        assert!(policy.pause(1, Some(Duration::from_secs(1)), 0) >= Duration::from_secs(1));
    }

    #[test]
    fn the_budget_runs_dry_and_fills_with_success() {
        let budget = Budget::new();
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
        (0..9).for_each(|_| budget.deposit());
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 20);
    }
}
