//! From what happened to the bytes of log entries.
//!
//! Entries are `vault.v1.AuditEntry` in canonical encoding (fields by number, defaults left out), each at most
//! [`MAX_ENTRY`] bytes: a request with many items is split in parts that say all but the items alike. Items are
//! written straight to the wire, since a batch has a thousand of them and a caller waits:
//!
//! ```text
//! fields 1 to 15 (prost) | (0x82 0x01 | length(1) | item)* | field 17 (prost) | field 18 (prost), by name
//! item: 0x0A 16 token | 0x12 n class | 0x1A 20 subject | 0x22 16 key id | 0x28 outcome | 0x30 matches
//! ```

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::encode_varint;
use vault_proto::v1::{self as wire, AuditEntry};

use super::text::printable;
use crate::access::{Caller, Credential, PrincipalKind, TenantScope};
use crate::domain::{
    ClassName, GrantId, KeyId, Purpose, Record, RequestId, SubjectRef, TenantId, Timestamp, Token,
};
use crate::store::MAX_ENTRY;

pub use vault_proto::v1::audit_entry::Action as AuditAction;
pub use vault_proto::v1::audit_item::Outcome;

const MAX_REASON: usize = 512;
const MAX_TICKET: usize = 128;
const MAX_IDENTITY: usize = 2048;
const MAX_DETAIL: usize = 512;
/// More than this beside the items is no request of ours.
const MAX_COMMON: usize = 32 * 1024;

/// What is to be written of a request, but for its items.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Which request.
    pub request: RequestId,
    /// What was asked for.
    pub action: AuditAction,
    /// Who asked.
    pub actor: Actor,
    /// Whose data; `None` for what concerns the vault itself.
    pub tenant: Option<TenantId>,
    /// What for, if that was said.
    pub purpose: Option<Purpose>,
    /// The caller's own words; encoded, and cut after 512 characters.
    pub reason: String,
    /// The caller's ticket; encoded, and cut after 128 characters.
    pub ticket: String,
    /// The grant of break-glass that it is about, or was done under.
    pub grant: Option<GrantId>,
    /// Ids of the policies that decided.
    pub policies: BTreeSet<String>,
    /// What was decided.
    pub decision: Decision,
    /// The true cause of a denial of the whole request; empty when allowed.
    pub cause: &'static str,
    /// Names and values about the vault itself. No PHI. A name stands at most once.
    pub details: Vec<(&'static str, String)>,
}

/// What was decided on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All of it is allowed.
    Allow,
    /// None of it.
    Deny,
    /// Some items are allowed, some not.
    Partial,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Actor(wire::Actor);

/// One item of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its token, if it has one.
    pub token: Option<Token>,
    /// Its data class, if known.
    pub class: Option<ClassName>,
    /// Whom it is about, if known.
    pub subject: Option<SubjectRef>,
    /// The data key it is sealed under, if it is.
    pub key_id: Option<KeyId>,
    /// What became of it.
    pub outcome: Outcome,
    /// How many tokens a Find found.
    pub matches: u32,
}

/// What stands beside the items is too much for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much for a log entry")]
pub struct TooLarge;

impl Draft {
    /// Of a request that is allowed so far, and of which no more is known.
    pub fn new(request: RequestId, action: AuditAction, actor: Actor) -> Self {
        Self {
            request,
            action,
            actor,
            tenant: None,
            purpose: None,
            reason: String::new(),
            ticket: String::new(),
            grant: None,
            policies: BTreeSet::new(),
            decision: Decision::Allow,
            cause: "",
            details: Vec::new(),
        }
    }

    /// Of something that the vault did by itself.
    pub fn of_vault(request: RequestId, action: AuditAction) -> Self {
        Self::new(request, action, Actor::vault())
    }
}

impl Actor {
    /// An authenticated caller, with the roles that count for a tenant.
    pub fn caller(caller: &Caller, tenant: &TenantId) -> Self {
        Self::caller_at(caller, &TenantScope::One(tenant.clone()))
    }

    /// An authenticated caller, with the roles that count for the vault as a whole.
    pub fn caller_of_vault(caller: &Caller) -> Self {
        Self::caller_at(caller, &TenantScope::All)
    }

    /// Someone whose credential names no principal.
    pub fn unknown(credential: &Credential) -> Self {
        Self(wire::Actor {
            credential: credential.shown().map(|shown| shown.to_vec()).unwrap_or_default().into(),
            identity: printable(&credential.identities.join(" "), MAX_IDENTITY),
            factors: credential.factors().iter().map(ToString::to_string).collect(),
            source: credential.source.map(|ip| ip.to_string()).unwrap_or_default(),
            ..wire::Actor::default()
        })
    }

    /// The vault itself.
    pub fn vault() -> Self {
        Self(wire::Actor { kind: wire::actor::Kind::Vault.into(), ..wire::Actor::default() })
    }

    fn caller_at(caller: &Caller, place: &TenantScope) -> Self {
        let kind = match caller.principal.kind {
            PrincipalKind::Service => wire::actor::Kind::Service,
            PrincipalKind::Human => wire::actor::Kind::Human,
        };
        let mut roles: Vec<_> =
            caller.principal.roles_at(place).iter().map(|role| role.as_str().to_owned()).collect();
        roles.sort_unstable();
        Self(wire::Actor {
            principal: caller.principal.id.to_string(),
            kind: kind.into(),
            roles,
            credential: caller.credential.to_vec().into(),
            identity: printable(&caller.identity, MAX_IDENTITY),
            factors: caller.factors.iter().map(ToString::to_string).collect(),
            source: caller.source.map(|ip| ip.to_string()).unwrap_or_default(),
        })
    }
}

impl Item {
    /// About a record.
    pub fn of_record(record: &Record, outcome: Outcome) -> Self {
        Self {
            token: Some(record.token),
            class: Some(record.class.clone()),
            subject: record.subject,
            key_id: record.key_id(),
            outcome,
            matches: 0,
        }
    }

    /// About a token of which no more is known.
    pub fn of_token(token: Token, outcome: Outcome) -> Self {
        Self { token: Some(token), ..Self::invalid().with(outcome) }
    }

    /// About what is not even a token, or a value that is not of its class.
    pub fn invalid() -> Self {
        let outcome = Outcome::Invalid;
        Self { token: None, class: None, subject: None, key_id: None, outcome, matches: 0 }
    }

    fn with(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// Appends the item as field 16 of an entry.
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0x82, 0x01, 0]);
        let start = out.len();
        if let Some(token) = &self.token {
            put_bytes(out, 0x0A, token.as_bytes());
        }
        if let Some(class) = &self.class {
            put_bytes(out, 0x12, class.as_str().as_bytes());
        }
        if let Some(subject) = &self.subject {
            put_bytes(out, 0x1A, &subject.to_bytes());
        }
        if let Some(key_id) = &self.key_id {
            put_bytes(out, 0x22, key_id.as_bytes());
        }
        if self.outcome != Outcome::Unspecified {
            out.extend_from_slice(&[0x28, self.outcome as u8]);
        }
        if self.matches > 0 {
            out.push(0x30);
            encode_varint(u64::from(self.matches), out);
        }
        // At most 18 + 34 + 22 + 18 + 2 + 6 = 100, so its varint is this byte.
        out[start - 1] = (out.len() - start) as u8;
    }
}

impl Draft {
    /// The entries, stamped `now`.
    pub(super) fn encode(&self, now: Timestamp, items: &[Item]) -> Result<Vec<Bytes>, TooLarge> {
        let mut head = self.head(now);
        let tail = self.tail();
        (head.part, head.parts) = (u32::MAX, u32::MAX);
        let common = head.encoded_len() + tail.len();
        if common > MAX_COMMON {
            return Err(TooLarge);
        }
        let mut wired = Vec::with_capacity(items.len() * 104);
        let parts = split(&mut wired, items, MAX_ENTRY - common);
        head.parts = u32::try_from(parts.len()).map_err(|_| TooLarge)?;
        let entries = parts.into_iter().zip(0..).map(|(range, part)| {
            head.part = part;
            let mut entry = Vec::with_capacity(common + range.len());
            entry.extend_from_slice(&head.encode_to_vec());
            entry.extend_from_slice(&wired[range]);
            entry.extend_from_slice(&tail);
            Bytes::from(entry)
        });
        Ok(entries.collect())
    }

    /// Fields 1 to 15.
    fn head(&self, now: Timestamp) -> AuditEntry {
        let decision = match self.decision {
            Decision::Allow => wire::audit_entry::Decision::Allow,
            Decision::Deny => wire::audit_entry::Decision::Deny,
            Decision::Partial => wire::audit_entry::Decision::Partial,
        };
        AuditEntry {
            version: 1,
            time_us: now.0,
            request_id: self.request.as_bytes().to_vec().into(),
            action: self.action.into(),
            decision: decision.into(),
            cause: self.cause.to_owned(),
            policies: self.policies.iter().map(|id| printable(id, MAX_TICKET)).collect(),
            actor: Some(self.actor.0.clone()),
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            purpose: self.purpose.map(|purpose| purpose.code().to_owned()).unwrap_or_default(),
            reason: printable(&self.reason, MAX_REASON),
            ticket: printable(&self.ticket, MAX_TICKET),
            grant: self.grant.map(|grant| grant.to_string()).unwrap_or_default(),
            ..AuditEntry::default()
        }
    }

    /// Fields 17 and 18: of the latter one at a time, since a map has no order.
    fn tail(&self) -> Vec<u8> {
        let exclusion = self.purpose.and_then(Purpose::accounting_exclusion).unwrap_or_default().to_owned();
        let mut tail =
            AuditEntry { accounting_exclusion: exclusion, ..AuditEntry::default() }.encode_to_vec();
        let mut details: Vec<_> = self.details.iter().collect();
        details.sort_by_key(|(name, _)| *name);
        for (name, value) in details {
            let details = [((*name).to_owned(), printable(value, MAX_DETAIL))].into();
            tail.extend_from_slice(&AuditEntry { details, ..AuditEntry::default() }.encode_to_vec());
        }
        tail
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.extend_from_slice(&[tag, bytes.len() as u8]);
    out.extend_from_slice(bytes);
}

/// Appends the items to `wired`; returns where to cut it so that no part has more than `room` bytes. At least one
/// part.
fn split(wired: &mut Vec<u8>, items: &[Item], room: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::with_capacity(1);
    let mut start = 0;
    for item in items {
        let before = wired.len();
        item.put(wired);
        if wired.len() - start > room {
            parts.push(start..before);
            start = before;
        }
    }
    parts.push(start..wired.len());
    parts
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
