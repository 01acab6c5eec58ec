//! `vaultctl audit verify`: offline.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use vault_client::Reason;
use vault_format::note::Verifier;
use vault_format::verify::{Options, Report, verify_dir};

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// Verify an exported log with the public key alone: every entry, every tile, the signature.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The exported log.
    #[arg(long)]
    dir: PathBuf,

    /// A file with the public key, as `audit export` writes it. Only a key that you trust proves anything.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// A checkpoint of the same log from before, kept elsewhere: shows that nothing was cut off or rewritten since.
    #[arg(long, value_name = "FILE")]
    old_checkpoint: Option<PathBuf>,

    /// Let pass signatures of others (witnesses) on the checkpoint, which are not checked.
    #[arg(long)]
    other_signatures: bool,
}

pub(crate) fn run(global: &Global, args: &VerifyArgs) -> Result<Exit, Failure> {
    let unusable = |error| Failure::wrong_use(format!("{}: {error}", args.key.display()));
    let verifier = Verifier::parse(read(&args.key)?.trim()).map_err(unusable)?;
    let old_checkpoint = args.old_checkpoint.as_deref().map(read).transpose()?;
    if !args.dir.is_dir() {
        return Err(Failure::wrong_use(format!("{} is not a directory", args.dir.display())));
    }
    let options = Options { old_checkpoint, other_signatures: args.other_signatures };
    let report = verify_dir(&args.dir, &verifier, &options).map_err(|error| {
        Failure::new(Exit::SomeFailed, Reason::BadAnswer, format!("not verified: {error}"))
    })?;
    print(global, &report)?;
    Ok(Exit::Done)
}

fn print(global: &Global, report: &Report) -> Result<(), Failure> {
    let checkpoint = &report.checkpoint;
    if global.json {
        let old = report.old_checkpoint.as_ref().map(|old| old.size);
        output::json(&json!({ "verified": true, "origin": checkpoint.origin, "entries": checkpoint.size,
            "root": checkpoint.root.to_string(), "files": report.files, "consistent_with": old }))?;
    } else {
        output::line(&format!("verified: {} entries of {}", checkpoint.size, checkpoint.origin))?;
        if let Some(old) = &report.old_checkpoint {
            output::line(&format!("the first {} are those of the older checkpoint", old.size))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::wrong_use(format!("{}: {error}", path.display())))
}
