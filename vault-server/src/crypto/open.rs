//! Decryption of a record: only under a warrant, only where it belongs.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::aead::inout::InOutBuf;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::DataKey;
use crate::crypto::aad::{Aad, Place};
use crate::crypto::derive::RecordKey;
use crate::crypto::format::{LENGTH, Parts};
use crate::crypto::warrant::{Detokenize, Mask, Warrant};
use crate::domain::class::{DataClass, MaskView};
use crate::domain::{Body, Masked, Plaintext, Record, VaultIdentity};

/// Why a record did not open. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of a known format; or the warrant has no such item, or it is not of the class to mask it by.
    #[error("malformed record")]
    Malformed,
    /// The key is not the one that the record is sealed under.
    #[error("wrong data key")]
    WrongKey,
    /// Key, salt or place are not those it was sealed with. Nothing was decrypted.
    #[error("commitment does not match")]
    Commitment,
    /// Nonce, ciphertext or tag were changed.
    #[error("authentication failed")]
    Authentication,
    /// Authentic, but not a padded value.
    #[error("malformed padding")]
    Padding,
    /// There is no value any more.
    #[error("erased")]
    Erased,
}

/// Opens the warrant's record number `item`.
pub fn open(
    warrant: &Warrant<Detokenize>,
    item: usize,
    identity: &VaultIdentity,
    key: &DataKey,
) -> Result<Plaintext, OpenError> {
    unseal(warrant.records().get(item).ok_or(OpenError::Malformed)?, identity, key)
}

/// Opens the warrant's record number `item`, of this class, and hands out its masked form only.
pub fn mask(
    warrant: &Warrant<Mask>,
    item: usize,
    identity: &VaultIdentity,
    key: &DataKey,
    class: &DataClass,
    view: MaskView,
) -> Result<Masked, OpenError> {
    // Another class's mask could show all of it.
    let record = warrant.records().get(item).filter(|record| record.class == *class.name());
    let value = unseal(record.ok_or(OpenError::Malformed)?, identity, key)?;
    Ok(class.mask(&value, view))
}

fn unseal(record: &Record, identity: &VaultIdentity, key: &DataKey) -> Result<Plaintext, OpenError> {
    unpad(unseal_padded(record, identity, key)?)
}

/// The bytes `length(4) | value | zeros` of a record.
pub(super) fn unseal_padded(
    record: &Record,
    identity: &VaultIdentity,
    key: &DataKey,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (key_id, key_version, sealed) = match &record.body {
        Body::Sealed { key_id, key_version, bytes } => (*key_id, *key_version, &bytes.0),
        Body::Erased { .. } => return Err(OpenError::Erased),
    };
    let parts = Parts::split(sealed).ok_or(OpenError::Malformed)?;
    let right_key = key.id() == key_id
        && key.id() == parts.key_id
        && key.version() == key_version
        && *key.tenant() == record.tenant;
    if !right_key {
        return Err(OpenError::WrongKey);
    }

    let aad = Aad::new(&Place::of_record(record, identity), key_id);
    let record_key = RecordKey::derive(key, parts.salt, &aad);
    if !bool::from(record_key.commitment().ct_eq(parts.commitment)) {
        return Err(OpenError::Commitment);
    }
    decrypt(&record_key, &aad, &parts)
}

fn decrypt(record_key: &RecordKey, aad: &Aad, parts: &Parts<'_>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut plain = Zeroizing::new(vec![0; parts.ciphertext.len()]);
    let buffer = InOutBuf::new(parts.ciphertext, &mut plain).expect("made as long as the ciphertext");
    record_key
        .cipher()
        .decrypt_inout_detached(parts.nonce.into(), aad.as_bytes(), buffer, parts.tag.into())
        .map_err(|_| OpenError::Authentication)?;
    Ok(plain)
}

/// Cuts the value out of `length(4) | value | zeros`, in its place.
pub(super) fn unpad(mut plain: Zeroizing<Vec<u8>>) -> Result<Plaintext, OpenError> {
    let (length, rest) = plain.split_first_chunk::<LENGTH>().ok_or(OpenError::Padding)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| OpenError::Padding)?;
    let (_, zeros) = rest.split_at_checked(length).ok_or(OpenError::Padding)?;
    // Authentic by now, so that the time this takes tells nothing that the value's length does not.
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(OpenError::Padding);
    }
    plain.copy_within(LENGTH..LENGTH + length, 0);
    // What `truncate` leaves behind is in the buffer's capacity, which is wiped with it.
    plain.truncate(length);
    Plaintext::from_utf8(std::mem::take(&mut *plain)).map_err(|_| OpenError::Padding)
}
