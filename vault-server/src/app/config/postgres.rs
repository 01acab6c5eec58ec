//! `[store.postgres]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::units;

/// How connections to the database are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostgresTls {
    /// TLS; the certificate must be for the host's name, from one of the authorities in `ca`.
    VerifyFull,
    /// Not at all: for loopback addresses.
    Off,
}

/// `[store.postgres]`: the database of engine `postgres`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `host:port` of each server; the one that takes writes is used.
    pub hosts: Vec<String>,
    /// Name of the database.
    pub database: String,
    /// Name of the role.
    pub user: String,
    /// File of its password.
    pub password_file: Option<PathBuf>,
    /// Or the environment variable that has it.
    pub password_env: Option<String>,
    /// How connections are protected.
    #[serde(default = "Postgres::default_tls")]
    pub tls: PostgresTls,
    /// PEM certificates of the authorities that issue the database's certificate.
    pub ca: Option<PathBuf>,
    /// PEM chain of a client certificate.
    pub certificate: Option<PathBuf>,
    /// PEM key of the client certificate.
    pub key: Option<PathBuf>,
    /// Connections for reads; one more commits.
    #[serde(default = "Postgres::default_connections")]
    pub connections: usize,
    /// Name of this instance.
    pub instance: Option<String>,
    /// Or the environment variable that has it.
    pub instance_env: Option<String>,
    /// How long the log of an instance that fell silent is left alone.
    #[serde(default = "Postgres::default_lease", deserialize_with = "units::duration")]
    pub lease: Duration,
}

impl Postgres {
    fn default_tls() -> PostgresTls {
        PostgresTls::VerifyFull
    }

    fn default_connections() -> usize {
        8
    }

    fn default_lease() -> Duration {
        Duration::from_secs(10)
    }

    /// Makes relative paths relative to a directory.
    pub(super) fn resolve(&mut self, dir: &Path) {
        let Self { password_file, ca, certificate, key, .. } = self;
        for path in [password_file, ca, certificate, key].into_iter().flatten() {
            *path = dir.join(&*path);
        }
    }

    /// Hosts and ports.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        self.hosts.iter().filter_map(|host| address(host)).collect()
    }

    /// What the types alone do not say. The option's full name and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |option, why: &str| Err((option, why.to_owned()));
        if self.hosts.is_empty() || self.addresses().len() != self.hosts.len() {
            return wrong("store.postgres.hosts", "must be at least one \"host:port\"");
        }
        if self.database.is_empty() {
            return wrong("store.postgres.database", "must not be empty");
        }
        if self.user.is_empty() {
            return wrong("store.postgres.user", "must not be empty");
        }
        if self.password_file.is_some() && self.password_env.is_some() {
            return wrong("store.postgres.password_env", "and password_file can't both be there");
        }
        if self.instance.is_some() && self.instance_env.is_some() {
            return wrong("store.postgres.instance_env", "and instance can't both be there");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("store.postgres.certificate", "and key belong together");
        }
        let loopback = self.addresses().iter().all(|(host, _)| is_loopback(host));
        match self.tls {
            PostgresTls::Off if !loopback => {
                return wrong("store.postgres.tls", "may be off on loopback addresses only");
            }
            PostgresTls::VerifyFull if self.ca.is_none() => {
                return wrong("store.postgres.tls", "\"verify-full\" needs store.postgres.ca");
            }
            PostgresTls::Off | PostgresTls::VerifyFull => {}
        }
        if self.connections == 0 || self.connections > 1000 {
            return wrong("store.postgres.connections", "must be 1 to 1000");
        }
        if self.lease < Duration::from_secs(1) || self.lease > Duration::from_hours(1) {
            return wrong("store.postgres.lease", "must be 1s to 1h");
        }
        if let Some(name) = &self.instance
            && !is_instance(name)
        {
            return wrong(
                "store.postgres.instance",
                "must be 1 to 63 characters of A-Z, a-z, 0-9, '-', '_' and '.'",
            );
        }
        Ok(())
    }
}

/// Whether an instance can have this name. It goes into log lines and into the database's list of its clients.
pub fn is_instance(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    matches!(name.len(), 1..=63) && name.bytes().all(allowed)
}

/// `host:port`, or `[address]:port`.
pub fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let plain = !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']']);
    plain.then(|| (host.to_owned(), port))
}

/// Whether a host is this machine for sure.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
