//! What the access layer keeps. The store knows of a row what it is, whose it is and how it is called; what is in it is
//! the access layer's own.

use std::fmt;
use std::sync::Arc;

use crate::domain::TenantId;

/// The most bytes that an entity's content may have.
pub const MAX_ENTITY: usize = 32 * 1024;

/// How many bytes the seal of a row adds to its content.
pub const ROW_SEAL: usize = 1 + 4 + 32;

/// The most bytes that the content of a sealed row may have: what an engine keeps.
pub const MAX_SEALED_ENTITY: usize = MAX_ENTITY + ROW_SEAL;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $number:literal $name:literal;)*) => {
        /// What an entity is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EntityKind {
            $($(#[$doc])* $variant = $number,)*
        }

        impl EntityKind {
            /// All of them, in the order of their numbers.
            pub const ALL: &[EntityKind] = &[$(EntityKind::$variant),*];

            /// The name, for people and in the log.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The number at rest. Never change one.
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number),* }
            }

            /// From its number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A provisioned caller.
    Principal 1 "principal";
    /// What a principal proves to be it: a certificate's name, an issuer's subject.
    Identity 2 "identity";
    /// A key in hardware that a person signs with.
    SecurityKey 3 "security_key";
    /// What a security key is to sign, once.
    Challenge 4 "challenge";
    /// A grant of access in an emergency.
    Grant 5 "grant";
    /// A session.
    Session 6 "session";
    /// How much of a limit is used.
    Counter 7 "counter";
    /// A token or a principal that nobody has reason to use.
    Honeytoken 8 "honeytoken";
    /// An alert that is to be delivered.
    Alert 9 "alert";
    /// That the rows of a vault from before there were seals are being sealed.
    Sealing 10 "sealing";
    /// A change of who may that waits for another person's approval.
    Proposal 11 "proposal";
}

/// How an entity is called: 1 to 64 bytes, any bytes. Safe to log: an id or a keyed hash, never a secret and never what
/// says who somebody is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityName(Arc<[u8]>);

impl EntityName {
    /// The most bytes that it may have.
    pub const MAX_LEN: usize = 64;

    /// From its bytes. `None` if they are none or too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::MAX_LEN).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Where an entity stands. Places are in the order of their kinds, then of their tenants (none first), then of the bytes
/// of their names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityPlace {
    /// What it is.
    pub kind: EntityKind,
    /// Whose it is; `None`: the vault's own.
    pub tenant: Option<TenantId>,
    /// How it is called among those.
    pub name: EntityName,
}

/// Entities that are read together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntityScope {
    /// All of a kind, whoever's they are.
    Kind(EntityKind),
    /// Those of a kind that are a tenant's, or the vault's own.
    Tenant(EntityKind, Option<TenantId>),
}

impl EntityScope {
    /// Whether an entity of this place is one of them.
    pub fn contains(&self, place: &EntityPlace) -> bool {
        match self {
            Self::Kind(kind) => place.kind == *kind,
            Self::Tenant(kind, tenant) => place.kind == *kind && place.tenant == *tenant,
        }
    }
}

/// An entity.
#[derive(Clone, PartialEq, Eq)]
pub struct Entity {
    /// Where it stands.
    pub place: EntityPlace,
    /// Counts changes of this row, from 0; compare-and-set goes by it. It is the store's own: one that was dropped and
    /// made again, or moved to another store, begins at 0.
    pub revision: u64,
    /// What is in it; at most [`MAX_ENTITY`] bytes.
    pub content: Vec<u8>,
}

impl fmt::Debug for Entity {
    /// Without the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, revision, content } = self;
        write!(f, "Entity({place:?}, revision {revision}, {} bytes)", content.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_number() {
        for kind in EntityKind::ALL {
            assert_eq!(EntityKind::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(EntityKind::from_number(0), None);
        assert_eq!(EntityKind::from_number(12), None);
    }

    #[test]
    fn a_name_has_one_to_64_bytes() {
        assert_eq!(EntityName::new(b""), None);
        assert_eq!(EntityName::new(&[0; 65]), None);
        for len in [1, 64] {
            assert_eq!(EntityName::new(&vec![0; len]).unwrap().as_bytes(), vec![0; len]);
        }
    }

    #[test]
    fn an_entity_prints_nothing_of_its_content() {
        let place = EntityPlace {
            kind: EntityKind::Session,
            tenant: Some(TenantId::parse("st-mary").unwrap()),
            name: EntityName::new(&[0xab, 0]).unwrap(),
        };
        let entity = Entity { place, revision: 7, content: b"secret".to_vec() };
        let printed = format!("{entity:?}");
        assert!(!printed.contains("secret") && !printed.contains("115"), "{printed}");
        assert!(printed.contains("ab00") && printed.contains("6 bytes"), "{printed}");
    }
}
