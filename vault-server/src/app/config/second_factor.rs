//! `[second_factor]`: what people's security keys must show.

use serde::Deserialize;

/// `[second_factor]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecondFactor {
    /// Whether people must prove to their key who they are, by PIN or finger, and not only touch it.
    pub user_verification: bool,
}
