//! What jobs may do with records, and what stays.

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

#[test]
fn a_record_sealed_anew_opens_under_the_new_key_alone_and_is_otherwise_the_same() {
    let (from, to, identity) = (key(), other_key(), identity());
    let before = record(&from);
    let mandate = mandate("st-mary");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    let mut after = before.clone();
    resealing.record(&mut after).unwrap();
    assert_eq!(try_open(&after, &identity, &to), Ok(VALUE.to_owned()));
    assert_eq!(try_open(&after, &identity, &from), Err(OpenError::WrongKey));
    assert_eq!(after.key_id(), Some(to.id()));
    assert_eq!(after.sealed_len(), before.sealed_len(), "padding stays");
    let as_before = Record { body: before.body.clone(), revision: before.revision, ..after.clone() };
    assert_eq!(as_before, before);
    assert_eq!(after.revision, before.revision + 1);
}

#[test]
fn a_mandate_is_for_one_tenant() {
    let (from, to, identity) = (key(), other_key(), identity());
    let before = record(&from);
    let mut record = before.clone();
    let mandate = mandate("st-john");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    assert_eq!(resealing.record(&mut record), Err(ResealError::NotMandated));
    assert_eq!(record, before);
}

#[test]
fn what_does_not_open_is_not_sealed_anew() {
    let (from, to, identity) = (key(), other_key(), identity());
    let mut record = record(&from);
    *sealed_bytes(&mut record).last_mut().unwrap() ^= 1;
    let mandate = mandate("st-mary");
    let resealing = Resealing { mandate: &mandate, identity: &identity, from: &from, to: &to };
    let before = record.clone();
    assert_eq!(resealing.record(&mut record), Err(ResealError::Open(OpenError::Authentication)));
    assert_eq!(record, before);
}

#[test]
fn an_index_is_made_anew_from_the_value_and_bound_again() {
    let (from, to, identity) = (key(), other_key(), identity());
    let classes = Classes::builtin(ClassOptions { accept_synthetic: true });
    let class = classes.get(&class("ssn")).unwrap();
    let record = record(&from);
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
