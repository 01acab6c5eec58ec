//! Telephone numbers (ITU-T E.164) and e-mail addresses (RFC 5321).

use zeroize::Zeroizing;

use super::mask::initial;
use super::value::{Context, InvalidValue, all_digits, ascii_tail, collect, without};

/// `+` and 7 to 15 digits. Ten digits, or eleven that begin with 1, are taken for a number of the North American
/// plan: `(555) 978-4581` is `+15559784581`.
pub(super) fn phone(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    phone_e164(value).ok_or(InvalidValue::NotOfClass {
        rule: "a phone number is + with country code and number, or the ten digits of a US number",
    })
}

/// `(***) ***-0142`, for every country.
pub(super) fn mask_phone(value: &str) -> String {
    let number = phone_e164(value);
    format!("(***) ***-{}", number.as_deref().and_then(|n| ascii_tail(n, 4)).unwrap_or("****"))
}

/// Local part, `@`, and a domain in ASCII with at least two labels. Trimmed, the domain in lower case.
pub(super) fn email(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    let value = value.trim();
    let Some((local, domain)) = email_parts(value) else {
        return Err(InvalidValue::NotOfClass { rule: "an e-mail address is local@domain.example" });
    };
    let mut email = Zeroizing::new(String::with_capacity(value.len()));
    email.push_str(local);
    email.push('@');
    email.extend(domain.chars().map(|c| c.to_ascii_lowercase()));
    Ok(email)
}

/// `j***@***.com`.
pub(super) fn mask_email(value: &str) -> String {
    let Some((local, domain)) = email_parts(value.trim()) else {
        return "****@***.***".to_owned();
    };
    let top = domain.rsplit('.').next().unwrap_or("***").to_ascii_lowercase();
    format!("{}***@***.{top}", initial(local).unwrap_or('*'))
}

fn phone_e164(value: &str) -> Option<Zeroizing<String>> {
    let value = value.trim();
    let separator = |c| matches!(c, ' ' | '-' | '.' | '(' | ')' | '/' | '\u{a0}');
    let number = match value.strip_prefix('+') {
        // The trunk prefix of `+46 (0)8 928` is not dialled from abroad.
        Some(international) => match international.split_once("(0)") {
            Some((country, rest)) => {
                let joined = collect(value.len(), country.chars().chain(rest.chars()));
                without(&joined, separator)
            }
            None => without(international, separator),
        },
        None => without(value, separator),
    };
    let bytes = number.as_bytes();
    let digits = match (value.starts_with('+'), bytes.len()) {
        (true, 7..=15) if bytes[0] != b'0' => number,
        (false, 10) => collect(11, "1".chars().chain(number.chars())),
        (false, 11) if bytes[0] == b'1' => number,
        _ => return None,
    };
    let american = digits.starts_with('1');
    let area_begins = digits.as_bytes().get(1).copied();
    if !all_digits(&digits) || (american && (digits.len() != 11 || !matches!(area_begins, Some(b'2'..=b'9'))))
    {
        return None;
    }
    Some(collect(digits.len() + 1, "+".chars().chain(digits.chars())))
}

/// The local part and the domain, if both are well-formed.
fn email_parts(value: &str) -> Option<(&str, &str)> {
    let (local, domain) = value.rsplit_once('@')?;
    let local_formed = (1..=64).contains(&local.len())
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|c| !c.is_control() && !c.is_whitespace() && !"@<>()[],;:\\\"".contains(c));
    let label_formed = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let (_, top) = domain.rsplit_once('.')?;
    let domain_formed = domain.len() <= 253
        && domain.split('.').all(label_formed)
        && top.len() >= 2
        && top.as_bytes()[0].is_ascii_alphabetic();
    (local_formed && domain_formed).then_some((local, domain))
}
