//! How many changes a second each engine acknowledges after a sync.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Subject;
use super::workload::{Entries, commit_one};

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Which engine.
    pub subject: Subject,
    /// How many tasks commit, each one change at a time.
    pub writers: usize,
    /// For how long.
    pub time: Duration,
    /// Where the store goes.
    pub dir: PathBuf,
}

/// Measures; prints one line.
pub async fn bench(options: &BenchOptions) -> Result<()> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let store = options.subject.open(dir.path())?;
    let begin = Instant::now();
    let end = begin + options.time;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..options.writers {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while Instant::now() < end {
                let begin = Instant::now();
                commit_one(&store, Entries::Short).await?;
                waits.push(begin.elapsed());
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(task) = tasks.join_next().await {
        waits.extend(task??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    store.close().await?;
    waits.sort();
    let quantile = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{:14} {:5} writers: {:8.0} changes/s, {:.1?} half, {:.1?} of 99%",
        options.subject.as_str(),
        options.writers,
        f64::from(u32::try_from(waits.len())?) / seconds,
        quantile(50),
        quantile(99),
    );
    Ok(())
}
