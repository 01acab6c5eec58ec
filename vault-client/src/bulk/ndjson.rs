//! JSON objects, one a line, and where their strings are.
//!
//! Only strings are replaced. One whose escapes would not come back as they were (`\/`, `\u00e9`) rejects its row, and
//! so does a mapped place that holds something else than a string: left alone, it would stay in the output.

use std::sync::Arc;

use vault_format::token::Token;
use zeroize::Zeroizing;

use super::chunk::Reason;
use super::error::BulkError;
use super::json::{Node, Tree, encode};
use super::path::Path;
use super::plan::Task;
use super::row::{Encoding, Found, Row};

/// What a plan says of the paths.
#[derive(Debug)]
pub(super) struct Paths {
    /// `None`: export.
    mapped: Option<Vec<Mapped>>,
    subject: Option<(Arc<str>, Path)>,
}

#[derive(Debug)]
struct Mapped {
    text: Arc<str>,
    path: Path,
    class: Arc<str>,
}

impl Paths {
    pub(super) fn new(task: &Task) -> Self {
        match task {
            Task::Export => Self { mapped: None, subject: None },
            Task::Import { entries, subject } => {
                let mapped = entries.iter().filter_map(|entry| {
                    let path = entry.place.path.clone()?;
                    Some(Mapped {
                        text: Arc::from(entry.place.text.as_str()),
                        path,
                        class: Arc::from(entry.class.as_str()),
                    })
                });
                let subject =
                    subject.as_ref().and_then(|s| Some((Arc::from(s.text.as_str()), s.path.clone()?)));
                Self { mapped: Some(mapped.collect()), subject }
            }
        }
    }

    /// Finds what is to be replaced in a line.
    pub(super) fn analyse(&self, number: u64, raw: Zeroizing<Vec<u8>>) -> Result<Row, BulkError> {
        let mut row = Row::new(number, raw);
        if row.raw.iter().all(u8::is_ascii_whitespace) {
            return Ok(row);
        }
        // The row owns the bytes that the tree borrows; what is found is collected beside it.
        let line = std::mem::take(&mut row.raw);
        let tree = Tree::parse(&line).filter(|tree| matches!(tree.root, Node::Object(_)));
        let tree = tree.ok_or(BulkError::Json { row: number })?;
        match &self.mapped {
            Some(mapped) => {
                self.subject(&mut row, &tree);
                for entry in mapped {
                    entry.import(&mut row, &tree);
                }
            }
            None => export(&mut row, &tree, &tree.root),
        }
        drop(tree);
        row.raw = line;
        Ok(row)
    }

    fn subject(&self, row: &mut Row, tree: &Tree<'_>) {
        let Some((text, path)) = &self.subject else { return };
        let mut ids = Vec::new();
        path.follow(tree, &mut |node| ids.push(node));
        let id = match ids.as_slice() {
            [Node::String(span)] => tree.decode(span),
            // None, several, or not a string.
            _ => None,
        };
        match id {
            Some(id) => row.set_subject(text, id),
            None => row.refuse(text, Reason::Subject),
        }
    }
}

impl Mapped {
    fn import(&self, row: &mut Row, tree: &Tree<'_>) {
        self.path.follow(tree, &mut |node| {
            let span = match node {
                Node::String(span) if span.is_empty() => return,
                Node::Null => return,
                Node::String(span) => span,
                Node::Object(_) | Node::Array(_) | Node::Scalar => {
                    return row.refuse(&self.text, Reason::NotAString);
                }
            };
            let canonical = tree.decode(span).filter(|value| {
                encode(value).is_some_and(|encoded| tree.raw(span) == Some(encoded.as_str()))
            });
            match canonical {
                None => row.refuse(&self.text, Reason::JsonEscape),
                Some(value) if Token::parse_any(&value).is_ok() => {
                    row.refuse(&self.text, Reason::AlreadyToken);
                }
                Some(value) => row.found(Found {
                    span: span.clone(),
                    encoding: Encoding::Json,
                    column: Arc::clone(&self.text),
                    class: Some(Arc::clone(&self.class)),
                    value,
                }),
            }
        });
    }
}

/// Every string that is a token, in the order of the text.
fn export(row: &mut Row, tree: &Tree<'_>, node: &Node) {
    match node {
        Node::Object(members) => members.iter().for_each(|(_, member)| export(row, tree, member)),
        Node::Array(items) => items.iter().for_each(|item| export(row, tree, item)),
        Node::String(span) => {
            if let Some(value) = tree.decode(span)
                && Token::parse_any(&value).is_ok()
            {
                // Keys are not told: they may be PHI where an object is keyed by person.
                let column = Arc::from(format!("token {}", row.count() + 1));
                row.found(Found { span: span.clone(), encoding: Encoding::Json, column, class: None, value });
            }
        }
        Node::Null | Node::Scalar => {}
    }
}
