//! Where everything is kept: on a disk of this machine, or on PostgreSQL.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use crate::app::config::{self, Config, Engine, Postgres, PostgresTls};
use crate::app::migrate;
use crate::domain::VaultIdentity;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::postgres::{self, Password, PostgresOptions, Transport};
use crate::store::{Store, StoreError};

/// Opens the store that the configuration names; not one that is half moved.
pub(super) async fn open(config: &Config, identity: &VaultIdentity) -> anyhow::Result<Arc<dyn Store>> {
    let store = open_any(config, identity).await?;
    if let Err(error) = migrate::refuse_half_moved(&*store).await {
        store.close().await?;
        return Err(error).context("the store");
    }
    Ok(store)
}

async fn open_any(config: &Config, identity: &VaultIdentity) -> anyhow::Result<Arc<dyn Store>> {
    let kind = match config.store.engine {
        Engine::Fjall => EngineKind::Fjall,
        Engine::Sled => EngineKind::Sled,
        Engine::Postgres => {
            let section = config.store.postgres.as_ref().context("[store.postgres]")?;
            let opened = postgres::open(postgres_options(section)?, Some(identity)).await;
            return opened.with_context(|| format!("store on {}", section.hosts.join(" ")));
        }
    };
    open_embedded(kind, config.store_dir()).await
}

/// Opens the store in a directory, or makes it.
pub(in crate::app) async fn open_embedded(kind: EngineKind, dir: PathBuf) -> anyhow::Result<Arc<dyn Store>> {
    let place = format!("store {}", dir.display());
    let opened: Result<_, StoreError> =
        tokio::task::spawn_blocking(move || embedded::open(kind, &dir, StoreOptions::default())).await?;
    opened.context(place)
}

/// What `[store.postgres]` says, in the store's own words.
pub(in crate::app) fn postgres_options(section: &Postgres) -> anyhow::Result<PostgresOptions> {
    let password = match (&section.password_file, &section.password_env) {
        (Some(file), _) => Password::File(file.clone()),
        (None, Some(name)) => Password::Environment(name.clone()),
        (None, None) => Password::None,
    };
    let transport = match (section.tls, &section.ca) {
        (PostgresTls::Off, _) => Transport::Plain,
        (PostgresTls::VerifyFull, ca) => Transport::Tls {
            ca: ca.clone().context("store.postgres.ca")?,
            identity: section.certificate.clone().zip(section.key.clone()),
        },
    };
    let instance =
        match &section.instance_env {
            None => section.instance.clone(),
            Some(variable) => {
                let name = std::env::var(variable).ok().filter(|name| config::is_instance(name));
                Some(name.with_context(|| {
                    format!("store.postgres.instance_env: no instance's name in {variable}")
                })?)
            }
        };
    Ok(PostgresOptions {
        hosts: section.addresses(),
        database: section.database.clone(),
        user: section.user.clone(),
        password,
        transport,
        connections: section.connections,
        instance,
        lease: section.lease,
    })
}
