//! Makes one batch of concurrent single calls.
//!
//! The first call of a group goes at once. Calls that come while it is under way wait and go together when it is
//! answered, and so on: under load batches grow by themselves, and without load nobody waits for company. Calls are
//! grouped by what a request has once (tenant, purpose, reason ...), so nobody's items go under another's purpose.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, ItemError, Reason};

/// So many items a batch.
const MOST_ITEMS: usize = 1_000;
/// So many calls may wait; more wait to be let in.
const MOST_WAITING: usize = 16_384;

type Answer<O> = Result<Result<O, ItemError>, Error>;
type Waiter<I, O> = (I, oneshot::Sender<Answer<O>>);
type Groups<K, I, O> = Mutex<HashMap<K, Vec<Waiter<I, O>>>>;

/// Groups of calls by `K`; items `I` get outcomes `O`.
pub(super) struct Batcher<K, I, O> {
    groups: Arc<Groups<K, I, O>>,
    places: Semaphore,
}

impl<K, I, O> Batcher<K, I, O>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    I: Send + 'static,
    O: Send + 'static,
{
    pub(super) fn new() -> Self {
        Self { groups: Arc::default(), places: Semaphore::new(MOST_WAITING) }
    }

    /// Adds an item and waits for its own outcome. `run` sends a batch of the group; that of the call that finds
    /// the group idle serves until it is idle again.
    pub(super) async fn submit<F, Fut>(&self, key: K, item: I, run: F) -> Answer<O>
    where
        F: Fn(Vec<I>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<Result<O, ItemError>>, Error>> + Send + 'static,
    {
        let _place = self.places.acquire().await;
        let (answer, outcome) = oneshot::channel();
        let idle = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = !groups.contains_key(&key);
            groups.entry(key.clone()).or_default().push((item, answer));
            idle
        };
        if idle {
            tokio::spawn(serve(Arc::clone(&self.groups), key, run));
        }
        outcome.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Sends batches of one group until nobody waits; the group's entry says that it is being served.
async fn serve<K, I, O, F, Fut>(groups: Arc<Groups<K, I, O>>, key: K, run: F)
where
    K: Eq + Hash,
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Result<Vec<Result<O, ItemError>>, Error>>,
{
    let mut guard = Serving { groups: &groups, key: &key, done: false };
    while let Some(waiters) = guard.next() {
        // Who gave up meanwhile is not asked for: it would be a log entry for nothing.
        let (items, answers): (Vec<_>, Vec<_>) =
            waiters.into_iter().filter(|(_, answer)| !answer.is_closed()).unzip();
        if items.is_empty() {
            continue;
        }
        match run(items).await {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // A waiter that is gone needs no answer.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Frees the group when its server ends, even by a panic or by the runtime's end.
struct Serving<'a, K: Eq + Hash, I, O> {
    groups: &'a Groups<K, I, O>,
    key: &'a K,
    done: bool,
}

impl<K: Eq + Hash, I, O> Serving<'_, K, I, O> {
    /// The next waiters; `None` ends the group in the same breath, so that none is left behind.
    fn next(&mut self) -> Option<Vec<Waiter<I, O>>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = groups.get_mut(self.key)?;
        if waiting.is_empty() {
            groups.remove(self.key);
            self.done = true;
            return None;
        }
        let rest = waiting.split_off(waiting.len().min(MOST_ITEMS));
        Some(std::mem::replace(waiting, rest))
    }
}

impl<K: Eq + Hash, I, O> Drop for Serving<'_, K, I, O> {
    fn drop(&mut self) {
        if !self.done {
            // The waiters' senders are dropped, which tells them.
            let left = self.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
            drop(left);
        }
    }
}

fn lost() -> Error {
    Error::new(Reason::Internal, tonic::Code::Internal, "the batch that held this call was dropped")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    type Numbers = Batcher<&'static str, u32, u32>;

    async fn double(items: Vec<u32>) -> Result<Vec<Result<u32, ItemError>>, Error> {
        tokio::task::yield_now().await;
        Ok(items.into_iter().map(|n| Ok(n * 2)).collect())
    }

    #[tokio::test]
    async fn concurrent_calls_share_batches_and_get_their_own_outcomes() {
        let batcher = Numbers::new();
        let batches = Arc::new(AtomicUsize::new(0));
        let calls = (0..100).map(|n| {
            let batches = Arc::clone(&batches);
            batcher.submit("g", n, move |items| {
                batches.fetch_add(1, Ordering::Relaxed);
                double(items)
            })
        });
        let outcomes = join_all(calls).await;
        for (n, outcome) in (0..).zip(outcomes) {
            assert_eq!(outcome.unwrap().unwrap(), n * 2);
        }
        assert!(batches.load(Ordering::Relaxed) <= 2);
        assert!(batcher.groups.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn groups_do_not_mix() {
        let batcher = Numbers::new();
        let alone = |items: Vec<u32>| {
            assert_eq!(items.len(), 1);
            double(items)
        };
        let (a, b) = tokio::join!(batcher.submit("a", 1, alone), batcher.submit("b", 2, alone));
        assert!(a.unwrap().is_ok() && b.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_failed_batch_tells_every_waiter_and_a_panicking_one_too() {
        let batcher = Numbers::new();
        let failing = |_| async { Err(Error::deadline()) };
        let (a, b) = tokio::join!(batcher.submit("g", 1, failing), batcher.submit("g", 2, failing));
        assert_eq!(a.unwrap_err(), Error::deadline());
        assert_eq!(b.unwrap_err(), Error::deadline());
        let outcome = batcher.submit("g", 1, |_| async { panic!("a fault") }).await;
        assert_eq!(outcome.unwrap_err().reason(), Reason::Internal);
        assert!(batcher.submit("g", 1, double).await.unwrap().is_ok(), "the group is usable again");
    }

    #[tokio::test]
    async fn who_gave_up_is_not_asked_for() {
        let batcher = Arc::new(Numbers::new());
        let (release, gate) = oneshot::channel::<()>();
        let gate = Arc::new(tokio::sync::Mutex::new(Some(gate)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let run = move |seen: Arc<Mutex<Vec<u32>>>| {
            let gate = Arc::clone(&gate);
            move |items: Vec<u32>| {
                let gate = Arc::clone(&gate);
                seen.lock().unwrap().extend(&items);
                async move {
                    if let Some(gate) = gate.lock().await.take() {
                        gate.await.unwrap();
                    }
                    double(items).await
                }
            }
        };
        let first = tokio::spawn({
            let (batcher, run) = (Arc::clone(&batcher), run(Arc::clone(&seen)));
            async move { batcher.submit("g", 1, run).await }
        });
        tokio::task::yield_now().await;
        let given_up = tokio::time::timeout(
            std::time::Duration::from_millis(20),
            batcher.submit("g", 2, run(Arc::clone(&seen))),
        );
        assert!(given_up.await.is_err());
        release.send(()).unwrap();
        assert!(first.await.unwrap().unwrap().is_ok());
        assert!(batcher.submit("g", 3, run(Arc::clone(&seen))).await.unwrap().is_ok());
        assert_eq!(*seen.lock().unwrap(), [1, 3]);
    }
}
