//! Where the parts of a JSON text are, in bytes, so that some can be replaced and all others left as they are.

use std::ops::Range;

use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// A value of JSON and where it is. The span of a string, or a key, is between its quotes.
#[derive(Debug)]
pub(super) enum Node {
    Object(Vec<(Range<usize>, Node)>),
    Array(Vec<Node>),
    String(Range<usize>),
    Null,
    /// A number or a truth value.
    Scalar,
}

/// A JSON text and its parts.
pub(super) struct Tree<'a> {
    text: &'a str,
    pub(super) root: Node,
}

/// Deeper than any FHIR resource, and shallow enough for the stack.
const MOST_DEPTH: usize = 128;

impl<'a> Tree<'a> {
    /// `None` if it is not one JSON value in UTF-8, or nested too deep.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        // The grammar is checked by serde_json; what is below only has to find its way in what is well-formed.
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        let mut cursor = Cursor { bytes: text.as_bytes(), at: 0 };
        let root = cursor.value(0)?;
        Some(Self { text, root })
    }

    /// The string at `span`, decoded; `None` if its escapes are no text (a lone surrogate).
    pub(super) fn decode(&self, span: &Range<usize>) -> Option<Zeroizing<String>> {
        let raw = self.raw(span)?;
        if !raw.contains('\\') {
            return Some(Zeroizing::new(raw.to_owned()));
        }
        let quoted = self.text.get(span.start.checked_sub(1)?..span.end.checked_add(1)?)?;
        serde_json::from_str(quoted).ok().map(Zeroizing::new)
    }

    /// The bytes at `span` as they are.
    pub(super) fn raw(&self, span: &Range<usize>) -> Option<&'a str> {
        self.text.get(span.clone())
    }

    /// Whether the string at `span` is `text`.
    pub(super) fn is(&self, span: &Range<usize>, text: &str) -> bool {
        match self.raw(span) {
            Some(raw) if !raw.contains('\\') => raw == text,
            _ => self.decode(span).is_some_and(|decoded| *decoded == text),
        }
    }
}

/// The one way in which a string is written back: as serde_json does, without the quotes.
pub(super) fn encode(text: &str) -> Option<Zeroizing<String>> {
    // Six bytes for one is the most (`\u0001`), and a buffer that grows leaves copies behind.
    let mut quoted = Zeroizing::new(Vec::with_capacity(text.len() * 6 + 2));
    serde_json::to_writer(&mut *quoted, text).ok()?;
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    std::str::from_utf8(inner).ok().map(|inner| Zeroizing::new(inner.to_owned()))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn value(&mut self, depth: usize) -> Option<Node> {
        if depth > MOST_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Node::String),
            first => {
                while self.bytes.get(self.at).is_some_and(|b| !b",]} \t\r\n".contains(b)) {
                    self.at += 1;
                }
                Some(if first == b'n' { Node::Null } else { Node::Scalar })
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Node> {
        let mut members = Vec::new();
        self.at += 1;
        loop {
            match self.peek()? {
                b'}' => break,
                b',' => self.at += 1,
                _ => {
                    let key = self.string()?;
                    self.expect(b':')?;
                    members.push((key, self.value(depth + 1)?));
                }
            }
        }
        self.at += 1;
        Some(Node::Object(members))
    }

    fn array(&mut self, depth: usize) -> Option<Node> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.peek()? {
                b']' => break,
                b',' => self.at += 1,
                _ => items.push(self.value(depth + 1)?),
            }
        }
        self.at += 1;
        Some(Node::Array(items))
    }

    fn string(&mut self) -> Option<Range<usize>> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let span = start..self.at;
        self.at += 1;
        Some(span)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(|b| b" \t\r\n".contains(b)) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }
}
