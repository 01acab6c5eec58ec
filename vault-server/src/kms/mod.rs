//! Wrap and unwrap of the vault's keys under keys that never leave a KMS.

pub mod aws;
pub mod breaker;
pub mod local;
pub mod retry;
pub mod ring;
pub mod root_key;
#[cfg(test)]
pub(crate) mod testing;

pub use aws::AwsKms;
pub use local::LocalKms;
pub use ring::{PinError, WrappingKeys};

use async_trait::async_trait;
use vault_mem::{LockedKey, LockedMemoryError};

use crate::domain::{KeyId, KeyPurpose, TenantId, VaultIdentity, WrappedKey};

/// What a wrapped key is bound to. Built from the vault's own records, never from a request; no PHI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// The vault and its environment.
    pub identity: VaultIdentity,
    /// Whose key; `None` for the vault's own.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Its id.
    pub key_id: KeyId,
}

impl KeyContext {
    /// The encryption context as the KMS sees it, sorted by name. Names and values never change for a given key.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("phi-vault:environment", self.identity.environment.to_string()),
            ("phi-vault:key", self.key_id.to_string()),
            ("phi-vault:purpose", self.purpose.as_str().to_owned()),
            ("phi-vault:tenant", self.tenant.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            ("phi-vault:vault", self.identity.vault.to_string()),
        ]
    }
}

/// Why the KMS did not do it. No variant carries key bytes or an answer's body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// No answer, throttled, or a fault on its side: trying again may help.
    #[error("KMS not available: {why}")]
    Unavailable {
        /// For the operator.
        why: String,
    },
    /// The key is disabled, pending deletion, gone, or not ours to use: trying again does not help.
    #[error("KMS refuses the use of {wrapping_key}: {why}")]
    Refused {
        /// The KMS key.
        wrapping_key: String,
        /// For the operator.
        why: String,
    },
    /// The wrapped key does not open: altered, of another context or of another KMS key.
    #[error("wrapped key does not open under {wrapping_key}")]
    Invalid {
        /// The KMS key.
        wrapping_key: String,
    },
    /// No locked memory for the key: a fault of this process, not of the KMS.
    #[error("no locked memory for a key")]
    LockedMemory,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
}

impl From<LockedMemoryError> for KmsError {
    fn from(_: LockedMemoryError) -> Self {
        Self::LockedMemory
    }
}

/// One key of one KMS.
#[async_trait]
pub trait Kms: Send + Sync + 'static {
    /// Full name of the KMS key, as kept in [`WrappedKey::wrapping_key`].
    fn wrapping_key(&self) -> &str;

    /// A new key made by the KMS, and its wrap.
    async fn generate(&self, context: &KeyContext) -> Result<(LockedKey, WrappedKey), KmsError>;

    /// Wraps a key that another KMS key made.
    async fn wrap(&self, key: &LockedKey, context: &KeyContext) -> Result<WrappedKey, KmsError>;

    /// A wrap by this KMS key of the key that another one's wrap has, made within the KMS: the key is not sent to it.
    /// `None`: the KMS can't, with this source.
    async fn reencrypt(
        &self,
        _source: &WrappedKey,
        _context: &KeyContext,
    ) -> Result<Option<WrappedKey>, KmsError> {
        Ok(None)
    }

    /// Opens a wrap of this KMS key.
    async fn unwrap(&self, wrapped: &WrappedKey, context: &KeyContext) -> Result<LockedKey, KmsError>;

    /// Whether the KMS answers: asked by the health check, at most every few seconds.
    async fn probe(&self) -> Result<(), KmsError>;
}
