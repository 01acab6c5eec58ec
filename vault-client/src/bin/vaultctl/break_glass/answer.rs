//! `vaultctl break-glass approve` and `deny`

use std::io::{IsTerminal as _, stderr, stdin};

use clap::Args;
use vault_client::Client;
use vault_client::break_glass::GrantState;

use crate::failure::{Exit, Failure};
use crate::touch::{TouchArgs, second_factor};

use super::{GrantArg, say, show};

/// Approve a grant that somebody else asked for. Shows it, asks whether you mean it, and has your security key touched.
#[derive(Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Free text for the log. Put no PHI into it.
    #[arg(long, default_value = "")]
    notes: String,

    /// Don't ask: you know the grant.
    #[arg(long, short = 'y')]
    yes: bool,

    #[command(flatten)]
    touch: TouchArgs,
}

/// Deny a grant that waits.
#[derive(Args)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Why, for the log. Put no PHI into it.
    #[arg(long, default_value = "")]
    notes: String,

    #[command(flatten)]
    touch: TouchArgs,
}

pub(super) async fn approve(json: bool, client: &Client, args: ApproveArgs) -> Result<Exit, Failure> {
    let somebody = stdin().is_terminal() && stderr().is_terminal();
    if !args.yes && !somebody {
        return Err(Failure::wrong_use("nobody is there to be asked whether this grant is meant")
            .hint("look at it with `vaultctl break-glass show`, then give --yes"));
    }
    let id = args.grant.name.resolve(client).await?;
    let seen = client.get_grant(&id).await?;
    say::tell(&show::lines(&seen.grant).join("\n"));
    if seen.grant.state != GrantState::Requested {
        say::next(&seen.grant);
        return Err(no_longer(&seen.grant));
    }
    say::tell(&say::before_approval(&seen.grant));
    if !args.yes {
        eprint!("vaultctl: may {} see {}? [y/N] ", seen.grant.requester, say::scope(&seen.grant));
        let mut line = String::new();
        stdin().read_line(&mut line)?;
        if !agrees(&line) {
            return Err(Failure::wrong_use("nothing was done")
                .hint(format!("to have it off the list: {}", say::command(&seen.grant, "deny"))));
        }
    }
    let approving = client.approval(&seen, &args.notes);
    let (_, factor) = second_factor(client, &args.touch, approving.action(), approving.hash()).await?;
    let grant = client.approve_grant(&approving, factor).await?;
    show::outcome(json, &grant)?;
    say::next(&grant);
    Ok(Exit::Done)
}

pub(super) async fn deny(json: bool, client: &Client, args: DenyArgs) -> Result<Exit, Failure> {
    let id = args.grant.name.resolve(client).await?;
    let seen = client.get_grant(&id).await?;
    if seen.grant.state != GrantState::Requested {
        say::next(&seen.grant);
        return Err(no_longer(&seen.grant));
    }
    say::tell(&format!(
        "{} asks to see {}.\n{}",
        seen.grant.requester,
        say::scope(&seen.grant),
        say::BEFORE_DENIAL
    ));
    let denying = client.denial(&id, &args.notes);
    let (_, factor) = second_factor(client, &args.touch, denying.action(), denying.hash()).await?;
    let grant = client.deny_grant(&denying, factor).await?;
    show::outcome(json, &grant)?;
    Ok(Exit::Done)
}

fn no_longer(grant: &vault_client::break_glass::Grant) -> Failure {
    let message = format!("it does not wait for approval: it is {}", grant.state.as_str());
    Failure::new(Exit::SomeFailed, vault_client::Reason::GrantState, message)
}

fn agrees(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(agrees("y\n") && agrees("YES\r\n"));
        for no in ["", "\n", "n", "yo", "yy", "j"] {
            assert!(!agrees(no), "{no:?}");
        }
    }
}
