//! What a failed statement means for what it wrote.

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::StoreError;

/// Why a statement gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection, or the server's mind, was lost: whether a commit happened is not known.
    Lost(String),
    /// Nothing was written; trying again may help.
    Again(String),
    /// Nothing was written: a row is there already.
    Duplicate,
    /// Nothing was written, and trying again does not help.
    Refused(String),
}

impl Failure {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Lost(why) | Self::Again(why) | Self::Refused(why) => why,
            Self::Duplicate => "a row is there already",
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Lost(printable(&chain(&error)));
        };
        let why = describe(db);
        let code = db.code();
        if *code == SqlState::UNIQUE_VIOLATION {
            return Self::Duplicate;
        }
        if *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
            || *code == SqlState::LOCK_NOT_AVAILABLE
        {
            return Self::Again(why);
        }
        // 08: connection; 57P: the server is stopping, crashed or starting; 40003: it does not know itself;
        // 25006: it takes no writes any more.
        let lost = code.code().starts_with("08")
            || code.code().starts_with("57P")
            || *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            || *code == SqlState::READ_ONLY_SQL_TRANSACTION
            || matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        if lost { Self::Lost(why) } else { Self::Refused(why) }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable { why: format!("database: {}", failure.why()) }
    }
}

/// Code and message. The detail is left out: it may quote a row.
fn describe(db: &DbError) -> String {
    printable(&format!("{} ({})", db.message(), db.code().code()))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a server says, fit for one line of a log, whatever it is.
pub(super) fn printable(text: &str) -> String {
    const MOST: usize = 200;
    let shown = text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c });
    let mut line: String = shown.take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        line.push_str(" ...");
    }
    line
}

/// Characters without a shape that change how others are shown: marks, overrides and isolates of direction, joiners,
/// separators of lines (Unicode Standard Annex 9, and General Category Cf).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_one_short_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(printable("a\u{202e}b\u{2028}c"), "a b c");
        assert_eq!(printable(&"x".repeat(1 << 20)).len(), 204);
    }
}
