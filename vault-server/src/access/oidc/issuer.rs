//! Issuers: what is asked of their tokens, and their keys as far as they are known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::jwks::KeySet;
use super::token::{self, AccessToken, TokenFault, Unverified, Verified};
use crate::domain::Timestamp;

/// How long a token under a key that is not known may wait for the keys to be asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of an issuer's tokens.
#[derive(Debug, Clone)]
pub struct IssuerRules {
    /// Its name, letter by letter as in `iss`.
    pub issuer: String,
    /// What `aud` must contain.
    pub audience: String,
    /// Names out of [`super::ALGORITHMS`].
    pub algorithms: Vec<String>,
    /// Whether `typ` may also be `JWT`: of issuers that do not know RFC 9068.
    pub accept_jwt: bool,
    /// How long ago a person may have proved who it is (`auth_time`).
    pub max_auth_age: Option<Duration>,
    /// What `acr` must be one of; anything if empty.
    pub acr: Vec<String>,
    /// What `amr` must have one of; anything if empty.
    pub amr: Vec<String>,
    /// Whether a token opens one session only.
    pub single_use: bool,
    /// How long keys are good if the issuer can't be asked.
    pub keys_max_age: Duration,
    /// How often, at most, keys are asked for because of a key that is not known.
    pub unknown_every: Duration,
}

/// An issuer.
pub struct Issuer {
    rules: IssuerRules,
    keys: ArcSwap<Known>,
    /// When keys were last asked for because of a token.
    asked: Mutex<Option<Instant>>,
    wanted: Notify,
    /// Tells of attempts to get keys.
    attempts: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    keys: KeySet,
    since: Option<Instant>,
}

impl Issuer {
    /// Without keys yet.
    pub fn new(rules: IssuerRules) -> Self {
        Self {
            rules,
            keys: ArcSwap::default(),
            asked: Mutex::default(),
            wanted: Notify::new(),
            attempts: watch::Sender::new(()),
        }
    }

    /// What is asked of its tokens.
    pub fn rules(&self) -> &IssuerRules {
        &self.rules
    }

    /// Puts keys in force in place of those before.
    pub fn put_keys(&self, keys: KeySet) {
        self.keys.store(Arc::new(Known { keys, since: Some(Instant::now()) }));
    }

    /// Notes that keys were asked for, with or without success.
    pub fn attempted(&self) {
        self.attempts.send_replace(());
    }

    /// Ready when a token came under a key that is not known.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Verifies the signature, then what the token says.
    fn verify(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
        certificate: Option<&[u8; 32]>,
    ) -> Result<Verified, TokenFault> {
        let known = self.keys.load();
        let fresh = known.since.is_some_and(|since| since.elapsed() <= self.rules.keys_max_age);
        let none = KeySet::default();
        token.verify(&self.rules, if fresh { &known.keys } else { &none }, now, certificate)
    }

    /// Has keys asked for, and waits for the answer; not if that was done a moment ago.
    async fn ask(&self) {
        let mut attempts = self.attempts.subscribe();
        {
            let mut asked = self.asked.lock();
            if asked.is_some_and(|at| at.elapsed() < self.rules.unknown_every) {
                return;
            }
            *asked = Some(Instant::now());
        }
        self.wanted.notify_one();
        let _ = tokio::time::timeout(PATIENCE, attempts.changed()).await;
    }
}

/// All issuers.
pub struct Issuers(Vec<Arc<Issuer>>);

impl Issuers {
    /// These.
    pub fn new(issuers: Vec<Arc<Issuer>>) -> Self {
        Self(issuers)
    }

    /// What a token says, if all of it is as it must be. `certificate`: SHA-256 of the one that came with the connection.
    /// Waits for the issuer at most once, and for a few seconds, if the token's key is not known.
    pub async fn verify(
        &self,
        token: &AccessToken,
        now: Timestamp,
        certificate: Option<&[u8; 32]>,
    ) -> Result<Verified, TokenFault> {
        let unverified = token::read(token)?;
        let issuer = self.0.iter().find(|issuer| issuer.rules.issuer == unverified.issuer());
        let issuer = issuer.ok_or(TokenFault::Issuer)?;
        match issuer.verify(&unverified, now, certificate) {
            Err(TokenFault::KeyUnknown) => {
                issuer.ask().await;
                issuer.verify(&unverified, now, certificate)
            }
            verified => verified,
        }
    }
}
