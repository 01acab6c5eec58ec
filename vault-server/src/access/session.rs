//! Sessions of people, as they are kept: three kinds of rows of [`EntityKind::Session`], all the vault's own.
//!
//! ```text
//! name     SHA-256 of the session token (32)                  a session
//!          'p' | SHA-256 of the principal's id (32)           a principal's sessions
//!          't' | id of an access token (32)                   an access token that was used, and opens no other session
//! content  version(1)=1 | protobuf
//! ```
//!
//! The session token itself is kept nowhere. Whoever reads the store learns nothing that opens anything.

use std::time::Duration;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, PrincipalId, Timestamp};

const VERSION: u8 = 1;
const PREFIX: &str = "pvs_";
/// At most: a session whose use was noted that long ago has its use noted again.
const NOTED_EVERY: Duration = Duration::from_mins(1);

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct SessionRules {
    /// Without a call.
    pub idle: Duration,
    /// In any case.
    pub lifetime: Duration,
    /// How many a principal has at most.
    pub per_principal: usize,
}

impl SessionRules {
    /// How exact the last use is: it is noted that often at most, so a session may seem idle for as much longer than it is.
    pub fn noted_every(&self) -> Duration {
        NOTED_EVERY.min(self.idle / 4)
    }
}

/// What speaks for a person: `pvs_` and 32 random bytes in hexadecimal. A secret.
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// A new one. `None` without randomness from the operating system.
    pub fn random() -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).ok()?;
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 64));
        text.push_str(PREFIX);
        for byte in bytes.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        Some(Self(text))
    }

    /// Whether a text is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// One as it came.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 64 && digits.bytes().all(is_digit)).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Under which its session is kept, and known in the log.
    pub fn name(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The token. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Session {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub principal: String,
    /// The identity that opened it.
    #[prost(string, tag = "2")]
    pub identity: String,
    /// How the person was authenticated.
    #[prost(string, repeated, tag = "3")]
    pub factors: Vec<String>,
    /// When it was opened, in microseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub opened_us: u64,
    /// When it was used, as far as that was noted.
    #[prost(uint64, tag = "5")]
    pub used_us: u64,
    /// When it ends.
    #[prost(uint64, tag = "6")]
    pub ends_us: u64,
    /// SHA-256 of the certificate that it is bound to; empty if to none.
    #[prost(bytes = "vec", tag = "7")]
    pub certificate: Vec<u8>,
    /// The access token that opened it.
    #[prost(bytes = "vec", tag = "8")]
    pub token: Vec<u8>,
    /// When it was closed; 0 if it was not.
    #[prost(uint64, tag = "9")]
    pub closed_us: u64,
}

impl Session {
    /// Why it does not stand; `None` if it does. A time before its last use is that of a clock that was set back, and
    /// prolongs nothing.
    pub fn over(&self, now: Timestamp, rules: &SessionRules) -> Option<&'static str> {
        let now = now.0.max(self.used_us);
        let since = |time: u64| Duration::from_micros(now.saturating_sub(time));
        if self.closed_us > 0 {
            Some("session_closed")
        } else if now >= self.ends_us || since(self.opened_us) >= rules.lifetime {
            Some("session_expired")
        } else if since(self.used_us) >= rules.idle {
            Some("session_idle")
        } else {
            None
        }
    }

    /// Whether its use is to be noted.
    pub fn is_stale(&self, now: Timestamp, rules: &SessionRules) -> bool {
        Duration::from_micros(now.0.saturating_sub(self.used_us)) >= rules.noted_every()
    }

    /// Whether it may be used on a connection with this certificate.
    pub fn fits(&self, certificate: Option<&[u8; 32]>) -> bool {
        self.certificate.is_empty() || certificate.is_some_and(|shown| self.certificate == shown)
    }
}

/// A principal's sessions.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SessionList {
    /// Their names, oldest first.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub sessions: Vec<Vec<u8>>,
}

/// An access token that was used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UsedToken {
    /// Until when it would be good.
    #[prost(uint64, tag = "1")]
    pub expires_us: u64,
}

/// A row of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionRow {
    /// A session.
    Session(Session),
    /// A principal's.
    List(SessionList),
    /// A used access token.
    Used(UsedToken),
}

impl SessionRow {
    /// Where a session stands.
    pub fn session(name: &[u8; 32]) -> Option<EntityPlace> {
        place(name)
    }

    /// Where a principal's list stands.
    pub fn list(principal: &PrincipalId) -> Option<EntityPlace> {
        place(&[b"p".as_slice(), &Sha256::digest(principal.as_str())].concat())
    }

    /// Where a used access token stands.
    pub fn used(token: &[u8; 32]) -> Option<EntityPlace> {
        place(&[b"t".as_slice(), token].concat())
    }

    /// From a row; `None` if it is not what was written.
    pub fn read(entity: &Entity) -> Option<Self> {
        let (version, content) = entity.content.split_first()?;
        let name = entity.place.name.as_bytes();
        match (*version, name.len(), name.first()?) {
            (VERSION, 32, _) => Session::decode(content).ok().map(Self::Session),
            (VERSION, 33, b'p') => SessionList::decode(content).ok().map(Self::List),
            (VERSION, 33, b't') => UsedToken::decode(content).ok().map(Self::Used),
            _ => None,
        }
    }

    /// As a row.
    pub fn entity(&self, place: EntityPlace, revision: u64) -> Entity {
        let mut content = vec![VERSION];
        content.extend(match self {
            Self::Session(session) => session.encode_to_vec(),
            Self::List(list) => list.encode_to_vec(),
            Self::Used(used) => used.encode_to_vec(),
        });
        Entity { place, revision, content }
    }
}

fn place(name: &[u8]) -> Option<EntityPlace> {
    Some(EntityPlace { kind: EntityKind::Session, tenant: None, name: EntityName::new(name)? })
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
