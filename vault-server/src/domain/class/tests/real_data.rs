//! Synthetic people of public data sets, where they are at hand: in `PHI_VAULT_TEST_DATA`, or in `shared/data` beside
//! the workspace.

use std::path::{Path, PathBuf};

use super::*;

fn data() -> Option<PathBuf> {
    let named = std::env::var_os("PHI_VAULT_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared/data"));
    let found = named.into_iter().chain(beside).find(|dir| dir.is_dir());
    if found.is_none() {
        println!("skipped: no shared/data beside the workspace and no PHI_VAULT_TEST_DATA");
    }
    found
}

/// The non-empty cells of a column of a file whose cells hold no line ends.
fn column(file: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    let at = cells(lines.next().unwrap()).iter().position(|cell| cell == name).unwrap();
    lines.map(|line| cells(line).swap_remove(at)).filter(|cell| !cell.is_empty()).collect()
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

fn all_accepted(name: &str, values: &[String]) {
    let classes = classes(true);
    let class = class(&classes, name);
    for value in values {
        assert!(normalized(class, value).is_ok(), "{name}: {value}");
    }
}

fn read_json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The `value` of every object in `json` whose `system` is this one.
fn identifiers(json: &serde_json::Value, system: &str, found: &mut Vec<String>) {
    match json {
        serde_json::Value::Array(items) => items.iter().for_each(|item| identifiers(item, system, found)),
        serde_json::Value::Object(map) => {
            if map.get("system").and_then(|s| s.as_str()) == Some(system) {
                found.extend(map.get("value").and_then(|v| v.as_str()).map(str::to_owned));
            }
            map.values().for_each(|item| identifiers(item, system, found));
        }
        _ => {}
    }
}

#[test]
fn synthea_patients_are_accepted_column_by_column() {
    let Some(data) = data() else { return };
    let file = data.join("synthea_csv/patients.csv");
    for (name, class) in [
        ("SSN", "ssn"),
        ("DRIVERS", "license"),
        ("PASSPORT", "passport"),
        ("FIRST", "name"),
        ("LAST", "name"),
        ("MAIDEN", "name"),
        ("ADDRESS", "address"),
        ("ZIP", "zip"),
        ("BIRTHDATE", "dob"),
    ] {
        let values = column(&file, name);
        assert!(values.len() > 300, "{name}");
        all_accepted(class, &values);
    }
}

#[test]
fn card_numbers_and_addresses_of_many_countries_are_accepted() {
    let Some(data) = data() else { return };
    let file = data.join("identities/FakeNameGenerator.com_100.csv");
    for (name, class) in [("CCNumber", "card"), ("EmailAddress", "email"), ("GivenName", "name")] {
        let values = column(&file, name);
        assert_eq!(values.len(), 100, "{name}");
        all_accepted(class, &values);
    }
}

#[test]
fn ibans_and_ip_addresses_of_the_labelled_text_are_accepted() {
    let Some(data) = data() else { return };
    let sentences = read_json(&data.join("pii_text/synth_dataset_v2.json"));
    let spans = |kind: &str| -> Vec<String> {
        let all = sentences.as_array().unwrap().iter().flat_map(|s| s["spans"].as_array().unwrap());
        let of_kind = all.filter(|span| span["entity_type"] == kind);
        of_kind.map(|span| span["entity_value"].as_str().unwrap().to_owned()).collect()
    };
    for (kind, class, count) in [
        ("IBAN_CODE", "iban", 21),
        ("IP_ADDRESS", "ip", 14),
        ("EMAIL_ADDRESS", "email", 49),
        ("US_SSN", "ssn", 16),
    ] {
        let values = spans(kind);
        assert_eq!(values.len(), count, "{kind}");
        all_accepted(class, &values);
    }
}

#[test]
fn identifiers_of_the_medicare_sample_are_accepted() {
    let Some(data) = data() else { return };
    for (file, system, class, least) in [
        ("cms_dpc/provider_bundle.json", "http://hl7.org/fhir/sid/us-npi", "npi", 4),
        ("cms_dpc/patient_bundle.json", "http://hl7.org/fhir/sid/us-mbi", "mbi", 100),
    ] {
        let mut values = Vec::new();
        identifiers(&read_json(&data.join(file)), system, &mut values);
        assert!(values.len() >= least, "{file}: {}", values.len());
        all_accepted(class, &values);
    }
}

#[test]
fn fhir_patients_are_accepted() {
    let Some(data) = data() else { return };
    let lines = std::fs::read_to_string(data.join("fhir_r4/patients.ndjson")).unwrap();
    for line in lines.lines() {
        let patient: serde_json::Value = serde_json::from_str(line).unwrap();
        let telecom = patient["telecom"].as_array().unwrap();
        let phones: Vec<_> = telecom.iter().map(|t| t["value"].as_str().unwrap().to_owned()).collect();
        all_accepted("phone", &phones);
        all_accepted("dob", &[patient["birthDate"].as_str().unwrap().to_owned()]);
    }
}
