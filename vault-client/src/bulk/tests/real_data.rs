//! Synthetic people of public data sets, where they are at hand: in `PHI_VAULT_TEST_DATA`, or in `shared/data` beside
//! the workspace.

use std::path::{Path, PathBuf};

use super::*;

fn read(name: &str) -> Option<Vec<u8>> {
    let named = std::env::var_os("PHI_VAULT_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared/data"));
    let Some(data) = named.into_iter().chain(beside).find(|dir| dir.is_dir()) else {
        println!("skipped: no shared/data beside the workspace and no PHI_VAULT_TEST_DATA");
        return None;
    };
    Some(std::fs::read(data.join(name)).unwrap())
}

#[test]
fn synthea_patients_come_back_byte_for_byte() {
    let Some(file) = read("synthea_csv/patients.csv") else { return };
    let map = [
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
    let (imported, exported) = round_trip(&file, &Plan::import(Format::CSV, &map, Some("ID")).unwrap());
    assert!(imported.reasons.is_empty());
    assert_eq!((imported.counts.rows, imported.counts.by_column["SSN"]), (1091, 1091));
    assert!(!text(&imported.out).contains(",999-") && exported.out == file);
}

#[test]
fn identities_with_quotes_and_a_byte_order_mark_come_back_byte_for_byte() {
    let Some(file) = read("identities/FakeNameGenerator.com_100.csv") else { return };
    let map = ["GivenName=name", "StreetAddress=address", "CCNumber=card", "FeetInches=other"];
    let (imported, exported) = round_trip(&file, &Plan::import(Format::CSV, &map, Some("GUID")).unwrap());
    assert!(imported.reasons.is_empty() && imported.counts.cells == 400);
    assert_eq!(exported.out, file);
}

#[test]
fn fhir_patients_come_back_byte_for_byte() {
    let Some(file) = read("fhir_r4/patients.ndjson") else { return };
    let map = [
        "name[*].family=name",
        "name[*].given[*]=name",
        "identifier[system=http://hl7.org/fhir/sid/us-ssn].value=ssn",
        "identifier[system=urn:oid:2.16.840.1.113883.4.3.25].value=license",
        "identifier[system=http://standardhealthrecord.org/fhir/StructureDefinition/passportNumber].value=passport",
        "telecom[system=phone].value=phone",
        "birthDate=dob",
        "address[*].line[*]=address",
        "address[*].postalCode=zip",
        "extension[url=http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName].valueString=name",
    ];
    let (imported, exported) = round_trip(&file, &Plan::import(Format::Ndjson, &map, Some("id")).unwrap());
    assert!(imported.reasons.is_empty());
    assert_eq!(imported.counts.rows, 430);
    let counts = |path: &str| imported.counts.by_column[path];
    assert_eq!((counts("birthDate"), counts(map[2].rsplit_once('=').unwrap().0)), (430, 430));
    assert_eq!(
        (counts(map[3].rsplit_once('=').unwrap().0), counts(map[4].rsplit_once('=').unwrap().0)),
        (376, 348)
    );
    assert!(!text(&imported.out).contains("\"value\":\"999-") && exported.out == file);
}
