//! The sections of `vault.toml`, as typed values. `docs/vault.sample.toml` says what each option means; a test
//! holds the two together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::postgres::Postgres;
use super::units;
use crate::domain::{Environment, TenantId, VaultId};
use crate::store::Unsealed;

/// `[vault]`: which vault this is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Random id, made by `init`. Part of every record's associated data: never change it.
    #[serde(deserialize_with = "units::vault_id")]
    pub id: VaultId,
    /// Name of the environment. Part of every token: never change it.
    #[serde(deserialize_with = "units::environment")]
    pub environment: Environment,
    /// The directory of what the vault keeps.
    #[serde(default = "Vault::default_data")]
    pub data: PathBuf,
}

impl Vault {
    fn default_data() -> PathBuf {
        "data".into()
    }
}

/// `[listen]`: where callers connect.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 8443)) }
    }
}

/// `[tls]`: the server's certificate and whose client certificates are accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM key of the leaf.
    pub key: PathBuf,
    /// PEM certificates of the authorities that issue client certificates.
    pub client_ca: PathBuf,
    /// Revocation lists, PEM or DER. With one, every authority of a client's chain needs one that is current.
    pub crl: Vec<PathBuf>,
    /// How often the files are looked at.
    #[serde(deserialize_with = "units::duration")]
    pub reload_every: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: "pki/server.pem".into(),
            key: "pki/server.key".into(),
            client_ca: "pki/ca.pem".into(),
            crl: Vec::new(),
            reload_every: Duration::from_secs(5),
        }
    }
}

/// What keeps the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Log-structured, the default.
    Fjall,
    /// B-link tree.
    Sled,
    /// A PostgreSQL database, shared by several instances.
    Postgres,
}

/// `[store]`: what keeps the records.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Which engine.
    pub engine: Engine,
    /// An embedded engine's directory; `store` in the data directory if unset.
    pub dir: Option<PathBuf>,
    /// The database of engine `postgres`.
    pub postgres: Option<Postgres>,
}

impl Default for Store {
    fn default() -> Self {
        Self { engine: Engine::Fjall, dir: None, postgres: None }
    }
}

/// Where wrapping keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KmsKind {
    /// A root key in a file of this machine.
    Local,
    /// AWS KMS.
    Aws,
}

/// `[kms]`: which keys wrap the vault's keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Which KMS.
    pub kind: KmsKind,
    /// `local`: the file of the root key.
    pub root_key_file: Option<PathBuf>,
    /// `local` in environment `prod`: [`super::LOCAL_IN_PROD`], in as many words.
    pub local_in_prod: Option<String>,
    /// `aws`: the keys; the first makes new keys, all wrap, and they are tried in order to unwrap.
    #[serde(default)]
    pub key: Vec<KmsKey>,
    /// `aws`: tenants whose keys only some of them may wrap.
    #[serde(default)]
    pub residency: Vec<Residency>,
}

/// `[[kms.key]]`: a key of AWS KMS.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsKey {
    /// Its full ARN, which also says the region (no alias: an alias can be moved to another key).
    pub arn: String,
    /// Another endpoint than the region's.
    pub endpoint: Option<String>,
}

/// `[[kms.residency]]`: the KMS keys that wrap a tenant's keys; no other is asked anything about them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residency {
    /// Whose keys.
    #[serde(deserialize_with = "units::tenant")]
    pub tenant: TenantId,
    /// ARNs out of `[[kms.key]]`, in order of preference.
    pub keys: Vec<String>,
}

/// `[cache]`: the cache of open data keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// The longest a key stays open, used or not: the bound within which a key revoked in the KMS is unusable.
    #[serde(deserialize_with = "units::duration")]
    pub lifetime: Duration,
    /// How often it is used before the KMS is asked anew.
    pub max_uses: u64,
    /// How many keys are open at once.
    pub max_entries: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { lifetime: Duration::from_mins(5), max_uses: 100_000_000, max_entries: 1024 }
    }
}

/// `[limits]`: what one request, one connection and the whole process may use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Items (or tokens) of a request.
    pub max_items: usize,
    /// Bytes of a message, each way.
    #[serde(deserialize_with = "units::size")]
    pub max_message: usize,
    /// Bytes of a value.
    #[serde(deserialize_with = "units::size")]
    pub max_value: usize,
    /// The longest a request may take, from its headers to the head of its answer.
    #[serde(deserialize_with = "units::duration")]
    pub request_timeout: Duration,
    /// Requests at work at once in the whole process; more are refused at once.
    pub max_requests: usize,
    /// Requests at work at once on one connection.
    pub max_concurrent_streams: u32,
    /// Connections past their handshake.
    pub max_connections: usize,
    /// Connections in their handshake.
    pub max_handshakes: usize,
    /// Bytes of a request's headers.
    #[serde(deserialize_with = "units::size")]
    pub max_headers: usize,
    /// From the TCP connection to the end of the TLS handshake.
    #[serde(deserialize_with = "units::duration")]
    pub handshake_timeout: Duration,
    /// From the TLS handshake to the client's HTTP/2 preface and settings.
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    /// After so long without a frame the client is pinged.
    #[serde(deserialize_with = "units::duration")]
    pub keepalive_interval: Duration,
    /// It has so long to answer. One that is stuck in the middle of a frame can't.
    #[serde(deserialize_with = "units::duration")]
    pub keepalive_timeout: Duration,
    /// A stream without a message for so long is ended.
    #[serde(deserialize_with = "units::duration")]
    pub stream_idle: Duration,
    /// A connection without a request for so long is closed.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// After so long a connection takes no new requests, so that load spreads anew.
    #[serde(deserialize_with = "units::duration")]
    pub max_connection_age: Duration,
    /// How long requests at work have to end when the server stops.
    #[serde(deserialize_with = "units::duration")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_items: 100_000,
            max_message: 16 << 20,
            max_value: 64 << 10,
            request_timeout: Duration::from_secs(30),
            max_requests: 512,
            max_concurrent_streams: 128,
            max_connections: 2048,
            max_handshakes: 2048,
            max_headers: 16 << 10,
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            stream_idle: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(10),
            max_connection_age: Duration::from_hours(1),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// `[audit]`: the log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// How long a request waits for its log entry; past that it fails and no value is opened.
    #[serde(deserialize_with = "units::duration")]
    pub deadline: Duration,
    /// How often a checkpoint is signed when there are new entries.
    #[serde(deserialize_with = "units::duration")]
    pub checkpoint_every: Duration,
    /// Whether entries without a seal behind the newest checkpoint are signed: after a crash of software from before there
    /// were seals, for as long as it takes.
    pub sign_unsealed_entries: bool,
}

impl Audit {
    /// What becomes of such entries.
    pub fn unsealed(&self) -> Unsealed {
        if self.sign_unsealed_entries { Unsealed::Sign } else { Unsealed::Refuse }
    }
}

impl Default for Audit {
    fn default() -> Self {
        let (deadline, checkpoint_every) = (Duration::from_secs(2), Duration::from_secs(1));
        Self { deadline, checkpoint_every, sign_unsealed_entries: false }
    }
}

/// `[access]`: who may do what.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// The principals.
    pub principals: PathBuf,
    /// Cedar policies instead of the built-in set.
    pub policy: Option<PathBuf>,
    /// Whether a change that makes more of somebody needs a second person.
    pub second_person_for_roles: bool,
    /// For how long such a change waits for one.
    #[serde(deserialize_with = "units::duration")]
    pub second_person_wait: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            principals: "principals.toml".into(),
            policy: None,
            second_person_for_roles: true,
            second_person_wait: Duration::from_hours(72),
        }
    }
}

/// `[classes]`: the data classes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Classes {
    /// Whether values that are synthetic by their form (SSNs from 999) are valid; outside `prod` if unset.
    pub accept_synthetic: Option<bool>,
    /// Classes of the site's own.
    pub custom: Vec<toml::Value>,
}

/// `[metrics]`: figures for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `/metrics` is served, over the same mutual TLS; nowhere if unset.
    pub listen: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs somebody.
    Error,
    /// And what may come to need somebody.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
}

/// `[log]`: the operator's log on standard error (not the audit log).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Its format.
    pub format: LogFormat,
    /// Its level.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

/// `[idempotency]`: repeated writes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Idempotency {
    /// How long an idempotency key is remembered.
    #[serde(deserialize_with = "units::duration")]
    pub remember: Duration,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { remember: Duration::from_hours(24) }
    }
}

/// `[keys]`: the life of keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// A key that has been active for so long is replaced by a new version. `None`: only when somebody says so.
    #[serde(deserialize_with = "units::some_duration")]
    pub rotate_after: Option<Duration>,
    /// A data key under which so many records were written, not counting those that a job moved there, is replaced by a
    /// new version. `None`: only when somebody says so.
    pub rotate_after_records: Option<u64>,
    /// How long a destruction waits after its approval.
    #[serde(deserialize_with = "units::duration")]
    pub destroy_after: Duration,
    /// How long the key before signs the log's checkpoints beside the one that took its place.
    #[serde(deserialize_with = "units::duration")]
    pub signing_overlap: Duration,
    /// What 10,000 requests of the KMS cost, for previews of jobs. 0: not known.
    pub kms_price: f64,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            rotate_after: None,
            rotate_after_records: None,
            destroy_after: Duration::from_hours(24),
            signing_overlap: Duration::from_hours(30 * 24),
            kms_price: 0.0,
        }
    }
}

/// `[jobs]`: long work on keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// How many jobs this instance works on at once. 0: none.
    pub at_once: usize,
    /// Bytes of records that a job writes in a second, unless it was begun with another bound.
    #[serde(deserialize_with = "units::size")]
    pub bytes_per_second: usize,
    /// Calls of the KMS that a job makes in a second, unless it was begun with another bound.
    pub kms_calls_per_second: u32,
    /// How often this instance looks for jobs.
    #[serde(deserialize_with = "units::duration")]
    pub poll: Duration,
    /// How long a job stays with an instance that fell silent.
    #[serde(deserialize_with = "units::duration")]
    pub lease: Duration,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            at_once: 2,
            bytes_per_second: 1 << 20,
            kms_calls_per_second: 10,
            poll: Duration::from_secs(1),
            lease: Duration::from_secs(15),
        }
    }
}
