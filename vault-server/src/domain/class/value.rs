//! A normalized value, why a value is refused, and the small steps that the classes share.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use zeroize::Zeroizing;

use crate::domain::Timestamp;

/// The form in which two spellings of one value are equal. As secret as the value: no `Debug`, no `Clone`.
pub struct Normalized(Zeroizing<String>);

impl Normalized {
    pub(super) fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The normalized value. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why a value is not one of its class. Never holds the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Nothing in it but white space.
    #[error("empty")]
    Empty,
    /// Too many bytes.
    #[error("larger than {most} bytes")]
    TooLarge {
        /// The most that the class takes.
        most: usize,
    },
    /// Against the class's rule.
    #[error("not of its class: {rule}")]
    NotOfClass {
        /// What values of the class look like.
        rule: &'static str,
    },
}

/// What a check may ask for besides the value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) now: Timestamp,
    pub(super) accept_synthetic: bool,
}

/// Whether there is more than white space.
pub(super) fn has_content(text: &str) -> bool {
    text.chars().any(|c| !c.is_whitespace())
}

/// A copy of `text`, wiped when dropped.
pub(super) fn copy(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// The characters collected without a reallocation, which would leave a copy behind. `most` bytes must do.
pub(super) fn collect(most: usize, chars: impl Iterator<Item = char>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(most));
    text.extend(chars);
    text
}

/// Unicode normalization form C.
pub(super) fn nfc(text: &str) -> Zeroizing<String> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => copy(text),
        // In UTF-8, NFC is at most three times as long (Unicode Standard Annex 15, section 9).
        IsNormalized::No | IsNormalized::Maybe => collect(text.len() * 3, text.nfc()),
    }
}

/// Trims, and drops every character for which `separator` holds.
pub(super) fn without(text: &str, separator: impl Fn(char) -> bool) -> Zeroizing<String> {
    collect(text.len(), text.trim().chars().filter(|c| !separator(*c)))
}

/// Whether all are `0-9`.
pub(super) fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The last `count` bytes of an ASCII text; `None` if it has fewer or is not ASCII.
pub(super) fn ascii_tail(text: &str, count: usize) -> Option<&str> {
    if !text.is_ascii() {
        return None;
    }
    text.get(text.len().checked_sub(count)?..)
}
