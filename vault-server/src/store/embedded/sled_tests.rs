use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::row;

fn open(dir: &tempfile::TempDir) -> SledEngine {
    SledEngine::open(dir.path(), 32 << 20, true).unwrap()
}

fn put(engine: &SledEngine, key: &[u8], content: &[u8]) {
    let mut rows = Rows::default();
    rows.put(Space::Tiles, key, content);
    engine.apply(&[rows], true).unwrap();
}

fn remove(engine: &SledEngine, key: &[u8]) {
    let mut rows = Rows::default();
    rows.remove(Space::Tiles, key);
    engine.apply(&[rows], true).unwrap();
}

/// The content, its checksum compared.
fn content(key: &[u8], row: &SledRow) -> Vec<u8> {
    row::content(Space::Tiles, key, row.as_ref()).unwrap().to_vec()
}

fn get(engine: &SledEngine, key: &[u8]) -> Option<Vec<u8>> {
    engine.view().get(Space::Tiles, key).unwrap().map(|row| content(key, &row))
}

fn chunks(engine: &SledEngine) -> usize {
    engine.tree.range([CHUNKS]..).count()
}

/// How many chunks a row with a content of this length has.
fn chunks_of(len: usize) -> usize {
    let row = len + CHECKSUM;
    if row <= CHUNK { 0 } else { row.div_ceil(CHUNK) }
}

fn blobs(dir: &tempfile::TempDir) -> usize {
    dir.path().join("blobs").read_dir().unwrap().count()
}

/// Around the boundaries of chunks, and as long as rows get.
const LENGTHS: [usize; 9] = [
    0,
    1,
    CHUNK - CHECKSUM,
    CHUNK - CHECKSUM + 1,
    CHUNK,
    2 * CHUNK - CHECKSUM,
    2 * CHUNK - CHECKSUM + 1,
    32_000,
    65_535,
];

#[test]
fn a_row_of_any_length_replaces_one_of_any_length_and_leaves_no_chunk_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for before in LENGTHS {
        for after in LENGTHS {
            put(&engine, b"k", &vec![1; before]);
            put(&engine, b"k", &vec![2; after]);
            assert_eq!(get(&engine, b"k"), Some(vec![2; after]), "{before} then {after}");
            assert_eq!(chunks(&engine), chunks_of(after), "{before} then {after}");
        }
        remove(&engine, b"k");
        assert_eq!((get(&engine, b"k"), chunks(&engine)), (None, 0));
    }
}

#[test]
fn the_last_of_two_rows_with_one_key_in_a_batch_counts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let mut rows = Rows::default();
    for (key, len) in [(b"a", 9000), (b"a", 5000), (b"b", 9000), (b"b", 3), (b"c", 9000)] {
        rows.put(Space::Tiles, key, &vec![7; len]);
    }
    rows.remove(Space::Tiles, b"c");
    engine.apply(&[rows], true).unwrap();
    assert_eq!(get(&engine, b"a"), Some(vec![7; 5000]));
    assert_eq!((get(&engine, b"b"), get(&engine, b"c")), (Some(vec![7; 3]), None));
    assert_eq!(chunks(&engine), chunks_of(5000));
}

#[test]
fn the_same_row_put_again_keeps_its_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for _ in 0..2 {
        put(&engine, b"k", &[3; 9000]);
        assert_eq!((get(&engine, b"k"), chunks(&engine)), (Some(vec![3; 9000]), chunks_of(9000)));
    }
}

#[test]
fn chunks_of_before_a_reopen_are_removed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(&dir), b"k", &vec![1; 65_535]);
    let engine = open(&dir);
    assert_eq!(get(&engine, b"k"), Some(vec![1; 65_535]));
    put(&engine, b"k", b"short");
    assert_eq!((get(&engine, b"k"), chunks(&engine)), (Some(b"short".to_vec()), 0));
}

#[test]
fn a_key_that_goes_on_where_another_ends_has_chunks_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    put(&engine, b"k", &[1; 9000]);
    let end =
        *engine.view().get(Space::Tiles, b"k").unwrap().unwrap().as_ref().last_chunk::<CHECKSUM>().unwrap();
    let longer = [&b"k"[..], &end, &[0; 4]].concat();
    put(&engine, &longer, &[2; 9000]);
    remove(&engine, b"k");
    assert_eq!((get(&engine, &longer), chunks(&engine)), (Some(vec![2; 9000]), chunks_of(9000)));
}

#[test]
fn scans_are_in_order_both_ways_and_see_no_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let expected: Vec<_> = (0..100_u8).map(|n| (vec![n], vec![n; LENGTHS[usize::from(n) % 9]])).collect();
    for (key, content) in &expected {
        put(&engine, key, content);
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let mut found = Vec::new();
        engine
            .view()
            .scan(Space::Tiles, (&[], None), direction, &mut |key, row| {
                found.push((key.to_vec(), row::content(Space::Tiles, key, row).unwrap().to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        if direction == Direction::Backward {
            found.reverse();
        }
        assert!(found == expected, "{direction:?}");
    }
    let mut others = 0;
    for space in Space::ALL.into_iter().filter(|space| *space != Space::Tiles) {
        engine
            .view()
            .scan(space, (&[], None), Direction::Forward, &mut |_, _| {
                others += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    assert_eq!(others, 0);
}

#[test]
fn a_short_row_costs_one_byte_more() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    put(&engine, b"k", b"");
    let value = engine.tree.get(prefixed(Space::Tiles, b"k")).unwrap().unwrap();
    assert_eq!((value.len(), engine.tree.len()), (1 + CHECKSUM, 1));
}

#[test]
fn a_row_that_lacks_a_chunk_or_has_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let refused = || {
        let row = engine.view().get(Space::Tiles, b"k").unwrap().unwrap();
        row::content(Space::Tiles, b"k", row.as_ref()).is_err()
    };
    put(&engine, b"k", &[1; 9000]);
    assert!(!refused());
    let (key, chunk) = engine.tree.range([CHUNKS]..).nth(1).unwrap().unwrap();
    engine.tree.insert(&key, vec![2; chunk.len()]).unwrap();
    assert!(refused());
    engine.tree.remove(&key).unwrap();
    assert!(refused());
    for damaged in [&[][..], &[CHUNKED], &[CHUNKED, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0], &[9; 40]] {
        engine.tree.insert(prefixed(Space::Tiles, b"k"), damaged).unwrap();
        assert!(refused(), "{damaged:?}");
    }
}

#[test]
fn who_reads_while_a_row_is_replaced_sees_one_row_or_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    put(&engine, b"k", &vec![0; 65_535]);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !ended.load(Ordering::Relaxed) {
                        let row = get(&engine, b"k").unwrap();
                        assert!(row.iter().all(|byte| *byte == row[0]));
                        engine
                            .view()
                            .scan(Space::Tiles, (&[], None), Direction::Forward, &mut |key, row| {
                                assert!(row::content(Space::Tiles, key, row).is_ok());
                                ControlFlow::Continue(())
                            })
                            .unwrap();
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for round in 0..300_u16 {
            let mut rows = Rows::default();
            rows.put(Space::Tiles, b"k", &vec![round.to_be_bytes()[1]; LENGTHS[usize::from(round) % 4 + 5]]);
            // Not too far ahead of the disk: sled can stop for good there (docs/decisions/0001-default-engine.md).
            engine.apply(&[rows], round % 8 == 0).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

/// Replaces, removes and adds rows of `len` at random, so that pages are split and joined.
fn load(engine: &SledEngine, dir: &tempfile::TempDir, len: usize, key_len: usize, batches: u64) {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 33
    };
    for batch in 0..batches {
        let mut rows = Rows::default();
        for _ in 0..16 {
            let mut key = vec![b'k'; key_len];
            key[key_len - 8..].copy_from_slice(&(next() % 400).to_be_bytes());
            if next() % 3 == 0 {
                rows.remove(Space::Tiles, &key);
            } else {
                rows.put(Space::Tiles, &key, &vec![batch as u8; len]);
            }
        }
        engine.apply(&[rows], true).unwrap();
        assert_eq!(blobs(dir), 0, "batch {batch} of rows of {len}");
    }
}

#[test]
fn no_page_becomes_a_blob_however_long_the_rows() {
    for (len, key_len, batches) in [(32_000, 8, 100), (65_535, 8, 60), (CHUNK - CHECKSUM, 264, 400)] {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        load(&engine, &dir, len, key_len, batches);
        drop(engine);
        let engine = open(&dir);
        load(&engine, &dir, len, key_len, 4);
        drop(engine);
        assert_eq!(blobs(&dir), 0);
    }
}
