//! The file that holds the root key of [`LocalKms`](super::LocalKms).
//!
//! 57 bytes:
//!
//! ```text
//! magic(16) "PHI-VAULT-ROOT\r\n" | version(1) = 1 | root key(32) | checksum(8)
//! ```
//!
//! The checksum is the first 8 bytes of `SHA-256("phi-vault root key file v1" || magic || version || root key)`:
//! it tells a damaged file from a wrong one, and is as secret as the key beside it. Nothing else is in the file.
//!
//! It is made once, by `O_EXCL`, with mode 0600, and is never written to again. It is not opened when anyone but
//! its owner may read or write it, when the owner is someone else, when it is a symbolic link, or when others may
//! write to its directory (they could put another file in its place).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use vault_mem::{LockedKey, LockedMemoryError};

const MAGIC: &[u8; 16] = b"PHI-VAULT-ROOT\r\n";
const VERSION: u8 = 1;
const CHECKSUM_LABEL: &[u8] = b"phi-vault root key file v1";
const LEN: u64 = 16 + 1 + 32 + 8;

/// Why there is no root key. No variant carries a byte of the file.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// The operating system refused.
    #[error("root key file {path}: {doing}: {source}")]
    Io {
        /// The file or its directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Someone else could read or replace it.
    #[error("root key file {path}: {rule}")]
    Exposed {
        /// The file or its directory.
        path: PathBuf,
        /// What it must be.
        rule: &'static str,
    },
    /// Not a root key file, one of another version, or a damaged one.
    #[error("root key file {path}: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
    /// No locked memory for the key.
    #[error("no locked memory for a key")]
    LockedMemory,
}

impl From<LockedMemoryError> for RootKeyError {
    fn from(_: LockedMemoryError) -> Self {
        Self::LockedMemory
    }
}

/// Makes a root key and its file; both durable when it returns. Makes the directory (0700) if it is missing.
/// An existing file is never touched.
pub(super) fn create(path: &Path) -> Result<LockedKey, RootKeyError> {
    let root = LockedKey::fill(|key| getrandom::fill(key).map_err(|_| RootKeyError::Random))?;
    let directory = directory_of(path);
    if !directory.exists() {
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .and_then(|()| File::open(directory_of(&directory))?.sync_all())
            .map_err(|source| failed(&directory, "make the directory", source))?;
    }
    check_directory(&directory)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| failed(path, "create", source))?;
    write_durably(&mut file, &root).and_then(|()| File::open(&directory)?.sync_all()).map_err(|source| {
        // Half a root key is of no use, and would stand in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        failed(path, "write", source)
    })?;
    Ok(root)
}

/// Reads a root key from its file.
pub(super) fn open(path: &Path) -> Result<LockedKey, RootKeyError> {
    check_directory(&directory_of(path))?;
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).expect("open(2) takes an int");
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| failed(path, "open", source))?;
    check_file(path, &file)?;

    let mut head = [0; 17];
    file.read_exact(&mut head).map_err(|source| failed(path, "read", source))?;
    if head[..16] != *MAGIC {
        return Err(malformed(path, "not a root key file"));
    }
    if head[16] != VERSION {
        return Err(malformed(path, "of another version of the software"));
    }
    let root = LockedKey::fill(|key| file.read_exact(key).map_err(|source| failed(path, "read", source)))?;
    let mut stored = [0; 8];
    file.read_exact(&mut stored).map_err(|source| failed(path, "read", source))?;
    if !bool::from(stored.ct_eq(&checksum(&root))) {
        return Err(malformed(path, "damaged: its checksum does not match"));
    }
    Ok(root)
}

fn write_durably(file: &mut File, root: &LockedKey) -> io::Result<()> {
    file.write_all(MAGIC)?;
    file.write_all(&[VERSION])?;
    // Exposed: the file is where the root key lives.
    file.write_all(root.expose())?;
    file.write_all(&checksum(root))?;
    file.sync_all()
}

fn checksum(root: &LockedKey) -> [u8; 8] {
    let digest = Sha256::new()
        .chain_update(CHECKSUM_LABEL)
        .chain_update(MAGIC)
        .chain_update([VERSION])
        // Exposed: hashed; the sum is kept beside the key.
        .chain_update(root.expose())
        .finalize();
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

fn check_file(path: &Path, file: &File) -> Result<(), RootKeyError> {
    let found = file.metadata().map_err(|source| failed(path, "stat", source))?;
    let exposed = |rule| Err(RootKeyError::Exposed { path: path.to_owned(), rule });
    if !found.is_file() {
        return exposed("must be a plain file");
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return exposed("must belong to the user that runs the vault");
    }
    if found.mode() & 0o077 != 0 {
        return exposed("group and others must have no access (mode 0600)");
    }
    if found.len() != LEN {
        return Err(malformed(path, "not of a root key file's size"));
    }
    Ok(())
}

fn check_directory(path: &Path) -> Result<(), RootKeyError> {
    let found = std::fs::metadata(path).map_err(|source| failed(path, "stat the directory", source))?;
    let exposed = |rule| Err(RootKeyError::Exposed { path: path.to_owned(), rule });
    if !found.is_dir() {
        return exposed("must lie in a directory");
    }
    if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
        return exposed("its directory must belong to root or to the user that runs the vault");
    }
    if found.mode() & 0o022 != 0 {
        return exposed("group and others must not be able to write to its directory");
    }
    Ok(())
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn failed(path: &Path, doing: &'static str, source: io::Error) -> RootKeyError {
    RootKeyError::Io { path: path.to_owned(), doing, source }
}

fn malformed(path: &Path, why: &'static str) -> RootKeyError {
    RootKeyError::Malformed { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf, LockedKey) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.key");
        let root = create(&path).unwrap();
        (dir, path, root)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_was_created_opens_as_the_same_key() {
        let (_dir, path, root) = made();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), LEN);
        assert!(open(&path).unwrap().expose() == root.expose());
    }

    #[test]
    fn create_makes_a_private_directory_and_never_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/root.key");
        create(&path).unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        let before = fs::read(&path).unwrap();
        assert!(matches!(create(&path), Err(RootKeyError::Io { doing: "create", .. })));
        assert!(before == fs::read(&path).unwrap());
    }

    #[test]
    fn open_refuses_a_file_or_directory_that_others_can_reach() {
        let (dir, path, _root) = made();
        for bad in [0o640, 0o620, 0o604, 0o602, 0o610] {
            mode(&path, bad);
            assert!(matches!(open(&path), Err(RootKeyError::Exposed { .. })), "{bad:o}");
        }
        mode(&path, 0o400);
        open(&path).unwrap();
        for bad in [0o770, 0o707, 0o1777] {
            mode(dir.path(), bad);
            assert!(matches!(open(&path), Err(RootKeyError::Exposed { .. })), "{bad:o}");
        }
    }

    #[test]
    fn open_refuses_another_users_file() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give a file away.
        }
        let (_dir, path, _root) = made();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(matches!(open(&path), Err(RootKeyError::Exposed { .. })));
    }

    #[test]
    fn open_refuses_a_symbolic_link_and_a_directory() {
        let (dir, path, _root) = made();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(open(&link), Err(RootKeyError::Io { doing: "open", .. })));
        assert!(matches!(open(dir.path()), Err(RootKeyError::Exposed { .. })));
    }

    #[test]
    fn open_refuses_every_changed_byte_and_every_other_length() {
        let (_dir, path, _root) = made();
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(open(&path), Err(RootKeyError::Malformed { .. })), "byte {at}");
        }
        for len in (0..good.len()).chain([good.len() + 1]) {
            let mut bad = good.clone();
            bad.resize(len, 0);
            fs::write(&path, &bad).unwrap();
            assert!(matches!(open(&path), Err(RootKeyError::Malformed { .. })), "length {len}");
        }
    }

    #[test]
    fn errors_hold_no_byte_of_the_file() {
        let (_dir, path, root) = made();
        let mut bad = fs::read(&path).unwrap();
        bad[56] ^= 1;
        fs::write(&path, bad).unwrap();
        let Err(error) = open(&path) else { panic!("opened") };
        let said = format!("{error} {error:?}");
        assert!(!said.contains(&hex::encode(&root.expose()[..4])));
    }
}
