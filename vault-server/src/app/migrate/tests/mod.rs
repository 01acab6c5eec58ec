//! Moves between engines, interrupted everywhere, and everything that must not pass.

mod failing;
mod vault;

use std::sync::Arc;

use tempfile::TempDir;
use vault_format::verify::{Options, verify_dir};

use self::failing::Failing;
use self::vault::{
    ENTRIES, NOW, RECORDS, SIGNED, answer, entities, fill, identity, job, jobs, key, log, record, run,
    run_sealed, run_with, seals, sign, signer, write,
};
use super::copy::{Counts, Ended};
use super::error::{MoveError, Side};
use super::logs::Exported;
use super::marker::refuse_half_moved;
use super::{logs, marker};
use crate::audit::{AuditAction, action_of};
use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, EntityScope, Job, JobKind, LeaseName};
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::memory::MemoryStore;
use crate::store::{Change, Derived, LogId, Store, StoreError, TileId, Write};

const LOG: LogId = LogId(0);
const COUNTS: Counts =
    Counts { keys: 4, records: RECORDS, answers: 8, jobs: 15, entities: 33, entries: ENTRIES };

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn filled() -> Arc<dyn Store> {
    let store = memory();
    fill(&store).await;
    store
}

fn embedded(kind: EngineKind, dir: &TempDir) -> Arc<dyn Store> {
    embedded::open(kind, dir.path(), StoreOptions { cache_bytes: 1 << 20, ..StoreOptions::default() })
        .unwrap()
}

/// Everything that can be read, and the follower takes it up.
async fn assert_moved(old: &Arc<dyn Store>, new: &Arc<dyn Store>) {
    assert_eq!(new.identity().await, Ok(Some(identity(1))));
    assert_eq!(refuse_half_moved(&**new).await, Ok(()));
    assert_eq!(new.scan_records(None, 1000).await, old.scan_records(None, 1000).await);
    assert_eq!(new.scan_keys(None, 1000).await, old.scan_keys(None, 1000).await);
    let answers: Vec<_> = (1..=9).filter(|number| *number != 2).map(answer).collect();
    assert_eq!(new.scan_remembered(None, 1000).await, Ok(answers));
    let mut there = Vec::new();
    for kind in EntityKind::ALL {
        there.extend(new.entities(&EntityScope::Kind(*kind), None, 1000).await.unwrap());
    }
    assert_eq!(there, entities());
    assert_eq!(new.jobs(None, 1000).await, Ok(jobs()));
    let entries = old.entries(LOG, 0, 10_000, usize::MAX).await.unwrap();
    let mut there = new.entries(LOG, 0, 10_000, usize::MAX).await.unwrap();
    assert_eq!(action_of(&there.pop().unwrap()), Some(AuditAction::StoreMoved));
    assert_eq!(there, entries);
    assert_eq!(new.derived(LOG).await, old.derived(LOG).await);
    for index in 0..2 {
        let id = TileId { level: 0, index };
        assert_eq!(new.tile(LOG, id).await, old.tile(LOG, id).await);
        assert!(new.tile(LOG, id).await.unwrap().is_some());
    }
    // Entries of the vault itself.
    let postings = new.postings(LOG, &[5], 0, 10_000, false, 10_000).await;
    assert_eq!(postings, old.postings(LOG, &[5], 0, 10_000, false, 10_000).await);
    assert_eq!(postings.unwrap().len() as u64, SIGNED);
    let last = record(RECORDS - 1);
    let found = new.find(&last.tenant, &last.class, last.index.unwrap(), 1000).await;
    assert_eq!(found, old.find(&last.tenant, &last.class, last.index.unwrap(), 1000).await);
    assert_eq!(new.stats().await.unwrap().records, RECORDS);
}

#[tokio::test]
async fn everything_moves_from_engine_to_engine_and_a_second_run_says_so() {
    let (fjall, sled) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let old = filled().await;
    let new = embedded(EngineKind::Fjall, &fjall);
    assert_eq!(run(&old, &new).await, Ok(Ended::Moved(COUNTS)));
    assert_moved(&old, &new).await;
    assert_eq!(run(&old, &new).await, Ok(Ended::WasThere(COUNTS)));
    new.close().await.unwrap();
    drop(new);
    // The entry of the move is not under the checkpoint: the follower goes on from there.
    let new = embedded(EngineKind::Fjall, &fjall);
    sign(&new).await;
    for last in [embedded(EngineKind::Sled, &sled), memory()] {
        let counts = Counts { entries: ENTRIES + 1, ..COUNTS };
        assert_eq!(run(&new, &last).await, Ok(Ended::Moved(counts)));
        assert_eq!(run(&new, &last).await, Ok(Ended::WasThere(counts)));
        sign(&last).await;
    }
}

/// A vault whose entries are sealed, and somebody's own entry behind them.
async fn with_a_forged_entry() -> (Arc<dyn Store>, MemoryStore) {
    let engine = MemoryStore::new();
    let old: Arc<dyn Store> = Arc::new(engine.instance(LOG));
    old.seal_entries(seals());
    fill(&old).await;
    let forged = Change { writes: Vec::new(), entries: vec!["forged".into()] };
    engine.commit(forged).await.unwrap();
    (old, engine)
}

#[tokio::test]
async fn a_move_makes_no_entry_the_vaults_that_was_not() {
    let (old, engine) = with_a_forged_entry().await;
    let new = memory();
    let refused = run_sealed(&old, &new, Vec::new(), Some(seals())).await;
    assert!(matches!(&refused, Err(error) if error.to_string().contains("log entry 530")), "{refused:?}");
    assert!(new.log_size(LOG).await.unwrap() <= ENTRIES, "it is not even copied");
    // With a checkpoint of his own it moves. It has no seal there, whatever checkpoint is put back.
    let (unsealed, new): (Arc<dyn Store>, _) = (Arc::new(engine), memory());
    sign(&unsealed).await;
    let moved = run_sealed(&old, &new, Vec::new(), Some(seals())).await;
    assert!(matches!(moved, Ok(Ended::Moved(_))), "{moved:?}");
    for entry in SIGNED..=ENTRIES {
        let sealed = new.entries_to_sign(LOG, entry, 1, usize::MAX).await;
        assert!(matches!(sealed, Err(StoreError::Corrupt { .. })), "{entry}");
    }
    assert_eq!(
        new.entries_to_sign(LOG, ENTRIES + 1, 9, usize::MAX).await.unwrap().len(),
        1,
        "that of the move"
    );
}

#[tokio::test]
async fn what_is_not_signed_yet_has_its_seals_after_a_move() {
    let old = memory();
    old.seal_entries(seals());
    fill(&old).await;
    for new in [memory(), memory()] {
        assert_eq!(run_sealed(&old, &new, Vec::new(), Some(seals())).await, Ok(Ended::Moved(COUNTS)));
        let there = new.entries_to_sign(LOG, SIGNED, 99, usize::MAX).await.unwrap();
        assert_eq!(there.len() as u64, ENTRIES - SIGNED + 1);
        sign(&new).await;
    }
}

#[tokio::test]
async fn an_empty_vault_moves() {
    let (old, new) = (memory(), memory());
    old.found(&identity(1)).await.unwrap();
    assert_eq!(run(&old, &new).await, Ok(Ended::Moved(Counts::default())));
    assert_eq!(run(&old, &new).await, Ok(Ended::WasThere(Counts::default())));
}

#[tokio::test]
async fn a_move_that_ended_at_any_call_is_taken_up() {
    let old = filled().await;
    let mut calls = 0;
    loop {
        let new = memory();
        let failing: Arc<dyn Store> = Arc::new(Failing::after(calls, Arc::clone(&new)));
        let first = run(&old, &failing).await;
        if first.is_ok() {
            break;
        }
        // Not served until it is whole, but nothing at all there is no move.
        let is_empty = new.log_size(LOG).await == Ok(0) && new.scan_keys(None, 1).await == Ok(Vec::new());
        assert!(
            refuse_half_moved(&*new).await.is_err()
                || is_empty
                || run(&old, &new).await == Ok(Ended::WasThere(COUNTS))
        );
        // Interrupted once more, in the same way, and then let be.
        let again: Arc<dyn Store> = Arc::new(Failing::after(calls, Arc::clone(&new)));
        let second = run(&old, &again).await;
        let third = run(&old, &new).await;
        assert!(matches!(third, Ok(Ended::Moved(COUNTS) | Ended::WasThere(COUNTS))), "{calls}: {third:?}");
        assert!(second.is_err() || third == Ok(Ended::WasThere(COUNTS)), "{calls}: {second:?}");
        assert_moved(&old, &new).await;
        calls += 1;
    }
    println!("interrupted at each of {calls} calls");
    assert!(calls > 50, "{calls}");
}

#[tokio::test]
async fn a_move_from_or_to_a_directory_that_ended_at_many_calls_is_taken_up() {
    let old = filled().await;
    for kind in EngineKind::ALL {
        for calls in (3..).step_by(13) {
            let (there, back) = (TempDir::new().unwrap(), memory());
            let new = embedded(kind, &there);
            let failing: Arc<dyn Store> = Arc::new(Failing::after(calls, Arc::clone(&new)));
            if run(&old, &failing).await.is_ok() {
                break;
            }
            drop(failing);
            new.close().await.unwrap();
            drop(new);
            let new = embedded(kind, &there);
            run(&old, &new).await.unwrap();
            assert_moved(&old, &new).await;
            let failing: Arc<dyn Store> = Arc::new(Failing::after(calls, Arc::clone(&new)));
            // Reading takes fewer calls than writing: the last of them may not be interrupted.
            let first = run(&failing, &back).await;
            let second = run(&new, &back).await.unwrap();
            assert_eq!(first.is_ok(), matches!(second, Ended::WasThere(_)), "{calls}: {first:?}");
            sign(&back).await;
        }
    }
}

/// A new store that a move to it ended in, after so many calls.
async fn half_moved(old: &Arc<dyn Store>, calls: usize) -> Arc<dyn Store> {
    let new = memory();
    let failing: Arc<dyn Store> = Arc::new(Failing::after(calls, Arc::clone(&new)));
    run(old, &failing).await.unwrap_err();
    new
}

/// How many calls on the new store a whole move takes.
async fn calls(old: &Arc<dyn Store>) -> usize {
    for calls in 1.. {
        let failing: Arc<dyn Store> = Arc::new(Failing::after(calls, memory()));
        if run(old, &failing).await.is_ok() {
            return calls;
        }
    }
    unreachable!()
}

fn refused(result: Result<Ended, MoveError>) -> String {
    match result {
        Err(MoveError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn different(result: Result<Ended, MoveError>) -> String {
    match result {
        Err(error @ MoveError::Different { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn other_stores_are_refused() {
    let old = filled().await;
    let new = memory();
    new.found(&identity(2)).await.unwrap();
    assert_eq!(refused(run(&old, &new).await), "the new store is the store of another vault");
    let new = memory();
    marker::put(&*new, &identity(2)).await.unwrap();
    assert!(refused(run(&old, &new).await).contains("half moved from another vault"));
    let new = memory();
    new.found(&identity(1)).await.unwrap();
    log(&new, 3).await;
    assert!(refused(run(&old, &new).await).contains("0 records and 3 log entries"));
    let new = memory();
    write(&new, vec![Write::Insert(record(1))]).await;
    assert!(refused(run(&old, &new).await).contains("not empty: it has records"));
    let new = memory();
    write(&new, vec![Write::InsertKey(key(1))]).await;
    assert!(refused(run(&old, &new).await).contains("not empty: it has the key"));
    let new = memory();
    write(&new, vec![Write::PutJob(job(None, JobKind::Rewrap))]).await;
    assert!(refused(run(&old, &new).await).contains("not empty: it has jobs"));
    let new = memory();
    write(&new, entities().drain(26..).map(Write::PutEntity).collect()).await;
    assert!(refused(run(&old, &new).await).contains("not empty: it has entities"));
    let new = memory();
    log(&new, 2).await;
    assert!(refused(run(&old, &new).await).contains("2 entries in log 0"));

    assert!(refused(run(&memory(), &memory()).await).contains("not the store of any vault"));
    let old = memory();
    old.found(&identity(2)).await.unwrap();
    assert_eq!(refused(run(&old, &memory()).await), "the old store is the store of another vault");
}

#[tokio::test]
async fn a_half_moved_store_is_neither_served_nor_moved_on() {
    let old = filled().await;
    let half = half_moved(&old, 30).await;
    assert!(matches!(refuse_half_moved(&*half).await, Err(StoreError::Foreign { .. })));
    half.found(&identity(1)).await.unwrap();
    let error = run(&half, &memory()).await.unwrap_err();
    assert!(matches!(error, MoveError::Store { side: Side::Old, error: StoreError::Foreign { .. } }));
}

#[tokio::test]
async fn a_store_that_was_used_after_the_move_is_refused_by_name() {
    let old = filled().await;
    let new = memory();
    run(&old, &new).await.unwrap();
    write(&new, vec![Write::Insert(record(100))]).await;
    let token = hex::encode(record(100).token.as_bytes());
    assert_eq!(different(run(&old, &new).await), format!("record {token}: is in the new store only"));
    log(&new, 1).await;
    let entry = ENTRIES + 1;
    assert_eq!(
        different(run(&old, &new).await),
        format!("log entry {entry}: is in the new store only: it was used")
    );
    let new = memory();
    run(&old, &new).await.unwrap();
    log(&old, 1).await;
    assert!(different(run(&old, &new).await).contains("should say that the store was moved"));
    log(&old, 1).await;
    assert!(
        different(run(&old, &new).await).contains(&format!("log entry {entry}: is in the old store only"))
    );
}

#[tokio::test]
async fn any_difference_is_named_and_leaves_the_new_store_unfinished() {
    let old = filled().await;
    let all = calls(&old).await;
    let half = || half_moved(&old, all - 3);
    let check = async |new: &Arc<dyn Store>, what: &str| {
        let why = different(run(&old, new).await);
        assert!(why.contains(what), "{why}");
        assert!(refuse_half_moved(&**new).await.is_err(), "{what}");
        assert_eq!(different(run(&old, new).await), why, "it stays");
    };

    let new = half().await;
    let altered = record(7);
    write(&new, vec![Write::Replace(crate::domain::Record { revision: altered.revision + 1, ..altered })])
        .await;
    check(&new, &format!("record {}: is not the same", hex::encode(record(7).token.as_bytes()))).await;

    for number in [0, 50] {
        let new = half().await;
        write(&new, vec![Write::Insert(record(number))]).await;
        check(
            &new,
            &format!("record {}: is in the new store only", hex::encode(record(number).token.as_bytes())),
        )
        .await;
    }
    let new = half().await;
    write(&new, vec![Write::InsertKey(key(9))]).await;
    check(&new, &format!("key {}: is in the new store only", key(9).id)).await;

    let new = half().await;
    write(&new, vec![Write::PutJob(job(Some("st-luke"), JobKind::Shred))]).await;
    check(&new, "job shred of st-luke: is in the new store only").await;
    let new = half().await;
    let altered = Job { cause: "x".to_owned(), revision: 1, ..job(None, JobKind::Rewrap) };
    write(&new, vec![Write::PutJob(altered)]).await;
    check(&new, "job rewrap of the vault: is not the same").await;

    let new = half().await;
    let name = EntityName::new(b"\xab").unwrap();
    let place = EntityPlace { name, ..entities()[2].place.clone() };
    write(&new, vec![Write::PutEntity(Entity { place, revision: 0, content: Vec::new() })]).await;
    check(&new, "entity principal ab of st-mary: is in the new store only").await;
    let new = half().await;
    let altered = Entity { revision: 1, content: b"x".to_vec(), ..entities()[4].clone() };
    write(&new, vec![Write::PutEntity(altered)]).await;
    check(&new, "entity identity 0002 of the vault: is not the same").await;
    let new = half().await;
    write(&new, vec![Write::DropEntity { place: entities()[26].place.clone(), revision: 0 }]).await;
    let again = run(&old, &new).await;
    assert_eq!(again, Ok(Ended::Moved(COUNTS)), "what is missing is brought");

    let new = half().await;
    let mut extra = answer(1);
    extra.key = [77; 32];
    write(&new, vec![Write::Remember(extra)]).await;
    check(&new, "remembered answer 4d4d").await;

    let new = half().await;
    log(&new, 1).await;
    check(&new, &format!("log entry {ENTRIES}: is in the new store only")).await;

    let new = half_moved(&old, 12 + EntityKind::ALL.len()).await;
    assert_eq!(new.log_size(LOG).await, Ok(0), "the log comes after the keys");
    new.commit(Change { writes: Vec::new(), entries: vec!["x".into()] }).await.unwrap();
    let why = run(&old, &new).await.unwrap_err().to_string();
    assert!(why.contains("log") && refuse_half_moved(&*new).await.is_err(), "{why}");

    let new = half().await;
    let tile = (TileId { level: 0, index: 0 }, vec![0; 8192].into());
    new.derive(Derived { from: 0, upto: 0, tiles: vec![tile], postings: Vec::new(), checkpoint: None })
        .await
        .unwrap();
    let why = run(&old, &new).await.unwrap_err().to_string();
    assert!(
        why.contains("audit log is not what was signed") && refuse_half_moved(&*new).await.is_err(),
        "{why}"
    );
}

#[tokio::test]
async fn a_damaged_old_store_is_not_moved() {
    let old = filled().await;
    let tile = (TileId { level: 0, index: 1 }, vec![0; 8192].into());
    old.derive(Derived { from: 0, upto: 0, tiles: vec![tile], postings: Vec::new(), checkpoint: None })
        .await
        .unwrap();
    let new = memory();
    let error = run(&old, &new).await.unwrap_err();
    assert!(matches!(error, MoveError::Log { side: Side::Old, .. }), "{error}");
    assert_eq!(new.lease(&LeaseName::parse("migration").unwrap()).await, Ok(None), "nothing is begun");
}

#[tokio::test]
async fn other_logs_are_refused_or_exported_so_that_they_verify() {
    let store = MemoryStore::new();
    let old: Arc<dyn Store> = Arc::new(store.clone());
    fill(&old).await;
    let other: Arc<dyn Store> = Arc::new(store.instance(LogId(3)));
    log(&other, 300).await;
    let why = refused(run(&old, &memory()).await);
    assert_eq!(why, "the old store has 300 entries in log 3: only log 0 can be moved. See --logs-to");

    let dir = TempDir::new().unwrap();
    let (key, out) = (dir.path().join("log.vkey"), dir.path().join("logs"));
    std::fs::write(&key, signer(LOG).verifier().to_key()).unwrap();
    let export = async || logs::export(&*old, &identity(1), &out, &key, false).await;
    assert!(format!("{:#}", export().await.unwrap_err()).contains("log 3: has no checkpoint yet"));
    sign(&other).await;
    log(&other, 1).await;
    assert!(format!("{:#}", export().await.unwrap_err()).contains("1 of its 301 entries"));
    sign(&other).await;
    // What an export that was killed left.
    std::fs::create_dir_all(out.join("3.unfinished/tile")).unwrap();
    for _ in 0..2 {
        assert_eq!(export().await.unwrap(), [Exported { log: LogId(3), size: 301 }]);
        let report = verify_dir(&out.join("3"), signer(LogId(3)).verifier(), &Options::default()).unwrap();
        assert_eq!(report.checkpoint.size, 301);
    }
    let new = memory();
    let exported = export().await.unwrap();
    assert_eq!(run_with(&old, &new, exported.clone()).await, Ok(Ended::Moved(COUNTS)));
    assert_moved(&old, &new).await;
    // An instance was started with the old store after its log had been exported.
    log(&other, 1).await;
    for new in [&new, &memory()] {
        let why = refused(run_with(&old, new, exported.clone()).await);
        assert_eq!(
            why,
            "the old store was used meanwhile: log 3 had 301 entries when it was exported, and has 302"
        );
    }
    std::fs::write(&key, signer(LogId(3)).verifier().to_key()).unwrap();
    assert!(export().await.is_err(), "the key of another log");
}

#[tokio::test]
async fn answers_that_are_over_stay_behind_and_those_that_were_brought_may_end() {
    let old = filled().await;
    assert!(old.remembered(&[2; 32]).await.unwrap().unwrap().expires < NOW);
    let new = half_moved(&old, calls(&old).await - 3).await;
    assert_eq!(new.remembered(&[2; 32]).await, Ok(None));
    // Brought by an earlier run, before it was over.
    write(&new, vec![Write::Remember(answer(2))]).await;
    assert_eq!(run(&old, &new).await, Ok(Ended::Moved(Counts { answers: 9, ..COUNTS })));
}
