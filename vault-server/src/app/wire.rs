//! The one place where the parts meet: store, KMS, keyring, log, access and the gRPC services.
//!
//! [`wire`] is the table of contents of how a vault is put together, from the ground up; each step has a module.
//!
//! * `rules`: what the configuration says, in the words of each part.
//! * `access`: who may. `keys`: the KMS and the keyring. `store`: where everything is kept. `audit`: the log.
//! * `tasks`: what goes on beside the requests, and how it ends.
//! * `serving`: the services, and who may come in. `figures`: what operators see.

mod access;
mod audit;
mod figures;
mod keys;
mod rules;
mod serving;
mod store;
mod tasks;

use std::sync::Arc;

use anyhow::Context as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::audit::Journal;
use super::alerts::Webhook;
use super::config::{Config, Engine, KmsKind};
use super::metrics::Metrics;
use super::metrics_server::Sample;
use super::observe::Doorkeeper;
use super::oidc::People;
use super::reload::Reloadable;
use super::rows;
use super::shutdown::FatalSwitch;
use super::watch;
use crate::access::{Access, Provisioning};
use crate::audit::{FollowerHandle, Log};
use crate::domain::class::Classes;
use crate::domain::{Clock, SystemClock};
use crate::jobs::Tally;
use crate::keyring::Keyring;
use crate::kms::LocalKms;
use crate::store::Store;
use crate::vault::{Parts, Vault};

pub use keys::{FAST_POLY1305, create_root_key};

pub(super) use keys::{keyring, wrapping_keys};
pub(super) use store::{open_embedded, postgres_options};

/// What the parts get from the running server.
#[derive(Clone)]
pub struct Context {
    /// Where they count.
    pub metrics: Arc<Metrics>,
    /// How they stop the server when a promise can't be kept.
    pub fatal: FatalSwitch,
    /// Cancelled when the server begins to stop: health turns bad, streams end.
    pub stopping: CancellationToken,
}

/// What the server gets from the parts.
pub struct Wired {
    /// The services.
    pub routes: Routes,
    /// Who decides who may come in.
    pub doorkeeper: Arc<dyn Doorkeeper>,
    /// What is read from files besides TLS.
    pub reloads: Vec<Reloadable>,
    /// Figures that are counted elsewhere.
    pub sample: Option<Box<dyn Sample>>,
    /// Ends the parts, after the last request: the log's follower, then the store.
    pub close: BoxFuture<'static, anyhow::Result<()>>,
}

/// What the vault, and what goes on beside it, stand on.
struct Ground {
    clock: Arc<dyn Clock>,
    classes: Arc<Classes>,
    access: Arc<Access>,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    log: Arc<Log>,
    follower: Arc<FollowerHandle>,
}

/// Puts the parts together.
pub async fn wire(config: &Config, context: &Context) -> anyhow::Result<Wired> {
    if vault_mem::protection() == vault_mem::Protection::Unlocked {
        anyhow::bail!("{}", vault_mem::LockedMemoryError);
    }
    // What is read and asked before there is a store.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let access = Arc::new(access::read(config)?);
    let classes = Arc::new(rules::classes(config)?);
    let kms = wrapping_keys(config).await?;
    let names = kms.names().collect::<Vec<_>>().join(" ");
    let people = people(config)?;
    // The store, the keys, and the seals of its rows, which need both.
    let identity = config.identity();
    let store = store::open(config, &identity).await?;
    store.found(&identity).await.context("the store")?;
    let keyring = keyring(config, kms, &store, &clock);
    let store = rows::sealed(&store, &keyring, config.audit.unsealed()).await.context("the store")?;
    let provisioning = access::provisioning(&store, &access, context).await?;
    // The log comes before everything that is on record.
    let Journal { log, follower, adopter } =
        audit::open(config, &store, &keyring, &clock, &context.metrics).await?;
    audit::begin(config, &log, &store, names).await?;
    let ground = Ground { clock, classes, access, store, keyring, log, follower };
    // The use cases, what goes on beside them, and the services.
    let vault = Arc::new(vault(config, context, &ground, provisioning, people.as_ref()).await?);
    if let Some(people) = people {
        people.run(&vault, &context.stopping);
    }
    let tally = Arc::<Tally>::default();
    let workers = tasks::begin(config, context, &ground, &vault, &tally).await?;
    let routes = serving::routes(config, context, &vault, &ground.keyring)?;
    tasks::tidy(context, &ground, &vault);
    let Ground { access, store, keyring, log, follower, .. } = ground;
    tokio::spawn(audit::watch(Arc::clone(&log), Arc::clone(&store), context.clone()));
    tokio::spawn(adopter.run(context.stopping.clone()));
    Ok(Wired {
        routes,
        doorkeeper: Arc::new(serving::Door(vault)),
        reloads: vec![access::reload(config, access, Arc::clone(&log))],
        sample: Some(Box::new(figures::Figures { keyring, store: Arc::clone(&store), tally })),
        close: Box::pin(tasks::close(workers, log, follower, store)),
    })
}

/// The use cases, on the ground that was laid for them.
async fn vault(
    config: &Config,
    context: &Context,
    ground: &Ground,
    provisioning: Arc<Provisioning>,
    people: Option<&People>,
) -> anyhow::Result<Vault> {
    let Ground { clock, store, .. } = ground;
    Ok(Vault::new(Parts {
        identity: config.identity(),
        classes: Arc::clone(&ground.classes),
        store: Arc::clone(store),
        keyring: Arc::clone(&ground.keyring),
        access: Arc::clone(&ground.access),
        provisioning,
        honeytokens: watch::honeytokens(store, context).await?,
        usage: watch::usage(config, store, clock, context)?,
        log: Arc::clone(&ground.log),
        follower: Arc::clone(&ground.follower),
        clock: Arc::clone(clock),
        limits: rules::limits(config),
        jobs: rules::jobs(config),
        grants: rules::grants(config),
        people: rules::people(config),
        second_factor: rules::second_factor(config),
        sessions: people.map(|people| people.sessions(config)),
    }))
}

/// People who come by an identity provider, if there is one.
fn people(config: &Config) -> anyhow::Result<Option<People>> {
    config.oidc.as_ref().map(People::new).transpose().context("[oidc]")
}

/// Reads what [`wire`] would read, without opening the store: for `vault-server check`.
pub fn check(config: &Config) -> anyhow::Result<()> {
    access::read(config)?;
    rules::classes(config)?;
    people(config)?;
    Webhook::open(&config.alerts).context("[alerts]")?;
    if let (KmsKind::Local, Some(file)) = (config.kms.kind, &config.kms.root_key_file) {
        LocalKms::open(file).with_context(|| format!("root key {}", file.display()))?;
    }
    if let (Engine::Postgres, Some(section)) = (config.store.engine, &config.store.postgres) {
        postgres_options(section)?;
        let files = [&section.password_file, &section.ca, &section.certificate, &section.key];
        for file in files.into_iter().flatten() {
            std::fs::metadata(file).with_context(|| format!("can't read {}", file.display()))?;
        }
    }
    Ok(())
}
