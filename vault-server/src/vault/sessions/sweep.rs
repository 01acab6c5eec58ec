//! Takes away what is over.

use crate::access::{SessionList, SessionRow};
use crate::domain::{Entity, EntityKind, EntityScope, Timestamp};
use crate::store::{EntityRow, Write};

use super::super::Vault;
use super::Sessions;

/// Rows that are looked at together.
const PAGE: usize = 500;
/// A session that is over is kept for so long: who comes with it is told from who never had one.
const KEPT_US: u64 = 24 * 3600 * 1_000_000;
/// An access token is good for so long past its end, since clocks differ.
const LEEWAY_US: u64 = 120 * 1_000_000;

impl Vault {
    /// Takes sessions away that have been over for a day, and what is remembered of tokens that are not good any more.
    /// Every instance may do so at any time.
    pub async fn sweep_sessions(&self) {
        let Some(sessions) = &self.parts.sessions else { return };
        let scope = EntityScope::Tenant(EntityKind::Session, None);
        let mut after = None;
        loop {
            let page = match self.parts.store.entity_rows(&scope, after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => return tracing::warn!(%error, "sessions can't be swept"),
            };
            let now = sessions.steady.now(self.parts.clock.now());
            let (last, is_last) = (page.last().map(|row| row.place().clone()), page.len() < PAGE);
            // One that is not the vault's opens nothing, and stays, to be looked at.
            for entity in page.into_iter().filter_map(EntityRow::sound) {
                if self.is_waste(sessions, &entity, now).await {
                    let Entity { place, revision, .. } = entity;
                    // Who changed it meanwhile has reason to.
                    let _ = self.parts.log.write(vec![Write::DropEntity { place, revision }]).await;
                }
            }
            after = last;
            if is_last {
                return;
            }
        }
    }

    async fn is_waste(&self, sessions: &Sessions, entity: &Entity, now: Timestamp) -> bool {
        match SessionRow::read(entity) {
            Some(SessionRow::Session(session)) => {
                let ended = if session.closed_us > 0 { session.closed_us } else { session.used_us };
                session.over(now, &sessions.rules).is_some() && now.0 >= ended.saturating_add(KEPT_US)
            }
            Some(SessionRow::Used(used)) => now.0 >= used.expires_us.saturating_add(LEEWAY_US),
            Some(SessionRow::List(SessionList { sessions: names })) => {
                for name in &names {
                    let place = name.as_slice().try_into().ok().and_then(SessionRow::session);
                    let Some(place) = place else { continue };
                    if !matches!(self.parts.store.entity(&place).await, Ok(None)) {
                        return false;
                    }
                }
                true
            }
            // Not ours to judge: it stays, to be looked at.
            None => false,
        }
    }
}
