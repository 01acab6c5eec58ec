//! Ends a server whose tester has ended without doing so: killed, or holding it in a static.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Its standard input ends when the tester does, however that comes about. `postmaster.pid` is there exactly as long as
/// the server runs. One that is paused must go on in order to end.
const SCRIPT: &str = r#"
read -r word
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) || pid=
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    kill -CONT "$pid"
    tries=0
    while [ -e "$0/data/postmaster.pid" ] && [ "$tries" -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
fi
rm -rf -- "$0"
"#;

/// Watches over one server; ended when dropped.
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    /// Watches over the server in `home`.
    pub(super) fn watch(home: &Path) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("sh")?;
        Ok(Self { child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before its input ends: the server is looked after.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
