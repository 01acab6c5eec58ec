//! By what right a job seals anew.

use super::steps::{Step, reached};
use crate::audit::{AuditAction, Log, LogError};
use crate::crypto::Mandate;
use crate::domain::{Job, TenantId};
use crate::store::Write;
use crate::vault::job_draft;

/// Puts on record that a worker begins a job or takes it up again, with the job's row and under `fence`. There is a
/// mandate only after that is durable.
pub(super) async fn begin(log: &Log, tenant: TenantId, job: &Job, fence: Write) -> Result<Mandate, LogError> {
    let draft = job_draft(job, AuditAction::JobBegin);
    log.commit(draft, Vec::new(), vec![fence, Write::PutJob(job.clone())]).await?;
    reached(job.place.kind, Step::Begun);
    Ok(Mandate::assertion(job.id, tenant))
}
