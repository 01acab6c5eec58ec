//! Lists jobs, and watches one.

use super::PAGE;
use crate::access::Action;
use crate::audit::AuditAction;
use crate::domain::{Job, JobId, JobKind, JobPlace};
use crate::vault::{Context, Problem, Refused, Vault};

impl Vault {
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
}
