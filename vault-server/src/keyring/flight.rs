//! One load for all who wait for the same thing.
//!
//! The load runs in a task of its own: a caller that goes away neither stops it nor takes it from the others. All
//! who wait get its result. A failure is also given to who comes within [`LINGER`] after it, so that a queue of
//! callers does not become a queue of failing loads; a success is the cache's to keep, not this module's.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::KeyringError;

/// How long a failure is given to newcomers.
pub(super) const LINGER: Duration = Duration::from_millis(100);

type Answer<V> = Result<V, KeyringError>;

pub(super) struct Flights<K, V>(Mutex<Board<K, V>>);

struct Board<K, V> {
    flights: HashMap<K, Flight<V>>,
    next: u64,
}

struct Flight<V> {
    number: u64,
    answer: Shared<BoxFuture<'static, Answer<V>>>,
    /// Set when it failed: until when newcomers get the failure.
    failed_until: Option<Instant>,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Board { flights: HashMap::new(), next: 0 })))
    }

    /// Joins the load of `key`, or begins it.
    pub(super) async fn join<F>(self: &Arc<Self>, key: K, load: F) -> Answer<V>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let answer = self.answer(key, load);
        answer.await
    }

    /// Newcomers begin anew.
    pub(super) fn clear(&self) {
        self.0.lock().flights.clear();
    }

    /// Drops failures whose time is over.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.lock().flights.retain(|_, flight| flight.failed_until.is_none_or(|until| now < until));
    }

    fn answer<F>(self: &Arc<Self>, key: K, load: F) -> Shared<BoxFuture<'static, Answer<V>>>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let mut board = self.0.lock();
        if let Some(flight) = board.flights.get(&key)
            && flight.failed_until.is_none_or(|until| Instant::now() < until)
        {
            return flight.answer.clone();
        }
        let number = board.next;
        board.next += 1;
        let (flights, landed) = (self.clone(), key.clone());
        let task = tokio::spawn(async move {
            // Made in here: a runtime that shuts down drops the task at once, while the board is locked.
            let mut landing = Landing { flights, key: landed, number, failed: true };
            let answer = load.await;
            landing.failed = answer.is_err();
            answer
        });
        // A load ends without an answer only when it panicked or the runtime shuts down.
        let answer = task.map(|ended| ended.unwrap_or(Err(KeyringError::KmsUnavailable))).boxed().shared();
        board.flights.insert(key, Flight { number, answer: answer.clone(), failed_until: None });
        answer
    }
}

/// Takes the flight off the board however its load ends.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
    number: u64,
    failed: bool,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut board = self.flights.0.lock();
        let Some(flight) = board.flights.get_mut(&self.key).filter(|flight| flight.number == self.number)
        else {
            return;
        };
        if self.failed {
            flight.failed_until = Some(Instant::now() + LINGER);
        } else {
            board.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const SLOW: Duration = Duration::from_millis(10);

    struct Loads(Arc<AtomicUsize>);

    impl Loads {
        fn load(&self, answer: Answer<u8>) -> impl Future<Output = Answer<u8>> + Send + 'static {
            let count = self.0.clone();
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                sleep(SLOW).await;
                answer
            }
        }

        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn flights() -> (Arc<Flights<u8, u8>>, Loads) {
        (Flights::new(), Loads(Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_load_and_the_next_begins_anew() {
        let (flights, loads) = flights();
        let answers = join_all((0..1000).map(|_| flights.join(1, loads.load(Ok(7))))).await;
        assert!(answers.iter().all(|answer| *answer == Ok(7)));
        assert_eq!(loads.count(), 1);
        assert_eq!(flights.join(1, loads.load(Ok(8))).await, Ok(8));
        assert_eq!(loads.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_and_lingers_only_briefly() {
        let (flights, loads) = flights();
        let failed = Err(KeyringError::KmsUnavailable);
        let answers = join_all((0..100).map(|_| flights.join(1, loads.load(failed.clone())))).await;
        assert!(answers.iter().all(|answer| *answer == failed));
        assert_eq!(flights.join(1, loads.load(Ok(7))).await, failed, "within the linger");
        assert_eq!(loads.count(), 1);
        sleep(LINGER).await;
        assert_eq!(flights.join(1, loads.load(Ok(7))).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_does_not_stop_the_load() {
        let (flights, loads) = flights();
        let gone = tokio::time::timeout(SLOW / 2, flights.join(1, loads.load(Ok(7)))).await;
        assert!(gone.is_err());
        assert_eq!(flights.join(1, loads.load(Ok(8))).await, Ok(7), "joined the first");
        assert_eq!(loads.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_panics_is_a_failure_and_not_for_good() {
        let (flights, loads) = flights();
        let broken = async { panic!("told to") };
        assert_eq!(flights.join(1, broken).await, Err(KeyringError::KmsUnavailable));
        sleep(LINGER).await;
        assert_eq!(flights.join(1, loads.load(Ok(7))).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_clear_nobody_joins_an_older_load() {
        let (flights, loads) = flights();
        let (first, second) = tokio::join!(flights.join(1, loads.load(Ok(7))), async {
            sleep(SLOW / 2).await;
            flights.clear();
            flights.join(1, loads.load(Ok(8))).await
        });
        assert_eq!((first, second), (Ok(7), Ok(8)));
    }
}
