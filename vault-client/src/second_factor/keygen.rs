//! `ssh-keygen -Y sign`, for people whose agent knows nothing of security keys.

use std::path::PathBuf;
use std::process::Stdio;

use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::ssh::NAMESPACE;
use super::{Challenge, SecondFactor, SecurityKeySigner, SignError};

/// Signs by OpenSSH's own program, which finds the key by its file and asks for touch and PIN itself.
#[derive(Debug, Clone)]
pub struct SshKeygen {
    file: PathBuf,
    agent: Option<PathBuf>,
}

impl SshKeygen {
    /// With the file that `ssh-keygen -t ed25519-sk` wrote.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), agent: None }
    }

    /// With an agent at this socket, for a file that has the public half only; else with the one of `SSH_AUTH_SOCK`.
    #[must_use]
    pub fn agent(self, socket: impl Into<PathBuf>) -> Self {
        Self { agent: Some(socket.into()), ..self }
    }

    async fn signed(&self, challenge: &Challenge) -> Result<SecondFactor, SignError> {
        let mut command = Command::new("ssh-keygen");
        if let Some(agent) = &self.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        let mut child = command
            .args(["-Y", "sign", "-n", NAMESPACE, "-f"])
            .arg(&self.file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(challenge.text().as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            return Err(SignError::Refused);
        }
        Ok(challenge.signed(String::from_utf8(output.stdout).map_err(|_| SignError::BadAnswer)?))
    }
}

impl SecurityKeySigner for SshKeygen {
    fn sign<'a>(&'a self, challenge: &'a Challenge) -> BoxFuture<'a, Result<SecondFactor, SignError>> {
        Box::pin(self.signed(challenge))
    }
}
