//! What must hold of sealed records and keyed hashes.

mod commitment;
mod keyed_hashes;
mod places;
mod resealing;
mod rows;
mod tampering;
mod vectors;
mod wycheproof;

use vault_mem::{LockedKey, LockedMemoryError};

use crate::crypto::{DataKey, Detokenize, IndexKey, OpenError, Place, Warrant, open, seal};
use crate::domain::{
    BlindIndex, Body, ClassName, Environment, KeyId, KeyVersion, Plaintext, Record, RequestId, SubjectRef,
    TenantId, Timestamp, Token, VaultId, VaultIdentity,
};

const VALUE: &str = "219-09-9999";
const PADDED: usize = 64;

fn locked(bytes: [u8; 32]) -> LockedKey {
    LockedKey::fill(|place| {
        place.copy_from_slice(&bytes);
        Ok::<_, LockedMemoryError>(())
    })
    .unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn class(name: &str) -> ClassName {
    ClassName::parse(name).unwrap()
}

fn plain(text: &str) -> Plaintext {
    Plaintext::from_utf8(text.as_bytes().to_vec()).unwrap()
}

fn identity() -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([1; 16]), environment: Environment::parse("prod").unwrap() }
}

/// The key `bytes` of a tenant, with an id that follows from them.
fn data_key(bytes: [u8; 32], tenant: TenantId) -> DataKey {
    DataKey::new(KeyId::from_bytes([bytes[0]; 16]), KeyVersion::FIRST, tenant, locked(bytes))
}

fn index_key(bytes: [u8; 32], of: &str) -> IndexKey {
    IndexKey::new(KeyId::from_bytes([9; 16]), KeyVersion(3), tenant(of), locked(bytes))
}

fn key() -> DataKey {
    data_key([5; 32], tenant("st-mary"))
}

fn reference(byte: u8) -> SubjectRef {
    SubjectRef { version: KeyVersion::FIRST, mac: [byte; 16] }
}

fn blind(byte: u8) -> BlindIndex {
    BlindIndex { version: KeyVersion::FIRST, mac: [byte; 16] }
}

/// A record of `key`'s tenant that holds [`VALUE`].
fn record(key: &DataKey) -> Record {
    let mut record = Record {
        token: Token::from_bytes([2; 16]),
        tenant: key.tenant().clone(),
        class: class("ssn"),
        subject: Some(reference(3)),
        index: Some(blind(4)),
        created: Timestamp(1_767_225_600_000_000),
        body: Body::Erased { at: Timestamp(0) },
        revision: 0,
    };
    let bytes = seal(&Place::of_record(&record, &identity()), key, &plain(VALUE), PADDED).unwrap();
    record.body = Body::Sealed { key_id: key.id(), key_version: key.version(), bytes };
    record
}

fn warrant<A>(record: &Record) -> Warrant<A> {
    Warrant::assertion(RequestId::from_bytes([8; 16]), vec![record.clone()])
}

fn sealed_bytes(record: &mut Record) -> &mut Vec<u8> {
    match &mut record.body {
        Body::Sealed { bytes, .. } => &mut bytes.0,
        Body::Erased { .. } => panic!("erased"),
    }
}

fn try_open(record: &Record, identity: &VaultIdentity, key: &DataKey) -> Result<String, OpenError> {
    open(&warrant::<Detokenize>(record), 0, identity, key).map(|value| value.expose().to_owned())
}
