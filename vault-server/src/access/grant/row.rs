//! A grant at rest.
//!
//! ```text
//! content  version(1)=1 | GrantRow          a protobuf message in its one encoding (fields by number, defaults left out)
//! ```
//!
//! `GrantRow.terms` is the encoding of `TermsRow`, which is also what the hash of the terms is made of. Times are microseconds
//! since 1970, 0: never. What does not give the same bytes again is not what was written.

use prost::Message;

use super::{Approval, End, Ended, Grant, GrantScope, GrantState, PartyRow, Review, ReviewVerdict, Terms};
use crate::domain::{
    ClassName, Entity, EntityKind, EntityName, EntityPlace, GrantId, MAX_ENTITY, PrincipalId, SubjectRef,
    TenantId, Timestamp, Token,
};

const VERSION: u8 = 1;

/// A row is not a grant's, or not of this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("corrupt grant")]
pub struct GrantFault;

#[derive(Clone, PartialEq, Message)]
struct TermsRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(message, optional, tag = "3")]
    requester: Option<PartyRow>,
    /// Of one of the two there is at least one, and of the other none.
    #[prost(bytes = "vec", repeated, tag = "4")]
    tokens: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    subjects: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "6")]
    classes: Vec<String>,
    #[prost(string, tag = "7")]
    reason_code: String,
    #[prost(string, tag = "8")]
    reason: String,
    #[prost(string, tag = "9")]
    ticket: String,
    #[prost(uint32, tag = "10")]
    duration: u32,
    #[prost(uint32, tag = "11")]
    values: u32,
    #[prost(uint32, tag = "12")]
    approvals_needed: u32,
    #[prost(uint32, tag = "13")]
    wait: u32,
    #[prost(uint32, tag = "14")]
    review_within: u32,
    #[prost(uint64, tag = "15")]
    requested: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ApprovalRow {
    #[prost(message, optional, tag = "1")]
    by: Option<PartyRow>,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(bytes = "vec", tag = "3")]
    terms: Vec<u8>,
    #[prost(string, tag = "4")]
    notes: String,
}

#[derive(Clone, PartialEq, Message)]
struct EndRow {
    #[prost(uint32, tag = "1")]
    how: u32,
    #[prost(string, tag = "2")]
    by: String,
    #[prost(uint64, tag = "3")]
    at: u64,
}

#[derive(Clone, PartialEq, Message)]
struct ReviewRow {
    #[prost(string, tag = "1")]
    by: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(uint32, tag = "3")]
    verdict: u32,
    #[prost(string, tag = "4")]
    notes: String,
}

#[derive(Clone, PartialEq, Message)]
struct GrantRow {
    #[prost(bytes = "vec", tag = "1")]
    terms: Vec<u8>,
    #[prost(uint32, tag = "2")]
    state: u32,
    #[prost(message, repeated, tag = "3")]
    approvals: Vec<ApprovalRow>,
    #[prost(uint64, tag = "4")]
    approved: u64,
    #[prost(uint64, tag = "5")]
    expires: u64,
    #[prost(uint64, tag = "6")]
    first_used: u64,
    #[prost(uint32, tag = "7")]
    seen: u32,
    #[prost(message, optional, tag = "8")]
    end: Option<EndRow>,
    #[prost(uint64, tag = "9")]
    review_due: u64,
    #[prost(message, optional, tag = "10")]
    review: Option<ReviewRow>,
    #[prost(uint64, tag = "11")]
    changed: u64,
}

impl Grant {
    /// Where a grant stands.
    pub fn place(tenant: &TenantId, id: GrantId) -> EntityPlace {
        let name = EntityName::new(id.as_bytes()).expect("16 bytes are a name");
        EntityPlace { kind: EntityKind::Grant, tenant: Some(tenant.clone()), name }
    }

    /// As it is kept. `None` if it is too large.
    pub fn entity(&self, revision: u64) -> Option<Entity> {
        let mut content = vec![VERSION];
        content.extend_from_slice(&self.row().encode_to_vec());
        let place = Self::place(&self.terms.tenant, self.terms.id);
        (content.len() <= MAX_ENTITY).then_some(Entity { place, revision, content })
    }

    /// As it was kept.
    pub fn read(entity: &Entity) -> Result<Self, GrantFault> {
        let (version, bytes) = entity.content.split_first().ok_or(GrantFault)?;
        let grant = GrantRow::decode(bytes).ok().and_then(grant).ok_or(GrantFault)?;
        let same = *version == VERSION
            && entity.place == Self::place(&grant.terms.tenant, grant.terms.id)
            && grant.row().encode_to_vec() == bytes;
        if same { Ok(grant) } else { Err(GrantFault) }
    }

    fn row(&self) -> GrantRow {
        let time = |at: Option<Timestamp>| at.map_or(0, |at| at.0);
        let approval = |approval: &Approval| ApprovalRow {
            by: Some(PartyRow::of(&approval.by)),
            at: approval.at.0,
            terms: approval.terms.to_vec(),
            notes: approval.notes.clone(),
        };
        GrantRow {
            terms: terms(&self.terms),
            state: state_number(self.state),
            approvals: self.approvals.iter().map(approval).collect(),
            approved: time(self.approved),
            expires: time(self.expires),
            first_used: time(self.first_used),
            seen: self.seen,
            end: self.end.as_ref().map(|end| EndRow {
                how: ended_number(end.how),
                by: end.by.as_ref().map(ToString::to_string).unwrap_or_default(),
                at: end.at.0,
            }),
            review_due: time(self.review_due),
            review: self.review.as_ref().map(|review| ReviewRow {
                by: review.by.to_string(),
                at: review.at.0,
                verdict: verdict_number(review.verdict),
                notes: review.notes.clone(),
            }),
            changed: self.changed.0,
        }
    }
}

/// The one encoding of terms.
pub(super) fn terms(terms: &Terms) -> Vec<u8> {
    let (tokens, subjects) = match &terms.scope {
        GrantScope::Tokens(tokens) => {
            (tokens.iter().map(|token| token.as_bytes().to_vec()).collect(), Vec::new())
        }
        GrantScope::Subject(names) => {
            (Vec::new(), names.iter().map(|name| name.to_bytes().to_vec()).collect())
        }
    };
    TermsRow {
        id: terms.id.as_bytes().to_vec(),
        tenant: terms.tenant.to_string(),
        requester: Some(PartyRow::of(&terms.requester)),
        tokens,
        subjects,
        classes: terms.classes.iter().map(ToString::to_string).collect(),
        reason_code: terms.reason_code.clone(),
        reason: terms.reason.clone(),
        ticket: terms.ticket.clone(),
        duration: terms.duration,
        values: terms.values,
        approvals_needed: terms.approvals_needed,
        wait: terms.wait,
        review_within: terms.review_within,
        requested: terms.requested.0,
    }
    .encode_to_vec()
}

fn read_terms(bytes: &[u8]) -> Option<Terms> {
    let row = TermsRow::decode(bytes).ok()?;
    let scope = match (row.tokens.is_empty(), row.subjects.is_empty()) {
        (false, true) => {
            let token = |bytes: Vec<u8>| Some(Token::from_bytes(bytes.try_into().ok()?));
            GrantScope::Tokens(row.tokens.into_iter().map(token).collect::<Option<_>>()?)
        }
        (true, false) => {
            let name = |bytes: Vec<u8>| Some(SubjectRef::from_bytes(bytes.try_into().ok()?));
            GrantScope::Subject(row.subjects.into_iter().map(name).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(Terms {
        id: GrantId::from_bytes(row.id.try_into().ok()?),
        tenant: TenantId::parse(&row.tenant).ok()?,
        requester: row.requester?.party()?,
        scope,
        classes: row.classes.iter().map(|name| ClassName::parse(name).ok()).collect::<Option<_>>()?,
        reason_code: row.reason_code,
        reason: row.reason,
        ticket: row.ticket,
        duration: row.duration,
        values: row.values,
        approvals_needed: row.approvals_needed,
        wait: row.wait,
        review_within: row.review_within,
        requested: Timestamp(row.requested),
    })
}

fn grant(row: GrantRow) -> Option<Grant> {
    let time = |at: u64| (at > 0).then_some(Timestamp(at));
    let approval = |row: ApprovalRow| {
        Some(Approval {
            by: row.by?.party()?,
            at: Timestamp(row.at),
            terms: row.terms.try_into().ok()?,
            notes: row.notes,
        })
    };
    let end = |row: EndRow| {
        let by = if row.by.is_empty() { None } else { Some(PrincipalId::parse(&row.by).ok()?) };
        Some(End { how: ended(row.how)?, by, at: Timestamp(row.at) })
    };
    let review = |row: ReviewRow| {
        Some(Review {
            by: PrincipalId::parse(&row.by).ok()?,
            at: Timestamp(row.at),
            verdict: verdict(row.verdict)?,
            notes: row.notes,
        })
    };
    Some(Grant {
        terms: read_terms(&row.terms)?,
        state: state(row.state)?,
        approvals: row.approvals.into_iter().map(approval).collect::<Option<_>>()?,
        approved: time(row.approved),
        expires: time(row.expires),
        first_used: time(row.first_used),
        seen: row.seen,
        end: match row.end {
            Some(row) => Some(end(row)?),
            None => None,
        },
        review_due: time(row.review_due),
        review: match row.review {
            Some(row) => Some(review(row)?),
            None => None,
        },
        changed: Timestamp(row.changed),
    })
}

/// A number at rest for each. Never change one.
macro_rules! numbers {
    ($type:ident, $to:ident, $from:ident, $($variant:ident $number:literal),*) => {
        const fn $to(value: $type) -> u32 {
            match value { $($type::$variant => $number),* }
        }

        const fn $from(number: u32) -> Option<$type> {
            match number { $($number => Some($type::$variant),)* _ => None }
        }
    };
}

numbers!(GrantState, state_number, state, Requested 1, Active 2, Denied 3, Lapsed 4, Over 5, Reviewed 6);
numbers!(Ended, ended_number, ended, Closed 1, Expired 2, UsedUp 3, Denied 4, Lapsed 5);
numbers!(ReviewVerdict, verdict_number, verdict, Justified 1, NotJustified 2, Escalated 3);
