//! Properties of all classes, over arbitrary text and over text that looks like values.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Anything, and what is near to a value of some class.
fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "\\PC{0,40}",
        "[0-9 ().+-]{0,24}",
        "[A-Za-z0-9]{0,40}",
        "[0-9]{3}-?[0-9]{2}-?[0-9]{4}",
        "[1-9][A-Z][A-Z0-9][0-9][A-Z][A-Z0-9][0-9][A-Z]{2}[0-9]{2}",
        "[a-zA-Z.]{1,12}@[a-z-]{1,12}\\.[a-z]{1,6}",
        "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
        "[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}",
        "[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",
        "[0-9]{13,19}",
        "[0-9]{1,4} [A-Z][a-z]{2,8} St, [A-Z][a-z]{2,8}, (MA|NY|Texas|West Virginia)( [0-9]{5})?",
        "[a-zA-Z\u{0300}-\u{0330}\u{2000}-\u{2003}\u{212a}\u{212b} ]{0,20}",
    ]
}

/// The widths that the masks of a class may have, and the most characters of the value in them.
fn shape(class: &str) -> (&'static [usize], usize) {
    match class {
        "ssn" | "mbi" => (&[11], 4),
        "phone" => (&[14], 4),
        "name" => (&[4], 1),
        "address" => (&[3, 6], 2),
        "zip" => (&[5], 3),
        "npi" => (&[10], 10),
        "card" => (&[19], 4),
        "iban" => (&[18], 6),
        "dob" | "url" | "biometric" | "photo" | "other" | "text" => (&[10], 0),
        "mrn" | "member_id" | "account" | "license" | "vehicle" | "device" | "passport" => (&[8], 4),
        // These show a part of the value that has no fixed width: top-level domain, network.
        "email" | "ip" => (&[], 0),
        other => panic!("no shape for {other}"),
    }
}

/// The fixed characters of masks.
fn shown(mask: &str, class: &str) -> usize {
    match class {
        "url" | "biometric" | "photo" | "other" | "text" => usize::from(mask != "[redacted]"),
        "zip" if mask == "000**" => 0,
        _ => mask.chars().filter(|c| c.is_alphanumeric()).count(),
    }
}

proptest! {
    #[test]
    fn masks_have_the_width_of_their_class_and_show_no_more_than_its_row(value in values()) {
        for class in classes(true).iter() {
            let name = class.name().as_str();
            let mask = masked(class, &value, MaskView::Standard);
            let (widths, most) = shape(name);
            prop_assert!(widths.is_empty() || widths.contains(&mask.chars().count()), "{name} {mask}");
            prop_assert!(widths.is_empty() || shown(&mask, name) <= most, "{name} {mask}");
            prop_assert!(!mask.chars().any(char::is_control), "{name}");
        }
    }

    #[test]
    fn masks_of_email_and_ip_tell_only_initial_top_level_domain_and_network(
        local in "[a-z]{2,20}", host in "[a-z]{1,20}", a in any::<[u8; 4]>(), b in any::<[u16; 8]>(), last in any::<u8>(),
    ) {
        let classes = classes(true);
        let email = masked(class(&classes, "email"), &format!("{local}@{host}.org"), MaskView::Standard);
        prop_assert_eq!(email, format!("{}***@***.org", &local[..1]));

        let ip = class(&classes, "ip");
        let other = [a[0], a[1], a[2], last];
        let mask = |address: std::net::IpAddr| masked(ip, &address.to_string(), MaskView::Standard);
        prop_assert_eq!(mask(a.into()), mask(other.into()));
        // Not an address of version 4 in version 6.
        let (net, rest) = (b.map(|s| s | 1), [b[0] | 1, b[1] | 1, b[2] | 1, b[3], 0, 0, 0, u16::from(last)]);
        prop_assert_eq!(mask(net.into()), mask(rest.into()));
    }

    #[test]
    fn masks_have_the_same_width_for_all_values_of_a_class(values in prop::collection::vec(values(), 1..8)) {
        let classes = classes(true);
        let mut widths: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for class in classes.iter() {
            for value in &values {
                let mask = masked(class, value, MaskView::Year);
                widths.entry(class.name().as_str()).or_default().insert(mask.chars().count());
            }
        }
        for (class, widths) in widths {
            prop_assert!(matches!(class, "address" | "email" | "ip") || widths.len() == 1, "{class}");
        }
    }

    #[test]
    fn normalizing_a_normalized_value_changes_nothing(value in values()) {
        for class in classes(true).iter() {
            if let Ok(once) = normalized(class, &value) {
                prop_assert_eq!(normalized(class, &once), Ok(once.clone()), "{}", class.name());
            }
        }
    }

    #[test]
    fn a_value_and_its_normalized_form_have_the_same_mask(value in values()) {
        for class in classes(true).iter().filter(|c| !matches!(c.name().as_str(), "name" | "address")) {
            if let Ok(once) = normalized(class, &value) {
                let (before, after) =
                    (masked(class, &value, MaskView::Standard), masked(class, &once, MaskView::Standard));
                prop_assert!(before.eq_ignore_ascii_case(&after) || !value.is_ascii(), "{} {before} {after}", class.name());
            }
        }
    }

    #[test]
    fn errors_never_hold_the_value(value in "[a-z]{30}") {
        for class in classes(true).iter() {
            if let Err(error) = normalized(class, &value) {
                let told = format!("{error} {error:?}");
                prop_assert!(!told.contains(&value), "{}", class.name());
            }
        }
    }
}
