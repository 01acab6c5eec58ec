//! A second factor from whoever sits there.

use std::path::PathBuf;

use clap::Args;
use vault_client::Client;
use vault_client::second_factor::{
    Challenge, SecondFactor, SecondFactorAction, SecurityKeySigner, SignError, SshAgent, SshKeygen,
};

use crate::failure::{Exit, Failure};

/// How a second factor is made.
#[derive(Args)]
pub(crate) struct TouchArgs {
    /// Sign with the security key of this file (`ssh-keygen -t ed25519-sk` wrote it), by `ssh-keygen`; else by the SSH
    /// agent.
    #[arg(long, value_name = "FILE", env = "PHI_VAULT_SECURITY_KEY")]
    security_key: Option<PathBuf>,
}

/// Has the caller's security key touched for a request.
pub(crate) async fn second_factor(
    client: &Client,
    args: &TouchArgs,
    action: SecondFactorAction,
    request_hash: [u8; 32],
) -> Result<(Challenge, SecondFactor), Failure> {
    let signer: Box<dyn SecurityKeySigner> = match &args.security_key {
        Some(file) => Box::new(SshKeygen::new(file)),
        None => Box::new(SshAgent::from_env().map_err(|error| failure(&error))?),
    };
    let challenge = client.begin_second_factor(action, request_hash).await?;
    eprintln!("{}\nvaultctl: touch your security key now", challenge.text());
    let factor = signer.sign(&challenge).await.map_err(|error| failure(&error))?;
    Ok((challenge, factor))
}

fn failure(error: &SignError) -> Failure {
    let hint = match error {
        SignError::NoAgent | SignError::Unreachable(_) => {
            "start an SSH agent, or give the key's file: --security-key FILE"
        }
        SignError::NoKey => {
            "`ssh-add` the security key's file (`ssh-add -K` one that is resident), or have it enrolled"
        }
        _ => "plug it in, and touch it when it blinks",
    };
    Failure::new(Exit::WrongUse, vault_client::Reason::SecondFactor, error.to_string()).hint(hint)
}
