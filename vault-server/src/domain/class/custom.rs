//! A site's own classes, from its configuration:
//!
//! ```toml
//! [[class]]
//! name = "mrn"                # replaces the built-in one, whose pattern is the site's to set
//! replaces = true
//! pattern = "[0-9]{8}"        # the whole normalized value must match
//! normalize = "digits"
//! mask = "last4"
//! index = true
//! ```

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::value::{InvalidValue, all_digits, collect, copy, without};
use super::{mask, padding};
use crate::domain::ClassName;
use crate::domain::id::InvalidName;

/// A class as configured.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomClass {
    /// Its name.
    pub name: String,
    /// A regular expression (crate `regex`) that the whole normalized value must match.
    pub pattern: String,
    /// How spellings are made equal before the pattern and the index.
    pub normalize: CustomNormalize,
    /// What a console may show.
    pub mask: CustomMask,
    /// The most bytes of a value, up to 65,536.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: usize,
    /// Whether values can be found by value.
    pub index: bool,
    /// The smallest size to which values are padded: a power of two from 64 to 65,536.
    #[serde(default = "default_bucket")]
    pub bucket: usize,
    /// Whether it is meant to replace a built-in class.
    #[serde(default)]
    pub replaces: bool,
}

/// How a custom class makes spellings equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomNormalize {
    /// Not at all.
    None,
    /// White space around it is dropped.
    Trim,
    /// Trimmed, ASCII letters in upper case.
    Upper,
    /// Trimmed, without blanks and `-./()`; nothing but `0-9` may be left.
    Digits,
}

/// What of a custom class's value a console may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomMask {
    /// `****1234`; all masked under 8 characters.
    Last4,
    /// `[redacted]`.
    Redact,
    /// `J***`.
    First1,
}

/// Why a configured class is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassConfigError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A built-in class has this name.
    #[error(
        "class {name}: a built-in class has this name (mrn, member_id, account, license, vehicle, device and passport \
         may be replaced, with `replaces = true`)"
    )]
    Shadows {
        /// Of the class.
        name: ClassName,
    },
    /// It says that it replaces a built-in class, and there is none of this name.
    #[error("class {name}: there is no built-in class of this name to replace")]
    ReplacesNothing {
        /// Of the class.
        name: ClassName,
    },
    /// Another configured class has this name.
    #[error("class {name} is configured twice")]
    Twice {
        /// Of the class.
        name: ClassName,
    },
    /// The pattern is not a regular expression, or too large a one.
    #[error("class {name}: `pattern` is not a regular expression of bounded size")]
    Pattern {
        /// Of the class.
        name: ClassName,
    },
    /// `max_bytes` is out of range.
    #[error("class {name}: `max_bytes` is from 1 to {MOST_BYTES}")]
    MaxBytes {
        /// Of the class.
        name: ClassName,
    },
    /// `bucket` is out of range.
    #[error("class {name}: `bucket` is a power of two from {} to {MOST_BYTES}", padding::LEAST)]
    Bucket {
        /// Of the class.
        name: ClassName,
    },
}

/// A configured class, checked.
#[derive(Debug)]
pub(super) struct Custom {
    config: CustomClass,
    whole: Regex,
}

/// Checks a configuration.
pub(super) fn compile(config: CustomClass) -> Result<(ClassName, Custom), ClassConfigError> {
    let name = ClassName::parse(&config.name)?;
    if !(1..=MOST_BYTES).contains(&config.max_bytes) {
        return Err(ClassConfigError::MaxBytes { name });
    }
    if !config.bucket.is_power_of_two() || !(padding::LEAST..=MOST_BYTES).contains(&config.bucket) {
        return Err(ClassConfigError::Bucket { name });
    }
    // Alone first: `a)|(b` is no pattern, but would be one between the anchors' parentheses, and match anywhere.
    let bounded = |pattern: &str| RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    let compiled = bounded(&config.pattern).and_then(|_| bounded(&format!(r"\A(?:{})\z", config.pattern)));
    let Ok(whole) = compiled else {
        return Err(ClassConfigError::Pattern { name });
    };
    Ok((name, Custom { config, whole }))
}

impl Custom {
    pub(super) fn indexed(&self) -> bool {
        self.config.index
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.config.max_bytes
    }

    pub(super) fn least_padded(&self) -> usize {
        self.config.bucket
    }

    pub(super) fn normalize(&self, value: &str) -> Result<Zeroizing<String>, InvalidValue> {
        const DIGITS: InvalidValue = InvalidValue::NotOfClass { rule: "values of this class are digits" };
        const PATTERN: InvalidValue =
            InvalidValue::NotOfClass { rule: "it does not match the pattern configured for this class" };

        let normalized = match self.config.normalize {
            CustomNormalize::None => copy(value),
            CustomNormalize::Trim => copy(value.trim()),
            CustomNormalize::Upper => {
                collect(value.len(), value.trim().chars().map(|c| c.to_ascii_uppercase()))
            }
            CustomNormalize::Digits => without(value, |c| " -./()".contains(c)),
        };
        if self.config.normalize == CustomNormalize::Digits && !all_digits(&normalized) {
            return Err(DIGITS);
        }
        if normalized.is_empty() {
            return Err(InvalidValue::Empty);
        }
        if self.whole.is_match(&normalized) { Ok(normalized) } else { Err(PATTERN) }
    }

    pub(super) fn mask(&self, value: &str) -> String {
        match self.config.mask {
            CustomMask::Last4 => mask::last4(value),
            CustomMask::Redact => mask::REDACTED.to_owned(),
            CustomMask::First1 => mask::first1(value),
        }
    }
}

const MOST_BYTES: usize = 64 * 1024;

/// Of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;

const fn default_max_bytes() -> usize {
    4096
}

const fn default_bucket() -> usize {
    padding::LEAST
}
