//! Says what was thought of a grant that is over.

use crate::access::{Action, AlertKind, Grant, Party, ReviewVerdict};
use crate::audit::AuditAction;
use crate::domain::GrantId;
use crate::vault::request::Words;

use super::{ATTEMPTS, Beside, Context, Problem, Refused, Seen, Vault};

/// A review, as it came.
pub struct Reviewing {
    /// Of which grant.
    pub id: GrantId,
    /// What it found.
    pub verdict: ReviewVerdict,
    /// In words.
    pub notes: String,
}

const REVIEW: (AuditAction, Action) = (AuditAction::GrantReview, Action::GrantReview);

impl Vault {
    /// Reviews a grant: who neither asked nor approved.
    pub async fn review_grant(
        &self,
        cx: &Context,
        tenant: &str,
        asked: Result<Reviewing, Refused>,
    ) -> Result<Grant, Refused> {
        let asked = asked
            .and_then(|asked| Ok(Reviewing { notes: Words::REASON.parse(asked.notes, "notes")?, ..asked }));
        let (tenant, mut draft, asked) =
            self.asked_naming(cx, REVIEW, tenant, asked, |asked| Some(asked.id)).await?;
        let Reviewing { id, verdict, notes } = asked;
        draft.reason.clone_from(&notes);
        draft.details.push(("verdict", verdict.as_str().to_owned()));
        self.person(cx, &draft).await?;
        let by = Party::of(&cx.caller);
        for _ in 0..ATTEMPTS {
            let Seen { grant, revision } = self.look_for(&mut draft, &tenant, id).await?;
            let next = match grant.review(&by, verdict, notes.clone(), self.parts.clock.now()) {
                Ok(next) => next,
                Err(refusal) => return Err(self.not_with_grant(draft, Vec::new(), refusal).await),
            };
            let mut writes = Vec::new();
            if verdict != ReviewVerdict::Justified {
                writes.push(self.grant_alert(cx, AlertKind::GrantQuestioned, &next)?);
            }
            let put =
                self.put_grant(draft.clone(), Vec::new(), (next, Some(revision)), Beside::of(writes)).await?;
            if let Some(Seen { grant, .. }) = put {
                return Ok(grant);
            }
        }
        Err(Problem::Overloaded.whole())
    }
}
