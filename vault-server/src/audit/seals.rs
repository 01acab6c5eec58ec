//! What a vault's logs tell of the seals of its rows ([`crate::crypto::RowKey`]).
//!
//! Who has removed the key of the seals, and all that says that there was one, has the log against it: it was signed. So before
//! rows without a seal are given one, every log is read from its first entry to its last, and compared with its checkpoint. A log
//! that has entries and no checkpoint is not believed.

use prost::Message as _;
use vault_format::checkpoint::Checkpoint;
use vault_format::tile::Edge;
use vault_format::tree::Hash;
use vault_proto::v1::AuditEntry;

use super::entry::AuditAction;
use super::origin::origin;
use super::resume::FollowerError;
use super::signing::SigningKeys;
use crate::domain::{KeyPurpose, VaultIdentity};
use crate::store::{LogId, Store};

/// The detail of an entry of [`AuditAction::RowsSealed`] that says how far it is, and what it says at the end.
pub const SEALING: (&str, &str, &str) = ("state", "begun", "done");

/// What is on record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SealHistory {
    /// Entries that were read.
    pub entries: u64,
    /// A key was made.
    pub key_made: bool,
    /// Rows from before there were seals began to get theirs.
    pub begun: bool,
    /// They have them: rows without are not the vault's, from then on.
    pub done: bool,
}

impl SealHistory {
    /// Of all logs of a vault. What is not what was signed is an error.
    pub async fn read(
        store: &dyn Store,
        identity: &VaultIdentity,
        keys: &SigningKeys,
    ) -> Result<Self, FollowerError> {
        let mut history = Self::default();
        for log in store.logs().await? {
            history.add(store, log, &origin(identity, log), keys).await?;
        }
        Ok(history)
    }

    async fn add(
        &mut self,
        store: &dyn Store,
        log: LogId,
        origin: &str,
        keys: &SigningKeys,
    ) -> Result<(), FollowerError> {
        const READ_BYTES: usize = 4 << 20;
        let by = keys.verifiers(origin)?;
        let size = store.log_size(log).await?;
        let derived = store.derived(log).await?;
        let Some((at, text)) = &derived.checkpoint else {
            return match (derived.upto, size) {
                (0, 0) => Ok(()),
                // Who removes the checkpoint has entries of his own believed, if they are without one.
                (0, _) => Err(FollowerError::Unsigned { log, size }),
                (upto, _) => Err(FollowerError::Uneven { upto, checkpoint: None }),
            };
        };
        // One that was signed before a mark is checked against the log all the same.
        let signed = Checkpoint::open_strict(text, by.as_before_the_mark())?;
        let end = signed.size;
        if end != *at || end != derived.upto {
            return Err(FollowerError::Uneven { upto: derived.upto, checkpoint: Some(end) });
        }
        if size < end {
            return Err(FollowerError::Cut { size, signed: end });
        }
        let mut edge = Edge::new();
        while edge.size() < size {
            // A page ends where the signed part does.
            let until = if edge.size() < end { end } else { size };
            let most = usize::try_from(until - edge.size()).unwrap_or(usize::MAX);
            let entries = store.entries(log, edge.size(), most, READ_BYTES).await?;
            if entries.is_empty() {
                return Err(FollowerError::Entry { sequence: edge.size() });
            }
            for entry in &entries {
                edge.push(Hash::leaf(entry), |_, _| {});
                self.note(entry);
            }
            if edge.size() == end && edge.root() != signed.root {
                return Err(FollowerError::Root { signed: end, from: 0 });
            }
        }
        self.entries += size;
        Ok(())
    }

    fn note(&mut self, entry: &[u8]) {
        let Ok(entry) = AuditEntry::decode(entry) else { return };
        let says = |name: &str, what: &str| entry.details.get(name).is_some_and(|there| there == what);
        let (state, begun, done) = SEALING;
        match entry.action() {
            AuditAction::KeyCreate => self.key_made |= says("key_purpose", KeyPurpose::RowMac.as_str()),
            AuditAction::RowsSealed => {
                self.begun |= says(state, begun);
                self.done |= says(state, done);
            }
            _ => {}
        }
    }
}
