//! Some rows, the values to ask the vault about, and the rows with its answers in place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vault_format::token::Token;
use zeroize::Zeroizing;

use super::error::BulkError;
use super::reader::Position;
use super::row::{Found, Row, Slot};
use super::secret::{Secret, buffer};

/// A value that is to become a token, or a token that is to become a value.
pub struct Cell {
    /// The row that it is in.
    pub row: u64,
    /// The column or path, as the map has it; of an exported JSON line `token 1`, `token 2` ...
    pub column: Arc<str>,
    /// The class, as the map has it; `None` in an export.
    pub class: Option<Arc<str>>,
    /// The value, or the token.
    pub value: Secret,
    /// The application's id of the person, if the plan has a subject.
    pub subject: Option<Arc<Secret>>,
}

/// What the vault said of a cell: the token, or the value.
pub type Answer = Result<Zeroizing<String>, Rejection>;

/// The vault's refusal of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why, without the value.
    pub reason: String,
}

/// Why a row was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// A quote is where none should be: it would not come back as it was.
    CsvQuoting,
    /// An escape that would be written another way: it would not come back as it was.
    JsonEscape,
    /// Not UTF-8.
    Utf8,
    /// A mapped place holds a number, a truth value, an object or an array.
    NotAString,
    /// The value is a token already.
    AlreadyToken,
    /// No subject id where there should be one, or more than one, or one of over 256 bytes.
    Subject,
    /// More values in the row than a chunk may have.
    TooManyCells,
    /// The vault refused it.
    Vault(Rejection),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CsvQuoting => "csv_quoting",
            Self::JsonEscape => "json_escape",
            Self::Utf8 => "utf8",
            Self::NotAString => "not_a_string",
            Self::AlreadyToken => "already_token",
            Self::Subject => "subject",
            Self::TooManyCells => "too_many_cells",
            Self::Vault(rejection) => &rejection.reason,
        })
    }
}

/// A row that went to the rejects file. Prints as `row 17, SSN: csv_quoting`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Which.
    pub row: u64,
    /// Where in it.
    pub column: Arc<str>,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for RejectedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, {}: {}", self.row, self.column, self.reason)
    }
}

/// How much was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Rows read, the header not among them.
    pub rows: u64,
    /// Values replaced.
    pub cells: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// Values of each mapped column or path that the vault was asked about.
    pub by_column: BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.cells += other.cells;
        self.rejected += other.rejected;
        for (column, count) in &other.by_column {
            *self.by_column.entry(column.clone()).or_default() += count;
        }
    }
}

/// What a chunk became.
pub struct Rendered {
    /// For the output.
    pub out: Zeroizing<Vec<u8>>,
    /// For the rejects file: rows as they came.
    pub rejected: Zeroizing<Vec<u8>>,
    /// Which rows those are, and why.
    pub reasons: Vec<RejectedRow>,
    /// How much it was.
    pub counts: Counts,
}

/// Some rows, in order.
pub struct Chunk {
    rows: Vec<(Row, Vec<Slot>)>,
    cells: Vec<Cell>,
    bytes: usize,
    end: Position,
}

impl Chunk {
    pub(super) fn new(end: Position) -> Self {
        Self { rows: Vec::new(), cells: Vec::new(), bytes: 0, end }
    }

    /// What to ask the vault about, in order; may be none.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Where in the input it ends.
    pub fn end(&self) -> Position {
        self.end
    }

    /// The rows with the answers, one for each of [`Chunk::cells`] and in their order, in place. Of an import, an
    /// answer has to be a token.
    pub fn render(self, answers: Vec<Answer>) -> Result<Rendered, BulkError> {
        if answers.len() != self.cells.len() {
            return Err(BulkError::Answers { cells: self.cells.len(), answers: answers.len() });
        }
        let mut counts = Counts { rows: self.rows.len() as u64, ..Counts::default() };
        let (mut lines, mut reasons) = (Vec::with_capacity(self.rows.len()), Vec::new());
        let mut pending = self.cells.into_iter().zip(answers);
        for (row, slots) in self.rows {
            let texts = answers_of_row(pending.by_ref().take(slots.len()), &mut counts)?;
            match (row.refused.clone(), texts) {
                (None, Ok(texts)) => {
                    let line = row
                        .replace(&slots, &texts)
                        .ok_or(BulkError::Answers { cells: slots.len(), answers: texts.len() })?;
                    counts.cells += slots.len() as u64;
                    lines.push((true, line));
                }
                (Some((column, reason)), _) | (None, Err((column, reason))) => {
                    reasons.push(RejectedRow { row: row.number, column, reason });
                    lines.push((false, row.raw));
                }
            }
        }
        counts.rejected = reasons.len() as u64;
        Ok(Rendered { out: joined(&lines, true), rejected: joined(&lines, false), reasons, counts })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row that ends at `end`.
    pub(super) fn push(&mut self, mut row: Row, found: Vec<Found>, end: Position) {
        let mut slots = Vec::with_capacity(found.len());
        for Found { span, encoding, column, class, value } in found {
            slots.push(Slot { span, encoding });
            let subject = row.subject.clone();
            self.cells.push(Cell { row: row.number, column, class, value: Secret::new(value), subject });
        }
        row.subject = None;
        self.bytes += row.raw.len();
        self.rows.push((row, slots));
        self.end = end;
    }
}

type OfRow = Result<Vec<Zeroizing<String>>, (Arc<str>, Reason)>;

/// The texts of a row, or where and why the first of them was refused.
fn answers_of_row(
    answers: impl Iterator<Item = (Cell, Answer)>,
    counts: &mut Counts,
) -> Result<OfRow, BulkError> {
    let mut all = Ok(Vec::new());
    for (cell, answer) in answers {
        if cell.class.is_some() {
            *counts.by_column.entry(cell.column.to_string()).or_default() += 1;
        }
        match (&mut all, answer) {
            (Ok(texts), Ok(text)) => {
                // A value that comes back instead of a token must not pass for one.
                if cell.class.is_some() && Token::parse_any(&text).is_err() {
                    return Err(BulkError::NotAToken { row: cell.row });
                }
                texts.push(text);
            }
            (Ok(_), Err(rejection)) => all = Err((cell.column, Reason::Vault(rejection))),
            (Err(_), _) => {}
        }
    }
    Ok(all)
}

/// The lines of one kind in one buffer.
fn joined(lines: &[(bool, Zeroizing<Vec<u8>>)], kind: bool) -> Zeroizing<Vec<u8>> {
    let chosen = || lines.iter().filter(|line| line.0 == kind).map(|line| &line.1);
    let mut bytes = buffer(chosen().map(|line| line.len()).sum());
    chosen().for_each(|line| bytes.extend_from_slice(line));
    bytes
}
