//! A grant of break-glass: what was asked for, who approved it, how it is used and how it ends. Pure: time and callers come in
//! as arguments, and every step gives the grant as it is after it, or says why not.
//!
//! ```text
//! asked -> Requested --approve (another person)*--> Active --expired, used up, closed--> Over --review--> Reviewed
//!              \--deny--> Denied     \--lapsed, closed--> Lapsed
//! ```
//!
//! * [`Terms`] are what is asked for. They never change, and every approval is of their hash: a grant whose terms are not
//!   the approved ones is good for nothing.
//! * Nobody approves or reviews its own grant, whatever name, certificate or security key it comes with ([`Party`]).
//! * A grant's time never goes back below its last change, so a clock that was set back gives nothing away; and it ends when
//!   as much time has passed by a clock that can't be set ([`Grant::due`]).
//! * [`GrantUse`] is proof that the grant was looked at for this caller; policy sees a grant only through one.

mod party;
mod row;
mod terms;
#[cfg(test)]
mod tests;
mod using;

use std::time::Duration;

use crate::domain::{PrincipalId, Timestamp};

pub use party::Party;
pub(in crate::access) use party::PartyRow;
pub use row::GrantFault;
pub use terms::{Approval, End, Ended, GrantRefusal, GrantScope, GrantState, Review, ReviewVerdict, Terms};
pub use using::GrantUse;

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    terms: Terms,
    state: GrantState,
    approvals: Vec<Approval>,
    approved: Option<Timestamp>,
    expires: Option<Timestamp>,
    first_used: Option<Timestamp>,
    seen: u32,
    end: Option<End>,
    review_due: Option<Timestamp>,
    review: Option<Review>,
    changed: Timestamp,
}

impl Grant {
    /// As it is when it was asked for. In force at once if nobody needs to approve it.
    pub fn asked(terms: Terms) -> Self {
        let requested = terms.requested;
        let grant = Self {
            terms,
            state: GrantState::Requested,
            approvals: Vec::new(),
            approved: None,
            expires: None,
            first_used: None,
            seen: 0,
            end: None,
            review_due: None,
            review: None,
            changed: requested,
        };
        if grant.terms.approvals_needed == 0 { grant.in_force() } else { grant }
    }

    /// With one more approval; the last one that is needed puts it in force.
    pub fn approve(
        &self,
        by: Party,
        terms: &[u8],
        notes: String,
        clock: Timestamp,
    ) -> Result<Self, GrantRefusal> {
        self.may_approve(&by, terms)?;
        let at = self.now(clock);
        let mut grant = Self { changed: at, ..self.clone() };
        grant.approvals.push(Approval { by, at, terms: self.terms.hash(), notes });
        let enough = grant.approvals.len() as u64 >= u64::from(grant.terms.approvals_needed);
        Ok(if enough { grant.in_force() } else { grant })
    }

    /// Whether somebody may approve these terms.
    pub fn may_approve(&self, by: &Party, terms: &[u8]) -> Result<(), GrantRefusal> {
        self.may_deny(by)?;
        if terms != self.terms.hash() {
            return Err(GrantRefusal::Changed);
        }
        Ok(())
    }

    /// Denied.
    pub fn deny(&self, by: &Party, clock: Timestamp) -> Result<Self, GrantRefusal> {
        self.may_deny(by)?;
        Ok(self.ended(GrantState::Denied, Ended::Denied, Some(by.principal.clone()), self.now(clock)))
    }

    /// Whether somebody may say yes or no to it.
    pub fn may_deny(&self, by: &Party) -> Result<(), GrantRefusal> {
        if self.state != GrantState::Requested {
            return Err(GrantRefusal::State);
        }
        if self.has_part(by) { Err(GrantRefusal::SecondPerson) } else { Ok(()) }
    }

    /// Closed by somebody. One that was not in force yet was taken back.
    pub fn close(&self, by: &PrincipalId, clock: Timestamp) -> Result<Self, GrantRefusal> {
        let state = match self.state {
            GrantState::Requested => GrantState::Lapsed,
            GrantState::Active => GrantState::Over,
            _ => return Err(GrantRefusal::State),
        };
        Ok(self.ended(state, Ended::Closed, Some(by.clone()), self.now(clock)))
    }

    /// The grant as it is now if its time is over or it is used up. `known`: for how long this process has known it in this
    /// state, by a clock that nobody sets.
    pub fn due(&self, clock: Timestamp, known: Duration) -> Option<Self> {
        let now = self.now(clock);
        let past = |since: Timestamp, seconds: u32| {
            now >= after(since, seconds) || known >= Duration::from_secs(seconds.into())
        };
        let (state, how) = match self.state {
            GrantState::Requested if past(self.terms.requested, self.terms.wait) => {
                (GrantState::Lapsed, Ended::Lapsed)
            }
            GrantState::Active if self.left() == 0 => (GrantState::Over, Ended::UsedUp),
            GrantState::Active if past(self.approved?, self.terms.duration) => {
                (GrantState::Over, Ended::Expired)
            }
            _ => return None,
        };
        Some(self.ended(state, how, None, now))
    }

    /// Reviewed by somebody who had no part in it. One that was escalated may be reviewed again.
    pub fn review(
        &self,
        by: &Party,
        verdict: ReviewVerdict,
        notes: String,
        clock: Timestamp,
    ) -> Result<Self, GrantRefusal> {
        let again = self.review.as_ref().is_some_and(|review| review.verdict == ReviewVerdict::Escalated);
        match self.state {
            GrantState::Over => {}
            GrantState::Reviewed if again => {}
            _ => return Err(GrantRefusal::State),
        }
        if self.has_part(by) {
            return Err(GrantRefusal::SecondPerson);
        }
        let at = self.now(clock);
        let review = Review { by: by.principal.clone(), at, verdict, notes };
        Ok(Self { state: GrantState::Reviewed, review: Some(review), changed: at, ..self.clone() })
    }

    /// Whether it is over and was not reviewed in time.
    pub fn is_overdue(&self, clock: Timestamp) -> bool {
        self.state == GrantState::Over && self.review_due.is_none_or(|due| self.now(clock) >= due)
    }

    /// Whether somebody asked for it or approved it, by whatever name.
    fn has_part(&self, who: &Party) -> bool {
        self.terms.requester.is_same_person(who)
            || self.approvals.iter().any(|approval| approval.by.is_same_person(who))
    }

    fn in_force(self) -> Self {
        let at = self.changed;
        let expires = after(at, self.terms.duration);
        Self { state: GrantState::Active, approved: Some(at), expires: Some(expires), ..self }
    }

    fn ended(&self, state: GrantState, how: Ended, by: Option<PrincipalId>, at: Timestamp) -> Self {
        let review_due = (state == GrantState::Over).then(|| after(at, self.terms.review_within));
        Self { state, end: Some(End { how, by, at }), review_due, changed: at, ..self.clone() }
    }

    /// The time, but never before the last change.
    fn now(&self, clock: Timestamp) -> Timestamp {
        clock.max(self.changed)
    }

    /// What was asked for.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How it stands.
    pub fn state(&self) -> GrantState {
        self.state
    }

    /// Who approved it, in order.
    pub fn approvals(&self) -> &[Approval] {
        &self.approvals
    }

    /// When it came into force.
    pub fn approved(&self) -> Option<Timestamp> {
        self.approved
    }

    /// Until when it is good.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// When a value was first seen under it.
    pub fn first_used(&self) -> Option<Timestamp> {
        self.first_used
    }

    /// How many values were seen under it.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// How many values are left.
    pub fn left(&self) -> u32 {
        self.terms.values.saturating_sub(self.seen)
    }

    /// How it ended.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// By when it must be reviewed.
    pub fn review_due(&self) -> Option<Timestamp> {
        self.review_due
    }

    /// What was thought of it.
    pub fn reviewed(&self) -> Option<&Review> {
        self.review.as_ref()
    }

    /// Whether it was in force without anybody's approval.
    pub fn is_unapproved(&self) -> bool {
        self.terms.approvals_needed == 0
    }
}

fn after(at: Timestamp, seconds: u32) -> Timestamp {
    Timestamp(at.0.saturating_add(u64::from(seconds) * 1_000_000))
}
