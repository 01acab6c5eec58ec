//! What a run is to do: the map of columns or paths to classes, the format, the limits.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::error::MapError;
use super::path::Path;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Delimited cells with a header line (RFC 4180).
    Csv {
        /// Between cells.
        delimiter: u8,
    },
    /// A JSON object on each line.
    Ndjson,
}

impl Format {
    /// CSV with commas.
    pub const CSV: Self = Self::Csv { delimiter: b',' };
}

/// How much a chunk may hold. A row that has more cells than fit is rejected; one that has more bytes is a chunk
/// of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Values to replace: what one request may carry.
    pub cells: usize,
    /// Bytes of rows.
    pub bytes: usize,
}

impl Limits {
    /// 1,000 values and 1 MiB.
    pub const STANDARD: Self = Self { rows: 10_000, cells: 1_000, bytes: 1 << 20 };
}

/// What to do with a file.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) format: Format,
    pub(super) task: Task,
    pub(super) limits: Limits,
}

#[derive(Debug, Clone)]
pub(super) enum Task {
    Import { entries: Vec<Entry>, subject: Option<Place> },
    Export,
}

/// A line of the map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) class: String,
}

/// A column of CSV or a path of JSON, as it was written and as it was read.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) text: String,
    /// `None` of CSV.
    pub(super) path: Option<Path>,
}

impl Plan {
    /// Values become tokens. `map` has `COLUMN=CLASS` or `PATH=CLASS`; where two paths meet, the first counts.
    /// `subject` is the column or path of the application's id of the person, and every row has to have one.
    pub fn import(format: Format, map: &[impl AsRef<str>], subject: Option<&str>) -> Result<Self, MapError> {
        let entries: Vec<_> =
            map.iter().map(|entry| Entry::parse(entry.as_ref(), format)).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Err(MapError::Empty);
        }
        let mut seen = BTreeSet::new();
        if let Some(entry) = entries.iter().find(|entry| !seen.insert(entry.place.text.as_str())) {
            return Err(MapError::Twice(entry.place.text.clone()));
        }
        let subject = subject.map(|text| Place::parse(text, format)).transpose()?;
        Self::new(format, Task::Import { entries, subject })
    }

    /// Tokens, wherever they are, become values.
    pub fn export(format: Format) -> Result<Self, MapError> {
        Self::new(format, Task::Export)
    }

    /// Other limits than [`Limits::STANDARD`].
    pub fn with_limits(self, limits: Limits) -> Result<Self, MapError> {
        if [limits.rows, limits.cells, limits.bytes].contains(&0) {
            return Err(MapError::Limits);
        }
        Ok(Self { limits, ..self })
    }

    fn new(format: Format, task: Task) -> Result<Self, MapError> {
        match format {
            Format::Csv { delimiter: b'\t' | b' ' } | Format::Ndjson => {}
            Format::Csv { delimiter } if delimiter.is_ascii_punctuation() && delimiter != b'"' => {}
            Format::Csv { .. } => return Err(MapError::Delimiter),
        }
        Ok(Self { format, task, limits: Limits::STANDARD })
    }

    /// Tells whether two runs are the same one: SHA-256 over format, task, limits and header, length-prefixed.
    /// The limits are in it because the chunks that they make have idempotency keys.
    pub(super) fn fingerprint(&self, header: &[u8]) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        match self.format {
            Format::Csv { delimiter } => field(&[b'c', delimiter]),
            Format::Ndjson => field(b"n"),
        }
        for limit in [self.limits.rows, self.limits.cells, self.limits.bytes] {
            field(&(limit as u64).to_be_bytes());
        }
        field(header);
        match &self.task {
            Task::Export => field(b"export"),
            Task::Import { entries, subject } => {
                field(b"import");
                field(subject.as_ref().map_or("", |s| s.text.as_str()).as_bytes());
                for entry in entries {
                    field(entry.place.text.as_bytes());
                    field(entry.class.as_bytes());
                }
            }
        }
        hex::encode(hash.finalize())
    }

    /// The places that are mapped.
    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.task {
            Task::Import { entries, .. } => entries.as_slice(),
            Task::Export => &[],
        };
        entries.iter().map(|entry| entry.place.text.as_str())
    }
}

impl Entry {
    /// The class is after the last `=`: a path's filter has one, too.
    fn parse(text: &str, format: Format) -> Result<Self, MapError> {
        let form = || MapError::Form(text.to_owned());
        let (place, class) = text.rsplit_once('=').ok_or_else(form)?;
        let named = (1..=32).contains(&class.len())
            && !class.starts_with('_')
            && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !named {
            return Err(MapError::Class(text.to_owned()));
        }
        Ok(Self { place: Place::parse(place, format)?, class: class.to_owned() })
    }
}

impl Place {
    fn parse(text: &str, format: Format) -> Result<Self, MapError> {
        let path = match format {
            Format::Csv { .. } => None,
            Format::Ndjson => Some(Path::parse(text).ok_or_else(|| MapError::Path(text.to_owned()))?),
        };
        Ok(Self { text: text.to_owned(), path })
    }
}
