//! Changed, cut, lengthened, swapped: an error, never a value, never a panic.

use std::collections::HashSet;

use super::*;
use crate::crypto::aad::Aad;
use crate::crypto::derive::RecordKey;
use crate::crypto::format::{COMMITMENT, HEADER, LENGTH, NONCE, Parts, SALT, TAG};
use chacha20poly1305::aead::AeadInOut;

#[test]
fn a_sealed_value_opens_where_it_was_sealed() {
    let key = key();
    assert_eq!(try_open(&record(&key), &identity(), &key).as_deref(), Ok(VALUE));
}

#[test]
fn the_size_tells_the_padding_only() {
    let key = key();
    let record = record(&key);
    let identity = identity();
    let place = Place::of_record(&record, &identity);
    for text in ["", "O'Neil", &"x".repeat(PADDED)] {
        let sealed = seal(&place, &key, &plain(text), PADDED).unwrap();
        assert_eq!(sealed.0.len(), HEADER + LENGTH + PADDED + TAG);
        assert_eq!(sealed.0.capacity(), sealed.0.len(), "no more allocated than needed");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let key = key();
    let good = record(&key);
    let length = sealed_bytes(&mut good.clone()).len();
    for place in 0..length {
        for bit in 0..8 {
            let mut bad = good.clone();
            sealed_bytes(&mut bad)[place] ^= 1 << bit;
            let expected = match place {
                0..2 => OpenError::Malformed,
                2..18 => OpenError::WrongKey,
                _ if place < 18 + SALT + COMMITMENT => OpenError::Commitment,
                _ => OpenError::Authentication,
            };
            assert_eq!(try_open(&bad, &identity(), &key), Err(expected), "byte {place} bit {bit}");
        }
    }
    assert_eq!(18 + SALT + COMMITMENT + NONCE, HEADER);
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let key = key();
    let good = record(&key);
    let whole = sealed_bytes(&mut good.clone()).clone();
    for length in 0..whole.len() {
        let mut bad = good.clone();
        sealed_bytes(&mut bad).truncate(length);
        let expected =
            if length < HEADER + LENGTH + TAG { OpenError::Malformed } else { OpenError::Authentication };
        assert_eq!(try_open(&bad, &identity(), &key), Err(expected), "cut to {length}");
        let mut bad = good.clone();
        sealed_bytes(&mut bad).drain(..whole.len() - length);
        assert!(try_open(&bad, &identity(), &key).is_err(), "last {length}");
    }
    for more in 1..100 {
        let mut bad = good.clone();
        sealed_bytes(&mut bad).extend(vec![0; more]);
        assert_eq!(try_open(&bad, &identity(), &key), Err(OpenError::Authentication), "{more} more");
    }
}

#[test]
fn an_erased_record_and_a_missing_item_open_to_nothing() {
    let key = key();
    let mut erased = record(&key);
    assert_eq!(open(&warrant(&erased), 1, &identity(), &key).err(), Some(OpenError::Malformed));
    erased.body = Body::Erased { at: Timestamp(1) };
    assert_eq!(try_open(&erased, &identity(), &key), Err(OpenError::Erased));
}

#[test]
fn a_value_longer_than_its_padding_is_not_sealed() {
    let key = key();
    let record = record(&key);
    let identity = identity();
    let place = Place::of_record(&record, &identity);
    let refused = seal(&place, &key, &plain("12345"), 4).err();
    assert_eq!(refused, Some(crate::crypto::SealError::TooLong));
}

/// Seals any bytes the way `seal` does, so that only what is inside is wrong.
fn seal_raw(record: &mut Record, key: &DataKey, content: &[u8]) {
    let identity = identity();
    let aad = Aad::new(&Place::of_record(record, &identity), key.id());
    let bytes = sealed_bytes(record);
    let parts = Parts::split(bytes).unwrap();
    let cipher = RecordKey::derive(key, parts.salt, &aad).cipher();
    let mut content = content.to_vec();
    let tag = cipher
        .encrypt_inout_detached(parts.nonce.into(), aad.as_bytes(), content.as_mut_slice().into())
        .unwrap();
    bytes.truncate(HEADER);
    bytes.extend_from_slice(&content);
    bytes.extend_from_slice(&tag);
}

#[test]
fn authentic_bytes_that_are_no_padded_value_are_refused() {
    let key = key();
    for (content, expected) in [
        (&b"\0\0\0\x02ab\0\0"[..], Ok("ab".to_owned())),
        (b"\0\0\0\x00", Ok(String::new())),
        (b"\0\0\0\x02ab\0\x01", Err(OpenError::Padding)),
        (b"\0\0\0\x02abc\0", Err(OpenError::Padding)),
        (b"\0\0\0\x05abcd", Err(OpenError::Padding)),
        (b"\xff\xff\xff\xffabcd", Err(OpenError::Padding)),
        (b"\0\0\0\x02a\xff\0\0", Err(OpenError::Padding)),
        (b"\0\0\0", Err(OpenError::Malformed)),
    ] {
        let mut bad = record(&key);
        seal_raw(&mut bad, &key, content);
        assert_eq!(try_open(&bad, &identity(), &key), expected, "{content:?}");
    }
}

#[test]
fn salts_and_nonces_do_not_repeat() {
    let key = key();
    let record = record(&key);
    let identity = identity();
    let place = Place::of_record(&record, &identity);
    let value = plain(VALUE);
    let (mut salts, mut nonces) = (HashSet::new(), HashSet::new());
    for _ in 0..100_000 {
        let sealed = seal(&place, &key, &value, PADDED).unwrap();
        let parts = Parts::split(&sealed.0).unwrap();
        assert!(salts.insert(*parts.salt) && nonces.insert(*parts.nonce));
    }
}
