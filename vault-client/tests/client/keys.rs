//! Keys and the jobs on them: the client and `vaultctl` against a vault that keeps both in maps.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tonic::{Code, Request, Response, Status};
use vault_client::keys::{
    JobKind as Kind, JobOrder, JobState as Stands, KeyPurpose as Purpose, KeyVersion, Note,
};
use vault_client::{Client, Reason as Why};
use vault_proto::v1::key_service_server::KeyService;
use vault_proto::v1::*;

use crate::cli::{Setup, code, err, out, setup};
use crate::fake::{self, Answer, Running, State};
use crate::pki::Pki;
use crate::{builder, one, unavailable};

const PATIENCE: Duration = Duration::from_secs(20);

/// A vault with keys and jobs.
pub(crate) struct FakeKeys(pub(crate) Arc<State>);

fn id(number: usize) -> String {
    format!("{number:032x}")
}

fn new_key(purpose: i32, version: u32) -> Key {
    Key {
        key_id: id(version as usize),
        purpose,
        version,
        state: KeyState::Active.into(),
        created_us: 1_000_000,
        wrapped_by: vec!["local:a".to_owned()],
        records: 7,
        tenant: "demo".to_owned(),
        stray_wraps: Vec::new(),
    }
}

impl FakeKeys {
    /// Changes a job, if there is one.
    fn job(&self, id: &str, change: impl FnOnce(&mut Job)) -> Result<Option<Job>, Status> {
        let mut jobs = self.0.jobs.lock().unwrap();
        let job = jobs.get_mut(id).ok_or_else(|| Status::not_found("no such job"))?;
        change(job);
        Ok(Some(job.clone()))
    }
}

#[tonic::async_trait]
impl KeyService for FakeKeys {
    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysResponse> {
        self.0.note(&request, 0, "", "list_keys").await;
        self.0.fault()?;
        let keys = self.0.keys.lock().unwrap().iter().rev().cloned().collect();
        Ok(Response::new(ListKeysResponse { keys }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        let message = request.get_ref().clone();
        self.0.note(&request, 0, "", &format!("rotate_key {}", message.version)).await;
        let answer = {
            let mut keys = self.0.keys.lock().unwrap();
            let active =
                keys.iter_mut().find(|key| key.purpose == message.purpose && key.state() == KeyState::Active);
            let version = active.as_ref().map_or(0, |key| key.version);
            match active {
                Some(key) if message.version != 0 && message.version != version => {
                    RotateKeyResponse { key: Some(key.clone()), rotated: false }
                }
                active => {
                    if let Some(key) = active {
                        key.set_state(KeyState::Retired);
                    }
                    keys.push(new_key(message.purpose, version + 1));
                    RotateKeyResponse { key: keys.last().cloned(), rotated: true }
                }
            }
        };
        self.0.fault()?;
        Ok(Response::new(answer))
    }

    async fn mark_compromised(
        &self,
        request: Request<MarkCompromisedRequest>,
    ) -> Answer<MarkCompromisedResponse> {
        self.0.note(&request, 0, "", "mark_compromised").await;
        let mut keys = self.0.keys.lock().unwrap();
        let key = keys.iter_mut().find(|key| key.key_id == request.get_ref().key_id);
        let key = key.ok_or_else(|| Status::not_found("no such key"))?;
        let was_active = key.state() == KeyState::Active;
        key.set_state(KeyState::Compromised);
        let key = Some(key.clone());
        // A ticket that says so: its KMS is away.
        if let Some(key) = key.as_ref().filter(|_| was_active && request.get_ref().ticket != "away") {
            keys.push(new_key(key.purpose, key.version + 1));
        }
        Ok(Response::new(MarkCompromisedResponse { key }))
    }

    async fn preview_job(&self, request: Request<PreviewJobRequest>) -> Answer<PreviewJobResponse> {
        self.0.note(&request, 0, "", "preview_job").await;
        let refused = if request.get_ref().kind() == JobKind::Destroy { "key_in_use" } else { "" };
        Ok(Response::new(PreviewJobResponse {
            items: 100,
            bytes: 2_000,
            kms_calls: 3,
            kms_cost_micros: 1_500_000,
            seconds: 90,
            refused: refused.to_owned(),
        }))
    }

    async fn start_job(&self, request: Request<StartJobRequest>) -> Answer<StartJobResponse> {
        let message = request.get_ref().clone();
        let detail = format!(
            "start_job {} {} {} {}",
            message.bytes_per_second, message.kms_calls_per_second, message.reason, message.ticket
        );
        self.0.note(&request, 0, "", &detail).await;
        let answer = {
            let mut jobs = self.0.jobs.lock().unwrap();
            let same = |job: &&Job| job.kind == message.kind && job.key_id == message.key_id;
            let job = jobs.values().find(same).cloned().unwrap_or_else(|| {
                let asks = matches!(message.kind(), JobKind::Destroy | JobKind::Shred);
                let state = if asks { JobState::Asked } else { JobState::Running };
                Job {
                    job_id: id(jobs.len() + 1),
                    tenant: "demo".to_owned(),
                    kind: message.kind,
                    state: state.into(),
                    key_id: message.key_id,
                    asked_by: "rotator".to_owned(),
                    total: 100,
                    ..Job::default()
                }
            });
            jobs.insert(job.job_id.clone(), job.clone());
            StartJobResponse { job: Some(job) }
        };
        self.0.fault()?;
        Ok(Response::new(answer))
    }

    async fn approve_job(&self, request: Request<ApproveJobRequest>) -> Answer<ApproveJobResponse> {
        self.0.note(&request, 0, "", "approve_job").await;
        let job = self.job(&request.get_ref().job_id, |job| {
            job.set_state(JobState::Running);
            "admin".clone_into(&mut job.approved_by);
        })?;
        Ok(Response::new(ApproveJobResponse { job }))
    }

    async fn pause_job(&self, request: Request<PauseJobRequest>) -> Answer<PauseJobResponse> {
        let job = self.job(&request.get_ref().job_id, |job| job.set_state(JobState::Paused))?;
        Ok(Response::new(PauseJobResponse { job }))
    }

    async fn resume_job(&self, request: Request<ResumeJobRequest>) -> Answer<ResumeJobResponse> {
        let job = self.job(&request.get_ref().job_id, |job| {
            let asks = matches!(job.kind(), JobKind::Destroy | JobKind::Shred);
            job.set_state(if asks { JobState::Asked } else { JobState::Running });
        })?;
        Ok(Response::new(ResumeJobResponse { job }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<CancelJobResponse> {
        let job = self.job(&request.get_ref().job_id, |job| job.set_state(JobState::Cancelled))?;
        Ok(Response::new(CancelJobResponse { job }))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        self.0.note(&request, 0, "", "list_jobs").await;
        let jobs = self.0.jobs.lock().unwrap().values().cloned().collect();
        Ok(Response::new(ListJobsResponse { jobs }))
    }

    type WatchJobStream = BoxStream<'static, Result<WatchJobResponse, Status>>;

    async fn watch_job(&self, request: Request<WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        self.0.note(&request, 0, "", "watch_job").await;
        let job_id = request.into_inner().job_id;
        self.job(&job_id, |_| {})?;
        let watch = (Arc::clone(&self.0), job_id, None::<Job>);
        let answers = stream::try_unfold(watch, async |(state, id, last)| {
            if last.as_ref().is_some_and(|job| job.state() > JobState::Paused) {
                return Ok(None);
            }
            loop {
                state.fault()?;
                let Some(job) = state.jobs.lock().unwrap().get(&id).cloned() else { return Ok(None) };
                if last.as_ref() != Some(&job) {
                    let news = WatchJobResponse { job: Some(job.clone()), rate: 12.5, seconds_left: 8 };
                    return Ok(Some((news, (state, id, Some(job)))));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl State {
    /// Sets how far the first job is.
    fn step(&self, done: u64, failed: u64, state: JobState) {
        let mut jobs = self.jobs.lock().unwrap();
        let job = jobs.get_mut(&id(1)).unwrap();
        (job.done, job.failed) = (done, failed);
        job.set_state(state);
    }

    /// What was called.
    fn called(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.detail.clone()).collect()
    }
}

/// A client of a vault with version 1 of a data key.
async fn with_key() -> (Pki, Running, Client) {
    let (pki, server, client) = one().await;
    server.state.keys.lock().unwrap().push(new_key(1, 1));
    (pki, server, client)
}

#[tokio::test]
async fn a_rotation_whose_answer_is_lost_does_not_rotate_twice() {
    let (_pki, server, client) = with_key().await;
    server.state.pass_next();
    server.state.fail_next(unavailable);
    let rotation = client.rotate_key(Purpose::Data, None, &Note::default()).await.unwrap();
    assert_eq!((rotation.key.version, rotation.rotated), (KeyVersion(2), false));
    assert_eq!(server.state.keys.lock().unwrap().len(), 2);
    assert_eq!(server.state.called(), ["list_keys", "rotate_key 1", "rotate_key 1"]);
}

#[tokio::test]
async fn a_rotation_of_a_version_that_was_replaced_does_nothing() {
    let (_pki, server, client) = with_key().await;
    let note = Note::default();
    let first = client.rotate_key(Purpose::Data, Some(KeyVersion(1)), &note).await.unwrap();
    assert!(first.rotated && first.key.version == KeyVersion(2));
    let second = client.rotate_key(Purpose::Data, Some(KeyVersion(1)), &note).await.unwrap();
    assert_eq!((second.rotated, second.key), (false, first.key));
    assert_eq!(server.state.called(), ["rotate_key 1", "rotate_key 1"]);
}

#[tokio::test]
async fn where_there_is_no_active_version_a_rotation_is_not_repeated() {
    let (_pki, server, client) = one().await;
    server.state.pass_next();
    server.state.fail_next(unavailable);
    let lost = client.rotate_key(Purpose::Index, None, &Note::default()).await.err().unwrap();
    assert_eq!(lost.code(), Code::Unavailable);
    assert_eq!(server.state.called(), ["list_keys", "rotate_key 0"]);
}

#[tokio::test]
async fn a_job_that_is_asked_for_again_is_the_one_under_way() {
    let (_pki, server, client) = one().await;
    server.state.fail_next(unavailable);
    let mut order = JobOrder::new(Kind::Reencrypt);
    (order.bytes_per_second, order.kms_calls_per_second) = (5, 6);
    let note = Note { reason: "why".to_owned(), ticket: "T-1".to_owned() };
    let job = client.start_job(&order, &note).await.unwrap();
    assert_eq!((job.kind, job.state, job.total, job.key), (Kind::Reencrypt, Stands::Running, 100, None));
    assert_eq!(server.state.called(), ["start_job 5 6 why T-1", "start_job 5 6 why T-1"]);
    assert_eq!(client.list_jobs().await.unwrap(), std::slice::from_ref(&job));
    assert_eq!(client.pause_job(job.id).await.unwrap().state, Stands::Paused);
    assert_eq!(client.resume_job(job.id).await.unwrap().state, Stands::Running);
    assert_eq!(client.cancel_job(job.id).await.unwrap().state, Stands::Cancelled);
    let unknown = client.cancel_job(id(9).parse().unwrap()).await.err().unwrap();
    assert_eq!(unknown.reason(), Why::NotFound);
}

#[tokio::test]
async fn a_watch_tells_each_change_and_ends_with_the_job() {
    let (_pki, server, client) = one().await;
    let job = client.start_job(&JobOrder::new(Kind::Rewrap), &Note::default()).await.unwrap();
    let mut news = Box::pin(client.watch_job(job.id, PATIENCE).await.unwrap());
    let first = news.next().await.unwrap().unwrap();
    assert_eq!((first.job.done, first.rate, first.left), (0, Some(12.5), Some(Duration::from_secs(8))));
    server.state.step(40, 0, JobState::Running);
    assert_eq!(news.next().await.unwrap().unwrap().job.done, 40);
    server.state.step(100, 0, JobState::Done);
    assert_eq!(news.next().await.unwrap().unwrap().job.state, Stands::Done);
    assert!(news.next().await.is_none());
}

/// Two instances of a vault.
async fn two(pki: &Pki, state: Arc<State>) -> [Running; 2] {
    let other = Arc::new(state.beside());
    [fake::start(pki, state).await, fake::start(pki, other).await]
}

/// Waits until one of them is watched; that one, and the other.
async fn watched(servers: [Running; 2]) -> (Running, Running) {
    let is_watched = |server: &Running| server.state.called().contains(&"watch_job".to_owned());
    loop {
        let [one, other] = &servers;
        match (is_watched(one), is_watched(other)) {
            (false, false) => tokio::time::sleep(Duration::from_millis(5)).await,
            (true, _) => return servers.into(),
            (false, true) => {
                let [one, other] = servers;
                return (other, one);
            }
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_another_endpoint_when_its_own_is_killed() {
    let pki = Pki::new();
    let servers = two(&pki, Arc::default()).await;
    let client = builder(&pki).endpoint(servers[0].uri()).endpoint(servers[1].uri()).connect().unwrap();
    let job = client.start_job(&JobOrder::new(Kind::Rewrap), &Note::default()).await.unwrap();
    let news = client.watch_job(job.id, PATIENCE).await.unwrap();
    // As programs do, in a task of its own.
    let told = tokio::spawn(async move {
        let told: Vec<_> = news.map(|news| news.unwrap().job.done).collect().await;
        told
    });
    let (watched, other) = watched(servers).await;
    watched.kill();
    while !other.state.called().contains(&"watch_job".to_owned()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.state.step(40, 0, JobState::Running);
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.state.step(100, 0, JobState::Done);
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
    assert_eq!(told, [0, 40, 100], "nothing is told twice");
}

#[tokio::test]
async fn a_watch_that_is_refused_ends_and_one_that_breaks_off_goes_on() {
    let (_pki, server, client) = one().await;
    let job = client.start_job(&JobOrder::new(Kind::Rewrap), &Note::default()).await.unwrap();
    let mut news = Box::pin(client.watch_job(job.id, PATIENCE).await.unwrap());
    news.next().await.unwrap().unwrap();
    server.state.fail_next(unavailable);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.state.step(1, 0, JobState::Running);
    assert_eq!(news.next().await.unwrap().unwrap().job.done, 1);
    server.state.fail_next(|| Status::permission_denied("no more"));
    assert_eq!(news.next().await.unwrap().err().unwrap().code(), Code::PermissionDenied);

    let mut news = Box::pin(client.watch_job(job.id, PATIENCE).await.unwrap());
    news.next().await.unwrap().unwrap();
    server.state.jobs.lock().unwrap().clear();
    assert!(news.next().await.is_none(), "another took its place");
}

#[tokio::test]
async fn a_watch_gives_up_when_nobody_answers_for_too_long() {
    let (_pki, server, client) = one().await;
    let job = client.start_job(&JobOrder::new(Kind::Rewrap), &Note::default()).await.unwrap();
    let mut news = Box::pin(client.watch_job(job.id, Duration::from_millis(300)).await.unwrap());
    news.next().await.unwrap().unwrap();
    server.kill();
    let error = news.next().await.unwrap().err().unwrap();
    assert!(error.is_retryable(), "{error}");
}

/// The objects of `--json`.
fn objects(ran: &Output) -> Vec<Value> {
    out(ran).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `vaultctl` and a vault with version 1 of a data key.
async fn cli() -> Setup {
    let setup = setup().await;
    setup.server.state.keys.lock().unwrap().push(new_key(1, 1));
    setup
}

#[tokio::test]
async fn keys_are_listed_and_rotated() {
    let setup = cli().await;
    let ran = setup.run(&["keys", "rotate", "--reason", "yearly"], "").await;
    assert_eq!((code(&ran), err(&ran)), (0, String::new()));
    assert!(out(&ran).contains("active"), "{}", out(&ran));
    let ran = setup.run(&["keys", "rotate", "--version", "1"], "").await;
    assert_eq!(code(&ran), 0);
    assert!(err(&ran).contains("version 2 is active already"), "{}", err(&ran));
    let rotated = objects(&setup.run(&["--json", "keys", "rotate", "--version", "1"], "").await);
    assert_eq!((&rotated[0]["rotated"], &rotated[0]["version"]), (&false.into(), &2.into()));
    let listed = objects(&setup.run(&["--json", "keys", "list", "--count"], "").await);
    let states: Vec<_> = listed.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "retired"]);
    assert_eq!(
        (&listed[0]["records"], &listed[0]["created"]),
        (&7.into(), &"1970-01-01T00:00:01.000Z".into())
    );
    let listed = objects(&setup.run(&["--json", "keys", "list"], "").await);
    assert_eq!(listed[0]["records"], Value::Null, "not counted");
    assert_eq!(out(&setup.run(&["keys", "list"], "").await).lines().count(), 3);
}

#[tokio::test]
async fn a_dry_run_shows_what_there_is_to_do_and_changes_nothing() {
    let setup = cli().await;
    for (command, exit, refused) in [
        (vec!["reencrypt"], 0, Value::Null),
        (vec!["reindex"], 0, Value::Null),
        (vec!["rewrap"], 0, Value::Null),
        (vec!["shred"], 0, Value::Null),
        (vec!["destroy", "00000000000000000000000000000001"], 1, "key_in_use".into()),
    ] {
        let line = [&["--json", "keys"], &command[..], &["--dry-run"]].concat();
        let ran = setup.run(&line, "").await;
        assert_eq!(code(&ran), exit, "{command:?}: {}", err(&ran));
        let shown = &objects(&ran)[0];
        assert_eq!((&shown["kind"], &shown["refused"]), (&command[0].into(), &refused));
        assert_eq!((&shown["items"], &shown["seconds"]), (&100.into(), &90.into()));
    }
    let ran = setup.run(&["keys", "rewrap", "--dry-run"], "").await;
    assert!(out(&ran).contains("1.500000") && out(&ran).contains("1m 30s"), "{}", out(&ran));
    assert!(setup.server.state.called().iter().all(|call| call == "preview_job"));
    assert!(setup.server.state.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn exit_codes_tell_cron_how_a_job_ended() {
    for (failed, state, exit) in [
        (0, JobState::Done, 0),
        (2, JobState::Done, 5),
        (0, JobState::Failed, 5),
        (0, JobState::Cancelled, 5),
        (0, JobState::Paused, 5),
        (0, JobState::Asked, 6),
    ] {
        let setup = cli().await;
        let begun = setup.run(&["keys", "reencrypt", "--bytes-per-second", "9", "--ticket", "T-1"], "").await;
        assert_eq!(code(&begun), 0, "it is under way: {}", err(&begun));
        assert_eq!(setup.server.state.called(), ["start_job 9 0  T-1"]);
        setup.server.state.step(100 - failed, failed, state);
        let ran = setup.run(&["jobs", "watch", &id(1)], "").await;
        assert_eq!(code(&ran), exit, "{state:?}: {}", err(&ran));
        assert_eq!(out(&ran).lines().count(), 1, "{}", out(&ran));
        if (failed, state) == (0, JobState::Done) {
            assert!(out(&ran).contains(": done: 100"), "{}", out(&ran));
        }
    }
    let setup = cli().await;
    let unknown = setup.run(&["jobs", "watch", &id(9)], "").await;
    assert_eq!(code(&unknown), 1, "{}", err(&unknown));
    setup.server.state.fail_next(|| Status::permission_denied("no"));
    assert_eq!(code(&setup.run(&["keys", "list"], "").await), 3);
}

#[tokio::test]
async fn what_can_not_be_undone_needs_a_yes_where_there_is_no_terminal() {
    let setup = cli().await;
    let key = id(1);
    for command in [&["revoke", &key][..], &["destroy", &key], &["shred"]] {
        let line = [&["keys"], command].concat();
        let ran = setup.run(&line, "00000000\ndemo\n").await;
        assert_eq!(code(&ran), 2);
        assert!(err(&ran).contains("--yes"), "{}", err(&ran));
    }
    assert_eq!(setup.server.state.calls(), 0, "nothing was asked of the vault");

    let revoked = setup.run(&["--json", "keys", "revoke", &key, "--yes"], "").await;
    assert_eq!((code(&revoked), &objects(&revoked)[0]["state"]), (0, &"compromised".into()));
    assert_eq!(objects(&revoked)[0]["active"], *id(2));
    let again = setup.run(&["keys", "revoke", &key, "--yes"], "").await;
    assert_eq!((code(&again), out(&again).lines().count()), (0, 3), "both versions: {}", out(&again));
    let command = format!("--tenant demo keys reencrypt --key {key} --watch\n");
    assert!(err(&again).contains(&command) && !err(&again).contains("REFUSED"), "{}", err(&again));
    let asked = setup.run(&["keys", "destroy", &key, "--yes"], "").await;
    assert_eq!(code(&asked), 6, "nothing is destroyed yet");
    let told = err(&asked);
    let theirs = format!("\n    vaultctl --profile YOUR_PROFILE --tenant demo jobs approve {}\n", id(1));
    assert!(told.contains(&theirs), "{told}");
    let mine = format!("profile.toml --tenant demo jobs cancel {}\n", id(1));
    assert!(told.contains(&mine), "{told}");
    let watched = setup.run(&["keys", "shred", "--yes", "--watch"], "").await;
    assert_eq!(code(&watched), 6, "an approval may take days");
    let unseen = setup.run(&["jobs", "approve", &id(1)], "y\n").await;
    assert_eq!(code(&unseen), 2, "{}", err(&unseen));
    assert!(err(&unseen).contains("--yes"), "{}", err(&unseen));
    assert!(!setup.server.state.called().contains(&"approve_job".to_owned()));
    let several = setup.run(&["jobs", "approve", "000000", "--yes"], "").await;
    assert_eq!(code(&several), 2, "{}", err(&several));
    assert!(err(&several).contains(&id(1)) && err(&several).contains(&id(2)), "{}", err(&several));
    assert_eq!(code(&setup.run(&["jobs", "cancel", "ffffff"], "").await), 1);
    let approve = ["--json", "jobs", "approve", &id(1), "--reason", "seen", "--yes"];
    let approved = setup.run(&approve, "").await;
    assert_eq!((code(&approved), &objects(&approved)[0]["approved_by"]), (0, &"admin".into()));
    let shown = err(&approved);
    for part in ["demo", "destroy: ", &id(1), "data, version 1", "7 records", "rotator"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let again = setup.run(&approve, "").await;
    assert_eq!(code(&again), 1, "{}", err(&again));
    assert!(err(&again).contains("it is running"), "{}", err(&again));
    assert_eq!(code(&setup.run(&["jobs", "pause", &id(1)], "").await), 0);
    let resumed = setup.run(&["jobs", "resume", &id(1)], "").await;
    assert_eq!(code(&resumed), 6, "{}", err(&resumed));
    assert!(
        err(&resumed).contains("other than rotator") && err(&resumed).contains(&theirs),
        "{}",
        err(&resumed)
    );
    let cancelled = setup.run(&["--json", "jobs", "cancel", &id(1)], "").await;
    assert_eq!((code(&cancelled), &objects(&cancelled)[0]["state"]), (0, &"cancelled".into()));
    assert_eq!(objects(&setup.run(&["--json", "jobs", "list"], "").await).len(), 2);
}

#[tokio::test]
async fn nobody_waits_for_a_paused_job() {
    let setup = cli().await;
    assert_eq!(code(&setup.run(&["keys", "reencrypt"], "").await), 0);
    assert_eq!(code(&setup.run(&["jobs", "pause", &id(1)], "").await), 0);
    let resume = format!("--tenant demo jobs resume {}\n", id(1));
    for line in [
        &["keys", "reencrypt"][..],
        &["keys", "reencrypt", "--watch"],
        &["keys", "reencrypt", "--watch", "--json"],
        &["jobs", "watch", "000000"],
    ] {
        let ran = setup.run(line, "").await;
        assert_eq!(code(&ran), 5, "{line:?}: {}", err(&ran));
        assert!(err(&ran).contains("is paused") && err(&ran).contains(&resume), "{line:?}: {}", err(&ran));
    }
}

#[tokio::test]
async fn a_version_that_is_revoked_without_another_one_is_told_loudly() {
    let setup = cli().await;
    let line = ["keys", "revoke", &id(1), "--yes", "--ticket", "away"];
    let ran = setup.run(&line, "").await;
    assert_eq!(code(&ran), 1, "{}", out(&ran));
    for part in ["NO VERSION TOOK ITS PLACE", "WRITES OF TENANT demo", "keys rotate --purpose data\n"] {
        assert!(err(&ran).contains(part), "{part}: {}", err(&ran));
    }
    let ran = setup.run(&[&["--json"], &line[..]].concat(), "").await;
    assert_eq!((code(&ran), &objects(&ran)[0]["active"]), (1, &Value::Null));
    assert!(err(&ran).contains("WRITES OF TENANT demo"), "{}", err(&ran));
}

#[tokio::test]
async fn a_watch_of_vaultctl_survives_an_endpoint_and_prints_an_object_a_line() {
    let setup = cli().await;
    assert_eq!(code(&setup.run(&["keys", "rewrap"], "").await), 0);
    let servers = two(setup.pki(), Arc::new(setup.server.state.beside())).await;
    setup.use_endpoints(&[servers[0].uri(), servers[1].uri()]);
    let job = id(1);
    let killing = async {
        let (watched, other) = watched(servers).await;
        watched.kill();
        while !other.state.called().contains(&"watch_job".to_owned()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.state.step(100, 0, JobState::Done);
        other
    };
    let line = ["--json", "jobs", "watch", &job];
    let (ran, _other) = tokio::join!(setup.run(&line, ""), killing);
    assert_eq!(code(&ran), 0, "{}", err(&ran));
    let told = objects(&ran);
    assert_eq!((&told[0]["rate"], &told[0]["seconds_left"]), (&12.5.into(), &8.into()));
    assert_eq!(told.last().unwrap()["state"], "done");
}
