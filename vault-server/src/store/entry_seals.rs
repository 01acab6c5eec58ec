//! The seals of log entries ([`crate::crypto::RowKey`]), as an engine has them: it gives each entry one as it writes it, and hands
//! out none without to who signs them.
//!
//! What lies under a checkpoint needs no seal: the signature tells. What lies behind the newest one is signed by whoever
//! follows the log next, which may be another instance than the one that wrote it; the seal tells that one of them did.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{LogId, StoreError};
use crate::crypto::{ENTRY_SEAL, RowKey};

/// What becomes of an entry without a seal that is to be signed. One with a wrong seal is refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsealed {
    /// It is not the vault's.
    Refuse,
    /// It is taken for one that software from before there were seals left behind.
    Sign,
}

/// What seals a store's entries.
pub struct EntrySeals {
    key: Arc<RowKey>,
    unsealed: Unsealed,
}

impl EntrySeals {
    /// By the key of the seals of rows.
    pub fn new(key: Arc<RowKey>, unsealed: Unsealed) -> Arc<Self> {
        Arc::new(Self { key, unsealed })
    }
}

/// The seals of an engine, once it has them.
#[derive(Default)]
pub(super) struct Sealing(ArcSwapOption<EntrySeals>);

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").finish_non_exhaustive()
    }
}

impl Sealing {
    pub(super) fn set(&self, seals: Arc<EntrySeals>) {
        self.0.store(Some(seals));
    }

    /// The seal of an entry; `None` if this store seals none yet.
    pub(super) fn seal(&self, log: LogId, sequence: u64, entry: &[u8]) -> Option<[u8; ENTRY_SEAL]> {
        Some(self.0.load().as_ref()?.key.seal_entry(log.0, sequence, entry))
    }

    /// Whether an entry may be signed; an error that names it if not. Nothing is asked before the store seals entries.
    pub(super) fn check(
        &self,
        log: LogId,
        sequence: u64,
        entry: &[u8],
        seal: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let seals = self.0.load();
        let Some(seals) = seals.as_ref() else { return Ok(()) };
        let why = match (seal, seals.unsealed) {
            (None, Unsealed::Sign) => return Ok(()),
            (None, Unsealed::Refuse) => {
                "it has no seal of the vault (audit.sign_unsealed_entries)".to_owned()
            }
            (Some(seal), _) => match seals.key.check_entry(log.0, sequence, entry, seal) {
                Ok(()) => return Ok(()),
                Err(why) => why.to_string(),
            },
        };
        Err(StoreError::Corrupt { what: format!("log entry {sequence} of log {log}: {why}") })
    }
}
