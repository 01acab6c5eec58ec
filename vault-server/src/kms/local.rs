//! The embedded KMS: wraps under a root key that lies in a file ([`super::root_key`]). No network, no set-up;
//! its protection is that of the file.
//!
//! From the root key, by HKDF-SHA256 without salt:
//!
//! ```text
//! id       = HKDF(root, info = "phi-vault local kms v1: id")[..16]     name: "local:" || hex(id)
//! wrap key = HKDF(root, info = "phi-vault local kms v1: wrap")[..32]
//! ```
//!
//! A wrap is 73 bytes:
//!
//! ```text
//! version(1) = 1 | nonce(24) | XChaCha20-Poly1305(wrap key, nonce, AAD, key)(32) | tag(16)
//! ```
//!
//! Its associated data is the version and the canonical list of the context's pairs, lengths in big-endian:
//!
//! ```text
//! AAD = "phi-vault local kms wrap" | version(1) | count(4) | count x ( len(4) name | len(4) value )
//! ```
//!
//! Nonces are random, from the operating system: with 192 bits they do not collide. Vectors: `testdata/local_kms.json`,
//! made by `testdata/local_kms.py` from other implementations.

use std::path::Path;

use async_trait::async_trait;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;
use vault_mem::LockedKey;

use super::root_key::{self, RootKeyError};
use super::{KeyContext, Kms, KmsError};
use crate::domain::WrappedKey;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"phi-vault local kms wrap";
const INFO_ID: &[u8] = b"phi-vault local kms v1: id";
const INFO_WRAP: &[u8] = b"phi-vault local kms v1: wrap";
const NONCE: usize = 24;
const TAG: usize = 16;
const LEN: usize = 1 + NONCE + 32 + TAG;

/// Wraps under a root key of its own.
pub struct LocalKms {
    name: String,
    wrap_key: LockedKey,
}

impl LocalKms {
    /// Makes a new root key file, durably. See [`root_key`] for what is checked.
    pub fn create(path: &Path) -> Result<Self, RootKeyError> {
        Self::from_root(&root_key::create(path)?)
    }

    /// Opens an existing root key file. See [`root_key`] for what is checked.
    pub fn open(path: &Path) -> Result<Self, RootKeyError> {
        Self::from_root(&root_key::open(path)?)
    }

    fn from_root(root: &LockedKey) -> Result<Self, RootKeyError> {
        // Exposed: the root of both derivations.
        let hkdf = Hkdf::<Sha256>::new(None, root.expose());
        let mut id = [0; 16];
        hkdf.expand(INFO_ID, &mut id).expect("16 bytes are within HKDF's bound");
        let wrap_key = LockedKey::fill(|key| {
            hkdf.expand(INFO_WRAP, key).expect("32 bytes are within HKDF's bound");
            Ok::<(), RootKeyError>(())
        })?;
        Ok(Self { name: format!("local:{}", hex::encode(id)), wrap_key })
    }

    fn seal(&self, key: &LockedKey, context: &KeyContext, nonce: &[u8; NONCE]) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        bytes[0] = VERSION;
        bytes[1..=NONCE].copy_from_slice(nonce);
        let (body, tag) = bytes[1 + NONCE..].split_at_mut(32);
        // Exposed: to be encrypted; the plain bytes are not copied.
        let buffer = InOutBuf::new(key.expose(), body).expect("both are 32 bytes");
        let made = self
            .cipher()
            .encrypt_inout_detached(&(*nonce).into(), &associated_data(context), buffer)
            .expect("32 bytes are within the cipher's bound");
        tag.copy_from_slice(&made);
        bytes
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        // Exposed: the cipher's key.
        XChaCha20Poly1305::new(self.wrap_key.expose().into())
    }

    fn invalid(&self) -> KmsError {
        KmsError::Invalid { wrapping_key: self.name.clone() }
    }
}

#[async_trait]
impl Kms for LocalKms {
    fn wrapping_key(&self) -> &str {
        &self.name
    }

    async fn generate(&self, context: &KeyContext) -> Result<(LockedKey, WrappedKey), KmsError> {
        let key = LockedKey::fill(|key| getrandom::fill(key).map_err(|_| KmsError::Random))?;
        let wrapped = self.wrap(&key, context).await?;
        Ok((key, wrapped))
    }

    async fn wrap(&self, key: &LockedKey, context: &KeyContext) -> Result<WrappedKey, KmsError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| KmsError::Random)?;
        let ciphertext = self.seal(key, context, &nonce);
        Ok(WrappedKey { wrapping_key: self.name.clone(), ciphertext })
    }

    async fn unwrap(&self, wrapped: &WrappedKey, context: &KeyContext) -> Result<LockedKey, KmsError> {
        let bytes: &[u8; LEN] = wrapped.ciphertext.as_slice().try_into().map_err(|_| self.invalid())?;
        if wrapped.wrapping_key != self.name || bytes[0] != VERSION {
            return Err(self.invalid());
        }
        let (nonce, rest) = bytes[1..].split_at(NONCE);
        let (body, tag) = rest.split_at(32);
        let nonce: &[u8; NONCE] = nonce.try_into().map_err(|_| self.invalid())?;
        let tag: &[u8; TAG] = tag.try_into().map_err(|_| self.invalid())?;
        LockedKey::fill(|key| {
            key.copy_from_slice(body);
            self.cipher()
                .decrypt_inout_detached(
                    nonce.into(),
                    &associated_data(context),
                    InOutBuf::from(&mut key[..]),
                    tag.into(),
                )
                .map_err(|_| self.invalid())
        })
    }

    async fn probe(&self) -> Result<(), KmsError> {
        Ok(())
    }
}

fn associated_data(context: &KeyContext) -> Vec<u8> {
    let pairs = context.pairs();
    let mut data = LABEL.to_vec();
    data.push(VERSION);
    push_length(&mut data, pairs.len());
    for (name, value) in pairs {
        for field in [name, &value] {
            push_length(&mut data, field.len());
            data.extend_from_slice(field.as_bytes());
        }
    }
    data
}

fn push_length(data: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a context is far smaller than 4 GiB");
    data.extend_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::{Environment, KeyId, KeyPurpose, TenantId, VaultId, VaultIdentity};

    fn local(root: u8) -> LocalKms {
        let root = LockedKey::fill(|key| {
            key.fill(root);
            Ok::<(), RootKeyError>(())
        });
        LocalKms::from_root(&root.unwrap()).unwrap()
    }

    fn context() -> KeyContext {
        KeyContext {
            identity: VaultIdentity {
                vault: VaultId::from_bytes([1; 16]),
                environment: Environment::parse("qa").unwrap(),
            },
            tenant: Some(TenantId::parse("st-mary").unwrap()),
            purpose: KeyPurpose::Data,
            key_id: KeyId::from_bytes([2; 16]),
        }
    }

    fn other_contexts() -> Vec<KeyContext> {
        let change = |f: fn(&mut KeyContext)| {
            let mut other = context();
            f(&mut other);
            other
        };
        vec![
            change(|c| c.identity.vault = VaultId::from_bytes([9; 16])),
            change(|c| c.identity.environment = Environment::parse("prod").unwrap()),
            change(|c| c.tenant = Some(TenantId::parse("st-john").unwrap())),
            change(|c| c.tenant = None),
            change(|c| c.purpose = KeyPurpose::Index),
            change(|c| c.key_id = KeyId::from_bytes([3; 16])),
        ]
    }

    fn is_invalid(answer: &Result<LockedKey, KmsError>) -> bool {
        matches!(answer, Err(KmsError::Invalid { .. }))
    }

    #[tokio::test]
    async fn a_generated_key_unwraps_to_itself() {
        let kms = local(7);
        let (key, wrapped) = kms.generate(&context()).await.unwrap();
        assert_eq!(wrapped.wrapping_key, kms.wrapping_key());
        assert_eq!(wrapped.ciphertext.len(), LEN);
        assert!(kms.unwrap(&wrapped, &context()).await.unwrap().expose() == key.expose());
        let again = kms.wrap(&key, &context()).await.unwrap();
        assert_ne!(again.ciphertext, wrapped.ciphertext, "a fresh nonce each time");
    }

    #[tokio::test]
    async fn unwrap_refuses_any_other_context() {
        let kms = local(7);
        let (_, wrapped) = kms.generate(&context()).await.unwrap();
        for other in other_contexts() {
            assert!(is_invalid(&kms.unwrap(&wrapped, &other).await), "{other:?}");
        }
    }

    #[tokio::test]
    async fn unwrap_refuses_another_root_even_under_a_forged_name() {
        let (_, mut wrapped) = local(7).generate(&context()).await.unwrap();
        let other = local(8);
        assert!(is_invalid(&other.unwrap(&wrapped, &context()).await));
        other.wrapping_key().clone_into(&mut wrapped.wrapping_key);
        assert!(is_invalid(&other.unwrap(&wrapped, &context()).await));
    }

    #[tokio::test]
    async fn unwrap_refuses_every_changed_byte_and_every_other_length() {
        let kms = local(7);
        let (_, good) = kms.generate(&context()).await.unwrap();
        for at in 0..LEN {
            let mut bad = good.clone();
            bad.ciphertext[at] ^= 1;
            assert!(is_invalid(&kms.unwrap(&bad, &context()).await), "byte {at}");
        }
        for len in (0..LEN).chain([LEN + 1]) {
            let mut bad = good.clone();
            bad.ciphertext.resize(len, 0);
            assert!(is_invalid(&kms.unwrap(&bad, &context()).await), "length {len}");
        }
    }

    #[tokio::test]
    async fn the_format_is_that_of_the_committed_vectors() {
        let vectors: Vec<Value> = serde_json::from_str(include_str!("testdata/local_kms.json")).unwrap();
        assert!(!vectors.is_empty());
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap().to_owned();
            let bytes = |name: &str| hex::decode(text(name)).unwrap();
            let fixed = |name: &str| <[u8; 32]>::try_from(bytes(name)).unwrap();
            let locked = |bytes: [u8; 32]| {
                LockedKey::fill(|key| {
                    *key = bytes;
                    Ok::<(), RootKeyError>(())
                })
                .unwrap()
            };
            let kms = LocalKms::from_root(&locked(fixed("root"))).unwrap();
            let tenant = text("tenant");
            let context = KeyContext {
                identity: VaultIdentity {
                    vault: VaultId::parse(&text("vault")).unwrap(),
                    environment: Environment::parse(&text("environment")).unwrap(),
                },
                tenant: (tenant != "-").then(|| TenantId::parse(&tenant).unwrap()),
                purpose: KeyPurpose::ALL.into_iter().find(|p| p.as_str() == text("purpose")).unwrap(),
                key_id: KeyId::parse(&text("key_id")).unwrap(),
            };
            assert_eq!(kms.wrapping_key(), text("name"));
            assert_eq!(hex::encode(associated_data(&context)), text("aad"));
            let nonce = bytes("nonce").try_into().unwrap();
            let made = kms.seal(&locked(fixed("key")), &context, &nonce);
            assert_eq!(hex::encode(&made), text("wrap"));
            let wrapped = WrappedKey { wrapping_key: text("name"), ciphertext: made };
            assert!(kms.unwrap(&wrapped, &context).await.unwrap().expose() == &fixed("key"));
        }
    }
}
