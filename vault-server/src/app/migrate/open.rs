//! Opening the two stores, each for this process alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::command::Kind;
use super::error::{MoveError, Of as _, Side};
use crate::app::config::{Config, Engine, Postgres};
use crate::app::wire;
use crate::store::embedded::EngineKind;
use crate::store::postgres::{self, PostgresOptions, held_logs};
use crate::store::{LogId, Store};

/// An open store.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// A database others could be at work on. A directory is locked.
    pub(super) shared: Option<PostgresOptions>,
}

impl Opened {
    /// Refuses if anybody else holds a log. This process holds the first.
    pub(super) async fn is_alone(&self, side: Side) -> Result<(), MoveError> {
        let Some(options) = &self.shared else { return Ok(()) };
        let held = held_logs(options).await.of(side)?;
        held.into_iter().find(|log| *log != LogId::default()).map_or(Ok(()), |log| {
            Err(MoveError::Refused(format!("{side} is in use: an instance holds log {log}. Stop it first")))
        })
    }
}

/// Opens a store. The old one must be there.
pub(super) async fn open(config: &Config, kind: Kind, side: Side) -> anyhow::Result<Opened> {
    match kind {
        Kind::Embedded => {
            let dir = config.store_dir();
            let engine = embedded_engine(config);
            anyhow::ensure!(
                side == Side::New || dir.join(engine.as_str()).is_dir(),
                "{side}: there is none in {}",
                dir.display()
            );
            let store = wire::open_embedded(engine, dir).await.with_context(|| side.to_string())?;
            Ok(Opened { store, shared: None })
        }
        Kind::Postgres => {
            let section = config.store.postgres.as_ref();
            let section = section.context("vault.toml has no [store.postgres]")?;
            // It serves nobody, under whatever name instances do.
            let nameless = Postgres { instance: None, instance_env: None, ..section.clone() };
            let options = wire::postgres_options(&nameless)?;
            let store = postgres::open_alone(options.clone(), Some(&config.identity())).await;
            let store = store.with_context(|| format!("{side} on {}", section.hosts.join(" ")))?;
            anyhow::ensure!(
                store.log() == LogId::default(),
                "{side}: its log 0 is retired, since the database once lost entries of it: such a store can't be moved"
            );
            Ok(Opened { store, shared: Some(options) })
        }
    }
}

/// What the configuration says, else what is in the directory, else the default.
pub(super) fn embedded_engine(config: &Config) -> EngineKind {
    match config.store.engine {
        Engine::Fjall => EngineKind::Fjall,
        Engine::Sled => EngineKind::Sled,
        Engine::Postgres => engine_in(&config.store_dir()).unwrap_or(EngineKind::Fjall),
    }
}

fn engine_in(dir: &Path) -> Option<EngineKind> {
    EngineKind::ALL.into_iter().find(|kind| dir.join(kind.as_str()).is_dir())
}
