use super::*;
use crate::access::authenticator::{Authenticator, Manner, PRESENT, VERIFIED, pem, string};

const TEXT: &str = include_str!("security_key_vectors/text");

fn both() -> [Authenticator; 2] {
    [Authenticator::ed25519(1), Authenticator::ecdsa()]
}

fn judge(pem: &str, text: &str) -> Result<Presence, SignatureError> {
    SshSignature::parse(pem)?.verify(text.as_bytes(), false)
}

#[test]
fn what_ssh_keygen_made_verifies() {
    for (sig, line, counter) in [
        (
            include_str!("security_key_vectors/ed25519.sha512.sig"),
            include_str!("security_key_vectors/ed25519.pub"),
            0x1001,
        ),
        (
            include_str!("security_key_vectors/ed25519.sha256.sig"),
            include_str!("security_key_vectors/ed25519.pub"),
            0x1002,
        ),
        (
            include_str!("security_key_vectors/ecdsa.sha512.sig"),
            include_str!("security_key_vectors/ecdsa.pub"),
            0x1003,
        ),
        (
            include_str!("security_key_vectors/ecdsa.sha256.sig"),
            include_str!("security_key_vectors/ecdsa.pub"),
            0x1004,
        ),
    ] {
        let (key, _) = SecurityKey::parse_line(line).unwrap();
        let signature = SshSignature::parse(sig).unwrap();
        assert_eq!(*signature.key(), key);
        let presence = signature.verify(TEXT.as_bytes(), false).unwrap();
        assert_eq!(presence, Presence { counter, verified: false });
        assert_eq!(signature.verify(TEXT.trim_end().as_bytes(), false), Err(SignatureError::Invalid));
        assert!(judge(&sig.replace('\n', "\r\n"), TEXT).is_ok(), "lines of another system");
    }
}

#[test]
fn a_touch_is_seen_in_the_flags() {
    for key in both() {
        for (flags, touched, verified) in [
            (0, false, false),
            (VERIFIED, false, false),
            (PRESENT, true, false),
            (PRESENT | VERIFIED, true, true),
            (0x80 | PRESENT, true, false),
        ] {
            let made = key.pem(TEXT, Manner { flags, ..Manner::good(7) });
            let wanted =
                if touched { Ok(Presence { counter: 7, verified }) } else { Err(SignatureError::Presence) };
            assert_eq!(judge(&made, TEXT), wanted, "{flags:02x}");
            let strict = SshSignature::parse(&made).unwrap().verify(TEXT.as_bytes(), true);
            let wanted = if verified { wanted } else { wanted.and(Err(SignatureError::Verification)) };
            assert_eq!(strict, wanted, "{flags:02x}, verified");
        }
    }
}

#[test]
fn what_was_signed_for_something_else_is_refused_for_that() {
    for key in both() {
        for (manner, why) in [
            (Manner { namespace: "git", ..Manner::good(1) }, SignatureError::Namespace),
            (Manner { namespace: "", ..Manner::good(1) }, SignatureError::Namespace),
            (Manner { namespace: "phi-vault-second-factor2", ..Manner::good(1) }, SignatureError::Namespace),
            (Manner { reserved: "x", ..Manner::good(1) }, SignatureError::Malformed),
            (Manner { hash: "sha1", ..Manner::good(1) }, SignatureError::Hash),
            (Manner { hash: "SHA512", ..Manner::good(1) }, SignatureError::Hash),
        ] {
            assert_eq!(judge(&key.pem(TEXT, manner), TEXT), Err(why), "{manner:?}");
        }
        let other = TEXT.replace("approve", "deny");
        assert_eq!(judge(&key.pem(&other, Manner::good(1)), TEXT), Err(SignatureError::Invalid));
    }
}

#[test]
fn a_changed_byte_anywhere_is_no_signature() {
    for key in both() {
        let blob = key.sshsig(TEXT, Manner::good(1));
        assert!(judge(&pem(&blob), TEXT).is_ok());
        for at in 0..blob.len() {
            let mut bad = blob.clone();
            bad[at] ^= 1;
            assert!(judge(&pem(&bad), TEXT).is_err(), "byte {at}");
        }
    }
}

#[test]
fn garbage_of_every_length_is_refused() {
    for key in both() {
        let blob = key.sshsig(TEXT, Manner::good(1));
        for len in 0..blob.len() {
            assert!(judge(&pem(&blob[..len]), TEXT).is_err(), "{len}");
            assert!(SshSignature::parse(&pem(&vec![0xff; len])).is_err(), "{len}");
        }
        assert_eq!(judge(&pem(&[&blob[..], &[0]].concat()), TEXT), Err(SignatureError::Malformed));
    }
    let good = Authenticator::ed25519(1).pem(TEXT, Manner::good(1));
    for len in 0..good.len() - 1 {
        assert!(judge(&good[..len], TEXT).is_err(), "{len}");
    }
    for bad in [
        format!(" {good}"),
        format!("x\n{good}"),
        format!("{good}x"),
        good.replace("SSH SIGNATURE", "SSH SIGNATURES"),
        good.replacen("U1NI", "U1NI ", 1),
        good.replacen("U1NI", "U1N*", 1),
        good.clone() + &good,
        good.clone() + &"\n".repeat(9000),
    ] {
        assert!(judge(&bad, TEXT).is_err(), "{bad}");
    }
}

#[test]
fn a_key_in_a_file_is_no_second_factor() {
    let parts = [&b"ssh-ed25519"[..], &[1; 32]];
    let key = parts.map(string).concat();
    let signature = [&b"ssh-ed25519"[..], &[1; 64]].map(string).concat();
    let rest = [&key[..], b"phi-vault-second-factor", b"", b"sha512", &signature].map(string).concat();
    let blob = [b"SSHSIG".to_vec(), vec![0, 0, 0, 1], rest].concat();
    assert_eq!(judge(&pem(&blob), TEXT), Err(SignatureError::Kind));
}

#[test]
fn a_signature_has_at_most_eight_kibibytes() {
    let good = Authenticator::ed25519(1).pem(TEXT, Manner::good(1));
    let padded = |len: usize| good.clone() + &"\n".repeat(len - good.len());
    assert!(judge(&padded(8192), TEXT).is_ok());
    assert_eq!(judge(&padded(8193), TEXT), Err(SignatureError::Malformed));
}

#[test]
fn the_causes_in_the_log_are_what_they_always_were() {
    use SignatureError as E;
    for (why, cause) in [
        (E::Malformed, "second_factor_malformed"),
        (E::Kind, "second_factor_kind"),
        (E::Namespace, "second_factor_namespace"),
        (E::Hash, "second_factor_hash"),
        (E::Presence, "second_factor_presence"),
        (E::Verification, "second_factor_verification"),
        (E::Invalid, "second_factor_signature"),
    ] {
        assert_eq!(why.as_str(), cause);
    }
}
