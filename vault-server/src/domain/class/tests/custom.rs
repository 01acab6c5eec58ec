//! Classes from configuration.

use super::*;

fn config(toml: &str) -> Vec<CustomClass> {
    #[derive(serde::Deserialize)]
    struct File {
        class: Vec<CustomClass>,
    }
    toml::from_str::<File>(toml).unwrap().class
}

const MRN: &str = r#"
    [[class]]
    name = "mrn"
    replaces = true
    pattern = "[0-9]{8}"
    normalize = "digits"
    mask = "last4"
    index = true
"#;

fn one(change: impl FnOnce(&mut CustomClass)) -> Result<Classes, ClassConfigError> {
    let mut custom = config(MRN).remove(0);
    change(&mut custom);
    classes(false).with_custom(vec![custom])
}

#[test]
fn a_site_sets_the_pattern_of_a_site_pattern_class() {
    let classes = one(|_| ()).unwrap();
    let mrn = class(&classes, "mrn");
    assert_eq!(normalized(mrn, "1234-5678").as_deref(), Ok("12345678"));
    assert_eq!(masked(mrn, "1234-5678", MaskView::Standard), "****5678");
    for bad in ["1234567", "123456789", "MRN12345678", "x"] {
        assert!(matches!(normalized(mrn, bad), Err(InvalidValue::NotOfClass { .. })), "{bad}");
    }
    assert_eq!(normalized(mrn, "--"), Err(InvalidValue::Empty));
    assert!(mrn.indexed() && !mrn.public());
    assert_eq!(classes.iter().count(), 24);
}

#[test]
fn a_class_of_its_own_has_the_options_it_was_given() {
    let classes = one(|c| {
        c.name = "study_id".into();
        c.replaces = false;
        c.pattern = "[A-Z]{2}[0-9]+".into();
        c.normalize = CustomNormalize::Upper;
        c.mask = CustomMask::First1;
        c.max_bytes = 10;
        c.index = false;
        c.bucket = 128;
    })
    .unwrap();
    let study = class(&classes, "study_id");
    assert_eq!(normalized(study, " ab12 ").as_deref(), Ok("AB12"));
    assert_eq!(normalized(study, "ab123456789"), Err(InvalidValue::TooLarge { most: 10 }));
    assert_eq!(masked(study, "ab12", MaskView::Standard), "a***");
    assert_eq!((study.padded_len(1), study.padded_len(125), study.indexed()), (128, 256, false));
}

#[test]
fn a_builtin_class_is_replaced_only_on_purpose_and_only_where_the_pattern_is_the_sites() {
    let shadows = |name: &str| ClassConfigError::Shadows { name: ClassName::parse(name).unwrap() };
    assert_eq!(one(|c| c.replaces = false).err(), Some(shadows("mrn")));
    for replaces in [true, false] {
        let ssn = one(|c| {
            c.name = "ssn".into();
            c.replaces = replaces;
        });
        assert_eq!(ssn.err(), Some(shadows("ssn")));
    }
    let none = one(|c| c.name = "mrm".into()).err();
    assert!(matches!(none, Some(ClassConfigError::ReplacesNothing { .. })), "{none:?}");
    let twice = classes(false).with_custom([config(MRN), config(MRN)].concat()).err();
    assert!(matches!(twice, Some(ClassConfigError::Twice { .. })), "{twice:?}");
}

#[test]
fn a_pattern_matches_the_whole_value() {
    for pattern in ["a|bc", "(?i)a|BC", "(?m)^a$|^bc$"] {
        let classes = one(|c| {
            c.pattern = pattern.into();
            c.normalize = CustomNormalize::None;
        })
        .unwrap();
        let mrn = class(&classes, "mrn");
        assert!(normalized(mrn, "a").is_ok() && normalized(mrn, "bc").is_ok(), "{pattern}");
        for bad in ["ax", "xbc", "a\n", "a\nbc", "abc"] {
            assert!(normalized(mrn, bad).is_err(), "{pattern} {bad:?}");
        }
    }
}

#[test]
fn a_pattern_cannot_break_out_of_its_anchors_nor_grow_without_bound() {
    for pattern in ["a)|(b", "a)|(?:b", "[", "(?x)a # ", "(?:[a-z]{1000}){1000}", "(?P<x"] {
        let refused = one(|c| c.pattern = pattern.into()).err();
        assert!(matches!(refused, Some(ClassConfigError::Pattern { .. })), "{pattern}: {refused:?}");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    assert!(matches!(one(|c| c.name = "M R N".into()).err(), Some(ClassConfigError::Name(_))));
    for most in [0, 65_537] {
        let refused = one(|c| c.max_bytes = most).err();
        assert!(matches!(refused, Some(ClassConfigError::MaxBytes { .. })), "{most}");
    }
    for bucket in [0, 32, 100, 131_072] {
        let refused = one(|c| c.bucket = bucket).err();
        assert!(matches!(refused, Some(ClassConfigError::Bucket { .. })), "{bucket}");
    }
}

#[test]
fn unknown_keys_and_words_are_refused() {
    for (from, to) in [("index =", "indexed ="), ("\"last4\"", "\"last5\""), ("\"digits\"", "\"Digits\"")] {
        let text = MRN.replace("[[class]]", "").replace(from, to);
        assert!(toml::from_str::<CustomClass>(&text).is_err(), "{to}");
    }
    assert!(toml::from_str::<CustomClass>(&MRN.replace("[[class]]", "")).is_ok());
}
