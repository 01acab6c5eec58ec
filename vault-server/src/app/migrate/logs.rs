//! Logs that an embedded store has no room for: exported, each as a directory that can be verified offline.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use vault_format::export::DirWriter;
use vault_format::note::Verifier;

use crate::audit;
use crate::domain::VaultIdentity;
use crate::store::{LogId, Store};

/// How much is read at once.
const ENTRIES: usize = 1024;
const READ: usize = 1 << 20;

/// A log that was exported, and how many entries it had by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) log: LogId,
    pub(super) size: u64,
}

/// Exports every log but the first that has entries to `dir/<number>`, and which these are. One that was exported
/// before is left as it is if it has the same checkpoint.
pub(super) async fn export(
    old: &dyn Store,
    identity: &VaultIdentity,
    dir: &Path,
    key: &Path,
    dry_run: bool,
) -> anyhow::Result<Vec<Exported>> {
    let text = fs::read_to_string(key).with_context(|| format!("can't read {}", key.display()))?;
    let verifier = Verifier::parse(text.trim()).with_context(|| key.display().to_string())?;
    let origin = audit::origin(identity, LogId::default());
    anyhow::ensure!(verifier.name() == origin, "{}: is not the key of {origin}", key.display());
    let mut exported = Vec::new();
    for log in old.logs().await? {
        let size = old.log_size(log).await?;
        if log == LogId::default() || size == 0 {
            continue;
        }
        let verifier = verifier.named(&audit::origin(identity, log))?;
        if !dry_run {
            export_one(old, Exported { log, size }, &verifier, dir)
                .await
                .with_context(|| format!("log {log}"))?;
        }
        exported.push(Exported { log, size });
    }
    Ok(exported)
}

async fn export_one(
    old: &dyn Store,
    Exported { log, size }: Exported,
    verifier: &Verifier,
    dir: &Path,
) -> anyhow::Result<()> {
    let derived = old.derived(log).await?;
    let (signed, checkpoint) = derived.checkpoint.context("has no checkpoint yet")?;
    anyhow::ensure!(
        signed == size,
        "{} of its {size} entries are not under a checkpoint: serve the vault once more, until it has signed them",
        size - signed
    );
    let (whole, half) = (dir.join(log.to_string()), dir.join(format!("{log}.unfinished")));
    if fs::read_to_string(whole.join("checkpoint")).is_ok_and(|there| there == checkpoint) {
        return Ok(());
    }
    if half.exists() {
        fs::remove_dir_all(&half).with_context(|| half.display().to_string())?;
    }
    let mut writer = DirWriter::create(&half)?;
    while writer.size() < size {
        let entries = old.entries(log, writer.size(), ENTRIES, READ).await?;
        anyhow::ensure!(!entries.is_empty(), "entry {} is missing", writer.size());
        entries.iter().try_for_each(|entry| writer.push(entry))?;
    }
    writer.finish(&checkpoint, verifier)?;
    fs::write(dir.join(format!("{log}.vkey")), format!("{}\n", verifier.to_key()))?;
    fs::rename(&half, &whole).with_context(|| whole.display().to_string())
}
