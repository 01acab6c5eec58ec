//! Keys in locked memory.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vault_mem::{LockedKey, LockedMemoryError, Protection, protection};

#[derive(Debug, PartialEq)]
enum Error {
    Memory,
    Source,
}

impl From<LockedMemoryError> for Error {
    fn from(_: LockedMemoryError) -> Self {
        Self::Memory
    }
}

fn key_of(byte: u8) -> LockedKey {
    LockedKey::fill(|bytes| {
        bytes.fill(byte);
        Ok::<_, Error>(())
    })
    .expect("memory can be locked here")
}

/// The flags of the mapping that holds an address, as in proc(5).
fn flags_of(address: usize) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split(' ').next().unwrap_or_default();
        if let Some((from, to)) = range.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("address not mapped")
}

#[test]
fn keys_keep_their_bytes_apart() {
    let keys: Vec<_> = (0..=255_u8).map(key_of).collect();
    for (byte, key) in (0..=255_u8).zip(&keys) {
        assert_eq!(key.expose(), &[byte; 32]);
    }
}

#[test]
fn a_place_is_zeroed_before_it_is_filled_again() {
    for _ in 0..2_000 {
        drop(key_of(0xAA));
        let mut before = [1; 32];
        let key = LockedKey::fill(|bytes| {
            before = *bytes;
            Ok::<_, Error>(())
        });
        assert!(key.is_ok());
        assert_eq!(before, [0; 32]);
    }
}

#[test]
fn a_failed_or_panicking_fill_gives_no_key_and_its_place_back() {
    // More often than there can be places.
    for _ in 0..140_000 {
        let failed = LockedKey::fill(|bytes| {
            bytes.fill(0xBB);
            Err(Error::Source)
        });
        assert_eq!(failed.err(), Some(Error::Source));
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        LockedKey::fill(|bytes| -> Result<(), Error> {
            bytes.fill(0xCC);
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
}

#[test]
fn keys_lie_in_pages_that_are_locked_not_dumped_and_not_inherited() {
    let key = key_of(7);
    assert_ne!(protection(), Protection::Unlocked);
    let flags = flags_of(key.expose().as_ptr().addr());
    // proc(5): "lo" locked, "dd" not in core dumps, "dc" not copied on fork.
    for flag in ["lo", "dd", "dc"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} not in {flags:?}");
    }
    let heap = Box::new(0_u8);
    assert!(!flags_of(std::ptr::from_ref(&*heap).addr()).iter().any(|f| f == "dd"), "the check can fail");
}

#[test]
fn random_keys_differ() {
    let keys: HashSet<_> = (0..1_000).map(|_| *LockedKey::random().unwrap().expose()).collect();
    assert_eq!(keys.len(), 1_000);
}

#[test]
fn many_threads_can_make_and_drop_keys() {
    std::thread::scope(|scope| {
        for byte in 0..8_u8 {
            scope.spawn(move || {
                for _ in 0..500 {
                    let keys: Vec<_> = (0..20).map(|_| key_of(byte)).collect();
                    assert!(keys.iter().all(|key| key.expose() == &[byte; 32]));
                }
            });
        }
    });
}
