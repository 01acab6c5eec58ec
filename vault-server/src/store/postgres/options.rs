//! What an operator chooses.

use std::path::PathBuf;
use std::time::Duration;

/// Where the database is and how the store uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Host and port of each server; they are tried in order, and the one that takes writes is used.
    pub hosts: Vec<(String, u16)>,
    /// Name of the database.
    pub database: String,
    /// Name of the role.
    pub user: String,
    /// Where its password is.
    pub password: Password,
    /// How connections are protected.
    pub transport: Transport,
    /// Connections for reads; one more commits.
    pub connections: usize,
    /// Name of this instance: after a crash it takes its own log again at once.
    pub instance: Option<String>,
    /// How long the log of an instance that fell silent is left alone.
    pub lease: Duration,
}

/// Where the password is. It is read at every new connection, so that a new one needs no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// There is none: the server knows the role by its certificate, or trusts the address.
    None,
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
}

/// How connections are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Not at all: for loopback addresses.
    Plain,
    /// TLS; the server's certificate must be for the host's name and from these authorities.
    Tls {
        /// PEM certificates of the authorities.
        ca: PathBuf,
        /// PEM chain and key of a client certificate.
        identity: Option<(PathBuf, PathBuf)>,
    },
}
