//! A tenant's keys as they are kept: wrapped.

use crate::domain::{KeyId, KeyVersion, TenantId, Timestamp};

/// What a key is for. Each purpose has versions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Root of record keys.
    Data,
    /// Blind index and subject references.
    Index,
    /// Signs the log's checkpoints. Belongs to the vault, not to a tenant.
    LogSigning,
    /// The MAC key that the rows of the access layer are sealed with. Belongs to the vault, not to a tenant.
    RowMac,
}

impl KeyPurpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Data, Self::Index, Self::LogSigning, Self::RowMac];

    /// The purposes of a tenant's keys, or of the vault's own.
    pub const fn of(tenant: Option<&TenantId>) -> &'static [Self] {
        if tenant.is_some() { &[Self::Data, Self::Index] } else { &[Self::LogSigning, Self::RowMac] }
    }

    /// Name in the KMS encryption context and in key derivation. Never change one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Index => "index",
            Self::LogSigning => "log-signing",
            Self::RowMac => "row-mac",
        }
    }
}

/// States of NIST SP 800-57 part 1, section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Seals and opens.
    Active,
    /// Opens only.
    Retired,
    /// Opens only for the job that re-encrypts.
    Compromised,
    /// Gone.
    Destroyed,
}

/// A key wrapped by one key of a KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which KMS key: its full name as configured (an ARN, `local:...`).
    pub wrapping_key: String,
    /// What the KMS gave.
    pub ciphertext: Vec<u8>,
}

/// One version of a key at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its id, in every record sealed under it.
    pub id: KeyId,
    /// Whose it is; `None` for the vault's own.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Which version.
    pub version: KeyVersion,
    /// Whether it may be used.
    pub state: KeyState,
    /// When it was made.
    pub created: Timestamp,
    /// The key, wrapped by every configured KMS key.
    pub wraps: Vec<WrappedKey>,
    /// Counts changes of this row, from 0; compare-and-set goes by it.
    pub revision: u32,
    /// What the vault has signed about a key that signs the log ([`vault_format::history`]): how it took the place of the
    /// one before, and that it is compromised. Empty for all other keys.
    pub statements: String,
}
