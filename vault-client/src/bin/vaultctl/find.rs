//! `vaultctl find`

use clap::Args;
use serde_json::{Map, json};
use vault_client::{DataClass, Token};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Find the tokens of the value on standard input; prints them, one a line. None found: prints nothing, exit code 0.
#[derive(Args)]
pub(crate) struct FindArgs {
    /// What kind of value it is.
    #[arg(long, value_name = "CLASS")]
    class: DataClass,

    /// At most so many tokens (the most is 1000).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(crate) async fn run(global: &Global, args: FindArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let value = input::value()?;
    let found = client.find(&args.class, vec![value], args.limit).await?;
    let results: Vec<_> = found.into_iter().map(|found| ("value".to_owned(), found)).collect();
    let exit = output::batch(
        global.json,
        "item",
        &results,
        |found| {
            let tokens: Vec<_> = found.tokens.iter().map(Token::as_str).collect();
            Map::from_iter([
                ("tokens".to_owned(), json!(tokens)),
                ("truncated".to_owned(), json!(found.truncated)),
            ])
        },
        |all| {
            for (_, found) in all {
                found.tokens.iter().try_for_each(|token| output::line(token.as_str()))?;
                if found.truncated {
                    eprintln!("vaultctl: there are more; ask for them with --limit");
                }
            }
            Ok(())
        },
    )?;
    Ok(exit)
}
