//! Real PostgreSQL servers on loopback, with whatever may befall them: killed, paused, started again, failed over.
//!
//! `PHI_VAULT_POSTGRES_BIN` names the directory of `postgres`, `initdb` and `pg_ctl` (`tests/run` installs one). Where
//! there is none, what starts a server says so in a line that begins with `skipped:` and returns `None`.
//!
//! Everything of a server lies in a directory of its own that goes with it. PostgreSQL refuses root, so that under root
//! its processes run as `nobody`.

mod authority;
mod backup;
mod cluster;
mod files;
mod guard;
mod options;
mod pair;
#[cfg(test)]
mod pair_tests;
mod process;
mod programs;
mod query;
mod server;
#[cfg(test)]
mod tests;

pub use cluster::Cluster;
pub use options::{Options, Tls};
pub use pair::Pair;
pub use query::Rows;
pub use server::Server;

/// The superuser of every server that is started here.
pub const USER: &str = "phi_vault";
