//! A copy of a running server's data, from which a standby begins.
//!
//! By the low-level API of <https://www.postgresql.org/docs/18/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP>:
//! not every distribution of the programs has `pg_basebackup`. The log since the start of the backup is left out; the
//! standby streams it from the slot.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::files::write_private;
use super::programs::give;
use super::query::Session;

/// Directories whose content is of no use to the copy, or harms it.
const EMPTIED: [&str; 7] =
    ["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];

/// Files that the copy makes for itself.
const LEFT_OUT: [&str; 3] = ["postmaster.pid", "postmaster.opts", "pg_internal.init"];

/// Copied last, as `pg_basebackup` does.
const CONTROL: &str = "global/pg_control";

/// Copies the data of the server behind `session` from `from` to `to`, which is made, and makes a standby of it.
pub(super) fn copy(session: &Session, from: &Path, to: &Path) -> Result<()> {
    session.run("SELECT pg_backup_start('standby', true)")?;
    copy_directory(from, to, &|path| {
        !LEFT_OUT.iter().any(|name| path.ends_with(name)) && !path.ends_with(CONTROL)
    })?;
    copy_file(&from.join(CONTROL), &to.join(CONTROL))?;
    let label = session.run("SELECT labelfile FROM pg_backup_stop(false)")?;
    let label = label.into_iter().flatten().flatten().next().context("no backup label")?;
    write_private(&to.join("backup_label"), &label)?;
    write_private(&to.join("standby.signal"), "")
}

fn copy_directory(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    DirBuilder::new().mode(0o700).create(to).with_context(|| to.display().to_string())?;
    give(to)?;
    if EMPTIED.iter().any(|name| from.ends_with(name)) {
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if !wanted(&path) {
            continue;
        }
        if path.is_dir() {
            copy_directory(&path, &target, wanted)?;
        } else {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Copies a file, unless it has gone meanwhile: then the log tells what became of it.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    match fs::copy(from, to) {
        Ok(_) => give(to),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| from.display().to_string()),
    }
}
