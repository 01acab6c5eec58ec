//! Running the server: command line, configuration, TLS, telemetry, start and stop. Nothing here knows a value.
//!
//! * [`cli`]: the command line and its exit codes; [`init`], [`dev`] and [`pki`] make a vault, [`migrate`] moves one,
//!   [`seal_rows`] gives seals to the rows of an old one.
//! * [`config`] reads `vault.toml`.
//! * [`serve`]: the life of a serving process; [`wire`] puts the parts together, [`shutdown`] says when it ends.
//! * [`tls`], [`listener`], [`connections`]: from TCP to a connection whose client is known.
//! * [`observe`], [`metrics`] and `job_metrics`, [`metrics_server`], [`telemetry`]: what operators see.
//! * [`alerts`]: from the rows of alerts to whoever must hear of them.
//! * `rows`: the seals of the access layer's rows, at the start.
//! * `watch`: limits, honeytokens and alerts, put together.
//! * [`reload`]: new files while the server runs. [`files`]: how files are written.

pub mod alerts;
pub mod cli;
pub mod config;
pub mod connections;
pub mod dev;
pub mod files;
pub mod init;
mod job_metrics;
pub mod listener;
pub mod metrics;
pub mod metrics_server;
pub mod migrate;
pub mod observe;
mod oidc;
pub mod pki;
pub mod reload;
mod rows;
pub mod seal_rows;
pub mod serve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
mod watch;
pub mod wire;

#[cfg(test)]
mod tls_tests;
