//! Keyed hashes under a tenant's index key: HMAC-SHA256 (RFC 2104) over a list of fields, each
//! `length(4, big-endian) | bytes`:
//!
//! ```text
//! blind index:       "phi-vault/blind-index/1" | tenant | class | normalized value     -> first 16 bytes
//! subject reference: "phi-vault/subject/1"     | tenant | subject id                   -> first 16 bytes
//! fingerprint:       "phi-vault/fingerprint/1" | tenant | label | field | field | ...  -> 32 bytes
//! ```
//!
//! Truncated, a tenant would need some 2^64 values of a class before two that differ are likely to look equal.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::crypto::IndexKey;
use crate::domain::class::Normalized;
use crate::domain::{BlindIndex, ClassName, SubjectId, SubjectRef};

/// Stands for a normalized value within the key's tenant and a class.
pub fn blind_index(key: &IndexKey, class: &ClassName, value: &Normalized) -> BlindIndex {
    // Exposed: to be hashed.
    blind_index_of(key, class, value.expose())
}

/// Stands for a person within the key's tenant.
pub fn subject_ref(key: &IndexKey, subject: &SubjectId) -> SubjectRef {
    // Exposed: to be hashed.
    let list = List::new(key, SUBJECT).field(subject.expose().as_bytes());
    SubjectRef { version: key.version(), mac: list.half() }
}

/// A keyed hash of a request, to tell a repetition from another request without keeping what was in it.
#[must_use]
pub struct Fingerprint(List);

impl Fingerprint {
    /// Of nothing yet; `label` says what is hashed.
    pub fn new(key: &IndexKey, label: &str) -> Self {
        Self(List::new(key, FINGERPRINT).field(label.as_bytes()))
    }

    /// Adds a field; `ab`, `c` differs from `a`, `bc`.
    pub fn field(self, bytes: &[u8]) -> Self {
        Self(self.0.field(bytes))
    }

    /// The hash.
    pub fn finish(self) -> [u8; 32] {
        self.0.whole()
    }
}

const BLIND_INDEX: &[u8] = b"phi-vault/blind-index/1";
const SUBJECT: &[u8] = b"phi-vault/subject/1";
const FINGERPRINT: &[u8] = b"phi-vault/fingerprint/1";

pub(super) fn blind_index_of(key: &IndexKey, class: &ClassName, value: &str) -> BlindIndex {
    let list = List::new(key, BLIND_INDEX).field(class.as_str().as_bytes()).field(value.as_bytes());
    BlindIndex { version: key.version(), mac: list.half() }
}

/// A MAC over a list of fields.
struct List(Hmac<Sha256>);

impl List {
    fn new(key: &IndexKey, domain: &[u8]) -> Self {
        // Exposed: as the MAC's key.
        let mac = Hmac::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
        Self(mac).field(domain).field(key.tenant().as_str().as_bytes())
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("a request is far smaller than 4 GiB");
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn whole(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    fn half(self) -> [u8; 16] {
        *self.whole().first_chunk().expect("16 of 32 bytes")
    }
}
