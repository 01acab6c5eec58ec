//! `vaultctl audit verify`: offline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use vault_client::Reason;
use vault_format::checkpoint::Checkpoint;
use vault_format::history::Verifiers;
use vault_format::note::Verifier;
use vault_format::verify::{Options, Report, verify_dir};

use super::layout;
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// Verify exported logs with the public key alone: every entry, every tile, the signatures.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The export: a log, and in logs/N those of the vault's other instances.
    #[arg(long)]
    dir: PathBuf,

    /// A file with the public key, as `audit export` writes it. Only a key that you trust proves anything.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// A checkpoint from before, kept elsewhere: shows that nothing of its log was cut off or rewritten since. May be
    /// given once for each log.
    #[arg(long, value_name = "FILE")]
    old_checkpoint: Vec<PathBuf>,

    /// Let pass signatures of others (witnesses) on the checkpoints, which are not checked.
    #[arg(long)]
    other_signatures: bool,
}

/// What came of a log: what was verified, or what is wrong.
type Verified = (u32, Result<Report, String>);

pub(crate) fn run(global: &Global, args: &VerifyArgs) -> Result<Exit, Failure> {
    let unusable = |error| Failure::wrong_use(format!("{}: {error}", args.key.display()));
    let key = Verifier::parse(read(&args.key)?.trim()).map_err(unusable)?;
    let old = old_checkpoints(&args.old_checkpoint, &key)?;
    if !args.dir.is_dir() {
        return Err(Failure::wrong_use(format!("{} is not a directory", args.dir.display())));
    }
    let logs = layout::read_list(&args.dir).map_err(|problem| not_verified(&problem))?;
    let statements = layout::read_keys(&args.dir).map_err(|problem| not_verified(&problem))?;
    let history = layout::history(&statements, &key).map_err(|problem| not_verified(&problem))?;
    let mut results: Vec<Verified> = Vec::new();
    for &log in &logs {
        let options = Options {
            old_checkpoint: old.get(&log).cloned(),
            other_signatures: args.other_signatures,
            logs_beside: log == 0 && logs.len() > 1,
            keys_beside: log == 0 && !statements.is_empty(),
        };
        let by = layout::verifiers_of(&history, &key, log).map_err(Failure::wrong_use)?;
        let dir = layout::dir_of(&args.dir, log);
        results.push((log, verify_dir(&dir, &by, &options).map_err(|error| error.to_string())));
    }
    for (&log, checkpoint) in old.iter().filter(|(log, _)| !logs.contains(log)) {
        let by = layout::verifiers_of(&history, &key, log).map_err(Failure::wrong_use)?.as_before_the_mark();
        results.push((log, Err(missing(checkpoint, &by))));
    }
    let exit = conclude(global, &results)?;
    if history.newest() != &key && !global.json {
        let newest = history.newest().to_key();
        output::line(&format!("version {} signs now; keep its key: {newest}", history.versions()))?;
    }
    Ok(exit)
}

/// Older checkpoints, by their logs. What is of no log of the vault is for log 0 to refuse.
fn old_checkpoints(files: &[PathBuf], key: &Verifier) -> Result<BTreeMap<u32, String>, Failure> {
    let mut old = BTreeMap::new();
    for file in files {
        let text = read(file)?;
        let log = layout::log_of(&text, key).unwrap_or(0);
        if old.insert(log, text).is_some() {
            let message = format!("{}: the second older checkpoint of log {log}", file.display());
            return Err(Failure::wrong_use(message));
        }
    }
    Ok(old)
}

/// A log of which an older checkpoint is kept, and no more.
fn missing(checkpoint: &str, by: &Verifiers) -> String {
    match Checkpoint::open(checkpoint, by) {
        Ok(old) => format!("the log is missing: it had {} entries", old.size),
        Err(error) => format!("older {error}"),
    }
}

/// Says what came of each log. One log is reported as it always was; of several each has its line.
fn conclude(global: &Global, results: &[Verified]) -> Result<Exit, Failure> {
    let failed: Vec<_> =
        results.iter().filter_map(|(log, result)| Some((log, result.as_ref().err()?))).collect();
    if let [(_, Err(problem))] = results {
        return Err(not_verified(problem));
    }
    if global.json {
        output::json(&document(results))?;
    } else {
        for (log, result) in results {
            print(*log, result)?;
        }
    }
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    let names: Vec<_> = failed.iter().map(|(log, problem)| format!("log {log}: {problem}")).collect();
    Err(not_verified(&names.join("; ")))
}

fn print(log: u32, result: &Result<Report, String>) -> Result<(), Failure> {
    match result {
        Ok(report) => {
            let checkpoint = &report.checkpoint;
            output::line(&format!("verified: {} entries of {}", checkpoint.size, checkpoint.origin))?;
            if let Some(old) = &report.old_checkpoint {
                output::line(&format!("the first {} are those of the older checkpoint", old.size))?;
            }
        }
        Err(problem) => output::line(&format!("NOT VERIFIED: log {log}: {problem}"))?,
    }
    Ok(())
}

/// What was found of log 0, as long as all is well, and of each log.
fn document(results: &[Verified]) -> Value {
    let logs: Value = results.iter().map(|(log, result)| object(*log, result)).collect();
    let verified = results.iter().all(|(_, result)| result.is_ok());
    let mut document = match results {
        [(0, result), ..] if verified => object(0, result),
        _ => json!({ "verified": false }),
    };
    document["logs"] = logs;
    document
}

fn object(log: u32, result: &Result<Report, String>) -> Value {
    match result {
        Ok(report) => {
            let (checkpoint, old) = (&report.checkpoint, &report.old_checkpoint);
            json!({ "log": log, "verified": true, "origin": checkpoint.origin, "entries": checkpoint.size,
                "root": checkpoint.root.to_string(), "files": report.files,
                "consistent_with": old.as_ref().map(|old| old.size) })
        }
        Err(problem) => json!({ "log": log, "verified": false, "problem": problem }),
    }
}

fn not_verified(problem: &str) -> Failure {
    Failure::new(Exit::SomeFailed, Reason::BadAnswer, format!("not verified: {problem}"))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::wrong_use(format!("{}: {error}", path.display())))
}
