//! `vaultctl mask`

use std::io::IsTerminal as _;

use clap::Args;
use serde_json::json;

use crate::args::{Global, Tokens};
use crate::failure::{Exit, Failure};
use crate::{input, output};

/// Print the masked form of values, one a line (several on a terminal: a table).
#[derive(Args)]
pub(crate) struct MaskArgs {
    #[command(flatten)]
    tokens: Tokens,
}

pub(crate) async fn run(global: &Global, args: MaskArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let given = input::tokens(args.tokens)?;
    let masks = client.mask(&input::good(&given)).await?;
    let results = input::in_places(given, masks);
    let exit = output::batch(
        global.json,
        "token",
        &results,
        // Exposed: a masked form is for showing.
        |masked| output::member("masked", json!(masked.expose())),
        |masks| {
            if masks.len() > 1 && std::io::stdout().is_terminal() {
                let rows =
                    masks.iter().map(|(token, mask)| vec![(*token).to_owned(), mask.expose().to_owned()]);
                return output::table(&["TOKEN", "MASKED"], rows);
            }
            masks.iter().try_for_each(|(_, mask)| output::line(mask.expose()))
        },
    )?;
    Ok(exit)
}
