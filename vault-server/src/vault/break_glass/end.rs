//! Ends grants: by somebody, or since their time is over or their values were seen.

use std::collections::BTreeSet;

use crate::access::{Action, AlertKind, Grant};
use crate::audit::{AuditAction, Draft};
use crate::domain::{GrantId, RequestId};
use crate::store::Write;
use crate::vault::request::Words;
use crate::vault::whole;

use super::pending::Pending;
use super::{ATTEMPTS, Beside, Context, Problem, Refused, Seen, Vault, stopped, told};

const END: (AuditAction, Action) = (AuditAction::GrantEnd, Action::GrantEnd);

impl Vault {
    /// Ends a grant: its requester, or who may see grants of others and may end them.
    pub async fn close_grant(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<(GrantId, String), Refused>,
    ) -> Result<Grant, Refused> {
        let asked = asked.and_then(|(id, notes)| Ok((id, Words::NOTES.parse(notes, "notes")?)));
        let (tenant, mut draft, (id, notes)) =
            self.asked_naming(cx, END, tenant, asked, |(id, _)| Some(*id)).await?;
        draft.reason = notes;
        for _ in 0..ATTEMPTS {
            let Seen { grant, revision } = self.look_for(&mut draft, &tenant, id).await?;
            let by = &cx.caller.principal.id;
            let others = self.decide(cx, &tenant, whole(Action::GrantRead, None));
            if grant.terms().requester.principal != *by && !others.allowed {
                let refusal = crate::access::GrantRefusal::Another;
                return Err(self.not_with_grant(draft, Vec::new(), refusal).await);
            }
            let next = match grant.close(by, self.parts.clock.now()) {
                Ok(next) => next,
                Err(refusal) => return Err(self.not_with_grant(draft, Vec::new(), refusal).await),
            };
            let mut draft = draft.clone();
            end_of(&mut draft, &next);
            let mut writes = vec![self.grant_alert(cx, AlertKind::GrantEnded, &next)?];
            writes.extend(Pending::end(&*self.parts.store, id).await?);
            let put = self.put_grant(draft, Vec::new(), (next, Some(revision)), Beside::of(writes)).await?;
            if let Some(Seen { grant, .. }) = put {
                return Ok(grant);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// Puts it on record that a grant is over, as the vault found it. `fence`: under which lease. `None`: somebody else was
    /// faster.
    pub(super) async fn put_over(
        &self,
        over: &Grant,
        revision: u64,
        fence: Option<Write>,
    ) -> Result<Option<Seen>, Refused> {
        let terms = over.terms();
        let request = RequestId::random().map_err(|_| Problem::Internal.whole())?;
        let mut draft = Draft::of_vault(request, AuditAction::GrantEnd);
        draft.tenant = Some(terms.tenant.clone());
        draft.grant = Some(terms.id);
        end_of(&mut draft, over);
        let who = (request, terms.requester.principal.clone());
        let alert =
            self.alert_of(who, AlertKind::GrantEnded, terms.tenant.clone(), Some(terms.id), told(over))?;
        let mut writes = vec![alert];
        writes.extend(Pending::end(&*self.parts.store, terms.id).await?);
        writes.extend(fence);
        self.put_grant(draft, Vec::new(), (over.clone(), Some(revision)), Beside::of(writes)).await
    }

    /// Looks at all grants that are open, so that this process knows since when they are; those whose time has come.
    pub async fn grants_due(&self) -> Result<Vec<GrantDue>, Refused> {
        let pending = Pending::all(&*self.parts.store).await?;
        let open: BTreeSet<_> = pending.iter().map(|pending| pending.id).collect();
        self.grants_known.keep(&open);
        let mut due = Vec::new();
        for pending in pending {
            match self.read_grant(&pending.tenant, pending.id).await {
                Ok(Some(Seen { grant, .. })) if self.due(&grant).is_some() => due.push(GrantDue(pending)),
                // One that can't be read is good for nothing, and is not in the way of others.
                Ok(_) | Err(Refused { problem: Problem::RecordCorrupt, .. }) => {}
                Err(refused) => return Err(refused),
            }
        }
        Ok(due)
    }

    /// Ends a grant whose time has come, under a lease.
    pub async fn end_due(&self, due: &GrantDue, fence: Write) -> Result<(), Refused> {
        let GrantDue(Pending { tenant, id }) = due;
        let Some(Seen { grant, revision }) = self.read_grant(tenant, *id).await? else { return Ok(()) };
        if let Some(over) = self.due(&grant) {
            // Who was faster did the same, or used it once more: then it is looked at again.
            self.put_over(&over, revision, Some(fence)).await?;
        }
        Ok(())
    }
}

/// A grant whose time has come.
pub struct GrantDue(Pending);

fn end_of(draft: &mut Draft, grant: &Grant) {
    let ended = grant.end().map_or("", |end| end.how.as_str());
    draft.details.extend([
        ("ended", ended.to_owned()),
        ("requester", grant.terms().requester.principal.to_string()),
        ("values_seen", grant.seen().to_string()),
    ]);
    draft.details.extend(stopped(grant));
}
