//! `vaultctl erase`

use clap::{ArgGroup, Args};
use serde_json::json;
use vault_client::{EraseOptions, Erased};

use crate::args::{Global, Subject, Tokens};
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Erase the values of tokens, or all values of a person. The tokens stay known; this can't be undone.
#[derive(Args)]
#[command(group = ArgGroup::new("whom").args(["tokens", "subject", "subject_file"]).required(true).multiple(true))]
pub(crate) struct EraseArgs {
    /// Tokens; `-` reads them from standard input, one a line.
    #[arg(value_name = "TOKEN", conflicts_with_all = ["subject", "subject_file"])]
    tokens: Vec<String>,

    #[command(flatten)]
    subject: Subject,

    /// Free text for the log, at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "")]
    reason: String,

    /// A ticket or case number for the log.
    #[arg(long, default_value = "")]
    ticket: String,
}

pub(crate) async fn run(global: &Global, args: EraseArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let options = EraseOptions { reason: args.reason, ticket: args.ticket };
    let results = if let Some(subject) = input::subject(args.subject, false)? {
        let erased = client.erase_subject(subject, &options).await?;
        erased.into_iter().map(|(token, outcome)| (token.to_string(), outcome)).collect()
    } else {
        let given = input::tokens(Tokens { tokens: args.tokens })?;
        let erased = client.erase_tokens(&input::good(&given), &options).await?;
        input::in_places(given, erased)
    };
    if results.is_empty() && !global.json {
        eprintln!("vaultctl: the subject has no tokens");
    }
    let exit = output::batch(
        global.json,
        "token",
        &results,
        |erased| output::member("erased", json!(word(*erased))),
        |all| {
            let rows = all.iter().map(|(token, erased)| vec![(*token).to_owned(), word(**erased).to_owned()]);
            output::table(&["TOKEN", "ERASED"], rows)
        },
    )?;
    Ok(exit)
}

fn word(erased: Erased) -> &'static str {
    match erased {
        Erased::Now => "now",
        Erased::Before => "before",
    }
}
