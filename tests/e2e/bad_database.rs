//! A database that is not what a vault needs, or not any more: the start is refused in one clear line; a running vault
//! acknowledges nothing that is not durable, and goes on by itself once the database does.

mod full;
mod hostile;
mod load;
mod refused;
mod running;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vault_tests::process::{DevVault, binary};
use vault_tests::site::Site;

/// Within this a start has failed, whatever the database does. Of three servers none answers within 5 s each.
const BOUND: Duration = Duration::from_secs(30);

/// The most memory that a failed start may have had.
const MOST_KIB: u64 = 512 << 10;

/// Certificates, principals and a root key; and configurations that differ in their database.
struct Home {
    _dir: TempDir,
    site: Site,
}

impl Home {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let site = Site::make(&dir.path().join("vault"));
        Self { _dir: dir, site }
    }

    /// A configuration with this `[store.postgres]`.
    fn config(&self, name: &str, section: &str) -> PathBuf {
        let text = fs::read_to_string(self.site.dir().join("vault.toml")).unwrap();
        let (head, kms) = text.split_once("\n[kms]").unwrap();
        let head = head.split("\n[store]").next().unwrap();
        let file = self.site.dir().join(format!("{name}.toml"));
        let store = format!("[store]\nengine = \"postgres\"\n\n[store.postgres]\n{section}");
        fs::write(&file, format!("{head}\n{store}\n[kms]{kms}")).unwrap();
        file
    }

    /// `vault-server serve` with it does serve.
    fn serve(&self, config: &Path) -> DevVault {
        self.site.serve_with(config)
    }

    /// It must end by itself: soon, with code 1, with little memory, and with a line that has each of `words`.
    fn refuses(config: &Path, words: &[&str]) -> String {
        let ended = Ended::of(config, BOUND);
        ended.is_clear();
        for word in words {
            assert!(ended.says.contains(word), "{}: no {word:?} in:\n{}", config.display(), ended.says);
        }
        ended.says
    }
}

/// `hosts`, `database` and `user`, and no TLS.
fn plain(port: u16, database: &str, user: &str) -> String {
    format!("hosts = [\"127.0.0.1:{port}\"]\ndatabase = \"{database}\"\nuser = \"{user}\"\ntls = \"off\"\n")
}

/// What became of a start.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) says: String,
    peak_kib: u64,
}

impl Ended {
    pub(crate) fn of(config: &Path, within: Duration) -> Self {
        let out = config.with_extension("stderr");
        let mut child = Command::new(binary("vault-server"))
            .args(["serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&out).unwrap())
            .spawn()
            .unwrap();
        let (until, mut peak_kib) = (Instant::now() + within, 0);
        let code = loop {
            peak_kib = peak_kib.max(peak(&child).unwrap_or(0));
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                let says = fs::read_to_string(&out).unwrap_or_default();
                panic!("{}: it does not end:\n{says}", config.display());
            }
            thread::sleep(Duration::from_millis(5));
        };
        Self { code, says: String::from_utf8(fs::read(out).unwrap()).unwrap(), peak_kib }
    }

    fn is_clear(&self) {
        let says = &self.says;
        assert_eq!(self.code, Some(1), "{says}");
        assert!(!says.contains("panicked"), "{says}");
        assert!((1..MOST_KIB).contains(&self.peak_kib), "{} KiB: {says}", self.peak_kib);
        let errors = says.lines().skip_while(|line| !line.starts_with("error: "));
        let errors: Vec<_> = errors.collect();
        let [error, because] = &errors[..] else { panic!("not one error and its reason:\n{says}") };
        assert!(error.starts_with("error: store on ") && because.starts_with("  because: "), "{says}");
        for line in says.lines() {
            assert!(line.len() < 1000, "a line of {} bytes", line.len());
        }
        for line in [error, because] {
            assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
        }
    }
}

/// `VmHWM`: the most memory it had so far.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
