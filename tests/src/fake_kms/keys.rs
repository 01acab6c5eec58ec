//! Keys, their states and material, and the ciphertexts they make.
//!
//! A ciphertext blob:
//!
//! ```text
//! version(1) = 1 | key id(36, ASCII) | generation(4, big-endian) | nonce(12) | ChaCha20-Poly1305(...) | tag(16)
//! AAD = everything before the nonce | ARN(len 4) | count(4) | count x ( name(len 4) | value(len 4) ), sorted by name
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use serde::{Deserialize, Serialize};

const ACCOUNT: &str = "111122223333";
const KEY_ID: usize = 36;
const HEAD: usize = 1 + KEY_ID + 4;

/// State of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyStatus {
    /// It works.
    Enabled,
    /// Its use is refused with DisabledException.
    Disabled,
    /// Its use is refused with KMSInvalidStateException.
    PendingDeletion,
}

/// An encryption context, sorted by name.
pub(super) type Pairs = BTreeMap<String, String>;

/// An AWS error code.
pub(super) type Code = &'static str;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Keys(BTreeMap<String, Key>);

#[derive(Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) arn: String,
    pub(super) status: KeyStatus,
    /// Newest last, in hexadecimal.
    material: Vec<String>,
}

impl Keys {
    pub(super) fn load(file: &Path) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    pub(super) fn save(&self, file: &Path) -> anyhow::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        Ok(std::fs::rename(new, file)?)
    }

    pub(super) fn create(&mut self, region: &str) -> anyhow::Result<String> {
        let id = hex::encode(random::<16>()?);
        let id = format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
        let arn = format!("arn:aws:kms:{region}:{ACCOUNT}:key/{id}");
        let mut key = Key { id: id.clone(), arn: arn.clone(), status: KeyStatus::Enabled, material: vec![] };
        key.rotate()?;
        self.0.insert(id, key);
        Ok(arn)
    }

    /// By ARN or id.
    pub(super) fn get(&self, name: &str) -> Option<&Key> {
        let key = self.0.get(name.rsplit('/').next()?)?;
        (name == key.arn || name == key.id).then_some(key)
    }

    pub(super) fn get_mut(&mut self, arn: &str) -> Option<&mut Key> {
        self.0.values_mut().find(|key| key.arn == arn)
    }

    pub(super) fn remove(&mut self, arn: &str) -> Option<Key> {
        let id = self.get(arn)?.id.clone();
        self.0.remove(&id)
    }

    /// A key that may be used now.
    pub(super) fn usable(&self, name: &str) -> Result<&Key, Code> {
        let key = self.get(name).ok_or("NotFoundException")?;
        match key.status {
            KeyStatus::Enabled => Ok(key),
            KeyStatus::Disabled => Err("DisabledException"),
            KeyStatus::PendingDeletion => Err("KMSInvalidStateException"),
        }
    }

    /// Opens a ciphertext. If the caller named a key, it must be the one that made it.
    pub(super) fn decrypt(
        &self,
        named: Option<&str>,
        blob: &[u8],
        context: &Pairs,
    ) -> Result<(&Key, Vec<u8>), Code> {
        let made_by = blob.get(1..=KEY_ID).and_then(|id| std::str::from_utf8(id).ok());
        if let Some(named) = named {
            let key = self.usable(named)?;
            if made_by != Some(key.id.as_str()) {
                return Err(if made_by.is_some_and(|id| self.0.contains_key(id)) {
                    "IncorrectKeyException"
                } else {
                    "InvalidCiphertextException"
                });
            }
        }
        let made_by = made_by.filter(|id| self.0.contains_key(*id)).ok_or("InvalidCiphertextException")?;
        let key = self.usable(made_by)?;
        Ok((key, key.open(blob, context).ok_or("InvalidCiphertextException")?))
    }
}

impl Key {
    pub(super) fn rotate(&mut self) -> anyhow::Result<()> {
        self.material.push(hex::encode(random::<32>()?));
        Ok(())
    }

    pub(super) fn seal(&self, plain: &[u8], context: &Pairs) -> anyhow::Result<Vec<u8>> {
        let generation = u32::try_from(self.material.len() - 1)?;
        let mut blob = vec![1];
        blob.extend_from_slice(self.id.as_bytes());
        blob.extend_from_slice(&generation.to_be_bytes());
        let aad = self.associated_data(&blob, context);
        let nonce = random::<12>()?;
        let payload = Payload { msg: plain, aad: &aad };
        let cipher = self.cipher(generation).context("no material")?;
        let sealed = cipher.encrypt(&nonce.into(), payload).ok().context("too long")?;
        blob.extend_from_slice(&nonce);
        blob.extend_from_slice(&sealed);
        Ok(blob)
    }

    fn open(&self, blob: &[u8], context: &Pairs) -> Option<Vec<u8>> {
        let (head, rest) = blob.split_at_checked(HEAD)?;
        let (nonce, sealed) = rest.split_first_chunk::<12>()?;
        let generation = u32::from_be_bytes(head[1 + KEY_ID..].try_into().ok()?);
        if head[0] != 1 {
            return None;
        }
        let aad = self.associated_data(head, context);
        self.cipher(generation)?.decrypt(nonce.into(), Payload { msg: sealed, aad: &aad }).ok()
    }

    fn cipher(&self, generation: u32) -> Option<ChaCha20Poly1305> {
        let material = hex::decode(self.material.get(usize::try_from(generation).ok()?)?).ok()?;
        ChaCha20Poly1305::new_from_slice(&material).ok()
    }

    fn associated_data(&self, head: &[u8], context: &Pairs) -> Vec<u8> {
        let mut data = head.to_vec();
        push(&mut data, &self.arn);
        data.extend_from_slice(&(context.len() as u32).to_be_bytes());
        for (name, value) in context {
            push(&mut data, name);
            push(&mut data, value);
        }
        data
    }
}

pub(super) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

fn push(data: &mut Vec<u8>, field: &str) {
    data.extend_from_slice(&(field.len() as u32).to_be_bytes());
    data.extend_from_slice(field.as_bytes());
}
