//! Masks that several classes share. A mask has one width, whatever the value's: it does not tell the length.

/// Shows nothing.
pub(super) const REDACTED: &str = "[redacted]";

/// `****1234`; `********` for what has under 8 characters or does not end in four letters or digits.
pub(super) fn last4(value: &str) -> String {
    let value = value.trim();
    match tail(value, 4) {
        Some(shown) if value.chars().nth(7).is_some() => format!("****{shown}"),
        _ => "********".to_owned(),
    }
}

/// `J***`; `****` for what has one character or does not begin with a letter or digit.
pub(super) fn first1(value: &str) -> String {
    match initial(value.trim()) {
        Some(shown) => format!("{shown}***"),
        None => "****".to_owned(),
    }
}

/// The first character, if there are more and it is a letter or a digit: nothing that could play tricks with a
/// terminal.
pub(super) fn initial(value: &str) -> Option<char> {
    let mut chars = value.chars();
    let first = chars.next()?;
    (first.is_alphanumeric() && chars.next().is_some()).then_some(first)
}

/// The last `count` characters, if they are letters or digits.
fn tail(value: &str, count: usize) -> Option<&str> {
    let (at, _) = value.char_indices().rev().nth(count.checked_sub(1)?)?;
    let shown = value.get(at..)?;
    shown.chars().all(char::is_alphanumeric).then_some(shown)
}
