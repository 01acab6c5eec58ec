//! Approves and denies: another person than who asked.

use crate::access::{Action, AlertKind, Grant, GrantState, Party};
use crate::audit::AuditAction;
use crate::domain::{GrantId, SecondFactorAction};
use crate::vault::GivenFactor;
use crate::vault::request::Words;

use super::pending::Pending;
use super::{ATTEMPTS, Beside, Context, Problem, Refused, Seen, Vault};

/// An approval, as it came.
pub struct Approving {
    /// Of which grant.
    pub id: GrantId,
    /// SHA-256 of the terms that the approver saw.
    pub terms: Vec<u8>,
    /// In words.
    pub notes: String,
    /// The second factor.
    pub factor: Option<GivenFactor>,
}

/// A denial, as it came.
pub struct Denying {
    /// Of which grant.
    pub id: GrantId,
    /// In words.
    pub notes: String,
    /// The second factor.
    pub factor: Option<GivenFactor>,
}

const APPROVE: (AuditAction, Action) = (AuditAction::GrantApprove, Action::GrantApprove);
/// Who may approve may deny.
const DENY: (AuditAction, Action) = (AuditAction::GrantDeny, Action::GrantApprove);

impl Vault {
    /// Approves a grant; the last approval that is needed puts it in force.
    pub async fn approve_grant(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<Approving, Refused>,
    ) -> Result<Grant, Refused> {
        let asked = asked
            .and_then(|asked| Ok(Approving { notes: Words::NOTES.parse(asked.notes, "notes")?, ..asked }));
        let (tenant, mut draft, asked) =
            self.asked_naming(cx, APPROVE, tenant, asked, |asked| Some(asked.id)).await?;
        let Approving { id, terms, notes, factor } = asked;
        draft.reason.clone_from(&notes);
        self.person(cx, &draft).await?;
        let Seen { grant, .. } = self.look_for(&mut draft, &tenant, id).await?;
        // What would be refused anyway is refused before a touch is used up.
        if let Err(refusal) = grant.may_approve(&Party::of(&cx.caller), &terms) {
            return Err(self.not_with_grant(draft, Vec::new(), refusal).await);
        }
        let touch = self.touched(cx, &draft, SecondFactorAction::GrantApprove, factor).await?;
        draft.details.push(("security_key", touch.key().to_owned()));
        let by = Party::of(&cx.caller).touched(touch.key());
        let touch = touch.into_writes();
        for _ in 0..ATTEMPTS {
            let Seen { grant, revision } = self.look_for(&mut draft, &tenant, id).await?;
            let now = self.parts.clock.now();
            let next = match grant.approve(by.clone(), &terms, notes.clone(), now) {
                Ok(next) => next,
                Err(refusal) => return Err(self.not_with_grant(draft, Vec::new(), refusal).await),
            };
            let mut writes = Vec::new();
            if next.state() == GrantState::Active {
                writes.push(self.grant_alert(cx, AlertKind::GrantActive, &next)?);
            }
            let mut draft = draft.clone();
            let (given, needed) = (next.approvals().len(), next.terms().approvals_needed);
            draft.details.push(("approvals", format!("{given}/{needed}")));
            let beside = Beside { writes, touch: touch.clone() };
            let put = self.put_grant(draft, Vec::new(), (next, Some(revision)), beside).await?;
            if let Some(Seen { grant, .. }) = put {
                // From here on its time passes, whatever becomes of the clock.
                self.grants_known.for_how_long(&grant);
                return Ok(grant);
            }
        }
        Err(Problem::Overloaded.whole())
    }

    /// Denies a grant that waits.
    pub async fn deny_grant(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<Denying, Refused>,
    ) -> Result<Grant, Refused> {
        let asked =
            asked.and_then(|asked| Ok(Denying { notes: Words::NOTES.parse(asked.notes, "notes")?, ..asked }));
        let (tenant, mut draft, asked) =
            self.asked_naming(cx, DENY, tenant, asked, |asked| Some(asked.id)).await?;
        let Denying { id, notes, factor } = asked;
        draft.reason = notes;
        self.person(cx, &draft).await?;
        let Seen { grant, .. } = self.look_for(&mut draft, &tenant, id).await?;
        if let Err(refusal) = grant.may_deny(&Party::of(&cx.caller)) {
            return Err(self.not_with_grant(draft, Vec::new(), refusal).await);
        }
        let touch = self.touched(cx, &draft, SecondFactorAction::GrantDeny, factor).await?;
        draft.details.push(("security_key", touch.key().to_owned()));
        let by = Party::of(&cx.caller).touched(touch.key());
        let touch = touch.into_writes();
        for _ in 0..ATTEMPTS {
            let Seen { grant, revision } = self.look_for(&mut draft, &tenant, id).await?;
            let next = match grant.deny(&by, self.parts.clock.now()) {
                Ok(next) => next,
                Err(refusal) => return Err(self.not_with_grant(draft, Vec::new(), refusal).await),
            };
            let mut writes = vec![self.grant_alert(cx, AlertKind::GrantEnded, &next)?];
            writes.extend(Pending::end(&*self.parts.store, id).await?);
            let beside = Beside { writes, touch: touch.clone() };
            let put = self.put_grant(draft.clone(), Vec::new(), (next, Some(revision)), beside).await?;
            if let Some(Seen { grant, .. }) = put {
                return Ok(grant);
            }
        }
        Err(Problem::Overloaded.whole())
    }
}
