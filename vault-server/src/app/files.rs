//! Files of the server's own: written whole or not at all, secrets readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner alone.
    Secret,
    /// Everyone.
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Writes a file that must not be there yet. After a crash it is there whole or not at all.
pub fn write_new(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    write(path, content, access, |temporary| fs::hard_link(temporary, path))
}

/// Writes a file, in place of the one that is there.
pub fn replace(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    write(path, content, access, |temporary| fs::rename(temporary, path))
}

/// Makes a directory, and those above it, for its owner alone.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write(
    path: &Path,
    content: &[u8],
    access: Access,
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = Path::new(&temporary);
    // What a crash left there: the next process may have the same id (in a container it does).
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // With the mode from the start: there is no moment at which others could open it.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(access.mode()).open(temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| publish(temporary));
    // A rename has taken it away already; after a link, or an error, it must go.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return written.and(Err(error)),
        _ => {}
    }
    written?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_readable_by_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_new(&path, b"x", Access::Secret).unwrap();
        assert_eq!(mode(&path), 0o600);
        replace(&path, b"y", Access::Secret).unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"y".to_vec()));
        make_dir(&dir.path().join("a/b")).unwrap();
        assert_eq!(mode(&dir.path().join("a")), 0o700);
    }

    #[test]
    fn write_new_does_not_overwrite_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new(&path, b"first", Access::Public).unwrap();
        assert_eq!(
            write_new(&path, b"second", Access::Public).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
