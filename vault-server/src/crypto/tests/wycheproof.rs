//! The algorithms that are built on, against Project Wycheproof's vectors.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wycheproof::{TestResult, aead, hkdf as kdf, mac};

#[test]
fn xchacha20_poly1305_holds() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut opened = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(nonce) = XNonce::try_from(test.nonce.as_ref()) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            continue;
        };
        let cipher = XChaCha20Poly1305::new_from_slice(&test.key).unwrap();
        let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
        let result = cipher.decrypt(&nonce, Payload { msg: &sealed, aad: &test.aad });
        if test.result == TestResult::Invalid {
            assert!(result.is_err(), "{}", test.tc_id);
        } else {
            assert_eq!(result.unwrap(), test.pt.as_ref(), "{}", test.tc_id);
            let again = cipher.encrypt(&nonce, Payload { msg: &test.pt, aad: &test.aad });
            assert_eq!(again.unwrap(), sealed, "{}", test.tc_id);
            opened += 1;
        }
    }
    assert!(opened > 200, "{opened}");
}

#[test]
fn hkdf_sha256_holds() {
    let set = kdf::TestSet::load(kdf::TestName::HkdfSha256).unwrap();
    let mut expanded = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut output = vec![0; test.size];
        let result = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut output);
        if test.result == TestResult::Invalid {
            assert!(result.is_err(), "{}", test.tc_id);
        } else {
            assert_eq!(output, test.okm.as_ref(), "{}", test.tc_id);
            expanded += 1;
        }
    }
    assert!(expanded > 50, "{expanded}");
}

#[test]
fn hmac_sha256_holds() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut verified = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let mut mac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap();
            mac.update(&test.msg);
            let made = mac.finalize().into_bytes();
            let equal = made[..group.tag_size / 8] == *test.tag.as_ref();
            assert_eq!(equal, test.result != TestResult::Invalid, "{}", test.tc_id);
            verified += usize::from(equal);
        }
    }
    assert!(verified > 50, "{verified}");
}
