//! What stops a run, and that it is said without the content.

use super::*;

fn csv_error(input: &[u8]) -> BulkError {
    import(input, &Plan::import(Format::CSV, &["SSN=ssn"], None).unwrap()).1.unwrap_err()
}

fn json_error(input: &[u8]) -> BulkError {
    import(input, &Plan::import(Format::Ndjson, &["a=ssn"], None).unwrap()).1.unwrap_err()
}

#[test]
fn a_missing_or_doubled_column_is_named() {
    let missing = csv_error(b"ID,NAME\n1,SECRET\n");
    let said = "there is no column as entry 1 of the map names it among the 2 of the first line: is that line a header?";
    assert_eq!(missing.to_string(), said);
    let headless = csv_error(b"SECRET,999-68-7171\n");
    assert!(!format!("{headless} {headless:?}").contains("SECRET"));
    assert!(matches!(csv_error(b"SSN,SSN\n"), BulkError::AmbiguousColumn { column } if column == "SSN"));
    assert!(matches!(csv_error(b""), BulkError::NoHeader));
    assert!(matches!(csv_error(b"\xef\xbb\xbf"), BulkError::NoHeader));
    assert!(matches!(csv_error(b"SSN,\xff\n"), BulkError::Header));
    assert!(matches!(csv_error(b"SSN,\"a\"b\n"), BulkError::Header));
}

#[test]
fn a_ragged_row_is_named_by_number_and_not_by_content() {
    for (rows, cells) in [("1,SECRET\nSECRET\n", 1), ("1,SECRET\nSECRET,2,3\n", 3)] {
        let error = csv_error(format!("SSN,NAME\n{rows}").as_bytes());
        assert!(
            matches!(error, BulkError::Ragged { row: 3, cells: c, expected: 2 } if c == cells),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("SECRET"));
    }
}

#[test]
fn a_quote_that_never_ends_is_an_error() {
    assert!(matches!(csv_error(b"SSN,NAME\n1,\"SECRET\n2,3\n"), BulkError::UnterminatedQuote { row: 2 }));
    assert!(matches!(csv_error(b"\"SSN,NAME\n1,2\n"), BulkError::UnterminatedQuote { row: 1 }));
}

#[test]
fn a_line_that_is_no_json_object_is_named_by_number() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    for bad in [
        "{",
        "SECRET",
        "[1]",
        "\"x\"",
        "7",
        "{\"a\":1}{}",
        "{\"a\":01}",
        "{\"a\":\"\t\"}",
        "{'a':1}",
        "{a:1}",
    ] {
        let error = json_error(format!("{{\"a\":\"1\"}}\n{bad}\n").as_bytes());
        assert!(matches!(error, BulkError::Json { row: 2 }), "{bad}: {error}");
    }
    assert!(matches!(json_error(format!("{{\"a\":{deep}}}").as_bytes()), BulkError::Json { row: 1 }));
    assert!(matches!(json_error(b"{\"a\":\"\xff\"}"), BulkError::Json { row: 1 }));
}

#[test]
fn a_record_without_end_is_refused_within_bounded_memory() {
    struct Endless;
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'"');
            Ok(buffer.len())
        }
    }
    for (format, head) in [(Format::CSV, "SSN\n"), (Format::Ndjson, "{}\n")] {
        let plan = Plan::import(format, &["SSN=ssn"], None).unwrap();
        let mut reader = Reader::new(std::io::Read::chain(head.as_bytes(), Endless), &plan).unwrap();
        let error = loop {
            match reader.next_chunk() {
                Ok(chunk) => assert!(chunk.is_some()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BulkError::RecordTooLarge { row: 2 }), "{error}");
    }
}

#[test]
fn answers_have_to_be_as_many_as_the_cells_and_tokens() {
    let plan = Plan::import(Format::CSV, &["SSN=ssn"], None).unwrap();
    let none = process(b"SSN\n1\n", &plan, |_| Vec::new());
    assert!(matches!(none, Err(BulkError::Answers { cells: 1, answers: 0 })));
    let echo = process(b"SSN\n1\n", &plan, |cells| {
        cells.iter().map(|cell| Ok(Zeroizing::new(cell.value.expose().to_owned()))).collect()
    });
    assert!(matches!(echo, Err(BulkError::NotAToken { row: 2 })));
}

#[test]
fn a_map_is_checked_before_anything_is_read() {
    let map = |format, entries: &[&str]| Plan::import(format, entries, None).unwrap_err();
    assert_eq!(map(Format::CSV, &[]), MapError::Empty);
    assert_eq!(map(Format::CSV, &["SSN"]), MapError::Form("SSN".into()));
    for (format, entries) in [
        (Format::CSV, &["999-68-7171"][..]),
        (Format::CSV, &["SSN=999-68-7171"]),
        (Format::CSV, &["999-68-7171=ssn", "999-68-7171=name"]),
        (Format::Ndjson, &["[999-68-7171=ssn"]),
    ] {
        let said = map(format, entries).to_string();
        assert!(!said.contains("7171"), "{said}");
    }
    assert_eq!(map(Format::CSV, &["SSN=SSN"]), MapError::Class("SSN=SSN".into()));
    assert_eq!(map(Format::CSV, &["SSN="]), MapError::Class("SSN=".into()));
    assert_eq!(map(Format::CSV, &["SSN=ssn", "SSN=name"]), MapError::Twice("SSN".into()));
    assert_eq!(map(Format::Ndjson, &["a[=ssn"]), MapError::Path("a[".into()));
    for delimiter in [b'"', b'\n', b'a', 0xff] {
        assert_eq!(map(Format::Csv { delimiter }, &["SSN=ssn"]), MapError::Delimiter);
    }
    assert!(Plan::import(Format::CSV, &["a=b=ssn"], None).is_ok());
    let zero = Limits { rows: 0, ..Limits::STANDARD };
    assert_eq!(Plan::export(Format::CSV).unwrap().with_limits(zero).unwrap_err(), MapError::Limits);
}
