//! The signature of a security key, as `ssh-keygen -Y sign` makes it (PROTOCOL.sshsig, PROTOCOL.u2f):
//!
//! ```text
//! PEM      "-----BEGIN SSH SIGNATURE-----", base64(blob), "-----END SSH SIGNATURE-----"
//! blob     "SSHSIG" | uint32 1 | string key | string namespace | string "" | string hash | string signature
//! signature  string kind | string (64 bytes, or mpint r | mpint s) | byte flags | uint32 counter
//! signed   SHA-256(application) | flags | counter | SHA-256(message)
//! message  "SSHSIG" | string namespace | string "" | string hash | string hash(text)
//! ```
//!
//! The namespace keeps what was signed for anything else (git, a login, another vault's program) from counting here, and
//! what is signed here from counting there.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::Signature;
use sha2::{Digest as _, Sha256, Sha512};

use crate::access::SecurityKey;
use crate::access::security_key::Point;
use crate::access::ssh::{Reader, put_string};

/// The SSHSIG namespace of second factors.
pub const SECOND_FACTOR_NAMESPACE: &str = "phi-vault-second-factor";

/// The longest signature, PEM.
const MAX_PEM: usize = 8 * 1024;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// FIDO's flags: somebody touched the key; somebody proved to it who they are (PIN, finger).
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;

/// Why a signature is no second factor. For the log: a caller learns only that it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not an SSHSIG of version 1, or larger than any.
    #[error("not a signature")]
    Malformed,
    /// Of a key that is no security key.
    #[error("of a key that is no security key")]
    Kind,
    /// Made for something else.
    #[error("of another namespace")]
    Namespace,
    /// A hash that is not taken.
    #[error("of another hash")]
    Hash,
    /// Nobody touched the key.
    #[error("without presence")]
    Presence,
    /// Nobody proved to the key who they are.
    #[error("without verification")]
    Verification,
    /// Not of this key, or not of this text.
    #[error("not valid")]
    Invalid,
}

impl SignatureError {
    /// For the log's cause.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "second_factor_malformed",
            Self::Kind => "second_factor_kind",
            Self::Namespace => "second_factor_namespace",
            Self::Hash => "second_factor_hash",
            Self::Presence => "second_factor_presence",
            Self::Verification => "second_factor_verification",
            Self::Invalid => "second_factor_signature",
        }
    }
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn of(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(text).to_vec(),
            Self::Sha512 => Sha512::digest(text).to_vec(),
        }
    }
}

/// A signature that was read, and not verified yet.
pub struct SshSignature {
    key: SecurityKey,
    hash: Hash,
    /// R and s, of either kind.
    raw: [u8; 64],
    flags: u8,
    counter: u32,
}

/// What a valid signature says of who made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// How often the key signed. 0: it does not count.
    pub counter: u32,
    /// Whether somebody proved to the key who they are.
    pub verified: bool,
}

impl SshSignature {
    /// Reads one that was made under [`SECOND_FACTOR_NAMESPACE`].
    pub fn parse(pem: &str) -> Result<Self, SignatureError> {
        let blob = unwrap_pem(pem).ok_or(SignatureError::Malformed)?;
        let mut reader = Reader::new(&blob);
        let (key, namespace, reserved, hash, signature) = (|| {
            (reader.take(MAGIC.len())? == MAGIC && reader.number()? == VERSION).then_some(())?;
            let parts =
                (reader.string()?, reader.string()?, reader.string()?, reader.string()?, reader.string()?);
            reader.end().map(|()| parts)
        })()
        .ok_or(SignatureError::Malformed)?;
        if namespace != SECOND_FACTOR_NAMESPACE.as_bytes() {
            return Err(SignatureError::Namespace);
        }
        if !reserved.is_empty() {
            return Err(SignatureError::Malformed);
        }
        let hash = [Hash::Sha256, Hash::Sha512].into_iter().find(|known| known.as_str().as_bytes() == hash);
        let hash = hash.ok_or(SignatureError::Hash)?;
        let key = SecurityKey::from_blob(key).map_err(|_| SignatureError::Kind)?;
        let (raw, flags, counter) = parts(&key, signature).ok_or(SignatureError::Malformed)?;
        Ok(Self { key, hash, raw, flags, counter })
    }

    /// The key that it says it is of.
    pub fn key(&self) -> &SecurityKey {
        &self.key
    }

    /// Whether the key signed this text, and somebody touched it; with `verified` also whether they proved to it who
    /// they are.
    pub fn verify(&self, text: &[u8], verified: bool) -> Result<Presence, SignatureError> {
        let mut message = MAGIC.to_vec();
        put_string(&mut message, SECOND_FACTOR_NAMESPACE.as_bytes());
        put_string(&mut message, b"");
        put_string(&mut message, self.hash.as_str().as_bytes());
        put_string(&mut message, &self.hash.of(text));
        let mut signed = Sha256::digest(&self.key.application).to_vec();
        signed.push(self.flags);
        signed.extend_from_slice(&self.counter.to_be_bytes());
        signed.extend_from_slice(&Sha256::digest(&message));
        let valid = match &self.key.point {
            // Strict: no point of small order, and one form of each signature.
            Point::Ed25519(key) => key.verify_strict(&signed, &Signature::from_bytes(&self.raw)).is_ok(),
            Point::EcdsaP256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&signed, &self.raw).is_ok()
            }
        };
        if !valid {
            return Err(SignatureError::Invalid);
        }
        // Only a valid signature's flags mean anything.
        if self.flags & PRESENT == 0 {
            return Err(SignatureError::Presence);
        }
        let presence = Presence { counter: self.counter, verified: self.flags & VERIFIED != 0 };
        if verified && !presence.verified {
            return Err(SignatureError::Verification);
        }
        Ok(presence)
    }
}

/// The signature itself, flags and counter.
fn parts(key: &SecurityKey, signature: &[u8]) -> Option<([u8; 64], u8, u32)> {
    let mut reader = Reader::new(signature);
    (reader.string()? == key.kind().as_str().as_bytes()).then_some(())?;
    let inner = reader.string()?;
    let raw = match key.point {
        Point::Ed25519(_) => inner.try_into().ok()?,
        Point::EcdsaP256(_) => {
            let mut numbers = Reader::new(inner);
            let (r, s) = (numbers.scalar()?, numbers.scalar()?);
            numbers.end()?;
            let mut raw = [0; 64];
            raw[..32].copy_from_slice(&r);
            raw[32..].copy_from_slice(&s);
            raw
        }
    };
    let flags = reader.take(1)?[0];
    let counter = reader.number()?;
    reader.end()?;
    Some((raw, flags, counter))
}

/// The blob within a PEM text: the lines between the two that frame it, and nothing beside them.
fn unwrap_pem(pem: &str) -> Option<Vec<u8>> {
    if pem.len() > MAX_PEM {
        return None;
    }
    let mut lines = pem.trim_end_matches(['\n', '\r']).lines();
    (lines.next()? == BEGIN && lines.next_back()? == END).then_some(())?;
    BASE64_STANDARD.decode(lines.collect::<String>()).ok()
}

#[cfg(test)]
#[path = "sshsig_tests.rs"]
mod tests;
