//! `vaultctl break-glass request`

use std::time::Duration;

use clap::{ArgGroup, Args};
use vault_client::break_glass::{Grant, GrantScope, GrantState, NewGrant};
use vault_client::{DataClass, Environment, Reason, Token};

use crate::args::{self, Subject, Tokens};
use crate::failure::{Exit, Failure};
use crate::paste::{count, tell};
use crate::touch::{TouchArgs, second_factor};
use crate::{input, words};

use super::reveal::{self, Out};
use super::{Cx, Step, exit_of, say, show, wait};

/// Ask to see plain values in an emergency. Says what goes on record and who is told, then has your security key touched.
///
/// Exit code 6: it waits for approval. What you typed is checked, here and by the vault, before you are asked for a touch.
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
    #[arg(long, value_name = "CODE", value_parser = words::reason_code)]
    reason_code: String,

    /// Why, in 10 to 512 characters. Put no PHI into it.
    #[arg(long, value_parser = words::reason)]
    reason: String,

    /// A ticket or case number for the log, of at most 128 characters.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = words::ticket)]
    ticket: String,

    /// How long you need from the approval: `15m`. As long as is usual at your vault (15m), unless you say otherwise.
    #[arg(long = "for", value_name = "TIME", value_parser = period)]
    duration: Option<Duration>,

    /// How many values you need: one that is seen twice counts twice. One for each token, unless you say otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    values: Option<u32>,

    /// Wait until it is approved. Ctrl-C stops the waiting, not the grant.
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

pub(super) async fn run(cx: Cx, args: RequestArgs) -> Result<Exit, Failure> {
    if args.reveal {
        // Now, not when somebody was woken for it.
        reveal::may_print(args.out)?;
    }
    let signer = args.touch.signer()?;
    let scope = match input::subject(args.subject, false)? {
        Some(subject) => GrantScope::Subject(subject),
        None => GrantScope::Tokens(all_good(args.tokens, cx.client.environment())?),
    };
    let what = match &scope {
        GrantScope::Tokens(tokens) => count(tokens.len() as u64, "token"),
        GrantScope::Subject(_) => "a person".to_owned(),
    };
    let classes: Vec<_> = args.classes.iter().map(DataClass::as_str).collect();
    let period = args.duration.map_or_else(|| "as long as is usual".to_owned(), say::span);
    let about = format!("you ask to see plain values of {what} ({}), for {period}.", classes.join(", "));
    let mut new = NewGrant::new(scope, args.classes);
    new.reason_code = args.reason_code;
    new.reason = args.reason;
    new.ticket = args.ticket;
    new.duration = args.duration;
    new.values = args.values.unwrap_or(0);
    let asking = cx.client.new_grant(new)?;
    cx.client.check_asking(&asking).await.map_err(not_to_ask)?;
    tell(&format!("{about}\n{BEFORE_REQUEST}"));
    let (_, factor) = second_factor(&cx.client, &signer, asking.action(), asking.hash()).await?;
    let mut grant = cx.client.request_grant(&asking, factor).await?;
    // Commands of the grant's own name its tenant.
    let cx = Cx { client: cx.client.for_tenant(&grant.tenant), ..cx };
    let requester = grant.requester.clone();
    if !args.reveal {
        show::outcome(cx.json, &grant)?;
    }
    cx.say_next(&grant, Some(&requester));
    if args.wait && grant.state == GrantState::Requested {
        grant = wait::until_answered(&cx.client, grant).await?;
        // Values that are printed at once need no command that prints them.
        if !(args.reveal && grant.state == GrantState::Active) {
            cx.say_next(&grant, Some(&requester));
        }
    }
    if grant.state == GrantState::Requested {
        let reveal = cx.paste.mine(&grant.tenant, &say::command(&grant, "reveal"));
        tell(&format!("then, once it is approved, you run\n    {reveal}"));
    }
    if args.reveal && grant.state == GrantState::Active {
        return reveal::print(&cx, &grant.id, &[]).await;
    }
    ended_well(&grant)
}

/// What a request sets off, before the touch.
const BEFORE_REQUEST: &str = "on record, for good: your name, the time, your security key, what it is about, the reason and the ticket; then each \
     value that you see.\n\
     told at once: whoever gets the vault's alerts. afterwards somebody who had no part in it reviews it.\n\
     next: touch your security key; then somebody else has to approve it.";

/// Why the vault would refuse it, before anybody touched anything.
fn not_to_ask(error: vault_client::Error) -> Failure {
    let hint = match (error.reason(), error.field()) {
        (Reason::FieldInvalid, "reason_code") => {
            "your vault's codes are in its configuration; unless it has its own, they are patient_safety, outage, data_repair, \
             legal, security_incident"
        }
        (Reason::FieldInvalid, "duration_s") => {
            "ask for less: --for 15m. An hour is the most that any vault gives"
        }
        (Reason::FieldInvalid, "values") => "ask for fewer: --values N",
        (Reason::NotFound, _) => {
            "look at the token (`vaultctl describe TOKEN`); is it another tenant's? --tenant TENANT. for a person: does the \
             vault keep anything of that tenant?"
        }
        (Reason::LimitReached, _) => {
            "close the grants that you don't need any more: `vaultctl break-glass list --waiting` has them"
        }
        _ => return Step::Request.with_role(error),
    };
    Failure::from(error).hint(hint)
}

/// How long a grant is asked for: whole seconds, which is what the vault counts.
fn period(text: &str) -> Result<Duration, String> {
    let period = args::duration(text)?;
    let good = period.subsec_nanos() == 0 && period <= Duration::from_hours(1);
    if good { Ok(period) } else { Err("`1s` to `1h`, in whole seconds: no vault gives more".to_owned()) }
}

fn ended_well(grant: &Grant) -> Result<Exit, Failure> {
    match exit_of(grant.state) {
        Exit::Refused => {
            let message = format!("the grant is {}", grant.state.as_str());
            Err(Failure::new(Exit::Refused, Reason::GrantState, message))
        }
        exit => Ok(exit),
    }
}

/// The tokens, if each is one and of the vault's environment.
fn all_good(texts: Vec<String>, environment: Option<&Environment>) -> Result<Vec<Token>, Failure> {
    let given = input::tokens(Tokens { tokens: texts })?;
    let mut tokens = Vec::with_capacity(given.len());
    for given in given {
        let wrong = |reason, message: &str| {
            Failure::new(Exit::WrongUse, reason, format!("{}: {message}", given.text)).hint_of(reason)
        };
        let token = given.token.as_ref().map_err(|error| wrong(error.reason(), error.message()))?;
        if environment.is_some_and(|environment| environment != token.environment()) {
            return Err(wrong(Reason::TokenEnvironment, "a token of another environment"));
        }
        tokens.push(token.clone());
    }
    match tokens.len() {
        0 => Err(Failure::wrong_use("no token is given")),
        1..=MOST_TOKENS => Ok(tokens),
        _ => Err(Failure::wrong_use(format!("a grant is about {MOST_TOKENS} tokens at most"))
            .hint("ask for the person instead (--subject-file FILE), or several times")),
    }
}

/// The most tokens that a grant may be about.
const MOST_TOKENS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_asked_for_in_whole_seconds() {
        assert_eq!(period("15m"), Ok(Duration::from_mins(15)));
        for bad in ["500ms", "1500ms", "61m", "2h", "1d", "15", "0s"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_token_of_the_vaults_is_told_at_once() {
        let dev = Environment::parse("dev").unwrap();
        let token = Token::from_log(&[7; 16], &dev).unwrap().to_string();
        let good = |texts: &[&str], environment: &str| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            all_good(texts, Environment::parse(environment).ok().as_ref()).map(|tokens| tokens.len())
        };
        assert_eq!(good(&[&token], "dev").ok(), Some(1));
        let mistyped = token.replace(|c: char| c.is_ascii_digit(), "x");
        for (texts, environment) in
            [(vec![&*token], "prod"), (vec![&token, &mistyped], "dev"), (vec![], "dev")]
        {
            assert_eq!(good(&texts, environment).unwrap_err().exit(), Exit::WrongUse, "{texts:?}");
        }
        assert!(good(&vec![&*token; MOST_TOKENS + 1], "dev").is_err());
    }
}
