//! `vaultctl audit export`

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use vault_client::audit::Checkpoint;
use vault_client::{Client, Reason};
use vault_format::export::{DirWriter, ExportError};
use vault_format::note::Verifier;

use super::layout;
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// So often a stream that broke off is taken up where it ended, without an entry in between.
const MOST_BREAKS: u32 = 5;

/// Write all logs of the vault to files, each up to a checkpoint that covers all entries written before.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// A directory that is empty, or is made. It then has exactly the files of C2SP tlog-tiles, and in logs/N the
    /// same of each further log, where several instances of the vault write one each.
    #[arg(long)]
    dir: PathBuf,

    /// Where to write the public key that verifies the logs; DIR.vkey unless given. The key comes from the vault:
    /// compare it once with one that came another way.
    #[arg(long, value_name = "FILE")]
    key_out: Option<PathBuf>,
}

/// A log that was written.
struct Written {
    log: u32,
    dir: PathBuf,
    signed: vault_format::checkpoint::Checkpoint,
}

pub(crate) async fn run(global: &Global, args: ExportArgs) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let logs: Vec<u32> = client.audit_logs().await?.iter().map(|log| log.log).collect();
    if logs.first() != Some(&0) {
        return Err(broken("the vault names no log 0"));
    }
    // The key of log 0 is everybody's, but for its name.
    let checkpoint = client.audit_checkpoint(0, true).await?;
    let verifier = verifier(&checkpoint)?;
    let mut written = vec![export(&client, &args.dir, 0, &checkpoint, &verifier).await?];
    // It may be rotated meanwhile: the last answer has all statements.
    let mut signing_keys = checkpoint.signing_keys.clone();
    for &log in &logs[1..] {
        let checkpoint = client.audit_checkpoint(log, true).await?;
        written.push(export(&client, &args.dir, log, &checkpoint, &verifier).await?);
        signing_keys = checkpoint.signing_keys;
    }
    layout::write_list(&args.dir, &logs)?;
    layout::write_keys(&args.dir, &signing_keys)?;

    let key_out = args.key_out.unwrap_or_else(|| beside(&args.dir));
    write_key(&key_out, &checkpoint)?;
    if global.json {
        let first = &written[0].signed;
        let all = written.iter().map(|Written { log, dir, signed }| {
            json!({ "log": log, "origin": signed.origin, "entries": signed.size,
                "root": signed.root.to_string(), "dir": dir })
        });
        output::json(&json!({ "entries": first.size, "root": first.root.to_string(),
            "dir": args.dir, "key": key_out, "logs": all.collect::<Value>() }))?;
    } else {
        for Written { dir, signed, .. } in &written {
            output::line(&format!("{} entries in {}", signed.size, dir.display()))?;
        }
        output::line(&format!(
            "verify them with: vaultctl audit verify --dir {} --key {}",
            args.dir.display(),
            key_out.display()
        ))?;
    }
    Ok(Exit::Done)
}

fn verifier(checkpoint: &Checkpoint) -> Result<Verifier, Failure> {
    Verifier::parse(checkpoint.verifier_key.trim())
        .map_err(|error| broken(&format!("the vault's verifier key: {error}")))
}

/// Writes one log, up to a checkpoint of it.
async fn export(
    client: &Client,
    dir: &Path,
    log: u32,
    checkpoint: &Checkpoint,
    verifier: &Verifier,
) -> Result<Written, Failure> {
    let by = layout::history(&checkpoint.signing_keys, verifier).map_err(|problem| broken(&problem))?;
    // Of a log that is not written any more it may be one of before a mark: whether that is enough is for `verify` to say.
    let by =
        layout::verifiers_of(&by, verifier, log).map_err(|problem| broken(&problem))?.as_before_the_mark();
    let signed = vault_format::checkpoint::Checkpoint::open(&checkpoint.note, &by)
        .map_err(|error| broken(&format!("the vault's checkpoint of log {log}: {error}")))?;
    let dir = layout::dir_of(dir, log);
    let writer = DirWriter::create(&dir)?;
    let writer = write_entries(client, writer, log, signed.size).await?;
    let signed = writer.finish(&checkpoint.note, &by)?;
    Ok(Written { log, dir, signed })
}

async fn write_entries(
    client: &Client,
    mut writer: DirWriter,
    log: u32,
    size: u64,
) -> Result<DirWriter, Failure> {
    let mut breaks = 0;
    while writer.size() < size {
        let from = writer.size();
        let Err(failure) = write_some(client, &mut writer, log, size).await else { break };
        breaks = if writer.size() > from { 0 } else { breaks + 1 };
        if failure.exit() != Exit::Unavailable || breaks >= MOST_BREAKS {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(200) * breaks).await;
    }
    Ok(writer)
}

async fn write_some(client: &Client, writer: &mut DirWriter, log: u32, size: u64) -> Result<(), Failure> {
    let mut parts = pin!(client.audit_entries(log, writer.size(), size).await?);
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

/// A log is not what was signed: worse than an outage, and no reason to try again.
fn broken(message: &str) -> Failure {
    Failure::new(Exit::SomeFailed, Reason::BadAnswer, message.to_owned())
        .hint("the vault's answers do not fit each other: do not trust this export")
}
