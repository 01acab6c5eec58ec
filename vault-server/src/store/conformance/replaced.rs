//! Records that are read in order to be replaced: what an engine keeps in mind of them is never older than what is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Backend, CONFLICT, blind, class, get, key_id, record, tenant, token, write};
use crate::domain::{Body, Record, Sealed, Token};
use crate::store::{Lookup, Store, StoreError, Write};

/// The next revision of a record, under another index and another key.
fn moved(record: Record, to: u8) -> Record {
    let Body::Sealed { key_version, .. } = record.body else { panic!("erased") };
    Record {
        index: Some(blind(to)),
        body: Body::Sealed { key_id: key_id(to), key_version, bytes: Sealed(vec![to; 40]) },
        revision: record.revision + 1,
        ..record
    }
}

async fn to_replace(store: &Arc<dyn Store>, numbers: &[u64]) -> Vec<Record> {
    let tokens: Vec<Token> = numbers.iter().map(|number| token(*number)).collect();
    let found = store.records_to_replace(&tokens).await.unwrap();
    let found = found.into_iter().map(|lookup| match lookup {
        Lookup::Found(record) => *record,
        other => panic!("{other:?}"),
    });
    found.collect()
}

/// Where the first three records stand: in the index, and under keys.
async fn places(store: &Arc<dyn Store>) -> Vec<(u8, u64)> {
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    let mut places = Vec::new();
    for place in 1..=9 {
        let indexed = store.find(&mary, &ssn, blind(place), 9).await.unwrap();
        let sealed = store.tokens_of_key(key_id(place), None, 9).await.unwrap().items;
        assert_eq!(indexed, sealed);
        places
            .extend((1..=3).filter(|number| sealed.contains(&token(*number))).map(|number| (place, number)));
    }
    places
}

pub(crate) async fn what_was_read_to_be_replaced_is_replaced_as_it_is_now(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [1, 2, 3].map(|number| Write::Insert(record(number)))).await.unwrap();
    let unread = store.records_to_replace(&[token(9), token(1)]).await.unwrap();
    assert_eq!(unread, [Lookup::Missing, Lookup::Found(Box::new(record(1)))]);

    let first = to_replace(&store, &[1, 2, 3]).await;
    assert_eq!(first, [1, 2, 3].map(record));
    let others = moved(get(&store, 2).await.unwrap(), 2);
    write(&store, [Write::Replace(others.clone())]).await.unwrap();
    // Somebody else was faster with one of them, so that none is replaced.
    let late: Vec<_> = first.into_iter().map(|record| Write::Replace(moved(record, 3))).collect();
    assert_eq!(write(&store, late).await, Err(StoreError::Conflict { write: 1 }));
    assert_eq!(places(&store).await, [(1, 1), (1, 3), (2, 2)]);

    // Read again, and once more before it is written.
    let again = to_replace(&store, &[1, 2, 3]).await;
    assert_eq!(again[1], others);
    to_replace(&store, &[3, 1]).await;
    write(&store, again.into_iter().map(|record| Write::Replace(moved(record, 4))).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(places(&store).await, [(4, 1), (4, 2), (4, 3)]);

    // Read, changed by another, and replaced by who has read it otherwise.
    let [read] = to_replace(&store, &[1]).await.try_into().unwrap();
    write(&store, [Write::Replace(moved(read.clone(), 5))]).await.unwrap();
    assert_eq!(write(&store, [Write::Replace(moved(read, 6))]).await, CONFLICT);
    let now = get(&store, 1).await.unwrap();
    write(&store, [Write::Replace(moved(now, 7))]).await.unwrap();
    assert_eq!(places(&store).await, [(4, 2), (4, 3), (7, 1)]);
}

pub(crate) async fn concurrent_replaces_of_what_was_read_lose_no_update(backend: &impl Backend) {
    const WRITERS: u8 = 8;
    const EACH: u32 = 4;
    let store = backend.open();
    write(&store, [1, 2, 3].map(|number| Write::Insert(record(number)))).await.unwrap();
    let writers = (1..=WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let read = to_replace(&store, if writer % 2 == 0 { &[1, 2, 3] } else { &[3, 2, 1] }).await;
                let writes = read.into_iter().map(|record| Write::Replace(moved(record, 1 + writer)));
                match write(&store, writes.collect::<Vec<_>>()).await {
                    Ok(()) => done += 1,
                    lost => assert!(matches!(lost, Err(StoreError::Conflict { .. })), "{lost:?}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let last = [get(&store, 1).await, get(&store, 2).await, get(&store, 3).await].map(Option::unwrap);
    assert!(last.iter().all(|record| record.revision == u32::from(WRITERS) * EACH), "{last:?}");
    // All three stand where the last of the writers put them, and nowhere else.
    let places = places(&store).await;
    assert_eq!(places.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(places[0].0, places[2].0);
}

/// How many of St. Mary's numbers are found under these indexes, looked under one after the other, as their records say.
async fn found_under(store: &Arc<dyn Store>, indexes: [u8; 2]) -> usize {
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    let mut found = BTreeSet::new();
    for index in indexes.map(blind) {
        let tokens = store.find(&mary, &ssn, index, 1000).await.unwrap();
        let there = store.records(&tokens).await.unwrap().into_iter().filter_map(|lookup| match lookup {
            Lookup::Found(record) if record.index == Some(index) => Some(record.token),
            _ => None,
        });
        found.extend(there);
    }
    found.len()
}

pub(crate) async fn what_moves_in_the_index_is_found_at_every_moment(backend: &impl Backend) {
    const RECORDS: u64 = 200;
    const MOVES: u8 = 50;
    let store = backend.open();
    write(&store, (1..=RECORDS).map(|number| Write::Insert(record(number))).collect::<Vec<_>>())
        .await
        .unwrap();
    // Where they are on their way to.
    let (to, seen) = watch::channel(1);
    let readers = (0..2).map(|_| {
        let (store, seen) = (Arc::clone(&store), seen.clone());
        tokio::spawn(async move {
            let mut looks = 0;
            loop {
                // One look at least after all were made.
                let is_over = seen.has_changed().is_err();
                let to = *seen.borrow();
                let found = found_under(&store, [to - 1, to]).await;
                if *seen.borrow() == to {
                    assert_eq!(found as u64, RECORDS, "on the way to {to}");
                    looks += 1;
                }
                if is_over {
                    return looks;
                }
            }
        })
    });
    let readers = readers.collect::<Vec<_>>();
    let numbers = (1..=RECORDS).collect::<Vec<_>>();
    for place in 2..2 + MOVES {
        let read = to_replace(&store, &numbers).await;
        to.send_replace(place);
        let writes = read.into_iter().map(|record| Write::Replace(moved(record, place)));
        write(&store, writes.collect::<Vec<_>>()).await.unwrap();
    }
    drop(to);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}
