//! Files and ports of a server.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::programs::give;

/// Below those that the kernel gives to outgoing connections: a killed server must find its port free again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Writes a file that only the server reads.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes())?;
    give(path)
}

/// A port on which nobody listens now.
pub(super) fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random)?;
        let port = PORTS.start + u16::from_be_bytes(random) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port")
}

/// Removes what a killed server has left: the segment of shared memory that it marks its directory with, which the
/// kernel would keep for ever, and `postmaster.pid`.
pub(super) fn clean_up(data: &Path) {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else { return };
    // The seventh line: key and id.
    if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        // If it is gone already, or the tool is missing, so be it.
        let _ = Command::new("ipcrm").args(["-m", id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    let _ = fs::remove_file(path);
}
