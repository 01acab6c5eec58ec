//! The seals of rows of the access layer and of log entries: MACs that bind a content to its place, so that who writes to the
//! database makes none. They hide nothing.
//!
//! ```text
//! sealed content  format(1) = 0x81 | key version(4) | tag(32) | content
//! tag             HMAC-SHA-256 (RFC 2104) under the vault's row MAC key over a list of fields, each
//!                 length(4, big-endian) | bytes:
//!                   "phi-vault/row/1" | format(1) | key version(4) | vault id(16) | environment | kind(1)
//!                   | tenant, empty for the vault's own | name | content
//! ```
//!
//! A content that was never sealed begins with its own format's version, which is 1: so one is not taken for the other, and
//! software that knows no seals takes a sealed content for one of a version that it does not know.
//!
//! A row's revision is not under the seal: it is the store's own, and begins anew where a row is moved or made again. So a seal
//! does not tell that a row is the newest one of its place.
//!
//! ```text
//! seal of an entry  format(1) = 1 | key version(4) | tag(32); it stands beside the entry, which is as it was
//! tag               HMAC-SHA-256 under the same key over a list of fields, as above:
//!                     "phi-vault/entry/1" | format(1) | key version(4) | vault id(16) | environment | log(4)
//!                     | sequence(8) | entry
//! ```
//!
//! An entry's seal is for who signs it: what is under a checkpoint needs none any more.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use vault_mem::LockedKey;

use crate::domain::{EntityPlace, KeyVersion, ROW_SEAL, TenantId, VaultIdentity};

/// Seals rows and log entries, and knows those that it sealed.
///
/// No `Clone`, no `Debug`; wiped when dropped.
pub struct RowKey {
    version: KeyVersion,
    identity: VaultIdentity,
    key: LockedKey,
}

/// The content is not what the vault sealed at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// It has no seal.
    #[error("it has no seal of the vault")]
    Unsealed,
    /// Its seal is of another place, another content or another key.
    #[error("its seal is not the vault's")]
    Seal,
}

impl RowKey {
    /// A key, and whose rows it is for.
    pub fn new(version: KeyVersion, identity: VaultIdentity, key: LockedKey) -> Self {
        Self { version, identity, key }
    }

    /// The content with its seal.
    pub fn seal(&self, place: &EntityPlace, content: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(ROW_SEAL + content.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.version.0.to_be_bytes());
        sealed.extend_from_slice(&self.mac(place, content).finalize().into_bytes());
        sealed.extend_from_slice(content);
        sealed
    }

    /// The content of a sealed one, without its seal.
    pub fn open(&self, place: &EntityPlace, sealed: &[u8]) -> Result<Vec<u8>, Forged> {
        if !is_sealed(sealed) {
            return Err(Forged::Unsealed);
        }
        let (head, content) = sealed.split_at_checked(ROW_SEAL).ok_or(Forged::Seal)?;
        let (version, tag) = head[1..].split_at(4);
        if version != self.version.0.to_be_bytes() {
            return Err(Forged::Seal);
        }
        // In constant time.
        self.mac(place, content).verify_slice(tag).map_err(|_| Forged::Seal)?;
        Ok(content.to_vec())
    }

    /// The seal of an entry at its place in a log.
    pub fn seal_entry(&self, log: u32, sequence: u64, entry: &[u8]) -> [u8; ENTRY_SEAL] {
        let mut seal = [0; ENTRY_SEAL];
        seal[0] = ENTRY_FORMAT;
        seal[1..5].copy_from_slice(&self.version.0.to_be_bytes());
        seal[5..].copy_from_slice(&self.entry_mac(log, sequence, entry).finalize().into_bytes());
        seal
    }

    /// Whether this is the seal of an entry at its place in a log.
    pub fn check_entry(&self, log: u32, sequence: u64, entry: &[u8], seal: &[u8]) -> Result<(), Forged> {
        let seal: &[u8; ENTRY_SEAL] = seal.try_into().map_err(|_| Forged::Seal)?;
        if seal[0] != ENTRY_FORMAT || seal[1..5] != self.version.0.to_be_bytes() {
            return Err(Forged::Seal);
        }
        // In constant time.
        self.entry_mac(log, sequence, entry).verify_slice(&seal[5..]).map_err(|_| Forged::Seal)
    }

    fn mac(&self, place: &EntityPlace, content: &[u8]) -> Hmac<Sha256> {
        let EntityPlace { kind, tenant, name } = place;
        let tenant = tenant.as_ref().map_or("", TenantId::as_str).as_bytes();
        self.mac_of(LABEL, FORMAT, [&[kind.number()], tenant, name.as_bytes(), content])
    }

    fn entry_mac(&self, log: u32, sequence: u64, entry: &[u8]) -> Hmac<Sha256> {
        self.mac_of(ENTRY_LABEL, ENTRY_FORMAT, [&log.to_be_bytes(), &sequence.to_be_bytes(), entry])
    }

    fn mac_of<const N: usize>(&self, label: &[u8], format: u8, fields: [&[u8]; N]) -> Hmac<Sha256> {
        // Exposed: as the MAC's key.
        let mut mac = Hmac::new_from_slice(self.key.expose()).expect("HMAC takes keys of any length");
        let head: [&[u8]; 5] = [
            label,
            &[format],
            &self.version.0.to_be_bytes(),
            self.identity.vault.as_bytes(),
            self.identity.environment.as_str().as_bytes(),
        ];
        for field in head.into_iter().chain(fields) {
            let length = u32::try_from(field.len()).expect("a row is far smaller than 4 GiB");
            mac.update(&length.to_be_bytes());
            mac.update(field);
        }
        mac
    }
}

/// Whether a content says that it is sealed; whether it is, its key tells.
pub fn is_sealed(content: &[u8]) -> bool {
    content.first() == Some(&FORMAT)
}

const LABEL: &[u8] = b"phi-vault/row/1";
const FORMAT: u8 = 0x81;

/// Length of the seal of a log entry.
pub const ENTRY_SEAL: usize = 1 + 4 + 32;

const ENTRY_LABEL: &[u8] = b"phi-vault/entry/1";
const ENTRY_FORMAT: u8 = 1;
