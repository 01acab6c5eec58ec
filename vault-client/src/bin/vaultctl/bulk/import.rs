//! `vaultctl import`

use std::collections::HashMap;

use clap::Args;
use vault_client::bulk::{Cell, Chunk, Plan};
use vault_client::{Client, DataClass, Error, NewValue, Plaintext, SubjectId, TokenizeOptions};
use zeroize::Zeroizing;

use super::{Answered, Ask, Files, drive};
use crate::args::Global;
use crate::failure::{Exit, Failure};

/// Replace the PHI columns of a file by tokens. Everything else stays as it is, byte for byte.
///
/// An interrupted run goes on when the same command is given again.
#[derive(Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    files: Files,

    /// A column and its class, `SSN=ssn`; of NDJSON a path, `name[0].family=name`. Again for each.
    #[arg(long, value_name = "COLUMN=CLASS", required = true, num_args = 1..)]
    map: Vec<String>,

    /// The column (or path) with your own id of the person that the row is about. It stays in the output.
    #[arg(long, value_name = "COLUMN")]
    subject: Option<String>,
}

pub(crate) async fn run(global: &Global, args: ImportArgs) -> Result<Exit, Failure> {
    let format = args.files.format()?;
    let plan = Plan::import(format, &args.map, args.subject.as_deref())?;
    let importer = Importer { classes: args.map.iter().filter_map(|entry| mapped(entry)).collect() };
    drive(global, args.files, plan, &importer).await
}

/// Column or path, and class, of an entry that the plan has checked.
fn mapped(entry: &str) -> Option<(String, DataClass)> {
    let (column, class) = entry.rsplit_once('=')?;
    Some((column.to_owned(), class.parse().ok()?))
}

struct Importer {
    classes: HashMap<String, DataClass>,
}

impl Importer {
    fn value(&self, cell: &Cell) -> NewValue {
        let class = self.classes.get(&*cell.column).cloned();
        NewValue {
            class: class.expect("the engine finds mapped columns only"),
            // Exposed: on its way to the vault.
            value: Plaintext::new(cell.value.expose().to_owned()),
            subject: cell.subject.as_ref().map(|id| {
                SubjectId::new(id.expose().to_owned())
                    .expect("the engine refuses ids that are too long or empty")
            }),
        }
    }
}

impl Ask for Importer {
    async fn ask(&self, client: &Client, key: &str, chunk: &Chunk) -> Result<Vec<Answered>, Error> {
        let values = chunk.cells().iter().map(|cell| self.value(cell)).collect();
        let tokens = client.tokenize_with(values, &TokenizeOptions::with_key(key)).await?;
        Ok(tokens.into_iter().map(|token| token.map(|token| Zeroizing::new(token.to_string()))).collect())
    }

    fn class_of(&self, column: &str) -> &str {
        self.classes.get(column).map_or("-", DataClass::as_str)
    }

    fn done(&self) -> &'static str {
        "tokenized"
    }
}
