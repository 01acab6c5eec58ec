//! The keys that have signed a vault's logs, each vouched for by the one before.
//!
//! A vault's logs are signed with one key at a time. When a new one takes its place, both sign a statement that names
//! both; when an old one is found to be known to others, a later one signs that. Each statement is a signed note:
//!
//! ```text
//! phi-vault-signing-key/succession/v1\n<vault>\n<version of the new>\n<old verifier>\n<new verifier>\n
//!     signed by old and by new, in this order
//! phi-vault-signing-key/compromised/v1\n<vault>\n<version>\n<verifier>\n
//!     signed by one of a later version
//!
//! history = for each version, from the first: its succession (not of the first), then its mark, if there is one
//! ```
//!
//! `<vault>` is the origin of log 0, which is the name of all verifiers here; for another log the same key has that log's
//! origin as its name. No statement can be taken for a checkpoint: its second line is no size.
//!
//! Whoever holds one of the keys and knows that it is the vault's knows by the statements those behind it (the old one
//! signed) and before it (the new one signed). A mark cuts: whoever has the marked key can have made any statement that
//! it signed, so that key and those before it prove nothing any more, and who holds no later key has to get one by
//! another way.

use crate::note::{self, NoteError, Signer, Verifier};

const SUCCESSION: &str = "phi-vault-signing-key/succession/v1";
const COMPROMISED: &str = "phi-vault-signing-key/compromised/v1";
/// More than any vault has keys; bounds the work on a hostile history.
const MOST_KEYS: usize = 4096;

/// Why a history is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A statement is not of its form, or not in its place.
    #[error("signing keys: statement {number} is malformed, or not in its place")]
    Malformed {
        /// Which, from 1.
        number: usize,
    },
    /// A statement is not signed by whom it must be.
    #[error("signing keys: statement {number}: {source}")]
    Signature {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        source: NoteError,
    },
    /// The statements are of other keys.
    #[error("signing keys: the statements do not lead to the trusted key")]
    Untrusted,
    /// The trusted key, or one behind it, is marked as compromised.
    #[error(
        "signing keys: version {version} is marked as compromised, and the trusted key is not a later one: get one by another way"
    )]
    Compromised {
        /// The newest that is marked.
        version: u32,
    },
}

/// The statement that `new`, of version `version`, takes the place of `old`. Both have the vault's name.
pub fn succession(version: u32, old: &Signer, new: &Signer) -> Result<String, NoteError> {
    let (from, to) = (old.verifier(), new.verifier());
    note::sign(&succession_text(version, from, to), &[old, new])
}

/// The statement that a key is compromised, signed by a later one.
pub fn compromised(version: u32, key: &Verifier, by: &Signer) -> Result<String, NoteError> {
    by.sign(&compromised_text(version, key))
}

fn succession_text(version: u32, old: &Verifier, new: &Verifier) -> String {
    format!("{SUCCESSION}\n{}\n{version}\n{}\n{}\n", new.name(), old.to_key(), new.to_key())
}

fn compromised_text(version: u32, key: &Verifier) -> String {
    format!("{COMPROMISED}\n{}\n{version}\n{}\n", key.name(), key.to_key())
}

/// The public keys that a log's checkpoints may be signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifiers {
    /// Each signature by one of these counts.
    pub(crate) accepted: Vec<Verifier>,
    /// Signatures by these must hold where there are any, and count for nothing.
    pub(crate) rejected: Vec<Verifier>,
}

impl Verifiers {
    /// All of them count, also those that are marked as compromised: for what was had before the mark.
    #[must_use]
    pub fn as_before_the_mark(&self) -> Self {
        let accepted = self.rejected.iter().chain(&self.accepted).cloned().collect();
        Self { accepted, rejected: Vec::new() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Verifier> {
        self.rejected.iter().chain(&self.accepted)
    }
}

impl From<&Verifier> for Verifiers {
    fn from(verifier: &Verifier) -> Self {
        Self { accepted: vec![verifier.clone()], rejected: Vec::new() }
    }
}

impl From<&Self> for Verifiers {
    fn from(verifiers: &Self) -> Self {
        verifiers.clone()
    }
}

/// The keys of a vault that a trusted one leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Version n at n-1. Where there are no statements it is only known that there is one.
    keys: Vec<Verifier>,
    /// So many of them, the oldest, prove nothing any more.
    cut: usize,
}

impl History {
    /// Reads statements, of which the empty text has none. Every one must be in its place and signed by whom it must be,
    /// and `trusted`, under the vault's name, must be one of the keys.
    pub fn read(text: &str, trusted: &Verifier) -> Result<Self, HistoryError> {
        let statements = split(text)?;
        if statements.is_empty() {
            return Ok(Self { keys: vec![trusted.clone()], cut: 0 });
        }
        let keys = keys(&statements, trusted.name())?;
        let mut place = (1, false);
        let mut cut = 0;
        for (number, statement) in (1..).zip(&statements) {
            let malformed = HistoryError::Malformed { number };
            let failed = |source| HistoryError::Signature { number, source };
            let here = (statement.version, statement.is_mark());
            // From the first on, none left out, none twice.
            let follows = if statement.is_mark() { here > place } else { here == (place.0 + 1, false) };
            let is_there = (1..=keys.len() as u32).contains(&statement.version);
            if !follows || !is_there || statement.is_mark() && here.0 != place.0 {
                return Err(malformed);
            }
            place = here;
            let at = statement.version as usize;
            let key = &keys[at - 1];
            if statement.is_mark() {
                if statement.text() != compromised_text(statement.version, key) {
                    return Err(malformed);
                }
                let opened = note::open(statement.note, &keys[at..]).map_err(failed)?;
                if (opened.known, opened.unknown) != (1, 0) {
                    return Err(malformed);
                }
                cut = at;
            } else {
                let old = &keys[at - 2];
                if statement.text() != succession_text(statement.version, old, key) {
                    return Err(malformed);
                }
                for signer in [old, key] {
                    let opened = note::open(statement.note, std::slice::from_ref(signer)).map_err(failed)?;
                    if (opened.known, opened.unknown) != (1, 1) {
                        return Err(malformed);
                    }
                }
            }
        }
        match keys.iter().position(|key| key == trusted) {
            None => Err(HistoryError::Untrusted),
            Some(place) if place < cut => Err(HistoryError::Compromised { version: cut as u32 }),
            Some(_) => Ok(Self { keys, cut }),
        }
    }

    /// The newest key.
    pub fn newest(&self) -> &Verifier {
        self.keys.last().expect("there is at least the trusted one")
    }

    /// A version's key.
    pub fn key(&self, version: u32) -> Option<&Verifier> {
        self.keys.get(usize::try_from(version.checked_sub(1)?).ok()?)
    }

    /// Its version; 1 where there are no statements.
    pub fn versions(&self) -> usize {
        self.keys.len()
    }

    /// What verifies the log with this origin.
    pub fn of_log(&self, origin: &str) -> Result<Verifiers, NoteError> {
        let mut rejected = self.keys.iter().map(|key| key.named(origin)).collect::<Result<Vec<_>, _>>()?;
        let accepted = rejected.split_off(self.cut);
        Ok(Verifiers { accepted, rejected })
    }
}

/// One statement, of which nothing was checked but its first lines.
struct Statement<'a> {
    note: &'a str,
    kind: &'a str,
    version: u32,
}

impl<'a> Statement<'a> {
    fn is_mark(&self) -> bool {
        self.kind == COMPROMISED
    }

    fn text(&self) -> &'a str {
        &self.note[..=self.note.find("\n\n").unwrap_or_default()]
    }

    fn line(&self, number: usize) -> Option<&'a str> {
        self.text().lines().nth(number)
    }
}

/// The notes of a history: text, empty line, lines of signatures.
fn split(mut text: &str) -> Result<Vec<Statement<'_>>, HistoryError> {
    let mut statements = Vec::new();
    while !text.is_empty() {
        let number = statements.len() + 1;
        let malformed = HistoryError::Malformed { number };
        let signatures = text.find("\n\n").ok_or(malformed.clone())? + 2;
        let lines = text[signatures..].split_inclusive('\n').take_while(|line| line.starts_with(note::MARK));
        let end = signatures + lines.map(str::len).sum::<usize>();
        let note = &text[..end];
        text = &text[end..];
        let mut lines = note.lines();
        let (kind, version) = (lines.next().unwrap_or_default(), lines.nth(1));
        let version = version.and_then(|version| version.parse().ok()).ok_or(malformed.clone())?;
        if ![SUCCESSION, COMPROMISED].contains(&kind) || number > 2 * MOST_KEYS {
            return Err(malformed);
        }
        statements.push(Statement { note, kind, version });
    }
    Ok(statements)
}

/// The keys that the successions name, from the first; the last line of each is the new key's, all of this name.
fn keys(statements: &[Statement<'_>], name: &str) -> Result<Vec<Verifier>, HistoryError> {
    let mut keys: Vec<Verifier> = Vec::new();
    for (number, statement) in (1..).zip(statements).filter(|(_, statement)| !statement.is_mark()) {
        let read = |line| {
            let key = statement.line(line).and_then(|line| Verifier::parse(line).ok());
            key.filter(|key| key.name() == name).ok_or(HistoryError::Malformed { number })
        };
        if keys.is_empty() {
            keys.push(read(3)?);
        }
        let new = read(4)?;
        if keys.contains(&new) {
            return Err(HistoryError::Malformed { number });
        }
        keys.push(new);
    }
    if keys.is_empty() { Err(HistoryError::Malformed { number: 1 }) } else { Ok(keys) }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
