//! The versions of one tenant's key for one purpose, as the store last told them.
//!
//! Every use of a key goes through a list that is at most [`FRESH`] old, also when the open key itself is cached for
//! longer. So a rotation, a compromise or a destruction that another instance wrote takes effect here within that
//! time, at the price of one small read a second for each tenant in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::KeyringError;
use crate::domain::{KeyId, KeyPurpose, KeyRecord, KeyState, TenantId};

/// The bound within which a change of a key's state, or a new version, takes effect on every instance.
pub(super) const FRESH: Duration = Duration::from_secs(1);

pub(super) struct Versions {
    /// When the store was asked, not when it answered.
    asked: Instant,
    newest_first: Vec<Arc<KeyRecord>>,
}

impl Versions {
    /// Takes over what the store holds under an owner and a purpose; a row of anyone else's is corruption.
    pub(super) fn new(
        asked: Instant,
        owner: Option<&TenantId>,
        purpose: KeyPurpose,
        records: Vec<KeyRecord>,
    ) -> Result<Self, KeyringError> {
        if records.iter().any(|record| record.tenant.as_ref() != owner || record.purpose != purpose) {
            return Err(KeyringError::Corrupt);
        }
        let mut newest_first: Vec<_> = records.into_iter().map(Arc::new).collect();
        newest_first.sort_by_key(|record| std::cmp::Reverse(record.version));
        Ok(Self { asked, newest_first })
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) < FRESH
    }

    /// Whether the store was asked after this moment.
    pub(super) fn is_since(&self, moment: Instant) -> bool {
        self.asked > moment
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest_first.is_empty()
    }

    /// The version that seals: the newest active one.
    pub(super) fn active(&self) -> Option<&Arc<KeyRecord>> {
        self.newest_first.iter().find(|record| record.state == KeyState::Active)
    }

    /// Versions that open, newest first; an error if one of them may not be used though it is not gone.
    pub(super) fn usable(&self) -> Result<Vec<&Arc<KeyRecord>>, KeyringError> {
        let there = self.newest_first.iter().filter(|record| record.state != KeyState::Destroyed);
        there.map(|record| check_state(record).map(|()| record)).collect()
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&Arc<KeyRecord>> {
        self.newest_first.iter().find(|record| record.id == id)
    }

    pub(super) fn into_newest_first(self) -> Vec<KeyRecord> {
        self.newest_first.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<KeyRecord>> {
        self.newest_first.iter()
    }
}

/// Whether a key may be used (NIST SP 800-57 part 1, section 7): the ordinary way, not the re-encrypt job's. An index key
/// that is compromised still finds what it made: that tells nobody more, and not to find is not to answer.
pub(super) fn check_state(record: &KeyRecord) -> Result<(), KeyringError> {
    match record.state {
        KeyState::Active | KeyState::Retired => Ok(()),
        KeyState::Compromised if record.purpose == KeyPurpose::Index => Ok(()),
        KeyState::Compromised => Err(KeyringError::Unusable),
        KeyState::Destroyed => Err(KeyringError::Destroyed),
    }
}
