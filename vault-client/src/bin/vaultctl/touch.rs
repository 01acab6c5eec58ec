//! A second factor from whoever sits there.

use std::path::PathBuf;

use clap::Args;
use vault_client::second_factor::{
    Challenge, SecondFactor, SecondFactorAction, SecurityKey, SecurityKeySigner, SignError, SshAgent,
    SshKeygen,
};
use vault_client::{Client, Reason};

use crate::failure::{Exit, Failure};
use crate::paste::tell;

/// How a second factor is made.
#[derive(Args)]
pub(crate) struct TouchArgs {
    /// Sign with the security key of this file (`ssh-keygen -t ed25519-sk` wrote it), by `ssh-keygen`; else by the SSH
    /// agent.
    #[arg(long, value_name = "FILE", env = "PHI_VAULT_SECURITY_KEY", hide_env_values = true)]
    security_key: Option<PathBuf>,
}

/// What makes signatures.
pub(crate) enum Signer {
    Agent(SshAgent),
    File(SshKeygen),
}

impl Signer {
    /// Signs, with a word to whoever has to touch the key once there is one.
    async fn sign(&self, challenge: &Challenge) -> Result<SecondFactor, SignError> {
        if let Self::Agent(agent) = self {
            agent.knows(challenge).await?;
        }
        eprint!("{}", challenge.text());
        tell("touch your security key now: it blinks");
        match self {
            Self::Agent(agent) => agent.sign(challenge).await,
            Self::File(file) => file.sign(challenge).await,
        }
    }
}

impl TouchArgs {
    /// What signs. Looked for before the vault is asked for anything.
    pub(crate) fn signer(&self) -> Result<Signer, Failure> {
        match &self.security_key {
            Some(file) if !file.is_file() => {
                Err(Failure::wrong_use(format!("{}: there is no such file", file.display()))
                    .hint("--security-key, or PHI_VAULT_SECURITY_KEY, names the file that `ssh-keygen -t ed25519-sk` wrote"))
            }
            Some(file) => Ok(Signer::File(SshKeygen::new(file))),
            None => Ok(Signer::Agent(SshAgent::from_env().map_err(|error| failure(&error, &[]))?)),
        }
    }
}

/// Has the caller's security key touched for a request.
pub(crate) async fn second_factor(
    client: &Client,
    signer: &Signer,
    action: SecondFactorAction,
    request_hash: [u8; 32],
) -> Result<(Challenge, SecondFactor), Failure> {
    let challenge = match client.begin_second_factor(action, request_hash).await {
        Ok(challenge) => challenge,
        Err(error) if error.reason() == Reason::SecondFactor => return Err(no_key(client, error).await),
        Err(error) => return Err(error.into()),
    };
    let factor = signer.sign(&challenge).await;
    let factor = factor.map_err(|error| failure(&error, challenge.public_keys()))?;
    Ok((challenge, factor))
}

/// The vault knows of no security key that the caller could touch: why, and who can help.
async fn no_key(client: &Client, error: vault_client::Error) -> Failure {
    let refused = Failure::from(error);
    let Ok(oneself) = client.who_am_i().await else { return refused };
    let (message, hint) = why_no_key(&oneself.principal.id, &oneself.principal.security_keys);
    refused.told(message, hint)
}

fn why_no_key(id: &str, keys: &[SecurityKey]) -> (String, String) {
    match keys.iter().find(|key| !key.confirmed) {
        Some(key) => (
            format!("your security key {} ({}) is not confirmed yet", key.label, key.fingerprint),
            "you can do that now, by a touch: `vaultctl security-keys confirm`; then run this again"
                .to_owned(),
        ),
        None => (
            format!("no security key of yours ({id}) is enrolled"),
            format!(
                "1. send the .pub file of your key to an admin, who runs `vaultctl security-keys enroll {id} FILE.pub`\n\
                 2. another admin approves that: `vaultctl principals pending` has the command\n\
                 3. you run `vaultctl security-keys confirm`, and touch it\n\
                 if that takes too long, somebody else whose key is enrolled has to do this"
            ),
        ),
    }
}

/// `enrolled`: lines of the keys that could have signed.
fn failure(error: &SignError, enrolled: &[String]) -> Failure {
    let hint = match error {
        SignError::NoAgent | SignError::Unreachable(_) => {
            "start an SSH agent and `ssh-add` the security key's file, or give the file: --security-key FILE"
                .to_owned()
        }
        SignError::NoKey => format!(
            "enrolled for you: {}; plug it in and `ssh-add` its file (`ssh-add -K` if it is resident), or give the file: \
             --security-key FILE",
            labels(enrolled)
        ),
        _ => "nothing was done. plug it in, run this again, and touch it when it blinks".to_owned(),
    };
    Failure::new(Exit::WrongUse, Reason::SecondFactor, error.to_string()).hint(hint)
}

/// What people call their keys: the comments of the lines.
fn labels(lines: &[String]) -> String {
    let label = |line: &String| match line.splitn(3, ' ').nth(2) {
        Some(label) if !label.is_empty() => label.escape_debug().to_string(),
        _ => "a key without a label".to_owned(),
    };
    lines.iter().map(label).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_key_is_told_who_can_help() {
        let (message, hint) = why_no_key("ann", &[]);
        assert!(message.contains("ann") && hint.contains("enroll ann") && hint.contains("another admin"));
    }

    #[test]
    fn keys_are_named_as_their_owners_know_them() {
        let lines = ["sk-ssh-ed25519@openssh.com AAAA ada blue".to_owned(), "sk BBBB".to_owned()];
        assert_eq!(labels(&lines), "ada blue, a key without a label");
    }
}
