//! A row as it came, and the values found in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::chunk::Reason;
use super::secret::{Secret, buffer};
use super::{csv, json};

/// The most bytes of a subject id that the vault takes.
const MOST_SUBJECT: usize = 256;

/// How a value is written in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    CsvQuoted,
    /// With the delimiter that it must not contain.
    CsvPlain(u8),
    Json,
}

/// A value and where it is.
pub(super) struct Found {
    /// Of its encoded form in the row; of a quoted one, between the quotes.
    pub(super) span: Range<usize>,
    pub(super) encoding: Encoding,
    pub(super) column: Arc<str>,
    pub(super) class: Option<Arc<str>>,
    pub(super) value: Zeroizing<String>,
}

/// A record with its line end.
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) raw: Zeroizing<Vec<u8>>,
    pub(super) subject: Option<Arc<Secret>>,
    /// Where and why it was refused before anyone was asked.
    pub(super) refused: Option<(Arc<str>, Reason)>,
    /// By where they begin.
    found: BTreeMap<usize, Found>,
}

impl Row {
    pub(super) fn new(number: u64, raw: Zeroizing<Vec<u8>>) -> Self {
        Self { number, raw, subject: None, refused: None, found: BTreeMap::new() }
    }

    pub(super) fn found(&mut self, found: Found) {
        // Two paths may lead to one place: the first counts.
        self.found.entry(found.span.start).or_insert(found);
    }

    /// Refuses the row; the first reason counts.
    pub(super) fn refuse(&mut self, column: &Arc<str>, reason: Reason) {
        self.refused.get_or_insert_with(|| (Arc::clone(column), reason));
    }

    pub(super) fn set_subject(&mut self, column: &Arc<str>, id: Zeroizing<String>) {
        if (1..=MOST_SUBJECT).contains(&id.len()) {
            self.subject = Some(Arc::new(Secret::new(id)));
        } else {
            self.refuse(column, Reason::Subject);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// What was found, in the order of the bytes; nothing of a refused row.
    pub(super) fn take_found(&mut self) -> Vec<Found> {
        let found = std::mem::take(&mut self.found);
        if self.refused.is_some() { Vec::new() } else { found.into_values().collect() }
    }

    /// The row with the texts in place of what is at the slots, which are in order and apart.
    pub(super) fn replace(&self, slots: &[Slot], texts: &[Zeroizing<String>]) -> Option<Zeroizing<Vec<u8>>> {
        let encoded: Vec<_> = slots
            .iter()
            .zip(texts)
            .map(|(slot, text)| match slot.encoding {
                Encoding::CsvQuoted => Some(csv::encode_quoted(text)),
                Encoding::CsvPlain(delimiter) => Some(csv::encode_plain(text, delimiter)),
                Encoding::Json => json::encode(text),
            })
            .collect::<Option<_>>()?;
        let mut line = buffer(self.raw.len() + encoded.iter().map(|text| text.len()).sum::<usize>());
        let mut kept = 0;
        for (slot, text) in slots.iter().zip(&encoded) {
            line.extend_from_slice(self.raw.get(kept..slot.span.start)?);
            line.extend_from_slice(text.as_bytes());
            kept = slot.span.end;
        }
        line.extend_from_slice(self.raw.get(kept..)?);
        Some(line)
    }
}

/// Where an answer goes.
pub(super) struct Slot {
    pub(super) span: Range<usize>,
    pub(super) encoding: Encoding,
}
