//! Whether all instances are configured with the same KMS keys: nobody re-wraps until they are.
//!
//! A re-wrap makes wraps by the KMS keys that its worker knows, and drops all others. So one by an instance that still runs
//! with the configuration of before undoes what those with the new one did, and one by an instance with the new one takes
//! from those of before what they open keys with. Hence:
//!
//! * Each instance says which KMS keys it is configured with ([`KmsSet`]), before it serves anybody, and as long as it
//!   lives: in a lease of its log's number, whose holder is that set. A re-wrap is taken up, and each of its wraps is
//!   written, only while no live instance says anything else. Who comes later has said so before it makes a key.
//! * The order of a re-wrap names the set of the instance that took it. Others leave it alone, also when that instance is
//!   gone.
//! * Who has seen that stay so for [`PATIENCE`], and the job as it was, lets it fail and says why: who asked for it is to
//!   know. How long the job has been there says nothing: it may have waited for room.
//!
//! An instance counts as live until what it said was seen as it is for as long as that holds, by the time that passes for
//! the one who looks: a clock that is wrong makes nobody live for longer, nor dead. Only what is seen for the first time is
//! judged by the clocks of both: if it has expired its instance is gone, unless it says it again. An engine that only one
//! process can have open needs none of this but the order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{Clock, InstanceId, Job, JobPlace, KmsSet, LeaseName, Timestamp};
use crate::store::{Change, Lease, LogId, Store, StoreError, Write};

/// What an instance said holds for so many lifetimes of a job's lease.
const LIFETIME: u32 = 4;
/// A re-wrap waits for so many of them.
const PATIENCE: u32 = 8;
/// How often it is tried to say something. Nobody else writes an instance's row.
const ATTEMPTS: usize = 4;

/// What is to be done with a re-wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be done here, now.
    Go,
    /// Not now, or not here.
    Wait,
    /// Not at all: nobody did it in time.
    Fail,
}

/// What the instances say, and this one among them.
pub(super) struct Agreement {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    set: KmsSet,
    lease: Duration,
    /// When it was said last.
    said: Mutex<Option<Instant>>,
    /// What others said, as it was seen last.
    seen: Mutex<HashMap<LogId, Sight>>,
    /// Re-wraps that could not be done here, by their revision, and since when.
    waiting: Mutex<HashMap<JobPlace, (u64, Instant)>>,
}

/// What an instance said.
struct Sight {
    revision: u64,
    /// Since when it has been seen; `None` if its time was over then.
    since: Option<Instant>,
}

impl Agreement {
    /// For an instance that is configured with this set. `lease`: that of jobs.
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, set: KmsSet, lease: Duration) -> Self {
        let (said, seen, waiting) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { store, clock, set, lease, said, seen, waiting }
    }

    /// Says it, or says it again if it is time to.
    pub(super) async fn say(&self) -> Result<(), StoreError> {
        let lifetime = self.lease * LIFETIME;
        let is_fresh = |at: &Instant| at.elapsed() < lifetime / 4;
        if !self.store.is_shared() || self.said.lock().as_ref().is_some_and(is_fresh) {
            return Ok(());
        }
        let now = Instant::now();
        self.put(later(self.clock.now(), lifetime)).await?;
        *self.said.lock() = Some(now);
        Ok(())
    }

    /// Takes it back: nobody needs to wait for an instance that stops.
    pub(super) async fn unsay(&self) {
        if self.said.lock().take().is_some()
            && let Err(error) = self.put(Timestamp(0)).await
        {
            tracing::debug!(%error, "what this instance said of its KMS keys was not taken back: it ends by itself");
        }
    }

    /// What is to be done with a re-wrap as it stands.
    pub(super) async fn on(&self, job: &Job) -> Result<Verdict, StoreError> {
        if job.order.kms_set.is_none_or(|set| set == self.set) && self.holds().await? {
            self.waiting.lock().remove(&job.place);
            return Ok(Verdict::Go);
        }
        let mut waiting = self.waiting.lock();
        let (revision, since) = waiting.entry(job.place.clone()).or_insert((job.revision, Instant::now()));
        // Nobody changes it while it waits. What somebody changed is another, or was done in part meanwhile.
        if *revision != job.revision {
            (*revision, *since) = (job.revision, Instant::now());
        }
        Ok(if since.elapsed() > self.lease * PATIENCE { Verdict::Fail } else { Verdict::Wait })
    }

    /// Whether no live instance says anything else.
    pub(super) async fn holds(&self) -> Result<bool, StoreError> {
        if !self.store.is_shared() {
            return Ok(true);
        }
        // First this: of two that look at once, one sees the other.
        self.say().await?;
        let mut holds = true;
        // All are looked at, so that each is seen from now on.
        for log in self.store.logs().await? {
            let Some(said) = self.store.lease(&name(log)).await? else { continue };
            let lives = self.lives(log, &said);
            holds &= !lives || said.holder == self.holder();
        }
        Ok(holds)
    }

    /// Whether who said this lives, as far as can be seen from here.
    fn lives(&self, log: LogId, said: &Lease) -> bool {
        let mut seen = self.seen.lock();
        let since = match seen.get(&log) {
            Some(before) if before.revision == said.revision => before.since,
            Some(_) => Some(Instant::now()),
            None => (said.expires > self.clock.now()).then(Instant::now),
        };
        seen.insert(log, Sight { revision: said.revision, since });
        said.expires != Timestamp(0) && since.is_some_and(|since| since.elapsed() < self.lease * LIFETIME)
    }

    fn holder(&self) -> InstanceId {
        InstanceId::from_bytes(*self.set.as_bytes())
    }

    async fn put(&self, expires: Timestamp) -> Result<(), StoreError> {
        let name = name(self.store.log());
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let there = self.store.lease(&name).await?;
            let (fence, revision) = there.map_or((1, 0), |there| (there.fence + 1, there.revision + 1));
            let lease = Lease { name: name.clone(), holder: self.holder(), fence, expires, revision };
            let change = Change { writes: vec![Write::PutLease(lease)], entries: Vec::new() };
            match self.store.commit(change).await {
                Ok(_) => return Ok(()),
                Err(error @ StoreError::Conflict { .. }) => conflict = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(conflict.expect("there was an attempt"))
    }
}

fn name(log: LogId) -> LeaseName {
    LeaseName::parse(&format!("kms-keys/{log}")).expect("a log's number is part of a lease's name")
}

fn later(time: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::advance;

    use super::*;
    use crate::domain::{JobBudget, JobId, JobKind, JobOrder, JobProgress, JobState, PrincipalId};
    use crate::store::memory::MemoryStore;

    const LEASE: Duration = Duration::from_secs(1);

    struct Hands(AtomicU64);

    impl Hands {
        fn turn(&self, by: Duration) {
            self.0.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
        }

        fn back(&self, by: Duration) {
            self.0.fetch_sub(u64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
        }
    }

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::SeqCst))
        }
    }

    /// So many instances with these sets, by their first bytes.
    async fn instances<const N: usize>(sets: [u8; N]) -> (Arc<Hands>, [Agreement; N]) {
        let (store, clock) = (MemoryStore::new(), Arc::new(Hands(AtomicU64::new(1 << 50))));
        let mut all = Vec::new();
        for (log, set) in sets.into_iter().enumerate() {
            let store = store.instance(LogId(u32::try_from(log).unwrap()));
            // Its log is there.
            let first = Change { writes: Vec::new(), entries: vec![vec![1].into()] };
            store.commit(first).await.unwrap();
            let (set, clock) = (KmsSet::from_bytes([set; 16]), Arc::clone(&clock) as Arc<dyn Clock>);
            all.push(Agreement::new(Arc::new(store), clock, set, LEASE));
        }
        (clock, all.try_into().ok().unwrap())
    }

    /// Another process with the same log.
    fn beside(instance: &Agreement, set: u8) -> Agreement {
        let (store, clock) = (Arc::clone(&instance.store), Arc::clone(&instance.clock));
        Agreement::new(store, clock, KmsSet::from_bytes([set; 16]), LEASE)
    }

    fn rewrap(set: Option<u8>, revision: u64) -> Job {
        Job {
            id: JobId::from_bytes([1; 16]),
            place: JobPlace { tenant: None, kind: JobKind::Rewrap },
            order: JobOrder {
                key: None,
                budget: JobBudget::default(),
                asked_by: PrincipalId::parse("rota").unwrap(),
                asked: Timestamp(1),
                not_before: Timestamp(1),
                asker: Vec::new(),
                kms_set: set.map(|set| KmsSet::from_bytes([set; 16])),
            },
            state: JobState::Running,
            approved_by: None,
            begun: Timestamp(0),
            changed: Timestamp(1),
            progress: JobProgress::default(),
            cause: String::new(),
            revision,
        }
    }

    #[tokio::test]
    async fn instances_agree_while_none_that_lives_says_anything_else() {
        let (_, [one, two, other]) = instances([1, 1, 2]).await;
        one.say().await.unwrap();
        two.say().await.unwrap();
        assert!(one.holds().await.unwrap() && two.holds().await.unwrap());
        other.say().await.unwrap();
        for instance in [&one, &two, &other] {
            assert!(!instance.holds().await.unwrap());
        }
        other.unsay().await;
        assert!(one.holds().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fell_silent_is_in_the_way_until_it_was_seen_to_be() {
        let (clock, [one, other]) = instances([1, 2]).await;
        other.say().await.unwrap();
        assert!(!one.holds().await.unwrap());
        advance(LEASE * (LIFETIME - 1)).await;
        other.say().await.unwrap();
        for _ in 0..LIFETIME {
            assert!(!one.holds().await.unwrap());
            advance(LEASE).await;
        }
        assert!(one.holds().await.unwrap());
        other.say().await.unwrap();
        assert!(!one.holds().await.unwrap());
        // Who was not there sees at once that it is long over.
        clock.turn(LEASE * LIFETIME);
        let late = beside(&one, 1);
        assert!(late.holds().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_with_a_wrong_clock_is_in_the_way_for_as_long_as_any_other() {
        const YEAR: Duration = Duration::from_hours(365 * 24);
        let (clock, [one, other]) = instances([1, 2]).await;
        clock.turn(YEAR);
        other.say().await.unwrap();
        clock.back(YEAR);
        assert!(!one.holds().await.unwrap());
        advance(LEASE * LIFETIME).await;
        assert!(one.holds().await.unwrap(), "it fell silent");
        clock.back(LEASE * LIFETIME);
        other.say().await.unwrap();
        clock.turn(LEASE * LIFETIME);
        assert!(!one.holds().await.unwrap(), "its clock is behind, and it lives");
    }

    #[tokio::test]
    async fn who_looks_has_said_its_own_first() {
        let (_, [one, other]) = instances([1, 2]).await;
        assert!(one.holds().await.unwrap());
        assert!(!other.holds().await.unwrap());
        assert!(!one.holds().await.unwrap());
    }

    #[tokio::test]
    async fn a_log_that_is_taken_over_says_what_its_new_owner_says() {
        let (_, [one, other]) = instances([1, 2]).await;
        other.say().await.unwrap();
        let restarted = beside(&other, 1);
        restarted.say().await.unwrap();
        assert!(one.holds().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_for_those_with_its_kms_keys_and_fails_when_none_of_them_comes() {
        let (_, [one, other]) = instances([1, 2]).await;
        assert_eq!(one.on(&rewrap(Some(1), 0)).await, Ok(Verdict::Go));
        assert_eq!(one.on(&rewrap(None, 0)).await, Ok(Verdict::Go), "from before orders named them");
        assert_eq!(one.on(&rewrap(Some(2), 0)).await, Ok(Verdict::Wait));
        other.say().await.unwrap();
        assert_eq!(one.on(&rewrap(Some(1), 1)).await, Ok(Verdict::Wait));
        assert_eq!(one.on(&rewrap(None, 1)).await, Ok(Verdict::Wait));
        advance(LEASE * PATIENCE + Duration::from_millis(1)).await;
        assert_eq!(one.on(&rewrap(Some(1), 1)).await, Ok(Verdict::Go), "the other fell silent");
        assert_eq!(one.on(&rewrap(Some(2), 1)).await, Ok(Verdict::Wait), "since now");
        advance(LEASE * PATIENCE + Duration::from_millis(1)).await;
        assert_eq!(one.on(&rewrap(Some(2), 1)).await, Ok(Verdict::Fail));
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_a_job_waited_for_something_else_is_not_counted() {
        let (clock, [one]) = instances([1]).await;
        // For room, for a year; by the clock, at least.
        clock.turn(Duration::from_hours(365 * 24));
        assert_eq!(one.on(&rewrap(Some(2), 0)).await, Ok(Verdict::Wait));
        advance(LEASE * PATIENCE).await;
        assert_eq!(one.on(&rewrap(Some(2), 0)).await, Ok(Verdict::Wait));
        // It was paused and resumed, or is another.
        assert_eq!(one.on(&rewrap(Some(2), 2)).await, Ok(Verdict::Wait));
        advance(LEASE * PATIENCE).await;
        assert_eq!(one.on(&rewrap(Some(2), 2)).await, Ok(Verdict::Wait));
        advance(Duration::from_millis(1)).await;
        assert_eq!(one.on(&rewrap(Some(2), 2)).await, Ok(Verdict::Fail));
    }
}
