//! Sees every signed checkpoint that is stored while a test runs, as an auditor who looks often would.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Config, NoTls};
use vault_server::store::LogId;

use super::Place;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(200);

/// How long a server may take to show them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A log and a checkpoint of it as it was stored.
type Seen = (LogId, String);

/// Looks until it is asked what it has seen.
pub struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<BTreeSet<Seen>>,
}

impl Witness {
    /// Begins to look.
    pub fn start(place: &Place) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (place, stopping) = (place.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while !stopping.load(Ordering::SeqCst) {
                for port in &place.ports {
                    // A server that is down shows nothing.
                    if let Ok(Ok(there)) = timeout(PATIENCE, look(&place, *port)).await {
                        seen.extend(there);
                    }
                }
                sleep(EVERY).await;
            }
            seen
        });
        Self { stop, task }
    }

    /// All that it has seen.
    ///
    /// # Panics
    /// If it has.
    pub async fn stop(self) -> BTreeSet<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

/// What one server shows.
async fn look(place: &Place, port: u16) -> Result<Vec<Seen>, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(&place.user).dbname(&place.database);
    let (client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(connection);
    let heads = "SELECT log, checkpoint FROM log_heads WHERE checkpoint IS NOT NULL";
    let rows = client.query(heads, &[]).await?;
    driver.abort();
    rows.iter().map(|row| Ok((LogId(row.try_get::<_, i32>(0)?.unsigned_abs()), row.try_get(1)?))).collect()
}
