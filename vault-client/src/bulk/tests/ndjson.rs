//! FHIR-like NDJSON there and back.

use proptest::prelude::*;

use super::*;

const MAP: &[&str] = &[
    "name[*].family=name",
    "name[*].given[*]=name",
    "identifier[system=http://hl7.org/fhir/sid/us-ssn].value=ssn",
    "birthDate=dob",
];

fn plan(map: &[&str], subject: Option<&str>) -> Plan {
    Plan::import(Format::Ndjson, map, subject).unwrap()
}

const PATIENT: &str = concat!(
    r#" {"id" : "p1", "active":true,"name":[{"family":"O'Neil","given":["Ana","\"B\" \\"]}],"multiple":1.50e+3,"#,
    r#""identifier":[{"system":"http://hl7.org/fhir/sid/us-ssn","value":"999-68-7171"},{"system":"x","value":"\u00e9\/"}],"#,
    "\t\"birthDate\":\"1956-03-07\",\"x\":null}"
);

#[test]
fn mapped_strings_become_tokens_and_everything_else_stays() {
    let input = format!("\u{feff}{PATIENT}\r\n\n{PATIENT}");
    let (imported, exported) = round_trip(input.as_bytes(), &plan(MAP, Some("id")));
    assert_eq!(imported.reasons, Vec::<String>::new());
    assert_eq!((imported.counts.rows, imported.counts.cells), (3, 10));
    for value in ["O'Neil", "Ana", "999-68-7171", "1956-03-07"] {
        assert!(!text(&imported.out).contains(value), "{value}");
    }
    for kept in [
        r#" {"id" : "p1", "active":true,"#,
        r#""multiple":1.50e+3"#,
        r#""\u00e9\/""#,
        "\t\"birthDate\":\"phi_dev_",
    ] {
        assert!(text(&imported.out).contains(kept), "{kept}");
    }
    assert_eq!(text(&exported.out), input);
}

#[test]
fn cells_carry_their_row_path_class_and_subject_in_the_order_of_the_line() {
    let mut reader = Reader::new(PATIENT.as_bytes(), &plan(MAP, Some("id"))).unwrap();
    let chunk = reader.next_chunk().unwrap().unwrap();
    let told: Vec<_> =
        chunk.cells().iter().map(|c| (&*c.column, c.class.as_deref(), c.value.expose())).collect();
    assert_eq!(
        told,
        [
            ("name[*].family", Some("name"), "O'Neil"),
            ("name[*].given[*]", Some("name"), "Ana"),
            ("name[*].given[*]", Some("name"), "\"B\" \\"),
            (MAP[2].rsplit_once('=').unwrap().0, Some("ssn"), "999-68-7171"),
            ("birthDate", Some("dob"), "1956-03-07"),
        ]
    );
    assert!(chunk.cells().iter().all(|c| c.row == 1 && c.subject.as_ref().unwrap().expose() == "p1"));
}

#[test]
fn what_would_not_come_back_as_it_was_or_would_stay_is_rejected() {
    for (line, reason) in [
        (r#"{"a":"\u00e9"}"#, "json_escape"),
        (r#"{"a":"1\/2"}"#, "json_escape"),
        (r#"{"a":"\ud800"}"#, "json_escape"),
        (r#"{"a":"\u0009"}"#, "json_escape"),
        (r#"{"a":999687171}"#, "not_a_string"),
        (r#"{"a":true}"#, "not_a_string"),
        (r#"{"a":["x"]}"#, "not_a_string"),
        (r#"{"a":{"b":"x"}}"#, "not_a_string"),
        (r#"{"a":"x","\u0061":"\/"}"#, "json_escape"),
    ] {
        let (_, outcome) = import(line.as_bytes(), &plan(&["a=text"], None));
        let outcome = outcome.unwrap();
        assert_eq!(outcome.reasons, [format!("row 1, a: {reason}")], "{line}");
        assert_eq!((outcome.out.len(), text(&outcome.rejected)), (0, line));
    }
    for (line, cells) in [
        (r#"{"a":null}"#, 0),
        (r#"{"a":""}"#, 0),
        (r#"{"b":1}"#, 0),
        ("{}", 0),
        (r#"{"a":"\t\n\u0001é"}"#, 1),
    ] {
        let (imported, exported) = round_trip(line.as_bytes(), &plan(&["a=text"], None));
        assert_eq!((imported.counts.cells, text(&exported.out)), (cells, line));
    }
}

#[test]
fn where_two_paths_meet_the_first_counts() {
    let plan = plan(&["a[0]=ssn", "a[*]=name"], None);
    let mut reader = Reader::new(&br#"{"a":["x","y"]}"#[..], &plan).unwrap();
    let chunk = reader.next_chunk().unwrap().unwrap();
    let classes: Vec<_> = chunk.cells().iter().map(|c| c.class.as_deref().unwrap()).collect();
    assert_eq!(classes, ["ssn", "name"]);
}

#[test]
fn a_line_needs_exactly_one_subject() {
    for (line, rejected) in [
        (r#"{"a":"x"}"#, true),
        (r#"{"a":"x","id":7}"#, true),
        (r#"{"a":"x","id":""}"#, true),
        (r#"{"a":"x","id":"1","id":"2"}"#, true),
        (r#"{"a":"x","id":"1"}"#, false),
    ] {
        let (_, outcome) = import(line.as_bytes(), &plan(&["a=text"], Some("id")));
        assert_eq!(outcome.unwrap().reasons == ["row 1, id: subject"], rejected, "{line}");
    }
}

#[test]
fn an_export_replaces_tokens_wherever_they_are_but_in_keys() {
    let vault = FakeVault::default();
    let imported = process(br#"{"a":"x\"y"}"#, &plan(&["a=text"], None), |c| vault.tokenize(c)).unwrap();
    let token = text(&imported.out)[6..imported.out.len() - 2].to_owned();
    let line = format!(r#"{{"{token}":[[{{"b":"{token}"}}],"{token}","not {token}",1]}}"#);
    let exported =
        process(line.as_bytes(), &Plan::export(Format::Ndjson).unwrap(), |c| vault.detokenize(c)).unwrap();
    assert_eq!(text(&exported.out), format!(r#"{{"{token}":[[{{"b":"x\"y"}}],"x\"y","not {token}",1]}}"#));
    let unknown = FakeVault::default();
    let refused =
        process(line.as_bytes(), &Plan::export(Format::Ndjson).unwrap(), |c| unknown.detokenize(c)).unwrap();
    assert_eq!((refused.reasons, refused.out.len()), (vec!["row 1, token 1: unknown".to_owned()], 0));
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just(" "), Just("\t"), Just("  ")]
}

prop_compose! {
    fn patient()(
        texts in prop::collection::vec(prop_oneof!["[A-Za-z '-]{0,9}", "\\PC{0,9}", any::<String>()], 4..8),
        number in any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()),
        a in blank(), b in blank(), c in blank(),
        end in prop_oneof![Just("\n"), Just("\r\n")],
    ) -> String {
        let json: Vec<_> = texts.iter().map(|t| serde_json::to_string(t).unwrap()).collect();
        let given = json[3..].join(&format!("{a},{c}"));
        format!(
            "{a}{{{b}\"birthDate\"{c}:{a}{},\"n\":{number:e}{b},\"name\":[{c}{{\"family\":{},\"given\":[{given}]}}{a}],\
             \"identifier\":[{{\"value\":{b}{},\"system\":\"http://hl7.org/fhir/sid/us-ssn\"}}]{c}}}{b}{end}",
            json[0], json[1], json[2],
        )
    }
}

proptest! {
    #[test]
    fn exporting_what_was_imported_gives_the_same_bytes(lines in prop::collection::vec(patient(), 0..12)) {
        let input = lines.concat();
        let (imported, exported) = round_trip(input.as_bytes(), &plan(MAP, None));
        prop_assert_eq!(&imported.reasons, &Vec::<String>::new());
        prop_assert_eq!(exported.out, input.into_bytes());
    }

    #[test]
    fn whatever_the_escapes_a_line_comes_back_or_is_rejected(
        text in r#"([a-zé]|\\n|\\/|\\"|\\\\|\\u00[0-9a-fA-F]{2}|\\ud83d\\ude00|\\ud800){0,6}"#,
    ) {
        let line = format!(r#"{{"a":"{text}","b":"{text}"}}"#);
        let (imported, exported) = round_trip(line.as_bytes(), &plan(&["a=text"], None));
        if imported.reasons.is_empty() {
            prop_assert_eq!(exported.out, line.into_bytes());
        } else {
            prop_assert_eq!((imported.out.len(), imported.rejected), (0, line.into_bytes()));
        }
    }

    #[test]
    fn no_line_makes_it_panic(line in r#"[{}\[\]":,\\ a1u-]{0,24}"#) {
        let _outcome = import(line.as_bytes(), &plan(MAP, Some("id"))).1;
    }
}
