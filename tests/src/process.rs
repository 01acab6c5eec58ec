//! Starts the real binaries, talks to them as a user would, and ends them by their id.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::database::Database;

/// How long a vault may take to serve.
const START: Duration = Duration::from_mins(1);

/// A binary of this workspace, built beside the test that asks.
///
/// # Panics
/// If it is not there: `tests/run` builds it.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let dir = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not built: run tests/run, or `cargo build --workspace --bins --examples`",
        path.display()
    );
    path
}

/// A vault in a directory of its own: `vault-server dev`.
pub struct DevVault {
    child: Child,
    dir: PathBuf,
    profile: PathBuf,
    address: String,
    /// What it printed up to and after `ready`.
    pub printed: Vec<String>,
    stderr: PathBuf,
}

impl DevVault {
    /// Starts one in `dir`; an existing directory is taken up again. A new one has a new database, if vaults are to be
    /// kept in databases.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[], &[])
    }

    /// Starts one with further arguments and environment variables.
    pub fn start_with(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("vault-server"));
        command.arg("dev").arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]).args(args);
        let is_new = !dir.join("vault.toml").exists() && !args.contains(&"--postgres");
        if let Some(database) = is_new.then(Database::wanted).flatten() {
            command.args(["--postgres", &database.url()]);
        }
        Self::spawn(command, dir, dir.join("profile.toml"), env, Ready::Printed)
    }

    /// Serves a configuration: `vault-server serve`.
    pub fn serve(dir: &Path, config: &Path, profile: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("vault-server"));
        command.arg("serve").arg("--config").arg(config);
        Self::spawn(command, dir, profile.to_owned(), env, Ready::Logged)
    }

    /// As [`DevVault::serve`]; `Err`: it ended by itself before it served.
    pub fn try_serve(dir: &Path, config: &Path, profile: &Path, env: &[(&str, &str)]) -> Result<Self, Ended> {
        let mut command = Command::new(binary("vault-server"));
        command.arg("serve").arg("--config").arg(config);
        Self::try_spawn(command, dir, profile.to_owned(), env, Ready::Logged)
    }

    fn spawn(command: Command, dir: &Path, profile: PathBuf, env: &[(&str, &str)], ready: Ready) -> Self {
        Self::try_spawn(command, dir, profile, env, ready)
            .unwrap_or_else(|ended| panic!("vault-server did not get ready; it printed:\n{}", ended.printed))
    }

    fn try_spawn(
        mut command: Command,
        dir: &Path,
        profile: PathBuf,
        env: &[(&str, &str)],
        ready: Ready,
    ) -> Result<Self, Ended> {
        fs::create_dir_all(dir).unwrap();
        let stderr = dir.with_extension("stderr.log");
        let log = File::options().create(true).append(true).open(&stderr).unwrap();
        let before = log.metadata().unwrap().len();
        let mut child = command
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("vault-server starts");
        let out = child.stdout.take().expect("piped");
        let lines = follow(out);
        let started = match ready {
            Ready::Printed => wait_ready(&lines),
            Ready::Logged => wait_serving(&mut child, &stderr, before).ok_or_else(Vec::new),
        };
        let (address, printed) = match started {
            Ok(ready) => ready,
            Err(printed) => {
                let by_itself = child.try_wait().expect("wait");
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(&stderr).unwrap_or_default();
                let printed = format!("{}\n{log}", printed.join("\n"));
                return Err(Ended { signal: by_itself.and_then(|status| status.signal()), printed });
            }
        };
        Ok(Self { child, dir: dir.to_owned(), profile, address, printed, stderr })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The client profile.
    pub fn profile(&self) -> &Path {
        &self.profile
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything it wrote to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Asks it to stop (SIGTERM) and waits; gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        terminate(self.child.id());
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < until, "vault-server does not stop");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it ends by itself; gives its exit code.
    pub fn ended(self, within: Duration) -> Option<i32> {
        self.ended_with(within).code()
    }

    /// Waits until it ends by itself; gives how.
    pub fn ended_with(mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < until, "vault-server does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A change that makes more of somebody: asked for with `command`, and approved by another admin for the same tenant.
    ///
    /// # Panics
    /// If it does not go so.
    pub fn by_two(&self, command: Ctl, approver: &str, tenant: &str) -> Ran {
        let id = waits(command);
        self.ctl(approver, &["--tenant", tenant, "principals", "approve", &id]).ok()
    }

    /// A `vaultctl` call against it as one of its identities.
    pub fn ctl<S: AsRef<OsStr>>(&self, identity: &str, args: &[S]) -> Ctl {
        let mut command = Command::new(binary("vaultctl"));
        command.arg("--profile").arg(&self.profile).arg("--as").arg(identity).args(args);
        Ctl { command, stdin: Vec::new() }
    }
}

/// A server that ended before it served.
pub struct Ended {
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed.
    pub printed: String,
}

/// How a server says that it serves.
#[derive(Clone, Copy)]
enum Ready {
    /// `dev`: by a line on stdout.
    Printed,
    /// `serve`: by a line of its log.
    Logged,
}

impl Drop for DevVault {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a process politely.
pub fn terminate(pid: u32) {
    let status = Command::new("kill").arg("-TERM").arg(pid.to_string()).status();
    assert!(status.is_ok_and(|s| s.success()), "kill -TERM {pid}");
}

fn follow(out: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Waits for the line of the log that says where it serves; `None` if the server ended or took too long.
fn wait_serving(child: &mut Child, log: &Path, from: u64) -> Option<(String, Vec<String>)> {
    let until = Instant::now() + START;
    let from = usize::try_from(from).ok()?;
    while Instant::now() < until {
        let text = fs::read(log).ok()?;
        let text = String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned();
        let serving = text.lines().find(|line| line.contains("serving") && line.contains("environment="));
        if let Some((_, address)) = serving.and_then(|line| line.split_once("address=")) {
            return Some((address.split_whitespace().next()?.to_owned(), Vec::new()));
        }
        if child.try_wait().ok()?.is_some() {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Reads up to the `ready` line and what follows it within a moment.
fn wait_ready(lines: &mpsc::Receiver<String>) -> Result<(String, Vec<String>), Vec<String>> {
    let until = Instant::now() + START;
    let mut printed = Vec::new();
    let mut address = None;
    loop {
        let left = if address.is_some() {
            Duration::from_millis(300)
        } else {
            until.saturating_duration_since(Instant::now())
        };
        match lines.recv_timeout(left) {
            Ok(line) => {
                if line.starts_with("ready") {
                    address = line.split_once("https://").map(|(_, rest)| {
                        rest.chars().take_while(|c| !c.is_whitespace() && *c != '/').collect::<String>()
                    });
                }
                printed.push(line);
            }
            Err(_) => return address.map(|address| (address, printed.clone())).ok_or(printed),
        }
    }
}

/// A call of `vaultctl`.
pub struct Ctl {
    command: Command,
    stdin: Vec<u8>,
}

impl Ctl {
    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it.
    pub fn run(mut self) -> Ran {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("vaultctl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = std::mem::take(&mut self.stdin);
        let writer = thread::spawn(move || {
            let _ = stdin.write_all(&bytes);
        });
        let Output { status, stdout, stderr } = child.wait_with_output().expect("vaultctl ends");
        let _ = writer.join();
        Ran {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs it; it must end with `code`.
    pub fn ends(self, code: i32) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, Some(code), "stdout:\n{}\nstderr:\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs it; it must be done without an error.
    pub fn ok(self) -> Ran {
        self.ends(0)
    }
}

/// What a call left.
pub struct Ran {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed beside.
    pub stderr: String,
}

/// Runs a command that asks for what makes more of somebody: the change's id.
///
/// # Panics
/// If it does not wait for another person.
pub fn waits(command: Ctl) -> String {
    let ran = command.ends(6);
    let (_, from) = ran.stderr.split_once(" principals approve ").unwrap();
    from.split_whitespace().next().unwrap().to_owned()
}

impl Ran {
    /// What it printed, without the last newline.
    pub fn line(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }
}
