//! Why a store was not moved.

use crate::audit::{FollowerError, LogError};
use crate::store::StoreError;

/// Which of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that is moved.
    Old,
    /// The one it is moved to.
    New,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Old => "the old store",
            Self::New => "the new store",
        })
    }
}

/// Why a store was not moved. None names a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// A store did not answer, or a row of it can't be read.
    #[error("{side}: {error}")]
    Store {
        /// Which.
        side: Side,
        /// Why.
        error: StoreError,
    },
    /// What is derived from the log does not agree with it.
    #[error("{side}: its audit log is not what was signed: {error}")]
    Log {
        /// Which.
        side: Side,
        /// Why.
        error: FollowerError,
    },
    /// The entry of the move could not be written.
    #[error("the new store: {0}")]
    LastEntry(#[from] LogError),
    /// The stores are not such that one may be moved to the other.
    #[error("{0}")]
    Refused(String),
    /// The first difference between the two.
    #[error("{what}: {how}")]
    Different {
        /// What is different: the kind of a row and its name.
        what: String,
        /// How.
        how: &'static str,
    },
}

impl MoveError {
    /// Whether durability is gone.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Store { error: StoreError::Fatal { .. }, .. } | Self::LastEntry(LogError::Fatal))
    }

    pub(super) fn different(what: impl Into<String>, how: &'static str) -> Self {
        Self::Different { what: what.into(), how }
    }
}

/// Says which store an error is of.
pub(super) trait Of<T> {
    fn of(self, side: Side) -> Result<T, MoveError>;
}

impl<T> Of<T> for Result<T, StoreError> {
    fn of(self, side: Side) -> Result<T, MoveError> {
        self.map_err(|error| MoveError::Store { side, error })
    }
}

impl<T> Of<T> for Result<T, FollowerError> {
    fn of(self, side: Side) -> Result<T, MoveError> {
        self.map_err(|error| MoveError::Log { side, error })
    }
}
