//! Random values go through every call; afterwards they are looked for wherever they must not be.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vault_tests::canary::Canaries;
use vault_tests::database::Database;
use vault_tests::process::{DevVault, Ran};
use vault_tests::site::Site;
use vault_tests::wire;

/// How many canaries there are of each kind; 64 in all.
const EACH: usize = 8;

/// Random letters and digits that occur nowhere by accident.
fn random() -> String {
    let mut bytes = [0; 9];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

fn several(make: impl Fn(String) -> String) -> Vec<String> {
    (0..EACH).map(|_| make(random())).collect()
}

/// What is looked for.
struct Values {
    /// By class, valid in it.
    good: Vec<(&'static str, Vec<String>)>,
    /// By class, not valid in it.
    bad: Vec<(&'static str, Vec<String>)>,
    subjects: Vec<String>,
}

impl Values {
    fn random() -> Self {
        let digits =
            |text: String| -> String { text.bytes().map(|byte| char::from(b'0' + byte % 10)).collect() };
        let ssn = |text: String| {
            // Neither group may be zero.
            let digits = digits(text);
            format!("999-1{}-1{}", &digits[..1], &digits[1..4])
        };
        Self {
            good: vec![
                ("name", several(|text| format!("Orla {text}"))),
                ("address", several(|text| format!("12 {text} Lane"))),
                ("text", several(|text| format!("note about {text}"))),
                ("ssn", several(ssn)),
            ],
            bad: vec![
                ("ssn", several(|text| format!("bad {text}"))),
                ("dob", several(|text| format!("born {text}"))),
                ("card", several(|text| format!("{}x", digits(text)))),
            ],
            subjects: several(|text| format!("person {text}")),
        }
    }

    fn all(&self) -> Vec<&str> {
        let values = self.good.iter().chain(&self.bad).flat_map(|(_, values)| values);
        values.chain(&self.subjects).map(String::as_str).collect()
    }
}

/// What was printed where no value may be.
#[derive(Default)]
struct Printed(String);

impl Printed {
    fn keep(&mut self, ran: &Ran) {
        self.0.push_str(&ran.stderr);
    }
}

/// Every call that takes a value or a subject, through `vaultctl`; the tokens that were made.
fn use_it(vault: &DevVault, values: &Values, printed: &mut Printed) -> Vec<String> {
    let mut tokens = Vec::new();
    for (class, values_of_class) in &values.good {
        for (value, subject) in values_of_class.iter().zip(&values.subjects) {
            let tokenize = ["tokenize", "--class", class, "--subject", subject];
            let ran = vault.ctl("service", &tokenize).stdin(value.as_str()).ok();
            tokens.push(ran.line().to_owned());
            printed.keep(&ran);
        }
        let find = vault.ctl("service", &["find", "--class", class]).stdin(values_of_class[0].as_str()).run();
        printed.keep(&find);
        // A class that is not searched says so; neither answer holds the value.
        assert_eq!(find.code == Some(0), find.stdout.contains("phi_dev_"), "{class}: {}", find.stderr);
        printed.0.push_str(&find.stdout);
    }
    for (class, values) in &values.bad {
        for value in values {
            let ran = vault.ctl("service", &["tokenize", "--class", class]).stdin(value.as_str()).ends(1);
            printed.keep(&ran);
            printed.0.push_str(&ran.stdout);
            printed.keep(&vault.ctl("service", &["find", "--class", class]).stdin(value.as_str()).run());
        }
    }
    let arguments = |command: &'static str| -> Vec<String> {
        std::iter::once(command.to_owned()).chain(tokens.iter().cloned()).collect()
    };
    let masks = vault.ctl("console", &arguments("mask")).ok();
    printed.keep(&masks);
    printed.0.push_str(&masks.stdout);
    let described = vault.ctl("service", &arguments("describe")).ok();
    printed.keep(&described);
    printed.0.push_str(&described.stdout);
    let mut detokenize = arguments("detokenize");
    detokenize.extend(["--purpose".to_owned(), "TREAT".to_owned()]);
    let opened = vault.ctl("service", &detokenize).ok();
    for (_, values) in &values.good {
        assert!(values.iter().all(|value| opened.stdout.contains(value)), "they come back");
    }
    printed.keep(&opened);
    printed.keep(&vault.ctl("console", &detokenize).ends(3));
    for subject in &values.subjects {
        let query = ["--json", "audit", "query", "--subject", subject, "--limit", "100"];
        let ran = vault.ctl("auditor", &query).ok();
        assert!(ran.stdout.contains("tokenize"), "the subject is found in the log");
        printed.keep(&ran);
        printed.0.push_str(&ran.stdout);
    }
    tokens
}

/// Reads `/metrics` as Prometheus would.
async fn metrics(vault: &DevVault) -> String {
    let log = vault.log();
    let line = log.lines().find(|line| line.contains("metrics are served")).expect("metrics are served");
    let address = line.split_once("address=").unwrap().1.split_whitespace().next().unwrap();
    let pki = vault.dir().join("pki");
    let mut stream = wire::tls(&pki, "admin", address, b"http/1.1").await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// A caller has its answer, and is gone, a moment before the server has let go of its connection: on a machine that is
/// busy with other tests that moment can be seen. What is kept for longer is a leak.
const MOMENT: Duration = Duration::from_secs(2);

fn nothing_in_memory(vault: &DevVault, canaries: &Canaries) {
    let until = Instant::now() + MOMENT;
    let scanned = loop {
        let scanned = canaries.scan_memory(vault.pid());
        if scanned.as_ref().is_none_or(|(_, hits)| hits.is_empty()) || Instant::now() > until {
            break scanned;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    match scanned {
        Some((read, hits)) => {
            assert!(read > 1 << 20, "only {read} bytes of memory were read");
            assert_eq!(hits, []);
        }
        None => println!("skipped: memory scan (the process's memory can't be read by this user)"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_stays_anywhere_after_it_was_used() {
    let dir = TempDir::new().unwrap();
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    site.edit("vault.toml", |text| format!("{text}\n[metrics]\nlisten = \"127.0.0.1:0\"\n"));
    let vault = site.dev();
    let values = Values::random();
    let all = values.all();
    assert_eq!(all.len(), 64);
    let canaries = Canaries::new(all);
    let mut printed = Printed::default();
    let tokens = use_it(&vault, &values, &mut printed);
    nothing_in_memory(&vault, &canaries);

    for subject in &values.subjects {
        printed.keep(&vault.ctl("service", &["erase", "--subject", subject]).ok());
    }
    let gone = vault.ctl("service", &["detokenize", &tokens[0], "--purpose", "TREAT"]).ends(1);
    assert_eq!(gone.stdout, "");
    printed.keep(&gone);

    let log = dir.path().join("log");
    let (to, key) = (log.display().to_string(), dir.path().join("log.vkey").display().to_string());
    printed.keep(&vault.ctl("auditor", &["audit", "export", "--dir", &to, "--key-out", &key]).ok());
    let metrics = metrics(&vault).await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("tokenize"), "{metrics}");
    assert_eq!(canaries.scan("metrics", metrics.as_bytes()), []);
    assert_eq!(canaries.scan_dir(dir.path()), []);
    nothing_in_database(&site, &canaries);
    assert_eq!(canaries.scan("what was printed", printed.0.as_bytes()), []);
    assert_eq!(canaries.scan("the server's log", vault.log().as_bytes()), []);
    assert_eq!(canaries.scan("the server's output", vault.printed.join("\n").as_bytes()), []);
    nothing_in_memory(&vault, &canaries);
    assert_eq!(vault.stop(), Some(0));
    assert_eq!(canaries.scan_dir(dir.path()), [], "after the stop");
    nothing_in_database(&site, &canaries);
}

/// Whatever a database's administrator can read, where the vault is kept in one.
fn nothing_in_database(site: &Site, canaries: &Canaries) {
    if let Some(database) = site.database() {
        assert_eq!(database.scan(canaries), []);
    }
}

#[test]
fn what_does_stand_in_a_database_is_found() {
    let Some(database) = Database::create() else { return };
    let (text, bytes) = (random(), random());
    database.sql("CREATE TABLE plain (text text, bytes bytea)");
    database.sql(&format!("INSERT INTO plain VALUES ('a {text} b', convert_to('a {bytes} b', 'UTF8'))"));
    for value in [&text, &bytes] {
        let hits = database.scan(&Canaries::new([value.as_str()]));
        assert!(hits.iter().any(|hit| hit.place.starts_with("plain")), "the scanner is blind to rows");
        let in_file = hits.iter().any(|hit| hit.place.contains("/base/"));
        assert!(in_file || database.files().is_none(), "the scanner is blind to files");
    }
    assert_eq!(database.scan(&Canaries::new([random().as_str()])), []);
}

#[test]
fn the_root_key_is_not_in_readable_memory() {
    let dir = TempDir::new().unwrap();
    let held = random();
    let vault = DevVault::start_with(&dir.path().join("vault"), &[], &[("HELD", &held)]);
    vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    // The control: what this very process does hold is found.
    if let Some((_, hits)) = Canaries::new([held.as_str()]).scan_memory(vault.pid()) {
        assert!(!hits.is_empty(), "the scanner is blind");
    }
    let file = fs::read(vault.dir().join("root.key")).unwrap();
    // Magic and version go before it; see the module `root_key`.
    let canaries = Canaries::of_bytes([&file[17..49]]);
    assert!(!canaries.scan("the file", &file).is_empty(), "the scanner knows the key");
    nothing_in_memory(&vault, &canaries);
}

/// A process that is ended with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_scanner_finds_a_value_in_the_memory_of_a_process_that_holds_it() {
    let value = random();
    let held = Command::new("sleep").arg("60").env("HELD", &value).stdin(Stdio::null()).spawn().unwrap();
    let held = Holder(held);
    let canaries = Canaries::new([value.as_str()]);
    let bytes = Canaries::of_bytes([value.as_bytes()]);
    let until = Instant::now() + Duration::from_secs(5);
    // Until it has become `sleep`, it is a copy of this process.
    while !fs::read_to_string(format!("/proc/{}/comm", held.0.id())).is_ok_and(|name| name.trim() == "sleep")
    {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    for canaries in [canaries, bytes] {
        let Some((_, hits)) = canaries.scan_memory(held.0.id()) else {
            println!("skipped: memory scan (the process's memory can't be read by this user)");
            return;
        };
        assert!(!hits.is_empty(), "the scanner is blind");
    }
}
