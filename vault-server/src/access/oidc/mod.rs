//! People who come by an identity provider (OpenID Connect).
//!
//! ```text
//! bytes of a header --AccessToken--> AccessToken --Issuers::verify--> Verified      RFC 7519, 8725, 9068, 8705
//! Verified --vault: OpenSession--> a session, which from then on speaks for the person
//! ```
//!
//! * Only the issuer's own keys, as it publishes them (or as they were when it last answered), make a token good. A token
//!   says which of them by `kid`, which is compared and nothing else; it brings no keys and no addresses of its own.
//! * Which algorithms count is said by the configuration, and each goes with keys of its own kind only.
//! * `jsonwebtoken` checks signatures. What is around them is read here, since it must be read strictly: a name that stands
//!   twice, padding, a time that is a text.

mod issuer;
mod json;
mod jwks;
mod token;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use jsonwebtoken::Algorithm;

pub use issuer::{Issuer, IssuerRules, Issuers};
pub use jwks::{BadKeySet, KeySet, MAX_SET};
pub use token::{AccessToken, TokenFault, Verified};

/// The algorithms that can be configured, by their names. `none` and those with a shared secret are none of them.
pub const ALGORITHMS: [&str; 9] =
    ["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// How a person was authenticated, as far as it goes into the log: by us, and by the provider (RFC 8176).
const FACTORS: [&str; 23] = [
    "oidc", "mtls", "face", "fpt", "geo", "hwk", "iris", "kba", "mca", "mfa", "otp", "pin", "pop", "pwd",
    "rba", "retina", "sc", "sms", "swk", "tel", "user", "vbm", "wia",
];

/// Those that go into the log, each once.
pub fn factors<'a>(named: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let named: Vec<_> = named.collect();
    FACTORS.into_iter().filter(|factor| named.contains(factor)).collect()
}

/// An algorithm by its name, letter by letter.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        _ => return None,
    })
}
