//! Lists jobs, and watches one.

use super::{PAGE, passed_over};
use crate::access::Action;
use crate::audit::AuditAction;
use crate::domain::{Job, JobId};
use crate::store::StoreError;
use crate::vault::{Context, Problem, Refused, Vault};

impl Vault {
    /// The newest job of each kind, of a tenant or of all (`*`). A row that can't be read is told to the operator, and an error
    /// only if there is no other.
    pub async fn list_jobs(&self, cx: &Context, tenant: &str) -> Result<Vec<Job>, Refused> {
        let all = tenant == "*";
        let (tenant, draft, ()) =
            self.asked_of_place(cx, AuditAction::JobRead, Action::JobRead, tenant, Ok(())).await?;
        self.parts.log.record(draft, Vec::new()).await?;
        let (jobs, unread) = if all { self.all_jobs().await? } else { self.jobs_of(tenant.as_ref()).await? };
        match unread {
            Some(error) if jobs.is_empty() => Err(error.into()),
            _ => Ok(jobs),
        }
    }

    /// As [`Vault::jobs_of`], of the whole vault.
    async fn all_jobs(&self) -> Result<(Vec<Job>, Option<StoreError>), Refused> {
        let (mut jobs, mut unread, mut after) = (Vec::new(), None, None);
        loop {
            let page = self.parts.store.job_rows(after, PAGE).await?;
            jobs.extend(page.items);
            for row in page.malformed {
                unread = Some(passed_over(row.what));
            }
            after = page.next;
            if after.is_none() {
                return Ok((jobs, unread));
            }
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
