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
#[cfg(test)]
mod tests;

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::access::{Caller, GrantSeen};
use crate::domain::{ClassName, GrantId, PrincipalId, Record, SubjectRef, TenantId, Timestamp, Token};

pub use party::Party;
pub use row::GrantFault;

/// What a grant is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantScope {
    /// These tokens, none twice.
    Tokens(Vec<Token>),
    /// All values of a person: its name under every version of the tenant's index key.
    Subject(Vec<SubjectRef>),
}

/// What is asked for. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Its id.
    pub id: GrantId,
    /// Whose data.
    pub tenant: TenantId,
    /// Who asks, by which credential and with which security key: nobody else may use it.
    pub requester: Party,
    /// About what.
    pub scope: GrantScope,
    /// Classes of values that may be seen; sorted, none twice.
    pub classes: Vec<ClassName>,
    /// Why: one of the configured codes.
    pub reason_code: String,
    /// And in words.
    pub reason: String,
    /// A case number, if there is one.
    pub ticket: String,
    /// How long it is good for from its approval, in seconds.
    pub duration: u32,
    /// How many values may be seen.
    pub values: u32,
    /// How many people must approve it.
    pub approvals_needed: u32,
    /// How long it waits for them, in seconds.
    pub wait: u32,
    /// Within how long it must be reviewed once it is over, in seconds.
    pub review_within: u32,
    /// When it was asked for.
    pub requested: Timestamp,
}

/// How it stands with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantState {
    /// It waits for approval.
    Requested,
    /// It is in force.
    Active,
    /// Somebody said no.
    Denied,
    /// It was never in force: it waited for too long, or was taken back.
    Lapsed,
    /// It was in force and is over: it waits for its review.
    Over,
    /// It was reviewed.
    Reviewed,
}

impl GrantState {
    /// The name, in the log and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Active => "active",
            Self::Denied => "denied",
            Self::Lapsed => "lapsed",
            Self::Over => "over",
            Self::Reviewed => "reviewed",
        }
    }

    /// Whether it waits, or is in force.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Requested | Self::Active)
    }

    /// Whether nothing more is to be done about it.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Denied | Self::Lapsed | Self::Reviewed)
    }
}

/// Why a grant is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody closed it.
    Closed,
    /// Its time is over.
    Expired,
    /// All its values were seen.
    UsedUp,
    /// It was denied.
    Denied,
    /// It waited for too long.
    Lapsed,
}

impl Ended {
    /// The name, on the wire and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::Denied => "denied",
            Self::Lapsed => "lapsed",
        }
    }
}

/// What a review found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewVerdict {
    /// It was right.
    Justified,
    /// It was not.
    NotJustified,
    /// Somebody else is to look into it; may be reviewed again.
    Escalated,
}

impl ReviewVerdict {
    /// The name, in the log and in alerts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Justified => "justified",
            Self::NotJustified => "not_justified",
            Self::Escalated => "escalated",
        }
    }
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Whose.
    pub by: Party,
    /// When.
    pub at: Timestamp,
    /// SHA-256 of the terms that were approved.
    pub terms: [u8; 32],
    /// In words.
    pub notes: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub how: Ended,
    /// By whom; `None`: the vault found it so.
    pub by: Option<PrincipalId>,
    /// When.
    pub at: Timestamp,
}

/// What was thought of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// By whom.
    pub by: PrincipalId,
    /// When.
    pub at: Timestamp,
    /// What it found.
    pub verdict: ReviewVerdict,
    /// In words.
    pub notes: String,
}

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

/// Why something can't be done with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// It waits, is over or was reviewed.
    #[error("the grant is not in a state for that")]
    State,
    /// It is another's.
    #[error("the grant is another's")]
    Another,
    /// It was asked for with another credential.
    #[error("the grant was asked for with another credential")]
    Credential,
    /// It needs somebody who has had no part in it.
    #[error("it needs another person")]
    SecondPerson,
    /// The terms are not those that were seen or approved.
    #[error("the terms are others")]
    Changed,
    /// Fewer values are left.
    #[error("the grant is used up")]
    UsedUp,
}

impl GrantRefusal {
    /// The true cause, for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Another => "another_requester",
            Self::Credential => "another_credential",
            Self::SecondPerson => "second_person",
            Self::Changed => "terms_changed",
            Self::UsedUp => "used_up",
        }
    }
}

/// A grant was looked at for a caller: it is its own, it is in force, values are left. Only [`Grant::use_by`] makes one.
#[must_use = "the proof that a grant may be used is there to be used"]
pub struct GrantUse {
    id: GrantId,
    tenant: TenantId,
    scope: GrantScope,
    classes: Vec<ClassName>,
    approvals: u32,
    left: u32,
    at: Timestamp,
}

impl GrantUse {
    /// Which grant.
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// What policies see of it.
    pub fn seen(&self) -> GrantSeen {
        GrantSeen { approvals: self.approvals }
    }

    /// How many values are left.
    pub fn left(&self) -> usize {
        self.left as usize
    }

    /// Whether the grant is about this record.
    pub fn covers(&self, record: &Record) -> bool {
        let in_scope = match &self.scope {
            GrantScope::Tokens(tokens) => tokens.contains(&record.token),
            GrantScope::Subject(names) => record.subject.is_some_and(|subject| names.contains(&subject)),
        };
        in_scope && record.tenant == self.tenant && self.classes.contains(&record.class)
    }
}

impl Terms {
    /// SHA-256 of them, in their one encoding: what an approval is of.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"phi-vault grant terms v1\0");
        hash.update(row::terms(self));
        hash.finalize().into()
    }

    /// Whether the same was asked for, at whatever time and with whichever touch. A person has the same name under the same
    /// version of a key: versions that came or went meanwhile are nothing else.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let same_scope = match (&self.scope, &other.scope) {
            (GrantScope::Subject(these), GrantScope::Subject(those)) => {
                these.iter().any(|name| those.contains(name))
            }
            (these, those) => these == those,
        };
        let fields = |terms: &Self| {
            let Self { id, tenant, classes, reason_code, reason, ticket, duration, values, .. } =
                terms.clone();
            (id, tenant, classes, reason_code, reason, ticket, duration, values)
        };
        same_scope && self.requester.is_same_caller(&other.requester) && fields(self) == fields(other)
    }
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
        if grant.terms.approvals_needed == 0 { grant.in_force(requested) } else { grant }
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
        Ok(if enough { grant.in_force(at) } else { grant })
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

    /// Whether a caller may see values under it, now.
    pub fn use_by(
        &self,
        caller: &Caller,
        clock: Timestamp,
        known: Duration,
    ) -> Result<GrantUse, GrantRefusal> {
        let Terms { requester, .. } = &self.terms;
        if requester.principal != caller.principal.id {
            return Err(GrantRefusal::Another);
        }
        if requester.credential != caller.credential {
            return Err(GrantRefusal::Credential);
        }
        if self.left() == 0 {
            return Err(GrantRefusal::UsedUp);
        }
        if self.state != GrantState::Active || self.due(clock, known).is_some() {
            return Err(GrantRefusal::State);
        }
        let hash = self.terms.hash();
        let approvals = self.approvals.iter().filter(|approval| approval.terms == hash).count();
        if approvals != self.approvals.len() || (approvals as u64) < u64::from(self.terms.approvals_needed) {
            return Err(GrantRefusal::Changed);
        }
        Ok(GrantUse {
            id: self.terms.id,
            tenant: self.terms.tenant.clone(),
            scope: self.terms.scope.clone(),
            classes: self.terms.classes.clone(),
            approvals: u32::try_from(approvals).map_err(|_| GrantRefusal::Changed)?,
            left: self.left(),
            at: self.now(clock),
        })
    }

    /// With so many more values seen.
    pub fn used(&self, using: &GrantUse, values: usize) -> Result<Self, GrantRefusal> {
        let more = u32::try_from(values).map_err(|_| GrantRefusal::UsedUp)?;
        if self.terms.id != using.id || self.state != GrantState::Active {
            return Err(GrantRefusal::State);
        }
        if more > self.left() {
            return Err(GrantRefusal::UsedUp);
        }
        Ok(Self {
            seen: self.seen + more,
            first_used: Some(self.first_used.unwrap_or(using.at)),
            changed: self.changed.max(using.at),
            ..self.clone()
        })
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

    fn in_force(self, at: Timestamp) -> Self {
        let expires = after(at, self.terms.duration);
        Self { state: GrantState::Active, approved: Some(at), expires: Some(expires), changed: at, ..self }
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
