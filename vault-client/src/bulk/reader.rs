//! Reads a file chunk by chunk.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chunk::{Chunk, Reason};
use super::csv::{Columns, Scanner};
use super::error::BulkError;
use super::ndjson::Paths;
use super::plan::{Format, Limits, Plan};
use super::row::{Found, Row};
use super::source::Source;

/// A place between two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// The number of the row before it.
    pub row: u64,
}

/// Reads rows and finds what is to be replaced in them.
pub struct Reader<R> {
    source: Source<R>,
    layout: Layout,
    limits: Limits,
    header: Zeroizing<Vec<u8>>,
    position: Position,
    /// Read, but did not fit into the last chunk.
    pending: Option<(Row, Vec<Found>, Position)>,
}

enum Layout {
    Csv { delimiter: u8, columns: Columns },
    Ndjson(Paths),
}

impl<R: Read> Reader<R> {
    /// Reads the beginning: a byte order mark, and of CSV the header.
    pub fn new(input: R, plan: &Plan) -> Result<Self, BulkError> {
        let mut source = Source::new(input);
        let mut header = source.byte_order_mark()?;
        let (layout, row) = match plan.format {
            Format::Ndjson => (Layout::Ndjson(Paths::new(&plan.task)), 0),
            Format::Csv { delimiter } => {
                let line = csv_record(&mut source, 1, delimiter)?.ok_or(BulkError::NoHeader)?;
                let columns = Columns::new(&line, delimiter, &plan.task)?;
                header = Zeroizing::new([header.as_slice(), line.as_slice()].concat());
                (Layout::Csv { delimiter, columns }, 1)
            }
        };
        let position = Position { offset: source.offset(), row };
        Ok(Self { source, layout, limits: plan.limits, header, position, pending: None })
    }

    /// What comes before the rows, byte for byte; goes to the output and to the rejects.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The next rows; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, BulkError> {
        let mut chunk = Chunk::new(self.position);
        while chunk.rows() < self.limits.rows {
            let next = match self.pending.take() {
                Some(pending) => Some(pending),
                None => self.next_row()?,
            };
            let Some((row, found, end)) = next else { break };
            let full = chunk.cells().len() + found.len() > self.limits.cells
                || chunk.bytes() + row.raw.len() > self.limits.bytes;
            if full && chunk.rows() > 0 {
                self.pending = Some((row, found, end));
                break;
            }
            chunk.push(row, found, end);
        }
        Ok((chunk.rows() > 0).then_some(chunk))
    }

    fn next_row(&mut self) -> Result<Option<(Row, Vec<Found>, Position)>, BulkError> {
        let number = self.position.row + 1;
        let raw = match &self.layout {
            Layout::Csv { delimiter, .. } => csv_record(&mut self.source, number, *delimiter)?,
            Layout::Ndjson(_) => self.source.record(number, |byte| byte == b'\n')?,
        };
        let Some(raw) = raw else { return Ok(None) };
        let mut row = match &self.layout {
            Layout::Csv { columns, .. } => columns.analyse(number, raw)?,
            Layout::Ndjson(paths) => paths.analyse(number, raw)?,
        };
        let mut found = row.take_found();
        if found.len() > self.limits.cells {
            row.refuse(&found[0].column, Reason::TooManyCells);
            found.clear();
        }
        self.position = Position { offset: self.source.offset(), row: number };
        Ok(Some((row, found, self.position)))
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Goes on at a place that [`Chunk::end`] told.
    pub fn seek(&mut self, position: Position) -> Result<(), BulkError> {
        self.source.seek(position.offset)?;
        (self.position, self.pending) = (position, None);
        Ok(())
    }
}

fn csv_record<R: Read>(
    source: &mut Source<R>,
    row: u64,
    delimiter: u8,
) -> Result<Option<Zeroizing<Vec<u8>>>, BulkError> {
    let mut scanner = Scanner::new(delimiter);
    let record = source.record(row, |byte| scanner.ends_record(byte))?;
    if scanner.in_quotes() { Err(BulkError::UnterminatedQuote { row }) } else { Ok(record) }
}
