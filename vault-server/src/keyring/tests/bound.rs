//! How long what another instance changes takes to be in force here.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_state_that_another_instance_wrote_takes_effect_within_the_bound() {
    for (state, error) in
        [(KeyState::Compromised, KeyringError::Unusable), (KeyState::Destroyed, KeyringError::Destroyed)]
    {
        let bench = Bench::new();
        let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
        bench.open_one(&mary(), id).await.unwrap();
        bench.store.change(id, |key| key.state = state);
        sleep(FRESH).await;
        assert_eq!(bench.open_one(&mary(), id).await.err(), Some(error));
        assert_eq!(bench.keyring.active_data_key(&mary()).await.err(), Some(KeyringError::Unusable));
        assert_eq!(bench.keyring.stats().entries, 0, "its bytes are gone from the cache");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_store_no_key_is_used_past_the_bound() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.open_one(&mary(), id).await.unwrap();
    bench.store.down.store(true, Ordering::Relaxed);
    sleep(FRESH).await;
    assert!(matches!(bench.open_one(&mary(), id).await, Err(KeyringError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_once_a_second_for_a_tenant_in_use() {
    let bench = Bench::new();
    bench.keyring.active_data_key(&mary()).await.unwrap();
    let before = bench.store.reads.load(Ordering::Relaxed);
    for _ in 0..100 {
        bench.keyring.active_data_key(&mary()).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let reads = bench.store.reads.load(Ordering::Relaxed) - before;
    assert!((9..=11).contains(&reads), "{reads}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_marked_while_the_kms_was_slow_is_not_handed_out() {
    for state in [KeyState::Compromised, KeyState::Destroyed] {
        let bench = Bench::with(OPTIONS, FRESH * 5);
        let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
        bench.keyring.forget_all();
        let tenant = mary();
        let (first, joined, ()) =
            tokio::join!(bench.open_one(&tenant, id), bench.open_one(&tenant, id), async {
                sleep(FRESH / 10).await;
                bench.store.change(id, |key| key.state = state);
            });
        assert!(first.is_err() && joined.is_err(), "{state:?}");
        assert_eq!(bench.keyring.stats().entries, 0, "its bytes are gone from the cache");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_marked_while_another_was_opened_is_not_handed_out() {
    let bench = Bench::with(OPTIONS, FRESH * 5);
    let marked = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    let other = bench.keyring.active_data_key(&john()).await.unwrap().id();
    bench.keyring.forget_all();
    // The one is open; the KMS takes its time for the other.
    bench.open_one(&mary(), marked).await.unwrap();
    let records = [record(&mary(), marked), record(&john(), other)];
    let (keys, ()) = tokio::join!(bench.open(&records), async {
        sleep(FRESH / 10).await;
        bench.store.change(marked, |key| key.state = KeyState::Compromised);
    });
    assert!(matches!(keys[&marked], Err(KeyringError::Unusable)));
    assert!(keys[&other].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_long_on_its_way_opens_nothing() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    sleep(FRESH).await;
    *bench.store.delay.lock() = FRESH * 4;
    let tenant = mary();
    let (first, joined, ()) = tokio::join!(
        bench.open_one(&tenant, id),
        async {
            sleep(FRESH * 3).await;
            bench.open_one(&tenant, id).await
        },
        async {
            sleep(FRESH / 10).await;
            bench.store.change(id, |key| key.state = KeyState::Compromised);
        }
    );
    assert!(matches!((first, joined), (Err(KeyringError::Unusable), Err(KeyringError::Unusable))));
    // One that never comes in time opens nothing either.
    bench.store.change(id, |key| key.state = KeyState::Active);
    sleep(FRESH).await;
    bench.open_one(&tenant, id).await.unwrap();
    sleep(FRESH).await;
    let late = async {
        loop {
            *bench.store.delay.lock() = FRESH * 2;
            sleep(FRESH / 100).await;
        }
    };
    tokio::select! {
        opened = bench.open_one(&tenant, id) => assert!(matches!(opened, Err(KeyringError::Store(_)))),
        () = late => {}
    }
}

#[tokio::test(start_paused = true)]
async fn all_index_keys_are_those_of_now_for_who_asks_so() {
    let bench = Bench::new();
    let old = bench.keyring.active_index_key(&mary()).await.unwrap().id();
    let mut next = bench.store.only();
    (next.id, next.version) = (KeyId::from_bytes([5; 16]), KeyVersion(2));
    let context = KeyContext {
        identity: bench.keyring.0.identity.clone(),
        tenant: Some(mary()),
        purpose: KeyPurpose::Index,
        key_id: next.id,
    };
    (_, next.wraps) = bench.keyring.0.kms.generate(&context).await.unwrap();
    let ids = |keys: Vec<Arc<IndexKey>>| keys.iter().map(|key| key.id()).collect::<Vec<_>>();
    assert_eq!(ids(bench.keyring.index_keys(&mary()).await.unwrap()), [old]);
    let new = next.id;
    bench.store.keys.lock().push(next);
    assert_eq!(ids(bench.keyring.index_keys(&mary()).await.unwrap()), [old], "for up to a second");
    assert_eq!(ids(bench.keyring.index_keys_now(&mary()).await.unwrap()), [new, old]);
}

#[tokio::test]
async fn who_asks_for_the_keys_of_now_at_once_shares_the_questions() {
    let bench = Bench::new();
    bench.keyring.active_index_key(&mary()).await.unwrap();
    let before = bench.store.reads.load(Ordering::Relaxed);
    let tenant = mary();
    let all = join_all((0..500).map(|_| bench.keyring.index_keys_now(&tenant))).await;
    assert!(all.into_iter().all(|keys| keys.unwrap().len() == 1));
    let reads = bench.store.reads.load(Ordering::Relaxed) - before;
    assert!((1..=3).contains(&reads), "{reads}");
}
