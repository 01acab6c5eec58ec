//! Rows of entities as they are handed out to who reads many: those of the vault, and those that are not.

use std::sync::LazyLock;

use super::keys::{self, Space};
use super::{Told, corrupt};
use crate::domain::{Entity, EntityPlace};

/// A row of an entity, whether or not the vault wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityRow {
    /// As the vault wrote it.
    Sound(Entity),
    /// Not the vault's: nothing is known of it but that it is there. It was told when it was read.
    Forged {
        /// Where it stands.
        place: EntityPlace,
        /// The revision it has, to drop it by. `None`: it is malformed, and stays until somebody removes it by other means.
        revision: Option<u64>,
    },
}

impl EntityRow {
    /// Where it stands.
    pub fn place(&self) -> &EntityPlace {
        match self {
            Self::Sound(entity) => &entity.place,
            Self::Forged { place, .. } => place,
        }
    }

    /// The entity, if it is one of the vault's.
    pub fn sound(self) -> Option<Entity> {
        match self {
            Self::Sound(entity) => Some(entity),
            Self::Forged { .. } => None,
        }
    }

    /// The row at an engine's key, and what was read of it. `None`: that is no place of an entity. Nobody looks for one there;
    /// it is told.
    pub(super) fn at(key: &[u8], read: Option<Entity>) -> Option<Self> {
        static TOLD: LazyLock<Told> = LazyLock::new(Told::default);
        let forged = |place| Self::Forged { place, revision: None };
        let row = read.map(Self::Sound).or_else(|| keys::parse_entity(key).map(forged));
        if row.is_none() {
            let error = corrupt(Space::Entities, key).to_string();
            if TOLD.is_due(&error) {
                tracing::error!(error, "a row of the access layer is at no place of one: it is passed over");
            }
        }
        row
    }
}
