//! Equal for equal inputs of one tenant; told apart by everything else.

use std::collections::HashSet;

use super::*;
use crate::crypto::index::blind_index_of;
use crate::crypto::{Fingerprint, blind_index, random_token, subject_ref};
use crate::domain::SubjectId;
use crate::domain::class::{ClassOptions, Classes};

fn subject(text: &str) -> SubjectId {
    SubjectId::parse(text.to_owned()).unwrap()
}

#[test]
fn a_blind_index_is_told_apart_by_key_tenant_class_and_value() {
    let key = index_key([1; 32], "st-mary");
    let base = blind_index_of(&key, &class("ssn"), "219099999");
    assert_eq!(base, blind_index_of(&index_key([1; 32], "st-mary"), &class("ssn"), "219099999"));
    assert_eq!(base.version, KeyVersion(3));
    let others = [
        blind_index_of(&index_key([2; 32], "st-mary"), &class("ssn"), "219099999"),
        blind_index_of(&index_key([1; 32], "st-luke"), &class("ssn"), "219099999"),
        blind_index_of(&key, &class("mrn"), "219099999"),
        blind_index_of(&key, &class("ssn"), "219099998"),
        blind_index_of(&key, &class("ss"), "n219099999"),
        blind_index_of(&key, &class("ssn"), ""),
    ];
    let distinct: HashSet<_> = others.into_iter().chain([base]).collect();
    assert_eq!(distinct.len(), 7);
}

#[test]
fn spellings_of_one_value_have_one_blind_index() {
    let classes = Classes::builtin(ClassOptions { accept_synthetic: true });
    let ssn = classes.get(&class("ssn")).unwrap();
    let key = index_key([1; 32], "st-mary");
    let index = |text: &str| {
        let normalized = ssn.normalize(&plain(text), Timestamp(1_767_225_600_000_000)).unwrap();
        blind_index(&key, ssn.name(), &normalized)
    };
    assert_eq!(index("219-09-9998"), index("219099998"));
    assert_ne!(index("219-09-9998"), index("219-09-9997"));
}

#[test]
fn a_subject_reference_is_told_apart_by_key_tenant_and_subject() {
    let key = index_key([1; 32], "st-mary");
    let base = subject_ref(&key, &subject("4711"));
    assert_eq!(base, subject_ref(&key, &subject("4711")));
    assert_ne!(base, subject_ref(&key, &subject("4712")));
    assert_ne!(base, subject_ref(&index_key([2; 32], "st-mary"), &subject("4711")));
    assert_ne!(base, subject_ref(&index_key([1; 32], "st-luke"), &subject("4711")));
}

#[test]
fn uses_of_one_key_do_not_meet() {
    let key = index_key([1; 32], "st-mary");
    let index = blind_index_of(&key, &class("a"), "b").mac;
    let person = subject_ref(&key, &subject("a")).mac;
    let print = Fingerprint::new(&key, "a").field(b"b").finish();
    assert_ne!(index, person);
    assert_ne!(index, print[..16]);
    assert_ne!(person, Fingerprint::new(&key, "a").finish()[..16]);
}

#[test]
fn a_fingerprint_is_told_apart_by_label_and_by_where_fields_end() {
    let key = index_key([1; 32], "st-mary");
    let of = |label: &str, fields: &[&str]| {
        let hash = Fingerprint::new(&key, label);
        fields.iter().fold(hash, |hash, field| hash.field(field.as_bytes())).finish()
    };
    let all: [(&str, &[&str]); 6] = [
        ("l", &["ab", "c"]),
        ("l", &["a", "bc"]),
        ("l", &["abc"]),
        ("l", &["abc", ""]),
        ("la", &["bc"]),
        ("l", &[]),
    ];
    let distinct: HashSet<_> = all.iter().map(|(label, fields)| of(label, fields)).collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(of("l", &["ab", "c"]), of("l", &["ab", "c"]));
}

#[test]
fn random_tokens_differ() {
    let tokens: HashSet<_> = (0..10_000).map(|_| random_token().unwrap()).collect();
    assert_eq!(tokens.len(), 10_000);
}
