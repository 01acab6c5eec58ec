//! Figures of jobs. Labels are kinds, states and outcomes: which tenant's a job is does not show.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::{raise, signed};
use crate::domain::{JobKind, JobState, Timestamp};
use crate::jobs::JobStats;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ItemLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// Figures of jobs.
#[derive(Default)]
pub struct JobMetrics {
    under_way: Family<StateLabels, Gauge>,
    corrupt: Gauge,
    items: Family<ItemLabels, Counter>,
    bytes: Family<Labels, Counter>,
    kms_calls: Family<Labels, Counter>,
    ended: Family<StateLabels, Counter>,
    last_end: Family<StateLabels, Gauge>,
}

impl JobMetrics {
    /// Takes over the workers' own counts.
    pub fn set(&self, stats: &JobStats) {
        self.corrupt.set(signed(stats.corrupt));
        for kind in JobKind::ALL {
            let labels = Labels { kind: kind.as_str() };
            let work = stats.work.get(kind).copied().unwrap_or_default();
            for (outcome, count) in [("ok", work.done), ("failed", work.failed)] {
                let labels = ItemLabels { kind: labels.kind, outcome };
                raise(&self.items.get_or_create(&labels), count);
            }
            raise(&self.bytes.get_or_create(&labels), work.bytes);
            raise(&self.kms_calls.get_or_create(&labels), work.kms_calls);
            for state in JobState::ALL {
                self.set_state(stats, *kind, state);
            }
        }
    }

    fn set_state(&self, stats: &JobStats, kind: JobKind, state: JobState) {
        let labels = StateLabels { kind: kind.as_str(), state: state.as_str() };
        if !state.is_over() {
            let count = stats.under_way.get(&(kind, state)).copied().unwrap_or(0);
            self.under_way.get_or_create(&labels).set(signed(count));
        } else if state != JobState::Cancelled {
            // A worker ends no job by cancelling it.
            let (count, last) = stats.ended.get(&(kind, state)).copied().unwrap_or((0, Timestamp(0)));
            raise(&self.ended.get_or_create(&labels), count);
            self.last_end.get_or_create(&labels).set(signed(last.0 / 1_000_000));
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Jobs under way in the vault, by kind and state";
        registry.register("jobs", help, self.under_way.clone());
        registry.register("jobs_corrupt", "Jobs whose row can't be read", self.corrupt.clone());
        registry.register(
            "job_items",
            "Records and keys that jobs changed, or could not",
            self.items.clone(),
        );
        registry.register_with_unit("job", "Records that jobs wrote anew", Unit::Bytes, self.bytes.clone());
        registry.register("job_kms_calls", "Calls to the KMS that jobs reckoned", self.kms_calls.clone());
        registry.register("jobs_ended", "Jobs that this instance ended", self.ended.clone());
        let help = "When this instance ended one last, since 1970; 0: never";
        registry.register_with_unit("jobs_last_end", help, Unit::Seconds, self.last_end.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::metrics::Metrics;
    use crate::domain::JobProgress;

    #[test]
    fn every_kind_and_state_is_there_from_the_start_and_nothing_else_comes() {
        let metrics = Metrics::new(Vec::new());
        metrics.jobs.set(&JobStats::default());
        let lines = |text: &str| text.lines().filter(|line| line.starts_with("phi_vault_job")).count();
        let before = lines(&metrics.encode());
        let mut stats = JobStats { corrupt: 1, ..JobStats::default() };
        stats.under_way.insert((JobKind::Rewrap, JobState::Paused), 3);
        let work = JobProgress { total: 9, done: 5, failed: 1, bytes: 700, kms_calls: 8 };
        stats.work.insert(JobKind::Reencrypt, work);
        stats.ended.insert((JobKind::Shred, JobState::Failed), (2, Timestamp(1_700_000_000_000_000)));
        metrics.jobs.set(&stats);
        let text = metrics.encode();
        assert_eq!(lines(&text), before);
        for line in [
            "jobs{kind=\"rewrap\",state=\"paused\"} 3",
            "jobs_corrupt 1",
            "job_items_total{kind=\"reencrypt\",outcome=\"ok\"} 5",
            "job_items_total{kind=\"reencrypt\",outcome=\"failed\"} 1",
            "job_bytes_total{kind=\"reencrypt\"} 700",
            "job_kms_calls_total{kind=\"reencrypt\"} 8",
            "jobs_ended_total{kind=\"shred\",state=\"failed\"} 2",
            "jobs_last_end_seconds{kind=\"shred\",state=\"failed\"} 1700000000",
        ] {
            assert!(text.contains(&format!("phi_vault_{line}\n")), "{line}: {text}");
        }
    }
}
