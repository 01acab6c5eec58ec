//! Sessions of people: opened with an access token of an identity provider, kept in a file, closed again.
//!
//! ```no_run
//! use vault_client::session::AccessToken;
//!
//! # async fn example(vault: vault_client::Client, text: String) -> Result<(), vault_client::Error> {
//! let session = vault.open_session(&AccessToken::new(text)).await?;
//! session.token.write_to("joan.session".as_ref())?;
//! // A client whose identity has `session_file = "joan.session"` speaks for the person from now on.
//! # Ok(()) }
//! ```

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use tonic::{Request, Response, Status};
use vault_proto::v1 as wire;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::error::Error;
use crate::transport::bearer;

/// An access token of an identity provider: a secret.
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// Takes it over, without the white space around it.
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Zeroizing::new(text.trim().to_owned()))
    }
}

/// A session's token: a secret.
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// Reads a file that nobody else may read. `None` if there is none.
    pub fn read_from(path: &Path) -> Result<Option<Self>, Error> {
        let unusable = |what: &dyn std::fmt::Display| {
            Error::configuration(&format!("session file {}: {what}", path.display()))
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&error)),
        };
        let mode = fs::metadata(path).map_err(|error| unusable(&error))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(unusable(&"others can read it (chmod go-rwx)"));
        }
        let token = text.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if token.is_empty() || !token.bytes().all(plain) {
            return Err(unusable(&"holds no session"));
        }
        Ok(Some(Self(Zeroizing::new(token.to_owned()))))
    }

    /// Writes it to a file that nobody else can read, in place of what is there.
    pub fn write_to(&self, path: &Path) -> Result<(), Error> {
        let write = || -> std::io::Result<()> {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}", std::process::id()));
            let new = path.with_file_name(name);
            let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            // Exposed: to the file that is the session's from now on.
            let written = file
                .write_all(self.0.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
                .and_then(|()| file.sync_all())
                .and_then(|()| fs::rename(&new, path));
            written.inspect_err(|_| drop(fs::remove_file(&new)))
        };
        write().map_err(|error| Error::configuration(&format!("session file {}: {error}", path.display())))
    }

    /// The token. Say at each use why it is exposed: `// Exposed: ...`.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// A session that was opened.
pub struct OpenedSession {
    /// What speaks for the person from now on.
    pub token: SessionToken,
    /// Who that is to the vault.
    pub principal: String,
    /// When it ends at the latest, in microseconds since 1970.
    pub ends_us: u64,
    /// Without a call for so long it ends, too.
    pub idle: Duration,
}

impl Client {
    /// Opens a session with an access token of an identity provider. It is not repeated by itself: a token may be good
    /// for one session only.
    pub async fn open_session(&self, token: &AccessToken) -> Result<OpenedSession, Error> {
        // Exposed: to the vault, which verifies it.
        let header = bearer::header(&token.0)
            .ok_or_else(|| Error::configuration("the access token is not one: it has odd characters"))?;
        let answer = self
            .call_sessions_once(wire::OpenSessionRequest {}, async |mut sessions, mut request: Request<_>| {
                let value = tonic::metadata::MetadataValue::try_from(header.as_bytes())
                    .map_err(|_| Status::invalid_argument("not a token"))?;
                request.metadata_mut().insert("authorization", value);
                let answered: Result<Response<_>, Status> = sessions.open_session(request).await;
                answered
            })
            .await?;
        Ok(OpenedSession {
            token: SessionToken(Zeroizing::new(answer.session_token)),
            principal: answer.principal,
            ends_us: answer.ends_us,
            idle: Duration::from_secs(answer.idle_s.into()),
        })
    }

    /// Closes the session of this client's identity: it is over everywhere within a second.
    pub async fn close_session(&self) -> Result<(), Error> {
        self.call_sessions_once(wire::CloseSessionRequest {}, async |mut sessions, request| {
            sessions.close_session(request).await
        })
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_kept_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joan.session");
        assert!(SessionToken::read_from(&path).unwrap().is_none());
        for text in ["pvs_01", "pvs_02"] {
            SessionToken(Zeroizing::new(text.to_owned())).write_to(&path).unwrap();
            assert_eq!(SessionToken::read_from(&path).unwrap().unwrap().expose(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SessionToken::read_from(&path).err().unwrap();
        assert!(error.message().contains("others can read it"), "{error}");
        assert!(!error.to_string().contains("pvs_"));
    }
}
