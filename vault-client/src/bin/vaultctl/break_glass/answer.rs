//! `vaultctl break-glass approve` and `deny`

use clap::Args;
use vault_client::Reason;
use vault_client::break_glass::{Grant, GrantState};

use crate::failure::{Exit, Failure};
use crate::meant;
use crate::paste::tell;
use crate::touch::{TouchArgs, second_factor};
use crate::words;

use super::{Cx, GrantArg, Step, say, show};

/// Approve a grant that somebody else asked for. Shows it, asks whether you mean it, and has your security key touched.
#[derive(Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// For the log, in at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = words::notes)]
    notes: String,

    /// Don't ask: you know the grant. Needed where there is no terminal.
    #[arg(long, short = 'y')]
    yes: bool,

    #[command(flatten)]
    touch: TouchArgs,
}

/// Deny a grant that waits, by a touch of your security key. It can't be approved any more then.
#[derive(Args)]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Why, for the log, in at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = words::notes)]
    notes: String,

    #[command(flatten)]
    touch: TouchArgs,
}

pub(super) async fn approve(cx: &Cx, args: ApproveArgs) -> Result<Exit, Failure> {
    let Cx { json, client, paste } = cx;
    meant::can_be_asked(args.yes, "this grant", "break-glass show")?;
    let signer = args.touch.signer()?;
    let id = args.grant.resolve(client).await?;
    let seen = client.get_grant(&id).await?;
    for line in show::lines(&seen.grant) {
        eprintln!("    {line}");
    }
    still_waits(cx, &seen.grant).await?;
    let approving = client.approval(&seen, &args.notes);
    client.check_approval(&approving).await.map_err(|error| not_to_answer(error, &seen.grant))?;
    tell(&say::before_approval(&seen.grant));
    if !args.yes {
        let question = format!("may {} see {}?", seen.grant.requester, say::scope(&seen.grant));
        if !meant::agreed(&question)? {
            let deny = paste.mine(&seen.grant.tenant, &say::command(&seen.grant, "deny"));
            return Err(Failure::wrong_use("nothing was done; it still waits")
                .hint(format!("to have it off the list: {deny}")));
        }
    }
    let (_, factor) = second_factor(client, &signer, approving.action(), approving.hash()).await?;
    let grant = client.approve_grant(&approving, factor).await?;
    tell("done: your approval counts");
    show::outcome(*json, &grant)?;
    cx.say_next(&grant, grant.approvers.last().map(String::as_str));
    Ok(Exit::Done)
}

pub(super) async fn deny(cx: &Cx, args: DenyArgs) -> Result<Exit, Failure> {
    let client = &cx.client;
    let signer = args.touch.signer()?;
    let id = args.grant.resolve(client).await?;
    let seen = client.get_grant(&id).await?;
    still_waits(cx, &seen.grant).await?;
    tell(&format!("{} asks to see {}.", seen.grant.requester, say::scope(&seen.grant)));
    let denying = client.denial(&id, &args.notes);
    client.check_denial(&denying).await.map_err(|error| not_to_answer(error, &seen.grant))?;
    tell(say::BEFORE_DENIAL);
    let (_, factor) = second_factor(client, &signer, denying.action(), denying.hash()).await?;
    let grant = client.deny_grant(&denying, factor).await?;
    tell("done: it is denied, and gives nothing to anybody");
    show::outcome(cx.json, &grant)?;
    Ok(Exit::Done)
}

/// Nobody is asked for a touch about a grant that does not wait.
async fn still_waits(cx: &Cx, grant: &Grant) -> Result<(), Failure> {
    if grant.state == GrantState::Requested {
        return Ok(());
    }
    cx.say_next(grant, cx.reader().await.as_deref());
    let message = format!("it does not wait for approval: it is {}", grant.state.as_str());
    Err(Failure::new(Exit::SomeFailed, Reason::GrantState, message))
}

/// Why the vault would refuse an answer, before anybody touched anything.
fn not_to_answer(error: vault_client::Error, grant: &Grant) -> Failure {
    if error.reason() != Reason::SecondPerson {
        return Step::Answer.with_role(error);
    }
    let part = [std::slice::from_ref(&grant.requester), &grant.approvers].concat().join(", ");
    Failure::from(error).told(
        "it needs two people, and you had a part in it already",
        format!("an approver other than {part} has to answer it"),
    )
}
