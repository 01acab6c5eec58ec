use prost::Message as _;
use vault_proto::v1::AuditEntry;

use super::*;
use crate::audit::AuditAction;
use crate::audit::test_store::TestStore;
use crate::audit::testing::{draft, items, log, permitted, record, token};
use crate::crypto::{Detokenize, Mask};
use crate::domain::Token;

fn store() -> Arc<TestStore> {
    Arc::new(TestStore::new())
}

fn fatal() -> StoreError {
    StoreError::Fatal { why: "sync failed".into() }
}

/// Lets other tasks run until `done`, for a while.
async fn eventually(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("did not come to pass");
}

#[tokio::test]
async fn a_receipt_is_given_when_the_entry_is_durable() {
    let store = store();
    let (draft, permit) = permitted::<Detokenize>(1, vec![record(1), record(2)]);
    let items = items(permit.records());
    let receipt = log(&store).before_open(draft, &permit, items).await.unwrap();
    assert_eq!(receipt.request(), permit.request());
    assert!(receipt.covers(&permit));
    let entry = AuditEntry::decode(&store.inner.lock().entries[0][..]).unwrap();
    assert_eq!(entry.items.len(), 2);
}

#[tokio::test]
async fn no_receipt_before_durability_and_an_answer_within_the_deadline() {
    let store = store();
    store.block(true);
    let log = log(&store);
    let (draft, permit) = permitted::<Detokenize>(1, vec![record(1)]);
    let items = items(permit.records());
    let begun = std::time::Instant::now();
    let refused = log.before_open(draft, &permit, items).await;
    assert!(matches!(refused, Err(LogError::Deadline)));
    assert!(begun.elapsed() >= Duration::from_millis(100) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(store.len(), 0);
    // What was handed to the store is let run to its end: the entry may be there, the receipt never.
    store.block(false);
    eventually(|| store.len() == 1).await;
    eventually(|| log.free_slots() == 4).await;
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_a_whole_change() {
    let store = store();
    store.block(true);
    let log = log(&store);
    {
        let change = log.record(draft(1), Vec::new());
        tokio::select! {
            biased;
            _ = change => panic!("the store is blocked"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    assert_eq!(log.free_slots(), 3);
    store.block(false);
    eventually(|| store.len() == 1 && log.free_slots() == 4).await;
}

#[tokio::test]
async fn more_than_the_bound_in_flight_is_refused_at_once() {
    let store = store();
    store.block(true);
    let log = log(&store);
    let all = (0..4).map(|i| log.record(draft(i), Vec::new()));
    let (waiting, refused) = tokio::join!(futures::future::join_all(all), async {
        eventually(|| log.free_slots() == 0).await;
        log.record(draft(9), Vec::new()).await
    });
    assert!(waiting.iter().all(|answer| *answer == Err(LogError::Deadline)));
    // At once: after the deadline it would be another error.
    assert_eq!(refused, Err(LogError::Overloaded));
    // A store that hangs keeps its slots: no pile grows behind the deadline.
    assert_eq!(log.record(draft(9), Vec::new()).await, Err(LogError::Overloaded));
    store.block(false);
    eventually(|| log.free_slots() == 4).await;
    assert_eq!(log.record(draft(9), Vec::new()).await, Ok(Committed { first_sequence: 4 }));
}

#[tokio::test]
async fn a_failed_sync_stops_everything_for_good() {
    let store = store();
    let log = log(&store);
    let failure = log.failure();
    store.fail(Some(fatal()));
    assert_eq!(log.record(draft(1), Vec::new()).await, Err(LogError::Fatal));
    assert!(log.is_failed());
    failure.cancelled().await;
    store.fail(None);
    assert_eq!(log.record(draft(1), Vec::new()).await, Err(LogError::Fatal));
    assert_eq!(store.len(), 0);
}

#[tokio::test]
async fn a_failure_after_the_deadline_stops_everything_too() {
    let store = store();
    let log = log(&store);
    store.block(true);
    assert_eq!(log.record(draft(1), Vec::new()).await, Err(LogError::Deadline));
    store.fail(Some(fatal()));
    store.block(false);
    log.failure().cancelled().await;
}

#[tokio::test]
async fn what_the_store_answers_is_told() {
    let store = store();
    let log = log(&store);
    for (fault, told) in [
        (StoreError::Conflict { write: 3 }, LogError::Conflict { write: 3 }),
        (StoreError::Unavailable { why: String::new() }, LogError::Unavailable),
        (StoreError::Corrupt { what: String::new() }, LogError::Corrupt),
        (StoreError::Late, LogError::Overloaded),
    ] {
        store.fail(Some(fault));
        assert_eq!(log.commit(draft(1), Vec::new(), Vec::new()).await, Err(told));
        assert!(!log.is_failed());
    }
}

#[tokio::test]
async fn a_change_that_others_were_in_the_way_of_is_an_overload_and_a_durable_one_is_timed() {
    let store = store();
    let times = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let log = log(&store).observed(move |time| seen.lock().push(time));
    store.inner.lock().late = true;
    assert_eq!(log.record(draft(1), Vec::new()).await, Err(LogError::Overloaded));
    assert!(times.lock().is_empty());
    store.inner.lock().late = false;
    log.record(draft(1), Vec::new()).await.unwrap();
    assert_eq!(times.lock().len(), 1);
}

/// A mistake of a caller of the log.
type Change = fn(&mut Draft, &mut Vec<Item>);

#[tokio::test]
async fn entries_that_do_not_say_what_is_permitted_are_refused() {
    let records = || vec![record(1), record(2)];
    let changes: &[(&str, Change)] = &[
        ("one is missing", |_, items| drop(items.pop())),
        ("one is denied", |_, items| items[1].outcome = Outcome::Denied),
        ("one more", |_, items| items.push(Item::of_record(&record(3), Outcome::Ok))),
        ("another order", |_, items| items.swap(0, 1)),
        ("another token", |_, items| items[0].token = Some(token(9))),
        ("another subject", |_, items| items[0].subject = None),
        ("another key", |_, items| items[0].key_id = None),
        ("another class", |_, items| items[0].class = None),
        ("another request", |draft, _| draft.request = crate::domain::RequestId::from_bytes([2; 16])),
        ("another action", |draft, _| draft.action = AuditAction::Mask),
        ("another tenant", |draft, _| draft.tenant = None),
        ("a denial", |draft, _| draft.decision = Decision::Deny),
    ];
    for (name, change) in changes {
        let store = store();
        let (mut draft, permit) = permitted::<Detokenize>(1, records());
        let mut items = items(&records());
        change(&mut draft, &mut items);
        let refused = log(&store).before_open(draft, &permit, items).await;
        assert!(matches!(refused, Err(LogError::Mismatch)), "{name}");
        assert_eq!(store.len(), 0, "{name}");
    }
    let (draft, permit) = permitted::<Mask>(1, records());
    let items = items(&records());
    assert!(matches!(log(&store()).before_open(draft, &permit, items).await, Err(LogError::Mismatch)));
}

#[tokio::test]
async fn denied_items_stand_beside_the_permitted_ones() {
    let store = store();
    let (draft, permit) = permitted::<Detokenize>(1, vec![record(1)]);
    let draft = Draft { decision: Decision::Partial, ..draft };
    let items = vec![
        Item::invalid(),
        Item::of_record(&record(1), Outcome::Ok),
        Item::of_token(token(2), Outcome::Unknown),
    ];
    assert!(log(&store).before_open(draft, &permit, items).await.is_ok());
}

#[tokio::test]
async fn a_receipt_does_not_cover_another_permit() {
    let store = store();
    let (draft, permit) = permitted::<Detokenize>(1, vec![record(1)]);
    let receipt = log(&store).before_open(draft, &permit, items(&[record(1)])).await.unwrap();
    for (request, records) in
        [(2, vec![record(1)]), (1, vec![record(2)]), (1, vec![]), (1, vec![record(1), record(2)])]
    {
        assert!(!receipt.covers(&permitted::<Detokenize>(request, records).1));
    }
}

#[test]
fn tokens_stay_small() {
    // A receipt keeps the tokens of a batch of a thousand: 16 kB.
    assert_eq!(size_of::<Token>(), 16);
}
