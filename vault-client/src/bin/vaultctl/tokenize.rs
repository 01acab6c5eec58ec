//! `vaultctl tokenize`

use clap::Args;
use serde_json::json;
use vault_client::{DataClass, NewValue, SubjectId};

use crate::args::{Global, Subject};
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Keep the value on standard input; prints its token, alone on a line.
#[derive(Args)]
pub(crate) struct TokenizeArgs {
    /// What kind of value it is: `ssn`, `name`, `dob` ...
    #[arg(long, value_name = "CLASS")]
    class: DataClass,

    #[command(flatten)]
    subject: Subject,

    /// Standard input has one value a line; prints one token a line.
    #[arg(long)]
    lines: bool,
}

pub(crate) async fn run(global: &Global, args: TokenizeArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let subject = input::subject(args.subject, true)?;
    let values = if args.lines { input::values()? } else { vec![input::value()?] };
    let new = |value| {
        let new = NewValue::new(args.class.clone(), value);
        match &subject {
            // Exposed: each value of the batch carries the subject to the vault.
            Some(id) => SubjectId::new(id.expose().to_owned()).map(|id| new.about(id)),
            None => Ok(new),
        }
    };
    let values: Vec<_> = values
        .into_iter()
        .map(new)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::wrong_use(error.to_string()))?;
    if values.is_empty() {
        return Ok(Exit::Done);
    }
    let tokens = client.tokenize(values).await?;
    let place = |number: usize| if args.lines { format!("line {}", number + 1) } else { "value".to_owned() };
    let results: Vec<_> =
        tokens.into_iter().enumerate().map(|(number, token)| (place(number), token)).collect();
    let exit = output::batch(
        global.json,
        "item",
        &results,
        |token| output::member("token", json!(token.as_str())),
        |tokens| tokens.iter().try_for_each(|(_, token)| output::line(token.as_str())),
    )?;
    Ok(exit)
}
