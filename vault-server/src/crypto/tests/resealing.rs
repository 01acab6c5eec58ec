//! What jobs may do with records, and what stays.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::crypto::{Mandate, ResealError, Resealing, blind_index};
use crate::domain::JobId;
use crate::domain::class::{ClassOptions, Classes};

fn other_key() -> DataKey {
    data_key([6; 32], tenant("st-mary"))
}

fn mandate(of: &str) -> Mandate {
    Mandate::assertion(JobId::from_bytes([3; 16]), tenant(of))
}

/// What the records of the tests are sealed under.
fn from() -> HashMap<KeyId, Arc<DataKey>> {
    HashMap::from([(key().id(), Arc::new(key()))])
}

#[test]
fn a_record_sealed_anew_opens_under_the_new_key_alone_and_is_otherwise_the_same() {
    let (from, to, identity) = (from(), other_key(), identity());
    let before = record(&key());
    let mandate = mandate("st-mary");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    let mut records = [Box::new(before.clone())];
    assert_eq!(resealing.records(&mut records), [Ok(())]);
    let [after] = records;
    assert_eq!(try_open(&after, &identity, &to), Ok(VALUE.to_owned()));
    assert_eq!(try_open(&after, &identity, &key()), Err(OpenError::WrongKey));
    assert_eq!(after.key_id(), Some(to.id()));
    assert_eq!(after.sealed_len(), before.sealed_len(), "padding stays");
    let as_before = Record { body: before.body.clone(), revision: before.revision, ..*after.clone() };
    assert_eq!(as_before, before);
    assert_eq!(after.revision, before.revision + 1);
}

#[test]
fn a_mandate_is_for_one_tenant() {
    let (from, to, identity) = (from(), other_key(), identity());
    let mut records = [Box::new(record(&key()))];
    let before = records.clone();
    let mandate = mandate("st-john");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    assert_eq!(resealing.records(&mut records), [Err(ResealError::NotMandated)]);
    assert_eq!(records, before);
}

#[test]
fn what_does_not_open_is_not_sealed_anew_and_the_others_are() {
    let (from, to, identity) = (from(), other_key(), identity());
    let fine = Box::new(record(&key()));
    let (mut altered, mut foreign) = (fine.clone(), fine.clone());
    *sealed_bytes(&mut altered).last_mut().unwrap() ^= 1;
    foreign.body = record(&data_key([4; 32], tenant("st-mary"))).body;
    let mandate = mandate("st-mary");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    let before = [fine.clone(), altered, foreign, fine];
    let mut after = before.clone();
    let outcomes = [
        Ok(()),
        Err(ResealError::Open(OpenError::Authentication)),
        Err(ResealError::Open(OpenError::WrongKey)),
        Ok(()),
    ];
    assert_eq!(resealing.records(&mut after), outcomes);
    assert_eq!(after[1..3], before[1..3]);
    for record in [&after[0], &after[3]] {
        assert_eq!(try_open(record, &identity, &to), Ok(VALUE.to_owned()));
    }
    // Each under a salt and a nonce of its own: the same value of the same place gives other bytes.
    assert_ne!(after[0].body, after[3].body);
    assert!(resealing.records(&mut []).is_empty());
}

#[test]
fn an_index_is_made_anew_from_the_value_and_bound_again() {
    let (from, to, identity) = (from(), other_key(), identity());
    let classes = Classes::builtin(ClassOptions { accept_synthetic: true });
    let class = classes.get(&class("ssn")).unwrap();
    let record = record(&key());
    let (old, new) = (record.index, index_key([8; 32], "st-mary"));
    let mandate = mandate("st-mary");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    let mut after = record;
    resealing.indexed(&mut after, class, &new, Timestamp(u64::MAX)).unwrap();
    let normalized = class.normalize(&plain(VALUE), Timestamp(u64::MAX)).unwrap();
    assert_eq!(after.index, Some(blind_index(&new, class.name(), &normalized)));
    assert_ne!(after.index, old);
    assert_eq!(try_open(&after, &identity, &to), Ok(VALUE.to_owned()));
    let put_back = Record { index: old, ..after };
    assert_eq!(try_open(&put_back, &identity, &to), Err(OpenError::Commitment), "the index is bound");
}
