//! End-to-end tests: real processes, real TLS, the commands that a user types.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]

mod alerts;
mod bad_database;
mod bad_input;
mod break_glass;
mod break_glass_cli;
mod crash;
mod failover;
mod full_disk;
mod history;
mod honeytokens;
mod instances;
mod job_kills;
mod keys;
mod kms;
mod kms_moves;
mod leaks;
mod limits;
mod logs;
mod main_job;
mod migrate;
mod oidc;
mod principals;
mod roles;
mod sealed_rows;
mod second_factor;
mod signing;
mod tamper;
mod tamper_database;
mod touch;
mod wire;
