//! The files of a run: different ones, the owner's alone, and of one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::BulkError;
use super::progress::sync_directory;

/// That no file of a run is another one of it under a second name.
pub(super) fn all_different(paths: &[&Path]) -> Result<(), BulkError> {
    let identities: Vec<_> = paths.iter().map(|path| identity(path)).collect();
    for (at, one) in identities.iter().enumerate() {
        if let Some(before) = identities[..at].iter().position(|other| other == one) {
            return Err(BulkError::SameFile { one: paths[before].to_owned(), other: paths[at].to_owned() });
        }
    }
    Ok(())
}

/// For reading and writing; a file that it makes is the owner's alone.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Opens a file, makes it if `create` says so, and locks it; `None` if it is not there.
pub(super) fn open_locked(path: &Path, create: bool) -> Result<Option<File>, BulkError> {
    let file = match private().create(create).truncate(false).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && !create => return Ok(None),
        opened => opened.map_err(|source| failed("open", path, source))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(BulkError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", path, source)),
    }
}

/// Cuts off what is beyond `len`, and goes to the end.
pub(super) fn cut(file: &mut File, path: &Path, len: u64) -> Result<(), BulkError> {
    let found = file.metadata().map_err(|source| failed("read", path, source))?.len();
    if found < len {
        return Err(BulkError::OutputChanged { path: path.to_owned() });
    }
    file.set_len(len)
        .and_then(|()| file.seek(SeekFrom::Start(len)))
        .and_then(|_| sync_directory(path))
        .map_err(|source| failed("write", path, source))
}

/// Makes a file that somebody else made the owner's alone, before anything is written to it.
pub(super) fn make_private(file: &File, path: &Path) -> Result<(), BulkError> {
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(|source| failed("restrict", path, source))?;
    #[cfg(not(unix))]
    let _ = (file, path);
    Ok(())
}

pub(super) fn failed(what: &'static str, path: &Path, source: std::io::Error) -> BulkError {
    BulkError::File { what, path: path.to_owned(), source }
}

/// What tells a file from others, whatever it is called.
#[derive(PartialEq, Eq)]
enum Identity {
    /// Device and inode.
    #[cfg(unix)]
    Inode(u64, u64),
    Name(PathBuf),
}

fn identity(path: &Path) -> Identity {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt as _;
        return Identity::Inode(found.dev(), found.ino());
    }
    if let Ok(whole) = fs::canonicalize(path) {
        return Identity::Name(whole);
    }
    let Some(name) = path.file_name() else { return Identity::Name(path.to_owned()) };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Identity::Name(fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name))
}
