//! The associated data of a record: where it belongs, so that it opens nowhere else.
//!
//! Ten fields in this order, each `length(2, big-endian) | bytes`:
//!
//! ```text
//! version(1) suite(1) | vault id(16) | environment | tenant | token(16) | class |
//! subject reference(20) or nothing | key id(16) | blind index(20) or nothing | created(8, big-endian microseconds)
//! ```

use crate::crypto::format::{SUITE, VERSION};
use crate::domain::{
    BlindIndex, ClassName, KeyId, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};

/// Where a value belongs; all of it is bound by the seal, with the id of the data key.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The vault and its environment.
    pub identity: &'a VaultIdentity,
    /// The record's public name.
    pub token: Token,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// What kind of PHI.
    pub class: &'a ClassName,
    /// Whom it is about.
    pub subject: Option<SubjectRef>,
    /// What Find looks up.
    pub index: Option<BlindIndex>,
    /// When it was tokenized.
    pub created: Timestamp,
}

impl<'a> Place<'a> {
    /// Where a record says that it belongs.
    pub(super) fn of_record(record: &'a Record, identity: &'a VaultIdentity) -> Self {
        Self {
            identity,
            token: record.token,
            tenant: &record.tenant,
            class: &record.class,
            subject: record.subject,
            index: record.index,
            created: record.created,
        }
    }
}

/// The byte form of a place and a key id.
pub(super) struct Aad(Vec<u8>);

impl Aad {
    pub(super) fn new(place: &Place<'_>, key_id: KeyId) -> Self {
        let subject = place.subject.map(SubjectRef::to_bytes);
        let index = place.index.map(BlindIndex::to_bytes);
        let created = place.created.0.to_be_bytes();
        Self::list([
            &[VERSION, SUITE],
            place.identity.vault.as_bytes(),
            place.identity.environment.as_str().as_bytes(),
            place.tenant.as_str().as_bytes(),
            place.token.as_bytes(),
            place.class.as_str().as_bytes(),
            subject.as_ref().map_or(&[], |bytes| bytes),
            key_id.as_bytes(),
            index.as_ref().map_or(&[], |bytes| bytes),
            &created,
        ])
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn list(fields: [&[u8]; 10]) -> Self {
        let mut bytes = Vec::with_capacity(fields.iter().map(|field| 2 + field.len()).sum());
        for field in fields {
            let length = u16::try_from(field.len()).expect("names and ids are at most 128 bytes");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..4), 10)
    }

    fn list(fields: &[Vec<u8>]) -> Vec<u8> {
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        Aad::list(fields.try_into().unwrap()).0
    }

    /// Reads a list back, which only works if it is unambiguous.
    fn parse(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut fields = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk() {
            let (field, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
            fields.push(field.to_vec());
            bytes = rest;
        }
        assert!(bytes.is_empty());
        fields
    }

    proptest! {
        #[test]
        fn lists_that_differ_have_bytes_that_differ(fields in fields()) {
            prop_assert_eq!(parse(&list(&fields)), fields);
        }
    }
}
