//! Identifiers: Social Security numbers, National Provider Identifiers, Medicare Beneficiary Identifiers, and those
//! whose pattern is the site's.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::financial::luhn;
use super::value::{Context, InvalidValue, all_digits, ascii_tail, collect, without};

/// Nine digits, as `123-45-6789`, `123 45 6789` or `123456789`, in a range that the Social Security Administration
/// may issue (since 2011: not area 000, 666 or 900 to 999, group 00, serial 0000).
pub(super) fn ssn(value: &str, context: Context) -> Result<Zeroizing<String>, InvalidValue> {
    const FORM: InvalidValue =
        InvalidValue::NotOfClass { rule: "an SSN is nine digits, as 123-45-6789 or 123456789" };
    const RANGE: InvalidValue =
        InvalidValue::NotOfClass { rule: "an SSN of this area, group or serial is never issued" };

    let digits = ssn_digits(value).ok_or(FORM)?;
    let (area, group, serial) = (&digits[..3], &digits[3..5], &digits[5..]);
    let synthetic = area == "999" && context.accept_synthetic;
    let issued = area != "000" && area != "666" && !area.starts_with('9');
    if (issued || synthetic) && group != "00" && serial != "0000" { Ok(digits) } else { Err(RANGE) }
}

/// `***-**-6789`.
pub(super) fn mask_ssn(value: &str) -> String {
    let digits = ssn_digits(value);
    format!("***-**-{}", digits.as_deref().and_then(|d| ascii_tail(d, 4)).unwrap_or("****"))
}

/// Ten digits that begin with 1 or 2; the last is the Luhn check digit over `80840` and the others (45 CFR 162.406).
pub(super) fn npi(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    npi_digits(value)
        .map(super::value::copy)
        .ok_or(InvalidValue::NotOfClass { rule: "an NPI is ten digits with their check digit" })
}

/// The NPI: it is public. What is not one is masked.
pub(super) fn mask_npi(value: &str) -> String {
    npi_digits(value).unwrap_or("**********").to_owned()
}

/// Eleven characters in CMS's format, where a letter is none of S L O I B Z; without the dashes of the card.
pub(super) fn mbi(value: &str, context: Context) -> Result<Zeroizing<String>, InvalidValue> {
    const FORM: InvalidValue =
        InvalidValue::NotOfClass { rule: "an MBI is eleven characters in CMS's format, as 1EG4TE5MK73" };

    let mbi = mbi_characters(value).ok_or(FORM)?;
    // CMS's samples have the `S` at position 2, some of them at position 3 as well (`1SS0C00AA00`).
    let synthetic = context.accept_synthetic && mbi.as_bytes()[1] == b'S';
    let formed = mbi.bytes().zip(MBI_FORMAT).enumerate().all(|(at, (byte, &kind))| match kind {
        b'C' => (b'1'..=b'9').contains(&byte),
        b'N' => byte.is_ascii_digit(),
        b'A' => mbi_letter(byte) || (synthetic && at == 1),
        _ => byte.is_ascii_digit() || mbi_letter(byte) || (synthetic && at == 2 && byte == b'S'),
    });
    if formed { Ok(mbi) } else { Err(FORM) }
}

/// `*******MK73`.
pub(super) fn mask_mbi(value: &str) -> String {
    let mbi = mbi_characters(value);
    format!("*******{}", mbi.as_deref().and_then(|m| ascii_tail(m, 4)).unwrap_or("****"))
}

/// An identifier of a site: upper-case ASCII, NFC, trimmed; with a letter or digit, without control characters.
pub(super) fn site(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    let value = value.trim();
    if value.chars().any(char::is_control) || !value.chars().any(char::is_alphanumeric) {
        return Err(InvalidValue::NotOfClass {
            rule: "an identifier has a letter or digit and no control characters",
        });
    }
    // Upper-case first: NFC of upper-case letters may differ from the upper case of NFC.
    Ok(collect(value.len() * 3, value.chars().map(|c| c.to_ascii_uppercase()).nfc()))
}

/// C: 1 to 9, N: 0 to 9, A: letter, X: letter or digit (CMS, "Understanding the Medicare Beneficiary Identifier").
const MBI_FORMAT: &[u8; 11] = b"CAXNAXNAANN";

fn mbi_letter(byte: u8) -> bool {
    byte.is_ascii_uppercase() && !b"SLOIBZ".contains(&byte)
}

/// The eleven letters and digits, upper-case, from the plain or the dashed form (`1EG4-TE5-MK73`).
fn mbi_characters(value: &str) -> Option<Zeroizing<String>> {
    let value = value.trim();
    let bytes = value.as_bytes();
    let dashed = bytes.len() == 13 && bytes[4] == b'-' && bytes[8] == b'-';
    let mbi =
        collect(value.len(), value.chars().filter(|c| !dashed || *c != '-').map(|c| c.to_ascii_uppercase()));
    (mbi.len() == 11 && mbi.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(mbi)
}

fn ssn_digits(value: &str) -> Option<Zeroizing<String>> {
    let value = value.trim();
    let bytes = value.as_bytes();
    let separated = bytes.len() == 11 && bytes[3] == bytes[6] && matches!(bytes[3], b'-' | b' ');
    if !separated && bytes.len() != 9 {
        return None;
    }
    let digits = without(value, |c| separated && matches!(c, '-' | ' '));
    (digits.len() == 9 && all_digits(&digits)).then_some(digits)
}

fn npi_digits(value: &str) -> Option<&str> {
    let value = value.trim();
    let formed = value.len() == 10 && all_digits(value) && matches!(value.as_bytes()[0], b'1' | b'2');
    (formed && luhn("80840".bytes().chain(value.bytes()))).then_some(value)
}
