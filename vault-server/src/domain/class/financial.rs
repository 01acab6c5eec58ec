//! Payment cards (ISO/IEC 7812) and bank accounts (ISO 13616).

use zeroize::Zeroizing;

use super::value::{Context, InvalidValue, all_digits, ascii_tail, collect, without};

/// 13 to 19 digits with their Luhn check digit; blanks and dashes between them do not count.
pub(super) fn card(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    card_digits(value)
        .filter(|digits| luhn(digits.bytes()))
        .ok_or(InvalidValue::NotOfClass { rule: "a card number is 13 to 19 digits with their check digit" })
}

/// `****-****-****-1111`.
pub(super) fn mask_card(value: &str) -> String {
    let digits = card_digits(value);
    format!("****-****-****-{}", digits.as_deref().and_then(|d| ascii_tail(d, 4)).unwrap_or("****"))
}

/// Country, two check digits and up to 30 letters and digits, 97 dividing the whole less one; upper-case, without
/// blanks.
pub(super) fn iban(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    iban_characters(value).filter(|iban| mod97(iban) == 1).ok_or(InvalidValue::NotOfClass {
        rule: "an IBAN is 15 to 34 letters and digits with their check digits",
    })
}

/// `GB** **** ... 1234`.
pub(super) fn mask_iban(value: &str) -> String {
    let iban = iban_characters(value);
    match iban.as_deref().and_then(|i| Some((i.get(..2)?, ascii_tail(i, 4)?))) {
        Some((country, tail)) => format!("{country}** **** ... {tail}"),
        None => "**** **** ... ****".to_owned(),
    }
}

/// Whether the last of the ASCII digits is the check digit of the others (ISO/IEC 7812-1, annex B).
pub(super) fn luhn(digits: impl DoubleEndedIterator<Item = u8>) -> bool {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            match (at % 2, digit * 2) {
                (0, _) => digit,
                (_, doubled) if doubled > 9 => doubled - 9,
                (_, doubled) => doubled,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The remainder by 97 of the number that the characters spell, the first four moved to the end and letters read as
/// 10 to 35 (ISO/IEC 7064, MOD 97-10).
fn mod97(iban: &str) -> u32 {
    let (head, rest) = iban.as_bytes().split_at(4);
    rest.iter().chain(head).fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte.wrapping_sub(b'A')) + 10) % 97,
    })
}

fn card_digits(value: &str) -> Option<Zeroizing<String>> {
    let digits = without(value, |c| matches!(c, ' ' | '-'));
    ((13..=19).contains(&digits.len()) && all_digits(&digits)).then_some(digits)
}

fn iban_characters(value: &str) -> Option<Zeroizing<String>> {
    let value = value.trim();
    let iban = collect(value.len(), value.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_uppercase()));
    let bytes = iban.as_bytes();
    let formed = (15..=34).contains(&bytes.len())
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes.iter().all(u8::is_ascii_alphanumeric);
    formed.then_some(iban)
}
