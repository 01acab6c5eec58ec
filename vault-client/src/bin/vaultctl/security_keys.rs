//! `vaultctl security-keys`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use vault_client::Client;
use vault_client::keys::Note;
use vault_client::second_factor::{Confirming, SecondFactorAction, SecurityKey};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::touch::{TouchArgs, second_factor};

/// A `.pub` file has one line; this is far more.
const MOST: u64 = 16 << 10;

/// Enroll and take back people's security keys, and try one's own.
#[derive(Subcommand)]
pub(crate) enum SecurityKeysCommand {
    /// Ask for a security key to be enrolled for another person; `principals approve` does it.
    Enroll(EnrollArgs),
    /// List security keys that are in force: your own, or those of a principal.
    List(ListArgs),
    /// Show that you have a security key that was enrolled for you, by a touch: from then on it is a second factor.
    Confirm(ConfirmArgs),
    /// Take a security key back, for good: another person's, or your own.
    Revoke(RevokeArgs),
    /// Touch your own security key, to see that it is there before you need it. Nothing comes of it.
    Try(TryArgs),
}

#[derive(Args)]
pub(crate) struct EnrollArgs {
    /// Whose: the principal's id.
    principal: String,

    /// The `.pub` file that `ssh-keygen -t ed25519-sk` wrote; `-` is standard input. Its comment becomes the label.
    file: PathBuf,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Whose: the principal's id. Left out: your own.
    principal: Option<String>,
}

#[derive(Args)]
pub(crate) struct ConfirmArgs {
    /// Which: `SHA256:...`, as `list` shows it. Left out: the one that waits for it.
    fingerprint: Option<String>,

    #[command(flatten)]
    touch: TouchArgs,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// Whose: the principal's id.
    principal: String,

    /// Which: `SHA256:...`, as `ssh-keygen -l` prints it.
    fingerprint: String,

    #[command(flatten)]
    note: NoteArgs,
}

#[derive(Args)]
pub(crate) struct TryArgs {
    #[command(flatten)]
    touch: TouchArgs,
}

/// For the log.
#[derive(Args)]
struct NoteArgs {
    /// Free text for the log, at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "")]
    reason: String,

    /// A ticket or case number for the log.
    #[arg(long, default_value = "")]
    ticket: String,
}

impl From<NoteArgs> for Note {
    fn from(NoteArgs { reason, ticket }: NoteArgs) -> Self {
        Self { reason, ticket }
    }
}

pub(crate) async fn run(global: &Global, command: SecurityKeysCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        SecurityKeysCommand::Enroll(args) => {
            let line = read(&args.file)?;
            let enrolled = client.enroll_security_key(&args.principal, &line, &args.note.into()).await?;
            show(global.json, std::slice::from_ref(&enrolled.key))?;
            if let Some(id) = enrolled.waiting {
                eprintln!(
                    "vaultctl: nothing has changed yet: another admin has to approve it\n  \
                     vaultctl principals approve {id}"
                );
                return Ok(Exit::AsksApproval);
            }
        }
        SecurityKeysCommand::List(ListArgs { principal }) => {
            let of = match principal {
                None => client.who_am_i().await?.principal,
                Some(id) => {
                    let known = client.list_principals().await?.into_iter().find(|known| known.id == id);
                    known.ok_or_else(|| Failure::wrong_use("no such principal at this tenant"))?
                }
            };
            show(global.json, &of.security_keys)?;
        }
        SecurityKeysCommand::Confirm(args) => {
            let fingerprint = match args.fingerprint {
                Some(fingerprint) => fingerprint,
                None => waiting(&client).await?,
            };
            let confirming = Confirming::new(fingerprint);
            let (_, factor) =
                second_factor(&client, &args.touch, confirming.action(), confirming.hash()).await?;
            let key = client.confirm_security_key(&confirming, factor).await?;
            show(global.json, &[key])?;
        }
        SecurityKeysCommand::Revoke(args) => {
            client.revoke_security_key(&args.principal, &args.fingerprint, &args.note.into()).await?;
        }
        SecurityKeysCommand::Try(args) => {
            // Bound to no request that there could be.
            let mut no_request = [0; 32];
            getrandom::fill(&mut no_request).map_err(|error| Failure::wrong_use(error.to_string()))?;
            let action = SecondFactorAction::GrantDeny;
            let (challenge, factor) = second_factor(&client, &args.touch, action, no_request).await?;
            if global.json {
                output::json(&json!({ "text": challenge.text(), "signature": factor.signature() }))?;
            } else {
                output::line("the security key was touched")?;
            }
        }
    }
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut line = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut line)?;
    } else {
        let file_is = |error| Failure::wrong_use(format!("{}: {error}", file.display()));
        std::fs::File::open(file).map_err(file_is)?.take(MOST).read_to_string(&mut line).map_err(file_is)?;
    }
    Ok(line)
}

/// The caller's one security key that waits for its confirmation.
async fn waiting(client: &Client) -> Result<String, Failure> {
    let keys = client.who_am_i().await?.principal.security_keys;
    let mut waiting = keys.into_iter().filter(|key| !key.confirmed);
    match (waiting.next(), waiting.next()) {
        (Some(key), None) => Ok(key.fingerprint),
        (None, _) => Err(Failure::wrong_use("no security key of yours waits for a confirmation")),
        _ => Err(Failure::wrong_use("several security keys wait for a confirmation")
            .hint("name one: `vaultctl security-keys list` has them")),
    }
}

fn show(as_json: bool, keys: &[SecurityKey]) -> std::io::Result<()> {
    if as_json {
        return keys.iter().try_for_each(|key| {
            let SecurityKey { fingerprint, kind, label, enrolled_by, confirmed, .. } = key;
            let enrolled = key.enrolled.map(crate::describe::time);
            output::json(&json!({
                "fingerprint": fingerprint, "kind": kind, "label": label, "enrolled": enrolled,
                "enrolled_by": enrolled_by, "confirmed": confirmed,
            }))
        });
    }
    let row = |key: &SecurityKey| {
        let by = if key.enrolled_by.is_empty() { "the file" } else { &key.enrolled_by };
        let state = if key.confirmed { "good" } else { "to be confirmed" };
        [&key.fingerprint, &key.kind, &key.label, by, state].map(str::to_owned).to_vec()
    };
    output::table(&["FINGERPRINT", "KIND", "LABEL", "ENROLLED BY", "STATE"], keys.iter().map(row))
}
