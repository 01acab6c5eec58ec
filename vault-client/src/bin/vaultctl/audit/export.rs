//! `vaultctl audit export`

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::TryStreamExt as _;
use serde_json::json;
use vault_client::audit::Checkpoint;
use vault_client::{Client, Reason};
use vault_format::export::{DirWriter, ExportError};
use vault_format::note::Verifier;

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// So often a stream that broke off is taken up where it ended, without an entry in between.
const MOST_BREAKS: u32 = 5;

/// Write the whole log to files, up to a checkpoint that covers all entries written before.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// A directory that is empty, or is made. It then has exactly the files of C2SP tlog-tiles.
    #[arg(long)]
    dir: PathBuf,

    /// Where to write the public key that verifies the log; DIR.vkey unless given. The key comes from the vault:
    /// compare it once with one that came another way.
    #[arg(long, value_name = "FILE")]
    key_out: Option<PathBuf>,
}

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let checkpoint = client.audit_checkpoint(true).await?;
    let verifier = Verifier::parse(checkpoint.verifier_key.trim())
        .map_err(|error| broken(&format!("the vault's verifier key: {error}")))?;
    let signed = vault_format::checkpoint::Checkpoint::open(&checkpoint.note, &verifier)
        .map_err(|error| broken(&format!("the vault's checkpoint: {error}")))?;
    let writer = DirWriter::create(&args.dir)?;
    let writer = write_entries(&client, writer, signed.size).await?;
    let signed = writer.finish(&checkpoint.note, &verifier)?;

    let key_out = args.key_out.unwrap_or_else(|| beside(&args.dir));
    write_key(&key_out, &checkpoint)?;
    if global.json {
        output::json(&json!({ "entries": signed.size, "root": signed.root.to_string(),
            "dir": args.dir, "key": key_out }))?;
    } else {
        output::line(&format!(
            "{} entries in {}\nverify them with: vaultctl audit verify --dir {} --key {}",
            signed.size,
            args.dir.display(),
            args.dir.display(),
            key_out.display()
        ))?;
    }
    Ok(Exit::Done)
}

async fn write_entries(client: &Client, mut writer: DirWriter, size: u64) -> Result<DirWriter, Failure> {
    let mut breaks = 0;
    while writer.size() < size {
        let from = writer.size();
        let Err(failure) = write_some(client, &mut writer, size).await else { break };
        breaks = if writer.size() > from { 0 } else { breaks + 1 };
        if failure.exit() != Exit::Unavailable || breaks >= MOST_BREAKS {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(200) * breaks).await;
    }
    Ok(writer)
}

async fn write_some(client: &Client, writer: &mut DirWriter, size: u64) -> Result<(), Failure> {
    let mut parts = pin!(client.audit_entries(writer.size(), size).await?);
    while let Some(part) = parts.try_next().await? {
        for leaf in &part.leaves {
            writer.push(leaf)?;
        }
    }
    Ok(())
}

/// `DIR.vkey`, outside of the directory.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.components().collect::<PathBuf>().into_os_string();
    name.push(".vkey");
    name.into()
}

fn write_key(path: &Path, checkpoint: &Checkpoint) -> Result<(), Failure> {
    std::fs::write(path, format!("{}\n", checkpoint.verifier_key.trim()))
        .map_err(|error| Failure::wrong_use(format!("{}: {error}", path.display())))
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::NotEmpty(_) | ExportError::Io { .. } => Self::wrong_use(error.to_string()),
            ExportError::EntryTooLong { .. }
            | ExportError::Checkpoint(_)
            | ExportError::OtherEntries { .. } => broken(&error.to_string()),
        }
    }
}

/// The log is not what was signed: worse than an outage, and no reason to try again.
fn broken(message: &str) -> Failure {
    Failure::new(Exit::SomeFailed, Reason::BadAnswer, message.to_owned())
        .hint("the vault's answers do not fit each other: do not trust this export")
}
