//! The provider's keys: one of each kind, published as a JWK set.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

pub(super) struct Keys {
    /// Counts rotations; part of each key's id.
    number: u32,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Keys {
    pub(super) fn generate(number: u32) -> Self {
        Self {
            number,
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    pub(super) fn next(&self) -> Self {
        Self::generate(self.number + 1)
    }

    pub(super) fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let rsa = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": self.id("ES256"), "use": "sig", "alg": "ES256",
              "x": encode(&point[1..33]), "y": encode(&point[33..65]) },
            { "kty": "RSA", "kid": self.id("RS256"), "use": "sig", "n": encode(&rsa.n), "e": encode(&rsa.e) },
            { "kty": "OKP", "crv": "Ed25519", "kid": self.id("EdDSA"), "x": encode(self.ed.public_key().as_ref()) },
            { "kty": "oct", "kid": "not-ours", "k": encode(&[1; 32]) },
        ]})
    }

    fn id(&self, algorithm: &str) -> String {
        format!("{algorithm}-{}", self.number)
    }

    pub(super) fn sign(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({ "typ": "at+jwt", "alg": algorithm, "kid": self.id(algorithm) });
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let (random, message) = (SystemRandom::new(), signed.as_bytes());
        let signature = match algorithm {
            "ES256" => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            other => panic!("{other} is not one of its algorithms"),
        };
        format!("{signed}.{}", encode(&signature))
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE64URL.encode(bytes)
}
