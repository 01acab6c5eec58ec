//! `[oidc]` and `[sessions]`: people who come by an identity provider.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::units;
use crate::access::is_issuer;
use crate::access::oidc::ALGORITHMS;

/// The most that `[sessions]` allows, and the default (HIPAA, 45 CFR 164.312(a)(2)(iii): automatic logoff).
const MOST_IDLE: Duration = Duration::from_mins(15);
const MOST_LIFETIME: Duration = Duration::from_hours(12);

/// `[oidc]`: whose word on people counts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The identity providers.
    pub issuer: Vec<OidcIssuer>,
    /// How often an issuer's keys are asked for.
    #[serde(default = "Oidc::default_refresh_every", deserialize_with = "units::duration")]
    pub refresh_every: Duration,
    /// How often, at most, because of a token under a key that is not known.
    #[serde(default = "Oidc::default_unknown_key_every", deserialize_with = "units::duration")]
    pub unknown_key_every: Duration,
    /// How long keys are good when the issuer can't be asked.
    #[serde(default = "Oidc::default_keys_max_age", deserialize_with = "units::duration")]
    pub keys_max_age: Duration,
    /// How long an issuer may take to answer.
    #[serde(default = "Oidc::default_timeout", deserialize_with = "units::duration")]
    pub timeout: Duration,
}

/// `[[oidc.issuer]]`: an identity provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcIssuer {
    /// Its name, letter by letter as in its tokens: `https://...`.
    pub issuer: String,
    /// What its tokens for this vault have in `aud`.
    pub audience: String,
    /// Where its keys are, if they are not to be found by discovery.
    pub jwks_uri: Option<String>,
    /// PEM certificates of the authorities that issue its own; the system's if unset.
    pub ca: Option<PathBuf>,
    /// Algorithms of its signatures.
    #[serde(default = "OidcIssuer::default_algorithms")]
    pub algorithms: Vec<String>,
    /// Whether its access tokens may be of type `JWT` instead of `at+jwt` (RFC 9068).
    #[serde(default)]
    pub accept_jwt: bool,
    /// How long ago a person may have logged in there.
    #[serde(default, deserialize_with = "units::some_duration")]
    pub max_auth_age: Option<Duration>,
    /// One of these must be a token's `acr`.
    #[serde(default)]
    pub acr: Vec<String>,
    /// One of these must be in a token's `amr`.
    #[serde(default)]
    pub amr: Vec<String>,
    /// Whether a token opens one session only.
    #[serde(default)]
    pub single_use: bool,
}

impl Oidc {
    fn default_refresh_every() -> Duration {
        Duration::from_mins(15)
    }

    fn default_unknown_key_every() -> Duration {
        Duration::from_secs(30)
    }

    fn default_keys_max_age() -> Duration {
        Duration::from_hours(24)
    }

    fn default_timeout() -> Duration {
        Duration::from_secs(5)
    }

    /// Makes relative paths relative to a directory.
    pub(super) fn resolve(&mut self, dir: &Path) {
        for ca in self.issuer.iter_mut().filter_map(|issuer| issuer.ca.as_mut()) {
            *ca = dir.join(&*ca);
        }
    }

    /// What the types alone do not say. The option's full name and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |option, why: &str| Err((option, why.to_owned()));
        if self.issuer.is_empty() {
            return wrong("oidc.issuer", "must be at least one [[oidc.issuer]]");
        }
        let names: BTreeSet<_> = self.issuer.iter().map(|issuer| &issuer.issuer).collect();
        if names.len() != self.issuer.len() {
            return wrong("oidc.issuer.issuer", "stands twice");
        }
        for (option, duration) in [
            ("oidc.refresh_every", self.refresh_every),
            ("oidc.unknown_key_every", self.unknown_key_every),
            ("oidc.timeout", self.timeout),
        ] {
            if duration.is_zero() {
                return wrong(option, "must be longer than nothing");
            }
        }
        if self.keys_max_age < self.refresh_every {
            return wrong("oidc.keys_max_age", "must be at least oidc.refresh_every");
        }
        self.issuer.iter().try_for_each(OidcIssuer::check)
    }
}

impl OidcIssuer {
    fn default_algorithms() -> Vec<String> {
        ["ES256", "RS256", "EdDSA", "PS256"].map(str::to_owned).to_vec()
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |option, why: &str| Err((option, why.to_owned()));
        if !is_issuer(&self.issuer) {
            let why = "must be \"https://\", a host in lower case, and perhaps a path: no query, no fragment, no '%'";
            return wrong("oidc.issuer.issuer", why);
        }
        // Keys that came over an open line are anybody's. A site's own authority can be given with `ca`.
        if self.jwks_uri.as_ref().is_some_and(|uri| !is_https(uri)) {
            return wrong("oidc.issuer.jwks_uri", "must begin with https://");
        }
        if self.audience.is_empty() {
            return wrong("oidc.issuer.audience", "must not be empty");
        }
        if self.algorithms.is_empty()
            || self.algorithms.iter().any(|name| !ALGORITHMS.contains(&name.as_str()))
        {
            return Err(("oidc.issuer.algorithms", format!("must be of {}", ALGORITHMS.join(", "))));
        }
        Ok(())
    }
}

fn is_https(uri: &str) -> bool {
    uri.parse::<http::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

/// `[sessions]`: how long people stay logged in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// A session without a call for so long ends.
    #[serde(deserialize_with = "units::duration")]
    pub idle: Duration,
    /// A session ends after so long in any case.
    #[serde(deserialize_with = "units::duration")]
    pub lifetime: Duration,
    /// How many a principal may have. One more closes the one that was not used for longest.
    pub per_principal: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { idle: MOST_IDLE, lifetime: MOST_LIFETIME, per_principal: 10 }
    }
}

impl Sessions {
    /// What the types alone do not say. The option's full name and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let second = Duration::from_secs(1);
        if !(second..=MOST_IDLE).contains(&self.idle) {
            return Err(("sessions.idle", "must be 1s to 15m".to_owned()));
        }
        if !(second..=MOST_LIFETIME).contains(&self.lifetime) {
            return Err(("sessions.lifetime", "must be 1s to 12h".to_owned()));
        }
        if !(1..=100).contains(&self.per_principal) {
            return Err(("sessions.per_principal", "must be 1 to 100".to_owned()));
        }
        Ok(())
    }
}
