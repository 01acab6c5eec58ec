//! `[second_factor]`: what people's security keys must show.

use serde::Deserialize;

/// `[second_factor]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecondFactor {
    /// Whether people must prove to their key who they are, by PIN or finger, and not only touch it.
    pub user_verification: bool,
    /// Whether who approves a destruction of keys and has, or ever had, one must touch it.
    pub for_destruction: bool,
}

impl Default for SecondFactor {
    fn default() -> Self {
        Self { user_verification: false, for_destruction: true }
    }
}
