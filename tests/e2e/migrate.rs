//! A vault moved to PostgreSQL, killed on the way, served there, and moved back: every token, and the log, come along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use vault_tests::data;
use vault_tests::database::Database;
use vault_tests::postgres::Server;
use vault_tests::process::{DevVault, binary};
use vault_tests::site::Site;

/// How often the first move is killed.
const KILLS: u32 = 6;

/// A vault, the database that it can be moved to, and what is compared before and after.
struct Moved {
    _dir: TempDir,
    site: Site,
    server: &'static Server,
    database: String,
    input: PathBuf,
    tokenized: PathBuf,
    erased: String,
}

impl Moved {
    /// An embedded vault with people in it, stopped; `None` without PostgreSQL.
    fn new() -> Option<Self> {
        if Database::is_wanted() {
            println!("skipped: moving a vault (it begins on the embedded engine, and was moved there)");
            return None;
        }
        let Some(server) = Server::shared() else {
            println!("skipped: no PostgreSQL to move a vault to");
            return None;
        };
        let dir = TempDir::new().unwrap();
        let site = Site::make(&dir.path().join("vault"));
        let database = server.create_database();
        let url = server.url(&database);
        let (user, host) =
            url.split_once("://").unwrap().1.split('/').next().unwrap().split_once('@').unwrap();
        let user = user.split(':').next().unwrap();
        site.edit("vault.toml", |text| {
            let section = format!(
                "\n[store]\nengine = \"fjall\"\n\n[store.postgres]\nhosts = [\"{host}\"]\ndatabase = \"{database}\"\n\
                 user = \"{user}\"\ntls = \"off\"\nlease = \"2s\"\n"
            );
            text.replace("\n[kms]", &format!("{section}\n[kms]"))
        });
        let input = data::larger("synthea_csv/patients.csv").unwrap_or_else(|| data::own("patients.csv"));
        let tokenized = dir.path().join("tokenized.csv");
        let vault = site.serve();
        let (from, to) = (input.display().to_string(), tokenized.display().to_string());
        let mut import = vec!["import", &from, "--subject", "ID", "--out", &to];
        for map in ["SSN=ssn", "FIRST=name", "LAST=name", "ADDRESS=address", "BIRTHDATE=dob"] {
            import.extend(["--map", map]);
        }
        vault.ctl("service", &import).ok();
        let token = vault.ctl("service", &["tokenize", "--class", "ssn", "--subject", "gone"]);
        let erased = token.stdin("999-31-4101\n").ok().line().to_owned();
        vault.ctl("service", &["erase", "--subject", "gone"]).ok();
        assert_eq!(vault.stop(), Some(0));
        Some(Self { _dir: dir, site, server, database, input, tokenized, erased })
    }

    fn command(&self, from: &str, to: &str) -> Command {
        let mut command = Command::new(binary("vault-server"));
        command.arg("migrate").arg("--config").arg(self.site.dir().join("vault.toml"));
        command.args(["--from", from, "--to", to]);
        command
    }

    fn migrate(&self, from: &str, to: &str) -> Output {
        self.command(from, to).output().unwrap()
    }

    /// It must be done without an error; what it prints.
    fn migrates(&self, from: &str, to: &str) -> String {
        let output = self.migrate(from, to);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    }

    /// It must be refused; why.
    fn refuses(&self, from: &str, to: &str) -> String {
        let output = self.migrate(from, to);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    }

    fn use_engine(&self, engine: &str) {
        self.site.edit("vault.toml", |text| {
            let line = text.lines().find(|line| line.starts_with("engine = ")).unwrap().to_owned();
            text.replace(&line, &format!("engine = \"{engine}\""))
        });
    }

    /// A server refuses the store; why.
    fn is_not_served(&self) -> String {
        let output = Command::new(binary("vault-server"))
            .arg("serve")
            .arg("--config")
            .arg(self.site.dir().join("vault.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Serves it: every token gives its value, what was erased does not, and the log verifies; `log` is a directory
    /// for its export, and `before` a checkpoint that it must extend.
    fn is_whole(&self, log: &Path, before: Option<&Path>) {
        let vault = self.site.serve();
        let restored = log.with_extension("restored.csv").display().to_string();
        let tokenized = self.tokenized.display().to_string();
        vault.ctl("service", &["export", &tokenized, "--purpose", "TREAT", "--out", &restored]).ok();
        assert!(fs::read(&restored).unwrap() == fs::read(&self.input).unwrap(), "not the original");
        vault.ctl("service", &["detokenize", &self.erased, "--purpose", "TREAT"]).ends(1);
        verify_log(&vault, log, before);
        assert_eq!(vault.stop(), Some(0));
    }

    /// How many records are in the database.
    fn records(&self) -> u64 {
        let is_there = self.sql("SELECT to_regclass('records') IS NOT NULL") == "t";
        if is_there { self.sql("SELECT count(*) FROM records").parse().unwrap() } else { 0 }
    }

    fn sql(&self, text: &str) -> String {
        let rows = self.server.sql(&self.database, text).unwrap();
        rows.first().and_then(|row| row[0].clone()).unwrap_or_default()
    }
}

fn verify_log(vault: &DevVault, log: &Path, before: Option<&Path>) {
    let (dir, key) = (log.display().to_string(), log.with_extension("vkey").display().to_string());
    vault.ctl("auditor", &["audit", "export", "--dir", &dir, "--key-out", &key]).ok();
    let mut verify = vec!["audit", "verify", "--dir", &dir, "--key", &key];
    let old = before.map(|before| before.join("checkpoint").display().to_string());
    if let Some(old) = &old {
        verify.extend(["--old-checkpoint", old]);
    }
    vault.ctl("auditor", &verify).ok();
}

#[test]
fn a_vault_moves_to_postgresql_through_kills_and_back() {
    let Some(moved) = Moved::new() else { return };
    let logs = TempDir::new().unwrap();
    let log = |name: &str| logs.path().join(name);
    moved.is_whole(&log("first"), None);

    let dry =
        String::from_utf8(moved.command("embedded", "postgres").arg("--dry-run").output().unwrap().stdout);
    assert!(dry.unwrap().starts_with("to be moved: "));
    assert_eq!(moved.sql("SELECT to_regclass('records') IS NULL"), "t", "a dry run makes nothing");

    // Killed when it has come a little farther; each goes on where the one before was.
    let (mut rows, mut killed) = (0, 0);
    for kill in 0..KILLS {
        let mut child = moved.command("embedded", "postgres").stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && moved.records() <= rows {
            sleep(Duration::from_millis(1));
        }
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let now = moved.records();
        println!("kill {kill}: {now} records are there");
        assert!(now >= rows, "records went away");
        rows = now;
    }
    assert!(killed >= 2, "only {killed} of the moves were killed before their end");
    let unfinished = moved.sql("SELECT count(*) FROM leases WHERE name = 'migration' AND expires > 0") == "1";
    if unfinished {
        moved.use_engine("postgres");
        let why = moved.is_not_served();
        assert!(why.contains("a move to it has not ended"), "{why}");
        moved.use_engine("fjall");
    }
    let said = moved.migrates("embedded", "postgres");
    println!("{killed} kills, unfinished after them: {unfinished}\n{said}");
    assert!(said.contains("engine = \"postgres\""), "{said}");
    assert!(moved.migrates("embedded", "postgres").contains("all is there already"));

    moved.use_engine("postgres");
    moved.is_whole(&log("second"), Some(&log("first")));
    let why = moved.refuses("embedded", "postgres");
    assert!(why.contains("is in the new store only"), "it was used: {why}");

    // Back, beside the directory that it came from, which is of use no more.
    assert!(moved.refuses("postgres", "embedded").contains("already this vault's"));
    moved.site.edit("vault.toml", |text| text.replace("[store]\n", "[store]\ndir = \"data/again\"\n"));
    let running = moved.site.serve();
    let why = moved.refuses("postgres", "embedded");
    assert!(why.contains("an instance is at work"), "{why}");
    assert_eq!(running.stop(), Some(0));
    let said = moved.migrates("postgres", "embedded");
    assert!(said.contains("engine = \"fjall\""), "{said}");
    moved.use_engine("fjall");
    moved.is_whole(&log("third"), Some(&log("second")));
}

#[test]
fn a_row_altered_or_lost_in_the_new_store_is_found() {
    let Some(moved) = Moved::new() else { return };
    moved.migrates("embedded", "postgres");
    let token = moved.sql("SELECT encode(token, 'hex') FROM records ORDER BY token OFFSET 100 LIMIT 1");
    let of = format!("WHERE token = decode('{token}', 'hex')");
    moved.sql(&format!("UPDATE records SET tenant = 'other' {of}"));
    let why = moved.refuses("embedded", "postgres");
    assert!(why.contains(&format!("corrupt record {token}")), "{why}");
    moved.sql(&format!("DELETE FROM records {of}"));
    let why = moved.refuses("embedded", "postgres");
    assert!(why.contains(&format!("record {token}: is in the old store only")), "{why}");
}

#[test]
fn no_log_is_lost_on_the_way_to_a_store_that_has_one() {
    let Some(moved) = Moved::new() else { return };
    moved.migrates("embedded", "postgres");
    moved.use_engine("postgres");
    moved.site.edit("vault.toml", |text| text.replace("[store]\n", "[store]\ndir = \"data/again\"\n"));
    let instances = [moved.site.serve(), moved.site.serve()];
    assert_eq!(instances.map(DevVault::stop), [Some(0); 2]);
    let why = moved.refuses("postgres", "embedded");
    assert!(why.contains("entries in log 1: only log 0 can be moved. See --logs-to"), "{why}");
}
