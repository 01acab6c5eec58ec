//! The command: what it is asked, and what it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;

use super::copy::{Counts, Ended, Limits, Move};
use super::error::Side;
use super::logs;
use super::open::{Opened, embedded_engine, open};
use super::progress::Progress;
use crate::app::config::Config;
use crate::app::wire;
use crate::domain::{Clock, SystemClock};
use crate::store::{EntrySeals, Unsealed};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The directory of `[store] dir`.
    Embedded,
    /// The database of `[store.postgres]`.
    Postgres,
}

/// What is to be moved where.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The vault's configuration: it names both stores.
    #[arg(long, env = "VAULT_CONFIG")]
    pub config: PathBuf,
    /// The kind of store that the vault is in.
    #[arg(long, value_enum)]
    pub from: Kind,
    /// The kind of store to move it to.
    #[arg(long, value_enum)]
    pub to: Kind,
    /// Only say what there is to be moved.
    #[arg(long)]
    pub dry_run: bool,
    /// From a database with logs of several instances: export all but the first into this directory.
    #[arg(long, value_name = "DIR", requires = "log_key")]
    pub logs_to: Option<PathBuf>,
    /// With --logs-to: the log's public key, as `vaultctl audit export --key-out` writes it.
    #[arg(long, value_name = "FILE", requires = "logs_to")]
    pub log_key: Option<PathBuf>,
}

/// Moves, and says how it went.
pub async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let old = open(config, options.from, Side::Old).await?;
    let new = if options.dry_run { None } else { Some(open(config, options.to, Side::New).await?) };
    let ended = work(config, options, &old, new.as_ref()).await;
    // What was written is durable before this; the error of the move says more than one of closing.
    let closed =
        (old.store.close().await, if let Some(new) = &new { new.store.close().await } else { Ok(()) });
    match ended? {
        None => {}
        Some(Ended::WasThere(counts)) => {
            println!("all is there already: {}", in_words(&counts));
            println!("{}", next(config, options));
        }
        Some(Ended::Moved(counts)) => {
            println!("moved and compared: {}", in_words(&counts));
            println!("{}", next(config, options));
        }
    }
    closed.0?;
    Ok(closed.1?)
}

/// What seals entries that no checkpoint covers yet. A vault from before there were seals has no key for them, and gets none
/// here.
async fn seals(config: &Config, old: &Opened) -> anyhow::Result<Option<Arc<EntrySeals>>> {
    if old.store.identity().await?.as_ref() != Some(&config.identity()) {
        // It is refused, and why is told by who looks.
        return Ok(None);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kms = wire::wrapping_keys(config).await?;
    let key = wire::keyring(config, kms, &old.store, &clock).row_key().await;
    let key = key.context("the key of the seals of log entries")?;
    // What has none is not made the vault's by a move, whatever `serve` may sign.
    Ok(key.map(|key| EntrySeals::new(Arc::new(key), Unsealed::Refuse)))
}

async fn work(
    config: &Config,
    options: &Options,
    old: &Opened,
    new: Option<&Opened>,
) -> anyhow::Result<Option<Ended>> {
    let identity = config.identity();
    let progress = Progress::told();
    let exported = match (&options.logs_to, &options.log_key) {
        (Some(dir), Some(key)) => logs::export(&*old.store, &identity, dir, key, options.dry_run).await?,
        _ => Vec::new(),
    };
    let seals = if new.is_some() { seals(config, old).await? } else { None };
    if let Some(seals) = &seals {
        old.store.seal_entries(Arc::clone(seals));
    }
    let plan = Move {
        old,
        new: new.unwrap_or(old),
        identity: &identity,
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
        progress: &progress,
        seals,
        exported,
    };
    if new.is_some() {
        return Ok(Some(plan.run().await?));
    }
    println!("to be moved: {}", in_words(&plan.count().await?));
    Ok(None)
}

fn in_words(counts: &Counts) -> String {
    let Counts { keys, records, answers, jobs, entities, entries } = counts;
    format!(
        "{keys} keys, {records} records, {answers} remembered answers, {jobs} jobs, {entities} entities, {entries} log entries"
    )
}

/// Which line of the configuration is to be changed.
fn next(config: &Config, options: &Options) -> String {
    let engine = match options.to {
        Kind::Postgres => "postgres",
        Kind::Embedded => embedded_engine(config).as_str(),
    };
    let file = display(&options.config);
    format!(
        "next: in {file}, under [store], write: engine = \"{engine}\"\n      and keep the old store until the new one has proved itself"
    )
}

fn display(file: &Path) -> String {
    file.display().to_string()
}
