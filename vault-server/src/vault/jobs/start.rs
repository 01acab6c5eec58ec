//! Begins jobs, or asks for those that need a second person.

use std::time::Duration;

use tokio::time::timeout;

use super::{ATTEMPTS, JobAsked, needs_approval};
use crate::access::{Party, PrincipalKind};
use crate::audit::AuditAction;
use crate::domain::{
    Job, JobBudget, JobId, JobKind, JobOrder, JobPlace, JobProgress, JobState, KmsSet, TenantId, Timestamp,
};
use crate::vault::{Context, Note, Problem, Refused, Vault};

/// How long who begins a job waits until it is counted what there is to do. Of millions of records that takes longer than callers
/// wait: then it is not known.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

impl Vault {
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
        let place = JobPlace { tenant, kind: asked.kind };
        let mut items = None;
        for _ in 0..ATTEMPTS {
            let before = self.parts.store.job(&place).await?;
            if let Some(under_way) = before.as_ref().filter(|job| !job.state.is_over()) {
                if self.is_ordered_so(&under_way.order, &asked) {
                    draft.details.push(("job", under_way.id.to_string()));
                    self.parts.log.record(draft, Vec::new()).await?;
                    return Ok(under_way.clone());
                }
                return Err(self.log_refusal(draft, Vec::new(), Problem::JobUnderWay.whole()).await);
            }
            let items = match items {
                Some(items) => items,
                None => match self.to_do(place.tenant.as_ref(), &asked).await? {
                    Ok(counted) => *items.insert(counted),
                    Err(problem) => return Err(self.log_refusal(draft, Vec::new(), problem.whole()).await),
                },
            };
            let revision = before.map_or(0, |before| before.revision + 1);
            let job = Job { revision, ..self.ordered(cx, &place, &asked, items)? };
            let mut draft = draft.clone();
            draft.details.push(("job", job.id.to_string()));
            if let Some(job) = self.put_job(draft, job).await? {
                return Ok(job);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// How many items there are to do, or why it is refused. 0 if they can't be counted while the caller waits.
    async fn to_do(
        &self,
        tenant: Option<&TenantId>,
        asked: &JobAsked,
    ) -> Result<Result<u64, Problem>, Refused> {
        if let Some(problem) = self.refusal(tenant, asked).await? {
            return Ok(Err(problem));
        }
        match timeout(COUNTED_WITHIN, self.preview(tenant, asked)).await {
            Ok(preview) => preview.map(|preview| Ok(preview.items)),
            Err(_) => Ok(Ok(0)),
        }
    }

    /// Whether a job is under the orders that are asked for.
    pub(super) fn is_ordered_so(&self, order: &JobOrder, asked: &JobAsked) -> bool {
        (order.key, order.budget, order.kms_set)
            == (asked.key, self.budget(asked.budget), self.kms_set(asked.kind))
    }

    /// A job that nobody has begun with.
    fn ordered(&self, cx: &Context, place: &JobPlace, asked: &JobAsked, total: u64) -> Result<Job, Refused> {
        let now = self.parts.clock.now();
        let waits = needs_approval(asked.kind);
        Ok(Job {
            id: JobId::random().map_err(|_| Problem::Internal.whole())?,
            place: place.clone(),
            order: JobOrder {
                key: asked.key,
                budget: self.budget(asked.budget),
                asked_by: cx.caller.principal.id.clone(),
                asked: now,
                not_before: now,
                asker: if waits { Party::of(&cx.caller).to_bytes() } else { Vec::new() },
                kms_set: self.kms_set(asked.kind),
            },
            state: if waits { JobState::Asked } else { JobState::Running },
            approved_by: None,
            begun: Timestamp(0),
            changed: now,
            progress: JobProgress { total, ..JobProgress::default() },
            cause: String::new(),
            revision: 0,
        })
    }

    /// What a re-wrap is ordered with: an instance with other KMS keys does not do it.
    fn kms_set(&self, kind: JobKind) -> Option<KmsSet> {
        (kind == JobKind::Rewrap).then(|| self.parts.keyring.kms_set())
    }

    pub(super) fn budget(&self, asked: JobBudget) -> JobBudget {
        let usual = self.parts.jobs.budget;
        JobBudget {
            bytes: if asked.bytes == 0 { usual.bytes } else { asked.bytes },
            kms_calls: if asked.kms_calls == 0 { usual.kms_calls } else { asked.kms_calls },
        }
    }
}
