//! `vault.v1.KeyService`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use tonic::{Request, Response, Status};
use vault_proto::v1;
use vault_proto::v1::key_service_server::KeyService;

use crate::access::{Action, Credential};
use crate::audit::AuditAction;
use crate::domain::{Job, JobKind, JobState, KeyPurpose, KeyState, KeyVersion, TenantId};
use crate::vault::{Context, JobApproval, JobControl, KnownKey, Note, Preview, Refused, Vault};

use super::break_glass::given;
use super::serve::serve;
use super::status::status;
use super::{parse, peer};

/// How often a watched job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked whether who watches still may.
const ASK_EVERY: Duration = Duration::from_secs(3);

pub(super) struct KeyApi {
    vault: Arc<Vault>,
}

impl KeyApi {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

/// Pauses, resumes or cancels; what comes of it.
async fn control(
    vault: &Vault,
    cx: &Context,
    tenant: &str,
    job_id: &str,
    control: JobControl,
) -> Result<Option<v1::Job>, Refused> {
    let job = vault.control_job(cx, tenant, parse::job_id(job_id), control).await?;
    Ok(Some(wire_job(&job)))
}

#[tonic::async_trait]
impl KeyService for KeyApi {
    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        serve(&self.vault, AuditAction::KeyList, request, async |vault, cx, request| {
            let keys = vault.list_keys(cx, &request.tenant, request.count_records).await?;
            Ok(v1::ListKeysResponse { keys: keys.into_iter().map(wire_key).collect() })
        })
        .await
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        serve(&self.vault, AuditAction::KeyRotate, request, async |vault, cx, request| {
            let purpose = parse::key_purpose(request.purpose);
            let version = (request.version != 0).then_some(KeyVersion(request.version));
            let note = Note::parse(request.reason, request.ticket);
            let (key, rotated) = vault.rotate_key(cx, &request.tenant, purpose, version, note).await?;
            Ok(v1::RotateKeyResponse { key: Some(wire_key(key)), rotated })
        })
        .await
    }

    async fn mark_compromised(
        &self,
        request: Request<v1::MarkCompromisedRequest>,
    ) -> Result<Response<v1::MarkCompromisedResponse>, Status> {
        serve(&self.vault, AuditAction::KeyCompromise, request, async |vault, cx, request| {
            let key = parse::key_id(&request.key_id);
            let note = Note::parse(request.reason, request.ticket);
            let key = vault.mark_compromised(cx, &request.tenant, key, note).await?;
            Ok(v1::MarkCompromisedResponse { key: Some(wire_key(key)) })
        })
        .await
    }

    async fn preview_job(
        &self,
        request: Request<v1::PreviewJobRequest>,
    ) -> Result<Response<v1::PreviewJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobRead, request, async |vault, cx, request| {
            let v1::PreviewJobRequest { kind, key_id, bytes_per_second, kms_calls_per_second, .. } = &request;
            let asked = parse::job_asked(*kind, key_id, *bytes_per_second, *kms_calls_per_second);
            Ok(wire_preview(vault.preview_job(cx, &request.tenant, asked).await?))
        })
        .await
    }

    async fn start_job(
        &self,
        request: Request<v1::StartJobRequest>,
    ) -> Result<Response<v1::StartJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobStart, request, async |vault, cx, request| {
            let v1::StartJobRequest { kind, key_id, bytes_per_second, kms_calls_per_second, .. } = &request;
            let asked = parse::job_asked(*kind, key_id, *bytes_per_second, *kms_calls_per_second);
            let note = Note::parse(request.reason, request.ticket);
            let job = vault.start_job(cx, &request.tenant, asked, note).await?;
            Ok(v1::StartJobResponse { job: Some(wire_job(&job)) })
        })
        .await
    }

    async fn approve_job(
        &self,
        request: Request<v1::ApproveJobRequest>,
    ) -> Result<Response<v1::ApproveJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobApprove, request, async |vault, cx, mut request| {
            let factor = request.second_factor.take();
            let factor = given(factor, &request);
            let asked = factor.and_then(|factor| {
                let (id, note) =
                    (parse::job_id(&request.job_id)?, Note::parse(request.reason, request.ticket)?);
                Ok(JobApproval { id, note, factor })
            });
            let job = vault.approve_job(cx, &request.tenant, asked).await?;
            Ok(v1::ApproveJobResponse { job: Some(wire_job(&job)) })
        })
        .await
    }

    async fn pause_job(
        &self,
        request: Request<v1::PauseJobRequest>,
    ) -> Result<Response<v1::PauseJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobControl, request, async |vault, cx, request| {
            let v1::PauseJobRequest { tenant, job_id } = request;
            let job = control(vault, cx, &tenant, &job_id, JobControl::Pause).await?;
            Ok(v1::PauseJobResponse { job })
        })
        .await
    }

    async fn resume_job(
        &self,
        request: Request<v1::ResumeJobRequest>,
    ) -> Result<Response<v1::ResumeJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobControl, request, async |vault, cx, request| {
            let v1::ResumeJobRequest { tenant, job_id } = request;
            let job = control(vault, cx, &tenant, &job_id, JobControl::Resume).await?;
            Ok(v1::ResumeJobResponse { job })
        })
        .await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        serve(&self.vault, AuditAction::JobControl, request, async |vault, cx, request| {
            let v1::CancelJobRequest { tenant, job_id } = request;
            let job = control(vault, cx, &tenant, &job_id, JobControl::Cancel).await?;
            Ok(v1::CancelJobResponse { job })
        })
        .await
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        serve(&self.vault, AuditAction::JobRead, request, async |vault, cx, request| {
            let jobs = vault.list_jobs(cx, &request.tenant).await?;
            Ok(v1::ListJobsResponse { jobs: jobs.iter().map(wire_job).collect() })
        })
        .await
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let credential = peer::credential(request.extensions())?;
        serve(&self.vault, AuditAction::JobRead, request, async |vault, cx, request| {
            let job = parse::job_id(&request.job_id);
            let job = vault.watched_job(cx, &request.tenant, job).await?;
            Ok(Watch::new(Arc::clone(vault), Arc::clone(&credential), job).into_stream())
        })
        .await
    }
}

/// Somebody watches a job.
struct Watch {
    vault: Arc<Vault>,
    credential: Arc<Credential>,
    job: Job,
    pace: Pace,
    /// Whether the job's state at the beginning was told.
    begun: bool,
    /// When it was last asked whether the watcher may.
    asked: Instant,
}

impl Watch {
    fn new(vault: Arc<Vault>, credential: Arc<Credential>, job: Job) -> Self {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.note(now, &job);
        Self { vault, credential, job, pace, begun: false, asked: now }
    }

    fn into_stream(self) -> Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>> {
        Box::pin(futures::stream::try_unfold(self, async |mut watch| {
            let news = watch.next().await.map_err(|refused| status(&refused))?;
            Ok(news.map(|news| (news, watch)))
        }))
    }

    /// The next change; `None` once there can be none.
    async fn next(&mut self) -> Result<Option<v1::WatchJobResponse>, Refused> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(Some(self.news()));
        }
        while !self.job.state.is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.asked.elapsed() >= ASK_EVERY {
                let tenant = self.job.place.tenant.as_ref();
                self.vault.enter_for(&self.credential, AuditAction::JobRead, Action::JobRead, tenant).await?;
                self.asked = Instant::now();
            }
            let Some(job) = self.vault.look_again(&self.job).await? else { return Ok(None) };
            self.pace.note(Instant::now(), &job);
            if job != self.job {
                self.job = job;
                return Ok(Some(self.news()));
            }
        }
        Ok(None)
    }

    fn news(&self) -> v1::WatchJobResponse {
        let rate = self.pace.rate();
        let seconds_left = seconds_left(&self.job, rate);
        v1::WatchJobResponse { job: Some(wire_job(&self.job)), rate, seconds_left }
    }
}

/// How fast a job is, from how far it was at times of late.
#[derive(Default)]
struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// How far back it looks.
    const LATELY: Duration = Duration::from_secs(10);
    /// What lies nearer together tells nothing.
    const LEAST: Duration = Duration::from_secs(1);

    fn note(&mut self, now: Instant, job: &Job) {
        if job.state != JobState::Running {
            self.0.clear();
            return;
        }
        self.0.push_back((now, tried(job)));
        // One that is older stays, so that the whole time is covered.
        while self.0.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= Self::LATELY) {
            self.0.pop_front();
        }
    }

    /// Items a second; 0 if it is not known.
    fn rate(&self) -> f64 {
        let (Some((from, before)), Some((to, now))) = (self.0.front(), self.0.back()) else { return 0.0 };
        let time = to.duration_since(*from);
        if time < Self::LEAST {
            return 0.0;
        }
        let items = u32::try_from(now.saturating_sub(*before)).unwrap_or(u32::MAX);
        f64::from(items) / time.as_secs_f64()
    }
}

fn tried(job: &Job) -> u64 {
    job.progress.done.saturating_add(job.progress.failed)
}

/// About how long a job still takes; 0 if that is not known.
fn seconds_left(job: &Job, rate: f64) -> u64 {
    let left = job.progress.total.saturating_sub(tried(job));
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    if rate <= 0.0 || left == 0 {
        return 0;
    }
    Duration::try_from_secs_f64((f64::from(left) / rate).ceil()).map_or(u64::MAX, |left| left.as_secs())
}

/// Jobs and keys of no tenant are the vault's own.
fn wire_tenant(tenant: Option<&TenantId>) -> String {
    tenant.map_or("*", TenantId::as_str).to_owned()
}

fn wire_key(KnownKey { key, records, strays }: KnownKey) -> v1::Key {
    let purpose = match key.purpose {
        KeyPurpose::Data => v1::KeyPurpose::Data,
        KeyPurpose::Index => v1::KeyPurpose::Index,
        KeyPurpose::LogSigning => v1::KeyPurpose::LogSigning,
        KeyPurpose::RowMac => v1::KeyPurpose::RowMac,
    };
    let state = match key.state {
        KeyState::Active => v1::KeyState::Active,
        KeyState::Retired => v1::KeyState::Retired,
        KeyState::Compromised => v1::KeyState::Compromised,
        KeyState::Destroyed => v1::KeyState::Destroyed,
    };
    v1::Key {
        key_id: key.id.to_string(),
        purpose: purpose.into(),
        version: key.version.0,
        state: state.into(),
        created_us: key.created.0,
        wrapped_by: key.wraps.into_iter().map(|wrap| wrap.wrapping_key).collect(),
        records,
        tenant: wire_tenant(key.tenant.as_ref()),
        stray_wraps: strays,
    }
}

fn wire_job(job: &Job) -> v1::Job {
    let kind = match job.place.kind {
        JobKind::Reencrypt => v1::JobKind::Reencrypt,
        JobKind::Reindex => v1::JobKind::Reindex,
        JobKind::Rewrap => v1::JobKind::Rewrap,
        JobKind::Destroy => v1::JobKind::Destroy,
        JobKind::Shred => v1::JobKind::Shred,
    };
    let state = match job.state {
        JobState::Asked => v1::JobState::Asked,
        JobState::Running => v1::JobState::Running,
        JobState::Paused => v1::JobState::Paused,
        JobState::Done => v1::JobState::Done,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    };
    let Job { order, progress, .. } = job;
    v1::Job {
        job_id: job.id.to_string(),
        tenant: wire_tenant(job.place.tenant.as_ref()),
        kind: kind.into(),
        state: state.into(),
        key_id: order.key.map(|key| key.to_string()).unwrap_or_default(),
        asked_by: order.asked_by.to_string(),
        approved_by: job.approved_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        asked_us: order.asked.0,
        not_before_us: order.not_before.0,
        begun_us: job.begun.0,
        changed_us: job.changed.0,
        total: progress.total,
        done: progress.done,
        failed: progress.failed,
        bytes: progress.bytes,
        kms_calls: progress.kms_calls,
        cause: job.cause.clone(),
        bytes_per_second: order.budget.bytes,
        kms_calls_per_second: order.budget.kms_calls,
    }
}

fn wire_preview(preview: Preview) -> v1::PreviewJobResponse {
    let Preview { items, bytes, kms_calls, kms_cost_micros, seconds, refused } = preview;
    let refused = refused.map(|problem| problem.cause().to_owned()).unwrap_or_default();
    v1::PreviewJobResponse { items, bytes, kms_calls, kms_cost_micros, seconds, refused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobBudget, JobId, JobOrder, JobPlace, JobProgress, PrincipalId, Timestamp};

    fn job(done: u64, failed: u64) -> Job {
        Job {
            id: JobId::from_bytes([0xab; 16]),
            place: JobPlace { tenant: None, kind: JobKind::Rewrap },
            order: JobOrder {
                key: None,
                budget: JobBudget { bytes: 7, kms_calls: 8 },
                asked_by: PrincipalId::parse("rotator").unwrap(),
                asked: Timestamp(1),
                not_before: Timestamp(2),
                asker: Vec::new(),
                kms_set: None,
            },
            state: JobState::Running,
            approved_by: None,
            begun: Timestamp(3),
            changed: Timestamp(4),
            progress: JobProgress { total: 1_000, done, failed, bytes: 5, kms_calls: 6 },
            cause: String::new(),
            revision: 9,
        }
    }

    /// A pace after these counts, a second apart.
    fn pace(done: impl IntoIterator<Item = u64>) -> Pace {
        let (start, mut pace) = (Instant::now(), Pace::default());
        for (second, done) in (0..).zip(done) {
            pace.note(start + Duration::from_secs(second), &job(done, 0));
        }
        pace
    }

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        let late =
            pace((0..30).map(|second: u64| if second < 15 { second * 100 } else { 1_500 + second * 10 }));
        assert!((late.rate() - 10.0).abs() < 1e-9, "{}", late.rate());
        assert!(late.0.len() <= 12, "what is older is forgotten");
    }

    #[test]
    fn without_two_moments_or_progress_nothing_is_known_of_the_end() {
        assert_eq!(seconds_left(&job(10, 0), pace([]).rate()), 0);
        assert_eq!(seconds_left(&job(10, 0), pace([10]).rate()), 0);
        assert_eq!(seconds_left(&job(10, 0), pace([10, 10, 10]).rate()), 0);
        assert_eq!(seconds_left(&job(10, 5), 10.0), 99, "rounded up; failed ones are not tried again");
        assert_eq!(seconds_left(&job(2_000, 0), 10.0), 0, "more came than there were");
    }

    #[test]
    fn a_pause_is_not_counted_into_the_rate() {
        let mut pace = pace([0, 100, 200]);
        let paused = Job { state: JobState::Paused, ..job(200, 0) };
        pace.note(Instant::now() + Duration::from_secs(3), &paused);
        assert!(pace.0.is_empty() && pace.rate() <= 0.0);
    }

    #[test]
    fn a_job_goes_to_the_wire_with_all_that_is_known_of_it() {
        let wire = wire_job(&job(10, 1));
        assert_eq!((wire.job_id.as_str(), wire.tenant.as_str()), (&*"ab".repeat(16), "*"));
        assert_eq!((wire.kind(), wire.state()), (v1::JobKind::Rewrap, v1::JobState::Running));
        assert_eq!((wire.asked_us, wire.not_before_us, wire.begun_us, wire.changed_us), (1, 2, 3, 4));
        assert_eq!((wire.total, wire.done, wire.failed, wire.bytes, wire.kms_calls), (1_000, 10, 1, 5, 6));
        assert_eq!((wire.bytes_per_second, wire.kms_calls_per_second), (7, 8));
        assert_eq!((wire.asked_by.as_str(), wire.approved_by.as_str()), ("rotator", ""));
    }
}
