//! A security key as it is kept: whose it is, whether it is in force, how often it signed. The row is called by the hash of
//! the key, so that no key is two people's.
//!
//! ```text
//! content  version(1) | KeyContent (protobuf, canonical)
//!          version 1: good from its enrolment on: the file lists it, or software of before enrolled it
//!          version 2: good once its owner has signed with it
//! ```

use prost::Message as _;

use crate::access::{Fingerprint, SecurityKey};
use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, PrincipalId, Timestamp};

const VERSION: u8 = 1;
const TO_CONFIRM: u8 = 2;

/// Who took a key back, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Who.
    pub by: PrincipalId,
    /// When.
    pub at: Timestamp,
}

/// Whether its owner has shown that it has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// It was not asked to.
    NotAsked,
    /// Not yet: until then it is no second factor.
    Waits,
    /// By a signature.
    At(Timestamp),
}

/// A security key and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledKey {
    /// Whose it is.
    pub principal: PrincipalId,
    /// The key.
    pub key: SecurityKey,
    /// What people call it.
    pub label: String,
    /// When it was enrolled; of one of the configuration's file, when it was used first.
    pub enrolled: Timestamp,
    /// Who enrolled it; `None`: the configuration's file lists it, and it is good for as long as it does.
    pub enrolled_by: Option<PrincipalId>,
    /// Whether its owner has shown that it has it.
    pub confirmed: Confirmation,
    /// Whether it was taken back. It stays so.
    pub revoked: Option<Revoked>,
    /// The counter of its newest signature.
    pub counter: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyContent {
    #[prost(string, tag = "1")]
    principal: String,
    #[prost(bytes = "vec", tag = "2")]
    blob: Vec<u8>,
    #[prost(string, tag = "3")]
    label: String,
    #[prost(uint64, tag = "4")]
    enrolled_us: u64,
    #[prost(string, tag = "5")]
    enrolled_by: String,
    #[prost(string, tag = "6")]
    revoked_by: String,
    #[prost(uint64, tag = "7")]
    revoked_us: u64,
    #[prost(uint32, tag = "8")]
    counter: u32,
    #[prost(uint64, tag = "9")]
    confirmed_us: u64,
}

impl EnrolledKey {
    /// Where the row of a key stands.
    pub fn place(key: &Fingerprint) -> Option<EntityPlace> {
        let name = EntityName::new(key.as_bytes())?;
        Some(EntityPlace { kind: EntityKind::SecurityKey, tenant: None, name })
    }

    /// The row, to be written over one of revision `before`; `None`: over none.
    pub fn entity(&self, before: Option<u64>) -> Option<Entity> {
        let name = |id: &PrincipalId| id.to_string();
        let content = KeyContent {
            principal: name(&self.principal),
            blob: self.key.blob().to_vec(),
            label: self.label.clone(),
            enrolled_us: self.enrolled.0,
            enrolled_by: self.enrolled_by.as_ref().map(name).unwrap_or_default(),
            revoked_by: self.revoked.as_ref().map(|revoked| name(&revoked.by)).unwrap_or_default(),
            revoked_us: self.revoked.as_ref().map_or(0, |revoked| revoked.at.0),
            counter: self.counter,
            confirmed_us: match self.confirmed {
                Confirmation::NotAsked | Confirmation::Waits => 0,
                Confirmation::At(at) => at.0,
            },
        };
        let version = if self.confirmed == Confirmation::NotAsked { VERSION } else { TO_CONFIRM };
        let revision = before.map_or(0, |before| before + 1);
        let mut bytes = vec![version];
        bytes.extend(content.encode_to_vec());
        Some(Entity { place: Self::place(&self.key.fingerprint())?, revision, content: bytes })
    }

    /// Reads a row. `None` if it is not what was written there.
    pub fn open(row: &Entity) -> Option<Self> {
        let (version, bytes) = row.content.split_first()?;
        let content = KeyContent::decode(bytes).ok()?;
        (content.encode_to_vec() == bytes).then_some(())?;
        let name = |text: &str| match text {
            "" => Some(None),
            text => PrincipalId::parse(text).ok().map(Some),
        };
        let revoked = name(&content.revoked_by)?.map(|by| Revoked { by, at: Timestamp(content.revoked_us) });
        (revoked.is_some() || content.revoked_us == 0).then_some(())?;
        let enrolled = Self {
            principal: PrincipalId::parse(&content.principal).ok()?,
            key: SecurityKey::from_blob(&content.blob).ok()?,
            label: content.label,
            enrolled: Timestamp(content.enrolled_us),
            enrolled_by: name(&content.enrolled_by)?,
            confirmed: match (*version, content.confirmed_us) {
                (VERSION, 0) => Confirmation::NotAsked,
                (TO_CONFIRM, 0) => Confirmation::Waits,
                (TO_CONFIRM, at) => Confirmation::At(Timestamp(at)),
                _ => return None,
            },
            revoked,
            counter: content.counter,
        };
        (Self::place(&enrolled.key.fingerprint())? == row.place).then_some(enrolled)
    }

    /// Whether it is in force, and this person's.
    pub fn is_in_force_of(&self, principal: &PrincipalId) -> bool {
        self.principal == *principal && self.revoked.is_none()
    }

    /// After a signature with this counter. `None` if the key signed so often before: there are two of it. A key that
    /// never counts says 0 each time.
    #[must_use]
    pub fn counted(self, counter: u32) -> Option<Self> {
        let fresh = counter > self.counter || (counter, self.counter) == (0, 0);
        fresh.then_some(Self { counter, ..self })
    }
}

#[cfg(test)]
#[path = "enrolled_tests.rs"]
mod tests;
