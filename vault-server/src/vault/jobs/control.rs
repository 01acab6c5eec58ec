//! Pauses, resumes and cancels jobs.

use super::{ATTEMPTS, needs_approval, next};
use crate::access::Action;
use crate::audit::AuditAction;
use crate::domain::{Job, JobId, JobState};
use crate::vault::{Context, Problem, Refused, Vault};

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

impl Vault {
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
}
