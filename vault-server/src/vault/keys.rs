//! The life of a tenant's keys, as rotators and admins steer it. The long work is done by workers ([`crate::jobs`]).

use crate::domain::{Job, JobBudget, JobId, JobKind, KeyId, KeyPurpose, KeyRecord, KeyVersion};

use super::{Context, Note, Problem, Refused, Vault};

/// One version of a key, and how much is sealed under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The version.
    pub key: KeyRecord,
    /// Records that are sealed under it, if they were counted.
    pub records: u64,
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

impl Vault {
    /// All versions of a tenant's keys, newest first.
    pub async fn list_keys(&self, cx: &Context, tenant: &str, count: bool) -> Result<Vec<KnownKey>, Refused> {
        let _ = (cx, tenant, count);
        Err(Problem::Internal.whole())
    }

    /// Makes a new active version; whether this call made it. `version`: the one to replace.
    pub async fn rotate_key(
        &self,
        cx: &Context,
        tenant: &str,
        purpose: Result<KeyPurpose, Refused>,
        version: Option<KeyVersion>,
        note: Result<Note, Refused>,
    ) -> Result<(KnownKey, bool), Refused> {
        let _ = (cx, tenant, purpose, version, note);
        Err(Problem::Internal.whole())
    }

    /// Marks a version as compromised.
    pub async fn mark_compromised(
        &self,
        cx: &Context,
        tenant: &str,
        key: Result<KeyId, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<KnownKey, Refused> {
        let _ = (cx, tenant, key, note);
        Err(Problem::Internal.whole())
    }

    /// What a job would have to do.
    pub async fn preview_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
    ) -> Result<Preview, Refused> {
        let _ = (cx, tenant, asked);
        Err(Problem::Internal.whole())
    }

    /// Begins a job, or asks for one that needs a second person.
    pub async fn start_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobAsked, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Job, Refused> {
        let _ = (cx, tenant, asked, note);
        Err(Problem::Internal.whole())
    }

    /// Approves a job.
    pub async fn approve_job(
        &self,
        cx: &Context,
        tenant: &str,
        job: Result<JobId, Refused>,
        note: Result<Note, Refused>,
    ) -> Result<Job, Refused> {
        let _ = (cx, tenant, job, note);
        Err(Problem::Internal.whole())
    }

    /// Pauses, resumes or cancels a job.
    pub async fn control_job(
        &self,
        cx: &Context,
        tenant: &str,
        job: Result<JobId, Refused>,
        control: JobControl,
    ) -> Result<Job, Refused> {
        let _ = (cx, tenant, job, control);
        Err(Problem::Internal.whole())
    }

    /// The newest job of each kind, of a tenant or of all (`*`).
    pub async fn list_jobs(&self, cx: &Context, tenant: &str) -> Result<Vec<Job>, Refused> {
        let _ = (cx, tenant);
        Err(Problem::Internal.whole())
    }

    /// A job, for who watches it: put on record by [`Vault::list_jobs`]'s rules, once for a whole stream.
    pub async fn watched_job(
        &self,
        cx: &Context,
        tenant: &str,
        job: Result<JobId, Refused>,
    ) -> Result<Job, Refused> {
        let _ = (cx, tenant, job);
        Err(Problem::Internal.whole())
    }

    /// The same job as it stands now; `None` if another took its place.
    pub async fn look_again(&self, job: &Job) -> Result<Option<Job>, Refused> {
        let _ = job;
        Err(Problem::Internal.whole())
    }
}
