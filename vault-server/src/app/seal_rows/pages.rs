//! The rows of a store, page by page: as they are, or counted by whether they have their seals.

use crate::access::{Principal, read_principal};
use crate::domain::{Entity, EntityKind, EntityPlace, EntityScope};
use crate::store::{EntityRow, SealedStore, Store};

/// Rows of a page, and of a change.
const PAGE: usize = 128;

/// What is there: rows with their seals, principals among them, and the places of rows without.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) sound: Vec<(EntityKind, u64)>,
    pub(super) principals: Vec<String>,
    pub(super) forged: Vec<String>,
}

impl Counts {
    pub(super) fn in_words(&self) -> String {
        if self.sound.is_empty() {
            return "there are none".to_owned();
        }
        let counts: Vec<_> =
            self.sound.iter().map(|(kind, count)| format!("{} {count}", kind.as_str())).collect();
        counts.join(", ")
    }
}

/// Reads all rows.
pub(super) async fn count(sealed: &SealedStore) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for kind in kinds() {
        let (mut after, mut sound) = (None, 0);
        loop {
            let page = sealed.entity_rows(&EntityScope::Kind(kind), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.place().clone());
            for row in page {
                match row {
                    EntityRow::Sound(row) => {
                        sound += 1;
                        counts.principals.extend(principal(&row));
                    }
                    EntityRow::Forged { place, .. } => counts.forged.push(format!("{place:?}")),
                }
            }
        }
        if sound > 0 {
            counts.sound.push((kind, sound));
        }
    }
    Ok(counts)
}

/// The rows of a kind as they are.
pub(super) struct Pages {
    scope: EntityScope,
    after: Option<EntityPlace>,
}

impl Pages {
    pub(super) fn new(kind: EntityKind) -> Self {
        Self { scope: EntityScope::Kind(kind), after: None }
    }

    pub(super) async fn next(&mut self, store: &dyn Store) -> anyhow::Result<Option<Vec<Entity>>> {
        let page = store.entities(&self.scope, self.after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.place.clone());
        Ok(Some(page))
    }
}

/// Who is in a principal's row, with its roles.
pub(super) fn principal(row: &Entity) -> Option<String> {
    if row.place.kind != EntityKind::Principal {
        return None;
    }
    let Principal { id, roles, enabled, .. } = match read_principal(row) {
        Ok(principal) => principal?,
        Err(unreadable) => return Some(format!("{:?}: {unreadable}", row.place.name)),
    };
    let roles = roles
        .iter()
        .flat_map(|(scope, roles)| roles.iter().map(move |role| format!("{scope}:{}", role.as_str())));
    let roles: Vec<_> = roles.collect();
    Some(format!("{id}{}: {}", if enabled { "" } else { " (disabled)" }, roles.join(" ")))
}

/// All kinds but that of the marker.
pub(super) fn kinds() -> impl Iterator<Item = EntityKind> {
    EntityKind::ALL.iter().copied().filter(|kind| *kind != EntityKind::Sealing)
}
