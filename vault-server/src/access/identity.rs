//! One spelling for each identity, so that no principal can be reached, or provisioned, under two names.
//!
//! Two kinds:
//!
//! * `spiffe://<trust domain>/<path>` (SPIFFE-ID, sections 2.1 to 2.4). The scheme and the trust domain are folded
//!   to lower case and one trailing slash is dropped; a port, user info, query, fragment, percent-encoding, empty or
//!   dot segment, and an id without a path (it names a trust domain, not a workload), are refused.
//! * `subject:<distinguished name>`: the certificate's whole subject as RFC 4514 writes it; see [`name`].
//!
//! [`name`]: crate::access::name

use std::borrow::Cow;

use crate::access::name;

const SPIFFE: &str = "spiffe://";
/// Leads an identity that is a certificate's subject.
pub(super) const SUBJECT: &str = "subject:";

/// SPIFFE-ID section 2.3: at most 2,048 bytes.
const MAX_LEN: usize = 2048;
/// SPIFFE-ID section 2.3: a trust domain has at most 255 bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Neither kind.
    #[error("an identity begins with 'spiffe://' or 'subject:'")]
    Kind,
    /// Longer than any identity.
    #[error("an identity has at most 2048 bytes")]
    TooLong,
    /// Not a SPIFFE trust domain.
    #[error("a trust domain has 1 to 255 characters of a-z, 0-9 and '.-_'")]
    TrustDomain,
    /// Not the path of a workload's SPIFFE id.
    #[error("the path has one or more segments of a-z, A-Z, 0-9 and '.-_', none of them empty, '.' or '..'")]
    Path,
    /// Not a distinguished name.
    #[error("the subject is not a distinguished name such as 'CN=billing,O=Example' (RFC 4514)")]
    Subject,
}

/// Whether `uri` is a SPIFFE id, well-formed or not.
pub(super) fn is_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE))
}

/// The one spelling of an identity. Does not allocate when `text` has it already.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, InvalidIdentity> {
    if text.len() > MAX_LEN {
        return Err(InvalidIdentity::TooLong);
    }
    if is_spiffe(text) {
        return canonical_spiffe(text);
    }
    let subject = text.strip_prefix(SUBJECT).ok_or(InvalidIdentity::Kind)?;
    let written = name::canonical(subject).ok_or(InvalidIdentity::Subject)?;
    Ok(if written == subject { Cow::Borrowed(text) } else { Cow::Owned(format!("{SUBJECT}{written}")) })
}

fn canonical_spiffe(text: &str) -> Result<Cow<'_, str>, InvalidIdentity> {
    let (scheme, rest) = text.split_at(SPIFFE.len());
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (domain, path) = rest.split_once('/').ok_or(InvalidIdentity::Path)?;
    let in_domain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if !(1..=MAX_TRUST_DOMAIN).contains(&domain.len()) || !domain.bytes().all(in_domain) {
        return Err(InvalidIdentity::TrustDomain);
    }
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(in_domain);
    if !path.split('/').all(segment) {
        return Err(InvalidIdentity::Path);
    }
    let canonical_already = scheme == SPIFFE && !domain.bytes().any(|b| b.is_ascii_uppercase());
    Ok(if canonical_already {
        Cow::Borrowed(&text[..SPIFFE.len() + rest.len()])
    } else {
        Cow::Owned(format!("{SPIFFE}{}/{path}", domain.to_ascii_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_identity_become_one() {
        let one = "spiffe://dev.phi-vault.local/Service";
        for alias in [
            one,
            "SPIFFE://dev.phi-vault.local/Service",
            "spiffe://DEV.Phi-Vault.local/Service",
            "spiffe://dev.phi-vault.local/Service/",
        ] {
            assert_eq!(canonical(alias).as_deref(), Ok(one), "{alias}");
        }
        let one = "subject:CN=billing,O=Example";
        for alias in [one, "subject:cn=billing, o=Example", "subject:2.5.4.3=billing,O=Example"] {
            assert_eq!(canonical(alias).as_deref(), Ok(one), "{alias}");
        }
    }

    #[test]
    fn different_identities_stay_different() {
        let lower = canonical("spiffe://dev.local/service").unwrap();
        assert_ne!(lower, canonical("spiffe://dev.local/Service").unwrap(), "paths are case-sensitive");
        assert_ne!(lower, canonical("spiffe://dev.local/service/a").unwrap());
        assert_ne!(canonical("subject:CN=a").unwrap(), canonical("subject:CN=A").unwrap());
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for (bad, why) in [
            ("", InvalidIdentity::Kind),
            ("https://dev.local/service", InvalidIdentity::Kind),
            ("SUBJECT:CN=a", InvalidIdentity::Kind),
            ("spiffe://", InvalidIdentity::Path),
            ("spiffe://dev.local", InvalidIdentity::Path),
            ("spiffe://dev.local/", InvalidIdentity::Path),
            ("spiffe:///service", InvalidIdentity::TrustDomain),
            ("spiffe://dev.local:443/service", InvalidIdentity::TrustDomain),
            ("spiffe://user@dev.local/service", InvalidIdentity::TrustDomain),
            ("spiffe://dev.local/service?as=admin", InvalidIdentity::Path),
            ("spiffe://dev.local/service#admin", InvalidIdentity::Path),
            ("spiffe://dev.local/%73ervice", InvalidIdentity::Path),
            ("spiffe://dev.local/service//", InvalidIdentity::Path),
            ("spiffe://dev.local/a/../service", InvalidIdentity::Path),
            ("spiffe://dev.local/service ", InvalidIdentity::Path),
            ("spiffe://d\u{0435}v.local/service", InvalidIdentity::TrustDomain),
            ("subject:", InvalidIdentity::Subject),
            ("subject:billing", InvalidIdentity::Subject),
        ] {
            assert_eq!(canonical(bad), Err(why), "{bad:?}");
        }
        assert_eq!(canonical(&format!("spiffe://a/{}", "b".repeat(2048))), Err(InvalidIdentity::TooLong));
    }
}
