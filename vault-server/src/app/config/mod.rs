//! `vault.toml`: read once at the start, typed, complete, and refused as a whole when anything in it is unknown.
//!
//! Relative paths are relative to the directory of the file. Options and defaults: `docs/vault.sample.toml`.

mod alerts;
mod break_glass;
mod error;
mod oidc;
mod postgres;
mod second_factor;
mod sections;
mod units;
mod usage;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

pub use alerts::{Alerts, receiver};
pub use break_glass::{BreakGlass, BreakGlassTenant};
pub use error::ConfigError;
pub use oidc::{Oidc, OidcIssuer, Sessions};
pub use postgres::{Postgres, PostgresTls, address, is_instance, is_loopback};
pub use second_factor::SecondFactor;
pub use sections::{
    Access, Audit, Cache, Classes, Engine, Idempotency, Jobs, Keys, Kms, KmsKey, KmsKind, Limits, Listen,
    Log, LogFormat, LogLevel, Metrics, Residency, Store, Tls, Vault,
};

pub use usage::Usage;

use crate::domain::VaultIdentity;

/// What `kms.local_in_prod` must say, letter by letter.
pub const LOCAL_IN_PROD: &str = "yes, the root key lies on this machine's disk";

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which vault this is.
    pub vault: Vault,
    /// Where callers connect.
    #[serde(default)]
    pub listen: Listen,
    /// Certificates.
    #[serde(default)]
    pub tls: Tls,
    /// What keeps the records.
    #[serde(default)]
    pub store: Store,
    /// Which keys wrap the vault's keys.
    pub kms: Kms,
    /// The cache of open data keys.
    #[serde(default)]
    pub cache: Cache,
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// The audit log.
    #[serde(default)]
    pub audit: Audit,
    /// Who may do what.
    #[serde(default)]
    pub access: Access,
    /// Security keys.
    #[serde(default)]
    pub second_factor: SecondFactor,
    /// Where alerts go.
    #[serde(default)]
    pub alerts: Alerts,
    /// How principals usually behave.
    #[serde(default)]
    pub usage: Usage,
    /// Data classes.
    #[serde(default)]
    pub classes: Classes,
    /// Figures.
    #[serde(default)]
    pub metrics: Metrics,
    /// The operator's log.
    #[serde(default)]
    pub log: Log,
    /// Repeated writes.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// The life of keys.
    #[serde(default)]
    pub keys: Keys,
    /// Long work on keys.
    #[serde(default)]
    pub jobs: Jobs,
    /// Plain values in an emergency.
    #[serde(default)]
    pub break_glass: BreakGlass,
    /// Whose word on people counts.
    pub oidc: Option<Oidc>,
    /// How long people stay logged in.
    #[serde(default)]
    pub sessions: Sessions,
}

impl Config {
    /// Reads a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError::read(file, error))?;
        Self::parse(file, &text)
    }

    /// Which vault this is.
    pub fn identity(&self) -> VaultIdentity {
        VaultIdentity { vault: self.vault.id, environment: self.vault.environment.clone() }
    }

    /// The store's directory.
    pub fn store_dir(&self) -> PathBuf {
        self.store.dir.clone().unwrap_or_else(|| self.vault.data.join("store"))
    }

    /// Whether synthetic values are valid here.
    pub fn accept_synthetic(&self) -> bool {
        self.classes.accept_synthetic.unwrap_or_else(|| !self.is_prod())
    }

    /// From the text of a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::parse(file, text, &error))?;
        config.check().map_err(|(option, why)| ConfigError::option(file, text, option, why))?;
        config.resolve(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn is_prod(&self) -> bool {
        self.vault.environment.as_str() == "prod"
    }

    /// Makes relative paths relative to the file's directory.
    fn resolve(&mut self, dir: &Path) {
        let Self { vault, tls, store, kms, access, oidc, .. } = self;
        let paths = [
            Some(&mut vault.data),
            Some(&mut tls.certificate),
            Some(&mut tls.key),
            Some(&mut tls.client_ca),
            Some(&mut access.principals),
            access.policy.as_mut(),
            store.dir.as_mut(),
            kms.root_key_file.as_mut(),
        ];
        for path in paths.into_iter().flatten().chain(&mut tls.crl) {
            *path = dir.join(&*path);
        }
        if let Some(postgres) = &mut store.postgres {
            postgres.resolve(dir);
        }
        if let Some(oidc) = oidc {
            oidc.resolve(dir);
        }
        self.alerts.resolve(dir);
    }

    /// What the types alone do not say. The option's full name and what is wrong with it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        self.check_store()?;
        self.check_kms()?;
        self.check_limits()?;
        self.alerts.check()?;
        self.usage.rules()?;
        let intervals = [
            ("tls.reload_every", self.tls.reload_every),
            ("cache.lifetime", self.cache.lifetime),
            ("audit.deadline", self.audit.deadline),
            ("audit.checkpoint_every", self.audit.checkpoint_every),
            ("idempotency.remember", self.idempotency.remember),
            ("keys.rotate_after", self.keys.rotate_after.unwrap_or(Duration::MAX)),
            ("jobs.poll", self.jobs.poll),
        ];
        if let Some((option, _)) = intervals.iter().find(|(_, duration)| duration.is_zero()) {
            return Err((option, "must be longer than nothing".to_owned()));
        }
        if self.audit.deadline >= self.limits.request_timeout {
            return Err(("audit.deadline", "must be shorter than limits.request_timeout".to_owned()));
        }
        for (option, number) in
            [("cache.max_uses", self.cache.max_uses), ("cache.max_entries", self.cache.max_entries as u64)]
        {
            if number == 0 {
                return Err((option, "must be at least 1".to_owned()));
            }
        }
        self.check_jobs()?;
        let wait = self.access.second_person_wait;
        if !(Duration::from_mins(1)..=Duration::from_hours(30 * 24)).contains(&wait) {
            return Err(("access.second_person_wait", "must be between \"1m\" and \"30d\"".to_owned()));
        }
        self.break_glass.check()?;
        self.oidc.as_ref().map_or(Ok(()), Oidc::check)?;
        self.sessions.check()?;
        if self.metrics.listen.is_some_and(|address| address.port() != 0 && address == self.listen.address) {
            return Err(("metrics.listen", "is the address of [listen], too".to_owned()));
        }
        Ok(())
    }

    fn check_jobs(&self) -> Result<(), (&'static str, String)> {
        let Self { jobs, keys, .. } = self;
        if jobs.lease < Duration::from_secs(1) {
            return Err(("jobs.lease", "must be at least \"1s\"".to_owned()));
        }
        if jobs.bytes_per_second == 0 || jobs.kms_calls_per_second == 0 {
            let option = if jobs.bytes_per_second == 0 {
                "jobs.bytes_per_second"
            } else {
                "jobs.kms_calls_per_second"
            };
            return Err((option, "must be more than nothing".to_owned()));
        }
        if keys.rotate_after_records == Some(0) {
            return Err(("keys.rotate_after_records", "must be at least 1".to_owned()));
        }
        if !(0.0..=1_000_000.0).contains(&keys.kms_price) {
            return Err(("keys.kms_price", "must be a price, at most 1000000".to_owned()));
        }
        Ok(())
    }

    fn check_store(&self) -> Result<(), (&'static str, String)> {
        let store = &self.store;
        match (store.engine, &store.postgres) {
            (Engine::Postgres, None) => {
                Err(("store.engine", "\"postgres\" needs [store.postgres]".to_owned()))
            }
            // With an embedded engine, too: it is where `migrate` goes to.
            (_, Some(postgres)) => postgres.check(),
            (Engine::Fjall | Engine::Sled, None) => Ok(()),
        }
    }

    fn check_kms(&self) -> Result<(), (&'static str, String)> {
        let kms = &self.kms;
        match kms.kind {
            KmsKind::Local => {
                if kms.root_key_file.is_none() {
                    return Err(("kms.kind", "\"local\" needs kms.root_key_file".to_owned()));
                }
                if !kms.key.is_empty() {
                    return Err(("kms.kind", "\"local\" has no [[kms.key]]".to_owned()));
                }
                if !kms.residency.is_empty() {
                    return Err(("kms.kind", "\"local\" has no [[kms.residency]]".to_owned()));
                }
                if self.is_prod() && kms.local_in_prod.as_deref() != Some(LOCAL_IN_PROD) {
                    let why = "\"local\" is refused in environment `prod`: whoever reads this machine's disk reads \
                               every value. If that is what you want, set";
                    return Err(("kms.kind", format!("{why} local_in_prod = \"{LOCAL_IN_PROD}\"")));
                }
            }
            KmsKind::Aws => {
                if kms.root_key_file.is_some() {
                    return Err(("kms.root_key_file", "belongs to kind = \"local\"".to_owned()));
                }
                if kms.key.is_empty() {
                    return Err(("kms.kind", "\"aws\" needs at least one [[kms.key]]".to_owned()));
                }
                if kms.key.iter().any(|key| !is_key_arn(&key.arn)) {
                    let why =
                        "must be the full ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias";
                    return Err(("kms.key.arn", why.to_owned()));
                }
                self.check_residency()?;
            }
        }
        Ok(())
    }

    fn check_residency(&self) -> Result<(), (&'static str, String)> {
        let kms = &self.kms;
        for (at, Residency { tenant, keys }) in kms.residency.iter().enumerate() {
            if kms.residency[..at].iter().any(|before| before.tenant == *tenant) {
                return Err(("kms.residency.tenant", format!("{tenant} is there twice")));
            }
            if keys.is_empty() {
                return Err(("kms.residency.keys", format!("{tenant} needs at least one KMS key")));
            }
            for (at, arn) in keys.iter().enumerate() {
                if !kms.key.iter().any(|key| key.arn == *arn) {
                    let why = format!("{tenant} is pinned to {arn}, which is no [[kms.key]]");
                    return Err(("kms.residency.keys", why));
                }
                if keys[..at].contains(arn) {
                    return Err(("kms.residency.keys", format!("{tenant} is pinned to {arn} twice")));
                }
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), (&'static str, String)> {
        let limits = &self.limits;
        let counts = [
            ("limits.max_items", limits.max_items),
            ("limits.max_message", limits.max_message),
            ("limits.max_value", limits.max_value),
            ("limits.max_requests", limits.max_requests),
            ("limits.max_concurrent_streams", limits.max_concurrent_streams as usize),
            ("limits.max_connections", limits.max_connections),
            ("limits.max_handshakes", limits.max_handshakes),
            ("limits.max_headers", limits.max_headers),
        ];
        if let Some((option, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err((option, "must be at least 1".to_owned()));
        }
        let durations = [
            ("limits.request_timeout", limits.request_timeout),
            ("limits.handshake_timeout", limits.handshake_timeout),
            ("limits.header_timeout", limits.header_timeout),
            ("limits.keepalive_interval", limits.keepalive_interval),
            ("limits.keepalive_timeout", limits.keepalive_timeout),
            ("limits.stream_idle", limits.stream_idle),
            ("limits.idle_timeout", limits.idle_timeout),
            ("limits.max_connection_age", limits.max_connection_age),
        ];
        if let Some((option, _)) = durations.iter().find(|(_, duration)| duration.is_zero()) {
            return Err((option, "must be longer than nothing".to_owned()));
        }
        if limits.max_value >= limits.max_message {
            return Err(("limits.max_value", "must be smaller than limits.max_message".to_owned()));
        }
        if u32::try_from(limits.max_headers).is_err() {
            return Err(("limits.max_headers", "must be smaller than 4GiB".to_owned()));
        }
        for (option, permits) in [
            ("limits.max_requests", limits.max_requests),
            ("limits.max_connections", limits.max_connections),
            ("limits.max_handshakes", limits.max_handshakes),
        ] {
            if permits > tokio::sync::Semaphore::MAX_PERMITS {
                return Err((option, "is too large".to_owned()));
            }
        }
        Ok(())
    }
}

/// `arn:<partition>:kms:<region>:<account>:key/<id>`
fn is_key_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts.as_slice(), ["arn", _, "kms", region, _, key] if !region.is_empty() && key.len() > 4 && key.starts_with("key/"))
}
