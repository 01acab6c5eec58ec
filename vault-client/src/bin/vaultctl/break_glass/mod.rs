//! `vaultctl break-glass`: for people in a hurry. Whatever it has to say goes to standard error; standard output has what was
//! asked for.

mod answer;
mod ask;
mod name;
mod reveal;
mod say;
mod show;
mod story;
mod wait;

use clap::{Args, Subcommand, ValueEnum};
use vault_client::break_glass::{GrantState, Verdict};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use name::GrantName;

/// Plain values in an emergency: ask for a grant, approve it, see values, close it, review it.
///
/// Ask, and wait: `request TOKEN --class ssn --reason-code patient_safety --reason "..." --wait --reveal`. Somebody else runs
/// the `approve` command that it prints. That is all. Everything is in the vault's log, for good, and people are told at once.
#[derive(Subcommand)]
pub(crate) enum BreakGlassCommand {
    /// Ask for a grant, by a touch of your security key.
    Request(ask::RequestArgs),
    /// List grants, newest first: your own, or all if you may see them.
    List(ListArgs),
    /// Show a grant.
    Show(ShowArgs),
    /// Approve a grant that somebody else asked for, by a touch of your security key.
    Approve(answer::ApproveArgs),
    /// Deny a grant that waits, by a touch of your security key.
    Deny(answer::DenyArgs),
    /// Print the values of your grant.
    Reveal(reveal::RevealArgs),
    /// End a grant now. Do so as soon as you have what you need.
    Close(CloseArgs),
    /// Say what you think of a grant that is over, if you had no part in it.
    Review(ReviewArgs),
    /// Tell all that happened with a grant, from the log.
    Story(story::StoryArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only those that wait: for approval, or for review.
    #[arg(long)]
    waiting: bool,

    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    grant: GrantArg,
}

#[derive(Args)]
pub(crate) struct CloseArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Free text for the log. Put no PHI into it.
    #[arg(long, default_value = "")]
    notes: String,
}

#[derive(Args)]
pub(crate) struct ReviewArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// What you found.
    #[arg(long, value_enum)]
    verdict: VerdictName,

    /// Why, in 10 to 512 characters. Put no PHI into it.
    #[arg(long, value_parser = say::words)]
    notes: String,
}

/// Which grant.
#[derive(Args)]
struct GrantArg {
    /// The grant's id, or its first digits (6 at least).
    #[arg(value_name = "GRANT")]
    name: GrantName,
}

/// Verdicts by name.
#[derive(Clone, Copy, ValueEnum)]
enum VerdictName {
    /// It was right to break the glass.
    Justified,
    /// It was not.
    NotJustified,
    /// It has to be looked into further.
    Escalated,
}

impl From<VerdictName> for Verdict {
    fn from(name: VerdictName) -> Self {
        match name {
            VerdictName::Justified => Self::Justified,
            VerdictName::NotJustified => Self::NotJustified,
            VerdictName::Escalated => Self::Escalated,
        }
    }
}

pub(crate) async fn run(global: &Global, command: BreakGlassCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let json = global.json;
    match command {
        BreakGlassCommand::Request(args) => return ask::run(json, &client, args).await,
        BreakGlassCommand::Approve(args) => return answer::approve(json, &client, args).await,
        BreakGlassCommand::Deny(args) => return answer::deny(json, &client, args).await,
        BreakGlassCommand::Reveal(args) => return reveal::run(json, &client, args).await,
        BreakGlassCommand::Story(args) => return story::run(json, &client, args).await,
        BreakGlassCommand::List(args) => {
            show::list(json, &client.list_grants(args.waiting, args.limit).await?)?;
        }
        BreakGlassCommand::Show(args) => {
            let id = args.grant.name.resolve(&client).await?;
            let grant = client.get_grant(&id).await?.grant;
            show::grant(json, &grant)?;
            say::next(&grant);
        }
        BreakGlassCommand::Close(args) => {
            let id = args.grant.name.resolve(&client).await?;
            let grant = client.close_grant(&id, &args.notes).await?;
            show::outcome(json, &grant)?;
            say::next(&grant);
        }
        BreakGlassCommand::Review(args) => {
            let id = args.grant.name.resolve(&client).await?;
            let grant = client.review_grant(&id, args.verdict.into(), &args.notes).await?;
            show::outcome(json, &grant)?;
        }
    }
    Ok(Exit::Done)
}

/// What the state of a grant means for who waits for it.
fn exit_of(state: GrantState) -> Exit {
    match state {
        GrantState::Requested => Exit::AsksApproval,
        GrantState::Active => Exit::Done,
        _ => Exit::Refused,
    }
}
