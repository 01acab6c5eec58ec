//! `vaultctl security-keys`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use vault_client::second_factor::{Confirming, SecondFactorAction, SecurityKey};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::touch::{TouchArgs, second_factor};
use crate::words::NoteArgs;
use crate::{output, principals};

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
    /// Touch your own security key, to see that it works before you need it. It is good for nothing else.
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

pub(crate) async fn run(global: &Global, command: SecurityKeysCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        SecurityKeysCommand::Enroll(args) => {
            let line = read(&args.file)?;
            let enrolled = client.enroll_security_key(&args.principal, &line, &args.note.into()).await?;
            show(global.json, std::slice::from_ref(&enrolled.key))?;
            if let Some(id) = enrolled.waiting {
                if !global.json {
                    let tenant = principals::tenant_of(&client).await.unwrap_or_default();
                    tell(&principals::waits(global, &tenant, &id));
                }
                return Ok(Exit::AsksApproval);
            }
            if !global.json {
                tell("done: it is enrolled");
            }
        }
        SecurityKeysCommand::List(ListArgs { principal }) => {
            let of = match principal {
                None => client.who_am_i().await?.principal,
                Some(id) => principals::find(&client, &id).await?,
            };
            show(global.json, &of.security_keys)?;
            if of.security_keys.is_empty() && !global.json {
                tell(&format!(
                    "no security key of {id} is in force. an admin enrolls one (`vaultctl security-keys enroll {id} FILE.pub`), \
                     another one approves it, and {id} confirms it (`vaultctl security-keys confirm`)",
                    id = of.id
                ));
            }
        }
        SecurityKeysCommand::Confirm(args) => {
            let signer = args.touch.signer()?;
            let own = client.who_am_i().await?.principal.security_keys;
            let confirming = Confirming::new(waiting(own, args.fingerprint)?);
            let (_, factor) = second_factor(&client, &signer, confirming.action(), confirming.hash()).await?;
            let key = client.confirm_security_key(&confirming, factor).await?;
            show(global.json, &[key])?;
            if !global.json {
                tell("done: from now on it is good wherever a touch is asked for");
            }
        }
        SecurityKeysCommand::Revoke(args) => {
            client.revoke_security_key(&args.principal, &args.fingerprint, &args.note.into()).await?;
            let object =
                json!({ "principal": args.principal, "fingerprint": args.fingerprint, "revoked": true });
            let text = "it is good for nothing from now on, and can't be enrolled again";
            output::done(global.json, &object, text)?;
        }
        SecurityKeysCommand::Try(args) => {
            let signer = args.touch.signer()?;
            // Bound to no request that there could be.
            let mut no_request = [0; 32];
            getrandom::fill(&mut no_request).map_err(|error| Failure::wrong_use(error.to_string()))?;
            let action = SecondFactorAction::GrantDeny;
            if !global.json {
                tell(
                    "this is only a try. the text below speaks of a grant that there is not: nothing is denied or granted by it",
                );
            }
            let (challenge, factor) = second_factor(&client, &signer, action, no_request).await?;
            if global.json {
                output::json(&json!({ "text": challenge.text(), "signature": factor.signature() }))?;
            } else {
                output::line("your security key works: it is enrolled, it is there, and it was touched")?;
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

/// Which of the caller's own security keys is to be confirmed: the one that is named, or the only one that waits for it.
fn waiting(own: Vec<SecurityKey>, named: Option<String>) -> Result<String, Failure> {
    if let Some(named) = named {
        return match own.iter().find(|key| key.fingerprint == named) {
            Some(key) if key.confirmed => Err(Failure::wrong_use("this security key is confirmed already")
                .hint("nothing is left to do; `vaultctl security-keys try` shows that it works")),
            Some(_) => Ok(named),
            None => Err(Failure::wrong_use("no security key of yours has this fingerprint")
                .hint("`vaultctl security-keys list` has yours; one that was just asked for is there once another admin approved it")),
        };
    }
    let none = if own.is_empty() {
        "none is enrolled for you: an admin asks for it (`vaultctl security-keys enroll`), and another one has to approve that first"
    } else {
        "yours are confirmed already; `vaultctl security-keys try` shows that they work"
    };
    let mut waiting = own.into_iter().filter(|key| !key.confirmed);
    match (waiting.next(), waiting.next()) {
        (Some(key), None) => Ok(key.fingerprint),
        (None, _) => Err(Failure::wrong_use("no security key of yours waits for a confirmation").hint(none)),
        (Some(one), Some(other)) => Err(Failure::wrong_use("several security keys wait for a confirmation")
            .hint(format!(
                "name the one that you have at hand: {}, {} ...",
                one.fingerprint, other.fingerprint
            ))),
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
