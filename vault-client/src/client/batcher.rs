//! Makes one batch of concurrent single calls.
//!
//! A call goes at once unless some batches of its group are under way. Calls that come meanwhile wait, and go together when one
//! of those is answered, and so on: under load batches grow by themselves, and without load nobody waits for company. Calls are
//! grouped by what a request has once (tenant, purpose, reason ...), so nobody's items go under another's purpose.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, ItemError, Reason};

/// So many items a batch.
const MOST_ITEMS: usize = 1_000;
/// So many batches of a group at once: while one is answered, the vault and its store work on others.
const MOST_AT_ONCE: usize = 2;
/// So many calls may wait; more wait to be let in.
const MOST_WAITING: usize = 16_384;

type Answer<O> = Result<Result<O, ItemError>, Error>;
type Waiter<I, O> = (I, oneshot::Sender<Answer<O>>);
type Groups<K, I, O> = Mutex<HashMap<K, Group<I, O>>>;

/// Calls of one kind; it is there while somebody serves it.
struct Group<I, O> {
    waiting: Vec<Waiter<I, O>>,
    servers: usize,
}

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

    /// Adds an item and waits for its own outcome. `run` sends a batch of the group; that of a call that finds too few
    /// serving it serves until nobody waits.
    pub(super) async fn submit<F, Fut>(&self, key: K, item: I, run: F) -> Answer<O>
    where
        F: Fn(Vec<I>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<Result<O, ItemError>>, Error>> + Send + 'static,
    {
        let _place = self.places.acquire().await;
        let (answer, outcome) = oneshot::channel();
        let serve_it = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let group =
                groups.entry(key.clone()).or_insert_with(|| Group { waiting: Vec::new(), servers: 0 });
            group.waiting.push((item, answer));
            let serve_it = group.servers < MOST_AT_ONCE;
            group.servers += usize::from(serve_it);
            serve_it
        };
        if serve_it {
            tokio::spawn(serve(Arc::clone(&self.groups), key, run));
        }
        outcome.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Sends batches of one group, one after the other, until nobody waits.
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

/// One who serves a group. When the last of them ends, the group goes, even by a panic or by the runtime's end.
struct Serving<'a, K: Eq + Hash, I, O> {
    groups: &'a Groups<K, I, O>,
    key: &'a K,
    done: bool,
}

impl<K: Eq + Hash, I, O> Serving<'_, K, I, O> {
    /// The next waiters; `None` ends the serving in the same breath, so that none is left behind.
    fn next(&mut self) -> Option<Vec<Waiter<I, O>>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut groups.get_mut(self.key)?.waiting;
        if waiting.is_empty() {
            self.done = true;
            drop(leave(&mut groups, self.key));
            return None;
        }
        let rest = waiting.split_off(waiting.len().min(MOST_ITEMS));
        Some(std::mem::replace(waiting, rest))
    }
}

impl<K: Eq + Hash, I, O> Drop for Serving<'_, K, I, O> {
    fn drop(&mut self) {
        if !self.done {
            let left = leave(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner), self.key);
            // The waiters' senders are dropped, which tells them.
            drop(left);
        }
    }
}

/// Ends one's serving of a group; gives the group if nobody serves it any more.
fn leave<K: Eq + Hash, I, O>(groups: &mut HashMap<K, Group<I, O>>, key: &K) -> Option<Group<I, O>> {
    let group = groups.get_mut(key)?;
    group.servers -= 1;
    if group.servers == 0 { groups.remove(key) } else { None }
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
    async fn so_many_batches_are_under_way_and_no_more() {
        let (batcher, under_way) = (Arc::new(Numbers::new()), Arc::new(Mutex::new((0_usize, 0_usize))));
        let callers = (0..40).map(|caller| {
            let (batcher, under_way) = (Arc::clone(&batcher), Arc::clone(&under_way));
            tokio::spawn(async move {
                for n in 0..5 {
                    let under_way = Arc::clone(&under_way);
                    let run = move |items| {
                        let under_way = Arc::clone(&under_way);
                        async move {
                            {
                                let (now, most) = &mut *under_way.lock().unwrap();
                                *now += 1;
                                *most = (*most).max(*now);
                            }
                            for _ in 0..caller {
                                tokio::task::yield_now().await;
                            }
                            under_way.lock().unwrap().0 -= 1;
                            double(items).await
                        }
                    };
                    // Callers come one by one.
                    for _ in 0..caller * 3 {
                        tokio::task::yield_now().await;
                    }
                    let number = caller * 5 + n;
                    assert_eq!(batcher.submit("g", number, run).await.unwrap().unwrap(), number * 2);
                }
            })
        });
        for outcome in join_all(callers.collect::<Vec<_>>()).await {
            outcome.unwrap();
        }
        assert_eq!(*under_way.lock().unwrap(), (0, MOST_AT_ONCE));
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
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let run = || {
            let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
            move |items: Vec<u32>| {
                seen.lock().unwrap().extend(&items);
                let gate = Arc::clone(&gate);
                async move {
                    drop(gate.acquire().await);
                    double(items).await
                }
            }
        };
        // As many batches as there may be, and all of them wait.
        let mut first = Vec::new();
        for number in 0..MOST_AT_ONCE as u32 {
            let (batcher, run) = (Arc::clone(&batcher), run());
            first.push(tokio::spawn(async move { batcher.submit("g", number, run).await }));
            while !seen.lock().unwrap().contains(&number) {
                tokio::task::yield_now().await;
            }
        }
        let wait = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, batcher.submit("g", 98, run())).await.is_err());
        gate.add_permits(1);
        for outcome in join_all(first).await {
            assert!(outcome.unwrap().unwrap().is_ok());
        }
        assert!(batcher.submit("g", 99, run()).await.unwrap().is_ok());
        let seen = seen.lock().unwrap();
        assert!(seen.contains(&99) && !seen.contains(&98), "{seen:?}");
    }
}
