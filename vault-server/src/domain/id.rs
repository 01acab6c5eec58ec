//! Names and ids. All are safe to log.

use std::fmt;
use std::sync::Arc;

/// The text is not a name of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} is {rule}")]
pub struct InvalidName {
    /// What was to be named.
    pub kind: &'static str,
    /// What names of that kind look like.
    pub rule: &'static str,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// From its 128 bits.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 128 bits.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A new one from the operating system's randomness.
            pub fn random() -> Result<Self, getrandom::Error> {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// From 32 hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| InvalidName { kind: stringify!($name), rule: "32 hexadecimal digits" })?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

random_id! {
    /// A deployment.
    VaultId
}
random_id! {
    /// A tenant's key: one version of one purpose. Never reused.
    KeyId
}
random_id! {
    /// A process that serves the vault, for as long as it lives.
    InstanceId
}
random_id! {
    /// A job.
    JobId
}
random_id! {
    /// A grant of break-glass.
    GrantId
}
random_id! {
    /// A change of who may that waits for another person's approval.
    ProposalId
}
random_id! {
    /// Something to sign with a security key, once.
    ChallengeId
}
random_id! {
    /// An alert, wherever it is delivered.
    AlertId
}
random_id! {
    /// One request; in the log, in the answer's RequestInfo, in traces.
    RequestId
}

/// Which KMS keys wrap whose keys, as a digest: the same on all instances that are configured alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KmsSet([u8; 16]);

impl KmsSet {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { kind: $kind, rule: $rule })
                }
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn slug(text: &str, most: usize, also: &[u8]) -> bool {
    let bytes = text.as_bytes();
    (1..=most).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(b))
}

name! {
    /// A client organization.
    TenantId, "tenant", "1 to 63 characters of a-z, 0-9 and '-', not beginning with '-'", |t| slug(t, 63, b"-")
}
name! {
    /// What kind of PHI a value is.
    ClassName, "data class", "1 to 32 characters of a-z, 0-9 and '_', not beginning with '_'", |t| slug(t, 32, b"_")
}
name! {
    /// A provisioned caller.
    PrincipalId, "principal", "1 to 128 characters of a-z, 0-9 and '-._@/', beginning with a letter or digit",
    |t| slug(t, 128, b"-._@/")
}
name! {
    /// A caller's name for a write that may be repeated.
    IdempotencyKey, "idempotency key", "1 to 128 printable ASCII characters",
    |t| (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

name! {
    /// What a lease is about.
    LeaseName, "lease", "1 to 128 characters of a-z, 0-9 and '-._/', beginning with a letter or digit",
    |t| slug(t, 128, b"-._/")
}

/// The version of a tenant's key, counted from 1 for each purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyVersion(pub u32);

impl KeyVersion {
    /// The first.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_narrow() {
        assert!(TenantId::parse("st-mary").is_ok());
        for bad in ["", "-a", "A", "a_b", "a/b", "é", "a\n", &"a".repeat(64)] {
            assert!(TenantId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ClassName::parse("member_id").is_ok());
        assert!(ClassName::parse("member-id").is_err());
        assert!(IdempotencyKey::parse("a\u{7f}").is_err());
        assert!(IdempotencyKey::parse("0b51-77").is_ok());
    }
}
