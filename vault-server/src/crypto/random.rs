//! Randomness from the operating system, and from nowhere else: no generator in this process that a fork, or a
//! snapshot of the machine, could make repeat itself.

use crate::crypto::format::{NONCE, SALT};
use crate::domain::Token;

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct RandomError;

/// A new token. Random, never derived from a value (45 CFR 164.514(c)(1)).
pub fn random_token() -> Result<Token, RandomError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(Token::from_bytes(bytes))
}

/// Salt and nonce of one seal, from one call.
pub(super) struct Fresh([u8; SALT + NONCE]);

impl Fresh {
    pub(super) fn new() -> Result<Self, RandomError> {
        let mut bytes = [0; SALT + NONCE];
        getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
        Ok(Self(bytes))
    }

    /// For so many seals, from one call. What is sealed where must be settled before: then a machine that was set back, or
    /// copied, between this and the seals makes the same seals of the same values again, and tells nothing by it.
    pub(super) fn several(number: usize) -> Result<Vec<Self>, RandomError> {
        let mut bytes = vec![[0; SALT + NONCE]; number];
        getrandom::fill(bytes.as_flattened_mut()).map_err(|_| RandomError)?;
        Ok(bytes.into_iter().map(Self).collect())
    }

    #[cfg(test)]
    pub(super) fn chosen(bytes: [u8; SALT + NONCE]) -> Self {
        Self(bytes)
    }

    pub(super) fn salt(&self) -> &[u8; SALT] {
        self.0.first_chunk().expect("begins with the salt")
    }

    pub(super) fn nonce(&self) -> &[u8; NONCE] {
        self.0.last_chunk().expect("ends with the nonce")
    }
}
