//! Long work on keys: previewed, begun, approved, paused, resumed, cancelled and watched here; done by workers.

mod approve;
mod control;
mod preview;
mod read;
mod start;

use std::time::Duration;

use crate::access::Action;
use crate::audit::{Actor, AuditAction, Draft, LogError};
use crate::domain::{Job, JobBudget, JobId, JobKind, JobPlace, KeyId, TenantId, Timestamp};
use crate::store::{StoreError, Write};

use super::{Context, Note, Problem, Refused, Vault};

pub use approve::JobApproval;
pub use control::JobControl;
pub use preview::Preview;

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

/// The least a job may be held to, in bytes a second.
const LEAST_BYTES: u64 = 64 << 10;
/// How often a change is tried against others who change the same job.
const ATTEMPTS: usize = 16;
/// Rows that are counted, or listed, with one look.
const PAGE: usize = 4096;

impl Vault {
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
        let (jobs, unread) = self.jobs_of(tenant).await?;
        let found = jobs.into_iter().find(|job| job.id == id);
        // It may be the one that is asked for.
        if found.is_none() { unread.map_or(Ok(None), |error| Err(error.into())) } else { Ok(found) }
    }

    /// The newest job of each kind, of a tenant or the vault's own, and what is amiss with one whose row can't be read. That
    /// one is in the way of no other: workers carry the others out, so somebody must be able to cancel them.
    async fn jobs_of(&self, tenant: Option<&TenantId>) -> Result<(Vec<Job>, Option<StoreError>), Refused> {
        let (mut jobs, mut unread) = (Vec::new(), None);
        for kind in JobKind::ALL {
            match self.parts.store.job(&JobPlace { tenant: tenant.cloned(), kind: *kind }).await {
                Ok(job) => jobs.extend(job),
                Err(StoreError::Corrupt { what }) => unread = Some(passed_over(what)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((jobs, unread))
    }

    /// `None`: it was changed meanwhile; look again.
    async fn put_job(&self, draft: Draft, job: Job) -> Result<Option<Job>, Refused> {
        match self.parts.log.commit(draft, Vec::new(), vec![Write::PutJob(job.clone())]).await {
            Ok(_) => Ok(Some(job)),
            Err(LogError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
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

/// Tells of a job's row that can't be read.
fn passed_over(what: String) -> StoreError {
    tracing::warn!(row = what, "a job's row is not what was written: it is passed over");
    StoreError::Corrupt { what }
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

#[cfg(test)]
mod altered_tests;
