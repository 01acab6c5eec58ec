//! CSV as RFC 4180 has it, and where its cells are, in bytes.
//!
//! A cell is either wholly quoted, with quotes in it doubled, or has no quote and no line end in it. Of what is
//! neither, readers disagree, so a row that has such a cell is rejected. Records end in LF or CR LF.

use std::ops::Range;
use std::sync::Arc;

use vault_format::token::Token;
use zeroize::Zeroizing;

use super::chunk::Reason;
use super::error::BulkError;
use super::plan::{Place, Task};
use super::row::{Encoding, Found, Row};

/// Finds the ends of cells and records, byte by byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner {
    delimiter: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    CellStart,
    Plain,
    Quoted,
    /// After a quote in a quoted cell: the cell's end, or the first half of a doubled quote.
    Quote,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Inside,
    Delimiter,
    RecordEnd,
}

impl Scanner {
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, state: State::CellStart }
    }

    /// Whether the byte ends a record.
    pub(super) fn ends_record(&mut self, byte: u8) -> bool {
        self.feed(byte) == Event::RecordEnd
    }

    /// Whether the last byte was inside of quotes.
    pub(super) fn in_quotes(self) -> bool {
        self.state == State::Quoted
    }

    fn feed(&mut self, byte: u8) -> Event {
        let (state, event) = match (self.state, byte) {
            (State::Quoted, b'"') => (State::Quote, Event::Inside),
            (State::Quoted, _) | (State::CellStart | State::Quote, b'"') => (State::Quoted, Event::Inside),
            (_, b'\n') => (State::CellStart, Event::RecordEnd),
            (_, byte) if byte == self.delimiter => (State::CellStart, Event::Delimiter),
            _ => (State::Plain, Event::Inside),
        };
        self.state = state;
        event
    }
}

/// What the header says of the columns.
#[derive(Debug)]
pub(super) struct Columns {
    delimiter: u8,
    names: Vec<Arc<str>>,
    /// Column and class of what is imported; `None`: export.
    mapped: Option<Vec<(usize, Arc<str>)>>,
    subject: Option<usize>,
}

impl Columns {
    /// Reads the header and finds the map's columns in it.
    pub(super) fn new(header: &[u8], delimiter: u8, task: &Task) -> Result<Self, BulkError> {
        let cells = cells(header, delimiter);
        let names: Vec<Arc<str>> = cells
            .iter()
            .map(|cell| cell.decode(header).ok().map(|name| Arc::from(name.as_str())))
            .collect::<Option<_>>()
            .ok_or(BulkError::Header)?;
        let find = |place: &Place, by: &dyn Fn() -> String| {
            let mut at = names.iter().enumerate().filter(|(_, name)| ***name == place.text).map(|(at, _)| at);
            let first = at.next().ok_or_else(|| BulkError::MissingColumn {
                column: place.text.clone(),
                by: by(),
                columns: names.len(),
            })?;
            match at.next() {
                Some(_) => Err(BulkError::AmbiguousColumn { column: place.text.clone() }),
                None => Ok(first),
            }
        };
        let (mapped, subject) = match task {
            Task::Export => (None, None),
            Task::Import { entries, subject } => {
                let mut mapped: Vec<(usize, Arc<str>)> = entries
                    .iter()
                    .enumerate()
                    .map(|(at, entry)| {
                        let column = find(&entry.place, &|| format!("entry {} of the map", at + 1))?;
                        Ok((column, Arc::from(entry.class.as_str())))
                    })
                    .collect::<Result<_, BulkError>>()?;
                mapped.sort_unstable_by_key(|(at, _)| *at);
                (
                    Some(mapped),
                    subject.as_ref().map(|place| find(place, &|| "the subject".to_owned())).transpose()?,
                )
            }
        };
        Ok(Self { delimiter, names, mapped, subject })
    }

    /// Finds what is to be replaced in a record.
    pub(super) fn analyse(&self, number: u64, raw: Zeroizing<Vec<u8>>) -> Result<Row, BulkError> {
        let cells = cells(&raw, self.delimiter);
        let blank = matches!(cells.as_slice(), [cell] if cell.span.is_empty() && !cell.quoted);
        if blank && self.names.len() != 1 {
            return Ok(Row::new(number, raw));
        }
        if cells.len() != self.names.len() {
            return Err(BulkError::Ragged { row: number, cells: cells.len(), expected: self.names.len() });
        }
        let mut row = Row::new(number, raw);
        if let Some(at) = cells.iter().position(|cell| !cell.well_formed(&row.raw)) {
            row.refuse(&self.names[at], Reason::CsvQuoting);
            return Ok(row);
        }
        if let Some(at) = self.subject {
            match cells[at].decode(&row.raw) {
                Ok(id) => row.set_subject(&self.names[at], id),
                Err(reason) => row.refuse(&self.names[at], reason),
            }
        }
        match &self.mapped {
            Some(mapped) => {
                for (at, class) in mapped {
                    self.import(&mut row, &cells[*at], *at, class);
                }
            }
            None => cells.iter().enumerate().for_each(|(at, cell)| self.export(&mut row, cell, at)),
        }
        Ok(row)
    }

    fn import(&self, row: &mut Row, cell: &CellSpan, at: usize, class: &Arc<str>) {
        let column = &self.names[at];
        match cell.decode(&row.raw) {
            Ok(value) if value.is_empty() => {}
            Ok(value) if Token::parse_any(&value).is_ok() => row.refuse(column, Reason::AlreadyToken),
            Ok(value) => row.found(self.slot(cell, column, Some(Arc::clone(class)), value)),
            Err(reason) => row.refuse(column, reason),
        }
    }

    fn export(&self, row: &mut Row, cell: &CellSpan, at: usize) {
        // What is not UTF-8 is no token.
        if let Ok(value) = cell.decode(&row.raw)
            && Token::parse_any(&value).is_ok()
        {
            row.found(self.slot(cell, &self.names[at], None, value));
        }
    }

    fn slot(
        &self,
        cell: &CellSpan,
        column: &Arc<str>,
        class: Option<Arc<str>>,
        value: Zeroizing<String>,
    ) -> Found {
        let encoding = if cell.quoted { Encoding::CsvQuoted } else { Encoding::CsvPlain(self.delimiter) };
        Found { span: cell.span.clone(), encoding, column: Arc::clone(column), class, value }
    }
}

/// Writes a value into a cell that is quoted already.
pub(super) fn encode_quoted(value: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(value.len() * 2));
    for part in value.split_inclusive('"') {
        encoded.push_str(part);
        if part.ends_with('"') {
            encoded.push('"');
        }
    }
    encoded
}

/// Writes a value into a cell that is not quoted; with quotes, if it needs them.
pub(super) fn encode_plain(value: &str, delimiter: u8) -> Zeroizing<String> {
    if !value.bytes().any(|b| b == delimiter || b"\"\r\n".contains(&b)) {
        return Zeroizing::new(value.to_owned());
    }
    let inner = encode_quoted(value);
    let mut encoded = Zeroizing::new(String::with_capacity(inner.len() + 2));
    encoded.push('"');
    encoded.push_str(&inner);
    encoded.push('"');
    encoded
}

/// A cell of a record; of a quoted one, what is between the quotes.
#[derive(Debug)]
struct CellSpan {
    span: Range<usize>,
    quoted: bool,
    /// A quote that opens and none that closes at the end.
    broken: bool,
}

impl CellSpan {
    fn well_formed(&self, record: &[u8]) -> bool {
        let inner = &record[self.span.clone()];
        if self.quoted {
            // No quote that is not doubled.
            let mut quotes = inner.split(|b| *b != b'"');
            !self.broken && quotes.all(|run| run.len() % 2 == 0)
        } else {
            !inner.iter().any(|b| b"\"\r".contains(b))
        }
    }

    fn decode(&self, record: &[u8]) -> Result<Zeroizing<String>, Reason> {
        if !self.well_formed(record) {
            return Err(Reason::CsvQuoting);
        }
        let text = std::str::from_utf8(&record[self.span.clone()]).map_err(|_| Reason::Utf8)?;
        let mut value = Zeroizing::new(String::with_capacity(text.len()));
        // Of a plain cell, which has no quotes, this is a copy.
        for (at, part) in text.split("\"\"").enumerate() {
            if at > 0 {
                value.push('"');
            }
            value.push_str(part);
        }
        Ok(value)
    }
}

/// The cells of one record.
fn cells(record: &[u8], delimiter: u8) -> Vec<CellSpan> {
    let body = record.strip_suffix(b"\n").map_or(record, |body| body.strip_suffix(b"\r").unwrap_or(body));
    let mut scanner = Scanner::new(delimiter);
    let (mut cells, mut start) = (Vec::new(), 0);
    for (at, byte) in body.iter().enumerate() {
        if scanner.feed(*byte) == Event::Delimiter {
            cells.push(cell(body, start..at));
            start = at + 1;
        }
    }
    cells.push(cell(body, start..body.len()));
    cells
}

fn cell(body: &[u8], span: Range<usize>) -> CellSpan {
    let quoted = body[span.clone()].starts_with(b"\"");
    let closed = span.len() >= 2 && body[span.clone()].ends_with(b"\"");
    match (quoted, closed) {
        (true, true) => CellSpan { span: span.start + 1..span.end - 1, quoted, broken: false },
        _ => CellSpan { span, quoted, broken: quoted },
    }
}
