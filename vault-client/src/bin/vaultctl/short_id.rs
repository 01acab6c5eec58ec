//! Grants, changes and jobs by the first digits of their ids: they are read out over the telephone.
//!
//! Keys are not named so: what is done to them can't be undone.

use std::marker::PhantomData;
use std::str::FromStr;

use vault_client::Reason;

use crate::failure::{Exit, Failure};

/// So many digits must be named.
const LEAST: usize = 6;
/// All digits of an id.
const ALL: usize = 32;
/// So many are shown where a name fits several.
const SHOWN: usize = 5;

/// What kind of thing has the id.
pub(crate) trait Kind {
    /// One of them, in a sentence.
    const NAME: &'static str;
    /// The command that lists them.
    const LIST: &'static str;
}

/// An id, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortId<K>(String, PhantomData<K>);

impl<K> FromStr for ShortId<K> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = (LEAST..=ALL).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good {
            Ok(Self(text.to_ascii_lowercase(), PhantomData))
        } else {
            Err("the id is 32 hexadecimal digits; the first 6 are enough if no other begins with them"
                .to_owned())
        }
    }
}

impl<K: Kind> ShortId<K> {
    /// The id, if all of it was named: then nothing needs to be looked up.
    pub(crate) fn whole(&self) -> Option<&str> {
        Some(&*self.0).filter(|id| id.len() == ALL)
    }

    /// The one of these that is meant. A name that fits several is refused: nobody answers for another one than was meant.
    pub(crate) fn of<T>(&self, known: Vec<T>, id: impl Fn(&T) -> String) -> Result<T, Failure> {
        let mut fits: Vec<_> = known.into_iter().filter(|one| id(one).starts_with(&self.0)).collect();
        let one = fits.pop().ok_or_else(|| self.none())?;
        if fits.is_empty() {
            return Ok(one);
        }
        fits.push(one);
        let more = if fits.len() > SHOWN { " ..." } else { "" };
        let ids: Vec<_> = fits.iter().take(SHOWN).map(id).collect();
        Err(Failure::wrong_use(format!("several {}s begin with these digits", K::NAME))
            .hint(format!("name more of them: {}{more}", ids.join(", "))))
    }

    fn none(&self) -> Failure {
        let digits = if self.whole().is_some() { "has this id" } else { "begins with these digits" };
        let message = format!("no {} that you may see {digits}", K::NAME);
        let hint = format!("`vaultctl {}` has those; is it another tenant's? --tenant TENANT", K::LIST);
        Failure::new(Exit::SomeFailed, Reason::NotFound, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing;
    impl Kind for Thing {
        const NAME: &'static str = "thing";
        const LIST: &'static str = "things list";
    }

    const IDS: [&str; 3] = [
        "aaaaaa1100000000000000000000000f",
        "aaaaaa2200000000000000000000000f",
        "bbbbbb2200000000000000000000000f",
    ];

    fn named(text: &str) -> Result<&'static str, String> {
        let name: ShortId<Thing> = text.parse()?;
        name.of(IDS.to_vec(), |id| (*id).to_owned()).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn digits_name_one_or_none() {
        assert_eq!(named("AAAAAA1").unwrap(), IDS[0]);
        assert_eq!(named("aaaaaa2").unwrap(), IDS[1]);
        assert_eq!(named(IDS[2]).unwrap(), IDS[2]);
        for bad in ["", "aaaaa", "aaaaag", "aaaaaa1100000000000000000000000f0"] {
            assert!(bad.parse::<ShortId<Thing>>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_fits_several_is_refused_with_all_of_them() {
        let several = named("aaaaaa").unwrap_err();
        assert!(several.contains("several things") && several.contains("WrongUse"), "{several}");
        assert!(
            several.contains(IDS[0]) && several.contains(IDS[1]) && !several.contains(IDS[2]),
            "{several}"
        );
    }

    #[test]
    fn what_fits_none_is_told_where_to_look() {
        for missing in ["cccccc", "cccccc1100000000000000000000000f"] {
            let none = named(missing).unwrap_err();
            assert!(none.contains("vaultctl things list") && none.contains("SomeFailed"), "{none}");
        }
    }
}
