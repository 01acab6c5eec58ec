//! What both ends of phi-vault, and an offline verifier, must agree on.
//!
//! * [`token`]: the public names of records, parsed and checked offline.
//! * [`purpose`]: purposes of use.
//! * [`tree`], [`tile`], [`note`], [`checkpoint`]: the log as a Merkle tree (RFC 6962), its tiles and its signed
//!   checkpoints (C2SP), and [`verify`], which checks an exported log with only the public key.
//!
//! Pure: no I/O but [`verify`]'s reading of files, no async, no secrets but the log's signing key in [`note`].
#![forbid(unsafe_code)]

pub mod environment;
pub mod purpose;
pub mod token;
