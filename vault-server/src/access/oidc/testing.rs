//! For tests: an issuer's keys, and tokens signed with them or with whatever an attacker has.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

/// One key of each kind.
pub(crate) struct Keys {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    pub(crate) fn generate() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// As an issuer publishes them: `ec`, `rsa`, `ed`.
    pub(crate) fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
              "x": encode(&point[1..33]), "y": encode(&point[33..65]) },
            { "kty": "RSA", "kid": "rsa", "n": encode(&rsa.n), "e": encode(&rsa.e) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed.public_key().as_ref()) },
        ]})
    }

    /// What is known to everybody of the RSA key, as a file: some verifiers took it for a secret.
    pub(crate) fn public_rsa(&self) -> Vec<u8> {
        self.rsa.public_key().as_der().unwrap().as_ref().to_vec()
    }

    pub(crate) fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, message, &mut signature).unwrap();
            signature
        };
        match key {
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            other => panic!("{other}"),
        }
    }

    /// A token as it should be.
    pub(crate) fn token(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        self.raw(algorithm, &header.to_string(), &claims.to_string())
    }

    /// A token of whatever texts, with a signature that is good for them.
    pub(crate) fn raw(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64URL.encode(bytes)
}
