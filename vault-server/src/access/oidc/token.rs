//! Access tokens: signed JWTs in compact form (RFC 7515 section 7.1), verified by RFC 8725 and RFC 9068.
//!
//! ```text
//! base64url(header) '.' base64url(claims) '.' base64url(signature)       at most 16 KiB, no padding, nothing else
//! ```
//!
//! Nothing that a token says counts before its signature was verified, but for `iss`, `kid` and `alg`: they choose the key,
//! among those that are known already, and so whether the signature will do.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::issuer::IssuerRules;
use super::json::{Json, Object};
use super::jwks::{KeySet, MAX_KID};
use crate::domain::Timestamp;

/// The most bytes of a token.
const MAX_TOKEN: usize = 16 * 1024;
/// The most bytes of `sub` (OpenID Connect Core, section 2) and of `jti`.
const MAX_NAME: usize = 255;
/// How far clocks may be apart.
const LEEWAY: u64 = 60;
/// Past this a time is no time: in microseconds it has more than 64 bits. (JSON numbers are exact up to 2^53, which is more.)
const MAX_TIME: u64 = u64::MAX / 1_000_000;
/// What a header may not have: keys and addresses of the token's own, extensions that must be understood, wrappings.
const REFUSED: [&str; 9] = ["b64", "crit", "cty", "enc", "jku", "jwk", "x5c", "x5u", "zip"];

/// An access token as it came: a secret, since who has it can log in.
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Takes it over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// SHA-256 of it, for the log.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

/// What is wrong with a token: for the log. Outsiders are told that it is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Too long.
    #[error("too large")]
    TooLarge,
    /// Not a signed JWT in compact form, or a name stands twice.
    #[error("malformed")]
    Form,
    /// The header has something that is refused.
    #[error("header")]
    Header,
    /// `typ` is not that of an access token.
    #[error("type")]
    Type,
    /// `alg` is not one of the configured.
    #[error("algorithm")]
    Algorithm,
    /// No configured issuer's.
    #[error("issuer")]
    Issuer,
    /// No key of the issuer has this id, or none is known.
    #[error("key not known")]
    KeyUnknown,
    /// The key is not for this algorithm.
    #[error("key not for the algorithm")]
    Key,
    /// The signature is not the key's.
    #[error("signature")]
    Signature,
    /// Not for this vault.
    #[error("audience")]
    Audience,
    /// No time of its end, or not a time.
    #[error("times")]
    Times,
    /// Over.
    #[error("expired")]
    Expired,
    /// Not yet valid, or issued in times to come.
    #[error("not yet valid")]
    NotYet,
    /// No subject, or not one that can be a person's.
    #[error("subject")]
    Subject,
    /// No `jti` where one is needed, or not one.
    #[error("id")]
    Id,
    /// The person proved who it is too long ago, or it is not said when.
    #[error("authentication time")]
    AuthTime,
    /// Not authenticated as is asked for.
    #[error("authentication context or methods")]
    Factors,
    /// Bound to a certificate or a key that is not the connection's.
    #[error("bound to something else")]
    Bound,
}

impl TokenFault {
    /// The cause in the log. Never change one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Form => "token_form",
            Self::Header => "token_header",
            Self::Type => "token_type",
            Self::Algorithm => "token_algorithm",
            Self::Issuer => "token_issuer",
            Self::KeyUnknown => "token_key_unknown",
            Self::Key => "token_key",
            Self::Signature => "token_signature",
            Self::Audience => "token_audience",
            Self::Times => "token_times",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet_valid",
            Self::Subject => "token_subject",
            Self::Id => "token_id",
            Self::AuthTime => "token_auth_time",
            Self::Factors => "token_factors",
            Self::Bound => "token_bound",
        }
    }
}

/// What a good token says. Only [`Issuers::verify`](super::Issuers::verify) makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose token it is.
    pub issuer: String,
    /// Whom it is about, among the issuer's.
    pub subject: String,
    /// How the person was authenticated: `oidc`, and what `amr` says of it.
    pub factors: Vec<&'static str>,
    /// Until when it is good.
    pub expires: Timestamp,
    /// SHA-256 of issuer and `jti`, or of the token where that has no `jti`: which one it is, without what it is.
    pub id: [u8; 32],
    /// Whether it opens one session only.
    pub single_use: bool,
    /// SHA-256 of the certificate that came with the connection: the one that it is bound to, if it is.
    pub certificate: Option<[u8; 32]>,
}

impl Verified {
    /// The identity that principals have.
    pub fn identity(&self) -> String {
        format!("oidc:{}#{}", self.issuer, self.subject)
    }
}

/// A token that was taken apart, and of which nothing is known to be true.
pub(super) struct Unverified<'a> {
    token: &'a AccessToken,
    header: Object,
    claims: Object,
}

/// Takes a token apart.
pub(super) fn read(token: &AccessToken) -> Result<Unverified<'_>, TokenFault> {
    let (header, payload) = take_apart(token)?;
    let claims = Object::parse(&payload).ok_or(TokenFault::Form)?;
    Ok(Unverified { token, header, claims })
}

/// The header, and the bytes that are signed together with it.
fn take_apart(token: &AccessToken) -> Result<(Object, Vec<u8>), TokenFault> {
    let text = token.0.as_str();
    if text.len() > MAX_TOKEN {
        return Err(TokenFault::TooLarge);
    }
    let mut parts = text.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenFault::Form);
    };
    let decode =
        |part: &str| BASE64URL.decode(part).ok().filter(|bytes| !bytes.is_empty()).ok_or(TokenFault::Form);
    let (header, payload) = (decode(header)?, decode(payload)?);
    // An empty signature is what `none` has.
    decode(signature)?;
    Ok((Object::parse(&header).ok_or(TokenFault::Form)?, payload))
}

impl Unverified<'_> {
    /// What it says of its issuer.
    pub(super) fn issuer(&self) -> &str {
        self.claims.text("iss").unwrap_or_default()
    }

    /// All checks. The order is what the log says of a token that is wrong in several ways.
    pub(super) fn verify(
        &self,
        rules: &IssuerRules,
        keys: &KeySet,
        now: Timestamp,
        certificate: Option<&[u8; 32]>,
    ) -> Result<Verified, TokenFault> {
        self.check_header(rules)?;
        self.check_signature(rules, keys)?;
        if self.issuer() != rules.issuer {
            return Err(TokenFault::Issuer);
        }
        let audience = self.claims.get("aud").and_then(Json::texts).ok_or(TokenFault::Audience)?;
        if !audience.contains(&rules.audience.as_str()) {
            return Err(TokenFault::Audience);
        }
        let expires = self.check_times(now.0 / 1_000_000, rules.max_auth_age)?;
        let subject = self.claims.text("sub").filter(|sub| is_name(sub)).ok_or(TokenFault::Subject)?;
        let factors = self.check_factors(rules)?;
        self.check_bound(certificate)?;
        Ok(Verified {
            issuer: rules.issuer.clone(),
            subject: subject.to_owned(),
            factors,
            expires: Timestamp(expires * 1_000_000),
            id: self.id(rules)?,
            single_use: rules.single_use,
            certificate: certificate.copied(),
        })
    }

    fn check_header(&self, rules: &IssuerRules) -> Result<(), TokenFault> {
        if REFUSED.iter().any(|name| self.header.get(name).is_some()) {
            return Err(TokenFault::Header);
        }
        let kind = self.header.text("typ").ok_or(TokenFault::Type)?.to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if !(kind == "at+jwt" || (rules.accept_jwt && kind == "jwt")) {
            return Err(TokenFault::Type);
        }
        Ok(())
    }

    fn check_signature(&self, rules: &IssuerRules, keys: &KeySet) -> Result<(), TokenFault> {
        let named = self.header.text("alg").ok_or(TokenFault::Algorithm)?;
        if !rules.algorithms.iter().any(|allowed| allowed == named) {
            return Err(TokenFault::Algorithm);
        }
        let algorithm = super::algorithm(named).ok_or(TokenFault::Algorithm)?;
        let id = self.header.text("kid").filter(|id| (1..=MAX_KID).contains(&id.len()));
        let key = keys.find(id.ok_or(TokenFault::Key)?, algorithm)?;
        let (signed, signature) = self.token.0.rsplit_once('.').ok_or(TokenFault::Form)?;
        match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TokenFault::Signature),
        }
    }

    /// A time of the token's, in seconds since 1970.
    fn time(&self, name: &str) -> Result<Option<u64>, TokenFault> {
        match self.claims.get(name) {
            None => Ok(None),
            Some(Json::Whole(time)) if *time <= MAX_TIME => Ok(Some(*time)),
            Some(_) => Err(TokenFault::Times),
        }
    }

    fn check_times(&self, now: u64, max_auth_age: Option<Duration>) -> Result<u64, TokenFault> {
        let expires = self.time("exp")?.ok_or(TokenFault::Times)?;
        let begins = [self.time("nbf")?, self.time("iat")?, self.time("auth_time")?];
        if now >= expires.saturating_add(LEEWAY) {
            return Err(TokenFault::Expired);
        }
        if begins.into_iter().flatten().any(|time| time > now.saturating_add(LEEWAY)) {
            return Err(TokenFault::NotYet);
        }
        if let Some(most) = max_auth_age {
            let proved = self.time("auth_time")?.ok_or(TokenFault::AuthTime)?;
            if now.saturating_sub(proved) > most.as_secs().saturating_add(LEEWAY) {
                return Err(TokenFault::AuthTime);
            }
        }
        Ok(expires)
    }

    fn check_factors(&self, rules: &IssuerRules) -> Result<Vec<&'static str>, TokenFault> {
        let context = match self.claims.get("acr") {
            None => None,
            Some(Json::Text(context)) => Some(context),
            Some(_) => return Err(TokenFault::Factors),
        };
        if !rules.acr.is_empty() && !context.is_some_and(|context| rules.acr.contains(context)) {
            return Err(TokenFault::Factors);
        }
        let methods = match self.claims.get("amr") {
            None => Vec::new(),
            Some(array @ Json::Array(_)) => array.texts().ok_or(TokenFault::Factors)?,
            Some(_) => return Err(TokenFault::Factors),
        };
        if !rules.amr.is_empty() && !rules.amr.iter().any(|wanted| methods.contains(&wanted.as_str())) {
            return Err(TokenFault::Factors);
        }
        Ok(super::factors(std::iter::once("oidc").chain(methods)))
    }

    /// A token that is bound to a key is good only with it (RFC 8705 section 3.1); one that is bound to another kind of key
    /// than a certificate's never is.
    fn check_bound(&self, certificate: Option<&[u8; 32]>) -> Result<(), TokenFault> {
        let Some(bound) = self.claims.get("cnf") else { return Ok(()) };
        let Json::Object(bound) = bound else { return Err(TokenFault::Bound) };
        let wanted = bound.text("x5t#S256").and_then(|text| BASE64URL.decode(text).ok());
        let (Some(wanted), Some(certificate)) = (wanted, certificate) else {
            return Err(TokenFault::Bound);
        };
        if wanted.as_slice().ct_eq(certificate).into() { Ok(()) } else { Err(TokenFault::Bound) }
    }

    fn id(&self, rules: &IssuerRules) -> Result<[u8; 32], TokenFault> {
        match self.claims.get("jti") {
            Some(Json::Text(id)) if (1..=MAX_NAME).contains(&id.len()) => {
                let hash = Sha256::new().chain_update((rules.issuer.len() as u64).to_be_bytes());
                Ok(hash.chain_update(&rules.issuer).chain_update(id).finalize().into())
            }
            None if !rules.single_use => Ok(self.token.fingerprint()),
            _ => Err(TokenFault::Id),
        }
    }
}

/// 1 to 255 printable characters of ASCII (OpenID Connect Core, section 2): no two look alike.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
#[path = "wycheproof_tests.rs"]
mod tests;
