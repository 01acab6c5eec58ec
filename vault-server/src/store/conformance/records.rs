//! Records: by token, by index, by page.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    Backend, CONFLICT, LOG, all_entries, answer, blind, change, class, get, key, key_id, of_key, paged,
    record, subject, tenant, token, write,
};
use crate::domain::{Body, KeyPurpose, KeyRecord, KeyVersion, Record, Sealed, Timestamp, WrappedKey};
use crate::store::{Change, Derived, Lookup, MAX_ENTRY, Remembered, StoreError, TileId, Write};

pub(crate) async fn an_inserted_record_is_found_by_token_in_the_order_asked(backend: &impl Backend) {
    let store = backend.open();
    write(&store, (1..=100).map(|n| Write::Insert(record(n))).collect::<Vec<_>>()).await.unwrap();
    let found = store.records(&[token(3), token(101), token(1), token(3)]).await.unwrap();
    let three = Lookup::Found(Box::new(record(3)));
    assert_eq!(found, [three.clone(), Lookup::Missing, Lookup::Found(Box::new(record(1))), three]);
    let all: Vec<_> = (1..=100).map(token).collect();
    let many = store.records(&all).await.unwrap();
    assert!(many.iter().zip(1..).all(|(found, n)| *found == Lookup::Found(Box::new(record(n)))));
}

pub(crate) async fn a_token_is_inserted_once(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Insert(record(1))]).await.unwrap();
    let other = Record { class: class("mrn"), ..record(1) };
    assert_eq!(write(&store, [Write::Insert(other)]).await, CONFLICT);
    assert_eq!(get(&store, 1).await, Some(record(1)));
}

pub(crate) async fn a_conflict_leaves_nothing_of_its_change(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Insert(record(1))]).await.unwrap();
    let all = [
        Write::Insert(record(2)),
        Write::InsertKey(key(1)),
        Write::Remember(answer(1, 10, 20)),
        Write::Insert(record(1)),
        Write::Insert(record(3)),
    ];
    let refused = store.commit(change(all, &["refused"])).await;
    assert_eq!(refused, Err(StoreError::Conflict { write: 3 }));
    assert_eq!(store.log_size(LOG).await, Ok(0));
    assert_eq!(get(&store, 2).await, None);
    assert_eq!(get(&store, 3).await, None);
    assert_eq!(store.key(key_id(1)).await, Ok(None));
    assert_eq!(store.remembered(&[1; 32]).await, Ok(None));
    let index = store.find(&tenant("st-mary"), &class("ssn"), blind(1), 9).await;
    assert_eq!(index, Ok(vec![token(1)]));
    let next = store.commit(change([Write::Insert(record(2))], &["next"])).await.unwrap();
    assert_eq!(next.first_sequence, 0);
    assert_eq!(all_entries(&store).await, ["next"]);
}

pub(crate) async fn one_change_does_not_write_a_row_twice(backend: &impl Backend) {
    let store = backend.open();
    let second = |a, b| async { store.commit(change([a, b], &["e"])).await.map(|_| ()) };
    let conflict = Err(StoreError::Conflict { write: 1 });
    let next = Record { revision: 1, ..record(1) };
    assert_eq!(second(Write::Insert(record(1)), Write::Insert(record(1))).await, conflict);
    assert_eq!(second(Write::Insert(record(1)), Write::Replace(next)).await, conflict);
    assert_eq!(second(Write::InsertKey(key(1)), Write::InsertKey(key(1))).await, conflict);
    let answers = (Write::Remember(answer(1, 1, 2)), Write::Remember(answer(1, 3, 4)));
    assert_eq!(second(answers.0, answers.1).await, conflict);
    assert_eq!((get(&store, 1).await, store.log_size(LOG).await), (None, Ok(0)));
}

pub(crate) async fn replace_needs_the_revision_before(backend: &impl Backend) {
    let store = backend.open();
    let at = |revision| Record { revision, created: Timestamp(revision.into()), ..record(1) };
    assert_eq!(write(&store, [Write::Replace(at(1))]).await, CONFLICT);
    write(&store, [Write::Insert(at(0))]).await.unwrap();
    for wrong in [0, 2, u32::MAX] {
        assert_eq!(write(&store, [Write::Replace(at(wrong))]).await, CONFLICT);
    }
    write(&store, [Write::Replace(at(1))]).await.unwrap();
    assert_eq!(write(&store, [Write::Replace(at(1))]).await, CONFLICT);
    assert_eq!(get(&store, 1).await, Some(at(1)));
}

pub(crate) async fn replace_moves_index_rows(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Insert(record(1))]).await.unwrap();
    let bytes = Sealed(vec![9; 40]);
    let moved = Record {
        index: Some(blind(2)),
        body: Body::Sealed { key_id: key_id(2), key_version: KeyVersion(2), bytes },
        revision: 1,
        ..record(1)
    };
    write(&store, [Write::Replace(moved)]).await.unwrap();
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    assert_eq!(store.find(&mary, &ssn, blind(1), 9).await, Ok(vec![]));
    assert_eq!(store.find(&mary, &ssn, blind(2), 9).await, Ok(vec![token(1)]));
    assert_eq!(of_key(&store, 1).await, []);
    assert_eq!(of_key(&store, 2).await, [token(1)]);
    assert_eq!(store.tokens_of_subject(&mary, subject(1), None, 9).await, Ok(vec![token(1)]));
}

pub(crate) async fn an_erased_record_is_found_by_its_token_only(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Insert(record(1))]).await.unwrap();
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(1) };
    write(&store, [Write::Replace(erased.clone())]).await.unwrap();
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    assert_eq!(get(&store, 1).await, Some(erased));
    assert_eq!(store.find(&mary, &ssn, blind(1), 9).await, Ok(vec![]));
    assert_eq!(store.tokens_of_subject(&mary, subject(1), None, 9).await, Ok(vec![]));
    assert_eq!(of_key(&store, 1).await, []);
    assert_eq!(write(&store, [Write::Insert(record(1))]).await, CONFLICT);
}

pub(crate) async fn find_tells_tenants_classes_and_indexes_apart(backend: &impl Backend) {
    let store = backend.open();
    let others = [
        record(3),
        record(1),
        Record { tenant: tenant("st-mary2"), ..record(4) },
        Record { class: class("ssn2"), ..record(5) },
        Record { index: Some(blind(2)), ..record(6) },
        Record { index: None, ..record(7) },
        Record { subject: Some(subject(2)), ..record(8) },
        Record { subject: None, ..record(9) },
    ];
    write(&store, others.map(Write::Insert)).await.unwrap();
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    let found = store.find(&mary, &ssn, blind(1), 9).await;
    assert_eq!(found, Ok(vec![token(1), token(3), token(8), token(9)]));
    assert_eq!(store.find(&mary, &ssn, blind(1), 2).await, Ok(vec![token(1), token(3)]));
    assert_eq!(store.find(&mary, &ssn, blind(1), 0).await, Ok(vec![]));
    let of_subject = store.tokens_of_subject(&mary, subject(1), None, 9).await;
    assert_eq!(of_subject, Ok(vec![token(1), token(3), token(5), token(6), token(7)]));
}

pub(crate) async fn scans_page_in_order_without_gaps_or_repeats(backend: &impl Backend) {
    let store = backend.open();
    // Out of order, and across bytes that sort differently as numbers and as text.
    let numbers = [500, 2, 255, 1, 256, 1 << 40, 3];
    write(&store, numbers.map(|n| Write::Insert(record(n)))).await.unwrap();
    let expected: Vec<_> = BTreeSet::from(numbers).into_iter().map(token).collect();
    for limit in 1..=8 {
        let mut of_subject = Vec::new();
        loop {
            let after = of_subject.last().copied();
            let page = store.tokens_of_subject(&tenant("st-mary"), subject(1), after, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            of_subject.extend(page);
        }
        let of_key = paged(limit, async |after| store.tokens_of_key(key_id(1), after, limit).await).await;
        assert_eq!((&of_subject, &of_key), (&expected, &expected), "limit {limit}");
    }
    // From one that is not there any more.
    let next = store.tokens_of_key(key_id(1), None, 5).await.unwrap().next;
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(256) };
    write(&store, [Write::Replace(erased)]).await.unwrap();
    let after = store.tokens_of_key(key_id(1), next, 9).await.unwrap();
    assert_eq!((after.items, after.next), (vec![token(500), token(1 << 40)], None));
}

pub(crate) async fn concurrent_inserts_of_a_token_have_one_winner(backend: &impl Backend) {
    let store = backend.open();
    for number in 0..8 {
        let racers = (0..64_u64).map(|racer| {
            let (store, mine) = (Arc::clone(&store), Record { created: Timestamp(racer), ..record(number) });
            tokio::spawn(async move {
                (racer, store.commit(change([Write::Insert(mine)], &[&racer.to_string()])).await)
            })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                (racer, Ok(done)) => winners.push((racer, done.first_sequence)),
                (_, lost) => assert_eq!(lost, Err(StoreError::Conflict { write: 0 })),
            }
        }
        let [(winner, sequence)] = winners[..] else { panic!("{winners:?}") };
        assert_eq!(sequence, number);
        assert_eq!(get(&store, number).await.unwrap().created, Timestamp(winner));
        assert_eq!(all_entries(&store).await.last(), Some(&Bytes::from(winner.to_string())));
    }
    assert_eq!(store.log_size(LOG).await, Ok(8));
}

pub(crate) async fn concurrent_replaces_lose_no_update(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Insert(Record { created: Timestamp(0), ..record(1) })]).await.unwrap();
    let writers = (0..16).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                let mut next = get(&store, 1).await.unwrap();
                next.revision += 1;
                next.created.0 += 1;
                match write(&store, [Write::Replace(next)]).await {
                    Ok(()) => break,
                    lost => assert_eq!(lost, CONFLICT),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let last = get(&store, 1).await.unwrap();
    assert_eq!((last.revision, last.created), (16, Timestamp(16)));
}

pub(crate) async fn long_rows_are_replaced_removed_and_scanned_as_short_ones_are(backend: &impl Backend) {
    let lens = [MAX_ENTRY, 1, 2048, 9000, MAX_ENTRY, 0, 32_000];
    let sealed = |revision: u32, len| Record {
        body: Body::Sealed {
            key_id: key_id(1),
            key_version: KeyVersion(1),
            bytes: Sealed(vec![revision as u8; len]),
        },
        revision,
        ..record(1)
    };
    let wrapped = |version: u8, len| KeyRecord {
        wraps: vec![WrappedKey { wrapping_key: "local:a".to_owned(), ciphertext: vec![version; len] }],
        ..key(version)
    };
    let long_answer = Remembered { tokens: vec![Some(token(1)); 4096], ..answer(1, 1, 10) };
    let tile = TileId { level: 0, index: 1 };
    let entries: Vec<_> = lens.iter().zip(1..).map(|(len, n)| Bytes::from(vec![n; *len])).collect();
    let keys: Vec<_> = lens.iter().zip(1..).map(|(len, n)| wrapped(n, *len)).collect();

    let store = backend.open();
    for ((revision, len), entry) in (0..).zip(lens).zip(&entries) {
        let next = sealed(revision, len);
        let put = if revision == 0 { Write::Insert } else { Write::Replace };
        let change = Change { writes: vec![put(next.clone())], entries: vec![entry.clone()] };
        store.commit(change).await.unwrap();
        assert_eq!(get(&store, 1).await, Some(next));
        let tiles = vec![(tile, entry.clone())];
        store
            .derive(Derived { from: 0, upto: 0, tiles, postings: Vec::new(), checkpoint: None })
            .await
            .unwrap();
        assert_eq!(store.tile(LOG, tile).await, Ok(Some(entry.clone())));
    }
    write(&store, keys.iter().rev().cloned().map(Write::InsertKey).collect::<Vec<_>>()).await.unwrap();
    write(&store, [Write::Remember(long_answer.clone())]).await.unwrap();
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(long_answer)));
    drop(store);

    let store = backend.open();
    assert_eq!(all_entries(&store).await, entries);
    assert_eq!(store.keys(Some(&tenant("st-mary")), KeyPurpose::Data).await, Ok(keys));
    assert_eq!(get(&store, 1).await, Some(sealed(6, 32_000)));
    assert_eq!(store.tile(LOG, tile).await, Ok(entries.last().cloned()));
    let erased = Record { body: Body::Erased { at: Timestamp(7) }, revision: 7, ..record(1) };
    write(&store, [Write::Replace(erased.clone())]).await.unwrap();
    assert_eq!(get(&store, 1).await, Some(erased));
    assert_eq!(store.forget(Timestamp(11), 9).await, Ok(1));
    assert_eq!(store.remembered(&[1; 32]).await, Ok(None));
    write(&store, [Write::Remember(answer(1, 20, 30))]).await.unwrap();
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 20, 30))));
}
