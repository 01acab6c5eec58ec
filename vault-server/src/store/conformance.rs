//! The promises of [`Store`], each a test that every engine takes. An engine's tests are made by
//! `conformance_tests!` and have the names of the promises.

mod entities;
mod keys;
mod leases;
mod replaced;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{
    BlindIndex, Body, ClassName, Environment, KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion,
    MAX_SEALED_ENTITY, Record, Sealed, SubjectRef, TenantId, Timestamp, Token, VaultId, VaultIdentity,
    WrappedKey,
};
use crate::store::{
    Change, Cursor, Derived, DerivedState, LogId, Lookup, MAX_ENTRY, Page, Posting, Remembered, Store,
    StoreError, TileId, Write,
};

pub(crate) use self::entities::*;
pub(crate) use self::keys::*;
pub(crate) use self::leases::*;
pub(crate) use self::replaced::*;

/// The only log of a store under test, unless the test has several instances.
pub(crate) const LOG: LogId = LogId(0);

/// Where an engine under test keeps its rows.
pub(crate) trait Backend: Sync {
    /// Opens the store there, for the first time or again.
    fn open(&self) -> Arc<dyn Store>;

    /// The most bytes that an entity's content may have here.
    fn longest_entity(&self) -> usize {
        MAX_SEALED_ENTITY
    }

    /// Puts a malformed row of an entity at a key, whatever is there. Nobody has the store open meanwhile.
    fn malform(&self, key: &[u8]);

    /// Whether what the engine needs is to be had here. If not, the test says so and ends.
    fn is_there(&self) -> bool {
        true
    }
}

/// Makes a test of every promise for a backend.
macro_rules! conformance_tests {
    ($backend:expr) => {
        $crate::store::conformance::conformance_tests! {
            $backend;
            a_store_belongs_to_one_vault
            an_inserted_record_is_found_by_token_in_the_order_asked
            a_token_is_inserted_once
            a_conflict_leaves_nothing_of_its_change
            one_change_does_not_write_a_row_twice
            replace_needs_the_revision_before
            replace_moves_index_rows
            an_erased_record_is_found_by_its_token_only
            find_tells_tenants_classes_and_indexes_apart
            scans_page_in_order_without_gaps_or_repeats
            keys_are_told_apart_and_ordered
            a_key_is_inserted_once_by_name_and_by_id
            replace_key_needs_the_revision_before_and_the_same_id
            an_answer_is_remembered_until_it_expires
            forget_takes_expired_answers_only
            a_renewed_answer_is_not_forgotten_by_its_first_expiry
            entries_have_consecutive_sequences
            concurrent_changes_have_consecutive_sequences_and_their_own_entries
            concurrent_inserts_of_a_token_have_one_winner
            concurrent_replaces_lose_no_update
            what_was_read_to_be_replaced_is_replaced_as_it_is_now
            concurrent_replaces_of_what_was_read_lose_no_update
            what_moves_in_the_index_is_found_at_every_moment
            entries_page_by_count_and_bytes
            an_entry_may_be_as_long_as_a_bundle_allows_and_no_longer
            long_rows_are_replaced_removed_and_scanned_as_short_ones_are
            derived_rows_come_back_and_never_go_back
            postings_are_ordered_within_their_key_and_range
            stats_count_records_and_entries
            a_lease_has_one_holder_at_a_time
            a_lease_that_was_left_alone_is_taken_under_a_new_fence
            a_write_under_an_old_fence_writes_nothing
            concurrent_takers_of_a_lease_have_one_winner
            no_clock_says_when_a_lease_is_taken
            a_write_under_a_key_that_is_not_active_is_refused
            a_condition_is_about_the_key_before_the_change
            no_record_lands_under_a_key_that_was_retired
            a_retired_key_refuses_its_own_writes_only
            a_key_that_must_be_unused_has_no_record
            no_record_is_under_a_key_that_was_destroyed
            records_of_a_key_are_counted
            records_are_found_by_the_version_of_their_index
            a_job_is_changed_from_the_revision_before
            concurrent_changes_of_a_job_have_one_winner
            jobs_page_in_the_order_of_their_places
            jobs_that_are_over_are_not_under_way
            a_job_is_there_after_a_reopen
            an_entity_is_changed_from_the_revision_before
            an_entity_is_dropped_at_its_revision_and_may_come_anew
            what_must_stand_is_asked_and_not_written
            a_conflict_about_an_entity_leaves_nothing_of_its_change
            concurrent_changes_of_an_entity_have_one_winner
            of_changes_that_stand_on_each_other_one_wins
            entities_page_by_kind_and_by_tenant
            an_entity_holds_so_much_and_no_more
            an_entity_is_there_after_a_reopen
            a_malformed_entity_is_handed_out_as_one_and_is_in_the_way_of_no_other
            scans_read_everything_once_in_order
            another_log_is_empty
            everything_is_there_after_a_reopen
            a_closed_store_is_unavailable
        }
    };
    ($backend:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let backend = $backend;
                if $crate::store::conformance::Backend::is_there(&backend) {
                    $crate::store::conformance::$promise(&backend).await;
                }
            }
        )*
    };
}
pub(crate) use conformance_tests;

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn class(name: &str) -> ClassName {
    ClassName::parse(name).unwrap()
}

pub(crate) fn token(number: u64) -> Token {
    Token::from_bytes(u128::from(number).to_be_bytes())
}

pub(crate) fn subject(number: u8) -> SubjectRef {
    SubjectRef { version: KeyVersion(1), mac: [number; 16] }
}

pub(crate) fn blind(number: u8) -> BlindIndex {
    BlindIndex { version: KeyVersion(1), mac: [number; 16] }
}

pub(crate) fn key_id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

/// A record of subject 1, index 1 and key 1.
pub(crate) fn record(number: u64) -> Record {
    let bytes = Sealed(number.to_be_bytes().repeat(12));
    Record {
        token: token(number),
        tenant: tenant("st-mary"),
        class: class("ssn"),
        subject: Some(subject(1)),
        index: Some(blind(1)),
        created: Timestamp(number),
        body: Body::Sealed { key_id: key_id(1), key_version: KeyVersion(1), bytes },
        revision: 0,
    }
}

/// Version `version` of St. Mary's data key, with an id of that number.
pub(crate) fn key(version: u8) -> KeyRecord {
    KeyRecord {
        id: key_id(version),
        tenant: Some(tenant("st-mary")),
        purpose: KeyPurpose::Data,
        version: KeyVersion(version.into()),
        state: KeyState::Active,
        created: Timestamp(5),
        wraps: vec![WrappedKey { wrapping_key: "local:a".to_owned(), ciphertext: vec![version; 40] }],
        revision: 0,
        statements: String::new(),
    }
}

fn answer(number: u8, at: u64, expires: u64) -> Remembered {
    Remembered {
        key: [number; 32],
        request: [7; 32],
        tokens: vec![Some(token(number.into())), None],
        at: Timestamp(at),
        expires: Timestamp(expires),
    }
}

pub(crate) fn change(writes: impl Into<Vec<Write>>, entries: &[&str]) -> Change {
    let entries = entries.iter().map(|entry| Bytes::copy_from_slice(entry.as_bytes())).collect();
    Change { writes: writes.into(), entries }
}

async fn write(store: &Arc<dyn Store>, writes: impl Into<Vec<Write>>) -> Result<(), StoreError> {
    store.commit(change(writes, &[])).await.map(|_| ())
}

async fn all_entries(store: &Arc<dyn Store>) -> Vec<Bytes> {
    store.entries(LOG, 0, usize::MAX, usize::MAX).await.unwrap()
}

/// All rows, some at a time.
async fn paged<T>(limit: usize, read: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, StoreError>) -> Vec<T> {
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let page = read(next).await.unwrap();
        assert!(page.len() <= limit && page.malformed.is_empty());
        all.extend(page.items);
        next = page.next;
        if next.is_none() {
            return all;
        }
    }
}

/// What is sealed under a key.
async fn of_key(store: &Arc<dyn Store>, number: u8) -> Vec<Token> {
    store.tokens_of_key(key_id(number), None, 9).await.unwrap().items
}

async fn get(store: &Arc<dyn Store>, number: u64) -> Option<Record> {
    match store.records(&[token(number)]).await.unwrap().remove(0) {
        Lookup::Found(record) => Some(*record),
        Lookup::Missing => None,
        Lookup::Corrupt => panic!("corrupt"),
    }
}

const CONFLICT: Result<(), StoreError> = Err(StoreError::Conflict { write: 0 });

pub(crate) async fn a_store_belongs_to_one_vault(backend: &impl Backend) {
    let store = backend.open();
    let identity = |vault, environment| VaultIdentity {
        vault: VaultId::from_bytes([vault; 16]),
        environment: Environment::parse(environment).unwrap(),
    };
    assert_eq!(store.identity().await, Ok(None));
    store.found(&identity(1, "prod")).await.unwrap();
    store.found(&identity(1, "prod")).await.unwrap();
    assert_eq!(store.identity().await, Ok(Some(identity(1, "prod"))));
    for other in [identity(2, "prod"), identity(1, "qa")] {
        assert!(matches!(store.found(&other).await, Err(StoreError::Foreign { .. })));
    }
    assert_eq!(store.identity().await, Ok(Some(identity(1, "prod"))));
}

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

pub(crate) async fn keys_are_told_apart_and_ordered(backend: &impl Backend) {
    let store = backend.open();
    let of = |n, tenant: Option<&str>, purpose| KeyRecord {
        id: key_id(n),
        tenant: tenant.map(|name| TenantId::parse(name).unwrap()),
        purpose,
        ..key(1)
    };
    let others = [
        of(21, Some("st-mary2"), KeyPurpose::Data),
        of(22, Some("st-mary"), KeyPurpose::Index),
        of(23, None, KeyPurpose::LogSigning),
        of(24, None, KeyPurpose::Data),
    ];
    write(&store, others.clone().map(Write::InsertKey)).await.unwrap();
    write(&store, [3, 1, 2].map(|version| Write::InsertKey(key(version)))).await.unwrap();
    let mary = tenant("st-mary");
    assert_eq!(store.keys(Some(&mary), KeyPurpose::Data).await, Ok(vec![key(1), key(2), key(3)]));
    assert_eq!(store.keys(Some(&mary), KeyPurpose::Index).await, Ok(vec![others[1].clone()]));
    assert_eq!(store.keys(None, KeyPurpose::LogSigning).await, Ok(vec![others[2].clone()]));
    assert_eq!(store.keys(Some(&tenant("st")), KeyPurpose::Data).await, Ok(vec![]));
    for other in others {
        assert_eq!(store.key(other.id).await, Ok(Some(other)));
    }
}

pub(crate) async fn a_key_is_inserted_once_by_name_and_by_id(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::InsertKey(key(1))]).await.unwrap();
    let same_name = KeyRecord { id: key_id(9), ..key(1) };
    let same_id = KeyRecord { id: key_id(1), ..key(2) };
    assert_eq!(write(&store, [Write::InsertKey(same_name)]).await, CONFLICT);
    assert_eq!(write(&store, [Write::InsertKey(same_id)]).await, CONFLICT);
    assert_eq!(store.keys(Some(&tenant("st-mary")), KeyPurpose::Data).await, Ok(vec![key(1)]));
    assert_eq!(store.key(key_id(9)).await, Ok(None));
}

pub(crate) async fn replace_key_needs_the_revision_before_and_the_same_id(backend: &impl Backend) {
    let store = backend.open();
    let at = |revision, state| KeyRecord { state, revision, ..key(1) };
    assert_eq!(write(&store, [Write::ReplaceKey(at(1, KeyState::Retired))]).await, CONFLICT);
    write(&store, [Write::InsertKey(key(1))]).await.unwrap();
    let other_id = KeyRecord { id: key_id(2), ..at(1, KeyState::Retired) };
    for wrong in [other_id, at(0, KeyState::Retired), at(2, KeyState::Retired)] {
        assert_eq!(write(&store, [Write::ReplaceKey(wrong)]).await, CONFLICT);
    }
    write(&store, [Write::ReplaceKey(at(1, KeyState::Destroyed))]).await.unwrap();
    assert_eq!(store.key(key_id(1)).await, Ok(Some(at(1, KeyState::Destroyed))));
}

pub(crate) async fn an_answer_is_remembered_until_it_expires(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Remember(answer(1, 10, 20))]).await.unwrap();
    assert_eq!(write(&store, [Write::Remember(answer(1, 19, 30))]).await, CONFLICT);
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 10, 20))));
    assert_eq!(store.remembered(&[2; 32]).await, Ok(None));
    write(&store, [Write::Remember(answer(1, 20, 30))]).await.unwrap();
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 20, 30))));
}

pub(crate) async fn forget_takes_expired_answers_only(backend: &impl Backend) {
    let store = backend.open();
    let answers = [answer(1, 1, 10), answer(2, 1, 11), answer(3, 1, 12), answer(4, 1, 13)];
    write(&store, answers.map(Write::Remember)).await.unwrap();
    assert_eq!(store.forget(Timestamp(10), 9).await, Ok(0));
    assert_eq!(store.forget(Timestamp(13), 2).await, Ok(2));
    assert_eq!(store.forget(Timestamp(13), 9).await, Ok(1));
    assert_eq!(store.forget(Timestamp(13), 9).await, Ok(0));
    for number in 1..=3 {
        assert_eq!(store.remembered(&[number; 32]).await, Ok(None));
    }
    assert_eq!(store.remembered(&[4; 32]).await, Ok(Some(answer(4, 1, 13))));
}

pub(crate) async fn a_renewed_answer_is_not_forgotten_by_its_first_expiry(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::Remember(answer(1, 10, 20))]).await.unwrap();
    write(&store, [Write::Remember(answer(1, 25, 90))]).await.unwrap();
    assert_eq!(store.forget(Timestamp(50), 9).await, Ok(0));
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 25, 90))));
    assert_eq!(store.forget(Timestamp(91), 9).await, Ok(1));
}

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

pub(crate) async fn an_entry_may_be_as_long_as_a_bundle_allows_and_no_longer(backend: &impl Backend) {
    let store = backend.open();
    let entry = |len| Change { writes: vec![Write::Insert(record(1))], entries: vec![vec![7; len].into()] };
    let refused = store.commit(entry(MAX_ENTRY + 1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    assert_eq!((get(&store, 1).await, store.log_size(LOG).await), (None, Ok(0)));
    store.commit(entry(MAX_ENTRY)).await.unwrap();
    assert_eq!(all_entries(&store).await[0].len(), MAX_ENTRY);
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
        store.derive(Derived { upto: 0, tiles, postings: Vec::new(), checkpoint: None }).await.unwrap();
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

pub(crate) async fn derived_rows_come_back_and_never_go_back(backend: &impl Backend) {
    let store = backend.open();
    assert_eq!(store.derived(LOG).await, Ok(DerivedState { upto: 0, checkpoint: None }));
    store.commit(change([], &["e"; 6])).await.unwrap();
    let tile = |n| (TileId { level: 0, index: n }, Bytes::from(vec![n as u8; 8192]));
    let derived = |upto, checkpoint: Option<(u64, &str)>| Derived {
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

pub(crate) async fn postings_are_ordered_within_their_key_and_range(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([], &["e"; 300])).await.unwrap();
    let posting = |key: &[u8], sequence| Posting { key: key.to_vec(), sequence };
    let longest = [9; 255];
    let mut postings: Vec<_> = [256, 2, 255, 1].map(|sequence| posting(b"k", sequence)).into();
    postings.extend([posting(b"k2", 7), posting(b"", 8), posting(&longest, 9), posting(b"\xff", 3)]);
    store.derive(Derived { upto: 300, tiles: Vec::new(), postings, checkpoint: None }).await.unwrap();
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

pub(crate) async fn stats_count_records_and_entries(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([Write::Insert(record(1)), Write::Insert(record(2))], &["a"])).await.unwrap();
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(1) };
    store.commit(change([Write::Replace(erased)], &["b", "c"])).await.unwrap();
    assert_eq!(write(&store, [Write::Insert(record(1))]).await, CONFLICT);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.records, stats.entries), (2, 3));
}

pub(crate) async fn everything_is_there_after_a_reopen(backend: &impl Backend) {
    let store = backend.open();
    let identity = VaultIdentity {
        vault: VaultId::from_bytes([1; 16]),
        environment: Environment::parse("prod").unwrap(),
    };
    store.found(&identity).await.unwrap();
    let writes = [
        Write::Insert(record(1)),
        Write::Insert(record(2)),
        Write::InsertKey(key(1)),
        Write::Remember(answer(1, 10, 20)),
    ];
    store.commit(change(writes, &["a", "b"])).await.unwrap();
    let tile = (TileId { level: 0, index: 0 }, Bytes::from_static(b"tile"));
    let postings = vec![Posting { key: b"k".to_vec(), sequence: 1 }];
    let checkpoint = Some((2, "two".to_owned()));
    store.derive(Derived { upto: 2, tiles: vec![tile.clone()], postings, checkpoint }).await.unwrap();
    let stats = store.stats().await.unwrap();
    drop(store);

    let store = backend.open();
    assert_eq!(store.identity().await, Ok(Some(identity)));
    assert_eq!((get(&store, 1).await, get(&store, 2).await), (Some(record(1)), Some(record(2))));
    assert_eq!(store.key(key_id(1)).await, Ok(Some(key(1))));
    assert_eq!(store.remembered(&[1; 32]).await, Ok(Some(answer(1, 10, 20))));
    assert_eq!(of_key(&store, 1).await, [token(1), token(2)]);
    assert_eq!((store.log_size(LOG).await, all_entries(&store).await.len()), (Ok(2), 2));
    let state = DerivedState { upto: 2, checkpoint: Some((2, "two".to_owned())) };
    assert_eq!(store.derived(LOG).await, Ok(state));
    assert_eq!(store.tile(LOG, tile.0).await, Ok(Some(tile.1)));
    assert_eq!(store.postings(LOG, b"k", 0, 9, false, 9).await, Ok(vec![1]));
    let again = store.stats().await.unwrap();
    assert_eq!((again.records, again.entries), (stats.records, stats.entries));
    let next = store.commit(change([Write::Insert(record(3))], &["c"])).await.unwrap();
    assert_eq!(next.first_sequence, 2);
}

pub(crate) async fn a_closed_store_is_unavailable(backend: &impl Backend) {
    let store = backend.open();
    store.commit(change([Write::Insert(record(1))], &["a"])).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.log_size(LOG).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.records(&[token(1)]).await, Err(StoreError::Unavailable { .. })));
    let refused = store.commit(change([Write::Insert(record(2))], &[])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })));
    store.close().await.unwrap();
}

pub(crate) async fn scans_read_everything_once_in_order(backend: &impl Backend) {
    let store = backend.open();
    let writes = (1..=7).map(|number| Write::Insert(record(number)));
    let keys = (1..=5).map(|number| Write::InsertKey(key(number)));
    let answers = (1..=3).map(|number| Write::Remember(answer(number, 1, 10)));
    write(&store, writes.chain(keys).chain(answers).collect::<Vec<_>>()).await.unwrap();

    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan_records(after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.token);
        records.extend(page);
    }
    let mut expected: Vec<_> = (1..=7).map(record).collect();
    expected.sort_by_key(|record| record.token);
    assert_eq!(records, expected);

    let mut expected: Vec<_> = (1..=5).map(key).collect();
    expected.sort_by_key(|key| key.id);
    assert_eq!(store.scan_keys(None, 99).await.unwrap(), expected);
    assert_eq!(store.scan_keys(Some(expected[1].id), 2).await.unwrap(), expected[2..4]);
    for limit in [1, 2, 5, 9] {
        let keys = paged(limit, async |after| store.key_rows(after, limit).await).await;
        assert_eq!(keys, expected, "limit {limit}");
    }

    let expected: Vec<_> = (1..=3).map(|number| answer(number, 1, 10)).collect();
    assert_eq!(store.scan_remembered(None, 2).await.unwrap(), expected[..2]);
    assert_eq!(store.scan_remembered(Some(expected[1].key), 2).await.unwrap(), expected[2..]);
    assert_eq!(store.scan_records(None, 0).await, Ok(Vec::new()));
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
