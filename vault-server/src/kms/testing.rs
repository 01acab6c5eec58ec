//! A KMS for tests of the layers above: in memory, strict about context, told what to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use vault_mem::LockedKey;

use super::{KeyContext, Kms, KmsError};
use crate::domain::WrappedKey;

/// What it does with the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Unavailable,
    Refuses,
    Invalid,
    Hangs,
    /// Answers, but what it wraps is another key.
    Corrupts,
}

pub(crate) struct TestKms {
    name: String,
    mood: Mutex<Mood>,
    slow: Duration,
    kept: Mutex<Vec<([u8; 32], KeyContext)>>,
    calls: AtomicUsize,
    wrapped: AtomicUsize,
    reencrypted: AtomicUsize,
    /// A wrap of another KMS key that is within its reach.
    shared: Mutex<Option<(WrappedKey, [u8; 32])>>,
}

impl TestKms {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Self::slow(name, Duration::ZERO)
    }

    pub(crate) fn slow(name: &str, slow: Duration) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            mood: Mutex::new(Mood::Answers),
            slow,
            kept: Mutex::default(),
            calls: AtomicUsize::new(0),
            wrapped: AtomicUsize::new(0),
            reencrypted: AtomicUsize::new(0),
            shared: Mutex::default(),
        })
    }

    /// From now on it can make a wrap of its own from this one.
    pub(crate) fn share(&self, source: &WrappedKey, key: &LockedKey) {
        *self.shared.lock() = Some((source.clone(), *key.expose()));
    }

    pub(crate) fn unshare(&self) {
        *self.shared.lock() = None;
    }

    /// Keys that were sent to it.
    pub(crate) fn wrapped(&self) -> usize {
        self.wrapped.load(Ordering::Relaxed)
    }

    pub(crate) fn reencrypted(&self) -> usize {
        self.reencrypted.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Every context it was called with to make or wrap a key.
    pub(crate) fn contexts(&self) -> Vec<KeyContext> {
        self.kept.lock().iter().map(|(_, context)| context.clone()).collect()
    }

    async fn called(&self) -> Result<(), KmsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.slow).await;
        let mood = *self.mood.lock();
        match mood {
            Mood::Answers | Mood::Corrupts => Ok(()),
            Mood::Unavailable => Err(KmsError::Unavailable { why: "told to".to_owned() }),
            Mood::Refuses => {
                Err(KmsError::Refused { wrapping_key: self.name.clone(), why: "told to".to_owned() })
            }
            Mood::Invalid => Err(KmsError::Invalid { wrapping_key: self.name.clone() }),
            Mood::Hangs => std::future::pending().await,
        }
    }

    fn keep(&self, key: &LockedKey, context: &KeyContext) -> WrappedKey {
        let mut kept = self.kept.lock();
        let mut bytes = *key.expose();
        if *self.mood.lock() == Mood::Corrupts {
            bytes[0] ^= 1;
        }
        kept.push((bytes, context.clone()));
        WrappedKey {
            wrapping_key: self.name.clone(),
            ciphertext: vec![u8::try_from(kept.len() - 1).unwrap()],
        }
    }
}

#[async_trait]
impl Kms for TestKms {
    fn wrapping_key(&self) -> &str {
        &self.name
    }

    async fn generate(&self, context: &KeyContext) -> Result<(LockedKey, WrappedKey), KmsError> {
        self.called().await?;
        let key = LockedKey::fill(|key| getrandom::fill(key).map_err(|_| KmsError::Random))?;
        let wrapped = self.keep(&key, context);
        Ok((key, wrapped))
    }

    async fn wrap(&self, key: &LockedKey, context: &KeyContext) -> Result<WrappedKey, KmsError> {
        self.called().await?;
        self.wrapped.fetch_add(1, Ordering::Relaxed);
        Ok(self.keep(key, context))
    }

    async fn reencrypt(
        &self,
        source: &WrappedKey,
        context: &KeyContext,
    ) -> Result<Option<WrappedKey>, KmsError> {
        let shared = self.shared.lock().clone();
        let Some((_, bytes)) = shared.filter(|(shared, _)| shared == source) else { return Ok(None) };
        self.called().await?;
        self.reencrypted.fetch_add(1, Ordering::Relaxed);
        let key = LockedKey::fill(|key| {
            *key = bytes;
            Ok::<(), KmsError>(())
        })?;
        Ok(Some(self.keep(&key, context)))
    }

    async fn unwrap(&self, wrapped: &WrappedKey, context: &KeyContext) -> Result<LockedKey, KmsError> {
        self.called().await?;
        let kept = self.kept.lock();
        let found = wrapped.ciphertext.first().and_then(|at| kept.get(usize::from(*at)));
        let invalid = || KmsError::Invalid { wrapping_key: self.name.clone() };
        let (bytes, _) = found.filter(|(_, bound)| bound == context).ok_or_else(invalid)?;
        LockedKey::fill(|key| {
            *key = *bytes;
            Ok(())
        })
    }

    async fn probe(&self) -> Result<(), KmsError> {
        self.called().await
    }
}
