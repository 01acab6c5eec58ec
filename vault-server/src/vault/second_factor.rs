//! A second factor: what a person's security key signed, once, for one request.

use crate::domain::{ChallengeId, SecondFactorAction};
use crate::store::Write;

use super::{Context, Problem, Refused, Vault};

/// What a caller gives as its second factor.
#[derive(Debug, Clone)]
pub struct GivenFactor {
    /// What was to be signed.
    pub challenge: ChallengeId,
    /// The SSHSIG, PEM.
    pub signature: String,
    /// SHA-256 of the request that came, in its canonical encoding, without the second factor.
    pub request_hash: [u8; 32],
}

/// Proof that the caller's security key was touched for this request, good for one commit: who commits what was asked for
/// puts [`Touch::into_writes`] beside it, and so uses it up.
#[must_use = "a touch is there to be used, once"]
pub struct Touch {
    key: String,
    writes: Vec<Write>,
}

impl Touch {
    /// Which key: its fingerprint, for the log and for binding a grant to it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What uses it up: the challenge goes, the key's counter is noted. A conflict means that it was used already.
    pub fn into_writes(self) -> Vec<Write> {
        self.writes
    }
}

impl Vault {
    /// Until second factors can be verified, none is good.
    #[expect(clippy::unused_async, reason = "verifying reads the challenge")]
    pub(super) async fn touched(
        &self,
        cx: &Context,
        action: SecondFactorAction,
        given: Option<GivenFactor>,
    ) -> Result<Touch, Refused> {
        #[cfg(test)]
        if let Some(given) = &given
            && let Some(key) = given.signature.strip_prefix(action.words())
        {
            return Ok(Touch { key: key.trim().to_owned(), writes: Vec::new() });
        }
        let _ = (cx, action, given);
        Err(Problem::SecondFactor("second_factor_unverified").whole())
    }
}
