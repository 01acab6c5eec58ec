//! What is checked of a store before it is used: its format, and that its log has not lost its end.

use crate::store::embedded::engine::{Engine, Rows, View};
use crate::store::embedded::read;
use crate::store::keys::{Space, meta};
use crate::store::{StoreError, corrupt};

/// The format of the whole store: its spaces, keys and rows. Raised by a change that old software cannot read.
pub(crate) const FORMAT: u64 = 3;
/// Those of stores whose software knows no seals of entities, and none of log entries: all else is the same. It would take a row
/// with a seal for one that is corrupt, a honeytoken's for none.
const WITHOUT_SEALS: std::ops::RangeInclusive<u64> = 1..=2;

/// Founds the format of a new store, and brings one of before forward; refuses one of another format.
pub(crate) fn check(engine: &impl Engine) -> Result<(), StoreError> {
    let view = &engine.view();
    match read::number(view, meta::FORMAT)? {
        Some(FORMAT) => Ok(()),
        // Every store that has rows has a format.
        None if read::log_end(view)? > 0 || read::number(view, meta::RECORDS)?.is_some() => {
            Err(corrupt(Space::Meta, meta::FORMAT))
        }
        None => found(engine),
        Some(before) if WITHOUT_SEALS.contains(&before) => found(engine),
        Some(other) => Err(StoreError::Foreign { why: format!("its format is {other}, not {FORMAT}") }),
    }
}

fn found(engine: &impl Engine) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    rows.put(Space::Meta, meta::FORMAT, &FORMAT.to_be_bytes());
    engine.apply(&[rows], true).map_err(StoreError::from)
}

/// How many entries there are. Derived rows are made of durable entries: if these are not there, the log lost
/// its end, which an engine may do in silence when it drops a damaged journal's tail.
pub(crate) fn log_end(view: &impl View) -> Result<u64, StoreError> {
    let end = read::log_end(view)?;
    let derived = read::derived(view)?;
    let seen = derived.checkpoint.map_or(0, |(size, _)| size).max(derived.upto);
    if end < seen { Err(corrupt(Space::Log, &end.to_be_bytes())) } else { Ok(end) }
}
