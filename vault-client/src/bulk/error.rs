//! What stops a run. Nothing here holds a cell's content; a column that is not there is named by its place in the map, for
//! the first line of a file without a header holds values, and so may a map.

use std::io;
use std::path::PathBuf;

use super::source::MAX_RECORD;

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// The input cannot be read.
    #[error("cannot read the input")]
    Read(#[source] io::Error),
    /// A file of the run cannot be opened, written, synced or removed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A CSV file has nothing in it.
    #[error("the file has no header line")]
    NoHeader,
    /// The header is not UTF-8, or its quoting is broken.
    #[error("the header line is not well-formed")]
    Header,
    /// The map or the subject names a column that the file does not have. Neither the name is printed, which may be a value
    /// that was meant for something else, nor are those of the first line, which may be values, too.
    #[error(
        "there is no column as {by} names it among the {columns} of the first line: is that line a header?"
    )]
    MissingColumn {
        /// The name that was asked for.
        column: String,
        /// What asked for it.
        by: String,
        /// How many columns there are.
        columns: usize,
    },
    /// The map or the subject names a column that the file has twice.
    #[error("there is more than one column `{column}`")]
    AmbiguousColumn {
        /// The name.
        column: String,
    },
    /// A row has too many or too few cells: a delimiter or quote is where none should be, and values might be in
    /// the wrong columns.
    #[error("row {row} has {cells} cells, the header has {expected}")]
    Ragged {
        /// Which.
        row: u64,
        /// What it has.
        cells: usize,
        /// What the header has.
        expected: usize,
    },
    /// The file ends inside of a quoted cell.
    #[error("row {row} begins a quoted cell that never ends")]
    UnterminatedQuote {
        /// Which.
        row: u64,
    },
    /// A line is not a JSON object in UTF-8.
    #[error("line {row} is not a JSON object")]
    Json {
        /// Which.
        row: u64,
    },
    /// A record does not fit.
    #[error("row {row} is larger than {MAX_RECORD} bytes")]
    RecordTooLarge {
        /// Which.
        row: u64,
    },
    /// Not one answer for each cell.
    #[error("{answers} answers for {cells} values")]
    Answers {
        /// How many cells there are.
        cells: usize,
        /// How many answers came.
        answers: usize,
    },
    /// What should be written in place of a value is not a token.
    #[error("row {row}: the answer is not a token")]
    NotAToken {
        /// For which row.
        row: u64,
    },
    /// Two files of the run are the same one.
    #[error("{} and {} are the same file", one.display(), other.display())]
    SameFile {
        /// One name of it.
        one: PathBuf,
        /// The other name.
        other: PathBuf,
    },
    /// There is an output file, and no run to resume.
    #[error("{} exists already", path.display())]
    OutputExists {
        /// Which.
        path: PathBuf,
    },
    /// An output of the run to resume is not as the run left it.
    #[error("{} is shorter than the interrupted run left it", path.display())]
    OutputChanged {
        /// Which.
        path: PathBuf,
    },
    /// The input is not the one of the interrupted run.
    #[error("the input changed since the interrupted run; remove {} and its output to start anew", state.display())]
    InputChanged {
        /// The state of the interrupted run.
        state: PathBuf,
    },
    /// The interrupted run had another map, format or direction, other limits, or another header.
    #[error("the interrupted run was another one; remove {} and its output to start anew", state.display())]
    PlanChanged {
        /// The state of the interrupted run.
        state: PathBuf,
    },
    /// The state is not one that this version wrote.
    #[error("{} is not the state of an interrupted run", state.display())]
    State {
        /// Its file.
        state: PathBuf,
    },
    /// Another process is at it.
    #[error("another process writes {}", path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("no randomness")]
    Random,
}

/// Why a map is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Not `NAME=CLASS`. Not printed: it may be a value that was meant for something else.
    #[error("an entry of the map is not of the form NAME=CLASS")]
    Form(String),
    /// The class cannot be one. Not printed, for the same reason.
    #[error(
        "what an entry of the map has for its class, behind the `=`, is none: 1 to 32 characters of a-z, 0-9 and '_', not \
         beginning with '_'"
    )]
    Class(String),
    /// The path cannot be one. Not printed, for the same reason.
    #[error(
        "an entry of the map, or the subject, is not a path, such as name[*].given[0] or identifier[system=urn:x].value"
    )]
    Path(String),
    /// The same twice. Not printed, for the same reason.
    #[error("the map has the same column or path twice")]
    Twice(String),
    /// Nothing to do.
    #[error("the map is empty")]
    Empty,
    /// The delimiter would be taken for something else.
    #[error("a delimiter is one ASCII character, no letter, digit, quote or line end")]
    Delimiter,
    /// A limit is zero.
    #[error("a limit is at least 1")]
    Limits,
}
