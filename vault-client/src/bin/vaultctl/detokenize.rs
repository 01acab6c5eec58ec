//! `vaultctl detokenize`

use clap::Args;
use serde_json::json;
use vault_client::{DetokenizeOptions, Purpose};

use crate::args::{self, Global, Tokens};
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Get values back; prints them in the order of the tokens, one a line. Errors go to standard error.
#[derive(Args)]
pub(crate) struct DetokenizeArgs {
    #[command(flatten)]
    tokens: Tokens,

    /// Why: an HL7 v3 ActReason code, such as TREAT, HPAYMT, HOPERAT.
    #[arg(long, value_name = "CODE", value_parser = args::purpose)]
    purpose: Purpose,

    /// Free text for the log, at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "")]
    reason: String,

    /// A ticket or case number for the log.
    #[arg(long, default_value = "")]
    ticket: String,
}

pub(crate) async fn run(global: &Global, args: DetokenizeArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let given = input::tokens(args.tokens)?;
    let options = DetokenizeOptions { reason: args.reason, ticket: args.ticket };
    let values = client.detokenize(&input::good(&given), args.purpose, &options).await?;
    let results = input::in_places(given, values);
    let exit = output::batch(
        global.json,
        "token",
        &results,
        // Exposed: standard output, which is what was asked for.
        |value| output::member("value", json!(value.expose())),
        |values| values.iter().try_for_each(|(_, value)| output::line(value.expose())),
    )?;
    Ok(exit)
}
