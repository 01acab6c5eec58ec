//! A change that makes more of somebody, and waits for another person's approval. Pure: time and callers come in as arguments.
//!
//! ```text
//! place    proposal, of the tenant that is acted for (of none: as an admin of the vault), id(16)
//! content  version(1)=1 | ProposalRow        a protobuf message in its one encoding (fields by number, defaults left out)
//! ```
//!
//! The row is made when the change is asked for, never changes, and is gone with what becomes of it: made, rejected, or swept
//! away when its time is over. So an approval counts once, and of the very content that was seen: its SHA-256
//! ([`Proposal::hash`]). A change of a principal is of the state it was asked of; when that is another one, nobody can approve it.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::grant::PartyRow;
use super::provisioned;
use crate::access::{Party, Principal, SecurityKey};
use crate::domain::{
    Entity, EntityKind, EntityName, EntityPlace, MAX_ENTITY, PrincipalId, ProposalId, RequestId, TenantId,
    Timestamp,
};

const VERSION: u8 = 1;

/// A change that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its id.
    pub id: ProposalId,
    /// For which tenant it was asked for; `None`: as an admin of the vault.
    pub tenant: Option<TenantId>,
    /// Who asked.
    pub asker: Party,
    /// In which request: so it is found in the log.
    pub request: RequestId,
    /// When.
    pub asked: Timestamp,
    /// From when on it can't be approved any more.
    pub expires: Timestamp,
    /// What is asked for.
    pub change: Proposed,
    /// Why, in words.
    pub reason: String,
    /// A case number.
    pub ticket: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// A principal that is new, or another than it was.
    Principal {
        /// As it shall be.
        after: Box<Principal>,
        /// The state it was asked of: its [`state_hash`]. `None`: there was nobody of that id.
        before: Option<[u8; 32]>,
    },
    /// A security key for a person.
    SecurityKey {
        /// Whose it shall be.
        principal: PrincipalId,
        /// The key.
        key: Box<SecurityKey>,
        /// What people call it.
        label: String,
    },
}

/// Why a change is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposalRefusal {
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// The approval is of something else.
    #[error("it is another content")]
    Content,
    /// By who asked for it, or gains by it, under whatever name.
    #[error("it needs another person")]
    SecondPerson,
    /// The principal is another than it was.
    #[error("the principal was changed meanwhile")]
    Superseded,
    /// Who asked may not ask for it any more.
    #[error("who asked may not any more")]
    Asker,
    /// Who approves may not change the principal as a whole.
    #[error("who approves may not")]
    Approver,
}

impl ProposalRefusal {
    /// The true cause, for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Content => "another_content",
            Self::SecondPerson => "second_person",
            Self::Superseded => "superseded",
            Self::Asker => "asker_may_not",
            Self::Approver => "approver_may_not",
        }
    }
}

/// A row is not a proposal's, or not of this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proposal's row is not what was written")]
pub struct CorruptProposal;

#[derive(Clone, PartialEq, prost::Message)]
struct ProposalRow {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// Empty: the vault as a whole.
    #[prost(string, tag = "2")]
    tenant: String,
    #[prost(message, optional, tag = "3")]
    asker: Option<PartyRow>,
    #[prost(bytes = "vec", tag = "4")]
    request: Vec<u8>,
    #[prost(uint64, tag = "5")]
    asked: u64,
    #[prost(uint64, tag = "6")]
    expires: u64,
    #[prost(string, tag = "7")]
    reason: String,
    #[prost(string, tag = "8")]
    ticket: String,
    /// One of the two, and not both.
    #[prost(message, optional, tag = "9")]
    principal: Option<PrincipalChangeRow>,
    #[prost(message, optional, tag = "10")]
    key: Option<KeyRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PrincipalChangeRow {
    /// The content of its row.
    #[prost(bytes = "vec", tag = "1")]
    after: Vec<u8>,
    #[prost(uint64, tag = "2")]
    revision: u64,
    /// Empty: there was nobody.
    #[prost(bytes = "vec", tag = "3")]
    before: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyRow {
    #[prost(string, tag = "1")]
    principal: String,
    #[prost(bytes = "vec", tag = "2")]
    blob: Vec<u8>,
    #[prost(string, tag = "3")]
    label: String,
}

/// What tells a state of a principal from every other one, also in a store that was set back.
pub fn state_hash(principal: &Principal) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"phi-vault principal state v1\0");
    hash.update(principal.revision.unwrap_or(0).to_be_bytes());
    hash.update(provisioned::content(principal));
    hash.finalize().into()
}

impl Proposed {
    /// Whose it is, of the principals.
    pub fn principal(&self) -> &PrincipalId {
        match self {
            Self::Principal { after, .. } => &after.id,
            Self::SecurityKey { principal, .. } => principal,
        }
    }

    /// Whether somebody gains by it, under whatever name.
    fn is_about(&self, who: &Party) -> bool {
        let known_by = |identity: &String| {
            let identity: [u8; 32] = Sha256::digest(identity).into();
            who.identities.contains(&identity)
        };
        *self.principal() == who.principal
            || match self {
                Self::Principal { after, .. } => after.identities.iter().any(known_by),
                Self::SecurityKey { .. } => false,
            }
    }
}

impl Proposal {
    /// Where it stands.
    pub fn place(tenant: Option<&TenantId>, id: ProposalId) -> EntityPlace {
        let name = EntityName::new(id.as_bytes()).expect("16 bytes are a name");
        EntityPlace { kind: EntityKind::Proposal, tenant: tenant.cloned(), name }
    }

    /// SHA-256 of it, in its one encoding: what an approval is of.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"phi-vault principal change v1\0");
        hash.update(self.content());
        hash.finalize().into()
    }

    /// Whether it can't be approved any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.expires
    }

    /// Whether somebody may approve it, as far as it can tell by itself: `hash` is of what was seen.
    pub fn may_approve(&self, by: &Party, hash: &[u8], now: Timestamp) -> Result<(), ProposalRefusal> {
        if self.is_over(now) {
            return Err(ProposalRefusal::Expired);
        }
        if self.asker.is_same_person(by) || self.change.is_about(by) {
            return Err(ProposalRefusal::SecondPerson);
        }
        if hash == self.hash() { Ok(()) } else { Err(ProposalRefusal::Content) }
    }

    /// Whether it is still of the state of the principal that there is. (Of a security key it always is.)
    pub fn is_of(&self, now: Option<&Principal>) -> bool {
        match &self.change {
            Proposed::Principal { before, .. } => now.map(state_hash) == *before,
            Proposed::SecurityKey { .. } => true,
        }
    }

    /// As it is kept. `None` if it is too large.
    pub fn entity(&self) -> Option<Entity> {
        let (place, content) = (Self::place(self.tenant.as_ref(), self.id), self.content());
        (content.len() <= MAX_ENTITY).then_some(Entity { place, revision: 0, content })
    }

    /// As it was kept.
    pub fn read(entity: &Entity) -> Result<Self, CorruptProposal> {
        let (version, bytes) = entity.content.split_first().ok_or(CorruptProposal)?;
        let proposal = ProposalRow::decode(bytes).ok().and_then(proposal).ok_or(CorruptProposal)?;
        let same = *version == VERSION
            && entity.place == Self::place(proposal.tenant.as_ref(), proposal.id)
            && proposal.content() == entity.content;
        if same { Ok(proposal) } else { Err(CorruptProposal) }
    }

    fn content(&self) -> Vec<u8> {
        let (principal, key) = match &self.change {
            Proposed::Principal { after, before } => {
                let row = PrincipalChangeRow {
                    after: provisioned::content(after),
                    revision: after.revision.unwrap_or(0),
                    before: before.map(|hash| hash.to_vec()).unwrap_or_default(),
                };
                (Some(row), None)
            }
            Proposed::SecurityKey { principal, key, label } => {
                let (principal, blob) = (principal.to_string(), key.blob().to_vec());
                (None, Some(KeyRow { principal, blob, label: label.clone() }))
            }
        };
        let row = ProposalRow {
            id: self.id.as_bytes().to_vec(),
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            asker: Some(PartyRow::of(&self.asker)),
            request: self.request.as_bytes().to_vec(),
            asked: self.asked.0,
            expires: self.expires.0,
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            principal,
            key,
        };
        [vec![VERSION], row.encode_to_vec()].concat()
    }
}

fn proposal(row: ProposalRow) -> Option<Proposal> {
    let change = match (row.principal, row.key) {
        (Some(PrincipalChangeRow { after, revision, before }), None) => Proposed::Principal {
            after: Box::new(provisioned::parse(&after, revision)?),
            before: if before.is_empty() { None } else { Some(before.try_into().ok()?) },
        },
        (None, Some(KeyRow { principal, blob, label })) => Proposed::SecurityKey {
            principal: PrincipalId::parse(&principal).ok()?,
            key: Box::new(SecurityKey::from_blob(&blob).ok()?),
            label,
        },
        _ => return None,
    };
    Some(Proposal {
        id: ProposalId::from_bytes(row.id.try_into().ok()?),
        tenant: match row.tenant.as_str() {
            "" => None,
            tenant => Some(TenantId::parse(tenant).ok()?),
        },
        asker: row.asker?.party()?,
        request: RequestId::from_bytes(row.request.try_into().ok()?),
        asked: Timestamp(row.asked),
        expires: Timestamp(row.expires),
        change,
        reason: row.reason,
        ticket: row.ticket,
    })
}

#[cfg(test)]
#[path = "proposal_tests.rs"]
mod tests;
