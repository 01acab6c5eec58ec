//! One spelling for each identity, so that no principal can be reached, or provisioned, under two names.
//!
//! Three kinds:
//!
//! * `spiffe://<trust domain>/<path>` (SPIFFE-ID, sections 2.1 to 2.4). The scheme and the trust domain are folded
//!   to lower case and one trailing slash is dropped; a port, user info, query, fragment, percent-encoding, empty or
//!   dot segment, and an id without a path (it names a trust domain, not a workload), are refused.
//! * `subject:<distinguished name>`: the certificate's whole subject as RFC 4514 writes it; see [`name`].
//! * `oidc:<issuer>#<sub>`: a person, as an identity provider names it (OpenID Connect Core, section 2). Letter by letter:
//!   nothing is folded, and an issuer that could be written otherwise (upper case in its host, a query, a fragment, user
//!   info, percent-encoding, anything but ASCII) is refused. `sub` is all after the first `#`.
//!
//! [`name`]: crate::access::name

use std::borrow::Cow;

use crate::access::name;

const SPIFFE: &str = "spiffe://";
/// Leads an identity that is a certificate's subject.
pub(super) const SUBJECT: &str = "subject:";
/// Leads an identity that is an identity provider's.
const OIDC: &str = "oidc:";
const HTTPS: &str = "https://";
/// OpenID Connect Core, section 2: a `sub` has at most 255 characters of ASCII.
const MAX_SUB: usize = 255;

/// SPIFFE-ID section 2.3: at most 2,048 bytes.
const MAX_LEN: usize = 2048;
const MAX_ISSUER: usize = 1024;
/// SPIFFE-ID section 2.3: a trust domain has at most 255 bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Neither kind.
    #[error("an identity begins with 'spiffe://', 'subject:' or 'oidc:'")]
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
    /// Not an issuer's URL in its one spelling.
    #[error("the issuer is 'https://', a host in lower case, and a path without query, fragment or '%'")]
    Issuer,
    /// Not a person's name at an issuer.
    #[error("behind the issuer stand '#' and the 'sub': 1 to 255 characters of ASCII without spaces")]
    Person,
}

/// Whether `text` is an issuer's URL in the one spelling that is taken.
pub fn is_issuer(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(HTTPS).filter(|_| text.len() <= MAX_ISSUER) else { return false };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let in_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| !label.is_empty() && label.bytes().all(in_host);
    let is_port = |port: &str| {
        port.parse::<u16>().is_ok_and(|number| number != 0 && number != 443 && number.to_string() == port)
    };
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
    let segments = |path: &str| {
        let whole = path.strip_suffix('/').unwrap_or(path);
        path.is_empty()
            || (path.bytes().all(in_path) && whole.split('/').all(|s| !matches!(s, "" | "." | "..")))
    };
    host.split('.').all(label) && port.is_none_or(is_port) && path.is_none_or(segments)
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
    if let Some(person) = text.strip_prefix(OIDC) {
        let (issuer, sub) = person.split_once('#').ok_or(InvalidIdentity::Person)?;
        if !is_issuer(issuer) {
            return Err(InvalidIdentity::Issuer);
        }
        let fits = (1..=MAX_SUB).contains(&sub.len()) && sub.bytes().all(|byte| byte.is_ascii_graphic());
        return if fits { Ok(Cow::Borrowed(text)) } else { Err(InvalidIdentity::Person) };
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
    fn a_person_is_known_by_issuer_and_sub_letter_by_letter() {
        for good in [
            "oidc:https://idp.example.org#00u1",
            "oidc:https://idp.example.org/#00u1",
            "oidc:https://login-2.example.org:8443/tenant-1/v2.0#auth0|5f7c#x",
            "oidc:https://idp.example.org/realms/Hospital#f:1:joan",
        ] {
            assert_eq!(canonical(good).as_deref(), Ok(good));
        }
        let person = canonical("oidc:https://idp.example.org#a").unwrap();
        for other in ["oidc:https://idp.example.org/#a", "oidc:https://idp.example.org#A"] {
            assert_ne!(canonical(other).unwrap(), person, "{other}");
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for (bad, why) in [
            ("oidc:https://idp.example.org", InvalidIdentity::Person),
            ("oidc:https://idp.example.org#", InvalidIdentity::Person),
            ("oidc:https://idp.example.org#a b", InvalidIdentity::Person),
            ("oidc:https://idp.example.org#\u{0430}", InvalidIdentity::Person),
            ("oidc:http://idp.example.org#a", InvalidIdentity::Issuer),
            ("oidc:HTTPS://idp.example.org#a", InvalidIdentity::Issuer),
            ("oidc:https://IdP.example.org#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org:443#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org:08443#a", InvalidIdentity::Issuer),
            ("oidc:https://me@idp.example.org#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org.#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org/a/../b#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org//#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org/%61#a", InvalidIdentity::Issuer),
            ("oidc:https://idp.example.org/?a=b#a", InvalidIdentity::Issuer),
            ("oidc:https://\u{0456}dp.example.org#a", InvalidIdentity::Issuer),
            ("oidc:https://#a", InvalidIdentity::Issuer),
            ("OIDC:https://idp.example.org#a", InvalidIdentity::Kind),
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
        let long = |len: usize| format!("spiffe://a/{}", "b".repeat(len - "spiffe://a/".len()));
        assert!(canonical(&long(2048)).is_ok());
        assert_eq!(canonical(&long(2049)), Err(InvalidIdentity::TooLong));
    }
}
