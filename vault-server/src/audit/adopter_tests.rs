use vault_format::checkpoint::Checkpoint;

use vault_format::note::Signer;

use super::*;
use crate::audit::Fixed;
use crate::audit::test_store::TestStore;
use crate::audit::testing::{StoppedClock, draft, identity, items, log, record};
use crate::store::LogId;

const LONG: Duration = Duration::from_secs(20);

fn signer() -> Signer {
    Signer::from_seed(&origin(&identity(), LogId(0)), &[3; 32]).unwrap()
}

fn fixed() -> Arc<dyn SigningSource> {
    Arc::new(Fixed::from(signer()))
}

fn options() -> FollowerOptions {
    FollowerOptions { checkpoint_every: Duration::from_hours(1) }
}

fn adopter(store: &Arc<TestStore>) -> Adopter {
    Adopter::new(Arc::clone(store) as _, identity(), fixed(), Arc::new(StoppedClock), options())
}

/// The log of an instance that crashed with so many entries, of which none is under a checkpoint.
async fn crashed(log_id: u32, entries: u64) -> Arc<TestStore> {
    let store = Arc::new(TestStore::of(LogId(log_id)));
    let log = log(&store);
    for i in 0..entries {
        log.record(draft(i as u8), items(&[record(i)])).await.unwrap();
    }
    store
}

/// What covers all entries of a log, if anything does.
fn checkpoint(store: &TestStore) -> Option<Checkpoint> {
    let verifier = signer().verifier().named(&origin(&identity(), store.log())).unwrap();
    let (size, text) = store.inner.lock().checkpoint.clone()?;
    let checkpoint = Checkpoint::open_strict(&text, &verifier).unwrap();
    (size == store.len() as u64).then_some(checkpoint)
}

#[tokio::test]
async fn each_log_of_a_crashed_instance_ends_under_a_checkpoint_of_its_own_origin() {
    let (store, one, two) = (Arc::new(TestStore::new()), crashed(1, 300).await, crashed(2, 5).await);
    store.to_adopt([&one, &two]);
    adopter(&store).round(&CancellationToken::new()).await.unwrap();
    for (log, size) in [(&one, 300), (&two, 5)] {
        assert_eq!(checkpoint(log).unwrap().size, size);
        assert!(log.is_closed());
    }
    assert!(!store.is_closed());
}

#[tokio::test]
async fn a_log_that_was_followed_before_is_taken_up_where_that_ended() {
    let (store, one) = (Arc::new(TestStore::new()), crashed(1, 300).await);
    let (origin, clock) = (origin(&identity(), LogId(1)), Arc::new(StoppedClock));
    let followed = Follower::start(Arc::clone(&one) as _, fixed(), &origin, clock, options()).await.unwrap();
    followed.fresh_checkpoint(LONG).await.unwrap();
    followed.stop(LONG).await;
    log(&one).record(draft(1), items(&[record(1)])).await.unwrap();
    assert_eq!(checkpoint(&one), None);
    store.to_adopt([&one]);
    adopter(&store).round(&CancellationToken::new()).await.unwrap();
    assert_eq!(checkpoint(&one).unwrap().size, 301);
    assert_eq!(one.inner.lock().derived_at, [300, 301]);
}

#[tokio::test]
async fn a_log_that_is_not_what_was_signed_is_given_back_and_keeps_no_other_from_its_turn() {
    let (store, bad, good) = (Arc::new(TestStore::new()), crashed(1, 3).await, crashed(2, 3).await);
    bad.inner.lock().upto = 2;
    store.to_adopt([&bad, &good]);
    adopter(&store).round(&CancellationToken::new()).await.unwrap();
    assert_eq!((checkpoint(&bad), checkpoint(&good).unwrap().size), (None, 3));
    assert!(bad.is_closed() && good.is_closed());
}

#[tokio::test]
async fn a_log_that_is_handed_out_again_does_not_keep_a_round_from_its_end() {
    let (store, one) = (Arc::new(TestStore::new()), crashed(1, 3).await);
    store.to_adopt(std::iter::repeat_n(&one, 1000));
    adopter(&store).round(&CancellationToken::new()).await.unwrap();
    assert_eq!(store.left_to_adopt(), 998);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_asked_again_until_the_vault_stops() {
    let (store, one) = (Arc::new(TestStore::new()), crashed(1, 3).await);
    store.fail(Some(StoreError::Unavailable { why: String::new() }));
    store.to_adopt([&one]);
    let stopping = CancellationToken::new();
    let task = tokio::spawn(adopter(&store).run(stopping.clone()));
    tokio::time::sleep(4 * EVERY).await;
    assert_eq!(store.left_to_adopt(), 1);
    store.fail(None);
    tokio::time::sleep(2 * EVERY).await;
    assert_eq!(checkpoint(&one).unwrap().size, 3);
    stopping.cancel();
    task.await.unwrap();
}
