//! For how long this process has known grants as they are: a clock that is wrong, or is set back, makes none last longer.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::access::{Grant, GrantState};
use crate::domain::GrantId;

/// Grants that wait or are in force, and since when this process knows them so.
#[derive(Default)]
pub(in crate::vault) struct KnownGrants(Mutex<HashMap<GrantId, (GrantState, Instant)>>);

impl KnownGrants {
    /// For how long it has been in this state, at the least.
    pub(super) fn for_how_long(&self, grant: &Grant) -> Duration {
        let (id, state) = (grant.terms().id, grant.state());
        let mut known = self.0.lock();
        if !state.is_open() {
            known.remove(&id);
            return Duration::ZERO;
        }
        let (was, since) = known.entry(id).or_insert_with(|| (state, Instant::now()));
        if *was != state {
            (*was, *since) = (state, Instant::now());
        }
        since.elapsed()
    }

    /// Forgets what is not among those that are open.
    pub(super) fn keep(&self, open: &BTreeSet<GrantId>) {
        self.0.lock().retain(|id, _| open.contains(id));
    }
}
