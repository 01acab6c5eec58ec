use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use vault_format::note::Signer;

use super::*;
use crate::access::testing::test_tenant;
use crate::audit::test_store::TestStore;
use crate::audit::testing::{StoppedClock, draft, items, log, record, subject, token};
use crate::audit::{Draft, Fixed, Follower, FollowerOptions, Log, LogOptions};
use crate::domain::TenantId;
use crate::store::Change;
use crate::store::memory::MemoryStore;

fn grant(number: u8) -> GrantId {
    GrantId::from_bytes([number; 16])
}

fn all() -> Query {
    Query {
        tenant: None,
        token: None,
        subjects: Vec::new(),
        principal: None,
        action: None,
        grant: None,
        since: None,
        until: None,
        limit: 1000,
        page: String::new(),
        oldest_first: false,
    }
}

/// Entry i is about records i % 7 and i % 5; every third is a mask, every fourth another tenant's; every sixth is of a grant,
/// and the next one of another.
async fn write(store: &Arc<TestStore>, from: u64, until: u64) {
    let log = log(store);
    for i in from..until {
        let mut draft = draft(i as u8);
        if i % 3 == 0 {
            draft.action = AuditAction::Mask;
        }
        if i % 6 < 2 {
            draft.grant = Some(grant((i % 6) as u8));
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
    let signing = Arc::new(Fixed::from(Signer::from_seed("log", &[3; 32]).unwrap()));
    let handle = Follower::start(Arc::clone(store) as _, signing, "log", Arc::new(StoppedClock), options)
        .await
        .unwrap();
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
        found.extend(page.entries.iter().map(|hit| hit.sequence));
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
        (Query { grant: Some(grant(0)), ..all() }, |i| i % 6 == 0),
        (Query { grant: Some(grant(1)), tenant: tenant.clone(), ..all() }, |i| i % 6 == 1 && i % 4 != 0),
        (Query { grant: Some(grant(9)), ..all() }, |_| false),
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
        assert_eq!(
            (page.entries[0].sequence, &*page.entries[0].entry.reason),
            (300 + i, &*format!("request {i}"))
        );
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
    assert!(store.inner.lock().entries_read - before <= MOST_READ + 256);
    assert_eq!(sequences(&store, covered, &asked).await, [1000]);
}

#[tokio::test]
async fn pages_of_another_order_or_of_nothing_are_refused() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 3).await;
    let dynamic = Arc::clone(&store) as Arc<dyn Store>;
    for page in ["x", "o0:1", "n", "n0:01", "n0:zz", "n0:-1", "n0:+1", "n0:ffffffffffffffffff", "n1:1"] {
        let asked = Query { page: page.into(), ..all() };
        assert_eq!(query(&dynamic, 0, &asked).await, Err(QueryError::Page), "{page}");
    }
    let asked = Query { page: "n0:ffffffffffffffff".into(), ..all() };
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

/// Says the time it was told.
struct At(std::sync::atomic::AtomicU64);

impl crate::domain::Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Writes entries to the log of a store, one at each of the times.
async fn write_at(store: &MemoryStore, times: impl IntoIterator<Item = u64>) {
    let clock = Arc::new(At(0.into()));
    let options = LogOptions { deadline: Duration::from_secs(5), max_in_flight: 4 };
    let log = Log::new(Arc::new(store.clone()), Arc::clone(&clock) as _, options);
    for time in times {
        clock.0.store(time, std::sync::atomic::Ordering::Relaxed);
        log.record(draft(time as u8), items(&[record(time % 3)])).await.unwrap();
    }
}

/// All pages, by log and time, and how many pages they are.
async fn places(store: &Arc<dyn Store>, asked: &Query) -> (Vec<(u32, u64)>, usize) {
    let (mut asked, mut found, mut pages) = (asked.clone(), Vec::new(), 0);
    loop {
        let page = query(store, 0, &asked).await.unwrap();
        pages += 1;
        found.extend(page.entries.iter().map(|hit| (hit.log.0, hit.entry.time_us)));
        match page.next {
            Some(next) => asked.page = next,
            None => return (found, pages),
        }
    }
}

#[tokio::test]
async fn entries_of_several_logs_come_by_their_time() {
    let first = MemoryStore::new();
    let (second, third) = (first.instance(LogId(3)), first.instance(LogId(70_000)));
    write_at(&first, (0..900).map(|i| 10 * i)).await;
    write_at(&second, (300..500).map(|i| 10 * i + 1)).await;
    write_at(&third, (0..900).step_by(7).map(|i| 10 * i + 2)).await;
    let mut expected: Vec<_> = (0..900).map(|i| (0, 10 * i)).collect();
    expected.extend((300..500).map(|i| (3, 10 * i + 1)));
    expected.extend((0..900).step_by(7).map(|i| (70_000, 10 * i + 2)));
    expected.sort_by_key(|(_, time)| *time);
    // Whichever instance is asked; the second time by the index of the other's log.
    for store in [&second, &first] {
        let store: Arc<dyn Store> = Arc::new(store.clone());
        for limit in [7, 256, 1000] {
            for asked in [all(), Query { token: Some(token(2)), ..all() }] {
                let is_one = |(_, time): &&(u32, u64)| asked.token.is_none() || time % 3 == 2;
                let mut wanted: Vec<_> = expected.iter().filter(is_one).copied().collect();
                let oldest = Query { limit, oldest_first: true, ..asked.clone() };
                assert_eq!(places(&store, &oldest).await.0, wanted);
                wanted.reverse();
                assert_eq!(places(&store, &Query { limit, ..asked }).await.0, wanted);
            }
        }
        index_of(&second).await;
    }
}

/// Indexes the log of a store.
async fn index_of(store: &MemoryStore) {
    let options = FollowerOptions { checkpoint_every: Duration::from_hours(1) };
    let signing = Arc::new(Fixed::from(Signer::from_seed("log", &[3; 32]).unwrap()));
    let handle = Follower::start(Arc::new(store.clone()), signing, "log", Arc::new(StoppedClock), options)
        .await
        .unwrap();
    handle.fresh_checkpoint(Duration::from_secs(20)).await.unwrap();
    handle.stop(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_change_the_order_within_a_log() {
    let first = MemoryStore::new();
    write_at(&first, [10, 5, 30]).await;
    write_at(&first.instance(LogId(1)), [7, 20]).await;
    let store: Arc<dyn Store> = Arc::new(first);
    let oldest = Query { oldest_first: true, ..all() };
    assert_eq!(places(&store, &oldest).await.0, [(1, 7), (0, 10), (0, 5), (1, 20), (0, 30)]);
    assert_eq!(places(&store, &all()).await.0, [(0, 30), (1, 20), (1, 7), (0, 5), (0, 10)]);
}

#[tokio::test]
async fn a_log_that_appears_between_pages_is_read_when_the_oldest_come_first_only() {
    for (oldest_first, seen) in [(true, true), (false, false)] {
        let first = MemoryStore::new();
        write_at(&first, 0..10).await;
        write_at(&first.instance(LogId(1)), 0..3).await;
        let store: Arc<dyn Store> = Arc::new(first.clone());
        let asked = Query { oldest_first, limit: 9, ..all() };
        let page = query(&store, 0, &asked).await.unwrap();
        write_at(&first.instance(LogId(2)), [100]).await;
        write_at(&first, [101]).await;
        let (found, _) = places(&store, &Query { page: page.next.unwrap(), ..asked }).await;
        assert_eq!(found.contains(&(2, 100)), seen);
        assert_eq!(found.contains(&(0, 101)), seen);
        assert_eq!(found.len(), if seen { 6 } else { 4 });
    }
}

#[tokio::test]
async fn a_page_is_bounded_over_all_logs_and_the_next_one_gets_on() {
    let first = MemoryStore::new();
    write_at(&first, [0]).await;
    let entry = AuditEntry::decode(&first.entries(LogId(0), 0, 1, 1).await.unwrap().remove(0)[..]).unwrap();
    for log in 0..40 {
        let at = |i| AuditEntry { time_us: 100 * i + u64::from(log), ..entry.clone() };
        let from = u64::from(log == 0);
        let entries = (from..400).map(|i| at(i).encode_to_vec().into()).collect();
        first.instance(LogId(log)).commit(Change { writes: Vec::new(), entries }).await.unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(first);
    for oldest_first in [true, false] {
        // Nothing matches: 16,000 entries are two pages.
        let nobody = Some(PrincipalId::parse("nobody").unwrap());
        let asked = Query { principal: nobody, oldest_first, ..all() };
        assert_eq!(places(&store, &asked).await, (Vec::new(), 2));
        let (found, _) = places(&store, &Query { oldest_first, ..all() }).await;
        assert_eq!(found.len(), 16_000);
        assert!(found.is_sorted_by_key(|(_, time)| if oldest_first { *time } else { u64::MAX - time }));
    }
}

#[tokio::test]
async fn an_entry_that_does_not_decode_is_no_matter_before_its_turn() {
    let store = Arc::new(TestStore::new());
    write(&store, 0, 5).await;
    store.inner.lock().entries[1] = Bytes::from_static(b"\xff");
    let store: Arc<dyn Store> = store;
    let page = query(&store, 0, &Query { limit: 3, ..all() }).await.unwrap();
    assert_eq!(page.entries.len(), 3);
    let next = Query { page: page.next.unwrap(), ..all() };
    assert_eq!(query(&store, 0, &next).await, Err(StoreError::Corrupt { what: "log entry 1".into() }.into()));
}
