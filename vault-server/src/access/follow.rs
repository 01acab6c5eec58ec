//! Keeps [`Access`] at what the store has of principals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Whether nobody of the store is let in because it can't be known who they are.
    is_closed: AtomicBool,
}

impl Provisioning {
    /// Nothing is in force yet.
    pub fn new(store: Arc<dyn Store>, access: Arc<Access>) -> Self {
        Self { store, access, seen: Mutex::new(None), is_closed: AtomicBool::new(false) }
    }

    /// Takes up what is new.
    pub async fn look(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        let begun = self.access.moment();
        let generation = match self.store.entity(&generation_place()).await {
            // Who of them was disabled since can't be known: then none of them may call, and those of the file may.
            Err(error @ StoreError::Corrupt { .. }) => {
                if !self.is_closed.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "none of the provisioned principals is let in");
                    self.access.provision(Vec::new());
                }
                *seen = None;
                self.access.looked(begun);
                return Ok(());
            }
            generation => generation?,
        };
        if seen.as_ref() != Some(&generation) {
            // What is read now may be newer than the generation: then the next look reads it once more.
            self.access.provision(self.read().await?);
            self.is_closed.store(false, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::testing::{test_access, test_credential};
    use crate::access::{Directory, Principal, next_generation, write_principal};
    use crate::domain::{PrincipalId, Timestamp};
    use crate::store::memory::MemoryStore;
    use crate::store::{Change, Write};

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn principal(id: &str) -> Principal {
        let text = format!(
            "[[principal]]\nid = '{id}'\nkind = 'human'\nidentities = ['spiffe://test.local/{id}']\n\
             [principal.roles]\n'demo' = ['auditor']\n"
        );
        Principal::clone(Directory::parse(&text).unwrap().principals().next().unwrap())
    }

    /// Commits principals as they are now, with the change of the generation or without.
    async fn put(store: &MemoryStore, principals: &[Principal], is_told: bool) {
        let before = store.entity(&generation_place()).await.unwrap();
        let told = is_told.then(|| next_generation(before.as_ref()).unwrap());
        let rows = principals.iter().map(write_principal);
        let writes = rows.chain(told).map(Write::PutEntity).collect();
        store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
    }

    struct Rig {
        store: MemoryStore,
        access: Arc<Access>,
        provisioning: Arc<Provisioning>,
    }

    impl Rig {
        fn new() -> Self {
            let (store, access) = (MemoryStore::new(), Arc::new(test_access()));
            let provisioning = Provisioning::new(Arc::new(store.clone()), Arc::clone(&access));
            Self { store, access, provisioning: Arc::new(provisioning) }
        }

        fn may_call(&self, id: &str) -> bool {
            self.access.authenticate(&test_credential(id), NOW).is_ok()
        }
    }

    #[tokio::test]
    async fn who_is_provisioned_may_call_from_the_next_look_on() {
        let rig = Rig::new();
        rig.provisioning.look().await.unwrap();
        put(&rig.store, &[principal("ann"), principal("bob")], true).await;
        assert!(!rig.may_call("ann"));
        rig.provisioning.look().await.unwrap();
        assert!(rig.may_call("ann") && rig.may_call("bob") && rig.may_call("service"));
        let disabled = Principal { enabled: false, revision: Some(1), ..principal("ann") };
        put(&rig.store, &[disabled], true).await;
        rig.provisioning.look().await.unwrap();
        assert!(!rig.may_call("ann") && rig.may_call("bob"));
    }

    #[tokio::test]
    async fn rows_are_read_again_only_if_the_generation_changed() {
        let rig = Rig::new();
        put(&rig.store, &[principal("ann")], true).await;
        rig.provisioning.look().await.unwrap();
        let generation = rig.access.generation();
        put(&rig.store, &[principal("bob")], false).await;
        rig.provisioning.look().await.unwrap();
        assert_eq!(rig.access.generation(), generation, "what was decided is kept");
        assert!(!rig.may_call("bob"));
    }

    #[tokio::test]
    async fn a_row_that_is_not_what_was_written_is_nobody_and_the_others_may_call() {
        let rig = Rig::new();
        let mut torn = write_principal(&principal("ann"));
        torn.content.truncate(9);
        let torn = vec![Write::PutEntity(torn)];
        rig.store.commit(Change { writes: torn, entries: Vec::new() }).await.unwrap();
        put(&rig.store, &[principal("bob")], true).await;
        rig.provisioning.look().await.unwrap();
        assert!(!rig.may_call("ann") && rig.may_call("bob"));
        assert!(rig.access.principal(&PrincipalId::parse("ann").unwrap()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_looked_for_until_it_is_told_to_stop() {
        let rig = Rig::new();
        let stopping = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&rig.provisioning).run(stopping.clone()));
        put(&rig.store, &[principal("ann")], true).await;
        sleep(2 * LOOK_EVERY).await;
        assert!(rig.may_call("ann"));
        stopping.cancel();
        timeout(LOOK_EVERY, running).await.unwrap().unwrap();
        put(&rig.store, &[principal("bob")], true).await;
        sleep(2 * LOOK_EVERY).await;
        assert!(!rig.may_call("bob"));
    }
}
