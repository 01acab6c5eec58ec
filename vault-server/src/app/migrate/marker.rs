//! The marker of a store that is being moved: a lease by the name of `migration`, held until all is there.

use super::error::{MoveError, Of as _, Side};
use super::rows::Row as _;
use crate::domain::{Entity, InstanceId, LeaseName, Timestamp, VaultIdentity};
use crate::store::{Change, Lease, Store, StoreError, Write};

const NAME: &str = "migration";

/// What a store is to a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing is in it.
    Empty,
    /// It is half moved; the marker.
    Half(Lease),
    /// It is the vault's, and a move has ended there.
    Moved,
}

/// What the new store is to a move of this vault.
pub(super) async fn look(store: &dyn Store, identity: &VaultIdentity) -> Result<Target, MoveError> {
    let side = Side::New;
    let refused = |why: &str| Err(MoveError::Refused(format!("the new store {why}")));
    let there = store.identity().await.of(side)?;
    if there.as_ref().is_some_and(|there| there != identity) {
        return refused("is the store of another vault");
    }
    match store.lease(&name().of(side)?).await.of(side)? {
        Some(marker) if *marker.holder.as_bytes() != *identity.vault.as_bytes() => {
            refused("is half moved from another vault: empty it first")
        }
        Some(marker) if is_unfinished(&marker) => Ok(Target::Half(marker)),
        Some(_) if there.is_some() => Ok(Target::Moved),
        Some(_) => refused("is not of any vault, but says that a move to it has ended"),
        None if there.is_some() => {
            let stats = store.stats().await.of(side)?;
            Err(MoveError::Refused(format!(
                "the new store is already this vault's, by no move: it has {} records and {} log entries. Move to an \
                 empty one",
                stats.records, stats.entries
            )))
        }
        None => empty(store).await,
    }
}

/// A store that is not a vault's yet has nothing that a move did not bring.
async fn empty(store: &dyn Store) -> Result<Target, MoveError> {
    let side = Side::New;
    let has = |what: String| Err(MoveError::Refused(format!("the new store is not empty: it has {what}")));
    if let Some(key) = store.scan_keys(None, 1).await.of(side)?.first() {
        return has(format!("the key {}", key.id));
    }
    if !store.scan_records(None, 1).await.of(side)?.is_empty() {
        return has("records".to_owned());
    }
    if !store.jobs(None, 1).await.of(side)?.is_empty() {
        return has("jobs".to_owned());
    }
    if !Entity::page(store, None, 1).await.of(side)?.is_empty() {
        return has("entities".to_owned());
    }
    for log in store.logs().await.of(side)? {
        let size = store.log_size(log).await.of(side)?;
        if size > 0 {
            return has(format!("{size} entries in log {log}"));
        }
    }
    Ok(Target::Empty)
}

/// Marks an empty store as half moved; the marker.
pub(super) async fn put(store: &dyn Store, identity: &VaultIdentity) -> Result<Lease, MoveError> {
    let marker = Lease {
        name: name().of(Side::New)?,
        holder: InstanceId::from_bytes(*identity.vault.as_bytes()),
        fence: 1,
        expires: NEVER,
        revision: 0,
    };
    let change = Change { writes: vec![Write::PutLease(marker.clone())], entries: Vec::new() };
    store.commit(change).await.of(Side::New)?;
    Ok(marker)
}

/// Ends the marker.
pub(super) fn end(marker: Lease) -> Write {
    Write::PutLease(Lease { expires: Timestamp(0), revision: marker.revision + 1, ..marker })
}

/// Refuses a store that only a part of a vault was moved to.
pub(in crate::app) async fn refuse_half_moved(store: &dyn Store) -> Result<(), StoreError> {
    match store.lease(&name()?).await? {
        Some(marker) if is_unfinished(&marker) => Err(StoreError::Foreign {
            why: "a move to it has not ended: run `vault-server migrate` again, or serve from the old store"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The largest time that every engine keeps.
const NEVER: Timestamp = Timestamp(i64::MAX as u64);

fn is_unfinished(marker: &Lease) -> bool {
    marker.expires != Timestamp(0)
}

fn name() -> Result<LeaseName, StoreError> {
    LeaseName::parse(NAME).map_err(|error| StoreError::Unavailable { why: error.to_string() })
}
