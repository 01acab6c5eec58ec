//! A record opens nowhere but where it was sealed, and under no other key.

use super::*;
use crate::crypto::{Mask, SealError, mask};
use crate::domain::class::{ClassOptions, Classes, MaskView};

type Change = (&'static str, fn(&mut Record));

/// One change to each column that is bound.
const CHANGES: [Change; 9] = [
    ("token", |r| r.token = Token::from_bytes([0xEE; 16])),
    ("class", |r| r.class = class("mrn")),
    ("subject", |r| r.subject = Some(reference(0xEE))),
    ("subject's key version", |r| {
        r.subject = Some(SubjectRef { version: KeyVersion(2), mac: [3; 16] });
    }),
    ("no subject", |r| r.subject = None),
    ("index", |r| r.index = Some(blind(0xEE))),
    ("no index", |r| r.index = None),
    ("created", |r| r.created = Timestamp(r.created.0 + 1)),
    ("subject and index swapped", |r| {
        (r.subject, r.index) = (Some(reference(4)), Some(blind(3)));
    }),
];

#[test]
fn open_refuses_a_record_with_any_column_changed() {
    let key = key();
    for (column, change) in CHANGES {
        let mut moved = record(&key);
        change(&mut moved);
        assert_eq!(try_open(&moved, &identity(), &key), Err(OpenError::Commitment), "{column}");
    }
    let mut counted = record(&key);
    counted.revision += 1;
    assert_eq!(try_open(&counted, &identity(), &key).as_deref(), Ok(VALUE), "the revision is not bound");
}

#[test]
fn open_refuses_a_record_whose_sealed_bytes_are_another_records() {
    let key = key();
    for (column, change) in CHANGES {
        let mut other = record(&key);
        change(&mut other);
        let theirs = seal(&Place::of_record(&other, &identity()), &key, &plain("other"), PADDED).unwrap();
        *sealed_bytes(&mut other) = theirs.0.clone();
        assert_eq!(try_open(&other, &identity(), &key).as_deref(), Ok("other"));
        let mut mine = record(&key);
        *sealed_bytes(&mut mine) = theirs.0;
        assert_eq!(try_open(&mine, &identity(), &key), Err(OpenError::Commitment), "{column}");
    }
}

#[test]
fn open_refuses_another_vaults_and_another_environments_record() {
    let key = key();
    let record = record(&key);
    let other_vault = VaultIdentity { vault: VaultId::from_bytes([0xEE; 16]), ..identity() };
    let other_environment = VaultIdentity { environment: Environment::parse("qa").unwrap(), ..identity() };
    for other in [other_vault, other_environment] {
        assert_eq!(try_open(&record, &other, &key), Err(OpenError::Commitment), "{other:?}");
    }
}

#[test]
fn open_refuses_another_tenants_record() {
    let key = key();
    let good = record(&key);
    // The other tenant's key, even with the same id, version and bytes.
    let theirs = data_key([5; 32], tenant("st-luke"));
    assert_eq!(try_open(&good, &identity(), &theirs), Err(OpenError::WrongKey));
    // Nor does it help to say that the record is theirs.
    let mut moved = good.clone();
    moved.tenant = tenant("st-luke");
    assert_eq!(try_open(&moved, &identity(), &theirs), Err(OpenError::Commitment));
    assert_eq!(try_open(&moved, &identity(), &key), Err(OpenError::WrongKey));
}

#[test]
fn open_refuses_another_key_of_the_same_tenant() {
    let good = record(&key());
    let other_id = data_key([6; 32], tenant("st-mary"));
    assert_eq!(try_open(&good, &identity(), &other_id), Err(OpenError::WrongKey));
    let other_version = DataKey::new(key().id(), KeyVersion(2), tenant("st-mary"), locked([5; 32]));
    assert_eq!(try_open(&good, &identity(), &other_version), Err(OpenError::WrongKey));
}

#[test]
fn open_refuses_a_record_that_names_another_key_than_its_sealed_bytes() {
    let other = data_key([6; 32], tenant("st-mary"));
    let mut renamed = record(&key());
    let Body::Sealed { key_id, .. } = &mut renamed.body else { panic!("sealed") };
    *key_id = other.id();
    assert_eq!(try_open(&renamed, &identity(), &other), Err(OpenError::WrongKey));
    assert_eq!(try_open(&renamed, &identity(), &key()), Err(OpenError::WrongKey));
}

#[test]
fn seal_refuses_the_key_of_another_tenant() {
    let record = record(&key());
    let theirs = data_key([6; 32], tenant("st-luke"));
    let refused = seal(&Place::of_record(&record, &identity()), &theirs, &plain(VALUE), PADDED);
    assert_eq!(refused.err(), Some(SealError::WrongKey));
}

#[test]
fn mask_shows_the_masked_form_only_and_of_the_records_own_class_only() {
    let classes = Classes::builtin(ClassOptions { accept_synthetic: true });
    let ssn = classes.get(&class("ssn")).unwrap();
    let key = key();
    let good = record(&key);
    let masked = mask(&warrant::<Mask>(&good), 0, &identity(), &key, ssn, MaskView::Standard);
    assert!(masked.is_ok_and(|masked| masked.expose().ends_with("9999") && !masked.expose().contains("219")));

    let mut other_class = good.clone();
    other_class.class = class("mrn");
    let refused = mask(&warrant::<Mask>(&other_class), 0, &identity(), &key, ssn, MaskView::Standard);
    assert_eq!(refused.err(), Some(OpenError::Malformed));
}
