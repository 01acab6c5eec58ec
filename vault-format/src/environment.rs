//! The name of a deployment's environment: `prod`, `demo`, `qa`, `dev` ...

use std::fmt;

/// 1 to 16 characters of `a-z0-9`, beginning with a letter. Fixed when a vault is made; part of every token,
/// of every record's associated data and of every KMS encryption context.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Environment(Box<str>);

/// The text is not the name of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an environment's name is 1 to 16 characters of a-z and 0-9 and begins with a letter")]
pub struct InvalidEnvironment;

impl Environment {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, InvalidEnvironment> {
        let bytes = text.as_bytes();
        let well_formed = (1..=16).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if well_formed { Ok(Self(text.into())) } else { Err(InvalidEnvironment) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_and_refuses_what_could_confuse_a_token() {
        for good in ["prod", "dev", "qa2", "a", "abcdefghijklmnop"] {
            assert_eq!(Environment::parse(good).map(|e| e.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "Prod", "2qa", "a_b", "a-b", "abcdefghijklmnopq", "é", "a b"] {
            assert_eq!(Environment::parse(bad), Err(InvalidEnvironment), "{bad}");
        }
    }
}
