//! `vaultctl break-glass`: for people in a hurry. Whatever it has to say goes to standard error; standard output has what was
//! asked for.

mod answer;
mod ask;
mod reveal;
mod say;
mod show;
mod story;
mod wait;

use clap::{Args, Subcommand, ValueEnum};
use vault_client::break_glass::{Grant, GrantId, GrantState, SeenGrant, Verdict};
use vault_client::{Client, Reason};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::paste::{Paste, tell};
use crate::short_id::{self, ShortId};
use crate::words;

/// Plain values in an emergency: ask for a grant, approve it, see values, close it, review it.
///
/// Ask, and wait: `request TOKEN --class ssn --reason-code patient_safety --reason "..." --wait --reveal`. Somebody else runs
/// the `approve` command that it prints. That is all. Everything is in the vault's log, for good, and people are told at once.
///
/// Whatever it has to say goes to standard error; standard output has what was asked for.
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

    /// At most so many, the newest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
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

    /// For the log, in at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = words::notes)]
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
    #[arg(long, value_parser = words::reason)]
    notes: String,
}

/// Which grant.
#[derive(Args)]
struct GrantArg {
    /// The grant's id, or its first digits (6 at least).
    #[arg(value_name = "GRANT")]
    name: ShortId<OfGrant>,
}

/// What a grant's short id is of.
#[derive(Debug, Clone)]
pub(crate) struct OfGrant;

impl short_id::Kind for OfGrant {
    const NAME: &'static str = "grant";
    const LIST: &'static str = "break-glass list";
}

impl GrantArg {
    async fn resolve(&self, client: &Client) -> Result<GrantId, Failure> {
        grant_of(&self.name, client).await
    }
}

/// The grant that is meant.
pub(crate) async fn grant_of(name: &ShortId<OfGrant>, client: &Client) -> Result<GrantId, Failure> {
    if let Some(Ok(id)) = name.whole().map(str::parse) {
        return Ok(id);
    }
    let known = client.list_grants(false, MOST).await?;
    Ok(name.of(known, |grant| grant.id.to_string())?.id)
}

/// Grants that are looked at for a name.
const MOST: u32 = 1000;

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

/// What each command goes by.
struct Cx {
    json: bool,
    client: Client,
    paste: Paste,
}

impl Cx {
    /// Who runs this, for what is said to that person; `None`: then it is said as to anybody.
    async fn reader(&self) -> Option<String> {
        Some(self.client.who_am_i().await.ok()?.principal.id)
    }

    /// Why something was not done about a grant: how it stands with it tells more than the vault's answer to all such cases.
    async fn not_so(&self, id: &GrantId, error: vault_client::Error, step: Step) -> Failure {
        if error.reason() != Reason::GrantState {
            return step.with_role(error);
        }
        let Ok(SeenGrant { grant, .. }) = self.client.get_grant(id).await else { return error.into() };
        self.say_next(&grant, self.reader().await.as_deref());
        let (message, hint) = say::why_not(&grant, step);
        Failure::from(error).told(message, hint)
    }

    /// How it stands with a grant, and what comes next, as far as it is this reader's or others' to do.
    fn say_next(&self, grant: &Grant, reader: Option<&str>) {
        tell(&say::next(grant, reader, &self.paste));
    }
}

pub(crate) async fn run(global: &Global, command: BreakGlassCommand) -> Result<Exit, Failure> {
    let cx = Cx { json: global.json, client: global.connect()?, paste: global.paste() };
    match command {
        BreakGlassCommand::Request(args) => return ask::run(cx, args).await,
        BreakGlassCommand::Approve(args) => return answer::approve(&cx, args).await,
        BreakGlassCommand::Deny(args) => return answer::deny(&cx, args).await,
        BreakGlassCommand::Reveal(args) => return reveal::run(&cx, args).await,
        BreakGlassCommand::Story(args) => return story::run(cx.json, &cx.client, args).await,
        BreakGlassCommand::List(args) => {
            let grants = cx.client.list_grants(args.waiting, args.limit).await?;
            show::list(cx.json, args.waiting, &grants)?;
        }
        BreakGlassCommand::Show(args) => {
            let id = args.grant.resolve(&cx.client).await?;
            let grant = cx.client.get_grant(&id).await?.grant;
            show::grant(cx.json, &grant)?;
            cx.say_next(&grant, cx.reader().await.as_deref());
        }
        BreakGlassCommand::Close(args) => {
            let id = args.grant.resolve(&cx.client).await?;
            let grant = match cx.client.close_grant(&id, &args.notes).await {
                Ok(grant) => grant,
                Err(error) => return Err(cx.not_so(&id, error, Step::Close).await),
            };
            show::outcome(cx.json, &grant)?;
            // What comes next is somebody else's.
            cx.say_next(&grant, None);
        }
        BreakGlassCommand::Review(args) => {
            let id = args.grant.resolve(&cx.client).await?;
            let grant = match cx.client.review_grant(&id, args.verdict.into(), &args.notes).await {
                Ok(grant) => grant,
                Err(error) => return Err(cx.not_so(&id, error, Step::Review).await),
            };
            show::outcome(cx.json, &grant)?;
            cx.say_next(&grant, None);
        }
    }
    Ok(Exit::Done)
}

/// What is done about a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Request,
    Answer,
    Reveal,
    Close,
    Review,
}

impl Step {
    /// What the vault would not do for who may not, with the role that it takes unless the vault's policies say otherwise.
    fn with_role(self, error: vault_client::Error) -> Failure {
        if error.reason() != Reason::ActionNotAllowed {
            return error.into();
        }
        let (role, does) = match self {
            Self::Request => ("oncall", "ask for grants"),
            Self::Answer => ("approver", "approve or deny grants"),
            Self::Reveal => ("oncall", "see values under a grant"),
            Self::Close => ("oncall, approver or admin", "end grants"),
            Self::Review => ("auditor", "review grants"),
        };
        Failure::from(error).told(
            format!("this identity may not {does}"),
            format!(
                "it takes the role {role} at the tenant (unless your vault has policies of its own); `vaultctl whoami` shows yours.\n\
                 ask somebody who holds it, or choose another identity of your own: --as NAME"
            ),
        )
    }
}

/// What the state of a grant means for who waits for it.
fn exit_of(state: GrantState) -> Exit {
    match state {
        GrantState::Requested => Exit::AsksApproval,
        GrantState::Active => Exit::Done,
        _ => Exit::Refused,
    }
}
