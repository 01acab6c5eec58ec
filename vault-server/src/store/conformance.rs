//! The promises of [`Store`], each a test that every engine takes. An engine's tests are made by
//! `conformance_tests!` and have the names of the promises.

mod answers;
mod entities;
mod entries;
mod keys;
mod leases;
mod records;
mod replaced;

use std::sync::Arc;

use bytes::Bytes;
use vault_mem::{LockedKey, LockedMemoryError};

use crate::crypto::RowKey;
use crate::domain::{
    BlindIndex, Body, ClassName, Environment, KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion,
    MAX_SEALED_ENTITY, Record, Sealed, SubjectRef, TenantId, Timestamp, Token, VaultId, VaultIdentity,
    WrappedKey,
};
use crate::store::{
    Change, Cursor, Derived, DerivedState, LogId, Lookup, Page, Posting, Remembered, Store, StoreError,
    TileId, Write,
};

pub(crate) use self::answers::*;
pub(crate) use self::entities::*;
pub(crate) use self::entries::*;
pub(crate) use self::keys::*;
pub(crate) use self::leases::*;
pub(crate) use self::records::*;
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

/// A key for seals.
pub(crate) fn row_key(byte: u8) -> Arc<RowKey> {
    let identity = VaultIdentity {
        vault: VaultId::from_bytes([7; 16]),
        environment: Environment::parse("dev").unwrap(),
    };
    let key = LockedKey::fill(|key| {
        key.fill(byte);
        Ok::<_, LockedMemoryError>(())
    });
    Arc::new(RowKey::new(KeyVersion::FIRST, identity, key.unwrap()))
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
            entries_are_sealed_for_who_signs_them
            an_entry_may_be_as_long_as_a_bundle_allows_and_no_longer
            long_rows_are_replaced_removed_and_scanned_as_short_ones_are
            derived_rows_come_back_and_never_go_back
            what_is_derived_joins_what_was
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
    store
        .derive(Derived { from: 0, upto: 2, tiles: vec![tile.clone()], postings, checkpoint })
        .await
        .unwrap();
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
