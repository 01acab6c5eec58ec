//! A key of its own for every record.
//!
//! `record key(32) | commitment(32) = HKDF-SHA256(salt, data key, "phi-vault/record/1" | AAD)`

use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::DataKey;
use crate::crypto::aad::Aad;
use crate::crypto::format::{COMMITMENT, SALT};

/// Opens or seals one record, once. Wiped when dropped.
pub(super) struct RecordKey(Zeroizing<[u8; KEY + COMMITMENT]>);

impl RecordKey {
    pub(super) fn derive(key: &DataKey, salt: &[u8; SALT], aad: &Aad) -> Self {
        // Exposed: only to derive from it; never a key of a cipher itself.
        let (mut extracted, hkdf) = Hkdf::<Sha256>::extract(Some(salt), key.expose());
        extracted.as_mut_slice().zeroize();
        let mut output = Zeroizing::new([0; KEY + COMMITMENT]);
        hkdf.expand_multi_info(&[LABEL, aad.as_bytes()], output.as_mut_slice())
            .expect("64 bytes are fewer than HKDF-SHA256 can give");
        Self(output)
    }

    /// Wipes its own copy of the key when dropped.
    pub(super) fn cipher(&self) -> XChaCha20Poly1305 {
        let (key, _) = self.halves();
        XChaCha20Poly1305::new(key.into())
    }

    /// Public: tells the record key from every other one.
    pub(super) fn commitment(&self) -> &[u8; COMMITMENT] {
        self.halves().1
    }

    fn halves(&self) -> (&[u8; KEY], &[u8; COMMITMENT]) {
        let (key, rest) = self.0.split_first_chunk().expect("64 bytes begin with 32");
        (key, rest.first_chunk().expect("32 bytes are left of 64"))
    }
}

const KEY: usize = 32;
const LABEL: &[u8] = b"phi-vault/record/1";
