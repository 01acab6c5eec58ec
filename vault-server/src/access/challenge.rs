//! What a security key is to sign, once: a text that people can read and that can mean nothing else. The row holds what the
//! text is made of; it goes with the commit of what it was signed for, or when its time is over.
//!
//! ```text
//! content  version(1)=1 | ChallengeContent (protobuf, canonical)
//! ```

use std::time::Duration;

use prost::Message as _;
use subtle::ConstantTimeEq as _;

use crate::domain::{
    ChallengeId, Entity, EntityKind, EntityName, EntityPlace, PrincipalId, SecondFactorAction, Timestamp,
    VaultIdentity,
};

const VERSION: u8 = 1;

/// For how long a challenge is good.
const LIFETIME: Duration = Duration::from_mins(5);
/// By how much the clocks of two instances may differ.
const SKEW: Duration = Duration::from_secs(10);

/// What a security key is to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What it is called.
    pub id: ChallengeId,
    /// Who is to sign.
    pub principal: PrincipalId,
    /// SHA-256 of the certificate that asked for it.
    pub credential: [u8; 32],
    /// What for.
    pub action: SecondFactorAction,
    /// SHA-256 of the request that it is for.
    pub request_hash: [u8; 32],
    /// What makes it unlike any other.
    pub random: [u8; 32],
    /// From when on it is good.
    pub issued: Timestamp,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// Why a challenge is not one for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Another principal's.
    #[error("of another principal")]
    Principal,
    /// Asked for with another credential.
    #[error("of another credential")]
    Credential,
    /// For another action.
    #[error("for another action")]
    Action,
    /// For another request.
    #[error("for another request")]
    Request,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time is still to come: the clock was set back.
    #[error("from the future")]
    Future,
}

impl ChallengeError {
    /// For the log's cause.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "second_factor_principal",
            Self::Credential => "second_factor_credential",
            Self::Action => "second_factor_action",
            Self::Request => "second_factor_request",
            Self::Expired => "second_factor_expired",
            Self::Future => "second_factor_future",
        }
    }
}

/// What is asked of a challenge.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Who calls.
    pub principal: &'a PrincipalId,
    /// With which credential.
    pub credential: &'a [u8; 32],
    /// To do what.
    pub action: SecondFactorAction,
    /// By which request.
    pub request_hash: &'a [u8; 32],
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChallengeContent {
    #[prost(string, tag = "1")]
    principal: String,
    #[prost(bytes = "vec", tag = "2")]
    credential: Vec<u8>,
    #[prost(uint32, tag = "3")]
    action: u32,
    #[prost(bytes = "vec", tag = "4")]
    request_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    random: Vec<u8>,
    #[prost(uint64, tag = "6")]
    issued_us: u64,
    #[prost(uint64, tag = "7")]
    expires_us: u64,
}

impl Challenge {
    /// A new one.
    pub fn new(wanted: Wanted<'_>, now: Timestamp) -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self {
            id: ChallengeId::random()?,
            principal: wanted.principal.clone(),
            credential: *wanted.credential,
            action: wanted.action,
            request_hash: *wanted.request_hash,
            random,
            issued: now,
            expires: later(now, LIFETIME),
        })
    }

    /// The text to sign. `None` for a time that no calendar has.
    pub fn text(&self, identity: &VaultIdentity) -> Option<String> {
        let expires = jiff::Timestamp::from_microsecond(self.expires.0.try_into().ok()?).ok()?;
        let Self { principal, request_hash, random, .. } = self;
        let (vault, environment, words) = (identity.vault, &identity.environment, self.action.words());
        let (request, random) = (hex::encode(request_hash), hex::encode(random));
        Some(format!(
            "phi-vault second factor v1\n\
             Touch your security key only if you want to: {words}\n\
             vault: {vault}\n\
             environment: {environment}\n\
             principal: {principal}\n\
             request-sha256: {request}\n\
             random: {random}\n\
             expires: {expires:.6}\n"
        ))
    }

    /// Whether it is one for that, now. Who looks at the clock can't tell one answer from another.
    pub fn check(&self, wanted: Wanted<'_>, now: Timestamp) -> Result<(), ChallengeError> {
        let request = self.request_hash.ct_eq(wanted.request_hash);
        let credential = self.credential.ct_eq(wanted.credential);
        if self.principal != *wanted.principal {
            return Err(ChallengeError::Principal);
        }
        if !bool::from(credential) {
            return Err(ChallengeError::Credential);
        }
        if self.action != wanted.action {
            return Err(ChallengeError::Action);
        }
        if !bool::from(request) {
            return Err(ChallengeError::Request);
        }
        if now >= self.expires {
            return Err(ChallengeError::Expired);
        }
        if later(now, SKEW) < self.issued {
            return Err(ChallengeError::Future);
        }
        Ok(())
    }

    /// Whether it is good for nothing any more, on whichever instance.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now >= later(self.expires, SKEW)
    }

    /// Where the row of a challenge stands.
    pub fn place(id: ChallengeId) -> Option<EntityPlace> {
        let name = EntityName::new(id.as_bytes())?;
        Some(EntityPlace { kind: EntityKind::Challenge, tenant: None, name })
    }

    /// The row. It is never changed.
    pub fn entity(&self) -> Option<Entity> {
        let content = ChallengeContent {
            principal: self.principal.to_string(),
            credential: self.credential.to_vec(),
            action: self.action.number(),
            request_hash: self.request_hash.to_vec(),
            random: self.random.to_vec(),
            issued_us: self.issued.0,
            expires_us: self.expires.0,
        };
        let mut bytes = vec![VERSION];
        bytes.extend(content.encode_to_vec());
        Some(Entity { place: Self::place(self.id)?, revision: 0, content: bytes })
    }

    /// Reads a row. `None` if it is not what was written there.
    pub fn open(row: &Entity) -> Option<Self> {
        let bytes = row.content.strip_prefix(&[VERSION])?;
        let content = ChallengeContent::decode(bytes).ok()?;
        (content.encode_to_vec() == bytes && row.place.kind == EntityKind::Challenge).then_some(())?;
        Some(Self {
            id: ChallengeId::from_bytes(row.place.name.as_bytes().try_into().ok()?),
            principal: PrincipalId::parse(&content.principal).ok()?,
            credential: content.credential.try_into().ok()?,
            action: SecondFactorAction::from_number(content.action)?,
            request_hash: content.request_hash.try_into().ok()?,
            random: content.random.try_into().ok()?,
            issued: Timestamp(content.issued_us),
            expires: Timestamp(content.expires_us),
        })
    }
}

fn later(time: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
#[path = "challenge_tests.rs"]
mod tests;
