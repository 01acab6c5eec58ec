//! A FIDO2/U2F security key in software: real signatures, with flags and counter as the test wants them. (Also part of
//! vault-server's unit tests, so it uses nothing of this crate.)

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};

/// Somebody touched the key.
pub const PRESENT: u8 = 0x01;
/// Somebody proved to the key who they are.
pub const VERIFIED: u8 = 0x04;
/// The namespace of second factors.
pub const NAMESPACE: &str = "phi-vault-second-factor";

/// A security key.
pub struct Authenticator {
    key: Key,
    application: Vec<u8>,
}

enum Key {
    Ed25519(SigningKey),
    EcdsaP256(EcdsaKeyPair),
}

/// How something is signed.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// The SSHSIG namespace.
    pub namespace: &'a str,
    /// What is reserved.
    pub reserved: &'a str,
    /// The name of the hash.
    pub hash: &'a str,
    /// FIDO's flags.
    pub flags: u8,
    /// FIDO's counter.
    pub counter: u32,
}

impl Manner<'static> {
    /// As it should be.
    pub const fn good(counter: u32) -> Self {
        Self { namespace: NAMESPACE, reserved: "", hash: "sha512", flags: PRESENT, counter }
    }
}

impl Authenticator {
    /// One whose key is made of a seed.
    pub fn ed25519(seed: u8) -> Self {
        Self { key: Key::Ed25519(SigningKey::from_bytes(&[seed; 32])), application: b"ssh:".to_vec() }
    }

    /// One with a new key.
    ///
    /// # Panics
    /// Without randomness.
    pub fn ecdsa() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { key: Key::EcdsaP256(key), application: b"ssh:".to_vec() }
    }

    /// The same, made for another application.
    #[must_use]
    pub fn of_application(self, application: &str) -> Self {
        Self { application: application.as_bytes().to_vec(), ..self }
    }

    /// OpenSSH's name of its kind.
    pub fn kind(&self) -> &'static str {
        match self.key {
            Key::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Key::EcdsaP256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The public key, as OpenSSH encodes it.
    pub fn blob(&self) -> Vec<u8> {
        let mut blob = string(self.kind().as_bytes());
        match &self.key {
            Key::Ed25519(key) => blob.extend(string(key.verifying_key().as_bytes())),
            Key::EcdsaP256(key) => {
                blob.extend(string(b"nistp256"));
                blob.extend(string(key.public_key().as_ref()));
            }
        }
        blob.extend(string(&self.application));
        blob
    }

    /// The line of its `.pub` file.
    pub fn line(&self, label: &str) -> String {
        format!("{} {} {label}", self.kind(), BASE64_STANDARD.encode(self.blob())).trim_end().to_owned()
    }

    /// Signs data, as for the SSH protocol.
    ///
    /// # Panics
    /// Without randomness.
    pub fn sign(&self, data: &[u8], flags: u8, counter: u32) -> Vec<u8> {
        let mut signed = Sha256::digest(&self.application).to_vec();
        signed.push(flags);
        signed.extend_from_slice(&counter.to_be_bytes());
        signed.extend_from_slice(&Sha256::digest(data));
        let raw = match &self.key {
            Key::Ed25519(key) => key.sign(&signed).to_bytes().to_vec(),
            Key::EcdsaP256(key) => {
                let raw = key.sign(&SystemRandom::new(), &signed).unwrap();
                let (r, s) = raw.as_ref().split_at(32);
                [number(r), number(s)].concat()
            }
        };
        [string(self.kind().as_bytes()), string(&raw), vec![flags], counter.to_be_bytes().to_vec()].concat()
    }

    /// The blob of an SSHSIG over a text.
    pub fn sshsig(&self, text: &str, manner: Manner<'_>) -> Vec<u8> {
        let Manner { namespace, reserved, hash, flags, counter } = manner;
        let hashed = match hash {
            "sha256" => Sha256::digest(text).to_vec(),
            _ => Sha512::digest(text).to_vec(),
        };
        let head =
            [string(namespace.as_bytes()), string(reserved.as_bytes()), string(hash.as_bytes())].concat();
        let message = [b"SSHSIG".to_vec(), head.clone(), string(&hashed)].concat();
        let signature = self.sign(&message, flags, counter);
        let version = 1_u32.to_be_bytes().to_vec();
        [b"SSHSIG".to_vec(), version, string(&self.blob()), head, string(&signature)].concat()
    }

    /// The same, PEM.
    pub fn pem(&self, text: &str, manner: Manner<'_>) -> String {
        pem(&self.sshsig(text, manner))
    }
}

/// The PEM of an SSHSIG.
pub fn pem(blob: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(blob);
    let mut text = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(70) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END SSH SIGNATURE-----\n"
}

/// A `string` of the SSH protocol.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

/// A positive `mpint`.
fn number(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros..];
    match digits.first() {
        Some(first) if first & 0x80 != 0 => string(&[&[0], digits].concat()),
        _ => string(digits),
    }
}
