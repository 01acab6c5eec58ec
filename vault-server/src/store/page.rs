//! Rows as they are handed out to who goes over many of them: those that were read, and those that are not what was
//! written.

use super::StoreError;
use crate::domain::Token;

/// Rows in order, as many as were asked for, or fewer if there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was read.
    pub items: Vec<T>,
    /// Rows that are not what was written. They are in the way of no other, and as much there as the others are: nothing is
    /// unused because of a row that can't be read.
    pub malformed: Vec<Malformed>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<Cursor>,
}

/// A row that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Which row, as [`StoreError::Corrupt`] names it.
    pub what: String,
    /// The token that it stands at, if it is a row about a record and that can be read.
    pub token: Option<Token>,
}

/// Behind which row to go on, as an engine says it: of no use to another one, or for rows of another kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(super) place: Vec<u8>,
    /// Where an engine has two columns for the place, the second one.
    pub(super) then: Vec<u8>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), malformed: Vec::new(), next: None }
    }
}

impl<T> Page<T> {
    /// How many rows, those too that can't be read.
    pub fn len(&self) -> usize {
        self.items.len() + self.malformed.len()
    }

    /// Whether there is no row, not even one that can't be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the next row: the token that it stands at, if there is one in its place, and what was read of it.
    pub(super) fn push(
        &mut self,
        token: Option<Token>,
        read: Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        match read {
            Ok(item) => self.items.push(item),
            Err(StoreError::Corrupt { what }) => self.malformed.push(Malformed { what, token }),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Cursor {
    /// Behind an engine's key.
    pub(super) fn behind(key: &[u8]) -> Self {
        Self { place: key.to_vec(), then: Vec::new() }
    }
}
