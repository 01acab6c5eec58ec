//! `vault-server migrate`: moves a stopped vault's store to another kind of engine.
//!
//! ```text
//! marker          from the first row on the new store says that it is half moved: `serve` refuses it
//! rows            keys, records, remembered answers, jobs and entities, page by page, in the order of their names
//! log             entries with their sequences; tiles and index rows made anew of them; the newest checkpoint
//! verification    both stores are read from end to end and compared; the tree's root is that of the checkpoint
//! identity        the new store becomes the vault's
//! last entry      STORE_MOVED, in one change with the end of the marker
//! ```
//!
//! * It can be stopped at any point and run again. A row that is there is compared, not written.
//! * Of the old store no row is changed, and nobody else may have either store open meanwhile.
//! * No value is opened: rows are moved as they are, under no key; the access layer's with the seals that they have.
//! * A job moves as it stands: one that is under way goes on in the new store. Only its count of changes, by which nobody
//!   but its writers goes, begins anew; so does an entity's.
//! * Leases of workers stay behind. A fence is there to stop a late writer of the same store, and none can write to
//!   the new one.

mod command;
mod copy;
mod error;
mod log;
mod logs;
mod marker;
mod open;
mod progress;
mod rows;

#[cfg(test)]
mod tests;

pub use command::{Kind, Options, run};
pub use error::MoveError;
pub(super) use marker::refuse_half_moved;
