//! PHI goes in, tokens come out, consoles see masks, allowed callers get values back, all of it on record.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use vault_tests::canary::{Canaries, files};
use vault_tests::data;
use vault_tests::process::DevVault;

/// A file to import, and how.
struct Job {
    input: PathBuf,
    maps: Vec<&'static str>,
    subject: &'static str,
    /// Values of the input that must not be found anywhere afterwards.
    canaries: Vec<String>,
}

const CSV_MAPS: &[&str] = &[
    "SSN=ssn",
    "DRIVERS=license",
    "PASSPORT=passport",
    "FIRST=name",
    "LAST=name",
    "MAIDEN=name",
    "ADDRESS=address",
    "ZIP=zip",
    "BIRTHDATE=dob",
];

const FHIR_MAPS: &[&str] = &[
    "identifier[system=http://hl7.org/fhir/sid/us-ssn].value=ssn",
    "identifier[system=urn:oid:2.16.840.1.113883.4.3.25].value=license",
    "identifier[system=http://standardhealthrecord.org/fhir/StructureDefinition/passportNumber].value=passport",
    "name[*].family=name",
    "name[*].given[*]=name",
    "telecom[*].value=phone",
    "birthDate=dob",
    "address[*].line[*]=address",
    "address[*].postalCode=zip",
];

fn csv_job(input: PathBuf) -> Job {
    let text = fs::read_to_string(&input).unwrap();
    let canaries = data::columns(&text, &["SSN", "PASSPORT", "ADDRESS"]);
    let canaries = canaries.into_iter().filter(|cell| cell.len() >= 8).map(str::to_owned).collect();
    Job { input, maps: CSV_MAPS.to_vec(), subject: "ID", canaries }
}

fn fhir_job(input: PathBuf) -> Job {
    let mut canaries = Vec::new();
    for line in fs::read_to_string(&input).unwrap().lines() {
        let patient: Value = serde_json::from_str(line).unwrap();
        for identifier in patient["identifier"].as_array().into_iter().flatten() {
            let system = identifier["system"].as_str().unwrap_or_default();
            if system.ends_with("us-ssn") || system.ends_with("passportNumber") {
                canaries.push(identifier["value"].as_str().unwrap().to_owned());
            }
        }
        for address in patient["address"].as_array().into_iter().flatten() {
            canaries.extend(
                address["line"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|l| l.as_str())
                    .map(str::to_owned),
            );
        }
    }
    canaries.retain(|value| value.len() >= 8);
    Job { input, maps: FHIR_MAPS.to_vec(), subject: "id", canaries }
}

fn import_args(job: &Job, out: &Path) -> Vec<String> {
    let mut args = vec!["import".to_owned(), job.input.display().to_string()];
    for map in &job.maps {
        args.extend(["--map".to_owned(), (*map).to_owned()]);
    }
    args.extend([
        "--subject".to_owned(),
        job.subject.to_owned(),
        "--out".to_owned(),
        out.display().to_string(),
    ]);
    args
}

/// Words of a text that are tokens.
fn tokens(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("phi_dev_"))
        .map(str::to_owned)
        .collect()
}

/// The whole main job on one file.
fn the_main_job(job: &Job) {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let ending = job.input.extension().unwrap().to_str().unwrap();
    let named = |name: &str| dir.path().join(format!("{name}.{ending}"));
    let (tokenized, restored) = (named("tokenized"), named("restored"));

    let ran = vault.ctl("service", &import_args(job, &tokenized)).ok();
    let original = fs::read_to_string(&job.input).unwrap();
    let text = fs::read_to_string(&tokenized).unwrap();
    assert_eq!(text.lines().count(), original.lines().count(), "{}", ran.stderr);
    let canaries = Canaries::new(job.canaries.iter().map(String::as_str));
    assert!(!canaries.is_empty());
    assert_eq!(canaries.scan("tokenized file", text.as_bytes()), []);
    let all = tokens(&text);
    assert!(all.len() > job.canaries.len(), "{} tokens", all.len());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "tokens are never reused");

    // Consoles see masks, and no more.
    let some: Vec<&str> = all.iter().take(9).map(String::as_str).collect();
    let masks = vault.ctl("console", &[&["mask"], &some[..]].concat()).ok();
    assert_eq!(masks.stdout.lines().count(), some.len(), "{}", masks.stdout);
    assert_eq!(canaries.scan("masks", masks.stdout.as_bytes()), []);
    let refused =
        vault.ctl("console", &[&["detokenize"], &some[..], &["--purpose", "TREAT"]].concat()).ends(3);
    assert_eq!(refused.stdout, "");

    // Allowed callers get everything back, byte for byte.
    let tokenized_arg = tokenized.display().to_string();
    let restored_arg = restored.display().to_string();
    vault.ctl("service", &["export", &tokenized_arg, "--purpose", "TREAT", "--out", &restored_arg]).ok();
    assert!(fs::read(&restored).unwrap() == fs::read(&job.input).unwrap(), "the export is not the original");

    every_export_is_on_record(&vault, &all);
    log_verifies_and_any_changed_byte_is_found(&vault, dir.path());
    nothing_is_left_behind(&vault, &canaries);
}

fn every_export_is_on_record(vault: &DevVault, tokens: &[String]) {
    let query = ["--json", "audit", "query", "--action", "detokenize", "--limit", "100000"];
    let answer: Value = serde_json::from_str(&vault.ctl("auditor", &query).ok().stdout).unwrap();
    assert_eq!(answer["more"], false);
    let entries = answer["entries"].as_array().unwrap();
    let allowed =
        entries.iter().filter(|entry| entry["purpose"] == "TREAT" && entry["principal"] == "service");
    let items = allowed.flat_map(|entry| entry["items"].as_array().unwrap());
    let logged: BTreeSet<&str> =
        items.filter(|item| item["outcome"] == "ok").map(|item| item["token"].as_str().unwrap()).collect();
    let missing: Vec<_> = tokens.iter().filter(|token| !logged.contains(token.as_str())).collect();
    assert!(missing.is_empty(), "{} exported values without a log entry", missing.len());
}

fn log_verifies_and_any_changed_byte_is_found(vault: &DevVault, dir: &Path) {
    let log = dir.join("log");
    let key = dir.join("log.vkey");
    let (log_arg, key_arg) = (log.display().to_string(), key.display().to_string());
    vault.ctl("auditor", &["audit", "export", "--dir", &log_arg, "--key-out", &key_arg]).ok();
    let verify = ["audit", "verify", "--dir", log_arg.as_str(), "--key", key_arg.as_str()];
    vault.ctl("auditor", &verify).ok();
    // A byte at a time, all over the export; every file gets its turn.
    let mut tried = 0;
    for file in files(&log) {
        let good = fs::read(&file).unwrap();
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).unwrap();
            let ran = vault.ctl("auditor", &verify).run();
            assert_eq!(ran.code, Some(1), "byte {at} of {} was changed: {}", file.display(), ran.stdout);
            tried += 1;
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(tried >= 8);
    vault.ctl("auditor", &verify).ok();
}

fn nothing_is_left_behind(vault: &DevVault, canaries: &Canaries) {
    assert_eq!(canaries.scan_dir(vault.dir()), []);
    assert_eq!(canaries.scan("the server's log", vault.log().as_bytes()), []);
    match canaries.scan_memory(vault.pid()) {
        Some((read, hits)) => {
            assert!(read > 1 << 20, "only {read} bytes of memory were read");
            assert_eq!(hits, []);
        }
        None => println!("skipped: memory scan (the process's memory can't be read by this user)"),
    }
}

#[test]
fn a_csv_goes_in_and_comes_back() {
    the_main_job(&csv_job(data::own("patients.csv")));
}

#[test]
fn fhir_patients_go_in_and_come_back() {
    the_main_job(&fhir_job(data::own("patients.ndjson")));
}

#[test]
fn a_thousand_synthetic_patients_go_in_and_come_back() {
    if let Some(path) = data::larger("synthea_csv/patients.csv") {
        the_main_job(&csv_job(path));
    }
}

#[test]
fn synthetic_fhir_patients_go_in_and_come_back() {
    if let Some(path) = data::larger("fhir_r4/patients.ndjson") {
        the_main_job(&fhir_job(path));
    }
}

#[test]
fn what_dev_prints_works_as_pasted() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let token =
        vault.ctl("service", &["tokenize", "--class", "ssn", "--subject", "p-1"]).stdin("999-31-4101\n").ok();
    let token = token.line();
    assert!(token.starts_with("phi_dev_"), "{token}");
    assert_eq!(vault.ctl("console", &["mask", token]).ok().line(), "***-**-4101");
    let value = vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ok();
    assert_eq!(value.line(), "999-31-4101");
    let found = vault.ctl("service", &["find", "--class", "ssn"]).stdin("999314101").ok();
    assert_eq!(found.line(), token, "the normalized form is found");
    let described = vault.ctl("service", &["--json", "describe", token]).ok();
    assert!(described.stdout.contains("ssn") && !described.stdout.contains("4101"), "{}", described.stdout);
    vault.ctl("service", &["erase", "--subject", "p-1"]).ok();
    vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ends(1);
    assert_eq!(vault.ctl("service", &["find", "--class", "ssn"]).stdin("999314101").ok().line(), "");
    let printed = vault.printed.join("\n");
    for command in ["tokenize", "mask", "detokenize"] {
        assert!(printed.contains(command), "{printed}");
    }
    assert_eq!(vault.stop(), Some(0));
}
