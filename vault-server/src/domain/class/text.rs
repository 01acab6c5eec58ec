//! Names, free text, and what is only kept.

use zeroize::Zeroizing;

use super::value::{Context, InvalidValue, copy, nfc};

/// NFC, trimmed; without control characters.
pub(super) fn name(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    let value = value.trim();
    if value.chars().any(char::is_control) {
        return Err(InvalidValue::NotOfClass { rule: "a name has no control characters" });
    }
    Ok(nfc(value))
}

/// NFC.
#[expect(clippy::unnecessary_wraps, reason = "all rows of the table have this shape")]
pub(super) fn text(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    Ok(nfc(value))
}

/// As it is.
#[expect(clippy::unnecessary_wraps, reason = "all rows of the table have this shape")]
pub(super) fn opaque(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    Ok(copy(value))
}
