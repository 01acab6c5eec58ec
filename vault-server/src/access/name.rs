//! Distinguished names as text (RFC 4514), in one spelling.
//!
//! Most specific first (`CN=billing,O=Example`), `,` between and `+` within relative names, no spaces around them,
//! short type names of the table below in upper case, and the dotted number for any other type. Escapes are
//! `\` and the character, and `\` and two lower-case hexadecimal digits for control characters. The parts of a
//! multi-valued relative name are sorted, since in a certificate they are a set.

use std::fmt::Write as _;

use x509_parser::x509::X509Name;

/// RFC 4514 section 3, and the e-mail address that many a private CA puts into subjects.
const TYPES: &[(&str, &str)] = &[
    ("CN", "2.5.4.3"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("STREET", "2.5.4.9"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
];

/// The one spelling of a certificate's subject. `None` if it has a value that is no UTF-8 string: such a name
/// is refused, not guessed at.
pub(super) fn of_certificate(name: &X509Name<'_>) -> Option<String> {
    let relative = name.iter_rdn().map(|relative| {
        let parts = relative.iter().map(|part| {
            let value = part.as_str().ok()?;
            Some(attribute(type_of(&part.attr_type().to_id_string())?, value))
        });
        parts.collect::<Option<Vec<_>>>()
    });
    let mut relative = relative.collect::<Option<Vec<_>>>()?;
    relative.reverse();
    Some(join(relative))
}

/// The one spelling of a name that somebody wrote. `None` if it is not one.
pub(super) fn canonical(text: &str) -> Option<String> {
    let mut relative = vec![Vec::new()];
    let mut rest = text;
    loop {
        let (part, separator, after) = one_attribute(rest)?;
        relative.last_mut()?.push(part);
        match separator {
            None => return Some(join(relative)),
            Some(',') => relative.push(Vec::new()),
            Some(_) => {}
        }
        rest = after;
    }
}

/// The first `type=value` of `text`, the separator after it, and what follows that.
fn one_attribute(text: &str) -> Option<(String, Option<char>, &str)> {
    let (kind, value) = text.split_once('=')?;
    let kind = type_of(kind.trim())?;
    let value = value.trim_start_matches(' ');
    if value.starts_with('#') {
        return None;
    }
    let mut bytes = Vec::new();
    // Where the value ends: trailing spaces count only if they were escaped.
    let mut end = 0;
    let mut chars = value.char_indices();
    let mut stop = (None, "");
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | '+' => {
                stop = (Some(c), &value[at + 1..]);
                break;
            }
            '"' | ';' | '<' | '>' | '\0' => return None,
            '\\' => {
                bytes.push(escaped(&mut chars)?);
                end = bytes.len();
            }
            c => {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                if c != ' ' {
                    end = bytes.len();
                }
            }
        }
    }
    bytes.truncate(end);
    let value = String::from_utf8(bytes).ok().filter(|value| !value.is_empty())?;
    Some((attribute(kind, &value), stop.0, stop.1))
}

/// What stands after a backslash: a special character, or two hexadecimal digits.
fn escaped(chars: &mut std::str::CharIndices<'_>) -> Option<u8> {
    let (_, first) = chars.next()?;
    if " \"#+,;<=>\\".contains(first) {
        return u8::try_from(first).ok();
    }
    let (_, second) = chars.next()?;
    u8::try_from(first.to_digit(16)? * 16 + second.to_digit(16)?).ok()
}

fn type_of(name: &str) -> Option<&str> {
    let known = TYPES.iter().find(|(short, oid)| short.eq_ignore_ascii_case(name) || *oid == name);
    if let Some((short, _)) = known {
        return Some(short);
    }
    // No leading zeros: one spelling for each.
    let number =
        |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    (name.contains('.') && name.split('.').all(number)).then_some(name)
}

fn attribute(kind: &str, value: &str) -> String {
    let mut text = format!("{kind}=");
    let last = value.len().saturating_sub(1);
    for (at, c) in value.char_indices() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String does not fail.
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
    text
}

fn join(mut relative: Vec<Vec<String>>) -> String {
    for parts in &mut relative {
        parts.sort();
    }
    relative.iter().map(|parts| parts.join("+")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_spelling() {
        for (text, written) in [
            ("CN=billing,O=Example", "CN=billing,O=Example"),
            ("cn = billing , o = Example", "CN=billing,O=Example"),
            ("2.5.4.3=billing", "CN=billing"),
            ("1.2.3=x", "1.2.3=x"),
            ("OU=b+CN=a,O=x", "CN=a+OU=b,O=x"),
            (r"CN=a\2cb", r"CN=a\,b"),
            (r"CN=\20a\20", r"CN=\ a\ "),
            (r"CN=\c3\a9", "CN=é"),
            (r"CN=a\0ab", r"CN=a\0ab"),
            (r"CN=\#a", r"CN=\#a"),
            // Within a value neither a space nor a number sign is escaped.
            (r"CN=a\ b\#c", "CN=a b#c"),
            ("CN=a=b", "CN=a=b"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(written), "{text}");
            assert_eq!(canonical(written).as_deref(), Some(written), "canonical is a fixed point: {text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "CN",
            "CN=",
            "=a",
            "CN=a,",
            "CN=a,,O=b",
            "XX=a",
            "CN=#0401",
            "CN=a;O=b",
            "CN=\"a\"",
            r"CN=a\",
            r"CN=\zz",
            r"CN=\ff",
            "1..2=a",
            "1.02=a",
        ] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }
}
