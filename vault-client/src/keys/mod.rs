//! The life of a tenant's keys and the jobs on them, for rotators and admins. No value and no key is ever seen here.
//!
//! ```no_run
//! use vault_client::keys::{JobKind, JobOrder, KeyPurpose, Note};
//! use futures::StreamExt as _;
//! use std::time::Duration;
//!
//! # async fn example(vault: vault_client::Client) -> Result<(), vault_client::Error> {
//! let note = Note { reason: "yearly".to_owned(), ticket: "SEC-7".to_owned() };
//! let key = vault.rotate_key(KeyPurpose::Data, None, &note).await?.key;
//! println!("version {} is active", key.version);
//!
//! // And all that is sealed under older versions, sealed anew:
//! let order = JobOrder::new(JobKind::Reencrypt);
//! println!("{} records", vault.preview_job(&order).await?.items);
//! let job = vault.start_job(&order, &note).await?;
//! let mut news = std::pin::pin!(vault.watch_job(job.id, Duration::from_mins(2)).await?);
//! while let Some(news) = news.next().await {
//!     let job = news?.job;
//!     println!("{}: {} of {}", job.state, job.done, job.total);
//! }
//! # Ok(()) }
//! ```
//!
//! All calls are about the tenant of the [`Client`]: see [`Client::for_tenant`]. All but one are safe to repeat, and are
//! repeated when the vault is not available; [`Client::rotate_key`] says what it does about that.

mod model;
mod watch;

use vault_proto::v1 as wire;

pub use model::{
    InvalidId, Job, JobId, JobKind, JobNews, JobOrder, JobState, Key, KeyId, KeyPurpose, KeyState,
    KeyVersion, Note, Preview, Rotation,
};

use crate::client::Client;
use crate::error::Error;
use crate::second_factor::{SecondFactor, SecondFactorAction, request_hash};
use model::{job, key, some_job, some_key, some_text};

/// An approval of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobApproval(wire::ApproveJobRequest);

impl JobApproval {
    /// What the second factor is for: see [`Client::begin_second_factor`].
    pub const fn action(&self) -> SecondFactorAction {
        SecondFactorAction::JobApprove
    }

    /// What it is bound to: every byte of the request.
    pub fn hash(&self) -> [u8; 32] {
        request_hash(&self.0)
    }
}

impl Client {
    /// All versions of the tenant's keys, newest first. `count`: with the records under each, for which the vault looks
    /// at all of them.
    pub async fn list_keys(&self, count: bool) -> Result<Vec<Key>, Error> {
        let request = wire::ListKeysRequest { tenant: self.tenant(), count_records: count };
        let answer = self.call_keys(request, async |mut keys, request| keys.list_keys(request).await).await?;
        answer.keys.into_iter().map(key).collect()
    }

    /// Makes a new active version in place of version `replace`. If another than that is active by now, nothing is done.
    ///
    /// `None`: in place of whichever is active. That is looked up first, so that the call can be repeated without a
    /// second rotation. Only where there is no active version at all it is made once and not repeated.
    pub async fn rotate_key(
        &self,
        purpose: KeyPurpose,
        replace: Option<KeyVersion>,
        note: &Note,
    ) -> Result<Rotation, Error> {
        let replace = if replace.is_some() {
            replace
        } else {
            let keys = self.list_keys(false).await?;
            let active = |key: &&Key| key.purpose == purpose && key.state == KeyState::Active;
            keys.iter().find(active).map(|key| key.version)
        };
        let request = wire::RotateKeyRequest {
            tenant: self.tenant(),
            purpose: purpose.to_wire().into(),
            version: replace.map_or(0, |version| version.0),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = if request.version == 0 {
            self.call_keys_once(request, async |mut keys, request| keys.rotate_key(request).await).await?
        } else {
            self.call_keys(request, async |mut keys, request| keys.rotate_key(request).await).await?
        };
        Ok(Rotation { key: some_key(answer.key)?, rotated: answer.rotated })
    }

    /// Marks a version as compromised: within a second no caller gets anything that it sealed, until it was sealed anew.
    /// An active version is replaced by a new one in the same step.
    pub async fn mark_compromised(&self, key: KeyId, note: &Note) -> Result<Key, Error> {
        let request = wire::MarkCompromisedRequest {
            tenant: self.tenant(),
            key_id: key.to_string(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer =
            self.call_keys(request, async |mut keys, request| keys.mark_compromised(request).await).await?;
        some_key(answer.key)
    }

    /// What a job would have to do. Changes nothing.
    pub async fn preview_job(&self, order: &JobOrder) -> Result<Preview, Error> {
        let request = wire::PreviewJobRequest {
            tenant: self.tenant(),
            kind: order.kind.to_wire().into(),
            key_id: text(order.key),
            bytes_per_second: order.bytes_per_second,
            kms_calls_per_second: order.kms_calls_per_second,
        };
        let answer =
            self.call_keys(request, async |mut keys, request| keys.preview_job(request).await).await?;
        Ok(Preview {
            items: answer.items,
            bytes: answer.bytes,
            kms_calls: answer.kms_calls,
            kms_cost_micros: answer.kms_cost_micros,
            time: std::time::Duration::from_secs(answer.seconds),
            refused: some_text(answer.refused),
        })
    }

    /// Begins a job, or asks for one that needs a second person. One that is under way and just the same is given
    /// instead, so that asking twice is asking once.
    pub async fn start_job(&self, order: &JobOrder, note: &Note) -> Result<Job, Error> {
        let request = wire::StartJobRequest {
            tenant: self.tenant(),
            kind: order.kind.to_wire().into(),
            key_id: text(order.key),
            bytes_per_second: order.bytes_per_second,
            kms_calls_per_second: order.kms_calls_per_second,
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = self.call_keys(request, async |mut keys, request| keys.start_job(request).await).await?;
        some_job(answer.job)
    }

    /// Approves a job that needs it. Not by who asked for it.
    pub async fn approve_job(&self, id: JobId, note: &Note) -> Result<Job, Error> {
        self.approve_job_by(&self.job_approval(id, note), None).await
    }

    /// An approval that a second factor can be made for: who has, or ever had, a security key may have to touch it.
    /// The vault says so ([`Reason::SecondFactor`](crate::Reason::SecondFactor)).
    pub fn job_approval(&self, id: JobId, note: &Note) -> JobApproval {
        JobApproval(wire::ApproveJobRequest {
            tenant: self.tenant(),
            job_id: id.to_string(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
            second_factor: None,
        })
    }

    /// Approves a job that somebody else asked for, by a touch of a security key.
    pub async fn approve_job_by(
        &self,
        approval: &JobApproval,
        factor: Option<SecondFactor>,
    ) -> Result<Job, Error> {
        let mut request = approval.0.clone();
        request.second_factor = factor.map(Into::into);
        let answer =
            self.call_keys(request, async |mut keys, request| keys.approve_job(request).await).await?;
        some_job(answer.job)
    }

    /// Lets a job rest where it is.
    pub async fn pause_job(&self, id: JobId) -> Result<Job, Error> {
        let request = wire::PauseJobRequest { tenant: self.tenant(), job_id: id.to_string() };
        let answer = self.call_keys(request, async |mut keys, request| keys.pause_job(request).await).await?;
        some_job(answer.job)
    }

    /// Lets a job go on.
    pub async fn resume_job(&self, id: JobId) -> Result<Job, Error> {
        let request = wire::ResumeJobRequest { tenant: self.tenant(), job_id: id.to_string() };
        let answer =
            self.call_keys(request, async |mut keys, request| keys.resume_job(request).await).await?;
        some_job(answer.job)
    }

    /// Ends a job where it is. What is done stays done.
    pub async fn cancel_job(&self, id: JobId) -> Result<Job, Error> {
        let request = wire::CancelJobRequest { tenant: self.tenant(), job_id: id.to_string() };
        let answer =
            self.call_keys(request, async |mut keys, request| keys.cancel_job(request).await).await?;
        some_job(answer.job)
    }

    /// The newest job of each kind, under way or over; of all tenants for a client of tenant `*`.
    pub async fn list_jobs(&self) -> Result<Vec<Job>, Error> {
        let request = wire::ListJobsRequest { tenant: self.tenant() };
        let answer = self.call_keys(request, async |mut keys, request| keys.list_jobs(request).await).await?;
        answer.jobs.into_iter().map(job).collect()
    }
}

fn text(id: Option<KeyId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
