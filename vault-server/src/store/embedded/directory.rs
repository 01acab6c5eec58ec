//! The directory of a store: `<dir>/lock`, and the engine's files in `<dir>/<engine>/`.
//!
//! It is readable by its owner only (mode 0700), whatever the process's umask makes of the files in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::store::StoreError;
use crate::store::embedded::EngineKind;

/// A directory that this process alone uses, as long as this lives.
pub(crate) struct LockedDirectory {
    _lock: File,
    engine: PathBuf,
}

impl LockedDirectory {
    /// Makes the directory if it is not there, durably, and locks it.
    pub(crate) fn open(dir: &Path, kind: EngineKind) -> Result<Self, StoreError> {
        let unavailable =
            |error: io::Error| StoreError::Unavailable { why: format!("{}: {error}", dir.display()) };
        make(dir).map_err(unavailable)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(unavailable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = format!("{} is in use by another process", dir.display());
                return Err(StoreError::Unavailable { why });
            }
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
        for other in EngineKind::ALL.into_iter().filter(|other| *other != kind) {
            if dir.join(other.as_str()).exists() {
                let why = format!("{} holds a store of the engine {}", dir.display(), other.as_str());
                return Err(StoreError::Foreign { why });
            }
        }
        let engine = dir.join(kind.as_str());
        make(&engine).map_err(unavailable)?;
        Ok(Self { _lock: lock, engine })
    }

    /// Where the engine's files are.
    pub(crate) fn engine(&self) -> &Path {
        &self.engine
    }

    /// Syncs the directories that an engine made its first files in.
    pub(crate) fn sync(&self) -> io::Result<()> {
        sync(&self.engine)?;
        self.engine.parent().map_or(Ok(()), sync)
    }
}

fn make(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
