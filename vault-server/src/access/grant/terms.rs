//! The words of a grant: what is asked for, how it stands, what people said.

use sha2::{Digest as _, Sha256};

use super::{Party, row};
use crate::domain::{ClassName, GrantId, PrincipalId, SubjectRef, TenantId, Timestamp, Token};

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
