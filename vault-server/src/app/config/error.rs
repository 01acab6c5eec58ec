//! What is wrong with a configuration, and where: file, line, option, and the name that was likely meant.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use vault_format::told;

/// The configuration is not accepted. Prints as `file:line: [section] option: what is wrong`.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    message: String,
    source: Option<io::Error>,
}

impl ConfigError {
    /// In which line, counted from 1, if it is in one.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The file can't be read.
    pub(super) fn read(file: &Path, error: io::Error) -> Self {
        Self { file: file.to_owned(), line: None, message: "can't be read".to_owned(), source: Some(error) }
    }

    /// The file is no TOML, or has an option that is unknown, missing or of another kind.
    pub(super) fn parse(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let place = error.span().map(|span| Place::at(text, span.start));
        let message = unknown_option(error.message(), place.as_ref()).unwrap_or_else(|| {
            match place.as_ref().and_then(Place::option) {
                Some(option) => format!("{option}: {}", told::expected(error.message())),
                None => told::expected(error.message()),
            }
        });
        Self { file: file.to_owned(), line: place.map(|place| place.line), message, source: None }
    }

    /// An option's value is not accepted. `option` is its full name, as `limits.max_items`.
    pub(super) fn option(file: &Path, text: &str, option: &str, why: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            line: line_of(text, option),
            message: format!("{option}: {why}"),
            source: None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// A line of the file and the section it is in.
struct Place {
    line: usize,
    section: String,
    key: Option<String>,
}

impl Place {
    fn at(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count();
        let section =
            text.lines().take(line + 1).filter_map(section_name).last().unwrap_or_default().to_owned();
        Self { line: line + 1, section, key: text.lines().nth(line).and_then(key_name).map(str::to_owned) }
    }

    /// The option's full name, if the line has one.
    fn option(&self) -> Option<String> {
        match (&self.key, self.section.as_str()) {
            (None, "") => None,
            (None, section) => Some(format!("[{section}]")),
            (Some(key), "") => Some(key.clone()),
            (Some(key), section) => Some(format!("{section}.{key}")),
        }
    }
}

fn section_name(line: &str) -> Option<&str> {
    let line = line.trim();
    line.strip_prefix('[')
        .map(|rest| rest.trim_start_matches('[').split(']').next().unwrap_or_default().trim())
}

fn key_name(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.starts_with(['#', '['])).then_some(key)
}

fn line_of(text: &str, option: &str) -> Option<usize> {
    let (section, key) = option.rsplit_once('.').unwrap_or(("", option));
    let mut current = "";
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = section_name(line) {
            current = name;
        } else if current == section && key_name(line) == Some(key) {
            return Some(number + 1);
        }
    }
    None
}

/// Serde's "unknown field `a`, expected one of `b`, `c`", made useful.
fn unknown_option(message: &str, place: Option<&Place>) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let unknown = quoted.next()?;
    let section = place.map(|place| place.section.as_str()).unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let what = if section.is_empty() || section == unknown {
        format!("unknown section or option `{unknown}`")
    } else {
        format!("unknown option `{unknown}` in [{section}]")
    };
    let nearest = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), *name))
        .filter(|(distance, name)| *distance <= name.len().max(unknown.len()).div_ceil(2))
        .min();
    Some(match nearest {
        Some((_, name)) => format!("{what}; did you mean `{name}`?"),
        None => format!("{what}; known are: {}", known.join(", ")),
    })
}
