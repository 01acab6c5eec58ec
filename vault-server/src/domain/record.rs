//! One value at rest.

use crate::domain::{BlindIndex, ClassName, KeyId, KeyVersion, SubjectRef, TenantId, Timestamp, Token};

/// Sealed bytes in the format of [`crate::crypto`]; opaque to everyone else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// What is left of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The value, sealed.
    Sealed {
        /// The data key it is sealed under; also inside the sealed bytes, and bound by them.
        key_id: KeyId,
        /// That key's version, for people.
        key_version: KeyVersion,
        /// The sealed bytes.
        bytes: Sealed,
    },
    /// Nothing: it was erased.
    Erased {
        /// When.
        at: Timestamp,
    },
}

/// One value at rest. Every field but `revision` is bound by the seal: changed, it does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its public name.
    pub token: Token,
    /// Whose it is.
    pub tenant: TenantId,
    /// What kind of PHI.
    pub class: ClassName,
    /// Whom it is about, if that was said.
    pub subject: Option<SubjectRef>,
    /// What Find looks up, if its class is indexed; gone when erased.
    pub index: Option<BlindIndex>,
    /// When it was tokenized.
    pub created: Timestamp,
    /// The value.
    pub body: Body,
    /// Counts changes of this row, from 0; compare-and-set goes by it.
    pub revision: u32,
}

impl Record {
    /// The data key it is sealed under; `None` once erased.
    pub fn key_id(&self) -> Option<KeyId> {
        match &self.body {
            Body::Sealed { key_id, .. } => Some(*key_id),
            Body::Erased { .. } => None,
        }
    }

    /// Length of the sealed bytes; 0 once erased.
    pub fn sealed_len(&self) -> usize {
        match &self.body {
            Body::Sealed { bytes, .. } => bytes.0.len(),
            Body::Erased { .. } => 0,
        }
    }
}
