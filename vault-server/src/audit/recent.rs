//! Entries that were written a moment ago, so that the follower need not read them back.
//!
//! They are what was acknowledged, so the tree is made of that, and what becomes of a row in the store later is for those
//! who read and verify the log to find. It may lack any of them, and keeps a bounded number of bytes: what is not here
//! is read from the store.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;

/// More than a busy vault writes between two checkpoints.
const MOST_BYTES: usize = 32 << 20;

/// Entries by sequence.
#[derive(Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl Recent {
    /// Keeps entries that are durable. The oldest go when there are too many.
    pub(super) fn keep(&self, first: u64, entries: Vec<Bytes>) {
        let mut kept = self.0.lock();
        for (sequence, entry) in (first..).zip(entries) {
            kept.bytes += entry.len();
            kept.entries.insert(sequence, entry);
        }
        while kept.bytes > MOST_BYTES {
            kept.pop();
        }
    }

    /// The entries from `start` that are here without a gap, as [`crate::store::Store::entries`] would give them. None
    /// before it will be asked for again.
    pub(super) fn entries(&self, start: u64, most: usize, most_bytes: usize) -> Vec<Bytes> {
        let mut kept = self.0.lock();
        while kept.first().is_some_and(|first| first < start) {
            kept.pop();
        }
        let mut bytes = 0;
        let here = (start..).zip(&kept.entries).take(most).take_while(|(sequence, (at, entry))| {
            bytes += entry.len();
            sequence == *at && (bytes <= most_bytes || *sequence == start)
        });
        here.map(|(_, (_, entry))| entry.clone()).collect()
    }

    /// The first that is here.
    pub(super) fn first(&self) -> Option<u64> {
        self.0.lock().first()
    }
}

impl Kept {
    fn first(&self) -> Option<u64> {
        self.entries.keys().next().copied()
    }

    fn pop(&mut self) {
        if let Some((_, entry)) = self.entries.pop_first() {
            self.bytes -= entry.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn what_is_there_without_a_gap_is_given_and_what_is_before_it_is_let_go() {
        let recent = Recent::default();
        recent.keep(7, entries(&["dd"]));
        recent.keep(3, entries(&["a", "bb", "ccc"]));
        assert_eq!(recent.entries(3, 9, 99), ["a", "bb", "ccc"]);
        assert_eq!(recent.entries(3, 2, 99), ["a", "bb"]);
        assert_eq!(recent.entries(4, 9, 4), ["bb"]);
        assert_eq!(recent.entries(5, 9, 1), ["ccc"], "one at least");
        assert_eq!((recent.entries(6, 9, 99), recent.first()), (vec![], Some(7)));
        assert_eq!(recent.entries(7, 9, 99), ["dd"]);
        assert_eq!((recent.entries(8, 9, 99), recent.first()), (vec![], None));
        assert_eq!(recent.0.lock().bytes, 0);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let recent = Recent::default();
        let large = Bytes::from(vec![0; MOST_BYTES / 2]);
        recent.keep(0, vec![large.clone(), large]);
        assert_eq!(recent.first(), Some(0));
        recent.keep(2, entries(&["a"]));
        assert_eq!(recent.first(), Some(1));
    }
}
