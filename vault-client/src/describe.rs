//! What is known of a token without any PHI.

use std::time::{Duration, SystemTime};

use vault_proto::v1 as wire;

/// Whether a token's value is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// The value is there.
    Active,
    /// The value was erased; the token stays known.
    Erased,
    /// A state this client does not know.
    Unknown,
}

impl State {
    /// In lower case, for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Erased => "erased",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known of a token, without PHI.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// Whose data.
    pub tenant: String,
    /// The data class's name.
    pub class: String,
    /// Whether the value is still there.
    pub state: State,
    /// When it was tokenized.
    pub created: Option<SystemTime>,
    /// When it was erased, if it was.
    pub erased: Option<SystemTime>,
    /// Version of the tenant's data key it is sealed under; `None` once erased.
    pub key_version: Option<u32>,
    /// Whether it belongs to a subject (whom is not told).
    pub has_subject: bool,
    /// Whether a search by value can find it.
    pub indexed: bool,
}

impl From<wire::Description> for Description {
    fn from(wire: wire::Description) -> Self {
        let state = match wire.state() {
            wire::description::State::Active => State::Active,
            wire::description::State::Erased => State::Erased,
            wire::description::State::Unspecified => State::Unknown,
        };
        Self {
            state,
            created: wire.created.and_then(time),
            erased: wire.erased.and_then(time),
            key_version: (wire.key_version != 0).then_some(wire.key_version),
            has_subject: wire.has_subject,
            indexed: wire.indexed,
            tenant: wire.tenant,
            class: wire.data_class,
        }
    }
}

fn time(wire: prost_types::Timestamp) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(wire.seconds).ok()?, u32::try_from(wire.nanos).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}
