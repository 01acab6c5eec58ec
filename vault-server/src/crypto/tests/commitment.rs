//! One ciphertext, two keys: what the commitment is for.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::aead::inout::InOutBuf;

use super::vectors::Vector;
use super::*;
use crate::crypto::aad::Aad;
use crate::crypto::derive::RecordKey;
use crate::crypto::format::Parts;

/// A record, made by `vectors/make.py`, whose ciphertext has a right tag under the keys of two record keys.
const TWO_KEYS: &str = include_str!("../vectors/two_keys_v1.json");

/// Whether the cipher alone takes a record under a key.
fn cipher_takes(record: &mut Record, identity: &VaultIdentity, key: &DataKey) -> bool {
    let aad = Aad::new(&Place::of_record(record, identity), key.id());
    let parts = Parts::split(sealed_bytes(record)).unwrap();
    let mut plain = vec![0; parts.ciphertext.len()];
    RecordKey::derive(key, parts.salt, &aad)
        .cipher()
        .decrypt_inout_detached(
            parts.nonce.into(),
            aad.as_bytes(),
            InOutBuf::new(parts.ciphertext, &mut plain).unwrap(),
            parts.tag.into(),
        )
        .is_ok()
}

#[test]
fn a_ciphertext_that_the_cipher_takes_under_two_keys_opens_under_neither_but_its_own() {
    let vector: Vector = serde_json::from_str(TWO_KEYS).unwrap();
    let (identity, key, other) = (vector.identity(), vector.data_key(), vector.other_data_key());
    let mut record = vector.record();
    assert!(cipher_takes(&mut record, &identity, &key));
    assert!(cipher_takes(&mut record, &identity, &other), "the cipher alone does not commit to its key");
    // The commitment is the first key's, and so authentic; what is in it was never a value.
    assert_eq!(try_open(&record, &identity, &key), Err(OpenError::Padding));
    assert_eq!(try_open(&record, &identity, &other), Err(OpenError::Commitment));
}

#[test]
fn a_right_commitment_does_not_make_a_wrong_ciphertext_open() {
    let key = key();
    let mut record = record(&key);
    let last = sealed_bytes(&mut record).len() - 1;
    sealed_bytes(&mut record)[last] ^= 1;
    assert_eq!(try_open(&record, &identity(), &key), Err(OpenError::Authentication));
}

#[test]
fn a_wrong_commitment_refuses_what_the_cipher_would_take() {
    let key = key();
    let mut record = record(&key);
    sealed_bytes(&mut record)[40] ^= 1;
    assert!(cipher_takes(&mut record, &identity(), &key));
    assert_eq!(try_open(&record, &identity(), &key), Err(OpenError::Commitment));
}
