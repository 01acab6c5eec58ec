//! The names of a vault's logs, so that no two logs, of one vault or of two, can be taken for one another.

use crate::domain::VaultIdentity;
use crate::store::LogId;

/// The name of a log, which is the name of the key that signs it:
///
/// ```text
/// phi-vault/<environment>/<vault>          log 0
/// phi-vault/<environment>/<vault>/<n>      log n
/// ```
pub fn origin(identity: &VaultIdentity, log: LogId) -> String {
    let vault = format!("phi-vault/{}/{}", identity.environment, identity.vault);
    if log == LogId::default() { vault } else { format!("{vault}/{log}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::identity;

    #[test]
    fn the_first_log_has_the_vaults_name_and_the_others_their_number_too() {
        let vault = origin(&identity(), LogId(0));
        assert!(vault.starts_with("phi-vault/dev/"), "{vault}");
        assert_eq!(origin(&identity(), LogId(12)), format!("{vault}/12"));
    }
}
