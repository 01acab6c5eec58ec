//! Long work on keys: previewed, begun, approved, paused, resumed, cancelled and watched here; done by workers.

mod approve;

use std::time::Duration;

use crate::access::{Action, Party, PrincipalKind};
use crate::audit::{Actor, AuditAction, Draft, LogError};
use crate::domain::{
    Job, JobBudget, JobId, JobKind, JobOrder, JobPlace, JobProgress, JobState, KeyId, KeyPurpose, KeyRecord,
    KeyState, KmsSet, TenantId, Timestamp,
};
use crate::store::{Lookup, Write};

use super::{Context, Note, Problem, Refused, Vault};

pub use approve::JobApproval;

/// What holds for all jobs.
#[derive(Debug, Clone, Copy)]
pub struct JobRules {
    /// What a job may do in a second if nobody said.
    pub budget: JobBudget,
    /// How long a destruction waits after its approval, so that it can still be cancelled.
    pub waiting: Duration,
    /// What 10,000 calls of the KMS cost, in millionths of a currency; 0 if that is not known.
    pub kms_price: u64,
}

/// A job that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobAsked {
    /// What is to be done.
    pub kind: JobKind,
    /// The version that it is about.
    pub key: Option<KeyId>,
    /// How much it may do in a second; 0: the default.
    pub budget: JobBudget,
}

/// What a job would have to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// Records or keys.
    pub items: u64,
    /// Bytes of records, about.
    pub bytes: u64,
    /// Calls of the KMS.
    pub kms_calls: u64,
    /// What they cost, in millionths; 0 without a configured price.
    pub kms_cost_micros: u64,
    /// How long it takes at the default budget, about.
    pub seconds: u64,
    /// Why it would be refused now.
    pub refused: Option<Problem>,
}

/// What to do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobControl {
    /// Let it rest.
    Pause,
    /// Let it go on.
    Resume,
    /// End it.
    Cancel,
}

impl JobControl {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }

    /// What becomes of a job in a state; `None` if that can't be done with it.
    const fn next(self, state: JobState) -> Option<JobState> {
        match (self, state) {
            (Self::Pause, JobState::Running | JobState::Paused) => Some(JobState::Paused),
            (Self::Resume, JobState::Running | JobState::Paused) => Some(JobState::Running),
            (Self::Cancel, JobState::Asked | JobState::Running | JobState::Paused | JobState::Cancelled) => {
                Some(JobState::Cancelled)
            }
            _ => None,
        }
    }
}

/// The least a job may be held to, in bytes a second.
const LEAST_BYTES: u64 = 64 << 10;
/// How often a change is tried against others who change the same job.
const ATTEMPTS: usize = 16;
/// Records that a preview looks at to tell the size of all.
const SAMPLE: usize = 256;
/// Rows that are counted, or listed, with one look.
const PAGE: usize = 4096;

impl Vault {
    /// What a job would have to do.
    pub async fn preview_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
    ) -> Result<Preview, Refused> {
        let (tenant, draft, asked) = self.asked_of_job(cx, AuditAction::JobRead, tenant, asked).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        self.preview(tenant.as_ref(), &asked).await
    }

    /// Begins a job, or asks for one that needs a second person. The same job that is under way is given as it is.
    pub async fn start_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Job, Refused> {
        let checked = asked.and_then(|asked| note.map(|note| (asked, note)));
        let (asked, note) = match checked {
            Ok((asked, note)) => (Ok(asked), note),
            Err(refused) => (Err(refused), Note::default()),
        };
        let (tenant, mut draft, asked) = self.asked_of_job(cx, AuditAction::JobStart, tenant, asked).await?;
        note.into_draft(&mut draft);
        if needs_approval(asked.kind) && cx.caller.principal.kind != PrincipalKind::Human {
            return Err(self.log_refusal(draft, Vec::new(), Problem::SecondPerson.whole()).await);
        }
        let preview = self.preview(tenant.as_ref(), &asked).await?;
        if let Some(problem) = preview.refused {
            return Err(self.log_refusal(draft, Vec::new(), problem.whole()).await);
        }
        let place = JobPlace { tenant, kind: asked.kind };
        for _ in 0..ATTEMPTS {
            let before = self.parts.store.job(&place).await?;
            if let Some(under_way) = before.as_ref().filter(|job| !job.state.is_over()) {
                let order = &under_way.order;
                if (order.key, order.budget, order.kms_set)
                    == (asked.key, self.budget(asked.budget), self.kms_set(asked.kind))
                {
                    draft.details.push(("job", under_way.id.to_string()));
                    self.parts.log.record(draft, Vec::new()).await?;
                    return Ok(under_way.clone());
                }
                return Err(self.log_refusal(draft, Vec::new(), Problem::JobUnderWay.whole()).await);
            }
            let now = self.parts.clock.now();
            let job = Job {
                id: JobId::random().map_err(|_| Problem::Internal.whole())?,
                place: place.clone(),
                order: JobOrder {
                    key: asked.key,
                    budget: self.budget(asked.budget),
                    asked_by: cx.caller.principal.id.clone(),
                    asked: now,
                    not_before: now,
                    asker: if needs_approval(asked.kind) {
                        Party::of(&cx.caller).to_bytes()
                    } else {
                        Vec::new()
                    },
                    kms_set: self.kms_set(asked.kind),
                },
                state: if needs_approval(asked.kind) { JobState::Asked } else { JobState::Running },
                approved_by: None,
                begun: Timestamp(0),
                changed: now,
                progress: JobProgress { total: preview.items, ..JobProgress::default() },
                cause: String::new(),
                revision: before.map_or(0, |before| before.revision + 1),
            };
            let mut draft = draft.clone();
            draft.details.push(("job", job.id.to_string()));
            if let Some(job) = self.put_job(draft, job).await? {
                return Ok(job);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// Pauses, resumes or cancels a job.
    pub async fn control_job(
        &self,
        cx: &Context,
        tenant: &str,
        job: Result<JobId, Refused>,
        control: JobControl,
    ) -> Result<Job, Refused> {
        const ACTION: AuditAction = AuditAction::JobControl;
        let (tenant, mut draft, id) =
            self.asked_of_place(cx, ACTION, Action::JobControl, tenant, job).await?;
        draft.details.extend([("job", id.to_string()), ("control", control.as_str().to_owned())]);
        for _ in 0..ATTEMPTS {
            let Some(mut job) = self.find_job(tenant.as_ref(), id).await? else {
                let refused = Problem::NotFound.at("job_id");
                return Err(self.log_refusal(draft, Vec::new(), refused).await);
            };
            let Some(state) = control.next(job.state) else {
                return Err(self.log_refusal(draft, Vec::new(), Problem::JobState.whole()).await);
            };
            if state == job.state {
                self.parts.log.record(draft, Vec::new()).await?;
                return Ok(job);
            }
            job.state = state;
            if control == JobControl::Resume && needs_approval(job.place.kind) {
                // Who held it back may have had a reason: it is approved, and waits, anew.
                job.state = JobState::Asked;
                job.approved_by = None;
            }
            if let Some(job) = self.put_job(draft.clone(), next(job, self.parts.clock.now())).await? {
                return Ok(job);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// The newest job of each kind, of a tenant or of all (`*`).
    pub async fn list_jobs(&self, cx: &Context, tenant: &str) -> Result<Vec<Job>, Refused> {
        let all = tenant == "*";
        let (tenant, draft, ()) =
            self.asked_of_place(cx, AuditAction::JobRead, Action::JobRead, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let mut jobs: Vec<Job> = Vec::new();
        if !all {
            for kind in JobKind::ALL {
                jobs.extend(self.parts.store.job(&JobPlace { tenant: tenant.clone(), kind: *kind }).await?);
            }
            return Ok(jobs);
        }
        loop {
            let page = self.parts.store.jobs(jobs.last().map(|job| &job.place), PAGE).await?;
            if page.is_empty() {
                return Ok(jobs);
            }
            jobs.extend(page);
        }
    }

    /// A job, for who begins to watch it.
    pub async fn watched_job(
        &self,
        cx: &Context,
        tenant: &str,
        job: Result<JobId, Refused>,
    ) -> Result<Job, Refused> {
        const ACTION: AuditAction = AuditAction::JobRead;
        let (tenant, mut draft, id) = self.asked_of_place(cx, ACTION, Action::JobRead, tenant, job).await?;
        draft.details.push(("job", id.to_string()));
        let Some(job) = self.find_job(tenant.as_ref(), id).await? else {
            let refused = Problem::NotFound.at("job_id");
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        };
        self.parts.log.record(draft, Vec::new()).await?;
        Ok(job)
    }

    /// The same job as it stands now, for who watches it; `None` if another took its place.
    pub async fn look_again(&self, job: &Job) -> Result<Option<Job>, Refused> {
        Ok(self.parts.store.job(&job.place).await?.filter(|now| now.id == job.id))
    }

    /// As [`Vault::asked`], for a job of a kind.
    async fn asked_of_job(
        &self,
        cx: &Context,
        audit: AuditAction,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
    ) -> Result<(Option<TenantId>, Draft, JobAsked), Refused> {
        let asked = asked.and_then(fitting);
        // What can't be read is not allowed by what it would need.
        let action = asked.as_ref().map_or(Action::JobRead, |asked| Action::of_job(asked.kind));
        let (place, mut draft, asked) = match &asked {
            // The vault's own keys have wraps, too.
            Ok(JobAsked { kind: JobKind::Rewrap, .. }) | Err(_) => {
                self.asked_of_place(cx, audit, action, tenant, asked).await?
            }
            Ok(_) => {
                let (tenant, draft, asked) = self.asked(cx, audit, action, tenant, asked).await?;
                (Some(tenant), draft, asked)
            }
        };
        draft.details.push(("kind", asked.kind.as_str().to_owned()));
        if let Some(key) = asked.key {
            draft.details.push(("key", key.to_string()));
        }
        Ok((place, draft, asked))
    }

    /// As [`Vault::asked`], where `*` is the vault as a whole.
    pub(super) async fn asked_of_place<T>(
        &self,
        cx: &Context,
        audit: AuditAction,
        action: Action,
        tenant: &str,
        fields: Result<T, Refused>,
    ) -> Result<(Option<TenantId>, Draft, T), Refused> {
        if tenant != "*" {
            let (tenant, draft, fields) = self.asked(cx, audit, action, tenant, fields).await?;
            return Ok((Some(tenant), draft, fields));
        }
        let draft = self.vault_wide(cx, audit, action).await?;
        match fields {
            Ok(fields) => Ok((None, draft, fields)),
            Err(refused) => Err(self.log_refusal(draft, Vec::new(), refused).await),
        }
    }

    async fn find_job(&self, tenant: Option<&TenantId>, id: JobId) -> Result<Option<Job>, Refused> {
        for kind in JobKind::ALL {
            let place = JobPlace { tenant: tenant.cloned(), kind: *kind };
            if let Some(job) = self.parts.store.job(&place).await?.filter(|job| job.id == id) {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// `None`: it was changed meanwhile; look again.
    async fn put_job(&self, draft: Draft, job: Job) -> Result<Option<Job>, Refused> {
        match self.parts.log.commit(draft, Vec::new(), vec![Write::PutJob(job.clone())]).await {
            Ok(_) => Ok(Some(job)),
            Err(LogError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a re-wrap is ordered with: an instance with other KMS keys does not do it.
    fn kms_set(&self, kind: JobKind) -> Option<KmsSet> {
        (kind == JobKind::Rewrap).then(|| self.parts.keyring.kms_set())
    }

    fn budget(&self, asked: JobBudget) -> JobBudget {
        let usual = self.parts.jobs.budget;
        JobBudget {
            bytes: if asked.bytes == 0 { usual.bytes } else { asked.bytes },
            kms_calls: if asked.kms_calls == 0 { usual.kms_calls } else { asked.kms_calls },
        }
    }

    async fn preview(&self, tenant: Option<&TenantId>, asked: &JobAsked) -> Result<Preview, Refused> {
        let keyring = &self.parts.keyring;
        let Some(tenant) = tenant else {
            let mut preview = Preview::default();
            for purpose in KeyPurpose::of(None) {
                preview.items += keyring.list(None, *purpose).await?.len() as u64;
            }
            return Ok(self.priced(None, preview));
        };
        let data = keyring.list(Some(tenant), KeyPurpose::Data).await?;
        let index = keyring.list(Some(tenant), KeyPurpose::Index).await?;
        let there = |keys: &[KeyRecord]| keys.iter().filter(|key| key.state != KeyState::Destroyed).count();
        let mut preview = Preview::default();
        if data.is_empty() && index.is_empty() {
            preview.refused = Some(Problem::NotFound);
            return Ok(preview);
        }
        let chosen = asked.key.map(|id| data.iter().chain(&index).find(|key| key.id == id));
        match asked.kind {
            JobKind::Reencrypt => {
                preview.refused = chosen.and_then(|key| match key {
                    None => Some(Problem::NotFound),
                    Some(key) if key.purpose != KeyPurpose::Data => Some(Problem::KeyState),
                    Some(key) => match key.state {
                        KeyState::Active => Some(Problem::KeyActive),
                        KeyState::Destroyed => Some(Problem::KeyDestroyed),
                        KeyState::Retired | KeyState::Compromised => None,
                    },
                });
                let one = |key: &&KeyRecord| match asked.key {
                    Some(id) => key.id == id,
                    None => matches!(key.state, KeyState::Retired | KeyState::Compromised),
                };
                for key in data.iter().filter(one) {
                    let count = self.parts.store.count_of_key(key.id).await?;
                    preview.items += count;
                    preview.bytes += count * self.usual_size(key.id).await?;
                    preview.kms_calls += 1;
                }
                preview.kms_calls += 1;
            }
            JobKind::Reindex => {
                let active = data.iter().find(|key| key.state == KeyState::Active);
                preview.items = self.count_indexed(tenant, &index).await?;
                let size = match active {
                    Some(key) => self.usual_size(key.id).await?,
                    None => 0,
                };
                preview.bytes = preview.items * size;
                preview.kms_calls = there(&data) as u64 + 1;
            }
            JobKind::Rewrap => preview.items = (there(&data) + there(&index)) as u64,
            JobKind::Destroy => {
                preview.items = 1;
                preview.refused = match chosen.flatten() {
                    None => Some(Problem::NotFound),
                    Some(key) if key.purpose != KeyPurpose::Data => Some(Problem::KeyState),
                    Some(key) => match key.state {
                        KeyState::Active => Some(Problem::KeyActive),
                        KeyState::Destroyed => Some(Problem::KeyDestroyed),
                        KeyState::Retired | KeyState::Compromised => {
                            let records = self.parts.store.count_of_key(key.id).await?;
                            (records > 0).then_some(Problem::KeyInUse)
                        }
                    },
                };
            }
            JobKind::Shred => {
                preview.items = (there(&data) + there(&index)) as u64;
                preview.refused = (preview.items == 0).then_some(Problem::KeyDestroyed);
            }
        }
        if asked.kind == JobKind::Rewrap {
            return Ok(self.priced(Some(tenant), preview));
        }
        let rules = &self.parts.jobs;
        preview.seconds = preview.bytes.checked_div(rules.budget.bytes).unwrap_or(0);
        preview.kms_cost_micros = preview.kms_calls * rules.kms_price / 10_000;
        Ok(preview)
    }

    /// A rewrap: every wrap is opened, a missing one made and opened.
    fn priced(&self, tenant: Option<&TenantId>, preview: Preview) -> Preview {
        let rules = &self.parts.jobs;
        let kms_calls = preview.items * (1 + 2 * self.parts.keyring.kms_keys(tenant));
        Preview {
            kms_calls,
            kms_cost_micros: kms_calls * rules.kms_price / 10_000,
            seconds: kms_calls.checked_div(u64::from(rules.budget.kms_calls)).unwrap_or(0),
            ..preview
        }
    }

    /// About how many bytes a record under a key has.
    async fn usual_size(&self, key: KeyId) -> Result<u64, Refused> {
        let tokens = self.parts.store.tokens_of_key(key, None, SAMPLE).await?;
        let lookups = self.parts.store.records(&tokens).await?;
        let sizes = lookups.iter().filter_map(|lookup| match lookup {
            Lookup::Found(record) => Some(record.sealed_len() as u64),
            Lookup::Missing | Lookup::Corrupt => None,
        });
        let sizes: Vec<u64> = sizes.collect();
        Ok(sizes.iter().sum::<u64>().checked_div(sizes.len() as u64).unwrap_or(0))
    }

    /// Records whose index another version than the active one made.
    async fn count_indexed(&self, tenant: &TenantId, keys: &[KeyRecord]) -> Result<u64, Refused> {
        let old = |key: &&KeyRecord| matches!(key.state, KeyState::Retired | KeyState::Compromised);
        let mut count = 0;
        for key in keys.iter().filter(old) {
            for class in self.parts.classes.iter().filter(|class| class.indexed()) {
                let mut after = None;
                loop {
                    let store = &self.parts.store;
                    let page = store.indexed_under(tenant, class.name(), key.version, after, PAGE).await?;
                    count += page.len() as u64;
                    after = page.last().copied();
                    if page.len() < PAGE {
                        break;
                    }
                }
            }
        }
        Ok(count)
    }
}

impl Note {
    pub(super) fn into_draft(self, draft: &mut Draft) {
        draft.reason = self.reason;
        draft.ticket = self.ticket;
    }
}

/// The entry of something that a worker does with a job.
pub fn job_draft(job: &Job, action: AuditAction) -> Draft {
    let request = crate::domain::RequestId::from_bytes(*job.id.as_bytes());
    let mut draft = Draft::new(request, action, Actor::vault());
    draft.tenant.clone_from(&job.place.tenant);
    draft.details = vec![
        ("job", job.id.to_string()),
        ("kind", job.place.kind.as_str().to_owned()),
        ("asked_by", job.order.asked_by.to_string()),
    ];
    if let Some(key) = job.order.key {
        draft.details.push(("key", key.to_string()));
    }
    if let Some(approver) = &job.approved_by {
        draft.details.push(("approved_by", approver.to_string()));
    }
    draft
}

fn needs_approval(kind: JobKind) -> bool {
    matches!(kind, JobKind::Destroy | JobKind::Shred)
}

/// A key where there must be one, and none where there can't be.
fn fitting(asked: JobAsked) -> Result<JobAsked, Refused> {
    match (asked.kind, asked.key) {
        (JobKind::Destroy, None) => Err(Problem::Field("the key to destroy").at("key_id")),
        _ if (1..LEAST_BYTES).contains(&asked.budget.bytes) => {
            // A job that takes for ever is in the way of others.
            Err(Problem::Field("at least 65536").at("bytes_per_second"))
        }
        (JobKind::Reindex | JobKind::Rewrap | JobKind::Shred, Some(_)) => {
            Err(Problem::Field("empty for this kind of job").at("key_id"))
        }
        _ => Ok(asked),
    }
}

fn next(job: Job, now: Timestamp) -> Job {
    Job { changed: now, revision: job.revision + 1, ..job }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
}
