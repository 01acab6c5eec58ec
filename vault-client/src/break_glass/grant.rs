//! A grant, as the vault tells it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use vault_proto::v1 as wire;

use crate::error::Error;

/// A grant's id: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(String);

/// Not the id of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a grant's id is 32 hexadecimal digits")]
pub struct InvalidGrantId;

impl FromStr for GrantId {
    type Err = InvalidGrantId;

    fn from_str(text: &str) -> Result<Self, InvalidGrantId> {
        let good = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good { Ok(Self(text.to_ascii_lowercase())) } else { Err(InvalidGrantId) }
    }
}

impl GrantId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for people to say: no two grants of a tenant begin with the same, but by bad luck.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How it stands with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrantState {
    /// It waits for approval.
    Requested,
    /// It is in force.
    Active,
    /// An approver denied it.
    Denied,
    /// It waited for too long, or was taken back.
    Lapsed,
    /// It was in force and is over: it waits for its review.
    Over,
    /// It was reviewed.
    Reviewed,
    /// One that this client does not know.
    Unknown,
}

impl GrantState {
    /// In lower case, for people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Active => "active",
            Self::Denied => "denied",
            Self::Lapsed => "lapsed",
            Self::Over => "over",
            Self::Reviewed => "reviewed",
            Self::Unknown => "unknown",
        }
    }

    fn from_wire(state: wire::GrantState) -> Self {
        match state {
            wire::GrantState::Unspecified => Self::Unknown,
            wire::GrantState::Requested => Self::Requested,
            wire::GrantState::Active => Self::Active,
            wire::GrantState::Denied => Self::Denied,
            wire::GrantState::Lapsed => Self::Lapsed,
            wire::GrantState::Over => Self::Over,
            wire::GrantState::Reviewed => Self::Reviewed,
        }
    }
}

/// What a reviewer thought of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was right to break the glass.
    Justified,
    /// It was not.
    NotJustified,
    /// It has to be looked into further.
    Escalated,
}

impl Verdict {
    /// In lower case, for people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Justified => "justified",
            Self::NotJustified => "not justified",
            Self::Escalated => "escalated",
        }
    }

    fn from_wire(verdict: wire::ReviewVerdict) -> Option<Self> {
        match verdict {
            wire::ReviewVerdict::Unspecified => None,
            wire::ReviewVerdict::Justified => Some(Self::Justified),
            wire::ReviewVerdict::NotJustified => Some(Self::NotJustified),
            wire::ReviewVerdict::Escalated => Some(Self::Escalated),
        }
    }

    pub(super) fn to_wire(self) -> wire::ReviewVerdict {
        match self {
            Self::Justified => wire::ReviewVerdict::Justified,
            Self::NotJustified => wire::ReviewVerdict::NotJustified,
            Self::Escalated => wire::ReviewVerdict::Escalated,
        }
    }
}

/// A grant. Texts of other people's are made safe to print: one line, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Whose data it is about.
    pub tenant: String,
    /// How it stands with it.
    pub state: GrantState,
    /// Who asked.
    pub requester: String,
    /// Who approved, in order.
    pub approvers: Vec<String>,
    /// How many must.
    pub approvals_needed: u32,
    /// The policy of its tenant let it be in force without anybody's approval.
    pub is_unapproved: bool,
    /// Tokens that it is about; none if it is about a person.
    pub tokens: Vec<String>,
    /// It is about all values of a person.
    pub is_of_subject: bool,
    /// Classes of values that may be seen.
    pub classes: Vec<String>,
    /// Why, as a code.
    pub reason_code: String,
    /// Why, in words.
    pub reason: String,
    /// A ticket or case number.
    pub ticket: String,
    /// Values that may be seen.
    pub values_allowed: u32,
    /// Values that were.
    pub values_seen: u32,
    /// How long it is good for from its approval.
    pub duration: Duration,
    /// When it was asked for.
    pub requested: Option<SystemTime>,
    /// Until when it waits for its approval.
    pub lapses: Option<SystemTime>,
    /// When it came into force.
    pub approved: Option<SystemTime>,
    /// Until when it is good, at the latest.
    pub expires: Option<SystemTime>,
    /// When a value was seen for the first time.
    pub first_used: Option<SystemTime>,
    /// When it was over.
    pub over: Option<SystemTime>,
    /// Why it is over: `closed`, `expired`, `used_up`, `denied`, `lapsed`.
    pub ended: String,
    /// Who ended it; empty: the vault did.
    pub ended_by: String,
    /// By when it must be reviewed.
    pub review_due: Option<SystemTime>,
    /// Who reviewed it.
    pub reviewer: String,
    /// What the reviewer thought of it.
    pub verdict: Option<Verdict>,
    /// The same in words.
    pub review_notes: String,
}

impl Grant {
    /// One that waits at tenant `demo`, for tests of what shows grants: `oncall` asks for one value of class `ssn`.
    #[doc(hidden)]
    pub fn waiting(id: GrantId) -> Self {
        let wire = wire::Grant {
            tenant: "demo".to_owned(),
            requester: "oncall".to_owned(),
            state: wire::GrantState::Requested.into(),
            approvals_needed: 1,
            tokens: vec!["phi_dev_0".to_owned()],
            data_classes: vec!["ssn".to_owned()],
            values_allowed: 1,
            duration_s: 900,
            ..wire::Grant::default()
        };
        Self::of(id, wire)
    }

    /// Values that may still be seen.
    pub fn values_left(&self) -> u32 {
        self.values_allowed.saturating_sub(self.values_seen)
    }

    /// How long it still waits, or is in force; `None` if it does neither. By this machine's clock: what counts is the vault's.
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        let until = match self.state {
            GrantState::Requested => self.lapses,
            GrantState::Active => self.expires,
            _ => None,
        };
        until.map(|until| until.duration_since(now).unwrap_or_default())
    }

    pub(super) fn from_wire(grant: wire::Grant) -> Result<Self, Error> {
        let id = grant.id.parse().map_err(|_| Error::bad_answer("the id of a grant is none"))?;
        Ok(Self::of(id, grant))
    }

    fn of(id: GrantId, grant: wire::Grant) -> Self {
        let (state, verdict) = (grant.state(), grant.verdict());
        let all = |texts: Vec<String>| texts.into_iter().map(printable).collect();
        Self {
            id,
            tenant: printable(grant.tenant),
            state: GrantState::from_wire(state),
            requester: printable(grant.requester),
            approvers: all(grant.approvers),
            approvals_needed: grant.approvals_needed,
            is_unapproved: grant.unapproved,
            tokens: all(grant.tokens),
            is_of_subject: grant.of_subject,
            classes: all(grant.data_classes),
            reason_code: printable(grant.reason_code),
            reason: printable(grant.reason),
            ticket: printable(grant.ticket),
            values_allowed: grant.values_allowed,
            values_seen: grant.values_seen,
            duration: Duration::from_secs(grant.duration_s.into()),
            requested: time(grant.requested_us),
            lapses: time(grant.lapses_us),
            approved: time(grant.approved_us),
            expires: time(grant.expires_us),
            first_used: time(grant.first_used_us),
            over: time(grant.over_us),
            ended: printable(grant.ended),
            ended_by: printable(grant.ended_by),
            review_due: time(grant.review_due_us),
            reviewer: printable(grant.reviewer),
            verdict: Verdict::from_wire(verdict),
            review_notes: printable(grant.review_notes),
        }
    }
}

/// 0: not yet, or never.
fn time(micros: u64) -> Option<SystemTime> {
    (micros > 0).then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))).flatten()
}

/// Without what could play tricks on a terminal: control characters, and such as turn the direction of writing or are not
/// seen at all. Who approves must see what was asked for.
pub(super) fn printable(text: String) -> String {
    let tricky = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    if text.contains(tricky) { text.replace(tricky, "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_grant() -> wire::Grant {
        wire::Grant {
            id: "00112233445566778899AABBCCDDEEFF".to_owned(),
            state: wire::GrantState::Requested.into(),
            requested_us: 1_000_000,
            lapses_us: 61_000_000,
            values_allowed: 3,
            values_seen: 1,
            ..wire::Grant::default()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_left_of_a_grant_is_never_less_than_nothing() {
        let mut grant = Grant::from_wire(wire_grant()).unwrap();
        assert_eq!(grant.id.short(), "00112233445566778899aabbccddeeff".get(..12).unwrap());
        assert_eq!(grant.time_left(at(60)), Some(Duration::from_secs(1)));
        assert_eq!(grant.time_left(at(62)), Some(Duration::ZERO));
        assert_eq!(grant.values_left(), 2);
        grant.state = GrantState::Active;
        assert_eq!(grant.time_left(at(60)), None, "no end is known");
        grant.state = GrantState::Over;
        grant.expires = Some(at(100));
        assert_eq!(grant.time_left(at(60)), None);
    }

    #[test]
    fn words_of_others_play_no_tricks_on_who_approves() {
        for trick in ["a\u{1b}[2Jb", "a\nb", "a\u{202e}b", "a\u{200b}b", "a\rb"] {
            let grant = Grant::from_wire(wire::Grant { reason: trick.to_owned(), ..wire_grant() }).unwrap();
            assert!(grant.reason.starts_with("a\u{fffd}") && grant.reason.ends_with('b'), "{trick:?}");
        }
    }

    #[test]
    fn an_id_is_32_digits() {
        assert!("00112233445566778899aabbccddeeff".parse::<GrantId>().is_ok());
        for bad in ["", "0011", "00112233445566778899aabbccddeefg", "00112233445566778899aabbccddeeff0"] {
            assert!(bad.parse::<GrantId>().is_err(), "{bad}");
        }
        assert!(Grant::from_wire(wire::Grant { id: "1".to_owned(), ..wire_grant() }).is_err());
    }
}
