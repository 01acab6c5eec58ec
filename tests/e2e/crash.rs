//! The server killed in the middle of its work: what was acknowledged is there.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vault_tests::data;
use vault_tests::process::{DevVault, binary};

/// How often the server is killed.
const KILLS: u32 = 20;

/// A CSV large enough that an import takes a while.
fn large_csv(path: &Path, rows: u32) {
    let source = data::larger("synthea_csv/patients.csv").unwrap_or_else(|| data::own("patients.csv"));
    let text = fs::read_to_string(source).unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    let mut out = format!("{header}\n");
    let lines: Vec<&str> = body.lines().collect();
    for row in 0..rows {
        out.push_str(lines[row as usize % lines.len()]);
        out.push('\n');
    }
    fs::write(path, out).unwrap();
}

fn import(profile: &Path, input: &Path, out: &Path) -> Child {
    let mut command = Command::new(binary("vaultctl"));
    command.arg("--profile").arg(profile).args(["--as", "service", "import"]).arg(input);
    for map in ["SSN=ssn", "FIRST=name", "LAST=name", "ADDRESS=address", "BIRTHDATE=dob"] {
        command.args(["--map", map]);
    }
    command.args(["--subject", "ID", "--batch", "100", "--out"]).arg(out);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn an_import_survives_twenty_kills_of_the_server() {
    let dir = TempDir::new().unwrap();
    let input = dir.path().join("large.csv");
    large_csv(&input, 60_000);
    let home = dir.path().join("vault");
    let (out, restored) = (dir.path().join("tokenized.csv"), dir.path().join("restored.csv"));
    // Rows that are acknowledged: they must be there, unchanged, ever after.
    let mut acknowledged = Vec::new();
    let mut progressed = 0;
    for kill in 0..KILLS {
        let vault = DevVault::start(&home);
        let mut child = import(vault.profile(), &input, &out);
        let before = acknowledged.len();
        // Not before some rows of this round are acknowledged, and then at an odd moment.
        let until = Instant::now() + Duration::from_secs(20);
        while read_acknowledged(&out).len() <= before && Instant::now() < until {
            assert!(child.try_wait().unwrap().is_none(), "the import ended before kill {kill}");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(u64::from(kill) * 7 % 23));
        vault.kill();
        child.kill().unwrap();
        child.wait().unwrap();
        let now = read_acknowledged(&out);
        assert!(now.starts_with(&acknowledged), "acknowledged rows changed at kill {kill}");
        progressed += u32::from(now.len() > before);
        acknowledged = now;
    }
    assert!(
        progressed >= KILLS / 2,
        "only {progressed} of {KILLS} rounds got anywhere: the kills prove little"
    );
    let vault = DevVault::start(&home);
    let status = import(vault.profile(), &input, &out).wait().unwrap();
    assert!(status.success(), "the last import: {status}");
    assert!(fs::read(&out).unwrap().starts_with(&acknowledged), "acknowledged rows changed");
    let (from, to) = (out.display().to_string(), restored.display().to_string());
    vault.ctl("service", &["export", &from, "--purpose", "TREAT", "--out", &to]).ok();
    assert!(fs::read(&restored).unwrap() == fs::read(&input).unwrap(), "the export is not the original");
    let log = dir.path().join("log").display().to_string();
    let key = dir.path().join("log.vkey").display().to_string();
    vault.ctl("auditor", &["audit", "export", "--dir", &log, "--key-out", &key]).ok();
    vault.ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key]).ok();
    println!(
        "{KILLS} kills, {progressed} with new acknowledged rows, none lost (at most {:.3} a kill at 95 %)",
        3.0 / f64::from(KILLS)
    );
}

/// The part of the output that the resume state says is done.
fn read_acknowledged(out: &Path) -> Vec<u8> {
    let mut state = out.as_os_str().to_owned();
    state.push(".resume");
    let state =
        fs::read_to_string(state).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let length = state.and_then(|state| usize::try_from(state["out"].as_u64()?).ok()).unwrap_or(0);
    fs::read(out).ok().and_then(|bytes| bytes.get(..length).map(<[u8]>::to_vec)).unwrap_or_default()
}
