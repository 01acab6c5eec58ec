//! Records that were sealed by format 1 open forever. The vectors are made by a second implementation,
//! `vectors/make.py`.

use serde::Deserialize;

use super::*;
use crate::crypto::index::blind_index_of;
use crate::crypto::random::Fresh;
use crate::crypto::seal::seal_with;
use crate::crypto::{Fingerprint, subject_ref};
use crate::domain::{Sealed, SubjectId};

const RECORDS: &str = include_str!("../vectors/record_v1.json");
const HASHES: &str = include_str!("../vectors/index_v1.json");

/// A sealed record and all that it was made of; bytes are hexadecimal.
#[derive(Deserialize)]
pub(super) struct Vector {
    name: String,
    key: String,
    other_key: Option<String>,
    key_id: String,
    key_version: u32,
    vault: String,
    environment: String,
    tenant: String,
    token: String,
    class: String,
    subject: String,
    index: String,
    created: u64,
    value: String,
    padded_len: usize,
    salt: String,
    nonce: String,
    sealed: String,
}

#[derive(Deserialize)]
struct Hash {
    kind: String,
    key: String,
    tenant: String,
    version: u32,
    fields: Vec<String>,
    mac: String,
}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn optional<const N: usize>(text: &str) -> Option<[u8; N]> {
    (!text.is_empty()).then(|| bytes(text))
}

impl Vector {
    pub(super) fn identity(&self) -> VaultIdentity {
        let environment = Environment::parse(&self.environment).unwrap();
        VaultIdentity { vault: VaultId::from_bytes(bytes(&self.vault)), environment }
    }

    pub(super) fn data_key(&self) -> DataKey {
        self.key_of(&self.key)
    }

    pub(super) fn other_data_key(&self) -> DataKey {
        self.key_of(self.other_key.as_deref().unwrap())
    }

    fn key_of(&self, key: &str) -> DataKey {
        let id = KeyId::from_bytes(bytes(&self.key_id));
        DataKey::new(id, KeyVersion(self.key_version), tenant(&self.tenant), locked(bytes(key)))
    }

    pub(super) fn record(&self) -> Record {
        Record {
            token: Token::from_bytes(bytes(&self.token)),
            tenant: tenant(&self.tenant),
            class: class(&self.class),
            subject: optional(&self.subject).map(SubjectRef::from_bytes),
            index: optional(&self.index).map(BlindIndex::from_bytes),
            created: Timestamp(self.created),
            body: Body::Sealed {
                key_id: KeyId::from_bytes(bytes(&self.key_id)),
                key_version: KeyVersion(self.key_version),
                bytes: Sealed(hex::decode(&self.sealed).unwrap()),
            },
            revision: 0,
        }
    }

    fn fresh(&self) -> Fresh {
        Fresh::chosen(bytes(&format!("{}{}", self.salt, self.nonce)))
    }
}

#[test]
fn records_of_format_1_open() {
    let vectors: Vec<Vector> = serde_json::from_str(RECORDS).unwrap();
    assert!(vectors.len() >= 11);
    for vector in vectors {
        let opened = try_open(&vector.record(), &vector.identity(), &vector.data_key());
        assert_eq!(opened.as_ref(), Ok(&vector.value), "{}", vector.name);
    }
}

#[test]
fn seal_makes_the_records_of_the_vectors() {
    let vectors: Vec<Vector> = serde_json::from_str(RECORDS).unwrap();
    for vector in vectors {
        let (record, identity) = (vector.record(), vector.identity());
        let place = Place::of_record(&record, &identity);
        let value = plain(&vector.value);
        let sealed =
            seal_with(&place, &vector.data_key(), &value, vector.padded_len, &vector.fresh()).unwrap();
        assert_eq!(hex::encode(sealed.0), vector.sealed, "{}", vector.name);
    }
}

#[test]
fn keyed_hashes_are_those_of_the_vectors() {
    let vectors: Vec<Hash> = serde_json::from_str(HASHES).unwrap();
    assert!(vectors.len() >= 5);
    for vector in vectors {
        let (version, of) = (KeyVersion(vector.version), tenant(&vector.tenant));
        let key = IndexKey::new(KeyId::from_bytes([0; 16]), version, of, locked(bytes(&vector.key)));
        let fields: Vec<&str> = vector.fields.iter().map(String::as_str).collect();
        let made = match (vector.kind.as_str(), fields.as_slice()) {
            ("blind-index", [class_name, value]) => {
                hex::encode(blind_index_of(&key, &class(class_name), value).mac)
            }
            ("subject", [subject]) => {
                hex::encode(subject_ref(&key, &SubjectId::parse((*subject).to_owned()).unwrap()).mac)
            }
            ("fingerprint", [label, fields @ ..]) => {
                let empty = Fingerprint::new(&key, label);
                let all = fields.iter().fold(empty, |hash, field| hash.field(field.as_bytes()));
                hex::encode(all.finish())
            }
            (kind, fields) => panic!("unknown vector {kind} {fields:?}"),
        };
        assert_eq!(made, vector.mac, "{} {:?}", vector.kind, vector.fields);
    }
}
