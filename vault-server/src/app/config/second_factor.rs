//! `[second_factor]`: what people's security keys must show.

use serde::Deserialize;

/// `[second_factor]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecondFactor {
    /// Whether people must prove to their key who they are, by PIN or finger, and not only touch it.
    pub user_verification: bool,
    /// Whether who approves a destruction of keys or a change of principals and has, or ever had, one must touch it. Files of
    /// before call it `for_destruction`.
    #[serde(alias = "for_destruction")]
    pub for_approvals: bool,
}

impl Default for SecondFactor {
    fn default() -> Self {
        Self { user_verification: false, for_approvals: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_before_still_holds() {
        let parse = |text: &str| toml::from_str::<SecondFactor>(text);
        assert!(parse("").unwrap().for_approvals);
        assert!(!parse("for_destruction = false").unwrap().for_approvals);
        assert!(!parse("for_approvals = false").unwrap().for_approvals);
        assert!(parse("for_approvals = false\nfor_destruction = true").is_err(), "which of them?");
    }
}
