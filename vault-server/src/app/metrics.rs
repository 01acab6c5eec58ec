//! Figures for Prometheus. Labels come from fixed sets: never a tenant, token, key, principal or address.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use prost::Message as _;
use tonic::Code;

use super::job_metrics::JobMetrics;

/// All figures. Cheap to share by `Arc`.
pub struct Metrics {
    registry: Registry,
    rpcs: HashMap<String, Arc<RpcMetrics>>,
    other: Arc<RpcMetrics>,
    /// Requests at work.
    pub requests_in_flight: Gauge,
    /// Items of requests, by how they fared.
    pub items: Family<ItemLabels, Counter>,
    /// Seconds from the hand-over of a change to the log until it is durable.
    pub log_commit: Histogram,
    /// Figures of the cache of open data keys.
    pub keyring: KeyringMetrics,
    /// Figures of the store.
    pub store: StoreMetrics,
    /// Figures of jobs.
    pub jobs: JobMetrics,
    /// Open connections, past their handshake.
    pub connections: Gauge,
    /// Connections that were not accepted, by reason.
    pub refused_connections: Family<ReasonLabels, Counter>,
    /// Connections that the server ended, by reason.
    pub closed_connections: Family<ReasonLabels, Counter>,
    /// New files taken up, or not.
    pub reloads: Family<ReloadLabels, Counter>,
    /// When the server's certificate ends, in seconds since 1970.
    pub certificate_expires: Gauge,
}

/// Figures of one rpc.
pub struct RpcMetrics {
    by_code: [Counter; CODES.len()],
    seconds: Histogram,
}

/// Labels of `items`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ItemLabels {
    /// The action's name.
    pub action: &'static str,
    /// `ok`, or why not: a fixed word.
    pub outcome: &'static str,
}

/// A label that says why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A fixed word.
    pub reason: &'static str,
}

/// A label that says what became of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// A fixed word.
    pub outcome: &'static str,
}

/// Labels of `reloads`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// What was reloaded.
    pub what: &'static str,
    /// `ok` or `refused`.
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    rpc: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcCodeLabels {
    rpc: String,
    code: &'static str,
}

/// Figures of the cache of open data keys.
#[derive(Default)]
pub struct KeyringMetrics {
    entries: Gauge,
    hits: Counter,
    misses: Counter,
    kms_calls: Counter,
}

/// Figures of the store.
#[derive(Default)]
pub struct StoreMetrics {
    disk_bytes: Gauge,
    records: Gauge,
    entries: Gauge,
    resolved: Family<OutcomeLabels, Counter>,
    repeated: Counter,
}

impl Metrics {
    /// With everything at zero. `build` says what is running: pairs for the labels of `build_info`.
    pub fn new(build: Vec<(&'static str, String)>) -> Self {
        let mut registry = Registry::with_prefix("phi_vault");
        registry.register("build", "What is running", Info::new(build));
        let requests = Family::<RpcCodeLabels, Counter>::default();
        let seconds = Family::<RpcLabels, Histogram, fn() -> Histogram>::new_with_constructor(latency);
        let rpcs = rpc_paths()
            .into_iter()
            .map(|path| {
                let metrics = RpcMetrics::new(path.trim_start_matches('/'), &requests, &seconds);
                (path, Arc::new(metrics))
            })
            .collect();
        let other = Arc::new(RpcMetrics::new("other", &requests, &seconds));
        let mut metrics = Self {
            registry: Registry::default(),
            rpcs,
            other,
            requests_in_flight: Gauge::default(),
            items: Family::default(),
            log_commit: latency(),
            keyring: KeyringMetrics::default(),
            store: StoreMetrics::default(),
            jobs: JobMetrics::default(),
            connections: Gauge::default(),
            refused_connections: Family::default(),
            closed_connections: Family::default(),
            reloads: Family::default(),
            certificate_expires: Gauge::default(),
        };
        registry.register("requests", "Requests, by rpc and gRPC status", requests);
        registry.register_with_unit(
            "request_duration",
            "From a request's headers to the end of its answer",
            Unit::Seconds,
            seconds,
        );
        metrics.register(&mut registry);
        metrics.registry = registry;
        metrics
    }

    /// Figures of the rpc with that path; those of no known rpc share one.
    pub fn rpc(&self, path: &str) -> Arc<RpcMetrics> {
        self.rpcs.get(path).unwrap_or(&self.other).clone()
    }

    /// In the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    fn register(&self, registry: &mut Registry) {
        let Self { requests_in_flight, items, log_commit, keyring, store, .. } = self;
        registry.register("requests_in_flight", "Requests at work", requests_in_flight.clone());
        registry.register("items", "Items of requests, by action and outcome", items.clone());
        let help = "Until a change and its log entries are durable";
        registry.register_with_unit("log_commit_duration", help, Unit::Seconds, log_commit.clone());
        registry.register("keyring_keys", "Open keys in the cache", keyring.entries.clone());
        registry.register("keyring_hits", "Keys found in the cache", keyring.hits.clone());
        registry.register("keyring_misses", "Keys not found in the cache", keyring.misses.clone());
        registry.register("kms_calls", "Calls to the KMS", keyring.kms_calls.clone());
        registry.register_with_unit("store_disk", "The store on disk", Unit::Bytes, store.disk_bytes.clone());
        registry.register("store_records", "Records, erased ones included", store.records.clone());
        registry.register("log_entries", "Entries of the audit log", store.entries.clone());
        let help = "Commits whose connection was lost, by what became of them";
        registry.register("store_commits_resolved", help, store.resolved.clone());
        let help = "Commits tried again because other instances were at the same rows";
        registry.register("store_commits_repeated", help, store.repeated.clone());
        self.jobs.register(registry);
        registry.register("connections", "Open connections", self.connections.clone());
        let help = "Connections not accepted, by reason";
        registry.register("connections_refused", help, self.refused_connections.clone());
        let help = "Connections ended by the server, by reason";
        registry.register("connections_closed", help, self.closed_connections.clone());
        registry.register("reloads", "New files, by what and outcome", self.reloads.clone());
        let help = "When the server's certificate ends, since 1970";
        let expires = self.certificate_expires.clone();
        registry.register_with_unit("tls_certificate_expires", help, Unit::Seconds, expires);
    }
}

impl RpcMetrics {
    /// Counts an answered request.
    pub fn answered(&self, code: Code, after: Duration) {
        // Codes are 0 to 16; tonic makes anything else `Unknown`.
        if let Some(counter) = self.by_code.get(code as usize) {
            counter.inc();
        }
        self.seconds.observe(after.as_secs_f64());
    }

    fn new(
        name: &str,
        requests: &Family<RpcCodeLabels, Counter>,
        seconds: &Family<RpcLabels, Histogram, fn() -> Histogram>,
    ) -> Self {
        let by_code =
            CODES.map(|code| requests.get_or_create_owned(&RpcCodeLabels { rpc: name.to_owned(), code }));
        Self { by_code, seconds: seconds.get_or_create_owned(&RpcLabels { rpc: name.to_owned() }) }
    }
}

impl KeyringMetrics {
    /// Takes over the keyring's own counts.
    pub fn set(&self, entries: usize, hits: u64, misses: u64, kms_calls: u64) {
        self.entries.set(signed(entries as u64));
        raise(&self.hits, hits);
        raise(&self.misses, misses);
        raise(&self.kms_calls, kms_calls);
    }
}

impl StoreMetrics {
    /// Takes over the store's own counts.
    pub fn set(&self, stats: crate::store::Stats) {
        self.disk_bytes.set(signed(stats.disk_bytes));
        self.records.set(signed(stats.records));
        self.entries.set(signed(stats.entries));
        for (outcome, count) in [("made", stats.resolved_made), ("not_made", stats.resolved_not_made)] {
            raise(&self.resolved.get_or_create(&OutcomeLabels { outcome }), count);
        }
        raise(&self.repeated, stats.repeated);
    }
}

/// Names of the gRPC status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Paths of all rpcs: those of the API, and the health check.
fn rpc_paths() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(vault_proto::FILE_DESCRIPTOR_SET)
        .expect("the descriptor set is made by the build");
    let mut paths =
        vec!["/grpc.health.v1.Health/Check".to_owned(), "/grpc.health.v1.Health/Watch".to_owned()];
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths
}

/// From 100 microseconds to 26 seconds, each bucket twice the one before.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 19))
}

pub(super) fn raise(counter: &Counter, total: u64) {
    let total_so_far: &AtomicU64 = counter.inner();
    total_so_far.fetch_max(total, Ordering::Relaxed);
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_fixed_sets_whatever_is_asked() {
        let metrics = Metrics::new(vec![("version", "1".to_owned())]);
        let lines = metrics.encode().lines().count();
        for path in [
            "/vault.v1.VaultService/Detokenize",
            "/vault.v1.VaultService/../phi_dev_x",
            "/a",
            "",
            "/999-68-7171",
        ] {
            metrics.rpc(path).answered(Code::Ok, Duration::from_millis(3));
        }
        let text = metrics.encode();
        assert_eq!(text.lines().count(), lines);
        assert!(text.contains("phi_vault_requests_total{rpc=\"other\",code=\"OK\"} 4"), "{text}");
        assert!(
            text.contains("phi_vault_requests_total{rpc=\"vault.v1.VaultService/Detokenize\",code=\"OK\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn code_names_are_in_the_order_of_their_numbers() {
        assert_eq!(CODES[Code::Ok as usize], "OK");
        assert_eq!(CODES[Code::Unavailable as usize], "UNAVAILABLE");
        assert_eq!(CODES[Code::Unauthenticated as usize], "UNAUTHENTICATED");
    }

    #[test]
    fn counts_taken_over_never_go_back() {
        let metrics = Metrics::new(Vec::new());
        metrics.keyring.set(2, 10, 3, 3);
        metrics.keyring.set(1, 9, 4, 4);
        let text = metrics.encode();
        assert!(text.contains("phi_vault_keyring_hits_total 10"), "{text}");
        assert!(text.contains("phi_vault_keyring_keys 1"), "{text}");
    }
}
