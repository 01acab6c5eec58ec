//! Bad input gets a clear error that names the place, and nothing is lost or half-done.

use std::fs;

use tempfile::TempDir;
use vault_tests::process::DevVault;

#[test]
fn tokens_that_are_none() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let good = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    let good = good.line();
    let mistyped = {
        let last = good.chars().last().unwrap();
        format!("{}{}", &good[..good.len() - 1], if last == '0' { '1' } else { '0' })
    };
    for (token, says) in [("not-a-token", "not a token"), (mistyped.as_str(), "mistyped")] {
        let ran = vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).run();
        assert!(matches!(ran.code, Some(1 | 2)), "{:?}", ran.code);
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
}

#[test]
fn values_that_are_not_of_their_class() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let large = vec![b'a'; 70 * 1024];
    for (class, value, secret) in [
        ("ssn", b"999-3x-4101".to_vec(), "999-3x"),
        ("npi", b"1234567890".to_vec(), "1234567890"),
        ("card", b"4111111111111112".to_vec(), "41111111"),
        ("dob", b"1984-02-30".to_vec(), "1984-02"),
        ("name", Vec::new(), "nothing to find"),
        ("text", large, "aaaa"),
        ("name", vec![0xff, 0xfe, 0x41], "nothing to find"),
        ("nosuch", b"x".to_vec(), "nothing to find"),
    ] {
        let ran = vault.ctl("service", &["tokenize", "--class", class]).stdin(value).run();
        assert!(matches!(ran.code, Some(1 | 2)), "{class}: {:?} {}", ran.code, ran.stderr);
        assert_eq!(ran.stdout, "", "{class}");
        assert!(!ran.stderr.contains(secret), "{class}: the error holds the value: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{class}");
    }
}

#[test]
fn a_missing_purpose_and_a_foreign_tenant() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    vault.ctl("service", &["detokenize", token.line()]).ends(2);
    vault.ctl("service", &["detokenize", token.line(), "--purpose", "NOSUCH"]).ends(2);
    let ran = vault
        .ctl("service", &["--tenant", "elsewhere", "detokenize", token.line(), "--purpose", "TREAT"])
        .ends(3);
    assert_eq!(ran.stdout, "");
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let out = dir.path().join("out.csv").display().to_string();
    let file = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let missing = file("missing.csv", b"ID,NAME\n1,Ann\n");
    let ran = vault
        .ctl("service", &["import", &missing, "--map", "SSN=ssn", "--subject", "ID", "--out", &out])
        .ends(2);
    assert!(ran.stderr.contains("entry 1 of the map"), "{}", ran.stderr);

    let rows = b"\xef\xbb\xbfID,SSN,NOTE\r\n1,999-31-4101,\"two\r\nlines, \"\"quoted\"\"\"\r\n2,bad,x\r\n3,999-31-4103,y\r\n";
    let mixed = file("mixed.csv", rows);
    let args = ["import", &mixed, "--map", "SSN=ssn", "--subject", "ID", "--out", &out, "--fresh"];
    let ran = vault.ctl("service", &args).ends(1);
    assert!(!ran.stderr.contains("4101"), "{}", ran.stderr);
    let text = fs::read_to_string(&out).unwrap();
    assert!(
        text.starts_with("\u{feff}ID,SSN,NOTE\r\n1,phi_dev_")
            && text.contains("\"two\r\nlines, \"\"quoted\"\"\""),
        "{text}"
    );
    assert_eq!(text.matches("phi_dev_").count(), 2, "the rejected row is not in the output");
}

#[test]
fn a_configuration_with_a_typo() {
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("vault");
    drop(DevVault::start(&home));
    let config = home.join("vault.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[limitz]\nmax_items = 1\n")).unwrap();
    let ran = std::process::Command::new(vault_tests::process::binary("vault-server"))
        .args(["serve", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(!ran.status.success());
    let says = String::from_utf8_lossy(&ran.stderr);
    assert!(says.contains("limitz") && says.contains("limits"), "{says}");
}
