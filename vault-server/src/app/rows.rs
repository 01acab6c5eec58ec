//! The seals of the access layer's rows, at the start of a vault.
//!
//! A new vault makes the key of its seals before anything else: that is the first entry of its log. From then on a row without a
//! seal is not the vault's. A vault that has a log and no key is one from before there were seals, or one whose key somebody
//! removed; which of both is not to be told at every start, and so it is not served before `vault-server seal-rows` has looked.

use std::sync::Arc;

use anyhow::Context as _;

use crate::crypto::RowKey;
use crate::domain::{Entity, EntityKind, EntityName, EntityPlace};
use crate::keyring::Keyring;
use crate::store::{EntrySeals, SealedStore, Store, StoreError, Unsealed};

const KEY: &str = "the key of the seals of rows";
const NO_KEY: &str = "there is no key for the seals of its rows. If this vault was never served by software that has them, stop \
                      all its instances and run `vault-server seal-rows` once. If it was, the key's row was removed: restore it";
const HALF_SEALED: &str =
    "its rows are half sealed: run `vault-server seal-rows` again, until it says that it is done";

/// The store with its entities and its log entries sealed.
pub(super) async fn sealed(
    store: &Arc<dyn Store>,
    keyring: &Keyring,
    unsealed: Unsealed,
) -> anyhow::Result<Arc<dyn Store>> {
    let key = match keyring.row_key().await.context(KEY)? {
        Some(key) => Arc::new(key),
        None if is_new(&**store).await? => make(store, keyring, unsealed).await?,
        // Another instance may have made it since, and written to its log.
        None => Arc::new(keyring.row_key().await.context(KEY)?.context(NO_KEY)?),
    };
    store.seal_entries(EntrySeals::new(Arc::clone(&key), unsealed));
    let sealed = SealedStore::new(Arc::clone(store), key);
    anyhow::ensure!(sealed.entity(&marker_place()).await?.is_none(), HALF_SEALED);
    Ok(Arc::new(sealed))
}

/// The key of a new vault, made now, or by an instance that was faster. Its own entry, the vault's first, has a seal by it.
async fn make(store: &Arc<dyn Store>, keyring: &Keyring, unsealed: Unsealed) -> anyhow::Result<Arc<RowKey>> {
    let (record, key) = keyring.new_row_key().await.context(KEY)?;
    let key = Arc::new(key);
    store.seal_entries(EntrySeals::new(Arc::clone(&key), unsealed));
    if keyring.insert(&record).await.context(KEY)? {
        return Ok(key);
    }
    Ok(Arc::new(keyring.row_key().await.context(KEY)?.context(NO_KEY)?))
}

/// Whether no instance has ever written to a log of the vault.
pub(super) async fn is_new(store: &dyn Store) -> Result<bool, StoreError> {
    for log in store.logs().await? {
        if store.log_size(log).await? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where it says that rows are being sealed, as long as they are.
pub(super) fn marker_place() -> EntityPlace {
    let name = EntityName::new(b"rows").expect("1 to 64 bytes");
    EntityPlace { kind: EntityKind::Sealing, tenant: None, name }
}

/// The row there; not yet sealed itself.
pub(super) fn marker() -> Entity {
    Entity { place: marker_place(), revision: 0, content: vec![1] }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
pub(super) mod tests;
