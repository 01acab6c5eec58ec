//! The log of who did what to whose data, durable before anything comes of it, and how it is read.
//!
//! * [`Log`] writes: [`Log::before_open`] gives the [`Receipt`] without which nothing is opened.
//! * [`Follower`] follows the log: Merkle tree, tiles, indexes, signed checkpoints. It is never in a request's way.
//! * [`Adopter`] sees to it that the logs of crashed instances end under a checkpoint, too.
//! * [`Deriver`] and [`check_log`] make and check what is derived from a log that is moved to another store.
//! * [`SealHistory`] is what the logs tell of the seals of rows.
//! * [`query`] reads the logs of all instances, the newest entries too.
//! * [`KeyJournal`] writes the entry that is committed with a new key.
//!
//! An entry is a typed allow-list ([`Draft`], [`Item`]): no value and no plain subject id can get in. Entries are
//! `vault.v1.AuditEntry` messages; `docs/audit-log.md` describes them for auditors.

mod adopter;
mod cursor;
mod derive;
mod entry;
mod follower;
mod journal;
mod log;
mod merge;
mod origin;
mod others;
mod postings;
mod query;
mod receipt;
mod recent;
mod resume;
mod scan;
mod seals;
mod signing;
mod text;

#[cfg(test)]
mod test_store;
#[cfg(test)]
mod testing;

pub use adopter::{AdoptError, Adopter};
pub use derive::{Deriver, action_of, check_log};
pub use entry::{Actor, AuditAction, Decision, Draft, Item, Outcome, TooLarge};
pub use follower::{Follower, FollowerError, FollowerHandle, FollowerOptions, FreshError};
pub use journal::KeyJournal;
pub use log::{Beside, Log, LogError, LogOptions};
pub use origin::origin;
pub use others::checkpoint_of_other;
pub use query::{Hit, MOST_READ, MOST_RETURNED, Page, Query, QueryError, query};
pub use receipt::Receipt;
pub use recent::Recent;
pub use seals::{SEALING, SealHistory};
pub use signing::{Fixed, SigningError, SigningKeys, SigningSource, VaultSigning};
pub use text::is_plain;

pub use crate::store::LogId;
