//! Which rows the tasks of a batch change.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash};

use crate::store::embedded::by_token::ByToken;
use crate::store::embedded::prepare::RowId;

/// Rows, and the number of the task that changes each. Records have a map of their own: nearly all rows are of records.
#[derive(Debug, Default)]
pub(super) struct Touched {
    records: ByToken<usize>,
    others: HashMap<RowId, usize>,
}

/// The row is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) by: usize,
}

impl Touched {
    /// Gives the row to a task, if none has it.
    pub(super) fn take(&mut self, id: RowId, number: usize) -> Result<(), Taken> {
        match id {
            RowId::Record(token) => put(&mut self.records, token, number),
            other => put(&mut self.others, other, number),
        }
    }

    /// The task that changes a row.
    pub(super) fn by(&self, id: &RowId) -> Option<usize> {
        match id {
            RowId::Record(token) => self.records.get(token).copied(),
            other => self.others.get(other).copied(),
        }
    }

    /// Whether another task changes any record.
    pub(super) fn has_records_of_others(&self, number: usize) -> bool {
        self.records.values().any(|by| *by != number)
    }

    /// A task changes nothing after all.
    pub(super) fn give_back(&mut self, number: usize) {
        self.records.retain(|_, by| *by != number);
        self.others.retain(|_, by| *by != number);
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.others.clear();
    }
}

fn put<K: Eq + Hash, S: BuildHasher>(
    map: &mut HashMap<K, usize, S>,
    key: K,
    number: usize,
) -> Result<(), Taken> {
    match map.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(number);
            Ok(())
        }
        Entry::Occupied(entry) => Err(Taken { by: *entry.get() }),
    }
}
