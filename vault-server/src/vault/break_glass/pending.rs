//! A row for each grant that waits or is in force: made with it, gone when it is over.
//!
//! ```text
//! name     0x02 | grant(16)                      of the vault's own grants' rows
//! content  version(1)=1 | tenant
//! ```

use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, EntityScope, GrantId, TenantId};
use crate::store::{EntityRow, Store, StoreError, Write};

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

    /// It is over: what there is of it goes. No grant goes on because this row is not what the vault wrote.
    pub(super) async fn end(store: &dyn Store, id: GrantId) -> Result<Option<Write>, StoreError> {
        let place = place(id);
        let revision = match store.entity(&place).await {
            Ok(row) => row.map(|row| row.revision),
            Err(StoreError::Corrupt { .. }) => forged(store, &place).await?,
            Err(error) => return Err(error),
        };
        Ok(revision.map(|revision| Write::DropEntity { place, revision }))
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

/// The revision of a row that the vault did not write. `None`: it is malformed, and stays.
async fn forged(store: &dyn Store, place: &EntityPlace) -> Result<Option<u64>, StoreError> {
    let scope = EntityScope::Tenant(EntityKind::Grant, None);
    let mut after = None;
    loop {
        let page = store.entity_rows(&scope, after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        after = Some(last.place().clone());
        for row in page {
            match row {
                EntityRow::Forged { place: of, revision } if of == *place => return Ok(revision),
                _ => {}
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
    use std::sync::Arc;

    use vault_mem::LockedKey;

    use super::*;
    use crate::crypto::RowKey;
    use crate::domain::{Environment, KeyVersion, VaultId, VaultIdentity};
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, SealedStore};

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

    fn sealing_key() -> Arc<RowKey> {
        let environment = Environment::parse("dev").unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment };
        Arc::new(RowKey::new(KeyVersion::FIRST, identity, LockedKey::random().unwrap()))
    }

    #[tokio::test]
    async fn a_row_that_the_vault_did_not_write_goes_with_its_grant() {
        let engine: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let sealed = SealedStore::new(Arc::clone(&engine), sealing_key());
        let (tenant, id) = (TenantId::parse("st-mary").unwrap(), GrantId::from_bytes([0xab; 16]));
        let put = |writes| Change { writes, entries: Vec::new() };
        sealed.commit(put(vec![Pending::begin(&tenant, id)])).await.unwrap();
        let forged = Entity { place: place(id), revision: 1, content: b"\x01elsewhere".to_vec() };
        engine.commit(put(vec![Write::PutEntity(forged)])).await.unwrap();
        assert_eq!(Pending::all(&sealed).await, Ok(vec![]));
        let gone = Pending::end(&sealed, id).await.unwrap().unwrap();
        sealed.commit(put(vec![gone])).await.unwrap();
        assert_eq!(engine.entity(&place(id)).await, Ok(None));
        assert_eq!(Pending::end(&sealed, id).await, Ok(None));
    }
}
