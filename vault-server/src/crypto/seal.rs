//! Encryption of a record.

use chacha20poly1305::aead::AeadInOut;
use zeroize::Zeroizing;

use crate::crypto::DataKey;
use crate::crypto::aad::{Aad, Place};
use crate::crypto::derive::RecordKey;
use crate::crypto::format::{HEADER, LENGTH, SUITE, TAG, VERSION};
use crate::crypto::random::{Fresh, RandomError};
use crate::domain::{Plaintext, Sealed};

/// Why a value was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key belongs to another tenant than the record.
    #[error("data key of another tenant")]
    WrongKey,
    /// The value does not fit the length it is to be padded to, or is too long for the format (4 GiB).
    #[error("value longer than its padding")]
    TooLong,
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Seals a value for one place, padded to `padded_len` bytes.
pub fn seal(
    place: &Place<'_>,
    key: &DataKey,
    value: &Plaintext,
    padded_len: usize,
) -> Result<Sealed, SealError> {
    seal_with(place, key, value, padded_len, &Fresh::new()?)
}

/// [`seal`] with its randomness, which can only be chosen in tests.
pub(super) fn seal_with(
    place: &Place<'_>,
    key: &DataKey,
    value: &Plaintext,
    padded_len: usize,
    fresh: &Fresh,
) -> Result<Sealed, SealError> {
    // Exposed: to be encrypted in place, in a buffer that is wiped should that fail.
    let value = value.expose().as_bytes();
    let fits = value.len() <= padded_len && u32::try_from(padded_len).is_ok();
    let length = u32::try_from(value.len()).ok().filter(|_| fits).ok_or(SealError::TooLong)?;
    seal_plain(place, key, LENGTH + padded_len, fresh, |sealed| {
        let end = sealed.len() + LENGTH + padded_len;
        sealed.extend_from_slice(&length.to_be_bytes());
        sealed.extend_from_slice(value);
        sealed.resize(end, 0);
    })
}

/// Seals the `len` bytes `length(4) | value | zeros` that `put` appends.
pub(super) fn seal_plain(
    place: &Place<'_>,
    key: &DataKey,
    len: usize,
    fresh: &Fresh,
    put: impl FnOnce(&mut Vec<u8>),
) -> Result<Sealed, SealError> {
    if key.tenant() != place.tenant {
        return Err(SealError::WrongKey);
    }
    let aad = Aad::new(place, key.id());
    let record_key = RecordKey::derive(key, fresh.salt(), &aad);

    let mut sealed = Zeroizing::new(Vec::with_capacity(HEADER + len + TAG));
    sealed.extend_from_slice(&[VERSION, SUITE]);
    sealed.extend_from_slice(key.id().as_bytes());
    sealed.extend_from_slice(fresh.salt());
    sealed.extend_from_slice(record_key.commitment());
    sealed.extend_from_slice(fresh.nonce());
    put(&mut sealed);
    let tag = record_key
        .cipher()
        .encrypt_inout_detached(fresh.nonce().into(), aad.as_bytes(), (&mut sealed[HEADER..]).into())
        .map_err(|_| SealError::TooLong)?;
    sealed.extend_from_slice(&tag);
    Ok(Sealed(std::mem::take(&mut *sealed)))
}
