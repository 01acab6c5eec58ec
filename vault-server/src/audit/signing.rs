//! The keys that sign checkpoints now: the active version, and for a while the one before, so that who knows only that one
//! still verifies what is new.
//!
//! They are asked for at each step of a follower, and are as the store told within the last second. A version that is
//! marked as compromised signs nothing from then on. Where the KMS does not open a version that must sign, nothing is
//! signed until it does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;
use vault_format::history::{History, HistoryError, Verifiers};
use vault_format::note::{self, NoteError, Signer, Verifier};

use super::origin::origin;
use crate::domain::{Clock, KeyId, KeyPurpose, KeyRecord, KeyState, VaultIdentity};
use crate::keyring::{Keyring, KeyringError};
use crate::store::LogId;

/// How old what the store told may be.
const FRESH: Duration = Duration::from_secs(1);

/// Why it is not known what signs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No key.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A log's origin can't be a key's name.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The stored statements are not what was signed.
    #[error("stored {0}")]
    History(#[from] HistoryError),
}

/// The keys that sign, and all that have signed.
pub struct SigningKeys {
    /// Under the vault's name, the active one last.
    signers: Vec<Arc<Signer>>,
    history: History,
}

impl SigningKeys {
    /// One key, whose name is that of log 0.
    pub fn one(signer: Signer) -> Self {
        let history = History::read("", signer.verifier()).expect("nothing is there to be refused");
        Self { signers: vec![Arc::new(signer)], history }
    }

    /// The active key, under the vault's name.
    pub fn newest(&self) -> &Verifier {
        self.history.newest()
    }

    /// What the checkpoints of a log are accepted by.
    pub fn verifiers(&self, origin: &str) -> Result<Verifiers, NoteError> {
        self.history.of_log(origin)
    }

    /// A text signed as the log with this origin.
    pub fn sign(&self, origin: &str, text: &str) -> Result<String, NoteError> {
        let named = self.signers.iter().map(|signer| signer.named(origin)).collect::<Result<Vec<_>, _>>()?;
        note::sign(text, &named.iter().collect::<Vec<_>>())
    }
}

/// Where the keys come from.
#[async_trait]
pub trait SigningSource: Send + Sync + 'static {
    /// As they are now.
    async fn now(&self) -> Result<Arc<SigningKeys>, SigningError>;
}

/// Always the same.
pub struct Fixed(Arc<SigningKeys>);

impl From<Signer> for Fixed {
    fn from(signer: Signer) -> Self {
        Self(Arc::new(SigningKeys::one(signer)))
    }
}

#[async_trait]
impl SigningSource for Fixed {
    async fn now(&self) -> Result<Arc<SigningKeys>, SigningError> {
        Ok(Arc::clone(&self.0))
    }
}

/// The vault's own.
pub struct VaultSigning {
    keyring: Arc<Keyring>,
    vault: String,
    clock: Arc<dyn Clock>,
    /// How long the key before signs beside the active one.
    overlap: Duration,
    known: Mutex<Option<Known>>,
}

struct Known {
    asked: Instant,
    /// Those that sign, and how many statements there were.
    of: (Vec<KeyId>, String),
    keys: Arc<SigningKeys>,
}

impl VaultSigning {
    /// With the vault's keyring.
    pub fn new(
        keyring: Arc<Keyring>,
        identity: &VaultIdentity,
        clock: Arc<dyn Clock>,
        overlap: Duration,
    ) -> Self {
        let vault = origin(identity, LogId::default());
        Self { keyring, vault, clock, overlap, known: Mutex::new(None) }
    }

    /// The versions that sign, the active one last; the first is made if there is none.
    async fn versions(&self) -> Result<(Vec<KeyRecord>, String), KeyringError> {
        let mut all = self.keyring.list(None, KeyPurpose::LogSigning).await?;
        if all.is_empty() {
            drop(self.keyring.log_signing_key().await?);
            all = self.keyring.list(None, KeyPurpose::LogSigning).await?;
        }
        let statements = all.iter().rev().map(|key| key.statements.as_str()).collect();
        let active = all.iter().position(|key| key.state == KeyState::Active);
        let active = active.ok_or(KeyringError::Unusable)?;
        let until = all[active].created.0.saturating_add(self.overlap.as_micros() as u64);
        let before = all.get(active + 1).filter(|key| key.state == KeyState::Retired);
        let before = before.filter(|_| self.clock.now().0 < until);
        Ok((before.into_iter().chain([&all[active]]).cloned().collect(), statements))
    }

    async fn open(&self, record: &KeyRecord) -> Result<Signer, SigningError> {
        let seed = self.keyring.signing_seed(record).await?;
        // Exposed: to the signer, which keeps it in memory that is wiped.
        Ok(Signer::from_seed(&self.vault, seed.expose())?)
    }
}

#[async_trait]
impl SigningSource for VaultSigning {
    async fn now(&self) -> Result<Arc<SigningKeys>, SigningError> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.asked.elapsed() < FRESH) {
            return Ok(Arc::clone(&known.keys));
        }
        let asked = Instant::now();
        let (versions, statements) = self.versions().await?;
        let of = (versions.iter().map(|key| key.id).collect(), statements);
        if let Some(known) = known.as_mut().filter(|known| known.of == of) {
            known.asked = asked;
            return Ok(Arc::clone(&known.keys));
        }
        let mut signers = Vec::new();
        for version in &versions {
            signers.push(Arc::new(self.open(version).await?));
        }
        let newest = signers.last().ok_or(KeyringError::Unusable)?;
        let history = History::read(&of.1, newest.verifier())?;
        // A list that was cut or mixed up: the active key must be the one that the statements lead to.
        if history.newest() != newest.verifier() {
            return Err(HistoryError::Untrusted.into());
        }
        let keys = Arc::new(SigningKeys { signers, history });
        *known = Some(Known { asked, of, keys: Arc::clone(&keys) });
        Ok(keys)
    }
}

#[cfg(test)]
#[path = "signing_tests.rs"]
mod tests;
