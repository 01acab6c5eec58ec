//! `vaultctl export`

use clap::Args;
use vault_client::bulk::{Chunk, Plan};
use vault_client::{Client, DetokenizeOptions, Error, Purpose, Token};
use zeroize::Zeroizing;

use super::{Answered, Ask, Files, drive};
use crate::args::{self, Global};
use crate::failure::{Exit, Failure};

/// Put the values back in place of every token of a file. Everything else stays as it is, byte for byte.
///
/// An interrupted run goes on when the same command is given again.
#[derive(Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    files: Files,

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

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Result<Exit, Failure> {
    let plan = Plan::export(args.files.format()?)?;
    let options = DetokenizeOptions { reason: args.reason, ticket: args.ticket };
    drive(global, args.files, plan, &Exporter { purpose: args.purpose, options }).await
}

struct Exporter {
    purpose: Purpose,
    options: DetokenizeOptions,
}

impl Ask for Exporter {
    async fn ask(&self, client: &Client, _key: &str, chunk: &Chunk) -> Result<Vec<Answered>, Error> {
        // Not a secret: a token.
        let tokens = chunk.cells().iter().map(|cell| cell.value.expose().parse());
        let tokens: Vec<Token> = tokens.collect::<Result<_, _>>()?;
        let values = client.detokenize(&tokens, self.purpose, &self.options).await?;
        // Exposed: on its way into the file that was asked for.
        let text = |value: vault_client::Plaintext| Zeroizing::new(value.expose().to_owned());
        Ok(values.into_iter().map(|value| value.map(text)).collect())
    }

    fn class_of(&self, _column: &str) -> &'static str {
        "-"
    }

    fn done(&self) -> &'static str {
        "restored"
    }
}
