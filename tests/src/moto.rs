//! moto: someone else's AWS KMS, to prove that the wire is AWS's and not just our own idea of it.
//!
//! `PHI_VAULT_MOTO` names the `moto_server` to use (`tests/run` installs one). Without it, one is installed from PyPI
//! into `target/test-tools/venv` on first use. Where that cannot be, [`Moto::start`] says so and returns `None`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const REQUIREMENT: &str = "moto[server]==5.2.*";
/// It loads slowly on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running moto server; killed when dropped.
pub struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    /// Starts one. `None`, after saying why, if it is not to be had here.
    pub fn start() -> Option<Self> {
        let named = std::env::var_os("PHI_VAULT_MOTO").map(|path| Ok(PathBuf::from(path)));
        match named.unwrap_or_else(install).and_then(|server| Self::launch(&server)) {
            Ok(moto) => Some(moto),
            Err(error) => {
                println!("skipped: moto is not to be had here: {error:#}");
                None
            }
        }
    }

    /// `http://127.0.0.1:<port>`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn launch(server: &Path) -> anyhow::Result<Self> {
        // Taken and given back: moto cannot tell which port it took by itself.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("moto_server")?;
        let mut moto = Self { child, port };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = moto.child.try_wait()? {
                bail!("moto_server ended: {status}");
            }
            if begin.elapsed() > PATIENCE {
                bail!("moto_server did not answer within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(moto)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server in a virtual environment, which is made if it is missing.
fn install() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let venv = root.join("target/test-tools/venv");
    let server = venv.join("bin/moto_server");
    if server.exists() {
        return Ok(server);
    }
    std::fs::create_dir_all(&venv)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", REQUIREMENT]))?;
    Ok(server)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
