//! `vaultctl login` and `vaultctl logout`: sessions of people.

mod device;
mod http;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use serde_json::json;
use vault_client::Reason;
use vault_client::profile::ProfileIdentity;
use vault_client::session::AccessToken;

use crate::args::Global;
use crate::describe;
use crate::failure::{Exit, Failure};
use crate::output;

/// An access token has at most 16 KiB.
const MAX_TOKEN: u64 = 64 * 1024;

/// Log in: opens a session for the profile's identity, and keeps it in the identity's session_file.
///
/// Shows a code to be typed in at the identity provider, in a browser on whatever device (RFC 8628).
#[derive(Args)]
pub(crate) struct LoginArgs {
    /// Take the access token from a file instead of asking the identity provider; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Log out: closes the session, on all instances, and removes its file.
#[derive(Args)]
pub(crate) struct LogoutArgs {}

pub(crate) async fn run(global: &Global, args: LoginArgs) -> Result<Exit, Failure> {
    let identity = global.identity()?;
    let file = session_file(&identity)?;
    let client = global.connect()?;
    let token = if let Some(file) = args.token_file {
        read_token(&file)?
    } else {
        let login = identity.login.as_ref().ok_or_else(|| {
            Failure::wrong_use("the profile's identity names no identity provider")
                .hint("add `login = { issuer = ..., client_id = ... }` to it, or give --token-file")
        })?;
        device::access_token(login).await?
    };
    let session = client.open_session(&token).await?;
    session.token.write_to(&file)?;
    let ends = describe::time(UNIX_EPOCH + Duration::from_micros(session.ends_us));
    if global.json {
        output::json(
            &json!({ "principal": session.principal, "ends": ends, "idle_s": session.idle.as_secs() }),
        )?;
    } else {
        let idle = session.idle.as_secs();
        output::line(&format!(
            "{}: logged in until {ends}, or until {idle}s without a call",
            session.principal
        ))?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn run_logout(global: &Global, _: LogoutArgs) -> Result<Exit, Failure> {
    let identity = global.identity()?;
    let file = session_file(&identity)?;
    match global.connect()?.close_session().await {
        Ok(()) => {}
        // It is over already.
        Err(error) if error.reason() == Reason::SessionInvalid => {}
        Err(error) => return Err(error.into()),
    }
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let text = "logged out; the session is good for nothing any more";
    output::done(global.json, &json!({ "logged_out": true }), text)?;
    Ok(Exit::Done)
}

fn session_file(identity: &ProfileIdentity) -> Result<PathBuf, Failure> {
    identity.session_file.clone().ok_or_else(|| {
        Failure::wrong_use("the profile's identity has no session_file: it does not log in")
            .hint("choose a person's by --as NAME")
    })
}

fn read_token(file: &Path) -> Result<AccessToken, Failure> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_TOKEN).read_to_string(&mut text)?;
    } else {
        let opened = std::fs::File::open(file);
        let opened = opened.map_err(|error| Failure::wrong_use(format!("{}: {error}", file.display())))?;
        opened.take(MAX_TOKEN).read_to_string(&mut text)?;
    }
    Ok(AccessToken::new(text))
}
