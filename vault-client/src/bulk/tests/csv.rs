//! CSV there and back.

use proptest::prelude::*;

use super::*;

fn plan(map: &[&str], subject: Option<&str>) -> Plan {
    Plan::import(Format::CSV, map, subject).unwrap()
}

#[test]
fn cells_become_tokens_and_everything_else_stays() {
    let input = b"\xef\xbb\xbfID,SSN,\"FIRST\",NOTE\r\n1,999-68-7171,\"O\"\"Neil\",\"a,\r\nb\"\r\n2,,\"\",\xff\r\n\r\n3,1,x,y";
    let (imported, exported) = round_trip(input, &plan(&["SSN=ssn", "FIRST=name"], Some("ID")));
    assert!(imported.reasons.is_empty() && exported.reasons.is_empty());
    assert_eq!((imported.counts.rows, imported.counts.cells), (4, 4));
    assert_eq!(imported.counts.by_column["SSN"], 2);
    let lines: Vec<_> = imported.out.split(|b| *b == b'\n').collect();
    assert_eq!(lines[0], b"\xef\xbb\xbfID,SSN,\"FIRST\",NOTE\r");
    assert!(lines[1].starts_with(b"1,phi_dev_") && text(lines[1]).contains(",\"phi_dev_"));
    assert!(lines[1].ends_with(b"\",\"a,\r") && lines[2] == b"b\"\r");
    assert_eq!(lines[3], b"2,,\"\",\xff\r");
    assert_eq!(exported.out, input);
}

#[test]
fn cells_carry_their_row_column_class_and_subject() {
    let mut reader = Reader::new(&b"SSN,ID\n1,a\n2,b\n"[..], &plan(&["SSN=ssn"], Some("ID"))).unwrap();
    let chunk = reader.next_chunk().unwrap().unwrap();
    let told: Vec<_> = chunk
        .cells()
        .iter()
        .map(|c| {
            (c.row, &*c.column, c.class.as_deref(), c.value.expose(), c.subject.as_ref().map(|s| s.expose()))
        })
        .collect();
    assert_eq!(told, [(2, "SSN", Some("ssn"), "1", Some("a")), (3, "SSN", Some("ssn"), "2", Some("b"))]);
}

#[test]
fn a_row_with_one_refused_cell_goes_whole_to_the_rejects_as_it_came() {
    let input = b"SSN,FIRST\n1,\"REFUSE\"\n2,b\n";
    let (imported, exported) = round_trip(input, &plan(&["SSN=ssn", "FIRST=name"], None));
    assert_eq!(text(&imported.rejected), "SSN,FIRST\n1,\"REFUSE\"\n");
    assert_eq!(imported.reasons, ["row 2, FIRST: not of its class"]);
    assert_eq!((imported.counts.rows, imported.counts.cells, imported.counts.rejected), (2, 2, 1));
    assert_eq!(text(&exported.out), "SSN,FIRST\n2,b\n");
}

#[test]
fn what_would_not_come_back_as_it_was_is_rejected() {
    for (row, reason) in [
        ("a\"b,x", "row 2, SSN: csv_quoting"),
        ("\"a\"b,x", "row 2, SSN: csv_quoting"),
        (" \"a\",x", "row 2, SSN: csv_quoting"),
        ("a,x\"y", "row 2, NOTE: csv_quoting"),
        ("a\rb,x", "row 2, SSN: csv_quoting"),
    ] {
        let (_, outcome) = import(format!("SSN,NOTE\n{row}\n").as_bytes(), &plan(&["SSN=ssn"], None));
        assert_eq!(outcome.unwrap().reasons, [reason], "{row}");
    }
    let (_, outcome) = import(b"SSN,NOTE\n\xff,x\n", &plan(&["SSN=ssn"], None));
    assert_eq!(outcome.unwrap().reasons, ["row 2, SSN: utf8"]);
}

#[test]
fn what_is_a_token_already_is_not_tokenized_again() {
    let plan = plan(&["SSN=ssn"], None);
    let (_, once) = import(b"SSN,NOTE\n1,x\n", &plan);
    let (_, twice) = import(&once.unwrap().out, &plan);
    let twice = twice.unwrap();
    assert_eq!((twice.reasons, twice.counts.cells), (vec!["row 2, SSN: already_token".to_owned()], 0));
}

#[test]
fn a_row_without_its_subject_is_rejected() {
    let (_, outcome) = import(b"SSN,ID\n1,\n2,b\n", &plan(&["SSN=ssn"], Some("ID")));
    let outcome = outcome.unwrap();
    assert_eq!(outcome.reasons, ["row 2, ID: subject"]);
    assert_eq!(outcome.counts.cells, 1);
}

#[test]
fn a_value_that_needs_quotes_gets_them_where_the_token_had_none() {
    let vault = FakeVault::default();
    let imported = process(b"N\n\"a,\"\"b\"\n", &plan(&["N=name"], None), |c| vault.tokenize(c)).unwrap();
    let unquoted = text(&imported.out).replace('"', "");
    let exported =
        process(unquoted.as_bytes(), &Plan::export(Format::CSV).unwrap(), |c| vault.detokenize(c)).unwrap();
    assert_eq!(text(&exported.out), "N\n\"a,\"\"b\"\n");
}

#[test]
fn an_unknown_token_rejects_its_row_of_an_export() {
    let (_, imported) = import(b"A,B\n1,x\n", &plan(&["A=ssn"], None));
    let vault = FakeVault::default();
    let export = Plan::export(Format::CSV).unwrap();
    let outcome = process(&imported.unwrap().out, &export, |c| vault.detokenize(c)).unwrap();
    assert_eq!(outcome.reasons, ["row 2, A: unknown"]);
}

#[test]
fn another_delimiter_works_the_same() {
    let plan = Plan::import(Format::Csv { delimiter: b';' }, &["B=name"], None).unwrap();
    let input = b"A;B\n1,2;\"x;y\"\n";
    let (imported, exported) = round_trip(input, &plan);
    assert!(imported.out.starts_with(b"A;B\n1,2;\"phi_dev_"));
    assert_eq!(exported.out, input);
}

#[test]
fn chunks_keep_to_their_limits() {
    let input: String = "A,B\n".to_owned() + &"1,2\n".repeat(100);
    let limits = Limits { rows: 7, cells: 9, bytes: 20 };
    let plan = plan(&["A=ssn", "B=ssn"], None).with_limits(limits).unwrap();
    let mut reader = Reader::new(input.as_bytes(), &plan).unwrap();
    let (mut rows, mut end) = (0, 4);
    while let Some(chunk) = reader.next_chunk().unwrap() {
        assert!(chunk.rows() <= 7 && chunk.cells().len() <= 9 && chunk.bytes() <= 20);
        rows += chunk.rows();
        end += chunk.bytes() as u64;
        assert_eq!((chunk.end().offset, chunk.end().row), (end, rows as u64 + 1));
    }
    assert_eq!(rows, 100);
}

#[test]
fn a_row_of_more_cells_than_a_chunk_may_have_is_rejected() {
    let limits = Limits { rows: 10, cells: 1, bytes: 100 };
    let plan = plan(&["A=ssn", "B=ssn"], None).with_limits(limits).unwrap();
    let (_, outcome) = import(b"A,B\n1,2\n3,\n", &plan);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.reasons, ["row 2, A: too_many_cells"]);
    assert_eq!(outcome.counts.cells, 1);
}

/// A cell as it is in the file.
fn cell() -> impl Strategy<Value = String> {
    let value = prop_oneof!["[a-z0-9 ]{0,8}", "[a,\"\r\né李]{0,6}", "\\PC{0,12}", any::<String>()];
    (value, any::<bool>()).prop_map(|(value, quote)| {
        if quote || value.contains([',', '"', '\r', '\n']) {
            format!("\"{}\"", value.replace('"', "\"\""))
        } else {
            value
        }
    })
}

fn file() -> impl Strategy<Value = String> {
    let rows = (2_usize..6).prop_flat_map(|columns| {
        let row = (prop::collection::vec(cell(), columns), prop_oneof![Just("\n"), Just("\r\n")]);
        (Just(columns), prop::collection::vec(row, 0..20))
    });
    (any::<bool>(), any::<bool>(), rows).prop_map(|(mark, last_end, (columns, rows))| {
        let names: Vec<_> = (0..columns).map(|at| format!("c{at}")).collect();
        let mut file = if mark { "\u{feff}".to_owned() } else { String::new() };
        file += &names.join(",");
        file += "\r\n";
        for (cells, end) in &rows {
            file += &cells.join(",");
            file += end;
        }
        if !last_end {
            file.truncate(file.trim_end_matches('\n').trim_end_matches('\r').len());
        }
        file
    })
}

proptest! {
    #[test]
    fn exporting_what_was_imported_gives_the_same_bytes(file in file()) {
        let (imported, exported) = round_trip(file.as_bytes(), &small(plan(&["c1=name", "c0=text"], None)));
        prop_assert_eq!(&imported.reasons, &Vec::<String>::new());
        prop_assert_eq!(exported.out, file.into_bytes());
    }

    #[test]
    fn whatever_the_bytes_no_row_is_lost_or_changed(rows in "[a,\"\r\n ]{0,60}") {
        let file = format!("A,B\n{rows}");
        let plan = small(plan(&["B=name"], None));
        if import(file.as_bytes(), &plan).1.is_ok() {
            let (imported, exported) = round_trip(file.as_bytes(), &plan);
            prop_assert_eq!(exported.out.len() + imported.rejected.len() - 4, file.len());
            if imported.reasons.is_empty() {
                prop_assert_eq!(exported.out, file.into_bytes());
            }
        }
    }
}
