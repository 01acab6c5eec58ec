//! Where things lie in a sealed record; the layout is in the docs of [`crate::crypto`].

use crate::domain::KeyId;

pub(super) const VERSION: u8 = 1;
pub(super) const SUITE: u8 = 1;

pub(super) const SALT: usize = 16;
pub(super) const COMMITMENT: usize = 32;
pub(super) const NONCE: usize = 24;
pub(super) const TAG: usize = 16;
/// All before the ciphertext.
pub(super) const HEADER: usize = 2 + 16 + SALT + COMMITMENT + NONCE;
/// The length in front of the value, inside the ciphertext.
pub(super) const LENGTH: usize = 4;

/// A sealed record, taken apart but not checked.
pub(super) struct Parts<'a> {
    pub(super) key_id: KeyId,
    pub(super) salt: &'a [u8; SALT],
    pub(super) commitment: &'a [u8; COMMITMENT],
    pub(super) nonce: &'a [u8; NONCE],
    pub(super) ciphertext: &'a [u8],
    pub(super) tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    /// `None` unless it is of this version and suite and has room for a value's length.
    pub(super) fn split(sealed: &'a [u8]) -> Option<Self> {
        let rest = sealed.strip_prefix(&[VERSION, SUITE])?;
        let (key_id, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (commitment, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        let key_id = KeyId::from_bytes(*key_id);
        (ciphertext.len() >= LENGTH).then_some(Self { key_id, salt, commitment, nonce, ciphertext, tag })
    }
}
