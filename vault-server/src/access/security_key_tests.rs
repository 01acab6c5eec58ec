use super::*;
use crate::access::authenticator::{Authenticator, string};

const ED25519: &str = include_str!("security_key_vectors/ed25519.pub");
const ECDSA: &str = include_str!("security_key_vectors/ecdsa.pub");

fn refused(line: &str) -> InvalidSecurityKey {
    SecurityKey::parse_line(line).unwrap_err()
}

#[test]
fn lines_of_both_kinds_are_read_as_ssh_keygen_reads_them() {
    for (line, kind, label, fingerprint) in [
        (ED25519, SecurityKeyKind::Ed25519, "ada blue", "SHA256:u3XYI8FD0iAKicuev894GMPS487mPAsIuB8xtsnAOWA"),
        (
            ECDSA,
            SecurityKeyKind::EcdsaP256,
            "ada green",
            "SHA256:oNZLHsSIKUFkpKq0LWlFaGISmik6forAdCXhZevp1/g",
        ),
    ] {
        let (key, named) = SecurityKey::parse_line(line).unwrap();
        assert_eq!((key.kind(), named.as_str()), (kind, label));
        assert_eq!(key.fingerprint().to_string(), fingerprint);
        assert_eq!(Fingerprint::parse(fingerprint), Some(key.fingerprint()));
        assert_eq!(key.line(label), line.trim_end());
        assert_eq!(SecurityKey::from_blob(key.blob()).unwrap(), key);
        assert!(SecurityKey::parse_line(&key.line("")).is_ok_and(|(_, label)| label.is_empty()));
    }
}

#[test]
fn keys_in_files_and_certificates_are_refused_by_name() {
    use InvalidSecurityKey as E;
    for (name, why) in [
        ("ssh-ed25519", E::InFile),
        ("ssh-rsa", E::InFile),
        ("ssh-dss", E::InFile),
        ("ecdsa-sha2-nistp256", E::InFile),
        ("sk-ssh-ed25519-cert-v01@openssh.com", E::Certificate),
        ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", E::Kind),
        ("no-touch-required", E::Kind),
        ("", E::Line),
        ("-----BEGIN", E::Line),
    ] {
        assert_eq!(refused(&format!("{name} AAAA me")), why, "{name}");
        let blob = string(name.as_bytes());
        let inside = format!("sk-ssh-ed25519@openssh.com {}", BASE64_STANDARD.encode(&blob));
        assert_eq!(refused(&inside), why, "{name}, in the blob");
    }
}

#[test]
fn a_line_that_is_not_exactly_one_is_refused() {
    use InvalidSecurityKey as E;
    let line = ED25519.trim_end();
    for (bad, why) in [
        (format!("{line}\n{line}"), E::Label),
        (format!("{line}\tx"), E::Label),
        (format!("{line} {}", "x".repeat(200)), E::Label),
        (format!("{line} {}", "x".repeat(4000)), E::Line),
        (line.replacen(' ', "  ", 1), E::Blob),
        (line.replacen(' ', "\t", 1), E::Kind),
        (line.replace("= ada", " ada"), E::Line),
        (line.split(' ').next().unwrap().to_owned(), E::Line),
        (line.replace("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"), E::Blob),
    ] {
        assert_eq!(refused(&bad), why, "{bad:?}");
    }
}

#[test]
fn lines_labels_and_applications_may_be_so_long() {
    use InvalidSecurityKey as E;
    let line = ED25519.trim_end();
    let padded = |len: usize| line.to_owned() + &" ".repeat(len - line.len());
    assert!(SecurityKey::parse_line(&padded(2048)).is_ok());
    assert_eq!(refused(&padded(2049)), E::Line);
    let bare = line.trim_end_matches("ada blue");
    let label = |len: usize| format!("{bare}{}", "\u{e9}".repeat(len));
    assert_eq!(SecurityKey::parse_line(&label(128)).unwrap().1.chars().count(), 128);
    assert_eq!(refused(&label(129)), E::Label);
    let of = |len: usize| {
        let application = format!("ssh:{}", "x".repeat(len - 4));
        SecurityKey::from_blob(&Authenticator::ed25519(1).of_application(&application).blob()).map(drop)
    };
    assert_eq!((of(128), of(129)), (Ok(()), Err(E::Application)));
}

#[test]
fn two_keys_are_two_and_are_shown_by_their_fingerprints() {
    let [one, other] = [ED25519, ECDSA].map(|line| SecurityKey::parse_line(line).unwrap().0);
    assert!(one != other && one == one.clone());
    let shown = "SHA256:u3XYI8FD0iAKicuev894GMPS487mPAsIuB8xtsnAOWA";
    assert_eq!(format!("{:?}", one.fingerprint()), shown);
    assert_eq!(format!("{one:?}"), format!("SecurityKey({shown})"));
}

#[test]
fn what_is_no_security_key_is_refused_with_its_rule() {
    use InvalidSecurityKey as E;
    let all = [E::Line, E::Kind, E::InFile, E::Certificate, E::Blob, E::Point, E::Application, E::Label];
    let rules: std::collections::BTreeSet<_> = all.map(|why| why.to_string()).into();
    assert_eq!(rules.len(), all.len(), "one each");
    assert_eq!(E::Certificate.to_string(), "a key, not a certificate");
}

#[test]
fn a_blob_that_is_cut_off_or_goes_on_is_refused() {
    for key in [Authenticator::ed25519(1), Authenticator::ecdsa()] {
        let blob = key.blob();
        assert!(SecurityKey::from_blob(&blob).is_ok());
        for len in 0..blob.len() {
            assert!(SecurityKey::from_blob(&blob[..len]).is_err(), "{len}");
        }
        assert_eq!(
            SecurityKey::from_blob(&[&blob[..], &[0]].concat()).unwrap_err(),
            InvalidSecurityKey::Blob
        );
    }
}

#[test]
fn points_that_nobody_owns_and_other_applications_are_refused() {
    use InvalidSecurityKey as E;
    let of = |point: &[u8]| {
        let parts = [&b"sk-ssh-ed25519@openssh.com"[..], point, b"ssh:"];
        SecurityKey::from_blob(&parts.map(string).concat()).map(|_| ())
    };
    // The neutral point, the point of order two, no point; too short, too long.
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    for (bad, why) in
        [(&one[..], E::Point), (&minus_one, E::Point), (&[2; 32], E::Point), (&[1; 31], E::Blob)]
    {
        assert_eq!(of(bad), Err(why), "{bad:02x?}");
    }
    let of = |curve: &[u8], point: &[u8]| {
        let parts = [&b"sk-ecdsa-sha2-nistp256@openssh.com"[..], curve, point, b"ssh:"];
        SecurityKey::from_blob(&parts.map(string).concat()).map(|_| ())
    };
    let off = [&[4][..], &[7; 64]].concat();
    assert_eq!(of(b"nistp256", &off), Err(E::Point));
    assert_eq!(of(b"nistp384", &off), Err(E::Blob));
    assert_eq!(of(b"nistp256", &[2; 33]), Err(E::Blob));
    for application in ["", "https://example.org", "ssh", "ssh:\n", &format!("ssh:{}", "x".repeat(200))] {
        let key = Authenticator::ed25519(1).of_application(application);
        assert_eq!(SecurityKey::from_blob(&key.blob()).unwrap_err(), E::Application, "{application:?}");
    }
    assert!(SecurityKey::from_blob(&Authenticator::ed25519(1).of_application("ssh:vault").blob()).is_ok());
}

#[test]
fn a_fingerprint_has_one_spelling() {
    let good = "SHA256:u3XYI8FD0iAKicuev894GMPS487mPAsIuB8xtsnAOWA";
    assert!(Fingerprint::parse(good).is_some());
    for bad in
        ["", "SHA256:", &good[7..], &format!("{good}="), &good.replace("OWA", "OWB"), &good[..49], "MD5:00"]
    {
        assert_eq!(Fingerprint::parse(bad), None, "{bad:?}");
    }
}
