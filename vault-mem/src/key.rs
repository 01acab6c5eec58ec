//! A key in locked memory.

use std::fmt;

use crate::pool::{LockedMemoryError, SLOT, Slot};

/// 32 bytes of key in memory that is not swapped, dumped or inherited by child processes; wiped when dropped.
///
/// No `Clone`, `Debug`, `Default` or comparison:
///
/// ```compile_fail,E0277
/// fn printable<T: std::fmt::Debug>() {}
/// printable::<vault_mem::LockedKey>();
/// ```
///
/// ```compile_fail,E0277
/// fn copyable<T: Clone>() {}
/// copyable::<vault_mem::LockedKey>();
/// ```
pub struct LockedKey(Slot);

impl LockedKey {
    /// Makes a key by filling its place, which is zeroed before; a fill that fails or panics leaves nothing.
    pub fn fill<E: From<LockedMemoryError>>(
        fill: impl FnOnce(&mut [u8; SLOT]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut slot = Slot::take()?;
        fill(slot.bytes_mut())?;
        Ok(Self(slot))
    }

    /// A key from the operating system's randomness.
    pub fn random() -> Result<Self, RandomKeyError> {
        Self::fill(|bytes| getrandom::fill(bytes).map_err(|_| RandomKeyError::Random))
    }

    /// The key's bytes. Say at each use why they are exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &[u8; SLOT] {
        self.0.bytes()
    }
}

/// Why no random key could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomKeyError {
    /// The operating system gave no randomness.
    Random,
    /// There is no locked memory to put it in.
    LockedMemory(LockedMemoryError),
}

impl From<LockedMemoryError> for RandomKeyError {
    fn from(error: LockedMemoryError) -> Self {
        Self::LockedMemory(error)
    }
}

impl fmt::Display for RandomKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("the operating system gave no randomness"),
            Self::LockedMemory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RandomKeyError {}
