//! `vaultctl break-glass request`

use std::time::Duration;

use clap::{ArgGroup, Args};
use vault_client::break_glass::{Grant, GrantScope, GrantState, NewGrant};
use vault_client::{Client, DataClass};

use crate::args::{self, Subject, Tokens};
use crate::failure::{Exit, Failure};
use crate::input;
use crate::touch::{TouchArgs, second_factor};

use super::reveal::{self, Out};
use super::{exit_of, say, show, wait};

/// Ask to see plain values in an emergency. Says what goes on record and who is told, then has your security key touched.
///
/// Exit code 6: it waits for approval.
#[derive(Args)]
#[command(group = ArgGroup::new("whom").args(["tokens", "subject", "subject_file"]).required(true).multiple(true))]
pub(crate) struct RequestArgs {
    /// Tokens of the values; `-` reads them from standard input, one a line.
    #[arg(value_name = "TOKEN", conflicts_with_all = ["subject", "subject_file"])]
    tokens: Vec<String>,

    #[command(flatten)]
    subject: Subject,

    /// Classes of the values that you need: ssn, name ... Any number.
    #[arg(long = "class", value_name = "CLASS", required = true)]
    classes: Vec<DataClass>,

    /// Why, as a code: patient_safety, outage, data_repair, legal, security_incident, or what your vault has instead.
    #[arg(long, value_name = "CODE")]
    reason_code: String,

    /// Why, in 10 to 512 characters. Put no PHI into it.
    #[arg(long, value_parser = say::words)]
    reason: String,

    /// A ticket or case number for the log.
    #[arg(long, default_value = "")]
    ticket: String,

    /// How long you need from the approval: `15m`.
    #[arg(long = "for", value_name = "TIME", value_parser = args::duration)]
    duration: Option<Duration>,

    /// How many values you need. One for each token, unless you say otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    values: Option<u32>,

    /// Wait until it is approved.
    #[arg(long)]
    wait: bool,

    /// Print the values as soon as it is approved.
    #[arg(long, requires = "wait")]
    reveal: bool,

    /// `-`: print values though standard output is no terminal.
    #[arg(long, value_name = "-", requires = "reveal")]
    out: Option<Out>,

    #[command(flatten)]
    touch: TouchArgs,
}

pub(super) async fn run(json: bool, client: &Client, args: RequestArgs) -> Result<Exit, Failure> {
    if args.reveal {
        // Now, not when somebody was woken for it.
        reveal::may_print(args.out)?;
    }
    let scope = match input::subject(args.subject, false)? {
        Some(subject) => GrantScope::Subject(subject),
        None => GrantScope::Tokens(all_good(args.tokens)?),
    };
    let what = match &scope {
        GrantScope::Tokens(tokens) if tokens.len() == 1 => "1 token".to_owned(),
        GrantScope::Tokens(tokens) => format!("{} tokens", tokens.len()),
        GrantScope::Subject(_) => "a person".to_owned(),
    };
    let classes: Vec<_> = args.classes.iter().map(DataClass::as_str).collect();
    let period = args.duration.map_or_else(|| "as long as is usual".to_owned(), say::span);
    say::tell(&format!(
        "you ask to see plain values of {what} ({}), for {period}.\n\
         on record, for good: your name, the time, your security key, what it is about, the reason and the ticket; then each \
         value that you see.\n\
         told at once: whoever gets the vault's alerts. afterwards somebody who had no part in it reviews it.\n\
         next: touch your security key; then somebody else has to approve it.",
        classes.join(", "),
    ));
    let mut new = NewGrant::new(scope, args.classes);
    new.reason_code = args.reason_code;
    new.reason = args.reason;
    new.ticket = args.ticket;
    new.duration = args.duration;
    new.values = args.values.unwrap_or(0);
    let asking = client.new_grant(new)?;
    let (_, factor) = second_factor(client, &args.touch, asking.action(), asking.hash()).await?;
    let mut grant = client.request_grant(&asking, factor).await?;
    // Commands of the grant's own name its tenant.
    let client = client.for_tenant(&grant.tenant);
    if !args.reveal {
        show::outcome(json, &grant)?;
    }
    say::next(&grant);
    if args.wait {
        grant = wait::until_answered(&client, grant).await?;
        say::next(&grant);
    }
    if args.reveal && grant.state == GrantState::Active {
        return reveal::print(json, &client, &grant.id, &[]).await;
    }
    ended_well(&grant)
}

fn ended_well(grant: &Grant) -> Result<Exit, Failure> {
    match exit_of(grant.state) {
        Exit::Refused => {
            let message = format!("the grant is {}", grant.state.as_str());
            Err(Failure::new(Exit::Refused, vault_client::Reason::GrantState, message))
        }
        exit => Ok(exit),
    }
}

fn all_good(texts: Vec<String>) -> Result<Vec<vault_client::Token>, Failure> {
    let given = input::tokens(Tokens { tokens: texts })?;
    let parsed = given.into_iter().map(|given| {
        given.token.map_err(|error| {
            let reason = error.reason();
            Failure::new(Exit::WrongUse, reason, format!("{}: {error}", given.text)).hint_of(reason)
        })
    });
    let tokens = parsed.collect::<Result<Vec<_>, Failure>>()?;
    if tokens.is_empty() {
        return Err(Failure::wrong_use("no token is given"));
    }
    Ok(tokens)
}
