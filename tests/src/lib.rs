//! What the end-to-end tests stand on: real processes, started and ended by their id, a KMS that can be made to fail, and
//! scanners for leaks.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

pub mod authenticator;
pub mod canary;
pub mod data;
pub mod database;
pub mod fake_kms;
pub mod fake_postgres;
pub mod fleet;
pub mod history;
pub mod idp;
pub mod moto;
pub mod postgres;
pub mod powercut;
pub mod process;
pub mod site;
pub mod ssh_agent;
pub mod webhook;
pub mod wire;
