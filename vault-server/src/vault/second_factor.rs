//! A second factor: what a person's security key signed, once, for one request.
//!
//! ```text
//! begin_second_factor   action, hash of the request  --> a challenge, kept as a row
//! (the person touches the key)
//! touched               challenge, signature         --> Touch
//! log.commit(.., Touch::into_writes)                 --> used up: the challenge is gone, the key's counter is noted
//! ```
//!
//! The challenge goes in the commit of what it was signed for, and nowhere else: of two requests with the same one, on
//! whichever instances, one is done.

use sha2::{Digest as _, Sha256};

use crate::access::{
    AlertKind, Challenge, Confirmation, EnrolledKey, PrincipalKind, SECOND_FACTOR_NAMESPACE, SshSignature,
    Wanted,
};
use crate::audit::{Actor, AuditAction, Decision, Draft, Item, LogError};
use crate::domain::{ChallengeId, EntityKind, EntityScope, SecondFactorAction, Timestamp};
use crate::store::{EntityRow, Write};

use super::security_keys::KeyRow;
use super::{Context, Problem, Refused, Vault};

/// What holds for second factors.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecondFactorRules {
    /// Whether people must prove to their key who they are, by PIN or finger, and not only touch it.
    pub user_verification: bool,
    /// Whether who approves a destruction of keys or a change of principals and has, or ever had, one must touch it.
    pub for_approvals: bool,
}

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

impl GivenFactor {
    /// From what came: `request` is the request's canonical encoding without its second factor.
    pub fn parse(challenge: &[u8], signature: String, request: &[u8]) -> Result<Self, Refused> {
        let challenge =
            challenge.try_into().map_err(|_| Problem::SecondFactor("second_factor_malformed").whole())?;
        let request_hash = Sha256::digest(request).into();
        Ok(Self { challenge: ChallengeId::from_bytes(challenge), signature, request_hash })
    }
}

/// Something to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunFactor {
    /// To be given back.
    pub challenge: ChallengeId,
    /// What to sign.
    pub text: String,
    /// Under which namespace.
    pub namespace: &'static str,
    /// Until when.
    pub expires: Timestamp,
    /// Lines of the keys that may.
    pub public_keys: Vec<String>,
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

/// Challenges that are looked at together when stale ones are swept away.
const SWEEP: usize = 256;

impl Vault {
    /// Something for the caller's security key to sign.
    pub async fn begin_second_factor(
        &self,
        cx: &Context,
        fields: Result<(SecondFactorAction, [u8; 32]), Refused>,
    ) -> Result<BegunFactor, Refused> {
        let actor = Actor::caller_of_vault(&cx.caller);
        let mut draft = Draft::new(cx.request, AuditAction::SecondFactorBegin, actor);
        let (action, request_hash) = match fields {
            Ok(fields) => fields,
            Err(refused) => return Err(self.log_refusal(draft, Vec::new(), refused).await),
        };
        draft.details.push(("for", action.words().to_owned()));
        if cx.caller.principal.kind != PrincipalKind::Human {
            return Err(self.log_refusal(draft, Vec::new(), Problem::ActionNotAllowed.whole()).await);
        }
        let mut keys = self.security_keys_of(&cx.caller.principal.id).await?;
        // One that is not confirmed yet is good for that alone.
        let confirms = action == SecondFactorAction::KeyConfirm;
        keys.retain(|known| (known.confirmed == Confirmation::Waits) == confirms);
        if keys.is_empty() {
            let refused = Problem::SecondFactor("second_factor_no_key").whole();
            return Err(self.log_refusal(draft, Vec::new(), refused).await);
        }
        let wanted = wanted(cx, action, &request_hash);
        let challenge =
            Challenge::new(wanted, self.parts.clock.now()).map_err(|_| Problem::Internal.whole())?;
        let text = challenge.text(&self.parts.identity).ok_or_else(|| Problem::Internal.whole())?;
        let row = challenge.entity().ok_or_else(|| Problem::Internal.whole())?;
        draft.details.push(("challenge", challenge.id.to_string()));
        self.parts.log.commit(draft, Vec::new(), vec![Write::PutEntity(row)]).await?;
        Ok(BegunFactor {
            challenge: challenge.id,
            text,
            namespace: SECOND_FACTOR_NAMESPACE,
            expires: challenge.expires,
            public_keys: keys.iter().map(|known| known.key.line(&known.label)).collect(),
        })
    }

    /// Whether the caller touched its security key for this request. `draft`: the entry of what it is for; a refusal is in
    /// the log under it, with its true cause.
    pub async fn touched(
        &self,
        cx: &Context,
        draft: &Draft,
        action: SecondFactorAction,
        given: Option<GivenFactor>,
    ) -> Result<Touch, Refused> {
        let refused = match self.touch(cx, action, given).await {
            Ok(touch) => return Ok(touch),
            Err(refused) => refused,
        };
        if refused.problem == Problem::SecondFactor(CLONED) {
            return Err(self.cloned(cx, draft, refused).await);
        }
        Err(self.log_refusal(draft.clone(), Vec::new(), refused).await)
    }

    /// As [`Self::touched`], of who approves what needs no second factor by itself: whoever ever had a security key must touch
    /// one; to take it back makes the approval no easier. `None`: nobody has to.
    pub(super) async fn touched_by_approver(
        &self,
        cx: &Context,
        draft: &Draft,
        action: SecondFactorAction,
        given: Option<GivenFactor>,
    ) -> Result<Option<Touch>, Refused> {
        let rules = self.parts.second_factor;
        if !rules.for_approvals {
            return Ok(None);
        }
        match self.ever_had_a_key(&cx.caller.principal.id).await {
            Ok(false) => Ok(None),
            Ok(true) => self.touched(cx, draft, action, given).await.map(Some),
            Err(refused) => Err(self.log_refusal(draft.clone(), Vec::new(), refused).await),
        }
    }

    /// Commits what somebody touched a key for, or did not have to. `false`: something other than that was changed meanwhile.
    pub(super) async fn commit_touched(
        &self,
        draft: Draft,
        items: Vec<Item>,
        mut writes: Vec<Write>,
        touch: Vec<Write>,
    ) -> Result<bool, Refused> {
        let others = writes.len();
        writes.extend(touch);
        match self.parts.log.commit(draft.clone(), items, writes).await {
            Ok(_) => Ok(true),
            Err(LogError::Conflict { write }) if write >= others => {
                let refused = Problem::SecondFactor("second_factor_used").whole();
                Err(self.log_refusal(draft, Vec::new(), refused).await)
            }
            Err(LogError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn touch(
        &self,
        cx: &Context,
        action: SecondFactorAction,
        given: Option<GivenFactor>,
    ) -> Result<Touch, Refused> {
        let no = |cause| Problem::SecondFactor(cause).whole();
        let given = given.ok_or_else(|| no("second_factor_missing"))?;
        let signature = SshSignature::parse(&given.signature).map_err(|error| no(error.as_str()))?;
        let place = Challenge::place(given.challenge).ok_or_else(|| Problem::Internal.whole())?;
        let row = self.parts.store.entity(&place).await?.ok_or_else(|| no("second_factor_unknown"))?;
        let challenge = Challenge::open(&row).ok_or_else(|| Problem::RecordCorrupt.whole())?;
        let wanted = wanted(cx, action, &given.request_hash);
        challenge.check(wanted, self.parts.clock.now()).map_err(|error| no(error.as_str()))?;
        let fingerprint = signature.key().fingerprint();
        let KeyRow { known, before, .. } = self.key_row(&fingerprint).await?;
        let known = known.ok_or_else(|| no("second_factor_key_unknown"))?;
        if known.principal != cx.caller.principal.id {
            return Err(no("second_factor_key_foreign"));
        }
        if known.revoked.is_some() {
            return Err(no("second_factor_key_revoked"));
        }
        let confirms = action == SecondFactorAction::KeyConfirm;
        if (known.confirmed == Confirmation::Waits) != confirms {
            return Err(no("second_factor_key_unconfirmed"));
        }
        if known.key != *signature.key() {
            return Err(Problem::RecordCorrupt.whole());
        }
        let text = challenge.text(&self.parts.identity).ok_or_else(|| Problem::Internal.whole())?;
        let rules = self.parts.second_factor;
        let presence =
            signature.verify(text.as_bytes(), rules.user_verification).map_err(|error| no(error.as_str()))?;
        let mut counted: EnrolledKey = known.counted(presence.counter).ok_or_else(|| no(CLONED))?;
        if confirms {
            counted.confirmed = Confirmation::At(self.parts.clock.now());
        }
        let counted = counted.entity(before).ok_or_else(|| Problem::Internal.whole())?;
        let writes = vec![Write::DropEntity { place, revision: row.revision }, Write::PutEntity(counted)];
        Ok(Touch { key: fingerprint.to_string(), writes })
    }

    /// A refusal that somebody must hear of: the alert goes with its entry.
    async fn cloned(&self, cx: &Context, draft: &Draft, refused: Refused) -> Refused {
        let Some(tenant) = &draft.tenant else {
            return self.log_refusal(draft.clone(), Vec::new(), refused).await;
        };
        let alert =
            match self.alert(cx, AlertKind::SecurityKeyCloned, tenant.clone(), draft.grant, Vec::new()) {
                Ok(alert) => alert,
                Err(internal) => return internal,
            };
        let draft = Draft { decision: Decision::Deny, cause: refused.problem.cause(), ..draft.clone() };
        match self.parts.log.commit(draft, Vec::new(), vec![alert]).await {
            Ok(_) => refused.logged(),
            Err(error) => error.into(),
        }
    }

    /// Takes stale challenges away; how many. Rows that others take at the same time are none of its business.
    pub async fn sweep_challenges(&self) -> Result<usize, Refused> {
        let of = EntityScope::Tenant(EntityKind::Challenge, None);
        let (mut swept, mut after) = (0, None);
        loop {
            let page = self.parts.store.entity_rows(&of, after.as_ref(), SWEEP).await?;
            let now = self.parts.clock.now();
            for row in &page {
                let (challenge, revision) = match row {
                    EntityRow::Sound(row) => (Challenge::open(row), row.revision),
                    EntityRow::Forged { revision: Some(revision), .. } => (None, *revision),
                    // A malformed one opens nothing, and stays until somebody removes it.
                    EntityRow::Forged { revision: None, .. } => continue,
                };
                let place = row.place().clone();
                match challenge {
                    Some(challenge) if !challenge.is_stale(now) => continue,
                    Some(_) => {}
                    None => tracing::error!(?place, "a challenge is not what was written; it goes"),
                }
                let gone = Write::DropEntity { place, revision };
                match self.parts.log.write(vec![gone]).await {
                    Ok(_) => swept += 1,
                    Err(LogError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            after = page.last().map(|row| row.place().clone());
            if page.len() < SWEEP {
                return Ok(swept);
            }
        }
    }
}

/// The key's counter went back: there are two of it.
const CLONED: &str = "second_factor_counter";

fn wanted<'a>(cx: &'a Context, action: SecondFactorAction, request_hash: &'a [u8; 32]) -> Wanted<'a> {
    let principal = &cx.caller.principal.id;
    Wanted { principal, credential: &cx.caller.credential, action, request_hash }
}

#[cfg(test)]
#[path = "second_factor_tests.rs"]
pub(super) mod tests;
