//! The one place where the parts meet: store, KMS, keyring, log, access and the gRPC services.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::alerts::Webhook;
use super::config::{self, Config, Engine, KmsKind, Postgres, PostgresTls};
use super::metrics::{ItemLabels, Metrics};
use super::metrics_server::Sample;
use super::migrate;
use super::observe::Doorkeeper;
use super::oidc::People;
use super::reload::Reloadable;
use super::rows;
use super::shutdown::{FatalSwitch, Fatality};
use super::watch;
use crate::access::{Access, Credential, Directory, Policies, Provisioning};
use crate::audit::{
    self, Adopter, AuditAction, Draft, Follower, FollowerHandle, FollowerOptions, KeyJournal, Log,
    LogOptions, Recent, SigningSource, VaultSigning,
};
use crate::domain::class::{ClassOptions, Classes, CustomClass};
use crate::domain::{Clock, InstanceId, JobBudget, RequestId, SystemClock, VaultIdentity};
use crate::grpc::{self, Observer, WireLimits};
use crate::jobs::{self, Schedule, Tally, Workers};
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::aws::AwsOptions;
use crate::kms::{AwsKms, Kms, LocalKms, WrappingKeys};
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::postgres::{self, Password, PostgresOptions, Transport};
use crate::store::{Leases, Store, StoreError};
use crate::vault::{GrantRules, JobRules, Limits, Parts, PeopleRules, SecondFactorRules, TenantRules, Vault};

/// Messages of one stream that are served at once.
const STREAM_WINDOW: usize = 4;
/// How many changes the store may be busy with.
const CHANGES_IN_FLIGHT: usize = 16 * 1024;
/// How long the log's last checkpoint may take when the vault stops.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);
/// How long jobs may take to be laid down when the vault stops.
const LAST_STEP: Duration = Duration::from_secs(5);
/// How often the KMS is asked whether it answers, for the health service `kms`.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How often expired idempotency keys are forgotten, and how many at once.
const FORGET_EVERY: Duration = Duration::from_mins(1);
const FORGET_AT_ONCE: usize = 10_000;

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

/// Puts the parts together.
pub async fn wire(config: &Config, context: &Context) -> anyhow::Result<Wired> {
    if vault_mem::protection() == vault_mem::Protection::Unlocked {
        anyhow::bail!("{}", vault_mem::LockedMemoryError);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let access = Arc::new(Access::new(read_directory(config)?, read_policies(config)?));
    let classes = Arc::new(classes(config)?);
    let kms = wrapping_keys(config).await?;
    let names = kms.names().collect::<Vec<_>>().join(" ");
    let people = config.oidc.as_ref().map(People::new).transpose().context("[oidc]")?;
    let identity = config.identity();
    let store = open_store(config, &identity).await?;
    store.found(&identity).await.context("the store")?;
    let keyring = keyring(config, kms, &store, &clock);
    let store = rows::sealed(&store, &keyring).await.context("the store")?;
    let provisioning = Arc::new(Provisioning::new(Arc::clone(&store), Arc::clone(&access)));
    provisioning.look().await.context("the principals")?;
    tokio::spawn(Arc::clone(&provisioning).run(context.stopping.clone()));
    let recent = Arc::<Recent>::default();
    let log = Log::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        LogOptions { deadline: config.audit.deadline, max_in_flight: CHANGES_IN_FLIGHT },
    );
    let log = Arc::new(log.beside(Arc::clone(&recent)));
    let (follower, adopter) = follow(config, &store, recent, &keyring, &clock).await?;
    let follower = Arc::new(follower);
    let details = begun(config, &store, names);
    log.record(own(AuditAction::Start, details)?, Vec::new()).await.context("the log's first entry")?;
    let vault = Arc::new(Vault::new(Parts {
        identity,
        classes: Arc::clone(&classes),
        store: Arc::clone(&store),
        keyring: Arc::clone(&keyring),
        access: Arc::clone(&access),
        provisioning,
        honeytokens: watch::honeytokens(&store, context).await?,
        usage: watch::usage(config, &store, &clock, context)?,
        log: Arc::clone(&log),
        follower: Arc::clone(&follower),
        clock: Arc::clone(&clock),
        limits: Limits {
            items: config.limits.max_items,
            value_bytes: config.limits.max_value,
            response_bytes: config.limits.max_message,
            remember: config.idempotency.remember,
        },
        jobs: job_rules(config),
        grants: grant_rules(config),
        people: people_rules(config),
        second_factor: second_factor_rules(config),
        sessions: people.as_ref().map(|people| people.sessions(config)),
    }));
    if let Some(people) = people {
        people.run(&vault, &context.stopping);
    }
    let tally = Arc::<Tally>::default();
    let workers = Workers::new(jobs::Parts {
        identity: vault.identity().clone(),
        classes,
        store: Arc::clone(&store),
        keyring: Arc::clone(&keyring),
        log: Arc::clone(&log),
        clock: Arc::clone(&clock),
        leases: Leases::new(Arc::clone(&store), Arc::clone(&clock), InstanceId::random()?),
        tally: Arc::clone(&tally),
        options: job_options(config),
        stopping: context.stopping.clone(),
    });
    tokio::spawn(watch::delivery(config, &store, &log, &clock, context)?.run());
    let schedule =
        Schedule { after: config.keys.rotate_after, after_records: config.keys.rotate_after_records };
    let (scheduler, stopping) = (Arc::clone(&vault), context.stopping.clone());
    tokio::spawn(schedule.run(scheduler, Arc::clone(&store), Arc::clone(&clock), stopping));
    workers.announce().await.context("what this instance says of its KMS keys")?;
    let workers = tokio::spawn(workers.run());
    let leases = Leases::new(Arc::clone(&store), Arc::clone(&clock), InstanceId::random()?);
    tokio::spawn(jobs::end_grants(Arc::clone(&vault), leases, context.stopping.clone()));
    let observer: Arc<dyn Observer> = Arc::new(ItemCounter(Arc::clone(&context.metrics)));
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes =
        grpc::routes(&vault, &observer, wire_limits(config), health).context("the reflection service")?;
    tokio::spawn(report_health(reporter, Arc::clone(&keyring), context.stopping.clone()));
    tokio::spawn(forget(Arc::clone(&store), Arc::clone(&clock), context.stopping.clone()));
    tokio::spawn(sweep(Arc::clone(&vault), context.stopping.clone()));
    tokio::spawn(watch_log(Arc::clone(&log), Arc::clone(&store), context.clone()));
    tokio::spawn(adopter.run(context.stopping.clone()));
    Ok(Wired {
        routes,
        doorkeeper: Arc::new(Door(vault)),
        reloads: vec![access_reload(config, access, Arc::clone(&log))],
        sample: Some(Box::new(Figures { keyring, store: Arc::clone(&store), tally })),
        close: Box::pin(close(workers, log, follower, store)),
    })
}

fn second_factor_rules(config: &Config) -> SecondFactorRules {
    let section = &config.second_factor;
    SecondFactorRules { user_verification: section.user_verification, for_approvals: section.for_approvals }
}

/// What the log says of a start.
fn begun(config: &Config, store: &Arc<dyn Store>, wrapping_keys: String) -> Vec<(&'static str, String)> {
    let mut details = vec![
        ("engine", store.engine().to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("wrapping_keys", wrapping_keys),
    ];
    if !config.access.second_person_for_roles {
        tracing::warn!("one admin alone can give anybody any role: access.second_person_for_roles = false");
        details.push(("second_person_for_roles", "false".to_owned()));
    }
    details
}

fn people_rules(config: &Config) -> PeopleRules {
    let access = &config.access;
    PeopleRules { second_person: access.second_person_for_roles, wait: access.second_person_wait }
}

pub(super) fn keyring(
    config: &Config,
    kms: WrappingKeys,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
) -> Arc<Keyring> {
    Arc::new(Keyring::new(
        config.identity(),
        Arc::clone(store),
        kms,
        Arc::new(KeyJournal::new(Arc::clone(clock))),
        Arc::clone(clock),
        CacheOptions {
            lifetime: config.cache.lifetime,
            max_uses: config.cache.max_uses,
            max_entries: config.cache.max_entries,
        },
    ))
}

fn wire_limits(config: &Config) -> WireLimits {
    WireLimits {
        message: config.limits.max_message,
        stream_window: STREAM_WINDOW,
        stream_messages: config.limits.max_requests,
        stream_idle: config.limits.stream_idle,
    }
}

/// Reads what [`wire`] would read, without opening the store: for `vault-server check`.
pub fn check(config: &Config) -> anyhow::Result<()> {
    read_directory(config)?;
    read_policies(config)?;
    classes(config)?;
    config.oidc.as_ref().map(People::new).transpose().context("[oidc]")?;
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

/// Makes the root key of the local KMS, in a file that must not be there.
pub fn create_root_key(file: &Path) -> anyhow::Result<()> {
    LocalKms::create(file)?;
    Ok(())
}

/// Whether sealing uses the fast Poly1305 for short messages; told at the start.
pub const FAST_POLY1305: bool = crate::crypto::FAST_POLY1305;

fn read_directory(config: &Config) -> anyhow::Result<Directory> {
    let file = &config.access.principals;
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Directory::parse(&text).with_context(|| file.display().to_string())
}

fn read_policies(config: &Config) -> anyhow::Result<Policies> {
    let environment = config.vault.environment.clone();
    let Some(file) = &config.access.policy else {
        return Policies::builtin(environment).context("the built-in policies");
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Policies::parse(&text, environment).with_context(|| file.display().to_string())
}

fn classes(config: &Config) -> anyhow::Result<Classes> {
    let custom = config.classes.custom.iter().enumerate().map(|(n, value)| {
        let class: Result<CustomClass, _> = value.clone().try_into();
        class.with_context(|| format!("[[classes.custom]] number {}", n + 1))
    });
    let custom = custom.collect::<anyhow::Result<Vec<_>>>()?;
    let builtin = Classes::builtin(ClassOptions { accept_synthetic: config.accept_synthetic() });
    builtin.with_custom(custom).context("[[classes.custom]]")
}

pub(super) async fn wrapping_keys(config: &Config) -> anyhow::Result<WrappingKeys> {
    let mut keys = WrappingKeys::new(kms(config).await?);
    for pin in &config.kms.residency {
        keys = keys.pin(pin.tenant.clone(), &pin.keys).context("[[kms.residency]]")?;
    }
    Ok(keys)
}

async fn kms(config: &Config) -> anyhow::Result<Vec<Arc<dyn Kms>>> {
    match config.kms.kind {
        KmsKind::Local => {
            let file = config.kms.root_key_file.as_ref().context("kms.root_key_file")?;
            let local = LocalKms::open(file).with_context(|| format!("root key {}", file.display()))?;
            Ok(vec![Arc::new(local)])
        }
        KmsKind::Aws => {
            let mut keys: Vec<Arc<dyn Kms>> = Vec::new();
            for key in &config.kms.key {
                let options = AwsOptions {
                    key_arn: key.arn.clone(),
                    endpoint: key.endpoint.clone(),
                    limits: crate::kms::aws::Limits::default(),
                };
                keys.push(Arc::new(AwsKms::connect(options).await.context("[[kms.key]]")?));
            }
            Ok(keys)
        }
    }
}

async fn open_store(config: &Config, identity: &VaultIdentity) -> anyhow::Result<Arc<dyn Store>> {
    let store = open_any_store(config, identity).await?;
    if let Err(error) = migrate::refuse_half_moved(&*store).await {
        store.close().await?;
        return Err(error).context("the store");
    }
    Ok(store)
}

async fn open_any_store(config: &Config, identity: &VaultIdentity) -> anyhow::Result<Arc<dyn Store>> {
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
pub(super) async fn open_embedded(kind: EngineKind, dir: PathBuf) -> anyhow::Result<Arc<dyn Store>> {
    let place = format!("store {}", dir.display());
    let opened: Result<_, StoreError> =
        tokio::task::spawn_blocking(move || embedded::open(kind, &dir, StoreOptions::default())).await?;
    opened.context(place)
}

/// What `[store.postgres]` says, in the store's own words.
pub(super) fn postgres_options(section: &Postgres) -> anyhow::Result<PostgresOptions> {
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

/// Begins to follow this instance's log; who brings the logs of crashed ones to their end has the same key.
async fn follow(
    config: &Config,
    store: &Arc<dyn Store>,
    recent: Arc<Recent>,
    keyring: &Arc<Keyring>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(FollowerHandle, Adopter)> {
    let identity = config.identity();
    let origin = audit::origin(&identity, store.log());
    let overlap = config.keys.signing_overlap;
    let signing: Arc<dyn SigningSource> =
        Arc::new(VaultSigning::new(Arc::clone(keyring), &identity, Arc::clone(clock), overlap));
    drop(signing.now().await.context("the log's signing key")?);
    let options = FollowerOptions { checkpoint_every: config.audit.checkpoint_every };
    let adopter = Adopter::new(Arc::clone(store), identity, Arc::clone(&signing), Arc::clone(clock), options);
    let (store, clock) = (Arc::clone(store), Arc::clone(clock));
    let follower = Follower::start_beside(store, recent, signing, &origin, clock, options).await;
    Ok((follower.context("the audit log is not what was signed")?, adopter))
}

/// An entry of the vault itself.
fn own(action: AuditAction, details: Vec<(&'static str, String)>) -> anyhow::Result<Draft> {
    let request = RequestId::random().context("no randomness from the operating system")?;
    Ok(Draft { details, ..Draft::of_vault(request, action) })
}

/// New principals and policies: in the log first, then in force; both or none.
fn access_reload(config: &Config, access: Arc<Access>, log: Arc<Log>) -> Reloadable {
    let mut files: Vec<PathBuf> = vec![config.access.principals.clone()];
    files.extend(config.access.policy.clone());
    let config = config.clone();
    let reload = move || {
        let candidate = access.with(Some(read_directory(&config)?), read_policies(&config)?);
        let now = SystemClock.now();
        if access.has_admin(now) && !candidate.has_admin(now) {
            anyhow::bail!("nobody would be left who may change principals: every admin would be locked out");
        }
        let (directory, policies) = (read_directory(&config)?, read_policies(&config)?);
        let details = vec![
            ("what", "principals and policies".to_owned()),
            ("principals", directory.principals().count().to_string()),
            ("policies", policies.ids().len().to_string()),
        ];
        let entry = own(AuditAction::Reload, details)?;
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(log.record(entry, Vec::new()))
        })
        .context("the reload's log entry")?;
        access.reload(directory, policies);
        Ok(())
    };
    Reloadable { name: "access", files, reload: Box::new(reload) }
}

/// `""` and the services are healthy while requests are served; `kms` says whether keys could be opened now.
async fn report_health(
    reporter: tonic_health::server::HealthReporter,
    keyring: Arc<Keyring>,
    stopping: CancellationToken,
) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    const SERVICES: &[&str] = &[
        "",
        "vault.v1.VaultService",
        "vault.v1.AuditService",
        "vault.v1.KeyService",
        "vault.v1.PrincipalService",
        "vault.v1.PolicyService",
        "vault.v1.BreakGlassService",
        "vault.v1.SecurityKeyService",
        "vault.v1.SessionService",
        "vault.v1.HoneytokenService",
    ];
    for &service in SERVICES {
        reporter.set_service_status(service, Serving).await;
    }
    loop {
        let kms = keyring.probe().await;
        if let Err(error) = &kms {
            tracing::warn!(%error, "the KMS does not answer: open keys serve until their lifetime ends");
        }
        reporter.set_service_status("kms", if kms.is_ok() { Serving } else { NotServing }).await;
        tokio::select! {
            () = stopping.cancelled() => break,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
    for &service in SERVICES {
        reporter.set_service_status(service, NotServing).await;
    }
}

async fn forget(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        while let Ok(FORGET_AT_ONCE) = store.forget(clock.now(), FORGET_AT_ONCE).await {}
    }
}

async fn sweep(vault: Arc<Vault>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        if let Err(refused) = vault.sweep_challenges().await {
            tracing::warn!(cause = refused.problem.cause(), "stale challenges were not swept away");
        }
        if let Err(refused) = vault.sweep_principal_changes().await {
            tracing::warn!(
                cause = refused.problem.cause(),
                "changes that nobody approved were not swept away"
            );
        }
    }
}

/// Once the log has failed, nothing can be promised any more. An idle instance learns so, too.
async fn watch_log(log: Arc<Log>, store: Arc<dyn Store>, context: Context) {
    const LOOK: Duration = Duration::from_secs(1);
    let gone = async {
        loop {
            match store.log_size(store.log()).await {
                Err(StoreError::Taken) => return Fatality::LogTaken,
                Err(StoreError::Fatal { why }) => return Fatality::StoreFailed(why),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::select! {
        () = context.stopping.cancelled() => {}
        fatality = gone => context.fatal.trip(fatality),
        () = log.failure().cancelled_owned() => context.fatal.trip(if log.is_taken() {
            Fatality::LogTaken
        } else {
            Fatality::StoreFailed("a commit could not be made durable".to_owned())
        }),
    }
}

/// Lays jobs down, and ends log and store.
async fn close(
    workers: JoinHandle<()>,
    log: Arc<Log>,
    follower: Arc<FollowerHandle>,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    // A step that hangs in the KMS writes nothing without its lease.
    let _ = tokio::time::timeout(LAST_STEP, workers).await;
    if !log.is_failed() {
        log.record(own(AuditAction::Stop, Vec::new())?, Vec::new()).await.context("the log's last entry")?;
    }
    follower.stop(LAST_CHECKPOINT).await;
    Ok(store.close().await?)
}

struct Door(Arc<Vault>);

#[async_trait]
impl Doorkeeper for Door {
    async fn admit(
        &self,
        connection: &Arc<Credential>,
        headers: &http::HeaderMap,
        path: &str,
    ) -> Result<Arc<Credential>, tonic::Status> {
        grpc::admit(&self.0, connection, headers, path).await
    }

    async fn refused_unread(&self, credential: &Credential, path: &str, cause: &'static str) {
        grpc::refused_unread(&self.0, credential, path, cause).await;
    }
}

/// Counts items into the metrics.
struct ItemCounter(Arc<Metrics>);

impl Observer for ItemCounter {
    fn items(&self, action: &'static str, ok: usize, failed: usize) {
        for (outcome, count) in [("ok", ok), ("failed", failed)] {
            if count > 0 {
                self.0.items.get_or_create(&ItemLabels { action, outcome }).inc_by(count as u64);
            }
        }
    }
}

struct Figures {
    keyring: Arc<Keyring>,
    store: Arc<dyn Store>,
    tally: Arc<Tally>,
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

fn job_rules(config: &Config) -> JobRules {
    let Config { jobs, keys, .. } = config;
    JobRules {
        budget: JobBudget { bytes: jobs.bytes_per_second as u64, kms_calls: jobs.kms_calls_per_second },
        waiting: keys.destroy_after,
        kms_price: millionths(keys.kms_price),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to a million")]
fn millionths(price: f64) -> u64 {
    (price * 1e6).round() as u64
}

fn job_options(config: &Config) -> jobs::Options {
    let Config { jobs, keys, .. } = config;
    jobs::Options { poll: jobs.poll, lease: jobs.lease, at_once: jobs.at_once, waiting: keys.destroy_after }
}

fn grant_rules(config: &Config) -> GrantRules {
    let section = &config.break_glass;
    let tenants = section.tenant.iter().map(|tenant| {
        let rules = TenantRules {
            approvals: tenant.approvals,
            max_duration: tenant.max_duration,
            max_values: tenant.max_values,
        };
        (tenant.name.clone(), rules)
    });
    GrantRules {
        approvals: section.approvals,
        duration: section.duration,
        max_duration: section.max_duration,
        wait: section.wait,
        review_within: section.review_within,
        values: section.values,
        max_values: section.max_values,
        max_open: section.max_open,
        reason_codes: section.reason_codes.clone(),
        tenants: tenants.collect(),
    }
}
