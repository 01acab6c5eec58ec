//! Grants by their first digits: they are read out over the telephone.

use std::str::FromStr;

use vault_client::break_glass::{Grant, GrantId};
use vault_client::{Client, Reason};

use crate::failure::{Exit, Failure};

/// So many digits must be named.
const LEAST: usize = 6;
/// Grants that are looked at for a name.
const MOST: u32 = 1000;

/// An id, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrantName(String);

impl FromStr for GrantName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = (LEAST..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good { Ok(Self(text.to_ascii_lowercase())) } else { Err("6 to 32 hexadecimal digits".to_owned()) }
    }
}

impl GrantName {
    /// The grant's id. A name that fits several is refused: nobody approves another grant than the one that was meant.
    pub(super) async fn resolve(&self, client: &Client) -> Result<GrantId, Failure> {
        if let Ok(id) = self.0.parse() {
            return Ok(id);
        }
        let known = client.list_grants(false, MOST).await?;
        self.only(&known)
    }

    fn only(&self, known: &[Grant]) -> Result<GrantId, Failure> {
        let mut fits = known.iter().map(|grant| &grant.id).filter(|id| id.as_str().starts_with(&self.0));
        match (fits.next(), fits.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(one), Some(other)) => Err(Failure::wrong_use("several grants begin with these digits")
                .hint(format!("name more of them: {one}, {other} ..."))),
            (None, _) => {
                let message = "no grant that you may see begins with these digits".to_owned();
                Err(Failure::new(Exit::SomeFailed, Reason::NotFound, message)
                    .hint("`vaultctl break-glass list` has those; is it another tenant's? --tenant TENANT"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::break_glass::show::tests::grant;

    fn named(text: &str, known: &[Grant]) -> Option<String> {
        let name: GrantName = text.parse().unwrap();
        name.only(known).ok().map(|id| id.to_string())
    }

    #[test]
    fn digits_name_one_grant_or_none() {
        let ids = ["aaaaaa1100000000000000000000000f", "aaaaaa2200000000000000000000000f"];
        let known = ids.map(|id| grant(id, 0));
        assert_eq!(named("AAAAAA1", &known).as_deref(), Some(ids[0]));
        assert_eq!(named("aaaaaa2", &known).as_deref(), Some(ids[1]));
        assert_eq!(named("aaaaaa", &known), None, "two of them");
        assert_eq!(named("bbbbbb", &known), None);
        for bad in ["", "aaaaa", "aaaaag", "aaaaaa1100000000000000000000000f0"] {
            assert!(bad.parse::<GrantName>().is_err(), "{bad}");
        }
    }
}
