//! Leases and their fences.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Backend, CONFLICT, get, record, write};
use crate::domain::{Clock, InstanceId, LeaseName, Timestamp};
use crate::store::{Held, LeaseError, Leases, Store, StoreError, Write};

/// For leases that nobody waits for.
const LONG: Duration = Duration::from_hours(1);
/// Leases that are looked at after it.
const SHORT: Duration = Duration::from_millis(20);

/// Leases of an instance whose clock stands still.
fn leases(store: &Arc<dyn Store>, instance: u8, now: u64) -> Leases {
    struct At(u64);
    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp(self.0)
        }
    }
    Leases::new(Arc::clone(store), Arc::new(At(now)), id(instance))
}

fn id(instance: u8) -> InstanceId {
    InstanceId::from_bytes([instance; 16])
}

fn work() -> LeaseName {
    LeaseName::parse("job/reencrypt/st-mary").unwrap()
}

pub(crate) async fn a_lease_has_one_holder_at_a_time(backend: &impl Backend) {
    let store = backend.open();
    assert_eq!(store.lease(&work()).await, Ok(None));
    let (ann, bob) = (leases(&store, 1, 100), leases(&store, 2, 100));
    let mut held = ann.take(&work(), LONG).await.unwrap().unwrap();
    assert_eq!(held.number(), 1);
    assert_eq!(bob.take(&work(), LONG).await, Ok(None));
    // Each time it was renewed since it was seen last.
    for _ in 0..3 {
        ann.renew(&mut held, LONG).await.unwrap();
        sleep(SHORT).await;
        assert_eq!(bob.take(&work(), SHORT).await, Ok(None));
    }
    ann.release(held).await.unwrap();
    assert_eq!(bob.take(&work(), LONG).await.unwrap().unwrap().number(), 2);
    let other = LeaseName::parse("job/reencrypt/st-john").unwrap();
    assert_eq!(ann.take(&other, LONG).await.unwrap().unwrap().number(), 1);
}

pub(crate) async fn a_lease_that_was_left_alone_is_taken_under_a_new_fence(backend: &impl Backend) {
    let store = backend.open();
    let (ann, bob) = (leases(&store, 1, 100), leases(&store, 2, 100));
    let mut held = ann.take(&work(), SHORT).await.unwrap().unwrap();
    sleep(SHORT).await;
    assert_eq!(bob.take(&work(), SHORT).await, Ok(None), "seen for the first time");
    sleep(SHORT).await;
    let taken = bob.take(&work(), SHORT).await.unwrap().unwrap();
    assert_eq!((held.number(), taken.number()), (1, 2));
    assert_eq!(ann.renew(&mut held, SHORT).await, Err(LeaseError::Lost(work())));
    assert_eq!(ann.release(held).await, Err(LeaseError::Lost(work())));
    // Who holds it takes it anew, as after a crash.
    assert_eq!(bob.take(&work(), SHORT).await.unwrap().unwrap().number(), 3);
    drop((store, ann, bob));
    assert_eq!(backend.open().lease(&work()).await.unwrap().unwrap().fence, 3);
}

pub(crate) async fn no_clock_says_when_a_lease_is_taken(backend: &impl Backend) {
    const YEAR: u64 = 365 * 86_400 * 1_000_000;
    let store = backend.open();
    let (behind, ahead) = (leases(&store, 1, YEAR), leases(&store, 2, 2 * YEAR));
    for (holder, other) in [(&behind, &ahead), (&ahead, &behind)] {
        let held = holder.take(&work(), LONG).await.unwrap().unwrap();
        for _ in 0..2 {
            assert_eq!(other.take(&work(), LONG).await, Ok(None));
        }
        holder.release(held).await.unwrap();
    }
}

pub(crate) async fn a_write_under_an_old_fence_writes_nothing(backend: &impl Backend) {
    let store = backend.open();
    let ann = leases(&store, 1, 100);
    let held = ann.take(&work(), LONG).await.unwrap().unwrap();
    write(&store, [held.fence(), Write::Insert(record(1))]).await.unwrap();
    write(&store, [Write::Insert(record(2)), held.fence()]).await.unwrap();
    ann.release(held.clone()).await.unwrap();
    let taken = leases(&store, 2, 100).take(&work(), LONG).await.unwrap().unwrap();
    assert_eq!(write(&store, [held.fence(), Write::Insert(record(3))]).await, CONFLICT);
    let behind = write(&store, [Write::Insert(record(3)), held.fence()]).await;
    assert_eq!(behind, Err(StoreError::Conflict { write: 1 }));
    assert_eq!(get(&store, 3).await, None);
    write(&store, [taken.fence(), Write::Insert(record(3))]).await.unwrap();
    let unknown = LeaseName::parse("job/none").unwrap();
    assert_eq!(write(&store, [Write::Fence { lease: unknown, fence: 0 }]).await, CONFLICT);
}

pub(crate) async fn concurrent_takers_of_a_lease_have_one_winner(backend: &impl Backend) {
    let store = backend.open();
    let takers: Vec<_> = (0..16_u8).map(|taker| Arc::new(leases(&store, taker, 100))).collect();
    for round in 1..=8_u64 {
        // Each has seen it as it is, but who holds it: that one is dead.
        let holder = store.lease(&work()).await.unwrap().map(|lease| lease.holder);
        let others = takers.iter().zip(0..16_u8).filter(|(_, taker)| holder != Some(id(*taker)));
        let others: Vec<_> = others.map(|(leases, _)| Arc::clone(leases)).collect();
        if holder.is_some() {
            for taker in &others {
                assert_eq!(taker.take(&work(), LONG).await, Ok(None));
            }
            sleep(SHORT).await;
        }
        let take = |taker: Arc<Leases>| async move { taker.take(&work(), SHORT).await.unwrap() };
        let taking = others.into_iter().map(|taker| tokio::spawn(take(taker)));
        let mut winners = Vec::new();
        for taker in taking.collect::<Vec<_>>() {
            winners.extend(taker.await.unwrap());
        }
        assert_eq!(winners.iter().map(Held::number).collect::<Vec<_>>(), [round]);
    }
}
