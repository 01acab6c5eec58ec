//! A row for each grant that waits or is in force: made with it, gone when it is over.
//!
//! ```text
//! name     0x02 | grant(16)                      of the vault's own grants' rows
//! content  version(1)=1 | tenant
//! ```

use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, EntityScope, GrantId, TenantId};
use crate::store::{Store, StoreError, Write};

const VERSION: u8 = 1;
const PREFIX: u8 = 0x02;
/// Rows that are read at once.
const PAGE: usize = 256;

/// A grant that waits or is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) tenant: TenantId,
    pub(super) id: GrantId,
}

impl Pending {
    /// It begins.
    pub(super) fn begin(tenant: &TenantId, id: GrantId) -> Write {
        let mut content = vec![VERSION];
        content.extend_from_slice(tenant.as_str().as_bytes());
        Write::PutEntity(Entity { place: place(id), revision: 0, content })
    }

    /// It is over: what there is of it goes.
    pub(super) async fn end(store: &dyn Store, id: GrantId) -> Result<Option<Write>, StoreError> {
        let row = store.entity(&place(id)).await?;
        Ok(row.map(|Entity { place, revision, .. }| Write::DropEntity { place, revision }))
    }

    /// All there are. A row that the vault did not write is none: it is told of, and is in the way of no other.
    pub(super) async fn all(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let scope = EntityScope::Tenant(EntityKind::Grant, None);
        let first = EntityName::new(&[PREFIX]).expect("a byte is a name");
        let mut after = EntityPlace { kind: EntityKind::Grant, tenant: None, name: first };
        let mut all = Vec::new();
        loop {
            let page = store.entity_rows(&scope, Some(&after), PAGE).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after = last.place().clone();
            for row in page {
                if row.place().name.as_bytes()[0] != PREFIX {
                    return Ok(all);
                }
                let Some(entity) = row.sound() else { continue };
                let pending = read(&entity).ok_or_else(|| StoreError::Corrupt {
                    what: format!("pending grant {:?}", entity.place.name),
                })?;
                all.push(pending);
            }
        }
    }
}

fn place(id: GrantId) -> EntityPlace {
    let mut name = vec![PREFIX];
    name.extend_from_slice(id.as_bytes());
    let name = EntityName::new(&name).expect("17 bytes are a name");
    EntityPlace { kind: EntityKind::Grant, tenant: None, name }
}

fn read(entity: &Entity) -> Option<Pending> {
    let (version, tenant) = entity.content.split_first()?;
    let id = GrantId::from_bytes(entity.place.name.as_bytes().get(1..)?.try_into().ok()?);
    let tenant = TenantId::parse(std::str::from_utf8(tenant).ok()?).ok()?;
    (*version == VERSION).then_some(Pending { tenant, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_first_version_still_opens() {
        let pending =
            Pending { tenant: TenantId::parse("st-mary").unwrap(), id: GrantId::from_bytes([0xab; 16]) };
        let Write::PutEntity(entity) = Pending::begin(&pending.tenant, pending.id) else { panic!() };
        assert_eq!(hex::encode(entity.place.name.as_bytes()), format!("02{}", "ab".repeat(16)));
        assert_eq!(hex::encode(&entity.content), "0173742d6d617279");
        assert_eq!(read(&entity), Some(pending));
        assert_eq!(read(&Entity { content: vec![2, b'a'], ..entity.clone() }), None);
        assert_eq!(read(&Entity { content: vec![1], ..entity }), None);
    }
}
