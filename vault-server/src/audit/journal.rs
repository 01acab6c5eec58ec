//! The entry of a new key, committed with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{Actor, AuditAction, Decision, Draft, Item, Outcome};
use crate::domain::{Clock, KeyRecord, RequestId};
use crate::keyring::Journal;

/// Writes the entries of the keyring.
pub struct KeyJournal {
    clock: Arc<dyn Clock>,
}

impl KeyJournal {
    /// By a clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }
}

impl KeyJournal {
    /// What is on record of a new key.
    pub fn created(key: &KeyRecord) -> (Draft, Item) {
        let draft = Draft {
            // The key is made for no request, or for many that wait for it; its own id is as random.
            request: RequestId::from_bytes(*key.id.as_bytes()),
            action: AuditAction::KeyCreate,
            actor: Actor::vault(),
            tenant: key.tenant.clone(),
            purpose: None,
            reason: String::new(),
            ticket: String::new(),
            grant: None,
            policies: BTreeSet::new(),
            decision: Decision::Allow,
            cause: "",
            details: vec![
                ("key_purpose", key.purpose.as_str().to_owned()),
                ("key_version", key.version.to_string()),
            ],
        };
        (draft, Item { key_id: Some(key.id), outcome: Outcome::Ok, ..Item::invalid() })
    }
}

impl Journal for KeyJournal {
    fn key_created(&self, key: &KeyRecord) -> Bytes {
        let (draft, item) = Self::created(key);
        let mut entries =
            draft.encode(self.clock.now(), &[item]).expect("one item and two short details fit an entry");
        entries.swap_remove(0)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use vault_proto::v1::AuditEntry;

    use super::*;
    use crate::audit::testing::StoppedClock;
    use crate::domain::{KeyId, KeyPurpose, KeyState, KeyVersion, TenantId, Timestamp, WrappedKey};

    #[test]
    fn the_entry_names_the_key_and_nothing_of_its_wraps() {
        let key = KeyRecord {
            id: KeyId::from_bytes([5; 16]),
            tenant: Some(TenantId::parse("st-mary").unwrap()),
            purpose: KeyPurpose::Data,
            version: KeyVersion(3),
            state: KeyState::Active,
            created: Timestamp(1),
            wraps: vec![WrappedKey { wrapping_key: "local:x".into(), ciphertext: vec![0x77; 60] }],
            revision: 0,
            statements: String::new(),
        };
        let bytes = KeyJournal::new(Arc::new(StoppedClock)).key_created(&key);
        assert!(!bytes.windows(8).any(|window| window == [0x77; 8]));
        let entry = AuditEntry::decode(bytes).unwrap();
        assert_eq!(entry.action(), AuditAction::KeyCreate);
        assert_eq!(entry.tenant, "st-mary");
        assert_eq!((entry.part, entry.parts), (0, 1));
        assert_eq!(entry.items[0].key_id[..], [5; 16]);
        assert_eq!(
            (entry.details["key_purpose"].as_str(), entry.details["key_version"].as_str()),
            ("data", "3")
        );
    }
}
