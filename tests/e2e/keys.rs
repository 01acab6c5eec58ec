//! Keys through their lives, by the commands of the runbook and under load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tempfile::TempDir;
use vault_client::keys::{Job, JobKind, JobOrder, JobState, Key, KeyPurpose, KeyState, Note};
use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, Reason, Token};
use vault_server::domain::{Record, TenantId};
use vault_server::store::Store;
use vault_tests::fleet::load::{Dice, Load, State};
use vault_tests::fleet::{Fleet, Place};
use vault_tests::postgres::Server;
use vault_tests::process::DevVault;
use vault_tests::site::Site;

/// Within this a change of a key's state is in force everywhere.
const BOUND: Duration = Duration::from_secs(1);

/// A vault whose jobs have no bound and whose destructions wait for a second, with a second admin.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    site.provision("approver", "\"demo\" = [\"admin\"]");
    site.edit("vault.toml", |text| format!("{text}{FAST}"));
    site
}

const FAST: &str = "\n[keys]\ndestroy_after = \"1s\"\n[jobs]\npoll = \"50ms\"\nlease = \"1s\"\n\
                    bytes_per_second = \"1GiB\"\nkms_calls_per_second = 1000\n";

fn client(vault: &DevVault, identity: &str) -> Client {
    Client::from_profile(vault.profile(), Some(identity)).unwrap().for_tenant("demo")
}

async fn keep(client: &Client, count: usize, name: &str) -> Vec<Token> {
    let value = |at| NewValue::new(DataClass::EMAIL, Plaintext::new(format!("{name}-{at}@example.org")));
    let answers = client.tokenize((0..count).map(value).collect()).await.unwrap();
    answers.into_iter().map(Result::unwrap).collect()
}

async fn versions(client: &Client, tokens: &[Token]) -> Vec<Option<u32>> {
    let known = client.describe(tokens).await.unwrap();
    known.into_iter().map(|known| known.unwrap().key_version).collect()
}

async fn active(client: &Client) -> Key {
    let keys = client.list_keys(true).await.unwrap();
    let is_it = |key: &Key| key.purpose == KeyPurpose::Data && key.state == KeyState::Active;
    keys.into_iter().find(is_it).unwrap()
}

async fn rotate(client: &Client, purpose: KeyPurpose) -> Key {
    let rotation = client.rotate_key(purpose, None, &Note::default()).await.unwrap();
    assert!(rotation.rotated);
    rotation.key
}

/// Waits until a job is over.
async fn over(client: &Client, job: &Job) -> Job {
    let watch = client.watch_job(job.id, Duration::from_mins(1)).await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let mut last = job.clone();
    while let Some(news) = watch.next().await {
        last = news.unwrap().job;
    }
    assert!(last.state.is_over(), "{last:?}");
    last
}

async fn begin(client: &Client, kind: JobKind) -> Job {
    client.start_job(&JobOrder::new(kind), &Note::default()).await.unwrap()
}

/// Every record that holds a value, and how often each was changed.
async fn records(store: &dyn Store) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let page = store.scan_records(records.last().map(|last| last.token), 1000).await.unwrap();
        if page.is_empty() {
            return records;
        }
        records.extend(page);
    }
}

#[test]
fn a_year_of_a_key_by_the_runbooks_commands() {
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    let token = token.line().to_owned();
    // Nobody but rotators and admins.
    for identity in ["service", "console", "oncall"] {
        vault.ctl(identity, &["keys", "list"]).ends(3);
        vault.ctl(identity, &["keys", "rotate"]).ends(3);
    }
    vault.ctl("rotator", &["keys", "rotate"]).ok();
    let dry = vault.ctl("rotator", &["keys", "reencrypt", "--dry-run"]).ok();
    assert!(dry.stdout.contains('1'), "{}", dry.stdout);
    let listed = vault.ctl("rotator", &["--json", "keys", "list", "--count"]).ok();
    let old = listed.stdout.lines().find(|line| line.contains("\"retired\"")).unwrap();
    assert!(old.contains("\"records\":1"), "{old}");
    let id = old.split("\"key\":\"").nth(1).unwrap()[..32].to_owned();
    // Not while a record refers to it.
    vault.ctl("admin", &["--tenant", "demo", "keys", "destroy", &id, "--yes"]).ends(1);
    vault.ctl("rotator", &["keys", "reencrypt", "--watch"]).ok();
    let asked = vault.ctl("admin", &["--tenant", "demo", "--json", "keys", "destroy", &id, "--yes"]).ends(6);
    let job = asked.stdout.split("\"job\":\"").nth(1).unwrap()[..32].to_owned();
    // Not by who asked.
    vault.ctl("admin", &["--tenant", "demo", "jobs", "approve", &job, "--yes"]).ends(3);
    vault.ctl("approver", &["jobs", "approve", &job]).ends(2);
    let approved = vault.ctl("approver", &["jobs", "approve", &job, "--yes"]).ok();
    for part in [&*id, "0 records", "asked by     admin", "none was given"] {
        assert!(approved.stderr.contains(part), "{part}: {}", approved.stderr);
    }
    vault.ctl("approver", &["jobs", "watch", &job]).ok();
    let listed = vault.ctl("rotator", &["--json", "keys", "list"]).ok();
    assert!(listed.stdout.lines().any(|line| line.contains(&id) && line.contains("\"destroyed\"")));
    let value = vault.ctl("service", &["detokenize", &token, "--purpose", "TREAT"]).ok();
    assert_eq!(value.line(), "999-31-4102");
    let log = ["--json", "audit", "query", "--action", "key_destroy", "--tenant", "demo"];
    let certificate = vault.ctl("auditor", &log).ok();
    assert!(certificate.stdout.contains("\"approved_by\":\"approver\""), "{}", certificate.stdout);
    assert_eq!(vault.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_that_keys_are_rotated_moved_and_destroyed() {
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    let vault = site.serve();
    let (service, rotator) = (client(&vault, "service"), client(&vault, "rotator"));
    let (admin, second) = (client(&vault, "admin"), client(&vault, "approver"));
    let kept = keep(&service, 3000, "early").await;
    let load = Load::start(&service, 16);
    for round in 0..3 {
        let before = active(&rotator).await;
        rotate(&rotator, KeyPurpose::Data).await;
        rotate(&rotator, KeyPurpose::Index).await;
        for kind in [JobKind::Reencrypt, JobKind::Reindex] {
            let job = over(&rotator, &begin(&rotator, kind).await).await;
            assert_eq!((job.state, job.failed), (JobState::Done, 0), "round {round}: {job:?}");
        }
        let order = JobOrder::new(JobKind::Destroy).of_key(before.id);
        let job = admin.start_job(&order, &Note::default()).await.unwrap();
        let job = second.approve_job(job.id, &Note::default()).await.unwrap();
        assert_eq!(over(&rotator, &job).await.state, JobState::Done);
    }
    let told = load.stop().await;
    println!("{} calls beside the jobs, the longest took {:?}", told.answered, told.longest);
    assert!(told.failed.is_empty() && told.wrong.is_empty(), "{:?} {:?}", told.failed, told.wrong.first());
    let newest = active(&rotator).await;
    assert!(versions(&service, &kept).await.iter().all(|version| *version == Some(newest.version.0)));
    if let Some(known) = told.tokens.iter().find(|known| known.state == State::Kept) {
        let found =
            service.find(&DataClass::EMAIL, vec![Plaintext::new(known.value.clone())], 0).await.unwrap();
        assert!(found[0].as_ref().unwrap().tokens.contains(&known.token));
    }
    let values = service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
    assert!(values.iter().all(Result::is_ok));
    assert_eq!(vault.stop(), Some(0));
    let store = site.open_store().await;
    let sealed = records(&*store).await.into_iter().filter_map(|record| record.key_id());
    assert!(sealed.into_iter().all(|key| key.to_string() == newest.id.to_string()));
    store.close().await.unwrap();
}

/// How often the server is killed.
fn kills() -> u64 {
    std::env::var("PHI_VAULT_JOB_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_every_kill_and_does_nothing_twice() {
    const RECORDS: usize = 4000;
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    let mut vault = site.serve();
    let kept = keep(&client(&vault, "service"), RECORDS, "kept").await;
    // About a second's work, so that it is killed at the beginning, in the middle and at the end.
    let mut order = JobOrder::new(JobKind::Reencrypt);
    order.bytes_per_second = 800_000;
    let mut dice = Dice(11);
    let (mut rotations, mut in_the_middle) = (0_u32, 0);
    let mut job = None;
    for _ in 0..kills() {
        let rotator = client(&vault, "rotator");
        let under_way = rotator.list_jobs().await.unwrap();
        if under_way.iter().all(|job| job.state.is_over()) {
            rotate(&rotator, KeyPurpose::Data).await;
            rotations += 1;
            job = Some(rotator.start_job(&order, &Note::default()).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(dice.below(1500))).await;
        vault = tokio::task::block_in_place(|| {
            vault.kill();
            site.serve()
        });
        let moved = active(&client(&vault, "rotator")).await.records;
        in_the_middle += u32::from(moved > 0 && moved < RECORDS as u64);
    }
    let rotator = client(&vault, "rotator");
    let job = over(&rotator, &job.unwrap()).await;
    assert_eq!((job.state, job.failed), (JobState::Done, 0), "{job:?}");
    let newest = active(&rotator).await;
    let service = client(&vault, "service");
    let values = service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
    assert!(values.iter().all(Result::is_ok));
    assert_eq!(vault.stop(), Some(0));
    println!("{} kills, {in_the_middle} of them in the middle of one of {rotations} jobs", kills());
    let store = site.open_store().await;
    let tenant = TenantId::parse("demo").unwrap();
    for record in records(&*store).await.iter().filter(|record| record.tenant == tenant) {
        assert_eq!(record.key_id().unwrap().to_string(), newest.id.to_string());
        assert_eq!(record.revision, rotations, "moved once for each rotation");
    }
    store.close().await.unwrap();
}

/// Three instances on one database; `None` where there is no PostgreSQL.
fn fleet(dir: &TempDir) -> Option<Arc<Fleet>> {
    let server = Server::shared()?;
    let place = Place::of_url(&server.url(&server.create_database()));
    Some(Arc::new(Fleet::make_with(&dir.path().join("vault"), &place, 3, FAST)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_in_force_on_every_instance_when_it_returns() {
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    tokio::task::block_in_place(|| fleet.start_all());
    let services: Vec<_> = (0..3).map(|number| fleet.client_of(number, "service")).collect();
    let rotator = fleet.client_of(0, "rotator");
    keep(&services[0], 10, "first").await;
    for round in 0..10 {
        // Every instance has the list of keys fresh in its cache.
        for service in &services {
            keep(service, 1, &format!("warm-{round}")).await;
        }
        let new = rotate(&rotator, KeyPurpose::Data).await;
        for service in &services {
            let after = keep(service, 3, &format!("after-{round}")).await;
            assert_eq!(versions(service, &after).await, vec![Some(new.version.0); 3]);
        }
    }
    tokio::task::block_in_place(|| fleet.stop_all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromised_version_opens_nowhere_within_the_bound_until_it_is_sealed_anew() {
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    tokio::task::block_in_place(|| fleet.start_all());
    let services: Vec<_> = (0..3).map(|number| fleet.client_of(number, "service")).collect();
    let (rotator, admin) = (fleet.client_of(0, "rotator"), fleet.client_of(1, "admin"));
    let kept = keep(&services[0], 50, "kept").await;
    let key = active(&rotator).await;
    let asking: Vec<_> = services
        .iter()
        .cloned()
        .map(|service| {
            let token = kept[0].clone();
            tokio::spawn(async move {
                let mut last = None;
                let until = Instant::now() + Duration::from_secs(4);
                while Instant::now() < until {
                    let one = std::slice::from_ref(&token);
                    let asked = Instant::now();
                    let answer =
                        service.detokenize(one, Purpose::Treatment, &DetokenizeOptions::default()).await;
                    match answer.unwrap().swap_remove(0) {
                        Ok(_) => last = Some(asked),
                        Err(error) => assert_eq!(error.reason(), Reason::KeyUnusable),
                    }
                }
                last.unwrap()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    admin.mark_compromised(key.id, &Note::default()).await.unwrap();
    let marked = Instant::now();
    for task in asking {
        let last = task.await.unwrap().saturating_duration_since(marked);
        println!("last opened {last:?} after it was marked");
        assert!(last <= BOUND, "{last:?}");
    }
    // Writing goes on under a new version, and the job gives the values back.
    keep(&services[2], 1, "after").await;
    let job = over(&rotator, &begin(&rotator, JobKind::Reencrypt).await).await;
    assert_eq!((job.state, job.done), (JobState::Done, 50));
    for service in &services {
        let values =
            service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
        assert!(values.iter().all(Result::is_ok));
    }
    tokio::task::block_in_place(|| fleet.stop_all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stood_still_past_its_lease_writes_nothing_more() {
    const RECORDS: usize = 3000;
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    tokio::task::block_in_place(|| fleet.start(0));
    let (service, rotator) = (fleet.client_of(0, "service"), fleet.client_of(0, "rotator"));
    keep(&service, RECORDS, "kept").await;
    let new = rotate(&rotator, KeyPurpose::Data).await;
    // Slow enough to be stopped in the middle.
    let mut order = JobOrder::new(JobKind::Reencrypt);
    order.bytes_per_second = 150_000;
    let job = rotator.start_job(&order, &Note::default()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while rotator.list_jobs().await.unwrap().iter().all(|job| job.done == 0) {
        assert!(Instant::now() < until, "the job was not begun");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet.pause(0);
    tokio::task::block_in_place(|| fleet.start(1));
    let other = fleet.client_of(1, "rotator");
    let until = Instant::now() + Duration::from_secs(30);
    while !fleet.log(1).contains("takes a job up") {
        assert!(Instant::now() < until, "nobody took the job up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fleet.resume(0);
    let job = over(&other, &job).await;
    assert_eq!((job.state, job.failed), (JobState::Done, 0), "{job:?}");
    // What it notices first, when it goes on, is the lost lease or that its last step took too long.
    let laid_down = ["a job was taken over by another worker", "a job was laid down"];
    assert!(laid_down.iter().any(|said| fleet.log(0).contains(said)), "{}", fleet.log(0));
    tokio::task::block_in_place(|| fleet.stop_all());
    let store = vault_server::store::postgres::open(fleet.place().options("checker"), None).await.unwrap();
    let records = records(&*store).await;
    assert_eq!(records.len(), RECORDS);
    for record in records {
        assert_eq!(record.key_id().unwrap().to_string(), new.id.to_string());
        assert_eq!(record.revision, 1, "not one was changed twice");
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_with_keys_is_refused_and_nothing_is_half_done() {
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    let (service, rotator, admin) =
        (client(&vault, "service"), client(&vault, "rotator"), client(&vault, "admin"));
    let note = Note::default();
    keep(&service, 100, "kept").await;
    // A tenant that has no keys, one that is another's, a version that is not there yet.
    let nobody = admin.for_tenant("nobody");
    let error = nobody.rotate_key(KeyPurpose::Data, None, &note).await.unwrap_err();
    assert_eq!((error.reason(), error.field()), (Reason::NotFound, "tenant"));
    let error = rotator.for_tenant("other").list_keys(false).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TenantNotAllowed);
    let first = active(&rotator).await;
    let late = vault_client::keys::KeyVersion(first.version.0 + 7);
    let error = rotator.rotate_key(KeyPurpose::Data, Some(late), &note).await.unwrap_err();
    assert_eq!((error.reason(), error.field()), (Reason::FieldInvalid, "version"));

    // Many at once that want to replace the same version: one does.
    let rotations = (0..16).map(|_| rotator.rotate_key(KeyPurpose::Data, Some(first.version), &note));
    let rotations = futures::future::join_all(rotations).await;
    let rotations: Vec<_> = rotations.into_iter().map(Result::unwrap).collect();
    assert_eq!(rotations.iter().filter(|rotation| rotation.rotated).count(), 1);
    assert!(rotations.iter().all(|rotation| rotation.key.version.0 == first.version.0 + 1));

    // Destroying what is active, or what records refer to.
    let second = active(&rotator).await;
    for (key, reason) in [(second.id, Reason::KeyActive), (first.id, Reason::KeyInUse)] {
        let order = JobOrder::new(JobKind::Destroy).of_key(key);
        assert_eq!(admin.start_job(&order, &note).await.unwrap_err().reason(), reason);
        assert!(admin.preview_job(&order).await.unwrap().refused.is_some());
    }
    let order = JobOrder::new(JobKind::Destroy).of_key(first.id);
    assert_eq!(rotator.start_job(&order, &note).await.unwrap_err().reason(), Reason::ActionNotAllowed);

    // One job of a kind at a time; asked for just the same, it is that one.
    let mut slow = JobOrder::new(JobKind::Reencrypt);
    slow.bytes_per_second = 64 << 10;
    let job = rotator.start_job(&slow, &note).await.unwrap();
    assert_eq!(rotator.start_job(&slow, &note).await.unwrap().id, job.id);
    let other = JobOrder::new(JobKind::Reencrypt).of_key(first.id);
    assert_eq!(rotator.start_job(&other, &note).await.unwrap_err().reason(), Reason::JobUnderWay);
    // Paused twice is paused once; one that was cancelled does not go on; one that is not there is not found.
    for _ in 0..2 {
        assert_eq!(rotator.pause_job(job.id).await.unwrap().state, JobState::Paused);
    }
    assert_eq!(rotator.cancel_job(job.id).await.unwrap().state, JobState::Cancelled);
    assert_eq!(rotator.resume_job(job.id).await.unwrap_err().reason(), Reason::JobState);
    let stranger: vault_client::keys::JobId = "00000000000000000000000000000001".parse().unwrap();
    assert_eq!(rotator.resume_job(stranger).await.unwrap_err().reason(), Reason::NotFound);
    assert_eq!(admin.approve_job(job.id, &note).await.unwrap_err().reason(), Reason::JobState);

    // A tenant that is shredded has no values and gets no keys, for good.
    let kept = keep(&service, 1, "last").await;
    let asked = admin.start_job(&JobOrder::new(JobKind::Shred), &note).await.unwrap();
    assert_eq!(asked.state, JobState::Asked);
    assert_eq!(admin.approve_job(asked.id, &note).await.unwrap_err().reason(), Reason::SecondPerson);
    let approved = client(&vault, "approver").approve_job(asked.id, &note).await.unwrap();
    assert_eq!(over(&rotator, &approved).await.state, JobState::Done);
    tokio::time::sleep(BOUND).await;
    let values = service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
    assert_eq!(values[0].as_ref().err().unwrap().reason(), Reason::KeyDestroyed);
    let value = NewValue::new(DataClass::EMAIL, Plaintext::new("new@example.org".to_owned()));
    assert!(service.tokenize(vec![value]).await.is_err());
    assert!(rotator.rotate_key(KeyPurpose::Data, None, &note).await.is_err());
    assert_eq!(vault.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_that_was_held_back_needs_another_approval() {
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    site.edit("vault.toml", |text| text.replace("destroy_after = \"1s\"", "destroy_after = \"1h\""));
    let vault = site.serve();
    let (service, admin, second) =
        (client(&vault, "service"), client(&vault, "admin"), client(&vault, "approver"));
    let note = Note::default();
    let kept = keep(&service, 1, "kept").await;
    let asked = admin.start_job(&JobOrder::new(JobKind::Shred), &note).await.unwrap();
    let approved = second.approve_job(asked.id, &note).await.unwrap();
    assert_eq!(approved.state, JobState::Running);
    assert!(approved.not_before > approved.asked);
    assert_eq!(second.pause_job(asked.id).await.unwrap().state, JobState::Paused);
    // Who asked lets it go on: it is where it was before the approval.
    let resumed = admin.resume_job(asked.id).await.unwrap();
    assert_eq!((resumed.state, resumed.approved_by), (JobState::Asked, None));
    assert_eq!(admin.approve_job(asked.id, &note).await.unwrap_err().reason(), Reason::SecondPerson);
    assert_eq!(second.approve_job(asked.id, &note).await.unwrap().state, JobState::Running);
    assert_eq!(client(&vault, "rotator").cancel_job(asked.id).await.unwrap().state, JobState::Cancelled);
    let values = service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
    assert!(values[0].is_ok());
    assert_eq!(vault.stop(), Some(0));
}
