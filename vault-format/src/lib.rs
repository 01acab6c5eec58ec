//! What both ends of phi-vault, and an offline verifier, must agree on.
//!
//! * [`token`]: the public names of records, parsed and checked offline.
//! * [`purpose`]: purposes of use.
//! * [`tree`], [`tile`], [`note`], [`checkpoint`]: the log as a Merkle tree (RFC 6962), its tiles and its signed
//!   checkpoints (C2SP).
//! * [`history`]: the keys that have signed the logs, each vouched for by the one before.
//! * [`told`]: what errors may say of a text that is not what it should be.
//! * [`export`] writes a log as files; [`verify`] checks such files with only the public key.
//!
//! Pure: no I/O but the files of [`export`] and [`verify`], no async, no secret but the log's signing key in
//! [`note`].
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod environment;
pub mod export;
pub mod history;
pub mod note;
pub mod purpose;
pub mod tile;
pub mod token;
pub mod told;
pub mod tree;
pub mod verify;
