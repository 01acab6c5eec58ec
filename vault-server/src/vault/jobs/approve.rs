//! Approves what destroys keys: another person than who asked for it.

use crate::access::{Action, Caller, Party, PrincipalKind, TenantScope};
use crate::audit::AuditAction;
use crate::domain::{Job, JobId, JobState, SecondFactorAction};
use crate::store::Write;

use super::{ATTEMPTS, later, next};
use crate::vault::{Context, GivenFactor, Note, Problem, Refused, Touch, Vault, whole};

/// An approval, as it came.
pub struct JobApproval {
    /// Of which job.
    pub id: JobId,
    /// What the caller says about it.
    pub note: Note,
    /// The second factor, if one came.
    pub factor: Option<GivenFactor>,
}

impl Vault {
    /// Approves a job: another person than who asked for it, by a touch of its security key if it ever had one. Who asked must
    /// be somebody who may ask for it now, too.
    pub async fn approve_job(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<JobApproval, Refused>,
    ) -> Result<Job, Refused> {
        let (tenant, mut draft, JobApproval { id, note, factor }) =
            self.asked(cx, AuditAction::JobApprove, Action::JobApprove, tenant, asked).await?;
        note.into_draft(&mut draft);
        draft.details.push(("job", id.to_string()));
        let mut touch: Option<Vec<Write>> = None;
        for _ in 0..ATTEMPTS {
            let problem = match self.find_job(Some(&tenant), id).await? {
                None => Problem::NotFound.at("job_id"),
                // A repeated call.
                Some(job) if job.approved_by.as_ref() == Some(&cx.caller.principal.id) => {
                    self.parts.log.record(draft, Vec::new()).await?;
                    return Ok(job);
                }
                Some(job) if job.state != JobState::Asked => Problem::JobState.whole(),
                Some(job) if is_who_asked(&job, &cx.caller) => Problem::SecondPerson.whole(),
                // Two people, not a person and a program of theirs.
                Some(_) if cx.caller.principal.kind != PrincipalKind::Human => Problem::SecondPerson.whole(),
                Some(job) if !self.may_still_ask(&job) => Problem::ChangedMeanwhile.whole(),
                Some(mut job) => {
                    if touch.is_none() {
                        let action = SecondFactorAction::JobApprove;
                        let touched = self.touched_by_approver(cx, &draft, action, factor.clone()).await?;
                        draft
                            .details
                            .extend(touched.iter().map(|touch| ("security_key", touch.key().to_owned())));
                        touch = Some(touched.map(Touch::into_writes).unwrap_or_default());
                    }
                    let now = self.parts.clock.now();
                    job.state = JobState::Running;
                    job.approved_by = Some(cx.caller.principal.id.clone());
                    job.order.not_before = later(now, self.parts.jobs.waiting);
                    let mut draft = draft.clone();
                    draft.details.push(("kind", job.place.kind.as_str().to_owned()));
                    let touch = touch.clone().unwrap_or_default();
                    let job = next(job, now);
                    if self.commit_touched(draft, Vec::new(), vec![Write::PutJob(job.clone())], touch).await?
                    {
                        return Ok(job);
                    }
                    continue;
                }
            };
            return Err(self.log_refusal(draft, Vec::new(), problem).await);
        }
        Err(Problem::Overloaded.whole())
    }

    /// Whether who asked for a job could ask for it as things stand.
    fn may_still_ask(&self, job: &Job) -> bool {
        let Some(asker) = self.parts.access.principal(&job.order.asked_by) else { return false };
        let now = self.parts.clock.now();
        let place = job.place.tenant.clone().map_or(TenantScope::All, TenantScope::One);
        let question = whole(Action::of_job(job.place.kind), None);
        asker.enabled
            && asker.expires.is_none_or(|expires| now < expires)
            && self.parts.access.explain(&asker, &place, question).allowed
    }
}

/// Whether somebody is who asked for a job, under whatever name. Of a row of before no more is known than the principal; one
/// whose asker can't be read is nobody's to approve.
fn is_who_asked(job: &Job, who: &Caller) -> bool {
    let asker = &job.order.asker;
    job.order.asked_by == who.principal.id
        || !asker.is_empty()
            && Party::from_bytes(asker).is_none_or(|asker| asker.is_same_person(&Party::of(who)))
}

#[cfg(test)]
#[path = "approve_tests.rs"]
mod tests;
