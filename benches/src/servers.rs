//! The two servers, each a process of its own, ended by their id when the measurement ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use tempfile::TempDir;

/// The vault on its embedded default, and the echo, with the vault's certificates.
pub(crate) struct Servers {
    processes: Vec<Child>,
    _dir: TempDir,
    pub(crate) pki: PathBuf,
    pub(crate) vault_address: String,
    pub(crate) echo_address: String,
}

impl Servers {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let server = here.with_file_name("vault-server");
        anyhow::ensure!(server.exists(), "build it first: cargo build --release --bin vault-server");
        // Beside the binary: the store's directory is on a disk that syncs, not on a tmpfs.
        let dir = TempDir::new_in(here.parent().unwrap_or(Path::new(".")))?;
        let home = dir.path().join("vault");
        let mut command = Command::new(server);
        command.arg("dev").arg("--dir").arg(&home).args(["--listen", "127.0.0.1:0"]).stderr(Stdio::null());
        let (vault, vault_address) = ready(command)?;
        let pki = home.join("pki");
        let mut command = Command::new(&here);
        command.arg("echo").arg("--pki").arg(&pki);
        let (echo, echo_address) = ready(command)?;
        Ok(Self { processes: vec![vault, echo], _dir: dir, pki, vault_address, echo_address })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Starts a server and waits for its line that begins with `ready`; gives `host:port`.
pub(crate) fn ready(mut command: Command) -> anyhow::Result<(Child, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start a server")?;
    let out = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(out).lines();
    let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let address = line.strip_prefix("ready")?.split_once("https://")?.1;
        Some(address.split([' ', '/']).next()?.to_owned())
    });
    // What else it prints is not of interest, but must go somewhere.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok((child, address.context("the server ended before it was ready")?))
}
