//! What operators see: items as they are served, and figures that are counted elsewhere.

use std::sync::Arc;

use async_trait::async_trait;

use crate::app::metrics::{ItemLabels, Metrics};
use crate::app::metrics_server::Sample;
use crate::grpc::Observer;
use crate::jobs::Tally;
use crate::keyring::Keyring;
use crate::store::Store;

/// Counts items into the metrics.
pub(super) struct ItemCounter(pub Arc<Metrics>);

impl Observer for ItemCounter {
    fn items(&self, action: &'static str, ok: usize, failed: usize) {
        for (outcome, count) in [("ok", ok), ("failed", failed)] {
            if count > 0 {
                self.0.items.get_or_create(&ItemLabels { action, outcome }).inc_by(count as u64);
            }
        }
    }
}

/// Figures of the keyring, the workers and the store.
pub(super) struct Figures {
    pub keyring: Arc<Keyring>,
    pub store: Arc<dyn Store>,
    pub tally: Arc<Tally>,
}

#[async_trait]
impl Sample for Figures {
    async fn sample(&self, metrics: &Metrics) {
        let keys = self.keyring.stats();
        metrics.keyring.set(keys.entries, keys.hits, keys.misses, keys.kms_calls);
        metrics.jobs.set(&self.tally.stats());
        if let Ok(stats) = self.store.stats().await {
            metrics.store.set(stats);
        }
    }
}
