//! End-to-end tests: real processes, real TLS, the commands that a user types.

mod bad_input;
mod crash;
mod main_job;
mod roles;
