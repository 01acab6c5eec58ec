//! `vaultctl break-glass reveal`: values, to a terminal. Into a file, a log or another program they get only if that is said.

use std::io::{IsTerminal as _, stdout};
use std::str::FromStr;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};
use vault_client::Token;
use vault_client::break_glass::{GrantId, GrantState, Revealed};

use crate::args::Tokens;
use crate::failure::{Exit, Failure, exit_of_items};
use crate::paste::tell;
use crate::{input, output};

use super::{Cx, GrantArg, Step, say, show};

/// Print the values of your grant. Each that is printed counts, and is in the log.
///
/// To a terminal only, since what is redirected stays in files and logs: `--out -` if that is what you mean.
#[derive(Args)]
pub(crate) struct RevealArgs {
    #[command(flatten)]
    grant: GrantArg,

    /// Of these tokens only; without any, all that the grant is about.
    #[arg(value_name = "TOKEN")]
    tokens: Vec<String>,

    /// `-`: print values though standard output is no terminal.
    #[arg(long, value_name = "-")]
    out: Option<Out>,
}

/// Where values are to go: it is said, or it is the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Out;

impl FromStr for Out {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" { Ok(Self) } else { Err("`-`, for standard output: values go to no file".to_owned()) }
    }
}

pub(super) async fn run(cx: &Cx, args: RevealArgs) -> Result<Exit, Failure> {
    may_print(args.out)?;
    let given = input::tokens(Tokens { tokens: args.tokens })?;
    if let Some(bad) = given.iter().find(|given| given.token.is_err()) {
        return Err(Failure::wrong_use(format!("{}: nothing was shown or counted", bad.text)));
    }
    let id = args.grant.resolve(&cx.client).await?;
    print(cx, &id, &input::good(&given)).await
}

/// Whether values may be printed: asked before any is.
pub(super) fn may_print(out: Option<Out>) -> Result<(), Failure> {
    if out.is_some() || stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::wrong_use(
        "standard output is no terminal: values would stay in a file or a log; none was shown or counted",
    )
    .hint("run it in a terminal, without `>` and `|`; or say that it is meant: --out -"))
}

/// Prints values, and what is left.
pub(super) async fn print(cx: &Cx, id: &GrantId, tokens: &[Token]) -> Result<Exit, Failure> {
    let (revealed, grant) = match cx.client.reveal(id, tokens).await {
        Ok(revealed) => revealed,
        Err(error) => return Err(cx.not_so(id, error, Step::Reveal).await),
    };
    if cx.json {
        let results: Vec<_> = revealed.iter().map(object).collect();
        output::json(&json!({ "results": results, "grant": show::object(&grant) }))?;
    } else {
        let is_terminal = stdout().is_terminal();
        for Revealed { token, class, value } in &revealed {
            match value {
                // Exposed: standard output, which is what was asked for.
                Ok(value) if is_terminal => {
                    output::bytes(&[
                        format!("{token}  {class}  ").as_bytes(),
                        plain(value.expose()).as_bytes(),
                        b"\n",
                    ])?;
                }
                Ok(value) => output::line(value.expose())?,
                Err(error) => output::complain(token, error),
            }
        }
        if revealed.is_empty() {
            tell("there is no value that this grant is about");
        }
    }
    if grant.state == GrantState::Active {
        tell(&format!(
            "{}. as soon as you have what you need:\n    {}\nthen clear your terminal and its scrollback.",
            say::left(&grant, SystemTime::now()),
            cx.paste.mine(&grant.tenant, &say::command(&grant, "close"))
        ));
    } else {
        cx.say_next(&grant, Some(&grant.requester));
        tell("you: clear your terminal and its scrollback.");
    }
    Ok(exit_of_items(revealed.iter().map(|revealed| revealed.value.as_ref().err())))
}

fn object(Revealed { token, class, value }: &Revealed) -> Value {
    match value {
        // Exposed: standard output, which is what was asked for.
        Ok(value) => json!({ "token": token, "class": class, "value": value.expose() }),
        Err(error) => json!({ "token": token, "error": output::error(error) }),
    }
}

/// A value for a terminal: what would steer it is spelled out.
fn plain(value: &str) -> zeroize::Zeroizing<String> {
    let mut shown = zeroize::Zeroizing::new(String::with_capacity(value.len() * 6));
    for c in value.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_does_not_steer_the_terminal() {
        assert_eq!(&*plain("Zoë 999-12-3456"), "Zoë 999-12-3456");
        assert_eq!(&*plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn values_go_to_no_file() {
        assert_eq!("-".parse(), Ok(Out));
        assert!("values.txt".parse::<Out>().is_err());
    }
}
