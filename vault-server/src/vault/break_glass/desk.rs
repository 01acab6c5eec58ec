//! A requester's grants that are not settled, at whichever tenant: those that wait, are in force, or were not reviewed.
//!
//! ```text
//! name     0x01 | SHA-256(principal)(32)         of the vault's own grants' rows
//! content  version(1)=1 | (tenant length(1) | tenant | grant(16))*
//! ```

use sha2::{Digest as _, Sha256};

use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, GrantId, PrincipalId, TenantId};

const VERSION: u8 = 1;
const PREFIX: u8 = 0x01;

/// So many grants that are not settled are more than a person should have.
pub(super) const MOST: usize = 64;

/// The desk of a requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Desk {
    place: EntityPlace,
    /// As it was read; `None` if it was not there.
    revision: Option<u64>,
    pub(super) grants: Vec<(TenantId, GrantId)>,
}

impl Desk {
    pub(super) fn place(requester: &PrincipalId) -> EntityPlace {
        let mut name = vec![PREFIX];
        name.extend_from_slice(&Sha256::digest(requester.as_str()));
        let name = EntityName::new(&name).expect("33 bytes are a name");
        EntityPlace { kind: EntityKind::Grant, tenant: None, name }
    }

    /// As it was kept; empty if it was not. `None` if it is not what was written.
    pub(super) fn read(place: EntityPlace, entity: Option<&Entity>) -> Option<Self> {
        let Some(entity) = entity else { return Some(Self { place, revision: None, grants: Vec::new() }) };
        let (version, mut rest) = entity.content.split_first()?;
        let mut grants = Vec::new();
        while let Some((len, after)) = rest.split_first() {
            let (tenant, after) = after.split_at_checked(usize::from(*len))?;
            let (id, after) = after.split_first_chunk::<16>()?;
            let tenant = TenantId::parse(std::str::from_utf8(tenant).ok()?).ok()?;
            grants.push((tenant, GrantId::from_bytes(*id)));
            rest = after;
        }
        let is_own = *version == VERSION && entity.place == place;
        is_own.then_some(Self { place, revision: Some(entity.revision), grants })
    }

    /// As it is kept next.
    pub(super) fn entity(&self) -> Entity {
        let mut content = vec![VERSION];
        for (tenant, id) in &self.grants {
            let name = tenant.as_str().as_bytes();
            content.push(u8::try_from(name.len()).expect("a tenant's name has at most 63 characters"));
            content.extend_from_slice(name);
            content.extend_from_slice(id.as_bytes());
        }
        let revision = self.revision.map_or(0, |revision| revision + 1);
        Entity { place: self.place.clone(), revision, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> PrincipalId {
        PrincipalId::parse("dora").unwrap()
    }

    #[test]
    fn a_desk_of_the_first_version_still_opens() {
        let mut desk = Desk::read(Desk::place(&who()), None).unwrap();
        desk.grants.push((TenantId::parse("st-mary").unwrap(), GrantId::from_bytes([0xab; 16])));
        let entity = desk.entity();
        let bytes = format!("010773742d6d617279{}", "ab".repeat(16));
        assert_eq!((hex::encode(&entity.content), entity.revision), (bytes, 0));
        assert_eq!(
            hex::encode(entity.place.name.as_bytes()),
            "0169db31976ead37b85cc42a49c95fd06eec99cfd9b7ff219a25c0f59cb4049343"
        );
        let again = Desk::read(Desk::place(&who()), Some(&entity)).unwrap();
        assert_eq!((again.grants.clone(), again.entity().revision), (desk.grants, 1));
    }

    #[test]
    fn what_was_not_written_is_not_a_desk() {
        let desk = Desk::read(Desk::place(&who()), None).unwrap();
        for content in [vec![], vec![2], vec![1, 3, b'a'], vec![1, 1, b'A', 0], vec![1, 0]] {
            let entity = Entity { content, ..desk.entity() };
            assert_eq!(Desk::read(Desk::place(&who()), Some(&entity)), None);
        }
        let other = Desk::place(&PrincipalId::parse("other").unwrap());
        assert_eq!(Desk::read(other, Some(&desk.entity())), None);
    }
}
