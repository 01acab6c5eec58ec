//! `vault-server seal-rows`: gives seals to the rows of a vault from before there were seals, once.
//!
//! ```text
//! logs        every log is read and compared with its checkpoint: it must tell of no key, or of rows that are half sealed
//! showing     what has no seal yet: rows of each kind, and each principal
//! beginning   one change: the key, the marker (a row that is sealed itself), and their entries; then a checkpoint of them
//! rows        each row without a seal gets one, page by page; one with a seal that is not the vault's ends it
//! end         all rows are read once more; one change: the marker goes, and the entry says how many rows of each kind there are;
//!             then each principal that has a seal now is said, and the log gets its checkpoint
//! ```
//!
//! * What is sealed is the vault's from then on: who could write to the database before could make any of it. So it says which
//!   principals there are, for people to look at: before, and at the end once more, with what was written in between or by a
//!   run that was stopped.
//! * It can be stopped at any point and run again. Nobody else may have the store open meanwhile.
//! * It does so once: where a log says that it is done, or that a new vault made its key, rows without a seal stay what they are.

mod pages;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::pages::{Pages, count, kinds, principal};
use super::config::{Config, Engine, Postgres};
use super::{migrate, rows, wire};
use crate::audit::{
    self, AuditAction, Beside, Draft, Follower, FollowerError, FollowerOptions, KeyJournal, Log, LogOptions,
    SEALING, SealHistory, SigningSource as _, VaultSigning,
};
use crate::crypto::{RowKey, is_sealed};
use crate::domain::{Clock, Entity, KeyPurpose, RequestId, SystemClock, VaultIdentity};
use crate::keyring::Keyring;
use crate::store::{Change, EntrySeals, SealedStore, Store, Unsealed, Write, embedded, postgres};

/// What is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The vault's configuration.
    #[arg(long, env = "VAULT_CONFIG")]
    pub config: PathBuf,
    /// Only say what there is to be sealed.
    #[arg(long)]
    pub dry_run: bool,
}

/// How long an entry may take, and a checkpoint of what there is.
const ENTRY: Duration = Duration::from_secs(30);
const CHECKPOINT: Duration = Duration::from_mins(10);

const REMOVED: &str = "the log tells of a key for the seals of rows, and its row is not there: it was removed. Restore it from a \
                       backup. Rows are not sealed anew: among them may be some that are not the vault's";
const PUT_BACK: &str = "the log says that the rows of this vault have their seals, and a row in the store says that they are still \
                        getting them: it was put back. Remove it (kind 10 of `entities`). Rows without a seal are not the vault's";
const NO_CHECKPOINT: &str = "a log can't be compared with what was signed. An instance that was killed before its first checkpoint \
                             leaves it so: restore the backup of before this command, start the software of before once, so that \
                             it signs, and stop it. If a checkpoint was there, it was removed: restore it from a backup";

/// Seals what is to be sealed, and says how it went.
pub async fn run(config: &Config, options: &Options) -> anyhow::Result<()> {
    let store = open(config).await?;
    let done = work(config, options, &store).await;
    // What was written is durable before this.
    let closed = store.close().await;
    done?;
    Ok(closed?)
}

async fn open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let identity = config.identity();
    let (store, shared) = match (config.store.engine, &config.store.postgres) {
        (Engine::Postgres, Some(section)) => {
            // It serves nobody, under whatever name instances do.
            let nameless = Postgres { instance: None, instance_env: None, ..section.clone() };
            let options = wire::postgres_options(&nameless)?;
            let opened = postgres::open_alone(options.clone(), Some(&identity)).await;
            (opened.with_context(|| format!("store on {}", section.hosts.join(" ")))?, Some(options))
        }
        (Engine::Postgres, None) => anyhow::bail!("[store.postgres] is not in the configuration"),
        (Engine::Fjall, _) => {
            (wire::open_embedded(embedded::EngineKind::Fjall, config.store_dir()).await?, None)
        }
        (Engine::Sled, _) => {
            (wire::open_embedded(embedded::EngineKind::Sled, config.store_dir()).await?, None)
        }
    };
    let refused = async {
        anyhow::ensure!(
            store.identity().await?.as_ref() == Some(&identity),
            "it is not the store of this vault"
        );
        migrate::refuse_half_moved(&*store).await?;
        let Some(options) = &shared else { return Ok(()) };
        let others = postgres::held_logs(options).await?.into_iter().find(|log| *log != store.log());
        match others {
            Some(log) => anyhow::bail!("it is in use: an instance holds log {log}. Stop all of them first"),
            None => Ok(()),
        }
    };
    if let Err(refused) = refused.await {
        store.close().await?;
        return Err(refused).context("the store");
    }
    Ok(store)
}

async fn work(config: &Config, options: &Options, store: &Arc<dyn Store>) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let kms = wire::wrapping_keys(config).await?;
    let work = Work {
        identity: config.identity(),
        store: Arc::clone(store),
        keyring: wire::keyring(config, kms, store, &clock),
        overlap: config.keys.signing_overlap,
        unsealed: config.audit.unsealed(),
        clock,
        say: Box::new(|line| println!("{line}")),
    };
    work.run(options.dry_run).await
}

/// How a vault's rows are.
enum State {
    /// They have no seals, and never had.
    Unsealed,
    /// Some have.
    Half(Arc<RowKey>),
    /// Those without are not the vault's.
    Sealed(Arc<RowKey>),
}

struct Work {
    identity: VaultIdentity,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    overlap: Duration,
    unsealed: Unsealed,
    clock: Arc<dyn Clock>,
    /// Takes each line that is for people.
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Work {
    async fn run(&self, dry_run: bool) -> anyhow::Result<()> {
        if rows::is_new(&*self.store).await? {
            (self.say)("this vault was never served: it makes the key of its seals at its first start");
            return Ok(());
        }
        match self.state().await? {
            State::Sealed(key) => {
                self.check(key).await?;
                if dry_run {
                    return Ok(());
                }
                // Killed before it had signed its last entry, it does so now.
                self.sign().await
            }
            State::Half(_) | State::Unsealed if dry_run => self.show().await,
            State::Half(key) => {
                self.show().await?;
                self.seal(key).await
            }
            State::Unsealed => {
                self.show().await?;
                // A log whose first entries are those of this command has a checkpoint, too, wherever it is stopped.
                self.sign().await?;
                let key = self.begin().await?;
                self.sign().await?;
                self.seal(key).await
            }
        }
    }

    async fn state(&self) -> anyhow::Result<State> {
        let Some(key) = self.keyring.row_key().await?.map(|key| self.seal_entries(key)) else {
            let history = self.history().await?;
            anyhow::ensure!(
                history == SealHistory { entries: history.entries, ..SealHistory::default() },
                REMOVED
            );
            return Ok(State::Unsealed);
        };
        if self.sealed(&key).entity(&rows::marker_place()).await?.is_none() {
            return Ok(State::Sealed(key));
        }
        anyhow::ensure!(!self.history().await?.done, PUT_BACK);
        Ok(State::Half(key))
    }

    /// What the logs tell, if they are what was signed.
    async fn history(&self) -> anyhow::Result<SealHistory> {
        // One is made where there is none: then nothing that was signed would be accepted.
        let signed = !self.keyring.list(None, KeyPurpose::LogSigning).await?.is_empty();
        anyhow::ensure!(signed, "the vault has logs, and no key that signed them");
        let keys = self.signing().now().await.context("the log's signing key")?;
        let history = SealHistory::read(&*self.store, &self.identity, &keys).await;
        let why = match &history {
            Err(FollowerError::Unsigned { .. }) => NO_CHECKPOINT,
            _ => "the audit log is not what was signed",
        };
        history.context(why)
    }

    fn signing(&self) -> VaultSigning {
        let (keyring, clock) = (Arc::clone(&self.keyring), Arc::clone(&self.clock));
        VaultSigning::new(keyring, &self.identity, clock, self.overlap)
    }

    /// Brings what this command's log has so far under a checkpoint.
    async fn sign(&self) -> anyhow::Result<()> {
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        let origin = audit::origin(&self.identity, store.log());
        let options = FollowerOptions { checkpoint_every: Duration::from_secs(1) };
        let follower = Follower::start(store, Arc::new(self.signing()), &origin, clock, options).await;
        let follower = follower.context("the audit log is not what was signed")?;
        let signed = follower.fresh_checkpoint(CHECKPOINT).await;
        follower.stop(ENTRY).await;
        signed.context("the log's checkpoint")?;
        Ok(())
    }

    /// How many rows of each kind have no seal yet, and who their principals are.
    async fn show(&self) -> anyhow::Result<()> {
        (self.say)("to be sealed, and the vault's own from then on:");
        for kind in kinds() {
            let (mut count, mut lines) = (0_u64, Vec::new());
            let mut pages = Pages::new(kind);
            while let Some(mut page) = pages.next(&*self.store).await? {
                page.retain(|row| !is_sealed(&row.content));
                count += page.len() as u64;
                lines.extend(page.iter().filter_map(principal));
            }
            if count > 0 {
                (self.say)(&format!("{} {count}", kind.as_str()));
            }
            for line in lines {
                (self.say)(&format!("  {line}"));
            }
        }
        Ok(())
    }

    /// The key and the marker, with their entries.
    async fn begin(&self) -> anyhow::Result<Arc<RowKey>> {
        let (record, key) = self.keyring.new_row_key().await?;
        let key = self.seal_entries(key);
        let marker = rows::marker();
        let content = key.seal(&marker.place, &marker.content);
        let (created, item) = KeyJournal::created(&record);
        let beside = Beside {
            writes: vec![Write::InsertKey(record), Write::PutEntity(Entity { content, ..marker })],
            entries: vec![(created, vec![item])],
        };
        let (state, begun, _) = SEALING;
        let details = vec![(state, begun.to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.log().commit_with(draft(details)?, Vec::new(), beside).await?;
        Ok(key)
    }

    async fn seal(&self, key: Arc<RowKey>) -> anyhow::Result<()> {
        for kind in kinds() {
            let mut pages = Pages::new(kind);
            while let Some(page) = pages.next(&*self.store).await? {
                let mut writes = Vec::new();
                for Entity { place, revision, content } in page {
                    if is_sealed(&content) {
                        let opened = key.open(&place, &content);
                        opened.with_context(|| format!("{} {:?}", place.kind.as_str(), place.name))?;
                    } else {
                        let content = key.seal(&place, &content);
                        writes.push(Write::PutEntity(Entity { place, revision: revision + 1, content }));
                    }
                }
                if !writes.is_empty() {
                    self.store.commit(Change { writes, entries: Vec::new() }).await?;
                }
            }
        }
        self.end(key).await
    }

    async fn end(&self, key: Arc<RowKey>) -> anyhow::Result<()> {
        let counts = count(&self.sealed(&key)).await?;
        anyhow::ensure!(
            counts.forged.is_empty(),
            "rows were written meanwhile: {}",
            counts.forged.join(", ")
        );
        let place = rows::marker_place();
        let marker =
            self.store.entity(&place).await?.context("the row that says that it is under way is gone")?;
        let (state, _, done) = SEALING;
        let mut details = vec![(state, done.to_owned())];
        details.extend(counts.sound.iter().map(|(kind, count)| (kind.as_str(), count.to_string())));
        let gone = Write::DropEntity { place, revision: marker.revision };
        self.log().commit(draft(details)?, Vec::new(), vec![gone]).await?;
        (self.say)(&format!("sealed: {}", counts.in_words()));
        (self.say)("principals that are the vault's own now:");
        for line in &counts.principals {
            (self.say)(&format!("  {line}"));
        }
        // Before it, who takes the last entry back could have rows sealed once more.
        self.sign().await
    }

    /// Of a vault that has its seals: whether a row has none, or another.
    async fn check(&self, key: Arc<RowKey>) -> anyhow::Result<()> {
        let counts = count(&self.sealed(&key)).await?;
        (self.say)(&format!("the rows have their seals: {}", counts.in_words()));
        for place in &counts.forged {
            (self.say)(&format!("not the vault's: {place}"));
        }
        anyhow::ensure!(counts.forged.is_empty(), "{} rows are not the vault's", counts.forged.len());
        Ok(())
    }

    /// From now on entries are sealed, too, and none is signed that is not.
    fn seal_entries(&self, key: RowKey) -> Arc<RowKey> {
        let key = Arc::new(key);
        self.store.seal_entries(EntrySeals::new(Arc::clone(&key), self.unsealed));
        key
    }

    fn sealed(&self, key: &Arc<RowKey>) -> SealedStore {
        SealedStore::new(Arc::clone(&self.store), Arc::clone(key))
    }

    fn log(&self) -> Log {
        let options = LogOptions { deadline: ENTRY, max_in_flight: 1 };
        Log::new(Arc::clone(&self.store), Arc::clone(&self.clock), options)
    }
}

fn draft(details: Vec<(&'static str, String)>) -> anyhow::Result<Draft> {
    let request = RequestId::random().context("no randomness from the operating system")?;
    Ok(Draft { details, ..Draft::of_vault(request, AuditAction::RowsSealed) })
}

#[cfg(test)]
#[path = "seal_rows_tests.rs"]
mod tests;
