//! A sealed row opens at its place, whole, and nowhere else. The vectors are made by a second implementation, `vectors/make.py`.

use serde::Deserialize;

use super::*;
use crate::crypto::{ENTRY_SEAL, Forged, RowKey, is_sealed};
use crate::domain::{EntityKind, EntityName, EntityPlace, MAX_ENTITY, MAX_SEALED_ENTITY, ROW_SEAL};

const ROWS: &str = include_str!("../vectors/row_v1.json");
const ENTRIES: &str = include_str!("../vectors/entry_v1.json");

/// A sealed row and all that it was made of; bytes are hexadecimal.
#[derive(Deserialize)]
struct Vector {
    key: String,
    version: u32,
    vault: String,
    environment: String,
    kind: String,
    tenant: String,
    name: String,
    content: String,
    sealed: String,
}

/// A seal of a log entry and all that it was made of.
#[derive(Deserialize)]
struct EntryVector {
    key: String,
    version: u32,
    vault: String,
    environment: String,
    log: u32,
    sequence: u64,
    entry: String,
    seal: String,
}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn row_key(key: [u8; 32], version: u32, identity: VaultIdentity) -> RowKey {
    RowKey::new(KeyVersion(version), identity, locked(key))
}

fn usual() -> RowKey {
    row_key([1; 32], 1, identity())
}

fn place(kind: EntityKind, of: &str, name: &[u8]) -> EntityPlace {
    let of = (!of.is_empty()).then(|| tenant(of));
    EntityPlace { kind, tenant: of, name: EntityName::new(name).unwrap() }
}

#[test]
fn rows_are_those_of_the_vectors() {
    let vectors: Vec<Vector> = serde_json::from_str(ROWS).unwrap();
    assert!(vectors.len() >= 7);
    for vector in vectors {
        let environment = Environment::parse(&vector.environment).unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes(bytes(&vector.vault)), environment };
        let key = row_key(bytes(&vector.key), vector.version, identity);
        let kind = EntityKind::ALL.iter().find(|kind| kind.as_str() == vector.kind).unwrap();
        let place = place(*kind, &vector.tenant, &hex::decode(&vector.name).unwrap());
        let content = hex::decode(&vector.content).unwrap();
        assert_eq!(hex::encode(key.seal(&place, &content)), vector.sealed, "{place:?}");
        assert_eq!(key.open(&place, &hex::decode(&vector.sealed).unwrap()), Ok(content), "{place:?}");
    }
}

#[test]
fn a_row_with_any_bit_altered_does_not_open() {
    let at = place(EntityKind::Grant, "st-mary", b"grant");
    let sealed = usual().seal(&at, b"\x01content");
    assert_eq!(usual().open(&at, &sealed), Ok(b"\x01content".to_vec()));
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let why = if bit < 8 { Forged::Unsealed } else { Forged::Seal };
        assert_eq!(usual().open(&at, &altered), Err(why), "bit {bit}");
    }
    for len in 0..sealed.len() {
        let why = if len == 0 { Forged::Unsealed } else { Forged::Seal };
        assert_eq!(usual().open(&at, &sealed[..len]), Err(why), "cut to {len}");
    }
    assert_eq!(usual().open(&at, &[&sealed[..], b"\0"].concat()), Err(Forged::Seal), "longer");
}

#[test]
fn a_row_opens_at_no_other_place() {
    let (own, sealed) = {
        let own = place(EntityKind::Grant, "ab", b"cd");
        let sealed = usual().seal(&own, b"\x01content");
        (own, sealed)
    };
    let mut others = vec![
        place(EntityKind::Grant, "", b"cd"),
        place(EntityKind::Grant, "", b"abcd"),
        place(EntityKind::Grant, "a", b"bcd"),
        place(EntityKind::Grant, "abc", b"d"),
        place(EntityKind::Grant, "abcd", b"cd"),
        place(EntityKind::Grant, "ab", b"c"),
        place(EntityKind::Grant, "ab", b"cd\0"),
        place(EntityKind::Grant, "ab", b"ce"),
    ];
    let kinds = EntityKind::ALL.iter().filter(|kind| **kind != own.kind);
    others.extend(kinds.map(|kind| place(*kind, "ab", b"cd")));
    for other in others {
        assert_eq!(usual().open(&other, &sealed), Err(Forged::Seal), "{other:?}");
    }
    assert!(usual().open(&own, &sealed).is_ok());
}

#[test]
fn a_row_opens_under_no_other_key_version_vault_or_environment() {
    let at = place(EntityKind::Principal, "", b"generation");
    let sealed = usual().seal(&at, b"\x01");
    let VaultIdentity { vault, environment } = identity();
    let others = [
        row_key([2; 32], 1, identity()),
        row_key([1; 32], 2, identity()),
        row_key([1; 32], 1, VaultIdentity { vault: VaultId::from_bytes([0xfe; 16]), environment }),
        row_key([1; 32], 1, VaultIdentity { vault, environment: Environment::parse("another").unwrap() }),
    ];
    for other in others {
        assert_eq!(other.open(&at, &sealed), Err(Forged::Seal));
    }
}

#[test]
fn a_content_without_a_seal_is_not_taken_for_one_that_has_one() {
    let at = place(EntityKind::Principal, "", b"generation");
    // The versions that contents begin with.
    for version in [0, 1, 2, 0x7f] {
        let content = [&[version][..], &[7; 100]].concat();
        assert!(!is_sealed(&content));
        assert_eq!(usual().open(&at, &content), Err(Forged::Unsealed));
    }
    assert!(is_sealed(&usual().seal(&at, b"")));
}

#[test]
fn the_longest_content_has_its_seal_within_what_an_engine_keeps() {
    let at = place(EntityKind::Alert, "", b"long");
    let sealed = usual().seal(&at, &vec![1; MAX_ENTITY]);
    assert_eq!(sealed.len(), MAX_SEALED_ENTITY);
    assert_eq!(usual().seal(&at, b"").len(), ROW_SEAL);
}

#[test]
fn seals_of_entries_are_those_of_the_vectors() {
    let vectors: Vec<EntryVector> = serde_json::from_str(ENTRIES).unwrap();
    assert!(vectors.len() >= 4);
    for vector in vectors {
        let environment = Environment::parse(&vector.environment).unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes(bytes(&vector.vault)), environment };
        let key = row_key(bytes(&vector.key), vector.version, identity);
        let entry = hex::decode(&vector.entry).unwrap();
        let seal: [u8; ENTRY_SEAL] = bytes(&vector.seal);
        assert_eq!(key.seal_entry(vector.log, vector.sequence, &entry), seal);
        assert_eq!(key.check_entry(vector.log, vector.sequence, &entry, &seal), Ok(()));
    }
}

#[test]
fn the_seal_of_an_entry_is_for_its_place_and_its_bytes() {
    let seal = usual().seal_entry(3, 7, b"entry");
    let is_of = |key: &RowKey, log, sequence, entry: &[u8], seal: &[u8]| {
        key.check_entry(log, sequence, entry, seal).is_ok()
    };
    assert!(is_of(&usual(), 3, 7, b"entry", &seal));
    for (log, sequence, entry) in [(4, 7, b"entry"), (3, 8, b"entry"), (7, 3, b"entry"), (3, 7, b"entrz")] {
        assert!(!is_of(&usual(), log, sequence, entry, &seal), "{log} {sequence}");
    }
    for bit in 0..seal.len() * 8 {
        let mut altered = seal;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_of(&usual(), 3, 7, b"entry", &altered), "bit {bit}");
    }
    for len in 0..seal.len() {
        assert!(!is_of(&usual(), 3, 7, b"entry", &seal[..len]), "cut to {len}");
    }
    assert!(!is_of(&usual(), 3, 7, b"entry", &[&seal[..], b"\0"].concat()), "longer");
    let VaultIdentity { vault, environment } = identity();
    for other in [
        row_key([2; 32], 1, identity()),
        row_key([1; 32], 2, identity()),
        row_key([1; 32], 1, VaultIdentity { vault: VaultId::from_bytes([0xfe; 16]), environment }),
        row_key([1; 32], 1, VaultIdentity { vault, environment: Environment::parse("another").unwrap() }),
    ] {
        assert!(!is_of(&other, 3, 7, b"entry", &seal));
    }
}
