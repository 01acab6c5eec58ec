//! The SSH agent, as far as it is needed (draft-ietf-sshm-ssh-agent, sections 3 and 4):
//!
//! ```text
//! message  uint32 length | byte type | ...
//! 11       asks for the keys                     12  uint32 count | (string key | string comment)*
//! 13       string key | string data | uint32 0   14  string signature
//! ```
//!
//! The agent finds the security key, and asks for a PIN where one is needed.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ssh::{armored, blob_of, string, take_number, take_string, to_sign};
use super::{Challenge, SecondFactor, SecurityKeySigner, SignError};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const FAILURE: u8 = 5;
/// The most that OpenSSH's agent answers.
const MOST_ANSWER: u32 = 256 << 10;
/// How long it may take to answer what needs nobody.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long people may take to find their key and touch it.
const TOUCHED_WITHIN: Duration = Duration::from_mins(2);

/// Signs by the agent at a Unix socket.
#[derive(Debug, Clone)]
pub struct SshAgent {
    socket: PathBuf,
    patience: Duration,
}

impl SshAgent {
    /// The agent that `SSH_AUTH_SOCK` names.
    pub fn from_env() -> Result<Self, SignError> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        Ok(Self::at(socket.ok_or(SignError::NoAgent)?))
    }

    /// The agent at a socket.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), patience: TOUCHED_WITHIN }
    }

    /// How long people may take to touch their key.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether it knows a key that may sign: asked before anybody is told to touch one. (It may not be plugged in.)
    pub async fn knows(&self, challenge: &Challenge) -> Result<(), SignError> {
        let (_, fitting) = self.fitting(challenge).await?;
        if fitting.is_empty() { Err(SignError::NoKey) } else { Ok(()) }
    }

    /// A connection, and the keys it holds that may sign.
    async fn fitting(&self, challenge: &Challenge) -> Result<(UnixStream, Vec<Vec<u8>>), SignError> {
        let mut stream = timeout(ANSWERS_WITHIN, UnixStream::connect(&self.socket))
            .await
            .map_err(|_| SignError::Late)??;
        let held = ask(&mut stream, &[REQUEST_IDENTITIES], IDENTITIES_ANSWER, ANSWERS_WITHIN).await?;
        let mut held = keys(&held).ok_or(SignError::BadAnswer)?;
        let wanted: Vec<_> = challenge.public_keys().iter().filter_map(|line| blob_of(line)).collect();
        held.retain(|key| wanted.contains(key));
        Ok((stream, held))
    }

    async fn signed(&self, challenge: &Challenge) -> Result<SecondFactor, SignError> {
        let (mut stream, fitting) = self.fitting(challenge).await?;
        let data = to_sign(challenge.text());
        let mut outcome = Err(SignError::NoKey);
        // One that is not plugged in is refused at once: another may be there.
        for key in &fitting {
            let request = [&[SIGN_REQUEST], &string(key)[..], &string(&data), &[0; 4]].concat();
            match ask(&mut stream, &request, SIGN_RESPONSE, self.patience).await {
                Ok(answer) => {
                    let mut rest = &answer[..];
                    let signature = take_string(&mut rest).filter(|_| rest.is_empty());
                    let signature = signature.ok_or(SignError::BadAnswer)?;
                    return Ok(challenge.signed(armored(key, signature)));
                }
                Err(SignError::Refused) => outcome = Err(SignError::Refused),
                Err(error) => return Err(error),
            }
        }
        outcome
    }
}

impl SecurityKeySigner for SshAgent {
    fn sign<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<SecondFactor, SignError>> {
        Box::pin(self.signed(challenge))
    }
}

/// Asks; what the answer holds, if it is of the type that is wanted.
async fn ask(
    stream: &mut UnixStream,
    request: &[u8],
    wanted: u8,
    within: Duration,
) -> Result<Vec<u8>, SignError> {
    let answer = timeout(within, async {
        stream.write_all(&string(request)).await?;
        let len = stream.read_u32().await?;
        if !(1..=MOST_ANSWER).contains(&len) {
            return Err(SignError::BadAnswer);
        }
        let mut answer = Vec::new();
        // Memory only for what comes.
        let read = (&mut *stream).take(u64::from(len)).read_to_end(&mut answer).await?;
        if u32::try_from(read) == Ok(len) { Ok(answer) } else { Err(SignError::BadAnswer) }
    });
    let mut answer = answer.await.map_err(|_| SignError::Late)??;
    match answer.first() {
        Some(kind) if *kind == wanted => Ok(answer.split_off(1)),
        Some(&FAILURE) => Err(SignError::Refused),
        _ => Err(SignError::BadAnswer),
    }
}

/// The keys that it holds.
fn keys(mut answer: &[u8]) -> Option<Vec<Vec<u8>>> {
    let count = take_number(&mut answer)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(take_string(&mut answer)?.to_vec());
        take_string(&mut answer)?;
    }
    answer.is_empty().then_some(keys)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const KEY: &[u8] = b"a key";

    fn challenge() -> Challenge {
        use base64::Engine as _;
        let line = format!("kind {} me", base64::prelude::BASE64_STANDARD.encode(KEY));
        Challenge { id: vec![1], text: "text".to_owned(), keys: vec![line], expires: None }
    }

    /// What comes of it where the agent gives these answers, one after the other, and then falls silent.
    async fn signed(answers: &[&[u8]], hang: bool) -> Result<SecondFactor, SignError> {
        let dir = tempfile::TempDir::new().unwrap();
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let agent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let len = stream.read_u32().await.unwrap();
                let mut request = vec![0; len as usize];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
            if hang {
                std::future::pending::<()>().await;
            }
        });
        let challenge = challenge();
        let agent_at = SshAgent::at(&socket).patience(Duration::from_millis(200));
        let outcome = agent_at.sign(&challenge).await;
        agent.abort();
        outcome
    }

    fn holds(keys: &[&[u8]]) -> Vec<u8> {
        let listed: Vec<u8> = keys.iter().flat_map(|key| [string(key), string(b"c")].concat()).collect();
        let count = u32::try_from(keys.len()).unwrap().to_be_bytes();
        string(&[&[IDENTITIES_ANSWER][..], &count, &listed].concat())
    }

    #[tokio::test]
    async fn a_held_key_signs() {
        let answer = string(&[&[SIGN_RESPONSE][..], &string(b"signature")].concat());
        let factor = signed(&[&holds(&[b"other", KEY]), &answer], false).await.unwrap();
        assert_eq!(factor.challenge(), [1]);
        assert!(
            factor.signature().starts_with("-----BEGIN SSH SIGNATURE-----\nU1NIU0lH"),
            "{}",
            factor.signature()
        );
    }

    #[tokio::test]
    async fn one_that_is_not_plugged_in_leaves_room_for_another() {
        let refused = string(&[FAILURE]);
        let held = holds(&[KEY, KEY]);
        let answer = string(&[&[SIGN_RESPONSE][..], &string(b"signature")].concat());
        assert!(signed(&[&held, &refused, &answer], false).await.is_ok());
        assert!(matches!(signed(&[&held, &refused, &refused], false).await, Err(SignError::Refused)));
    }

    #[tokio::test]
    async fn an_agent_that_misbehaves_is_not_believed() {
        let held = holds(&[KEY]);
        assert!(matches!(signed(&[&holds(&[b"other"])], false).await, Err(SignError::NoKey)));
        assert!(matches!(signed(&[&holds(&[])], false).await, Err(SignError::NoKey)));
        assert!(matches!(signed(&[&held], true).await, Err(SignError::Late)), "nobody touches");
        assert!(matches!(signed(&[&held], false).await, Err(SignError::Unreachable(_))), "it went away");
        for bad in [
            &string(&[SIGN_RESPONSE])[..],
            &string(&[&[SIGN_RESPONSE][..], &string(b"s"), b"x"].concat()),
            &string(&[99]),
            &[0; 4],
            &[0xff; 4],
        ] {
            assert!(matches!(signed(&[&held, bad], false).await, Err(SignError::BadAnswer)), "{bad:02x?}");
        }
        let many = string(&[&[IDENTITIES_ANSWER][..], &[0xff; 4]].concat());
        assert!(matches!(signed(&[&many], false).await, Err(SignError::BadAnswer)));
        let nowhere = SshAgent::at("/nonexistent/agent");
        assert!(matches!(nowhere.sign(&challenge()).await, Err(SignError::Unreachable(_))));
    }
}
