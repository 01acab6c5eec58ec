use vault_format::checkpoint::CheckpointError;
use vault_format::export::DirWriter;
use vault_format::note::Signer;
use vault_format::tile;
use vault_format::tree::Hash;
use vault_format::verify::{Options, verify_dir};

use super::*;
use crate::audit::test_store::TestStore;
use crate::audit::testing::{StoppedClock, draft, items, log, record};
use crate::audit::{Fixed, Item, Outcome};
use crate::store::TileId;

const LONG: Duration = Duration::from_secs(20);

const NAME: &str = "phi-vault/test/log";

fn fixed() -> Arc<dyn SigningSource> {
    Arc::new(Fixed::from(signer()))
}

fn signer() -> Signer {
    Signer::from_seed(NAME, &[3; 32]).unwrap()
}

async fn try_start(store: &Arc<TestStore>) -> Result<FollowerHandle, FollowerError> {
    let options = FollowerOptions { checkpoint_every: Duration::from_hours(1) };
    Follower::start(Arc::clone(store) as _, fixed(), NAME, Arc::new(StoppedClock), options).await
}

async fn follow(store: &Arc<TestStore>) -> Checkpoint {
    let handle = try_start(store).await.unwrap();
    let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
    handle.stop(LONG).await;
    Checkpoint::open(&fresh, signer().verifier()).unwrap()
}

async fn write(store: &Arc<TestStore>, count: usize) {
    let log = log(store);
    for i in 0..count {
        log.record(draft(i as u8), items(&[record(i as u64)])).await.unwrap();
    }
}

fn root_of(store: &TestStore) -> Hash {
    let mut frontier = vault_format::tree::Frontier::new();
    store.inner.lock().entries.iter().for_each(|entry| frontier.push(Hash::leaf(entry)));
    frontier.root()
}

#[tokio::test]
async fn the_empty_log_has_a_checkpoint() {
    let store = Arc::new(TestStore::new());
    let checkpoint = follow(&store).await;
    assert_eq!((checkpoint.size, checkpoint.root), (0, Hash::empty()));
}

#[tokio::test]
async fn taken_up_anywhere_the_root_is_the_same_and_the_export_verifies() {
    let store = Arc::new(TestStore::new());
    for count in [1, 0, 2, 252, 1, 1, 300, 1024, 67] {
        write(&store, count).await;
        let checkpoint = follow(&store).await;
        assert_eq!(checkpoint.size, store.len() as u64);
        assert_eq!(checkpoint.root, root_of(&store));
    }
    let dir = tempfile::TempDir::new().unwrap();
    let mut writer = DirWriter::create(dir.path()).unwrap();
    let (entries, text) = {
        let inner = store.inner.lock();
        (inner.entries.clone(), inner.checkpoint.clone().unwrap().1)
    };
    for entry in &entries {
        writer.push(entry).unwrap();
    }
    writer.finish(&text, signer().verifier()).unwrap();
    verify_dir(dir.path(), signer().verifier(), &Options::default()).unwrap();
    // The tiles in the store are those of the export.
    for (id, bytes) in &store.inner.lock().tiles {
        let path = dir.path().join(format!("tile/{}/{:03}", id.level, id.index));
        assert_eq!(std::fs::read(path).unwrap(), bytes[..]);
    }
}

#[tokio::test]
async fn a_fresh_checkpoint_covers_what_was_written_before_the_call() {
    let store = Arc::new(TestStore::new());
    let handle = try_start(&store).await.unwrap();
    for size in 1..20 {
        write(&store, 1).await;
        let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
        assert!(Checkpoint::open(&fresh, signer().verifier()).unwrap().size >= size);
        assert_eq!(handle.newest_checkpoint(), Some(fresh));
    }
    assert_eq!(handle.verifier_key_of("phi-vault/test/log"), Ok(signer().verifier().to_key()));
    handle.stop(LONG).await;
    assert!(!handle.is_running());
    write(&store, 1).await;
    assert_eq!(handle.fresh_checkpoint(LONG).await, Err(FreshError::Stopped));
}

#[tokio::test]
async fn nothing_is_done_while_nothing_is_new() {
    let store = Arc::new(TestStore::new());
    write(&store, 10).await;
    let handle = try_start(&store).await.unwrap();
    handle.fresh_checkpoint(LONG).await.unwrap();
    let work = || {
        let inner = store.inner.lock();
        (inner.derived_at.len(), inner.entries_read)
    };
    let before = work();
    for _ in 0..5 {
        handle.fresh_checkpoint(LONG).await.unwrap();
    }
    assert_eq!(work(), before);
    handle.stop(LONG).await;
}

#[tokio::test]
async fn entries_that_the_log_kept_are_not_read_back() {
    let store = Arc::new(TestStore::new());
    write(&store, 3).await;
    let recent = Arc::<Recent>::default();
    let options = FollowerOptions { checkpoint_every: Duration::from_hours(1) };
    let handle = Follower::start_beside(
        Arc::clone(&store) as _,
        Arc::clone(&recent),
        fixed(),
        NAME,
        Arc::new(StoppedClock),
        options,
    );
    let handle = handle.await.unwrap();
    store.inner.lock().entries_read = 0;
    let log = log(&store).beside(recent);
    for i in 0..50 {
        log.record(draft(i), items(&[record(u64::from(i))])).await.unwrap();
    }
    // One that was written by another way.
    write(&store, 1).await;
    log.record(draft(60), items(&[record(60)])).await.unwrap();
    let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
    let checkpoint = Checkpoint::open(&fresh, signer().verifier()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (55, root_of(&store)));
    assert_eq!(store.inner.lock().entries_read, 4, "those that were not kept");
    handle.stop(LONG).await;
}

#[tokio::test]
async fn what_can_not_be_derived_now_is_derived_later() {
    let store = Arc::new(TestStore::new());
    write(&store, 300).await;
    store.fail(Some(StoreError::Unavailable { why: String::new() }));
    let handle = try_start(&store).await.unwrap();
    assert_eq!(handle.fresh_checkpoint(Duration::from_millis(50)).await, Err(FreshError::Timeout));
    store.fail(None);
    let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
    assert_eq!(Checkpoint::open(&fresh, signer().verifier()).unwrap().root, root_of(&store));
    handle.stop(LONG).await;
}

#[tokio::test]
async fn what_the_store_lost_of_what_was_derived_is_derived_anew() {
    let store = Arc::new(TestStore::new());
    write(&store, 300).await;
    let handle = try_start(&store).await.unwrap();
    handle.fresh_checkpoint(LONG).await.unwrap();
    let kept = || {
        let inner = store.inner.lock();
        (inner.upto, inner.checkpoint.clone(), inner.tiles.clone(), inner.postings.clone())
    };
    let before = kept();
    write(&store, 400).await;
    let newest = handle.fresh_checkpoint(LONG).await.unwrap();
    // As after a failover to a server that has all entries, and lacks the last of what follows from them.
    {
        let inner = &mut *store.inner.lock();
        (inner.upto, inner.checkpoint, inner.tiles, inner.postings) = before;
    }
    write(&store, 20).await;
    // The first attempt finds out.
    assert_eq!(handle.fresh_checkpoint(Duration::from_millis(200)).await, Err(FreshError::Timeout));
    assert_eq!((handle.covered(), handle.newest_checkpoint()), (300, Some(newest)));
    let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
    let checkpoint = Checkpoint::open(&fresh, signer().verifier()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (720, root_of(&store)));
    let again = Arc::new(TestStore::new());
    again.inner.lock().entries.clone_from(&store.inner.lock().entries);
    follow(&again).await;
    let rows = |of: &TestStore| {
        let inner = of.inner.lock();
        (inner.tiles.clone(), inner.postings.clone())
    };
    assert_eq!(rows(&store), rows(&again));
    handle.stop(LONG).await;
}

/// A follower that has signed 300 entries, and then so many more; and a store set back to its checkpoint of 300.
async fn set_back(store: &Arc<TestStore>, more: usize) -> FollowerHandle {
    write(store, 300).await;
    let handle = try_start(store).await.unwrap();
    handle.fresh_checkpoint(LONG).await.unwrap();
    let before = {
        let inner = store.inner.lock();
        (inner.upto, inner.checkpoint.clone(), inner.tiles.clone(), inner.postings.clone())
    };
    write(store, more).await;
    handle.fresh_checkpoint(LONG).await.unwrap();
    {
        let inner = &mut *store.inner.lock();
        (inner.upto, inner.checkpoint, inner.tiles, inner.postings) = before;
    }
    handle
}

/// That nothing behind 300 is signed while the entries are not those that were.
async fn signs_nothing(store: &Arc<TestStore>, handle: &FollowerHandle) {
    let newest = handle.newest_checkpoint();
    write(store, 20).await;
    for _ in 0..4 {
        assert_eq!(handle.fresh_checkpoint(Duration::from_millis(100)).await, Err(FreshError::Timeout));
        assert_eq!(handle.newest_checkpoint(), newest);
        assert_eq!(store.inner.lock().checkpoint.as_ref().unwrap().0, 300);
    }
}

#[tokio::test]
async fn an_entry_altered_behind_a_checkpoint_that_was_put_back_is_not_signed() {
    for altered in [300, 555, 699] {
        let store = Arc::new(TestStore::new());
        let handle = set_back(&store, 400).await;
        let forged = Bytes::from_static(b"altered");
        let genuine = std::mem::replace(&mut store.inner.lock().entries[altered], forged);
        signs_nothing(&store, &handle).await;
        // It goes on once the database is what it was.
        store.inner.lock().entries[altered] = genuine;
        handle.fresh_checkpoint(Duration::from_millis(200)).await.ok();
        let fresh = handle.fresh_checkpoint(LONG).await.unwrap();
        let checkpoint = Checkpoint::open(&fresh, signer().verifier()).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root), (720, root_of(&store)));
        handle.stop(LONG).await;
    }
}

#[tokio::test]
async fn an_entry_altered_between_two_looks_at_it_is_not_signed() {
    let store = Arc::new(TestStore::new());
    let handle = set_back(&store, 400).await;
    {
        // New ones, those of the checkpoint's edge, and those of the way to where it was.
        let inner = &mut *store.inner.lock();
        inner.alter_after = Some((inner.entries_read + 20 + 300 + 400, 600));
    }
    signs_nothing(&store, &handle).await;
    assert!(store.inner.lock().alter_after.is_none(), "it was altered");
    handle.stop(LONG).await;
}

#[tokio::test]
async fn no_checkpoint_that_is_given_out_is_smaller_than_one_before() {
    let store = Arc::new(TestStore::new());
    let handle = set_back(&store, 2400).await;
    let newest = handle.newest_checkpoint().unwrap();
    {
        // As above; and the first step of the way is made again before the next one fails.
        let inner = &mut *store.inner.lock();
        inner.alter_after = Some((inner.entries_read + 20 + 300 + 2400 + 1024, 2000));
    }
    write(&store, 20).await;
    for _ in 0..4 {
        assert_eq!(handle.fresh_checkpoint(Duration::from_millis(100)).await, Err(FreshError::Timeout));
    }
    let stored = store.inner.lock().checkpoint.clone().unwrap();
    assert!((301..2700).contains(&stored.0), "{}", stored.0);
    assert_eq!(handle.newest_checkpoint(), Some(newest));
    handle.stop(LONG).await;
}

#[tokio::test]
async fn no_checkpoint_ends_between_the_parts_of_a_request() {
    let store = Arc::new(TestStore::new());
    write(&store, 1000).await;
    let many: Vec<_> = (0..40_000).map(|i| Item::of_record(&record(i), Outcome::Ok)).collect();
    log(&store).record(draft(1), many).await.unwrap();
    assert!(store.len() > 1024, "the large request lies across the end of a step");
    follow(&store).await;
    let inner = store.inner.lock();
    assert_eq!(inner.derived_at, [1000, inner.entries.len() as u64]);
}

/// What a DBA may do while the vault is down.
async fn refused(change: impl FnOnce(&mut crate::audit::test_store::Inner)) -> FollowerError {
    let store = Arc::new(TestStore::new());
    write(&store, 600).await;
    follow(&store).await;
    change(&mut store.inner.lock());
    match try_start(&store).await {
        Err(error) => error,
        Ok(_) => panic!("took up a log that was changed"),
    }
}

#[tokio::test]
async fn an_entry_changed_while_it_was_down_is_found_at_the_start() {
    for changed in [0, 255, 256, 511] {
        let error = refused(|inner| inner.entries[changed] = inner.entries[1 + changed % 2].clone()).await;
        assert_eq!(error, FollowerError::Entry { sequence: changed as u64 });
    }
    for changed in [512, 599] {
        let error = refused(|inner| inner.entries[changed] = inner.entries[1].clone()).await;
        assert_eq!(error, FollowerError::Root { signed: 600, from: 512 });
    }
}

#[tokio::test]
async fn what_the_vault_did_not_write_is_not_signed() {
    let store = Arc::new(TestStore::new());
    write(&store, 600).await;
    follow(&store).await;
    write(&store, 3).await;
    store.inner.lock().forged.insert(601);
    let refused = || FollowerError::Store(StoreError::Corrupt { what: "log entry 601".to_owned() });
    assert_eq!(try_start(&store).await.err(), Some(refused()));
    store.inner.lock().forged.clear();
    // Or while it is followed.
    let handle = try_start(&store).await.unwrap();
    handle.fresh_checkpoint(LONG).await.unwrap();
    store.inner.lock().forged.insert(603);
    write(&store, 3).await;
    let fresh = handle.fresh_checkpoint(Duration::from_millis(100)).await;
    assert_eq!(fresh, Err(FreshError::Timeout));
    assert_eq!(store.inner.lock().checkpoint.as_ref().unwrap().0, 603);
    handle.stop(LONG).await;
    // What is under a checkpoint is not asked for its seal.
    store.inner.lock().forged = (0..603).collect();
    follow(&store).await;
}

#[tokio::test]
async fn a_log_cut_while_it_was_down_is_found_at_the_start() {
    let error = refused(|inner| inner.entries.truncate(599)).await;
    assert_eq!(error, FollowerError::Cut { size: 599, signed: 600 });
}

#[tokio::test]
async fn a_changed_tile_is_found_at_the_start() {
    let id = TileId { level: 0, index: 1 };
    let error = refused(|inner| drop(inner.tiles.remove(&id))).await;
    assert_eq!(error, FollowerError::Tile { level: 0, index: 1 });
    let error = refused(|inner| drop(inner.tiles.insert(id, vec![0; 8192].into()))).await;
    assert_eq!(error, FollowerError::Entry { sequence: 256 });
    // Entry and tile changed together: only the signature tells.
    let error = refused(|inner| {
        inner.entries[300] = inner.entries[1].clone();
        let hashes: Vec<_> = inner.entries[256..512].iter().map(|entry| Hash::leaf(entry)).collect();
        inner.tiles.insert(id, tile::tile_bytes(&hashes).into());
    });
    assert_eq!(error.await, FollowerError::Root { signed: 600, from: 512 });
}

#[tokio::test]
async fn a_checkpoint_that_was_not_signed_by_the_logs_key_is_found_at_the_start() {
    let forged = |size: u64, seed: u8| {
        let other = Signer::from_seed("phi-vault/test/log", &[seed; 32]).unwrap();
        let origin = "phi-vault/test/log".to_owned();
        Some((size, Checkpoint { origin, size, root: Hash::empty() }.sign(&other).unwrap()))
    };
    let error = refused(|inner| inner.checkpoint = forged(600, 4)).await;
    assert!(matches!(error, FollowerError::Checkpoint(CheckpointError::Note(_))));
    let error = refused(|inner| inner.checkpoint = forged(600, 3)).await;
    assert_eq!(error, FollowerError::Root { signed: 600, from: 512 });
    let error = refused(|inner| inner.checkpoint = forged(599, 3)).await;
    assert_eq!(error, FollowerError::Uneven { upto: 600, checkpoint: Some(599) });
    let error = refused(|inner| inner.checkpoint = None).await;
    assert_eq!(error, FollowerError::Uneven { upto: 600, checkpoint: None });
}

#[test]
fn entries_that_were_kept_late_bound_nothing() {
    for (first, most) in [
        (None, 9),
        (Some(u64::MAX), 9),
        (Some(30), 9),
        (Some(29), 9),
        (Some(28), 8),
        (Some(21), 1),
        (Some(20), 9),
        (Some(19), 9),
        (Some(0), 9),
    ] {
        assert_eq!(most_before(first, 20, 9), most, "{first:?}");
    }
}
