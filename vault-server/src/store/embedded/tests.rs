use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::engine::View;
use super::format::FORMAT;
use super::simulated::{Fault, SimulatedEngine};
use super::*;
use crate::domain::{Body, EntityKind, EntityScope, JobKind, JobPlace, KeyRecord, KeyState, Record};
use crate::store::conformance::{
    Backend, LOG, change, conformance_tests, entity, entity_place, job, key, key_id, record, subject, tenant,
    token,
};
use crate::store::{Malformed, Write};

impl Backend for (tempfile::TempDir, EngineKind) {
    fn open(&self) -> Arc<dyn Store> {
        open(self.1, self.0.path(), StoreOptions::default()).unwrap()
    }

    fn malform(&self, key: &[u8]) {
        let path = self.0.path().join(self.1.as_str());
        match self.1 {
            EngineKind::Fjall => malform(&fjall::FjallEngine::open(&path, 1 << 20).unwrap(), key),
            EngineKind::Sled => malform(&sled::SledEngine::open(&path, 1 << 20, false).unwrap(), key),
        }
    }
}

/// A row of no version that there is.
fn malform(engine: &impl Engine, key: &[u8]) {
    let mut rows = Rows::default();
    rows.put(Space::Entities, key, b"x");
    engine.apply(&[rows], true).unwrap();
}

impl Backend for SimulatedEngine {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(start(self))
    }

    fn malform(&self, key: &[u8]) {
        malform(self, key);
    }
}

fn start(engine: &SimulatedEngine) -> EmbeddedStore<SimulatedEngine> {
    EmbeddedStore::start("simulated", engine.clone(), None, &StoreOptions::default()).unwrap()
}

mod fjall_keeps {
    use super::*;
    conformance_tests!((tempfile::tempdir().unwrap(), EngineKind::Fjall));
}

mod sled_keeps {
    use super::*;
    conformance_tests!((tempfile::tempdir().unwrap(), EngineKind::Sled));
}

mod simulated_keeps {
    use super::*;
    conformance_tests!(SimulatedEngine::default());
}

mod directories {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_with_words() {
        for kind in EngineKind::ALL {
            let dir = tempfile::tempdir().unwrap();
            let _store = open(kind, dir.path(), StoreOptions::default()).unwrap();
            let second = open(kind, dir.path(), StoreOptions::default()).err();
            let Some(StoreError::Unavailable { why }) = second else { panic!("{second:?}") };
            assert!(why.contains("in use by another process"), "{why}");
        }
    }

    #[test]
    fn a_directory_of_another_engine_is_foreign() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(EngineKind::Fjall, dir.path(), StoreOptions::default()).unwrap());
        let other = open(EngineKind::Sled, dir.path(), StoreOptions::default()).err();
        assert!(matches!(other, Some(StoreError::Foreign { .. })), "{other:?}");
    }

    #[test]
    fn a_directory_is_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a").join("store");
        drop(open(EngineKind::Fjall, &dir, StoreOptions::default()).unwrap());
        for dir in [&dir, &dir.join("fjall")] {
            assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[tokio::test]
    async fn a_directory_is_free_after_close() {
        for kind in EngineKind::ALL {
            let dir = tempfile::tempdir().unwrap();
            let store = open(kind, dir.path(), StoreOptions::default()).unwrap();
            store.close().await.unwrap();
            drop(open(kind, dir.path(), StoreOptions::default()).unwrap());
        }
    }
}

/// Before there were jobs, and before there were entities.
#[tokio::test]
async fn a_store_of_older_software_opens_and_has_room_for_what_is_new() {
    let kinds = EngineKind::ALL.into_iter();
    for (kind, first) in kinds.flat_map(|kind| [(kind, Space::Jobs), (kind, Space::Entities)]) {
        let dir = tempfile::tempdir().unwrap();
        let writes = || change([Write::Insert(record(1))], &["a"]);
        match kind {
            EngineKind::Fjall => {
                let path = dir.path().join(kind.as_str());
                let older = &Space::ALL[..first.position()];
                let engine = fjall::FjallEngine::open_with(&path, 1 << 20, older).unwrap();
                let store = EmbeddedStore::start("older", engine, None, &StoreOptions::default()).unwrap();
                store.commit(writes()).await.unwrap();
                store.close().await.unwrap();
            }
            // One tree for all spaces: there is nothing to make.
            EngineKind::Sled => {
                let store = open(kind, dir.path(), StoreOptions::default()).unwrap();
                store.commit(writes()).await.unwrap();
                store.close().await.unwrap();
            }
        }
        for revision in 0..2 {
            let store = open(kind, dir.path(), StoreOptions::default()).unwrap();
            assert_eq!(store.records(&[token(1)]).await.unwrap(), [Lookup::Found(Box::new(record(1)))]);
            let place = JobPlace { tenant: None, kind: JobKind::Rewrap };
            let before = store.job(&place).await.unwrap().map(|job| job.revision);
            assert_eq!(before, u64::checked_sub(revision, 1));
            store.commit(change([Write::PutJob(job(place, revision))], &[])).await.unwrap();
            let place = entity_place(EntityKind::Principal, None, b"ann");
            let before = store.entity(&place).await.unwrap().map(|entity| entity.revision);
            assert_eq!(before, u64::checked_sub(revision, 1));
            let write = Write::PutEntity(entity(&place, revision));
            store.commit(change([write], &[])).await.unwrap();
            store.close().await.unwrap();
        }
    }
}

#[test]
fn every_engine_is_configured_by_the_name_it_has_on_disk() {
    for kind in EngineKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        assert_eq!(serde_json::from_value::<EngineKind>(kind.as_str().into()).unwrap(), kind);
    }
}

mod unused {
    use super::*;
    use crate::store::embedded::prepare::Condition;

    const UNUSED: StoreError = StoreError::Conflict { write: 0 };

    /// What the committer says if the one who asks looked so far, and saw nothing.
    async fn asked(store: &EmbeddedStore<SimulatedEngine>, looked: u64) -> Result<Done, StoreError> {
        let mut change = Prepared::new(change([Write::Unused(key_id(1))], &[]), &Seen::default()).unwrap();
        let Some(Condition::Unused { looked: at, .. }) = change.conditions.first_mut() else { panic!() };
        *at = Some(looked);
        store.ask(Task::Commit(change), 1, None).await
    }

    #[tokio::test]
    async fn the_committer_looks_only_if_a_record_came_since_the_asker_looked() {
        let store = start(&SimulatedEngine::default());
        store.commit(change([], &["the first batch"])).await.unwrap();
        store.commit(change([Write::Insert(record(1))], &[])).await.unwrap();
        assert_eq!(asked(&store, 1).await, Err(UNUSED));
        // As if the asker had looked and overlooked it: nobody looks again.
        assert!(asked(&store, 2).await.is_ok());
        let next = Record { revision: 1, ..record(1) };
        store.commit(change([Write::Replace(next)], &[])).await.unwrap();
        assert_eq!(asked(&store, 2).await, Err(UNUSED));
        assert_eq!(store.commit(change([Write::Unused(key_id(1))], &[])).await, Err(UNUSED));
    }
}

mod replacing {
    use super::*;
    use crate::store::keys::Indexed;

    /// The rows of a batch that changes `from` to `to`.
    async fn rows(from: Record, to: Record) -> Vec<(Space, Vec<u8>, bool)> {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        store.commit(change([Write::Insert(from)], &[])).await.unwrap();
        store.commit(change([Write::Replace(to)], &[])).await.unwrap();
        let mut rows = engine.applied();
        rows.sort();
        rows
    }

    fn row(record: &Record, space: Space, put: bool) -> (Space, Vec<u8>, bool) {
        (space, Indexed::of(record).key_in(space), put)
    }

    fn itself(record: &Record) -> (Space, Vec<u8>, bool) {
        (Space::Records, record.token.as_bytes().to_vec(), true)
    }

    fn next(record: &Record) -> Record {
        Record { revision: record.revision + 1, ..record.clone() }
    }

    #[tokio::test]
    async fn one_sealed_anew_writes_itself_and_its_key_alone() {
        let from = record(1);
        let mut to = next(&from);
        let Body::Sealed { key_id: under, .. } = &mut to.body else { panic!("sealed") };
        *under = key_id(77);
        let mut expected =
            vec![itself(&to), row(&from, Space::SealedUnder, false), row(&to, Space::SealedUnder, true)];
        expected.sort();
        assert_eq!(rows(from, to).await, expected);
    }

    #[tokio::test]
    async fn one_with_another_index_writes_itself_and_its_index_alone() {
        let from = record(1);
        let mut to = next(&from);
        to.index.as_mut().unwrap().mac[0] ^= 1;
        let mut expected =
            vec![itself(&to), row(&from, Space::Indexes, false), row(&to, Space::Indexes, true)];
        expected.sort();
        assert_eq!(rows(from, to).await, expected);
    }

    #[tokio::test]
    async fn one_that_lost_its_value_loses_its_index_rows() {
        let from = record(1);
        let to = Record { body: Body::Erased { at: Timestamp(9) }, index: None, ..next(&from) };
        let mut expected = vec![itself(&to)];
        expected.extend(Indexed::SPACES.map(|space| row(&from, space, false)));
        expected.sort();
        assert_eq!(rows(from, to).await, expected);
    }

    #[tokio::test]
    async fn one_that_is_otherwise_the_same_writes_no_index_row() {
        let (from, to) = (record(1), next(&record(1)));
        assert_eq!(rows(from, to.clone()).await, [itself(&to)]);
    }
}

mod corruption {
    use super::*;
    use crate::store::keys;

    async fn one_record() -> (SimulatedEngine, EmbeddedStore<SimulatedEngine>) {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        store
            .commit(change([Write::Insert(record(1)), Write::Insert(record(2))], &["a", "b"]))
            .await
            .unwrap();
        (engine, store)
    }

    #[tokio::test]
    async fn a_changed_record_is_corrupt_and_hides_no_other() {
        let (engine, store) = one_record().await;
        engine.flip(Space::Records, token(1).as_bytes(), 30);
        let found = store.records(&[token(1), token(2)]).await.unwrap();
        assert_eq!(found, [Lookup::Corrupt, Lookup::Found(Box::new(record(2)))]);
    }

    #[tokio::test]
    async fn a_record_under_another_token_is_corrupt() {
        let (engine, store) = one_record().await;
        engine.copy(Space::Records, token(1).as_bytes(), token(3).as_bytes());
        assert_eq!(store.records(&[token(3)]).await.unwrap(), [Lookup::Corrupt]);
    }

    #[tokio::test]
    async fn a_corrupt_record_cannot_be_replaced_and_is_named() {
        let (engine, store) = one_record().await;
        engine.flip(Space::Records, token(1).as_bytes(), 0);
        let next = Record { revision: 1, ..record(1) };
        let refused = store.commit(change([Write::Replace(next)], &["c"])).await;
        let what = format!("record {}", hex::encode(token(1).as_bytes()));
        assert_eq!(refused, Err(StoreError::Corrupt { what }));
        assert_eq!(store.log_size(LOG).await, Ok(2));
    }

    #[tokio::test]
    async fn a_changed_index_row_is_named() {
        let (engine, store) = one_record().await;
        let key = [&keys::subject(&tenant("st-mary"), subject(1))[..], token(1).as_bytes()].concat();
        engine.flip(Space::Subjects, &key, 0);
        let found = store.tokens_of_subject(&tenant("st-mary"), subject(1), None, 9).await;
        assert_eq!(found, Err(StoreError::Corrupt { what: format!("subject-index {}", hex::encode(key)) }));
        let key = [&keys::sealed_under(key_id(1))[..], token(1).as_bytes()].concat();
        engine.flip(Space::SealedUnder, &key, 0);
        let page = store.tokens_of_key(key_id(1), None, 9).await.unwrap();
        let what = format!("key-index {}", hex::encode(key));
        assert_eq!(page.malformed, [Malformed { what, token: Some(token(1)) }]);
        assert_eq!((page.items, page.next), (vec![token(2)], None), "the others are read");
    }

    #[tokio::test]
    async fn a_changed_or_missing_log_entry_is_named() {
        let (engine, store) = one_record().await;
        let corrupt = |sequence: u64| {
            let what = format!("log-entry {}", hex::encode(sequence.to_be_bytes()));
            Err(StoreError::Corrupt { what })
        };
        engine.flip(Space::Log, &1_u64.to_be_bytes(), 0);
        assert_eq!(store.entries(LOG, 0, 9, 99).await, corrupt(1));
        engine.remove(Space::Log, &1_u64.to_be_bytes());
        assert_eq!(store.entries(LOG, 1, 9, 99).await, corrupt(1));
        engine.remove(Space::Log, &0_u64.to_be_bytes());
        assert_eq!(store.entries(LOG, 0, 9, 99).await, corrupt(0));
    }

    #[tokio::test]
    async fn a_log_that_lost_its_end_is_corrupt() {
        let (engine, store) = one_record().await;
        let derived = Derived { from: 0, upto: 2, tiles: vec![], postings: vec![], checkpoint: None };
        store.derive(derived).await.unwrap();
        drop(store);
        drop(start(&engine));
        engine.remove(Space::Log, &1_u64.to_be_bytes());
        let opened = EmbeddedStore::start("simulated", engine, None, &StoreOptions::default()).err();
        assert_eq!(opened, Some(StoreError::Corrupt { what: "log-entry 0000000000000001".to_owned() }));
    }

    #[tokio::test]
    async fn a_changed_job_is_named_and_one_at_no_place_of_a_job_too() {
        let (engine, store) = one_record().await;
        let place = JobPlace { tenant: None, kind: JobKind::Rewrap };
        store.commit(change([Write::PutJob(job(place.clone(), 0))], &[])).await.unwrap();
        let corrupt = |key: &[u8]| StoreError::Corrupt { what: format!("job {}", hex::encode(key)) };
        engine.copy(Space::Jobs, &[0, 3], &[0, 77]);
        assert_eq!(store.jobs(None, 9).await, Err(corrupt(&[0, 77])));
        engine.flip(Space::Jobs, &[0, 3], 30);
        assert_eq!(store.job(&place).await, Err(corrupt(&[0, 3])));
        // Neither is in the way of others.
        let other = job(JobPlace { tenant: None, kind: JobKind::Reindex }, 0);
        store.commit(change([Write::PutJob(other.clone())], &[])).await.unwrap();
        let corrupt_rows = ["job 0003", "job 004d"].map(str::to_owned).to_vec();
        let found = UnderWay { jobs: vec![other], corrupt: corrupt_rows };
        assert_eq!(store.jobs_under_way().await, Ok(found));
        let next = store.commit(change([Write::PutJob(job(place, 1))], &[])).await;
        assert_eq!(next, Err(corrupt(&[0, 3])));
    }

    #[tokio::test]
    async fn a_changed_entity_is_named_and_one_at_no_place_of_an_entity_too() {
        let (engine, store) = one_record().await;
        let place = entity_place(EntityKind::Principal, None, b"ann");
        let (key, scope) = (keys::entity(&place), EntityScope::Kind(EntityKind::Principal));
        store.commit(change([Write::PutEntity(entity(&place, 0))], &[])).await.unwrap();
        let corrupt = |key: &[u8]| StoreError::Corrupt { what: format!("entity {}", hex::encode(key)) };
        engine.copy(Space::Entities, &key, &[1, 0]);
        assert_eq!(store.entities(&scope, None, 9).await, Err(corrupt(&[1, 0])));
        engine.flip(Space::Entities, &key, 15);
        assert_eq!(store.entity(&place).await, Err(corrupt(&key)));
        for write in [
            Write::PutEntity(entity(&place, 1)),
            Write::DropEntity { place: place.clone(), revision: 0 },
            Write::Stands { place: place.clone(), revision: Some(0) },
            Write::Stands { place, revision: None },
        ] {
            let refused = store.commit(change([write, Write::Insert(record(3))], &[])).await;
            assert_eq!(refused, Err(corrupt(&key)));
        }
        assert_eq!(store.records(&[token(3)]).await.unwrap(), [Lookup::Missing]);
    }

    #[tokio::test]
    async fn a_key_that_can_not_be_read_is_not_active() {
        let (engine, store) = one_record().await;
        store.commit(change([Write::InsertKey(key(1))], &[])).await.unwrap();
        store.commit(change([Write::Active(key_id(1))], &[])).await.unwrap();
        let place = keys::key(key(1).tenant.as_ref(), key(1).purpose, key(1).version);
        engine.flip(Space::Keys, &place, 30);
        let refused = store.commit(change([Write::Active(key_id(1)), Write::Insert(record(3))], &[])).await;
        assert_eq!(refused, Err(StoreError::Corrupt { what: format!("key {}", hex::encode(place)) }));
        assert_eq!(store.records(&[token(3)]).await.unwrap(), [Lookup::Missing]);
    }

    #[tokio::test]
    async fn a_store_of_another_format_is_foreign() {
        let engine = SimulatedEngine::default();
        drop(start(&engine));
        let mut rows = Rows::default();
        rows.put(Space::Meta, meta::FORMAT, &(FORMAT + 1).to_be_bytes());
        engine.apply(&[rows], true).unwrap();
        let opened = EmbeddedStore::start("simulated", engine, None, &StoreOptions::default()).err();
        assert!(matches!(opened, Some(StoreError::Foreign { .. })), "{opened:?}");
    }

    #[tokio::test]
    async fn a_store_without_seals_is_brought_forward_once() {
        for before in [1_u64, 2] {
            let engine = SimulatedEngine::default();
            drop(start(&engine));
            let mut rows = Rows::default();
            rows.put(Space::Meta, meta::FORMAT, &before.to_be_bytes());
            engine.apply(&[rows], true).unwrap();
            drop(start(&engine));
            assert_eq!(read::number(&engine.view(), meta::FORMAT), Ok(Some(FORMAT)));
        }
        assert_eq!(FORMAT, 3);
    }

    #[tokio::test]
    async fn a_store_that_lost_its_format_but_has_rows_is_corrupt() {
        let (engine, store) = one_record().await;
        drop(store);
        engine.remove(Space::Meta, meta::FORMAT);
        let opened = EmbeddedStore::start("simulated", engine, None, &StoreOptions::default()).err();
        assert_eq!(opened, Some(StoreError::Corrupt { what: "meta 666f726d6174".to_owned() }));
    }
}

mod durability {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waited_too_long_is_not_written_and_what_was_begun_is_waited_for() {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        let soon = || Instant::now() + Duration::from_millis(50);
        engine.hold_syncs();
        let mut begun = Box::pin(store.commit_until(change([], &["begun"]), soon()));
        assert!(futures::poll!(&mut begun).is_pending());
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let waited = store.commit_until(change([Write::Insert(record(1))], &["late"]), soon()).await;
        assert!(matches!(waited, Err(StoreError::Unavailable { .. })), "{waited:?}");
        assert!(futures::poll!(&mut begun).is_pending(), "past its time, too");
        engine.release_syncs();
        assert!(begun.await.is_ok());
        // Another batch is made, so that the one that was taken back was come by.
        store.commit(change([], &["after"])).await.unwrap();
        assert_eq!(store.entries(LogId(0), 0, 9, 99).await.unwrap(), ["begun", "after"]);
        assert_eq!(store.records(&[token(1)]).await.unwrap(), [Lookup::Missing]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_sync_serves_all_who_wait() {
        let engine = SimulatedEngine::default();
        let store = Arc::new(start(&engine));
        engine.hold_syncs();
        let commit = |number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(change([Write::Insert(record(number))], &["e"])).await })
        };
        let first = commit(0);
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let others: Vec<_> = (1..=100).map(commit).collect();
        let waiting =
            || store.queue.lock().as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity());
        while waiting() < 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = engine.syncs();
        engine.release_syncs();
        first.await.unwrap().unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert!(engine.syncs() - before <= 3, "{} syncs", engine.syncs() - before);
    }

    /// Both wait for the same batch: the write is behind the change of its key, so it sees it.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_behind_a_change_of_a_key_sees_it() {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        store.commit(change([Write::InsertKey(key(1))], &[])).await.unwrap();
        engine.hold_syncs();
        let mut first = Box::pin(store.commit(change([Write::Insert(record(1))], &[])));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let under = |number| change([Write::Active(key_id(1)), Write::Insert(record(number))], &[]);
        let retired = KeyRecord { state: KeyState::Retired, revision: 1, ..key(1) };
        let mut before = Box::pin(store.commit(under(2)));
        let mut changed = Box::pin(store.commit(change([Write::ReplaceKey(retired)], &[])));
        let mut behind = Box::pin(store.commit(under(3)));
        for waiting in [&mut before, &mut changed, &mut behind] {
            assert!(futures::poll!(waiting).is_pending());
        }
        engine.release_syncs();
        let (first, before, changed, behind) = futures::join!(first, before, changed, behind);
        assert!(first.is_ok() && before.is_ok() && changed.is_ok());
        assert_eq!(behind, Err(StoreError::Conflict { write: 0 }));
        assert_eq!(store.count_of_key(key_id(1)).await, Ok(2));
    }

    /// All wait for the same batch: who needs an entity to stand sees the changes before it, and none behind.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_needs_an_entity_to_stand_sees_what_waits_before_it() {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        let place = entity_place(EntityKind::Principal, None, b"ann");
        let at = |revision| change([Write::PutEntity(entity(&place, revision))], &[]);
        let stands = |revision| change([Write::Stands { place: place.clone(), revision }], &["stood"]);
        store.commit(at(0)).await.unwrap();
        engine.hold_syncs();
        let mut first = Box::pin(store.commit(change([Write::Insert(record(1))], &[])));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let dropped = change([Write::DropEntity { place: place.clone(), revision: 1 }], &[]);
        let mut before = Box::pin(store.commit(stands(Some(0))));
        let mut changed = Box::pin(store.commit(at(1)));
        let mut late = Box::pin(store.commit(stands(Some(0))));
        let mut again = Box::pin(store.commit(at(1)));
        let mut gone = Box::pin(store.commit(dropped));
        let mut lost = Box::pin(store.commit(stands(Some(1))));
        let mut none = Box::pin(store.commit(stands(None)));
        let mut anew = Box::pin(store.commit(at(0)));
        for waiting in
            [&mut before, &mut changed, &mut late, &mut again, &mut gone, &mut lost, &mut none, &mut anew]
        {
            assert!(futures::poll!(waiting).is_pending());
        }
        engine.release_syncs();
        let all = futures::join!(first, before, changed, late, again, gone, lost, none, anew);
        let (first, before, changed, late, again, gone, lost, none, anew) = all;
        assert!([first, before, changed, gone, none, anew].iter().all(Result::is_ok));
        for refused in [late, again, lost] {
            assert_eq!(refused, Err(StoreError::Conflict { write: 0 }));
        }
        assert_eq!(store.log_size(LOG).await, Ok(2), "who was refused has no entry");
        assert_eq!(store.entity(&place).await, Ok(Some(entity(&place, 0))));
    }

    /// All wait for the same batch: whether a key is used is asked of what is before it, and of nothing behind.
    #[tokio::test(flavor = "multi_thread")]
    async fn who_needs_a_key_unused_sees_what_waits_before_it() {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        store.commit(change([Write::InsertKey(key(1))], &[])).await.unwrap();
        engine.hold_syncs();
        let mut first = Box::pin(store.commit(change([Write::InsertKey(key(2))], &[])));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        // In this order, as they are: without a look before.
        let ask = |change| store.ask(Task::Commit(Prepared::new(change, &store.seen).unwrap()), 1, None);
        let unused = || change([Write::Unused(key_id(1))], &[]);
        let erased =
            Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(1) };
        let mut none = Box::pin(ask(unused()));
        let mut made = Box::pin(ask(change([Write::Insert(record(1))], &[])));
        let mut one = Box::pin(ask(unused()));
        let mut gone = Box::pin(ask(change([Write::Replace(erased)], &[])));
        let mut again = Box::pin(ask(unused()));
        for waiting in [&mut none, &mut made, &mut one, &mut gone, &mut again] {
            assert!(futures::poll!(waiting).is_pending());
        }
        engine.release_syncs();
        let (first, none, made, one, gone, again) = futures::join!(first, none, made, one, gone, again);
        assert!(first.is_ok());
        assert!([none, made, gone, again].iter().all(Result::is_ok));
        assert_eq!(one, Err(StoreError::Conflict { write: 0 }));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_read_before_it_is_durable() {
        let engine = SimulatedEngine::default();
        let store = Arc::new(start(&engine));
        engine.hold_syncs();
        let commit = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.commit(change([Write::Insert(record(1))], &["a"])).await }
        });
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        assert!(engine.view().contains(Space::Records, token(1).as_bytes()).unwrap(), "the engine shows it");
        assert_eq!(store.log_size(LOG).await, Ok(0));
        assert_eq!(store.entries(LOG, 0, 9, 99).await, Ok(vec![]));
        let mut read = Box::pin(store.records(&[]));
        assert!(futures::poll!(&mut read).is_pending(), "a read waits for the sync");
        let tokens = [token(1)];
        let mut record_read = Box::pin(store.records(&tokens));
        assert!(futures::poll!(&mut record_read).is_pending());
        engine.release_syncs();
        assert!(matches!(record_read.await.unwrap()[..], [Lookup::Found(_)]));
        commit.await.unwrap().unwrap();
        assert_eq!(store.log_size(LOG).await, Ok(1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failed_sync_is_fatal_for_everyone_and_never_tried_again() {
        let engine = SimulatedEngine::default();
        let store = Arc::new(start(&engine));
        store.commit(change([Write::Insert(record(1))], &["a"])).await.unwrap();
        engine.hold_syncs();
        engine.fail_sync_after(0);
        let syncs = engine.syncs();
        let commits: Vec<_> = (2..=9)
            .map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(
                    async move { store.commit(change([Write::Insert(record(number))], &["b"])).await },
                )
            })
            .collect();
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let tokens = [token(1)];
        let mut read = Box::pin(store.records(&tokens));
        assert!(futures::poll!(&mut read).is_pending());
        engine.release_syncs();
        assert!(matches!(read.await, Err(StoreError::Fatal { .. })), "a read that may have seen the batch");
        for commit in commits {
            assert!(matches!(commit.await.unwrap(), Err(StoreError::Fatal { .. })));
        }
        assert!(matches!(store.commit(Change::default()).await, Err(StoreError::Fatal { .. })));
        assert!(matches!(store.log_size(LOG).await, Err(StoreError::Fatal { .. })));
        assert!(matches!(store.records(&[]).await, Err(StoreError::Fatal { .. })));
        assert!(matches!(store.identity().await, Err(StoreError::Fatal { .. })));
        assert!(matches!(store.close().await, Err(StoreError::Fatal { .. })));
        assert_eq!(engine.syncs(), syncs + 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn close_waits_for_what_was_accepted() {
        let engine = SimulatedEngine::default();
        let store = Arc::new(start(&engine));
        engine.hold_syncs();
        let commit = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.commit(change([Write::Insert(record(1))], &["a"])).await }
        });
        tokio::task::block_in_place(|| engine.wait_until_syncing());
        let mut close = Box::pin(store.close());
        assert!(futures::poll!(&mut close).is_pending());
        engine.release_syncs();
        close.await.unwrap();
        commit.await.unwrap().unwrap();
        let after = start(&engine.after_power_cut());
        assert!(matches!(after.records(&[token(1)]).await.unwrap()[..], [Lookup::Found(_)]));
    }

    #[tokio::test]
    async fn a_dropped_commit_leaves_the_store_working() {
        let engine = SimulatedEngine::default();
        let store = start(&engine);
        {
            let mut commit = Box::pin(store.commit(change([Write::Insert(record(1))], &["a"])));
            let _ = futures::poll!(&mut commit);
        }
        store.commit(change([Write::Insert(record(2))], &["b"])).await.unwrap();
        while store.room.available_permits() < store.room_bytes as usize {
            tokio::task::yield_now().await;
        }
    }

    /// What a power cut takes back although it was acknowledged, or leaves half done.
    async fn broken_promise(engine: &SimulatedEngine) -> Option<String> {
        let store = start(engine);
        for number in 0..4 {
            let writes = [Write::Insert(record(2 * number)), Write::Insert(record(2 * number + 1))];
            store.commit(change(writes, &["a", "b"])).await.unwrap();
            let left = match EmbeddedStore::start(
                "simulated",
                engine.after_power_cut(),
                None,
                &StoreOptions::default(),
            ) {
                Ok(left) => left,
                Err(error) => return Some(format!("does not open: {error}")),
            };
            let tokens: Vec<_> = (0..2 * number + 2).map(token).collect();
            let found = left.records(&tokens).await.unwrap();
            if !found.iter().all(|found| matches!(found, Lookup::Found(_))) {
                return Some("a record is gone".to_owned());
            }
            if left.log_size(LOG).await != Ok(2 * number + 2) {
                return Some("an entry is gone".to_owned());
            }
            let indexed = left.tokens_of_key(key_id(1), None, 99).await.unwrap();
            if indexed.items != tokens {
                return Some("an index row is gone".to_owned());
            }
        }
        None
    }

    #[tokio::test]
    async fn a_power_cut_takes_nothing_acknowledged() {
        assert_eq!(broken_promise(&SimulatedEngine::default()).await, None);
    }

    #[tokio::test]
    async fn negative_control_acknowledging_before_the_sync_is_caught() {
        let engine = SimulatedEngine::with_fault(Fault::AcknowledgesBeforeSync);
        assert!(broken_promise(&engine).await.is_some());
    }

    #[tokio::test]
    async fn negative_control_a_torn_batch_is_caught() {
        let engine = SimulatedEngine::with_fault(Fault::TearsBatches);
        assert!(broken_promise(&engine).await.is_some());
    }
}
