//! Keeps [`Access`] at what the store has of principals.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::provisioned::{generation_place, read_principal};
use crate::access::{Access, Principal};
use crate::domain::{Entity, EntityKind, EntityScope};
use crate::store::{EntityRow, Store, StoreError};

/// How often it is looked whether there is anything new. A change is in force on every instance after this and the time of
/// two reads.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// Principals that are read at once.
const PAGE: usize = 1000;

/// Looks for changes of principals.
#[expect(clippy::option_option, reason = "not looked yet, no row there, or this row")]
pub struct Provisioning {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    /// The row `generation` of what is in force; `None` before the first look. Held for a look: they come one after another.
    seen: Mutex<Option<Option<Entity>>>,
}

impl Provisioning {
    /// Nothing is in force yet.
    pub fn new(store: Arc<dyn Store>, access: Arc<Access>) -> Self {
        Self { store, access, seen: Mutex::new(None) }
    }

    /// Takes up what is new.
    pub async fn look(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        let begun = self.access.moment();
        let generation = self.store.entity(&generation_place()).await?;
        if seen.as_ref() != Some(&generation) {
            // What is read now may be newer than the generation: then the next look reads it once more.
            match self.read().await {
                Ok(principals) => self.access.provision(principals),
                // Who of them is disabled can't be known: then none of them may call, and those of the file may.
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, "none of the provisioned principals is let in");
                    self.access.provision(Vec::new());
                    self.access.looked(begun);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            *seen = Some(generation);
        }
        self.access.looked(begun);
        Ok(())
    }

    /// Looks until it is told to stop.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut telling = true;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let trouble = match timeout(PATIENCE, self.look()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the store does not answer in time".to_owned()),
            };
            if let (Some(trouble), true) = (&trouble, telling) {
                tracing::warn!(%trouble, "can't look for changes of principals");
            }
            telling = trouble.is_none();
        }
    }

    /// All of them. One whose row is not what was written is nobody: it is left out, and that is told. So is a row that the
    /// vault did not write: who it says it is, it is not.
    async fn read(&self) -> Result<Vec<Principal>, StoreError> {
        let scope = EntityScope::Kind(EntityKind::Principal);
        let mut principals = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.entity_rows(&scope, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(principals) };
            after = Some(last.place().clone());
            for entity in page.into_iter().filter_map(EntityRow::sound) {
                match read_principal(&entity) {
                    Ok(principal) => principals.extend(principal),
                    Err(error) => tracing::error!(place = ?entity.place, %error, "left out"),
                }
            }
        }
    }
}
