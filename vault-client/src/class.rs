//! Data classes: what kind of PHI a value is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The name of a data class: 1 to 32 characters of `a-z`, `0-9` and `_`, not beginning with `_`.
///
/// The built-in ones are constants; a site's own are parsed. Which there are is the vault's to say.
///
/// ```
/// use vault_client::DataClass;
/// let own: DataClass = "pharmacy_card".parse()?;
/// assert_eq!("ssn".parse::<DataClass>()?, DataClass::SSN);
/// # Ok::<(), vault_client::InvalidClass>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataClass(Cow<'static, str>);

/// The text is not the name of a data class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a data class is 1 to 32 characters of a-z, 0-9 and '_', not beginning with '_'")]
pub struct InvalidClass;

macro_rules! builtin {
    ($($name:ident $text:literal $doc:literal;)*) => {
        impl DataClass {
            $(#[doc = $doc] pub const $name: Self = Self(Cow::Borrowed($text));)*

            /// The built-in classes.
            pub const BUILTIN: &[Self] = &[$(Self::$name),*];
        }
    };
}

builtin! {
    SSN "ssn" "Social security number.";
    PHONE "phone" "Telephone or fax number, E.164.";
    EMAIL "email" "Mail address.";
    NAME "name" "A name or a part of one.";
    DOB "dob" "Birth date or another date about a person, ISO 8601.";
    ADDRESS "address" "Postal address, or lines of one.";
    ZIP "zip" "ZIP code, 5 or 5+4.";
    MRN "mrn" "Medical record number.";
    MEMBER_ID "member_id" "Health plan member number.";
    ACCOUNT "account" "Account number.";
    LICENSE "license" "License or certificate number; passport, driver's license.";
    VEHICLE "vehicle" "Vehicle identifier.";
    DEVICE "device" "Device identifier.";
    NPI "npi" "National provider identifier (public: its mask is the value).";
    MBI "mbi" "Medicare beneficiary identifier.";
    CARD "card" "Payment card number.";
    IBAN "iban" "International bank account number.";
    IP "ip" "IP address.";
    URL "url" "Web address.";
    BIOMETRIC "biometric" "Biometric identifier.";
    PHOTO "photo" "Photograph.";
    TEXT "text" "Free text.";
    OTHER "other" "Any other unique identifier.";
}

impl DataClass {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DataClass {
    type Err = InvalidClass;

    fn from_str(text: &str) -> Result<Self, InvalidClass> {
        let bytes = text.as_bytes();
        let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let well_formed =
            (1..=32).contains(&bytes.len()) && word(&bytes[0]) && bytes.iter().all(|b| word(b) || *b == b'_');
        if well_formed { Ok(Self(Cow::Owned(text.to_owned()))) } else { Err(InvalidClass) }
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_name_parses_to_itself_and_bad_ones_do_not() {
        for class in DataClass::BUILTIN {
            assert_eq!(class.as_str().parse().as_ref(), Ok(class));
        }
        for bad in ["", "_a", "SSN", "a-b", "a b", &"a".repeat(33)] {
            assert_eq!(bad.parse::<DataClass>(), Err(InvalidClass), "{bad:?}");
        }
    }
}
