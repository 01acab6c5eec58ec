//! Values that must not leak: no `Debug`, `Clone`, `Display`, `Serialize`, `Default`; wiped when dropped.

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// The value is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8")]
pub struct NotUtf8;

/// A plain value: PHI.
pub struct Plaintext(SecretString);

impl Plaintext {
    /// Takes bytes over; they are wiped if they are not UTF-8.
    pub fn from_utf8(bytes: Vec<u8>) -> Result<Self, NotUtf8> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self(text.into())),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Err(NotUtf8)
            }
        }
    }

    /// The value. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The application's own id of a person: PHI.
pub struct SubjectId(SecretString);

impl SubjectId {
    /// 1 to 256 bytes of UTF-8.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (1..=256).contains(&text.len());
        let text = SecretString::from(text);
        fits.then_some(Self(text))
    }

    /// The id. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The masked form of a value: what a console may show. It still tells something (four digits of an SSN), so
/// it does not print itself either.
pub struct Masked(SecretString);

impl Masked {
    /// Only masks of `domain::class` make one.
    pub(in crate::domain) fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The masked text. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}
