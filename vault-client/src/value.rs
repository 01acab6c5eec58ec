//! Values that must not leak: no `Debug`, `Clone`, `Display`, `Serialize`, `Default`; wiped when dropped.

use zeroize::{Zeroize as _, Zeroizing};

use crate::class::DataClass;

/// The value is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is not UTF-8")]
pub struct NotUtf8;

/// A plain value: PHI. Wiped when dropped; prints itself nowhere.
///
/// ```
/// let value = vault_client::Plaintext::new("999-12-3456".to_owned());
/// assert_eq!(value.expose(), "999-12-3456");
/// ```
///
/// It can't be printed, copied or serialized by accident:
///
/// ```compile_fail,E0277
/// println!("{:?}", vault_client::Plaintext::new("999-12-3456".to_owned()));
/// ```
/// ```compile_fail,E0277
/// println!("{}", vault_client::Plaintext::new("999-12-3456".to_owned()));
/// ```
/// ```compile_fail,E0599
/// let _ = vault_client::Plaintext::new("999-12-3456".to_owned()).clone();
/// ```
pub struct Plaintext(Zeroizing<String>);

impl Plaintext {
    /// Takes a value over.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Takes bytes over; they are wiped if they are not UTF-8.
    pub fn from_utf8(bytes: Vec<u8>) -> Result<Self, NotUtf8> {
        String::from_utf8(bytes).map(Self::new).map_err(|error| {
            error.into_bytes().zeroize();
            NotUtf8
        })
    }

    /// The value. Say at each use why it is exposed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Gives the text up, for the wire.
    pub(crate) fn into_inner(mut self) -> Zeroizing<String> {
        std::mem::take(&mut self.0)
    }
}

/// The application's own id of the person a value is about, 1 to 256 bytes. It is PHI; the vault keeps a keyed
/// hash only.
///
/// ```compile_fail,E0277
/// println!("{:?}", vault_client::SubjectId::new("patient-1".to_owned()));
/// ```
pub struct SubjectId(Zeroizing<String>);

/// The text can't be a subject's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subject's id is 1 to 256 bytes of UTF-8")]
pub struct InvalidSubjectId;

impl SubjectId {
    /// Takes an id over.
    pub fn new(id: String) -> Result<Self, InvalidSubjectId> {
        let id = Zeroizing::new(id);
        if (1..=256).contains(&id.len()) { Ok(Self(id)) } else { Err(InvalidSubjectId) }
    }

    /// The id. Say at each use why it is exposed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Gives the text up, for the wire.
    pub(crate) fn into_inner(mut self) -> String {
        std::mem::take(&mut *self.0)
    }
}

/// The masked form of a value (`***-**-3456`): as much as a console may show. It still tells something, so it does
/// not print itself either.
///
/// ```compile_fail,E0277
/// fn show(masked: vault_client::Masked) { println!("{masked:?}"); }
/// ```
pub struct Masked(Zeroizing<String>);

impl Masked {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The masked text, to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A value to be tokenized.
///
/// ```compile_fail,E0277
/// let value = vault_client::Plaintext::new("999-12-3456".to_owned());
/// println!("{:?}", vault_client::NewValue::new(vault_client::DataClass::SSN, value));
/// ```
pub struct NewValue {
    /// What kind of PHI it is.
    pub class: DataClass,
    /// The value, kept byte for byte.
    pub value: Plaintext,
    /// Whom it is about. `None`: nobody in particular; such a value can't be found or erased by subject.
    pub subject: Option<SubjectId>,
}

impl NewValue {
    /// A value about nobody in particular.
    pub fn new(class: DataClass, value: Plaintext) -> Self {
        Self { class, value, subject: None }
    }

    /// The same value, about a person.
    #[must_use]
    pub fn about(self, subject: SubjectId) -> Self {
        Self { subject: Some(subject), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_ids_have_bounds() {
        assert!(SubjectId::new("p".repeat(256)).is_ok());
        for bad in [String::new(), "p".repeat(257)] {
            assert!(SubjectId::new(bad).is_err());
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        assert!(Plaintext::from_utf8(vec![0xff, 0xfe]).is_err());
        assert!(Plaintext::from_utf8("Ö".into()).is_ok_and(|value| value.expose() == "Ö"));
    }
}
