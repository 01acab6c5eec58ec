//! Under which keys records were written of late, so that a look at what is under a key stays good until one was.

use std::collections::HashMap;

use crate::domain::KeyId;

/// When records were last written under keys, in this process.
#[derive(Debug, Default)]
pub(super) struct Landed {
    /// The last batch, by key.
    batches: HashMap<KeyId, u64>,
    /// What was before this batch's end is forgotten.
    from: u64,
}

impl Landed {
    /// Keys that are kept in mind.
    const MOST: usize = 1 << 16;

    pub(super) fn note(&mut self, keys: &[KeyId], batch: u64) {
        if self.batches.len() + keys.len() > Self::MOST {
            self.batches.clear();
            self.from = batch;
        }
        self.batches.extend(keys.iter().map(|key| (*key, batch)));
    }

    /// Whether no record came under the key in batches after this one.
    pub(super) fn none_since(&self, key: KeyId, batch: u64) -> bool {
        batch >= self.from && self.batches.get(&key).is_none_or(|last| *last <= batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> KeyId {
        KeyId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn a_look_is_good_until_a_record_came_and_never_when_that_is_forgotten() {
        let mut landed = Landed::default();
        assert!(landed.none_since(key(1), 0));
        landed.note(&[key(1), key(2)], 5);
        assert_eq!([4, 5, 6].map(|batch| landed.none_since(key(1), batch)), [false, true, true]);
        assert!(landed.none_since(key(3), 0));
        for number in 0..Landed::MOST {
            landed.note(&[key(10 + number)], 7);
        }
        assert!(!landed.none_since(key(1), 6) && !landed.none_since(key(3), 0));
        assert!(landed.none_since(key(1), 7));
    }
}
