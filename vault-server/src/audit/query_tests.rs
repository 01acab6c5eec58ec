use std::time::Duration;

use proptest::prelude::*;
use vault_format::note::Signer;

use super::*;
use crate::access::testing::test_tenant;
use crate::audit::test_store::TestStore;
use crate::audit::testing::{StoppedClock, draft, items, log, record, subject, token};
use crate::audit::{Draft, Follower, FollowerOptions};

fn all() -> Query {
    Query {
        tenant: None,
        token: None,
        subjects: Vec::new(),
        principal: None,
        action: None,
        since: None,
        until: None,
        limit: 1000,
        page: String::new(),
        oldest_first: false,
    }
}

/// Entry i is about records i % 7 and i % 5; every third is a mask, every fourth another tenant's.
async fn write(store: &Arc<TestStore>, from: u64, until: u64) {
    let log = log(store);
    for i in from..until {
        let mut draft = draft(i as u8);
        if i % 3 == 0 {
            draft.action = AuditAction::Mask;
        }
        if i % 4 == 0 {
            draft.tenant = Some(TenantId::parse("other").unwrap());
        }
        log.record(draft, items(&[record(i % 7), record(i % 5)])).await.unwrap();
    }
}

/// Indexes everything there is; how far that goes.
async fn index(store: &Arc<TestStore>) -> u64 {
    let options = FollowerOptions { checkpoint_every: Duration::from_hours(1) };
    let signer = Signer::from_seed("log", &[3; 32]).unwrap();
    let handle =
        Follower::start(Arc::clone(store) as _, signer, Arc::new(StoppedClock), options).await.unwrap();
    handle.fresh_checkpoint(Duration::from_secs(20)).await.unwrap();
    handle.stop(Duration::from_secs(20)).await;
    handle.covered()
}

async fn ask(store: &Arc<TestStore>, covered: u64, asked: &Query) -> Page {
    query(&(Arc::clone(store) as Arc<dyn Store>), covered, asked).await.unwrap()
}

/// All pages, by their sequences.
async fn sequences(store: &Arc<TestStore>, covered: u64, asked: &Query) -> Vec<u64> {
    let (mut asked, mut found) = (asked.clone(), Vec::new());
    loop {
        let page = ask(store, covered, &asked).await;
        assert!(page.entries.len() <= asked.limit);
        found.extend(page.entries.iter().map(|(sequence, _)| *sequence));
        match page.next {
            Some(next) => asked.page = next,
            None => return found,
        }
    }
}

/// Whether an entry is to be found, by its number.
type Expected = fn(u64) -> bool;

#[tokio::test]
async fn each_key_finds_exactly_its_entries_indexed_or_not() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 700).await;
    let covered = index(&store).await;
    assert_eq!(covered, 700);
    write(&store, 700, 800).await;
    let tenant = Some(test_tenant());
    let queries: &[(Query, Expected)] = &[
        (all(), |_| true),
        (Query { token: Some(token(6)), ..all() }, |i| i % 7 == 6),
        (Query { subjects: vec![subject(6)], ..all() }, |i| i % 7 == 6),
        (Query { subjects: vec![subject(6), subject(5)], ..all() }, |i| i % 7 >= 5),
        (Query { principal: Some(PrincipalId::parse("service").unwrap()), ..all() }, |_| true),
        (Query { principal: Some(PrincipalId::parse("nobody").unwrap()), ..all() }, |_| false),
        (Query { action: Some(AuditAction::Mask), ..all() }, |i| i % 3 == 0),
        (Query { tenant: tenant.clone(), ..all() }, |i| i % 4 != 0),
        (Query { tenant: tenant.clone(), action: Some(AuditAction::Mask), ..all() }, |i| {
            i % 4 != 0 && i % 3 == 0
        }),
        (Query { tenant, token: Some(token(6)), action: Some(AuditAction::Mask), ..all() }, |i| {
            i % 4 != 0 && i % 3 == 0 && i % 7 == 6
        }),
        (Query { since: Some(Timestamp(1_700_000_000_000_001)), ..all() }, |_| false),
        (Query { until: Some(Timestamp(1_700_000_000_000_000)), ..all() }, |_| false),
        (Query { since: Some(Timestamp(1_700_000_000_000_000)), ..all() }, |_| true),
    ];
    for (asked, expected) in queries {
        let oldest: Vec<_> = (0..800).filter(|&i| expected(i)).collect();
        let newest: Vec<_> = oldest.iter().rev().copied().collect();
        for limit in [40, 1000] {
            for covered in [0, 300, covered] {
                let asked = Query { limit, ..asked.clone() };
                assert_eq!(sequences(&store, covered, &asked).await, newest, "{asked:?} {covered}");
                let asked = Query { oldest_first: true, ..asked };
                assert_eq!(sequences(&store, covered, &asked).await, oldest, "{asked:?} {covered}");
            }
        }
    }
}

#[tokio::test]
async fn the_newest_entry_is_found_at_once() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 300).await;
    let covered = index(&store).await;
    for i in 0..10 {
        let new = Draft { reason: format!("request {i}"), ..draft(1) };
        log(&store).record(new, items(&[record(77)])).await.unwrap();
        let asked = Query { token: Some(token(77)), limit: 1, ..all() };
        let page = ask(&store, covered, &asked).await;
        assert_eq!((page.entries[0].0, &*page.entries[0].1.reason), (300 + i, &*format!("request {i}")));
    }
}

#[tokio::test]
async fn an_index_spares_reading_and_a_page_is_bounded_without_one() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 1000).await;
    log(&store).record(draft(1), items(&[record(77)])).await.unwrap();
    let covered = index(&store).await;
    let before = store.inner.lock().entries_read;
    let asked = Query { token: Some(token(77)), ..all() };
    assert_eq!(ask(&store, covered, &asked).await.entries.len(), 1);
    assert_eq!(store.inner.lock().entries_read - before, 1);

    let one = store.inner.lock().entries[0].clone();
    store.inner.lock().entries.extend(std::iter::repeat_n(one, 2 * MOST_READ));
    let before = store.inner.lock().entries_read;
    let page = ask(&store, covered, &asked).await;
    assert_eq!(page.entries, []);
    assert!(page.next.is_some());
    assert!(store.inner.lock().entries_read - before <= MOST_READ + CHUNK as usize);
    assert_eq!(sequences(&store, covered, &asked).await, [1000]);
}

#[tokio::test]
async fn pages_of_another_order_or_of_nothing_are_refused() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 3).await;
    let dynamic = Arc::clone(&store) as Arc<dyn Store>;
    for page in ["x", "o1", "n", "n01", "nzz", "n-1", "n+1", "nffffffffffffffffff"] {
        let asked = Query { page: page.into(), ..all() };
        assert_eq!(query(&dynamic, 0, &asked).await, Err(QueryError::Page), "{page}");
    }
    let asked = Query { page: "nffffffffffffffff".into(), ..all() };
    assert_eq!(query(&dynamic, 0, &asked).await.unwrap().entries.len(), 3);
}

#[tokio::test]
async fn an_entry_that_does_not_decode_is_named() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 3).await;
    store.inner.lock().entries[1] = Bytes::from_static(b"\xff");
    let refused = query(&(store as Arc<dyn Store>), 0, &all()).await;
    assert_eq!(refused, Err(StoreError::Corrupt { what: "log entry 1".into() }.into()));
}

proptest! {
    #[test]
    fn a_cursor_is_read_as_it_was_written(at in any::<u64>()) {
        prop_assert_eq!(parse_cursor(&format!("o{at:x}"), true), Some(at));
        prop_assert_eq!(parse_cursor(&format!("o{at:x}"), false), None);
    }
}
