//! An engine in memory whose power can be cut, which can be told to fail, to stand still in a sync, and to be
//! broken in the ways that the tests must catch.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::store::embedded::engine::{Direction, Engine, EngineError, Rows, View, Visit};
use crate::store::keys::Space;

type Map = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// How the engine is broken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// It says that it has synced, and has not.
    AcknowledgesBeforeSync,
    /// A power cut leaves the last batch half done.
    TearsBatches,
}

#[derive(Debug, Default)]
struct Disk {
    /// What reads see.
    visible: Map,
    /// What a power cut leaves.
    durable: Map,
    /// Of the last batch: where a row was put (or, if not, removed).
    applied: Vec<(Space, Vec<u8>, bool)>,
    fault: Fault,
    /// How many syncs there were, and how many there can be.
    syncs: u64,
    syncs_allowed: Option<u64>,
    /// Syncs wait.
    held: bool,
    syncing: bool,
}

/// Clones are the same engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedEngine(Arc<(Mutex<Disk>, Condvar)>);

impl SimulatedEngine {
    pub(crate) fn with_fault(fault: Fault) -> Self {
        let engine = Self::default();
        engine.disk().fault = fault;
        engine
    }

    /// What there is after a power cut, in an engine without faults.
    pub(crate) fn after_power_cut(&self) -> Self {
        let engine = Self::default();
        let durable = self.disk().durable.clone();
        engine.disk().visible.clone_from(&durable);
        engine.disk().durable = durable;
        engine
    }

    /// The sync after `more` further ones fails, and no later one is asked for.
    pub(crate) fn fail_sync_after(&self, more: u64) {
        let mut disk = self.disk();
        disk.syncs_allowed = Some(disk.syncs + more);
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Spaces and keys of the rows of the last batch, and whether each was put or removed.
    pub(crate) fn applied(&self) -> Vec<(Space, Vec<u8>, bool)> {
        self.disk().applied.clone()
    }

    /// Syncs wait until [`SimulatedEngine::release_syncs`].
    pub(crate) fn hold_syncs(&self) {
        self.disk().held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.disk().held = false;
        self.0.1.notify_all();
    }

    /// Returns once a batch is visible and its sync waits.
    pub(crate) fn wait_until_syncing(&self) {
        let mut disk = self.disk();
        while !disk.syncing {
            self.0.1.wait(&mut disk);
        }
    }

    /// Changes a byte of a row.
    pub(crate) fn flip(&self, space: Space, key: &[u8], position: usize) {
        let mut disk = self.disk();
        disk.visible.get_mut(&(space, key.to_vec())).unwrap()[position] ^= 1;
    }

    /// Puts a row under another key.
    pub(crate) fn copy(&self, space: Space, from: &[u8], to: &[u8]) {
        let mut disk = self.disk();
        let row = disk.visible[&(space, from.to_vec())].clone();
        disk.visible.insert((space, to.to_vec()), row);
    }

    pub(crate) fn remove(&self, space: Space, key: &[u8]) {
        self.disk().visible.remove(&(space, key.to_vec())).unwrap();
    }

    fn disk(&self) -> parking_lot::MutexGuard<'_, Disk> {
        self.0.0.lock()
    }
}

fn write<'a>(map: &mut Map, rows: impl Iterator<Item = (Space, &'a [u8], Option<&'a [u8]>)>) {
    for (space, key, row) in rows {
        match row {
            Some(row) => map.insert((space, key.to_vec()), row.to_vec()),
            None => map.remove(&(space, key.to_vec())),
        };
    }
}

impl Engine for SimulatedEngine {
    type View<'a> = &'a Self;

    const VISIBLE_BEFORE_SYNC: bool = true;

    fn view(&self) -> &Self {
        self
    }

    fn apply(&self, batch: &[Rows], sync: bool) -> Result<(), EngineError> {
        let mut disk = self.disk();
        write(&mut disk.visible, batch.iter().flat_map(Rows::iter));
        let rows = batch.iter().flat_map(Rows::iter);
        disk.applied = rows.map(|(space, key, row)| (space, key.to_vec(), row.is_some())).collect();
        if !sync {
            return Ok(());
        }
        disk.syncing = true;
        self.0.1.notify_all();
        while disk.held {
            self.0.1.wait(&mut disk);
        }
        disk.syncing = false;
        if disk.syncs_allowed.is_some_and(|allowed| disk.syncs >= allowed) {
            disk.syncs += 1;
            return Err(EngineError::Failed("simulated: input/output error".to_owned()));
        }
        disk.syncs += 1;
        let disk = &mut *disk;
        match disk.fault {
            Fault::None => disk.durable.clone_from(&disk.visible),
            Fault::AcknowledgesBeforeSync => {}
            Fault::TearsBatches => {
                let rows = batch.iter().map(Rows::len).sum::<usize>();
                write(&mut disk.durable, batch.iter().flat_map(Rows::iter).take(rows / 2));
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, EngineError> {
        Ok(self.disk().visible.values().map(|row| row.len() as u64).sum())
    }
}

impl View for &SimulatedEngine {
    type Row = Vec<u8>;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.disk().visible.get(&(space, key.to_vec())).cloned())
    }

    fn contains(&self, space: Space, key: &[u8]) -> Result<bool, EngineError> {
        Ok(self.disk().visible.contains_key(&(space, key.to_vec())))
    }

    fn scan(
        &self,
        space: Space,
        (from, until): (&[u8], Option<&[u8]>),
        direction: Direction,
        visit: Visit<'_>,
    ) -> Result<(), EngineError> {
        let disk = self.disk();
        let until = |row: &(&(Space, Vec<u8>), &Vec<u8>)| {
            row.0.0 == space && until.is_none_or(|until| row.0.1.as_slice() < until)
        };
        let mut rows: Vec<_> = disk
            .visible
            .range((Bound::Included((space, from.to_vec())), Bound::Unbounded))
            .take_while(until)
            .collect();
        if direction == Direction::Backward {
            rows.reverse();
        }
        for ((_, key), row) in rows {
            if let ControlFlow::Break(()) = visit(key, row) {
                break;
            }
        }
        Ok(())
    }
}
