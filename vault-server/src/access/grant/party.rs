//! Somebody who has a part in what needs two people: a grant, a change of who may, a destruction.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::access::{Caller, identity};
use crate::domain::PrincipalId;

const VERSION: u8 = 1;

/// Who it was, and by what it could be known again under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The principal.
    pub principal: PrincipalId,
    /// SHA-256 of the credential that it came with.
    pub credential: [u8; 32],
    /// SHA-256 of each identity of the principal's, and of the one that it came with; sorted.
    pub identities: Vec<[u8; 32]>,
    /// The fingerprint of the security key that was touched; empty if none was.
    pub key: String,
}

impl Party {
    /// A caller, before any security key was touched.
    pub fn of(caller: &Caller) -> Self {
        let came_with = identity::canonical(&caller.identity);
        let came_with = came_with.as_deref().unwrap_or(&caller.identity);
        let own = caller.principal.identities.iter().map(String::as_str);
        let mut identities: Vec<[u8; 32]> =
            own.chain([came_with]).map(|identity| Sha256::digest(identity).into()).collect();
        identities.sort_unstable();
        identities.dedup();
        Self {
            principal: caller.principal.id.clone(),
            credential: caller.credential,
            identities,
            key: String::new(),
        }
    }

    /// Now that its security key was touched.
    #[must_use]
    pub fn touched(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }

    /// For a row that is not the access layer's own.
    pub fn to_bytes(&self) -> Vec<u8> {
        [vec![VERSION], PartyRow::of(self).encode_to_vec()].concat()
    }

    /// From such a row. `None` if it is not what was written.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let row = PartyRow::decode(bytes.strip_prefix(&[VERSION])?).ok()?;
        row.party().filter(|party| party.to_bytes() == bytes)
    }

    /// Whether both are, or could be, one person: anything that stands for a person is the same.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.principal == other.principal
            || self.credential == other.credential
            || (!self.key.is_empty() && self.key == other.key)
            || self.identities.iter().any(|identity| other.identities.contains(identity))
    }

    /// Whether both are the same principal with the same credential.
    pub fn is_same_caller(&self, other: &Self) -> bool {
        self.principal == other.principal && self.credential == other.credential
    }
}

/// Who it was, at rest: part of the rows of what it has a part in.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::access) struct PartyRow {
    #[prost(string, tag = "1")]
    principal: String,
    #[prost(bytes = "vec", tag = "2")]
    credential: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    identities: Vec<Vec<u8>>,
    #[prost(string, tag = "4")]
    key: String,
}

impl PartyRow {
    pub(in crate::access) fn of(party: &Party) -> Self {
        Self {
            principal: party.principal.to_string(),
            credential: party.credential.to_vec(),
            identities: party.identities.iter().map(|identity| identity.to_vec()).collect(),
            key: party.key.clone(),
        }
    }

    pub(in crate::access) fn party(self) -> Option<Party> {
        Some(Party {
            principal: PrincipalId::parse(&self.principal).ok()?,
            credential: self.credential.try_into().ok()?,
            identities: self
                .identities
                .into_iter()
                .map(|identity| identity.try_into().ok())
                .collect::<Option<_>>()?,
            key: self.key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first version wrote it: it must open for ever.
    const VECTOR: &str = "01\
        0a03616e6e12200707070707070707070707070707070707070707070707070707070707070707\
        1a200808080808080808080808080808080808080808080808080808080808080808220a5348413235363a616263";

    #[test]
    fn the_committed_bytes_are_who_it_was() {
        let ann = Party {
            principal: PrincipalId::parse("ann").unwrap(),
            credential: [7; 32],
            identities: vec![[8; 32]],
            key: "SHA256:abc".to_owned(),
        };
        let bytes = ann.to_bytes();
        assert_eq!(hex::encode(&bytes), VECTOR);
        assert_eq!(Party::from_bytes(&bytes).as_ref(), Some(&ann));
        for len in 0..bytes.len() {
            assert_ne!(Party::from_bytes(&bytes[..len]).as_ref(), Some(&ann), "cut to {len}");
        }
        let more = [bytes.clone(), vec![0]].concat();
        assert_eq!(Party::from_bytes(&more), None);
        assert_eq!(Party::from_bytes(&[&[2], &bytes[1..]].concat()), None, "version");
    }
}
