use super::*;
use crate::access::authenticator::Authenticator;

fn enrolled() -> EnrolledKey {
    let id = |id| PrincipalId::parse(id).unwrap();
    EnrolledKey {
        principal: id("ada@example.org"),
        key: SecurityKey::from_blob(&Authenticator::ed25519(7).blob()).unwrap(),
        label: "ada blue".to_owned(),
        enrolled: Timestamp(1_790_000_000_000_000),
        enrolled_by: Some(id("admin@example.org")),
        confirmed: Confirmation::NotAsked,
        revoked: None,
        counter: 0x1001,
    }
}

fn revoked() -> EnrolledKey {
    let by = PrincipalId::parse("grace@example.org").unwrap();
    EnrolledKey { revoked: Some(Revoked { by, at: Timestamp(1_790_000_000_000_001) }), ..enrolled() }
}

/// Rows that were written once. They open for ever.
const VECTORS: &str = include_str!("security_key_vectors/enrolled.hex");

#[test]
fn rows_are_as_they_always_were() {
    let of_file = EnrolledKey { enrolled_by: None, counter: 0, label: String::new(), ..enrolled() };
    let waits = EnrolledKey { confirmed: Confirmation::Waits, ..enrolled() };
    let confirmed = Confirmation::At(Timestamp(1_790_000_000_000_002));
    let confirmed = EnrolledKey { confirmed, ..enrolled() };
    let keys = [enrolled(), revoked(), of_file, waits, confirmed];
    assert_eq!(VECTORS.lines().count(), keys.len());
    for (key, line) in keys.iter().zip(VECTORS.lines()) {
        let row = key.entity(None).unwrap();
        assert_eq!(hex::encode(&row.content), line);
        assert_eq!(EnrolledKey::open(&row).as_ref(), Some(key));
    }
}

#[test]
fn a_row_that_is_not_what_was_written_is_none() {
    for key in [enrolled(), revoked()] {
        let row = key.entity(Some(3)).unwrap();
        assert_eq!(row.revision, 4);
        for len in 0..row.content.len() {
            let cut = Entity { content: row.content[..len].to_vec(), ..row.clone() };
            assert_ne!(EnrolledKey::open(&cut).as_ref(), Some(&key), "{len}");
        }
        let longer = Entity { content: [&row.content[..], &[0x50, 1]].concat(), ..row.clone() };
        assert_eq!(EnrolledKey::open(&longer), None, "a field nobody knows");
        let mut newer = row.clone();
        newer.content[0] = 3;
        assert_eq!(EnrolledKey::open(&newer), None, "another version");
        let at = Confirmation::At(Timestamp(5));
        let mut older = EnrolledKey { confirmed: at, ..key.clone() }.entity(None).unwrap();
        older.content[0] = 1;
        assert_eq!(EnrolledKey::open(&older), None, "of before, and confirmed");
        let other = SecurityKey::from_blob(&Authenticator::ed25519(8).blob()).unwrap();
        let place = EnrolledKey::place(&other.fingerprint()).unwrap();
        assert_eq!(EnrolledKey::open(&Entity { place, ..row }), None, "another key's place");
    }
}

#[test]
fn a_counter_goes_up_or_is_never_used() {
    let at = |counter| EnrolledKey { counter, ..enrolled() };
    for (before, now, good) in [
        (0, 0, true),
        (0, 1, true),
        (1, 2, true),
        (5, u32::MAX, true),
        (1, 0, false),
        (1, 1, false),
        (7, 6, false),
        (u32::MAX, 0, false),
        (u32::MAX, u32::MAX, false),
    ] {
        let counted = at(before).counted(now);
        assert_eq!(counted.map(|key| key.counter), good.then_some(now), "{before} {now}");
    }
}

#[test]
fn a_key_is_in_force_for_its_owner_until_it_is_taken_back() {
    let (own, other) = (enrolled().principal, PrincipalId::parse("somebody-else").unwrap());
    assert!(enrolled().is_in_force_of(&own));
    assert!(!enrolled().is_in_force_of(&other));
    assert!(!revoked().is_in_force_of(&own));
    assert!(!revoked().is_in_force_of(&other));
}
