//! The log: its entries, and the rows that follow from them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Backend, LOG, all_entries, change, get, record, row_key};
use crate::store::{
    Change, Derived, DerivedState, EntrySeals, LogId, MAX_ENTRY, Posting, Store, StoreError, TileId,
    Unsealed, Write,
};

pub(crate) async fn entries_have_consecutive_sequences(backend: &impl Backend) {
    let store = backend.open();
    assert_eq!(store.log_size(LOG).await, Ok(0));
    assert_eq!(all_entries(&store).await, [""; 0]);
    let first = store.commit(change([], &["a", "b"])).await.unwrap();
    let none = store.commit(change([Write::Insert(record(1))], &[])).await.unwrap();
    let second = store.commit(change([Write::Insert(record(2))], &["c", ""])).await.unwrap();
    assert_eq!([first, none, second].map(|done| done.first_sequence), [0, 2, 2]);
    assert_eq!(store.log_size(LOG).await, Ok(4));
    assert_eq!(all_entries(&store).await, ["a", "b", "c", ""]);
    assert_eq!(store.commit(Change::default()).await.unwrap().first_sequence, 4);
}

pub(crate) async fn concurrent_changes_have_consecutive_sequences_and_their_own_entries(
    backend: &impl Backend,
) {
    let store = backend.open();
    let writers = (0..64_u64).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut places = Vec::new();
            for round in 0..8 {
                let number = writer * 8 + round;
                let entries = [format!("{number} a"), format!("{number} b")];
                let change = change([Write::Insert(record(number))], &[&entries[0], &entries[1]]);
                let done = store.commit(change).await.unwrap();
                assert!(store.log_size(LOG).await.unwrap() >= done.first_sequence + 2);
                places.push((done.first_sequence, entries));
            }
            places
        })
    });
    let mut places = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        places.extend(writer.await.unwrap());
    }
    places.sort();
    let expected: Vec<_> = places.iter().flat_map(|(_, entries)| entries.clone()).collect();
    assert!(places.iter().zip(0..).all(|((first, _), place)| *first == 2 * place));
    assert_eq!(all_entries(&store).await, expected);
    assert_eq!(store.log_size(LOG).await, Ok(1024));
}

pub(crate) async fn entries_page_by_count_and_bytes(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([], &["aaaa", "bb", "cccc", "d"])).await.unwrap();
    let page = |start, count, bytes| {
        let store = &store;
        async move { store.entries(LOG, start, count, bytes).await.unwrap() }
    };
    assert_eq!(page(0, 2, 100).await, ["aaaa", "bb"]);
    assert_eq!(page(0, 9, 6).await, ["aaaa", "bb"]);
    assert_eq!(page(0, 9, 5).await, ["aaaa"]);
    assert_eq!(page(2, 9, 1).await, ["cccc"], "at least one");
    assert_eq!(page(3, 9, 100).await, ["d"]);
    assert_eq!(page(4, 9, 100).await, [""; 0]);
    assert_eq!(page(u64::MAX, 9, 100).await, [""; 0]);
}

pub(crate) async fn entries_are_sealed_for_who_signs_them(backend: &impl Backend) {
    let store = backend.open();
    let all = |store: &Arc<dyn Store>, from| {
        let store = Arc::clone(store);
        async move { store.entries_to_sign(LOG, from, 99, 999).await }
    };
    let is_named = |read: Result<Vec<Bytes>, StoreError>, entry: u64| {
        let Err(StoreError::Corrupt { what }) = read else { panic!("{read:?}") };
        assert!(what.contains(&format!("log entry {entry} of log 0")), "{what}");
    };
    store.commit(change([], &["before"])).await.unwrap();
    assert_eq!(all(&store, 0).await.unwrap(), ["before"], "nothing is asked of a store without a key");
    store.seal_entries(EntrySeals::new(row_key(1), Unsealed::Refuse));
    store.commit(change([], &["a", ""])).await.unwrap();
    is_named(all(&store, 0).await, 0);
    assert_eq!(all(&store, 1).await.unwrap(), ["a", ""]);
    assert_eq!(store.entries_to_sign(LOG, 1, 1, 999).await.unwrap(), ["a"]);
    assert_eq!(all(&store, 3).await.unwrap(), [""; 0]);
    drop(store);
    let store = backend.open();
    store.seal_entries(EntrySeals::new(row_key(1), Unsealed::Sign));
    assert_eq!(all(&store, 0).await.unwrap(), ["before", "a", ""]);
    // Another key: a wrong seal is none of before there were seals.
    store.seal_entries(EntrySeals::new(row_key(2), Unsealed::Sign));
    is_named(all(&store, 0).await, 1);
    assert_eq!(all_entries(&store).await, ["before", "a", ""], "who only reads them is not in doubt");
}

pub(crate) async fn an_entry_may_be_as_long_as_a_bundle_allows_and_no_longer(backend: &impl Backend) {
    let store = backend.open();
    let entry = |len| Change { writes: vec![Write::Insert(record(1))], entries: vec![vec![7; len].into()] };
    let refused = store.commit(entry(MAX_ENTRY + 1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    assert_eq!((get(&store, 1).await, store.log_size(LOG).await), (None, Ok(0)));
    store.commit(entry(MAX_ENTRY)).await.unwrap();
    assert_eq!(all_entries(&store).await[0].len(), MAX_ENTRY);
}

pub(crate) async fn derived_rows_come_back_and_never_go_back(backend: &impl Backend) {
    let store = backend.open();
    assert_eq!(store.derived(LOG).await, Ok(DerivedState { upto: 0, checkpoint: None }));
    store.commit(change([], &["e"; 6])).await.unwrap();
    let tile = |n| (TileId { level: 0, index: n }, Bytes::from(vec![n as u8; 8192]));
    let derived = |upto, checkpoint: Option<(u64, &str)>| Derived {
        from: 0,
        upto,
        tiles: vec![tile(upto)],
        postings: Vec::new(),
        checkpoint: checkpoint.map(|(size, text)| (size, text.to_owned())),
    };
    store.derive(derived(5, Some((4, "four")))).await.unwrap();
    store.derive(derived(6, None)).await.unwrap();
    store.derive(derived(3, Some((2, "two")))).await.unwrap();
    let state = DerivedState { upto: 6, checkpoint: Some((4, "four".to_owned())) };
    assert_eq!(store.derived(LOG).await, Ok(state));
    for n in [3, 5, 6] {
        assert_eq!(store.tile(LOG, tile(n).0).await, Ok(Some(tile(n).1)));
    }
    assert_eq!(store.tile(LOG, TileId { level: 1, index: 5 }).await, Ok(None));
}

pub(crate) async fn what_is_derived_joins_what_was(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([], &["e"; 6])).await.unwrap();
    let derived = |from, upto| Derived {
        from,
        upto,
        tiles: vec![(TileId { level: 0, index: upto }, Bytes::from(vec![1; 8192]))],
        postings: vec![Posting { key: b"k".to_vec(), sequence: upto - 1 }],
        checkpoint: Some((upto, "signed".to_owned())),
    };
    let refused = |from, there| {
        let why = format!("what is derived from the log ends at entry {there}, not at {from}");
        Err(StoreError::Unavailable { why })
    };
    assert_eq!(store.derive(derived(1, 2)).await, refused(1, 0));
    store.derive(derived(0, 3)).await.unwrap();
    assert_eq!(store.derive(derived(4, 5)).await, refused(4, 3));
    let state = DerivedState { upto: 3, checkpoint: Some((3, "signed".to_owned())) };
    assert_eq!(store.derived(LOG).await, Ok(state));
    assert_eq!(store.postings(LOG, b"k", 0, 9, false, 9).await, Ok(vec![2]));
    assert_eq!(store.tile(LOG, TileId { level: 0, index: 5 }).await, Ok(None));
    store.derive(derived(3, 6)).await.unwrap();
    // Made already, and the answer was lost.
    store.derive(derived(3, 6)).await.unwrap();
    assert_eq!(store.postings(LOG, b"k", 0, 9, false, 9).await, Ok(vec![2, 5]));
}

pub(crate) async fn postings_are_ordered_within_their_key_and_range(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([], &["e"; 300])).await.unwrap();
    let posting = |key: &[u8], sequence| Posting { key: key.to_vec(), sequence };
    let longest = [9; 255];
    let mut postings: Vec<_> = [256, 2, 255, 1].map(|sequence| posting(b"k", sequence)).into();
    postings.extend([posting(b"k2", 7), posting(b"", 8), posting(&longest, 9), posting(b"\xff", 3)]);
    let derived = |upto, postings| Derived { from: 0, upto, tiles: Vec::new(), postings, checkpoint: None };
    store.derive(derived(200, vec![posting(b"k", 2), posting(b"k2", 7)])).await.unwrap();
    // Rows that are there already stay, and hold up no others.
    store.derive(derived(300, postings)).await.unwrap();
    let get = |key: &'static [u8], from, until, newest_first, limit| {
        let store = &store;
        async move { store.postings(LOG, key, from, until, newest_first, limit).await.unwrap() }
    };
    assert_eq!(get(b"k", 0, u64::MAX, false, 9).await, [1, 2, 255, 256]);
    assert_eq!(get(b"k", 0, u64::MAX, true, 9).await, [256, 255, 2, 1]);
    assert_eq!(get(b"k", 2, 256, false, 9).await, [2, 255]);
    assert_eq!(get(b"k", 2, 256, true, 1).await, [255]);
    assert_eq!(get(b"k", 0, 300, false, 0).await, [0; 0]);
    assert_eq!(get(b"k", 9, 9, false, 9).await, [0; 0]);
    assert_eq!(get(b"", 0, 300, true, 9).await, [8]);
    assert_eq!(get(b"\xff", 0, 300, true, 9).await, [3]);
    assert_eq!(store.postings(LOG, &longest, 0, 300, false, 9).await, Ok(vec![9]));
}

pub(crate) async fn another_log_is_empty(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([], &["a"])).await.unwrap();
    assert_eq!(store.log(), LOG);
    assert_eq!(store.logs().await, Ok(vec![LOG]));
    let other = LogId(7);
    assert_eq!(store.log_size(other).await, Ok(0));
    assert_eq!(store.entries(other, 0, 9, 99).await, Ok(Vec::new()));
    assert_eq!(store.derived(other).await, Ok(DerivedState::default()));
    assert_eq!(store.tile(other, TileId { level: 0, index: 0 }).await, Ok(None));
    assert_eq!(store.postings(other, b"k", 0, 9, false, 9).await, Ok(Vec::new()));
}
