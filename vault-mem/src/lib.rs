//! STUB contract, to be replaced: locked memory for keys, wiping allocator, process hardening.

/// 32 bytes of key material in locked memory.
pub struct LockedKey(Box<[u8; 32]>);

impl LockedKey {
    /// Makes a key by filling its place in locked memory; a failed fill leaves nothing.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut b = Box::new([0; 32]);
        fill(&mut b)?;
        Ok(Self(b))
    }
    /// The key bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
