//! The table, row by row: what is valid and its normalized form, what is not, and what the mask shows.

use super::*;

/// class, value, normalized
const VALID: &[(&str, &str, &str)] = &[
    ("ssn", "123-45-6789", "123456789"),
    ("ssn", "123456789", "123456789"),
    ("ssn", " 123 45 6789\n", "123456789"),
    ("ssn", "899-01-0001", "899010001"),
    ("phone", "555-978-4581", "+15559784581"),
    ("phone", "(555) 978-4581", "+15559784581"),
    ("phone", "+1 (555) 978-4581", "+15559784581"),
    ("phone", "1.555.978.4581", "+15559784581"),
    ("phone", "+46 (0)8 928 571 38", "+46892857138"),
    ("phone", "+447700 921 916", "+447700921916"),
    ("email", " Jane.Doe+x@Example.COM ", "Jane.Doe+x@example.com"),
    ("email", "j@mail.example.org", "j@mail.example.org"),
    ("name", "  Ine\u{301}s791 ", "Inés791"),
    ("name", "O'Conner199", "O'Conner199"),
    ("name", "李", "李"),
    ("dob", "1956-03-07", "1956-03-07"),
    ("dob", "2024-02-29", "2024-02-29"),
    ("dob", "2025-06-15", "2025-06-15"),
    ("address", "306 Conroy Union\r\n  Unit 97 \n\nYarmouth, MA", "306 Conroy Union\nUnit 97\nYarmouth, MA"),
    ("zip", "02139", "02139"),
    ("zip", "02139-4307", "02139-4307"),
    ("zip", "021394307", "02139-4307"),
    ("mrn", " e925b0f3-8006 ", "E925B0F3-8006"),
    ("member_id", "W1234 5678", "W1234 5678"),
    ("account", "1", "1"),
    ("license", "S99993668", "S99993668"),
    ("vehicle", "1HGCM82633A004352", "1HGCM82633A004352"),
    ("device", "(01)00844588003288(17)141120", "(01)00844588003288(17)141120"),
    ("passport", "X57628878X", "X57628878X"),
    ("npi", "1234567893", "1234567893"),
    ("mbi", "1EG4TE5MK73", "1EG4TE5MK73"),
    ("mbi", "1eg4-te5-mk73", "1EG4TE5MK73"),
    ("card", "4111 1111 1111 1111", "4111111111111111"),
    ("card", "4222222222222", "4222222222222"),
    ("iban", "GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432"),
    ("iban", "gb42nawi04454264788619", "GB42NAWI04454264788619"),
    ("ip", "203.0.113.9", "203.0.113.9"),
    ("ip", "2001:DB8:0::1", "2001:db8::1"),
    ("ip", "::ffff:203.0.113.9", "203.0.113.9"),
    ("url", "https://example.org/p/1", "https://example.org/p/1"),
    ("biometric", "AAEC", "AAEC"),
    ("photo", "/9j/4AAQ", "/9j/4AAQ"),
    ("other", " kept ", " kept "),
    ("text", "Ine\u{301}s\tcame", "Inés\tcame"),
];

/// class, value
const INVALID: &[(&str, &str)] = &[
    ("ssn", "000-12-3456"),
    ("ssn", "666-12-3456"),
    ("ssn", "900-12-3456"),
    ("ssn", "998-12-3456"),
    ("ssn", "999-68-7171"),
    ("ssn", "123-00-6789"),
    ("ssn", "123-45-0000"),
    ("ssn", "123-456-789"),
    ("ssn", "123-45 6789"),
    ("ssn", "12345678"),
    ("ssn", "1234567890"),
    ("ssn", "12345678９"),
    ("phone", "978-4581"),
    ("phone", "0490 75 40 81"),
    ("phone", "+15559784"),
    ("phone", "+1234567890123456"),
    ("phone", "+0123456789"),
    ("phone", "345-899-3560x4587"),
    ("phone", "++15559784581"),
    ("email", "jane"),
    ("email", "@example.org"),
    ("email", "jane@example"),
    ("email", "jane@.org"),
    ("email", "jane@-x.org"),
    ("email", "jane@exämple.org"),
    ("email", "jane doe@example.org"),
    ("email", "jane@doe@example.org"),
    ("email", "jane..doe@example.org"),
    ("email", "jane@192.0.2.1"),
    ("name", "Jane\nDoe"),
    ("name", "\u{1b}[31mJane"),
    ("dob", "2025-06-16"),
    ("dob", "2023-02-29"),
    ("dob", "2024-02-30"),
    ("dob", "1956-13-01"),
    ("dob", "1956-00-01"),
    ("dob", "0000-01-01"),
    ("dob", "1956-3-7"),
    ("dob", "03/07/1956"),
    ("dob", "1956-03-07T00:00:00Z"),
    ("dob", "1956-03-0७"),
    ("address", "1 Main St\u{0}"),
    ("zip", "2139"),
    ("zip", "02139-43"),
    ("zip", "02139 4307"),
    ("zip", "K1A 0B1"),
    ("zip", "0213é"),
    ("mrn", "---"),
    ("mrn", "12\n34"),
    ("passport", "A\u{7f}B"),
    ("npi", "1234567890"),
    ("npi", "3234567893"),
    ("npi", "123456789"),
    ("mbi", "1SG4TE5MK73"),
    ("mbi", "0EG4TE5MK73"),
    ("mbi", "1EG4TE5MK7"),
    ("mbi", "1EG4TE5MK7A"),
    ("mbi", "1EG4TEOMK73"),
    ("mbi", "1EG-4TE5-MK73"),
    ("card", "4111111111111112"),
    ("card", "411111111111"),
    ("card", "41111111111111111111"),
    ("card", "4111/1111/1111/1111"),
    ("iban", "GB82WEST12345698765433"),
    ("iban", "GB82WEST1234"),
    ("iban", "8282WEST12345698765432"),
    ("ip", "203.0.113.256"),
    ("ip", "203.0.113.0/24"),
    ("ip", "fe80::1%eth0"),
    ("ip", "203.0.113"),
];

/// class, value, mask
const MASKS: &[(&str, &str, &str)] = &[
    ("ssn", "123-45-6789", "***-**-6789"),
    ("ssn", "123456789", "***-**-6789"),
    ("ssn", "12345", "***-**-****"),
    ("phone", "+1 650 253 0142", "(***) ***-0142"),
    ("phone", "+41 44 668 18 00", "(***) ***-1800"),
    ("phone", "0142", "(***) ***-****"),
    ("email", "jane@mail.example.com", "j***@***.com"),
    ("email", "j@example.com", "****@***.com"),
    ("email", "jane", "****@***.***"),
    ("name", "Jane", "J***"),
    ("name", "Élodie", "É***"),
    ("name", "J", "****"),
    ("name", "\u{202e}enaJ", "****"),
    ("dob", "1956-03-07", "****-**-**"),
    ("dob", "56", "****-**-**"),
    ("address", "1 Main St, Boston, MA 02115", "*** MA"),
    ("address", "1 Main St\nBoston, Massachusetts\n02115-1234", "*** MA"),
    ("address", "1 Main St, Charleston west virginia, 25301", "*** WV"),
    ("address", "1 Main St, Richmond, Virginia", "*** VA"),
    ("address", "1 Main St, Boston, MA", "*** MA"),
    ("address", "456 Washington", "***"),
    ("address", "Massachusetts", "***"),
    ("address", "MA 02115", "***"),
    ("address", "1 Yo-Yo Ma", "***"),
    ("address", "1 Alabama 02115", "*** AL"),
    ("address", "306 Conroy Union Unit 97", "***"),
    ("zip", "02139", "021**"),
    ("zip", "02139-4307", "021**"),
    ("zip", "03601", "000**"),
    ("zip", "89312-0001", "000**"),
    ("zip", "021", "000**"),
    ("mrn", "E925B0F3", "****B0F3"),
    ("mrn", "1234567", "********"),
    ("member_id", "12345678", "****5678"),
    ("account", "ÄÖÜ12345", "****2345"),
    ("license", "S99993668", "****3668"),
    ("vehicle", "1HGCM82633A004352", "****4352"),
    ("device", "(01)0084458800", "****8800"),
    ("device", "abcdefg\u{1b}[0m", "********"),
    ("passport", "X57628878X", "****878X"),
    ("npi", "1234567893", "1234567893"),
    ("npi", "123-45-6789", "**********"),
    ("mbi", "1EG4-TE5-MK73", "*******MK73"),
    ("mbi", "MK73", "***********"),
    ("card", "4111 1111 1111 1111", "****-****-****-1111"),
    ("card", "1111", "****-****-****-****"),
    ("iban", "GB82 WEST 1234 5698 7654 32", "GB** **** ... 5432"),
    ("iban", "GB82", "**** **** ... ****"),
    ("ip", "203.0.113.9", "203.0.113.*"),
    ("ip", "2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:0db8:85a3:*"),
    ("ip", "203", "*.*.*.*"),
    ("url", "https://example.org/p/1", "[redacted]"),
    ("biometric", "AAEC", "[redacted]"),
    ("photo", "/9j/4AAQ", "[redacted]"),
    ("other", "kept", "[redacted]"),
    ("text", "Ines came", "[redacted]"),
];

#[test]
fn every_class_accepts_what_is_of_it_in_one_normalized_form() {
    let classes = classes(false);
    for (name, value, expected) in VALID {
        assert_eq!(normalized(class(&classes, name), value).as_deref(), Ok(*expected), "{name} {value:?}");
    }
    for class in classes.iter() {
        assert!(VALID.iter().any(|row| row.0 == class.name().as_str()), "no example of {}", class.name());
    }
}

#[test]
fn every_class_refuses_what_is_not_of_it() {
    let classes = classes(false);
    for (name, value) in INVALID {
        let got = normalized(class(&classes, name), value);
        assert!(matches!(got, Err(InvalidValue::NotOfClass { .. })), "{name} {value:?}: {got:?}");
    }
}

#[test]
fn every_class_masks_as_its_row_says() {
    let classes = classes(false);
    for (name, value, expected) in MASKS {
        assert_eq!(masked(class(&classes, name), value, MaskView::Standard), *expected, "{name} {value:?}");
    }
    for class in classes.iter() {
        assert!(MASKS.iter().any(|row| row.0 == class.name().as_str()), "no mask of {}", class.name());
    }
}

#[test]
fn the_year_view_shows_the_year_of_a_birth_date_and_nothing_else() {
    let classes = classes(false);
    let dob = class(&classes, "dob");
    assert_eq!(masked(dob, "1956-03-07", MaskView::Year), "1956-**-**");
    assert_eq!(masked(dob, "1956-02-30", MaskView::Year), "****-**-**");
    for (name, value, expected) in MASKS.iter().filter(|row| row.0 != "dob") {
        assert_eq!(masked(class(&classes, name), value, MaskView::Year), *expected, "{name} {value:?}");
    }
}

#[test]
fn synthetic_identifiers_are_accepted_only_where_that_is_chosen() {
    let (strict, lenient) = (classes(false), classes(true));
    for (name, value) in [("ssn", "999-68-7171"), ("mbi", "1SQ3F00AA00"), ("mbi", "1SS0C00AA00")] {
        assert!(normalized(class(&strict, name), value).is_err(), "{value}");
        assert!(normalized(class(&lenient, name), value).is_ok(), "{value}");
    }
    for (name, value) in
        [("ssn", "998-68-7171"), ("ssn", "999-00-7171"), ("mbi", "1ES0C00AA00"), ("mbi", "1SQ3S00AA00")]
    {
        assert!(normalized(class(&lenient, name), value).is_err(), "{value}");
    }
}

#[test]
fn nothing_but_white_space_is_empty_and_too_much_is_too_large() {
    for class in classes(true).iter() {
        for empty in ["", " ", "\t\r\n\u{a0}"] {
            assert_eq!(normalized(class, empty), Err(InvalidValue::Empty), "{} {empty:?}", class.name());
        }
        let most = class.max_bytes();
        let large = normalized(class, &"1".repeat(most + 1));
        assert_eq!(large, Err(InvalidValue::TooLarge { most }), "{}", class.name());
    }
    let classes = classes(false);
    for (name, most) in [("text", 65_536), ("photo", 65_536), ("other", 65_536), ("address", 4096)] {
        assert!(normalized(class(&classes, name), &"é".repeat(most / 2)).is_ok(), "{name}");
    }
}

#[test]
fn identifiers_are_indexed_and_what_is_only_kept_is_not() {
    let classes = classes(false);
    let not: Vec<_> = classes.iter().filter(|c| !c.indexed()).map(|c| c.name().as_str()).collect();
    assert_eq!(not, ["biometric", "other", "photo", "text", "url"]);
    let public: Vec<_> = classes.iter().filter(|c| c.public()).map(|c| c.name().as_str()).collect();
    assert_eq!(public, ["npi"]);
    assert_eq!(classes.iter().count(), 24);
}

#[test]
fn sizes_do_not_tell_short_classes_apart() {
    let classes = classes(false);
    for len in 0..=60 {
        for class in classes.iter() {
            let expected = if class.name().as_str() == "text" { 256 } else { 64 };
            assert_eq!(class.padded_len(len), expected, "{} {len}", class.name());
        }
    }
}

#[test]
fn the_list_of_restricted_zip_areas_is_whole() {
    let listed: Vec<_> =
        include_str!("../zip3_restricted.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(listed.len(), 23);
    assert!(listed.is_sorted() && listed.iter().all(|zip3| zip3.len() == 3));
    let classes = classes(false);
    for zip3 in listed {
        assert_eq!(masked(class(&classes, "zip"), &format!("{zip3}01"), MaskView::Standard), "000**");
    }
}
