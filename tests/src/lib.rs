//! What the end-to-end tests stand on: real processes, started and ended by their id, a KMS that can be made to fail, and
//! scanners for leaks.
#![forbid(unsafe_code)]

pub mod canary;
pub mod data;
pub mod fake_kms;
pub mod moto;
pub mod powercut;
pub mod process;
