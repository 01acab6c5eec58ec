//! Leases and their fences.

use std::sync::Arc;

use super::{Backend, CONFLICT, get, record, write};
use crate::domain::{Clock, InstanceId, LeaseName, Timestamp};
use crate::store::{Held, LeaseError, Leases, Store, StoreError, Write};

/// Leases of an instance at a time.
fn leases(store: &Arc<dyn Store>, instance: u8, now: u64) -> Leases {
    struct At(u64);
    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp(self.0)
        }
    }
    Leases::new(Arc::clone(store), Arc::new(At(now)), InstanceId::from_bytes([instance; 16]))
}

const MICROS: fn(u64) -> std::time::Duration = std::time::Duration::from_micros;

fn work() -> LeaseName {
    LeaseName::parse("job/reencrypt/st-mary").unwrap()
}

pub(crate) async fn a_lease_has_one_holder_at_a_time(backend: &impl Backend) {
    let store = backend.open();
    assert_eq!(store.lease(&work()).await, Ok(None));
    let (ann, bob) = (leases(&store, 1, 100), leases(&store, 2, 109));
    let mut held = ann.take(&work(), MICROS(10)).await.unwrap().unwrap();
    assert_eq!(held.number(), 1);
    assert_eq!(bob.take(&work(), MICROS(10)).await, Ok(None));
    ann.renew(&mut held, MICROS(50)).await.unwrap();
    assert_eq!(leases(&store, 2, 149).take(&work(), MICROS(10)).await, Ok(None));
    ann.release(held).await.unwrap();
    assert_eq!(bob.take(&work(), MICROS(10)).await.unwrap().unwrap().number(), 2);
    let other = LeaseName::parse("job/reencrypt/st-john").unwrap();
    assert_eq!(ann.take(&other, MICROS(10)).await.unwrap().unwrap().number(), 1);
}

pub(crate) async fn an_expired_lease_is_taken_under_a_new_fence(backend: &impl Backend) {
    let store = backend.open();
    let (ann, bob) = (leases(&store, 1, 100), leases(&store, 2, 110));
    let mut held = ann.take(&work(), MICROS(10)).await.unwrap().unwrap();
    let taken = bob.take(&work(), MICROS(10)).await.unwrap().unwrap();
    assert_eq!((held.number(), taken.number()), (1, 2));
    assert_eq!(ann.renew(&mut held, MICROS(10)).await, Err(LeaseError::Lost(work())));
    assert_eq!(ann.release(held).await, Err(LeaseError::Lost(work())));
    // Who holds it takes it anew, as after a crash.
    assert_eq!(bob.take(&work(), MICROS(10)).await.unwrap().unwrap().number(), 3);
    drop((store, ann, bob));
    assert_eq!(backend.open().lease(&work()).await.unwrap().unwrap().fence, 3);
}

pub(crate) async fn a_write_under_an_old_fence_writes_nothing(backend: &impl Backend) {
    let store = backend.open();
    let held = leases(&store, 1, 100).take(&work(), MICROS(10)).await.unwrap().unwrap();
    write(&store, [held.fence(), Write::Insert(record(1))]).await.unwrap();
    write(&store, [Write::Insert(record(2)), held.fence()]).await.unwrap();
    let taken = leases(&store, 2, 110).take(&work(), MICROS(10)).await.unwrap().unwrap();
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
    for round in 1..=8_u64 {
        let takers = (0..16_u8).map(|taker| {
            let leases = leases(&store, taker, round * 100);
            tokio::spawn(async move { leases.take(&work(), MICROS(10)).await.unwrap() })
        });
        let mut winners = Vec::new();
        for taker in takers.collect::<Vec<_>>() {
            winners.extend(taker.await.unwrap());
        }
        assert_eq!(winners.iter().map(Held::number).collect::<Vec<_>>(), [round]);
    }
}
