//! A full disk: nothing more is acknowledged, the process says why and ends, and what was acknowledged is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vault_tests::database::Database;
use vault_tests::process::DevVault;

/// A small file system in memory, gone with the value.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this user can't mount one.
    pub(crate) fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: the full disk (this user can't mount a tmpfs)");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_server_and_loses_nothing_acknowledged() {
    if Database::is_wanted() {
        println!("skipped: the full disk of an embedded store (the vaults are kept in databases)");
        return;
    }
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("vault");
    let Some(_disk) = Tmpfs::mount(&home, "size=256m,mode=700") else { return };
    let vault = DevVault::start(&home);
    let note = "n".repeat(60_000);
    let tokenize = |vault: &DevVault| {
        vault.ctl("service", &["--timeout", "3s", "tokenize", "--class", "text"]).stdin(note.as_str()).run()
    };
    let mut acknowledged = vec![tokenize(&vault).line().to_owned()];
    // All but a little of the disk is taken.
    let filler = home.join("filler");
    let _ = fs::write(&filler, vec![0; 300 << 20]);
    let taken = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(taken - (1 << 20)).unwrap();
    let failed = (0..200).find_map(|_| {
        let ran = tokenize(&vault);
        if ran.code == Some(0) {
            acknowledged.push(ran.line().to_owned());
            return None;
        }
        Some(ran)
    });
    let failed = failed.expect("the disk is full");
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(4), ""), "{}", failed.stderr);
    let ended = vault.ended(Duration::from_secs(30));
    assert_eq!(ended, Some(4), "a store that failed is told apart from other errors");
    // Room again: it starts, and everything acknowledged is there.
    fs::remove_file(&filler).unwrap();
    let vault = DevVault::start(&home);
    for token in &acknowledged {
        let ran = vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ok();
        assert!(ran.line() == note, "an acknowledged value is not what it was");
    }
}
