//! Values on their way through: no `Debug`, `Clone`, `Display`, `Serialize`; wiped when dropped.

use zeroize::Zeroizing;

/// A plain value, or the application's id of a person: PHI.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text over.
    pub fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The value. Say at each use why it is exposed: `// Exposed: ...`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Bytes collected in a buffer of the size that they will need: growing it would leave copies behind.
pub(super) fn buffer(size: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(size))
}

/// A copy of `bytes`, wiped when dropped.
pub(super) fn copy(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}
