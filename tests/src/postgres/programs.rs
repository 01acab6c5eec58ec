//! The programs of PostgreSQL, and the user they run as.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// `nobody` and its group, where this process is root's.
const NOBODY: u32 = 65534;

/// Where the programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// Those of `PHI_VAULT_POSTGRES_BIN`, if they run. `None`, after saying why, if not.
    pub(super) fn find() -> Option<Self> {
        let Some(bin) = std::env::var_os("PHI_VAULT_POSTGRES_BIN") else {
            println!("skipped: PostgreSQL is not to be had here: PHI_VAULT_POSTGRES_BIN is not set");
            return None;
        };
        let programs = Self { bin: bin.into() };
        match programs.run("postgres", &["--version".into()]) {
            Ok(()) => Some(programs),
            Err(error) => {
                println!("skipped: PostgreSQL is not to be had here: {error:#}");
                None
            }
        }
    }

    /// A call of one of them, as the user it may run as and out of reach of the terminal's signals.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.stdin(Stdio::null()).current_dir("/").process_group(0);
        // libpq would take what the tester has set for servers of their own.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs one to its end.
    pub(super) fn run(&self, name: &str, arguments: &[OsString]) -> Result<()> {
        let mut command = self.command(name);
        let output =
            command.args(arguments).output().with_context(|| self.bin.join(name).display().to_string())?;
        if !output.status.success() {
            bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// Gives a file or directory to the user that the programs run as.
pub(super) fn give(path: &Path) -> Result<()> {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
