//! Sealing and opening of records, and the keyed hashes that stand for values and people. Pure: no I/O but the
//! operating system's randomness.
//!
//! # A sealed record, format 1
//!
//! ```text
//! version(1) = 1 | suite(1) = 1 | key_id(16) | salt(16) | commitment(32) | nonce(24) | ciphertext(4 + padded) | tag(16)
//! ```
//!
//! * `record key(32) | commitment(32) = HKDF-SHA256(salt, data key, "phi-vault/record/1" | AAD)` (RFC 5869).
//! * `ciphertext | tag = XChaCha20-Poly1305(record key, nonce, AAD, plaintext)` (draft-irtf-cfrg-xchacha-03).
//! * `plaintext = length(4, big-endian) | value | zeros`, so that only the class's bucket shows in the size.
//! * AAD: all that must not be swapped or changed, see [`aad`].
//! * Salt and nonce are fresh from the operating system for each seal; no interface takes one.
//!
//! XChaCha20-Poly1305 does not commit to its key: one ciphertext can be made to open under two keys. So the
//! commitment is compared, in constant time, before anything is decrypted; it commits to the AAD as well.
//!
//! Suite 1 is the only one. A record of an unknown version or suite is malformed; records of format 1 open forever
//! (`vectors/`).
//!
//! # What does not compile
//!
//! Nothing opens without a [`Warrant`], which nobody outside this crate can make:
//!
//! ```compile_fail,E0624
//! use vault_server::crypto::{Detokenize, Warrant};
//! use vault_server::domain::RequestId;
//! let warrant: Warrant<Detokenize> = Warrant::assertion(RequestId::from_bytes([0; 16]), Vec::new());
//! ```
//!
//! ```compile_fail,E0451
//! use vault_server::crypto::{Detokenize, Warrant};
//! use vault_server::domain::RequestId;
//! fn forge(warrant: Warrant<Detokenize>) -> Warrant<Detokenize> {
//!     Warrant { request: RequestId::from_bytes([0; 16]), ..warrant }
//! }
//! ```
//!
//! A warrant to mask does not open, and is not copied:
//!
//! ```compile_fail,E0308
//! use vault_server::crypto::{DataKey, Mask, Warrant, open};
//! use vault_server::domain::VaultIdentity;
//! fn unmask(warrant: &Warrant<Mask>, identity: &VaultIdentity, key: &DataKey) {
//!     let _ = open(warrant, 0, identity, key);
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn copyable<T: Clone>() {}
//! copyable::<vault_server::crypto::Warrant<vault_server::crypto::Detokenize>>();
//! ```
//!
//! Values and keys do not print, and keys are not copied:
//!
//! ```compile_fail,E0277
//! fn printable<T: std::fmt::Debug>() {}
//! printable::<vault_server::domain::Plaintext>();
//! ```
//!
//! ```compile_fail,E0277
//! fn printable<T: std::fmt::Debug>() {}
//! printable::<vault_server::crypto::DataKey>();
//! ```
//!
//! ```compile_fail,E0277
//! fn printable<T: std::fmt::Debug>() {}
//! printable::<vault_server::crypto::RowKey>();
//! ```
//!
//! ```compile_fail,E0277
//! fn copyable<T: Clone>() {}
//! copyable::<vault_server::crypto::RowKey>();
//! ```

pub mod aad;

mod derive;
mod format;
mod index;
mod key;
mod open;
mod random;
mod reseal;
mod row;
mod seal;
mod warrant;

#[cfg(test)]
mod tests;

pub use aad::Place;
pub use index::{Fingerprint, blind_index, subject_ref};
pub use key::{DataKey, IndexKey};
pub use open::{OpenError, mask, open};
pub use random::{RandomError, random_token};
pub use reseal::{Mandate, ResealError, Resealing};
pub use row::{ENTRY_SEAL, Forged, RowKey, is_sealed};
pub use seal::{SealError, seal};
pub use warrant::{Detokenize, Mask, Warrant};

/// Whether Poly1305 is fast for short messages in this build: where the AVX2 one is picked at run time, its set-up
/// costs more than a record.
pub const FAST_POLY1305: bool = cfg!(poly1305_backend = "soft") || cfg!(target_feature = "avx2");
