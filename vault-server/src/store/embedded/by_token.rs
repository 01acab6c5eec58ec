//! Maps by token, for what is asked of every record that is written.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// By the bytes of a token, which is its own hash: tokens that are in the store are random, and no caller chooses one.
pub(super) type ByToken<V> = HashMap<[u8; 16], V, BuildHasherDefault<TokenHasher>>;

/// Takes random bytes for their hash.
#[derive(Debug, Default)]
pub(super) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks_exact(8) {
            self.0 ^= u64::from_ne_bytes(chunk.try_into().expect("8 bytes"));
        }
    }

    /// The length, which all tokens share.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    #[test]
    fn every_byte_of_a_token_tells() {
        let hash = |token: [u8; 16]| BuildHasherDefault::<TokenHasher>::default().hash_one(token);
        for place in 0..16 {
            let mut other = [7; 16];
            other[place] = 8;
            assert_ne!(hash(other), hash([7; 16]), "{place}");
        }
    }
}
