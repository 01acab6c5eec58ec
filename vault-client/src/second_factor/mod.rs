//! Security keys, and second factors that are made with them: a person touches a FIDO2/U2F key for one request.
//!
//! ```no_run
//! use vault_client::second_factor::{SecondFactorAction, SecurityKeySigner as _, SshAgent};
//!
//! # async fn example(vault: vault_client::Client, request_hash: [u8; 32]) -> Result<(), Box<dyn std::error::Error>> {
//! let asked = vault.begin_second_factor(SecondFactorAction::GrantApprove, request_hash).await?;
//! eprintln!("{}\ntouch your security key now", asked.text());
//! let factor = SshAgent::from_env()?.sign(&asked).await?;
//! # let _ = factor; Ok(()) }
//! ```
//!
//! What is signed was looked at first: it is under the namespace of second factors, and about the request that is meant.
//! So a vault that lies gets no signature that is good for anything else.

mod agent;
mod keygen;
mod ssh;

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use vault_proto::v1 as wire;

pub use agent::SshAgent;
pub use keygen::SshKeygen;
pub use ssh::NAMESPACE;

use crate::client::Client;
use crate::error::{Error, Reason};
use crate::keys::Note;

/// The first line of every text that is signed.
const FIRST_LINE: &str = "phi-vault second factor v1";
/// The longest text that is signed.
const MAX_TEXT: usize = 4096;

/// What a second factor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecondFactorAction {
    /// To ask for a grant of break-glass.
    GrantRequest,
    /// To approve one.
    GrantApprove,
    /// To deny one.
    GrantDeny,
    /// To show that one has a security key that was enrolled for one.
    KeyConfirm,
    /// To approve a destruction of keys.
    JobApprove,
    /// To approve a change of principals.
    PrincipalChangeApprove,
}

impl SecondFactorAction {
    fn to_wire(self) -> wire::SecondFactorAction {
        match self {
            Self::GrantRequest => wire::SecondFactorAction::GrantRequest,
            Self::GrantApprove => wire::SecondFactorAction::GrantApprove,
            Self::GrantDeny => wire::SecondFactorAction::GrantDeny,
            Self::KeyConfirm => wire::SecondFactorAction::KeyConfirm,
            Self::JobApprove => wire::SecondFactorAction::JobApprove,
            Self::PrincipalChangeApprove => wire::SecondFactorAction::PrincipalChangeApprove,
        }
    }
}

/// A security key, as the vault knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecurityKey {
    /// `SHA256:...`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// OpenSSH's name of its kind.
    pub kind: String,
    /// What people call it.
    pub label: String,
    /// When it was enrolled.
    pub enrolled: Option<SystemTime>,
    /// Who enrolled it; empty: the vault's configuration did.
    pub enrolled_by: String,
    /// Whether it is a second factor: its owner has shown that it has it, or did not have to.
    pub confirmed: bool,
}

/// A security key that its owner is about to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirming(wire::ConfirmSecurityKeyRequest);

impl Confirming {
    /// Of this fingerprint.
    pub fn new(fingerprint: impl Into<String>) -> Self {
        Self(wire::ConfirmSecurityKeyRequest { fingerprint: fingerprint.into(), second_factor: None })
    }

    /// What the second factor is for: see [`Client::begin_second_factor`].
    pub const fn action(&self) -> SecondFactorAction {
        SecondFactorAction::KeyConfirm
    }

    /// What it is bound to.
    pub fn hash(&self) -> [u8; 32] {
        request_hash(&self.0)
    }
}

/// What became of a security key that was to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Enrolled {
    /// The key.
    pub key: SecurityKey,
    /// It is enrolled when another person has approved this change.
    pub waiting: Option<String>,
}

/// Something for the caller's security key to sign, once, within minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    id: Vec<u8>,
    text: String,
    keys: Vec<String>,
    expires: Option<SystemTime>,
}

impl Challenge {
    /// What will be signed, for people to read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Lines of the keys that may sign.
    pub fn public_keys(&self) -> &[String] {
        &self.keys
    }

    /// Until when it is good.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// With a signature over the text, under [`NAMESPACE`]: PEM, as `ssh-keygen -Y sign` prints it.
    pub fn signed(&self, signature: String) -> SecondFactor {
        SecondFactor { challenge: self.id.clone(), signature }
    }
}

/// A second factor, good for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondFactor {
    challenge: Vec<u8>,
    signature: String,
}

impl SecondFactor {
    /// The challenge's id.
    pub fn challenge(&self) -> &[u8] {
        &self.challenge
    }

    /// The signature, PEM.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

impl From<SecondFactor> for wire::SecondFactor {
    fn from(SecondFactor { challenge, signature }: SecondFactor) -> Self {
        Self { challenge_id: challenge.into(), signature }
    }
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// There is nothing that signs.
    #[error("no SSH agent: SSH_AUTH_SOCK is not set")]
    NoAgent,
    /// It can't be reached, or went away.
    #[error("the SSH agent or ssh-keygen can't be used: {0}")]
    Unreachable(#[from] std::io::Error),
    /// It holds none of the person's keys.
    #[error("none of the enrolled security keys is there")]
    NoKey,
    /// It was asked and said no: the key is not plugged in, or was not touched.
    #[error("the security key was not touched, or is not plugged in")]
    Refused,
    /// It took too long.
    #[error("nobody touched the security key in time")]
    Late,
    /// What it said is not what was asked for.
    #[error("the answer is not a signature")]
    BadAnswer,
}

/// What has a person's security key sign.
pub trait SecurityKeySigner: Send + Sync {
    /// Has it signed. Whoever holds the key has to touch it meanwhile.
    fn sign<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<SecondFactor, SignError>>;
}

/// The hash of a request, as a second factor is bound to it: of its canonical encoding, without its second factor.
pub fn request_hash(request: &impl prost::Message) -> [u8; 32] {
    Sha256::digest(request.encode_to_vec()).into()
}

/// What came of a request that was sent without its second factor, to hear what else is wrong with it.
pub(crate) fn only_untouched<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Err(error) if error.reason() == Reason::SecondFactor => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::bad_answer("it was done without a second factor")),
    }
}

impl Client {
    /// Something for the caller's security key to sign for a request; see [`request_hash`]. Each call gives another.
    pub async fn begin_second_factor(
        &self,
        action: SecondFactorAction,
        request_hash: [u8; 32],
    ) -> Result<Challenge, Error> {
        let request = wire::BeginSecondFactorRequest {
            action: action.to_wire().into(),
            request_hash: request_hash.to_vec().into(),
        };
        let answer = self
            .call_security_keys(request, async |mut keys, request| keys.begin_second_factor(request).await)
            .await?;
        challenge(answer, request_hash)
            .ok_or_else(|| Error::bad_answer("not a second factor for this request"))
    }

    /// Asks for a security key to be enrolled for another person; a third one has to approve that
    /// ([`Client::approve_principal_change`]). `public_key`: the line of its `.pub` file. The same key for the same
    /// person again changes nothing.
    pub async fn enroll_security_key(
        &self,
        principal: &str,
        public_key: &str,
        note: &Note,
    ) -> Result<Enrolled, Error> {
        let request = wire::EnrollSecurityKeyRequest {
            tenant: self.tenant(),
            id: principal.to_owned(),
            public_key: public_key.to_owned(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        let answer = self
            .call_security_keys(request, async |mut keys, request| keys.enroll_security_key(request).await)
            .await?;
        let key = answer.key.map(security_key).ok_or_else(|| Error::bad_answer("no security key"))?;
        Ok(Enrolled { key, waiting: Some(answer.waiting).filter(|id| !id.is_empty()) })
    }

    /// Confirms a security key of one's own: from then on it is a second factor.
    pub async fn confirm_security_key(
        &self,
        confirming: &Confirming,
        factor: SecondFactor,
    ) -> Result<SecurityKey, Error> {
        let mut request = confirming.0.clone();
        request.second_factor = Some(factor.into());
        let answer = self
            .call_security_keys(request, async |mut keys, request| keys.confirm_security_key(request).await)
            .await?;
        answer.key.map(security_key).ok_or_else(|| Error::bad_answer("no security key"))
    }

    /// Takes a security key back, for good: another person's, or one's own.
    pub async fn revoke_security_key(
        &self,
        principal: &str,
        fingerprint: &str,
        note: &Note,
    ) -> Result<(), Error> {
        let request = wire::RevokeSecurityKeyRequest {
            tenant: self.tenant(),
            id: principal.to_owned(),
            fingerprint: fingerprint.to_owned(),
            reason: note.reason.clone(),
            ticket: note.ticket.clone(),
        };
        self.call_security_keys(request, async |mut keys, request| keys.revoke_security_key(request).await)
            .await
            .map(drop)
    }
}

/// What came, if it is what was asked for and can be shown to people.
fn challenge(answer: wire::BeginSecondFactorResponse, request_hash: [u8; 32]) -> Option<Challenge> {
    let wire::BeginSecondFactorResponse { challenge_id, text, namespace, expires_us, public_keys } = answer;
    let about = format!("request-sha256: {}", hex::encode(request_hash));
    let printable = text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' ');
    let good = namespace == NAMESPACE
        && text.len() <= MAX_TEXT
        && printable
        && text.lines().next() == Some(FIRST_LINE)
        && text.lines().filter(|line| line.starts_with("request-sha256:")).eq([about.as_str()]);
    good.then(|| Challenge { id: challenge_id.to_vec(), text, keys: public_keys, expires: time(expires_us) })
}

fn time(micros: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)).filter(|_| micros != 0)
}

pub(crate) fn security_key(key: wire::SecurityKey) -> SecurityKey {
    let wire::SecurityKey { fingerprint, kind, label, enrolled_us, enrolled_by, confirmed } = key;
    SecurityKey { fingerprint, kind, label, enrolled: time(enrolled_us), enrolled_by, confirmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> wire::BeginSecondFactorResponse {
        wire::BeginSecondFactorResponse {
            challenge_id: vec![1; 16].into(),
            text: format!("{FIRST_LINE}\nprincipal: ada\nrequest-sha256: {}\n", "07".repeat(32)),
            namespace: NAMESPACE.to_owned(),
            expires_us: 1,
            public_keys: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_signed_but_a_second_factor_for_this_request() {
        assert!(challenge(answer(), [7; 32]).is_some());
        assert!(challenge(answer(), [8; 32]).is_none(), "another request's");
        let text = answer().text;
        for bad in [
            String::new(),
            text.replace("v1", "v2"),
            text.replacen("phi-vault", "\x1b[2Jphi-vault", 1),
            text.replace("principal", "\u{202e}principal"),
            text.clone() + "request-sha256: 00\n",
            text.replace("request-sha256", "request"),
            text.clone() + &"x".repeat(MAX_TEXT),
        ] {
            assert!(
                challenge(wire::BeginSecondFactorResponse { text: bad.clone(), ..answer() }, [7; 32])
                    .is_none(),
                "{bad}"
            );
        }
        for namespace in ["", "git", "file"] {
            let other = wire::BeginSecondFactorResponse { namespace: namespace.to_owned(), ..answer() };
            assert!(challenge(other, [7; 32]).is_none(), "{namespace}");
        }
    }
}
