//! The server killed at each step of each kind of job: the job goes on and ends, and nothing is done twice.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use vault_client::keys::{Job, JobKind, JobOrder, JobState, Key, KeyPurpose, KeyState, Note};
use vault_client::{Client, DataClass, DetokenizeOptions, Error, NewValue, Plaintext, Purpose, Token};
use vault_server::domain::{self, TenantId};
use vault_server::jobs::{CAN_DIE, Step};
use vault_tests::database::Database;
use vault_tests::fake_kms::{self, FakeKms};
use vault_tests::process::DevVault;
use vault_tests::site::Site;

const RECORDS: usize = 500;
/// A server comes to its step within this, on a slow machine too.
const WITHIN: Duration = Duration::from_mins(3);
const SIGKILL: i32 = 9;
const KINDS: [JobKind; 4] = [JobKind::Reencrypt, JobKind::Reindex, JobKind::Rewrap, JobKind::Destroy];
/// Jobs that take longer than it takes until their figures are written down.
const SLOW_BYTES: u64 = 64 << 10;
const SLOW_CALLS: u32 = 8;

const FAST: &str = "\n[keys]\ndestroy_after = \"1s\"\n[jobs]\npoll = \"50ms\"\nlease = \"1s\"\n\
                    bytes_per_second = \"1GiB\"\nkms_calls_per_second = 1000\n";

/// How often it is killed at each step: `PHI_VAULT_JOB_KILLS` is for all steps together.
fn rounds() -> usize {
    let steps: usize = KINDS.iter().map(|kind| Step::all_of(of_server(*kind)).len()).sum();
    let wanted = std::env::var("PHI_VAULT_JOB_KILLS").ok().and_then(|text| text.parse::<usize>().ok());
    wanted.map_or(1, |kills| kills.div_ceil(steps))
}

/// In a database it is done where it was asked for: the steps are the same.
fn is_wanted() -> bool {
    const { assert!(CAN_DIE, "these tests need debug assertions") };
    !Database::is_wanted() || std::env::var_os("PHI_VAULT_JOB_KILLS").is_some()
}

fn of_server(kind: JobKind) -> domain::JobKind {
    match kind {
        JobKind::Reencrypt => domain::JobKind::Reencrypt,
        JobKind::Reindex => domain::JobKind::Reindex,
        JobKind::Rewrap => domain::JobKind::Rewrap,
        JobKind::Destroy => domain::JobKind::Destroy,
        _ => unreachable!("no such job is killed here"),
    }
}

/// The callers of a vault that may end at any moment.
struct Callers {
    service: Client,
    rotator: Client,
    admin: Client,
    approver: Client,
}

impl Callers {
    fn of(vault: &DevVault) -> Self {
        let client =
            |identity| Client::from_profile(vault.profile(), Some(identity)).unwrap().for_tenant("demo");
        Self {
            service: client("service"),
            rotator: client("rotator"),
            admin: client("admin"),
            approver: client("approver"),
        }
    }

    async fn keep(&self) -> Vec<Token> {
        let value = |at| NewValue::new(DataClass::EMAIL, Plaintext::new(format!("{at}@example.org")));
        let answers = self.service.tokenize((0..RECORDS).map(value).collect()).await.unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    /// Every value is there, whatever the job has come to.
    async fn read(&self, kept: &[Token]) {
        let options = DetokenizeOptions::default();
        let values = self.service.detokenize(kept, Purpose::Treatment, &options).await.unwrap();
        for (at, value) in values.into_iter().enumerate() {
            assert_eq!(value.unwrap().expose(), format!("{at}@example.org"));
        }
    }

    async fn key(&self, purpose: KeyPurpose, state: KeyState) -> Result<Option<Key>, Error> {
        let keys = self.rotator.list_keys(false).await?;
        Ok(keys.into_iter().find(|key| key.purpose == purpose && key.state == state))
    }

    /// Whether all that was under older versions is done by a job, which is not asked for twice.
    async fn is_moved(&self, kind: JobKind, purpose: KeyPurpose, jobs: &[Job]) -> Result<bool, Error> {
        let active = self.key(purpose, KeyState::Active).await?.unwrap();
        Ok(jobs.iter().any(|job| job.kind == kind && job.asked > active.created))
    }

    /// Does what has to come next, so that there is always a job of the kind, and each has something to do.
    async fn push(&self, kind: JobKind) -> Result<(), Error> {
        let note = Note::default();
        let jobs = self.rotator.list_jobs().await?;
        let under_way = jobs.iter().find(|job| !job.state.is_over());
        if let Some(job) = under_way {
            if job.state == JobState::Asked {
                self.approver.approve_job(job.id, &note).await?;
            }
            return Ok(());
        }
        let mut order = JobOrder::new(kind);
        order.bytes_per_second = SLOW_BYTES;
        order.kms_calls_per_second = SLOW_CALLS;
        match kind {
            JobKind::Reencrypt | JobKind::Reindex => {
                let purpose = if kind == JobKind::Reindex { KeyPurpose::Index } else { KeyPurpose::Data };
                if self.is_moved(kind, purpose, &jobs).await? {
                    self.rotator.rotate_key(purpose, None, &note).await?;
                } else {
                    self.rotator.start_job(&order, &note).await?;
                }
            }
            JobKind::Rewrap => {
                self.rotator.start_job(&order, &note).await?;
            }
            JobKind::Destroy => {
                let old = self.key(KeyPurpose::Data, KeyState::Retired).await?;
                let moved = self.is_moved(JobKind::Reencrypt, KeyPurpose::Data, &jobs).await?;
                match old {
                    None => {
                        self.rotator.rotate_key(KeyPurpose::Data, None, &note).await?;
                    }
                    Some(_) if !moved => {
                        self.rotator.start_job(&JobOrder::new(JobKind::Reencrypt), &note).await?;
                    }
                    Some(old) => {
                        self.admin.start_job(&order.of_key(old.id), &note).await?;
                    }
                }
            }
            _ => unreachable!("no such job is killed here"),
        }
        Ok(())
    }
}

/// Serves until the process has died at the place, with a job of the kind for it all the time.
fn die_at(site: &Site, kind: JobKind, at: &str) {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = match tokio::task::block_in_place(|| site.serve_until(at)) {
        Err(ended) => ended.signal,
        Ok(vault) => {
            let callers = Callers::of(&vault);
            let pushing = tokio::spawn(async move {
                loop {
                    // What the vault does not answer any more is done after the next start.
                    let _ = callers.push(kind).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            let ended = tokio::task::block_in_place(|| vault.ended_with(WITHIN));
            pushing.abort();
            ended.signal()
        }
    };
    assert_eq!(signal, Some(SIGKILL), "{at}");
}

/// Every record is sealed under exactly one key that is recorded and not destroyed, and every key has its wraps.
async fn check_store(site: &Site) {
    let store = site.open_store().await;
    let tenant = TenantId::parse("demo").unwrap();
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = store.scan_records(after, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.token);
        for record in page.iter().filter(|record| record.tenant == tenant) {
            let key = store.key(record.key_id().unwrap()).await.unwrap().unwrap();
            assert!(key.state != domain::KeyState::Destroyed && !key.wraps.is_empty());
            let under = store.tokens_of_key(key.id, None, usize::MAX >> 1).await.unwrap();
            assert!(under.items.contains(&record.token));
            seen += 1;
        }
    }
    assert_eq!(seen, RECORDS);
    store.close().await.unwrap();
}

/// How often each record was changed, which is the same for all.
async fn changes(site: &Site) -> u32 {
    let store = site.open_store().await;
    let tenant = TenantId::parse("demo").unwrap();
    let records = store.scan_records(None, 10_000).await.unwrap();
    let of_tenant = records.iter().filter(|record| record.tenant == tenant);
    let mut changes: Vec<u32> = of_tenant.map(|record| record.revision).collect();
    assert_eq!(changes.len(), RECORDS);
    changes.dedup();
    assert_eq!(changes.len(), 1, "some records were changed more often than others: {changes:?}");
    store.close().await.unwrap();
    changes[0]
}

/// Lets what is under way come to its end; gives the newest version of a key.
async fn settle(callers: &Callers, kind: JobKind, purpose: KeyPurpose) -> u32 {
    let until = tokio::time::Instant::now() + WITHIN;
    loop {
        assert!(tokio::time::Instant::now() < until, "the job does not end");
        let jobs = callers.rotator.list_jobs().await.unwrap();
        if jobs.iter().all(|job| job.state.is_over()) {
            assert!(jobs.iter().all(|job| job.state == JobState::Done && job.failed == 0), "{jobs:?}");
            if kind == JobKind::Rewrap || callers.is_moved(kind, purpose, &jobs).await.unwrap() {
                return callers.key(purpose, KeyState::Active).await.unwrap().unwrap().version.0;
            }
        }
        callers.push(kind).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How often the log has each value of a field, in entries on an action.
fn in_log(vault: &DevVault, action: &str, field: &str) -> HashMap<String, u32> {
    let args = ["--json", "audit", "query", "--action", action, "--tenant", "demo", "--limit", "1000"];
    let mut often = HashMap::new();
    for rest in vault.ctl("auditor", &args).ok().stdout.split(&format!("\"{field}\":\"")).skip(1) {
        *often.entry(rest[..32].to_owned()).or_default() += 1;
    }
    often
}

fn make(dir: &Path) -> Site {
    let site = Site::make(dir);
    site.provision("approver", "\"demo\" = [\"admin\"]");
    site.edit("vault.toml", |text| format!("{text}{FAST}"));
    site
}

/// Kills at every step of a kind; gives the site and the kept tokens.
async fn kill_everywhere(site: &Site, kind: JobKind, mut before: impl FnMut(&Site)) -> Vec<Token> {
    let vault = tokio::task::block_in_place(|| site.serve());
    let kept = Callers::of(&vault).keep().await;
    assert_eq!(tokio::task::block_in_place(|| vault.stop()), Some(0));
    let name = of_server(kind).as_str();
    let mut kills = 0;
    for round in 0..rounds() {
        for step in Step::all_of(of_server(kind)) {
            tokio::task::block_in_place(|| before(site));
            // Of steps that a job comes to often, not always the first.
            let often =
                matches!(step, Step::Loaded | Step::Made | Step::Committed) && kind != JobKind::Rewrap;
            let times = if often { 1 + round % 4 } else { 1 };
            die_at(site, kind, &format!("{name}/{}/{times}", step.as_str()));
            check_store(site).await;
            kills += 1;
        }
    }
    println!("{kills} kills of a {name} job");
    kept
}

async fn records_are_changed_once_for_each_rotation(kind: JobKind, purpose: KeyPurpose) {
    if !is_wanted() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| make(&dir.path().join("vault")));
    let kept = kill_everywhere(&site, kind, |_| {}).await;
    let vault = tokio::task::block_in_place(|| site.serve());
    let callers = Callers::of(&vault);
    let version = settle(&callers, kind, purpose).await;
    callers.read(&kept).await;
    let ends = in_log(&vault, "job_end", "job");
    assert!(ends.values().all(|often| *often == 1), "{ends:?}");
    assert_eq!(tokio::task::block_in_place(|| vault.stop()), Some(0));
    assert!(version > 1);
    assert_eq!(changes(&site).await, version - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_anew_outlives_a_kill_at_every_step() {
    records_are_changed_once_for_each_rotation(JobKind::Reencrypt, KeyPurpose::Data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexing_anew_outlives_a_kill_at_every_step() {
    records_are_changed_once_for_each_rotation(JobKind::Reindex, KeyPurpose::Index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_outlives_a_kill_at_every_step() {
    if !is_wanted() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| make(&dir.path().join("vault")));
    let kept = kill_everywhere(&site, JobKind::Destroy, |_| {}).await;
    let vault = tokio::task::block_in_place(|| site.serve());
    let callers = Callers::of(&vault);
    let version = settle(&callers, JobKind::Reencrypt, KeyPurpose::Data).await;
    callers.read(&kept).await;
    let gone = in_log(&vault, "key_destroy", "job");
    assert!(gone.values().all(|often| *often == 1), "{gone:?}");
    let keys = callers.rotator.list_keys(false).await.unwrap();
    let destroyed = keys.iter().filter(|key| key.state == KeyState::Destroyed);
    assert_eq!(destroyed.count(), gone.len());
    assert_eq!(tokio::task::block_in_place(|| vault.stop()), Some(0));
    assert_eq!(changes(&site).await, version - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrapping_anew_outlives_a_kill_at_every_step() {
    if !is_wanted() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| make(&dir.path().join("vault")));
    let options = |region: &str| fake_kms::Options { region: Some(region.to_owned()), ..Default::default() };
    let east = FakeKms::start_with(options("us-east-1")).await.unwrap();
    let west = FakeKms::start_with(options("eu-west-1")).await.unwrap();
    let both = [&east, &west].map(|kms| (kms.create_key().unwrap(), kms.endpoint()));
    let configure = |site: &Site, keys: &[(String, String)]| {
        site.use_kms(keys);
        site.edit("vault.toml", |text| format!("{text}{FAST}"));
    };
    configure(&site, &both[..1]);
    // Whatever the last job has come to, there is something to do under the next configuration.
    let (mut wanted, handle) = (1, tokio::runtime::Handle::current());
    let kept = kill_everywhere(&site, JobKind::Rewrap, |site| {
        let wraps = handle.block_on(wraps(site));
        if wraps.iter().all(|count| *count == wanted) {
            wanted = 3 - wanted;
            configure(site, &both[..wanted]);
        }
    })
    .await;
    let vault = tokio::task::block_in_place(|| site.serve());
    let callers = Callers::of(&vault);
    settle(&callers, JobKind::Rewrap, KeyPurpose::Data).await;
    // The last may have begun under another configuration.
    callers.rotator.start_job(&JobOrder::new(JobKind::Rewrap), &Note::default()).await.unwrap();
    settle(&callers, JobKind::Rewrap, KeyPurpose::Data).await;
    callers.read(&kept).await;
    assert_eq!(tokio::task::block_in_place(|| vault.stop()), Some(0));
    assert!(wraps(&site).await.iter().all(|count| *count == wanted));
}

/// How many wraps each of the tenant's keys has.
async fn wraps(site: &Site) -> Vec<usize> {
    let store = site.open_store().await;
    let tenant = TenantId::parse("demo").unwrap();
    let mut wraps = Vec::new();
    for purpose in [domain::KeyPurpose::Data, domain::KeyPurpose::Index] {
        let keys = store.keys(Some(&tenant), purpose).await.unwrap();
        wraps.extend(keys.iter().map(|key| key.wraps.len()));
    }
    store.close().await.unwrap();
    wraps
}
