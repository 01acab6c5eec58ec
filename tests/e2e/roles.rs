//! What each identity gets, seen from outside.

use tempfile::TempDir;
use vault_tests::process::DevVault;

#[test]
fn only_the_service_gets_a_value() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    let token = token.line().to_owned();
    for identity in ["console", "oncall", "approver", "rotator", "auditor", "admin"] {
        let ran = vault.ctl(identity, &["detokenize", &token, "--purpose", "TREAT"]).ends(3);
        assert!(!ran.stdout.contains("4102") && !ran.stderr.contains("4102"), "{identity}");
        vault.ctl(identity, &["tokenize", "--class", "ssn"]).stdin("999-31-4103").ends(3);
        vault.ctl(identity, &["erase", &token]).ends(3);
        vault.ctl(identity, &["find", "--class", "ssn"]).stdin("999-31-4102").ends(3);
    }
    for identity in ["rotator", "auditor", "admin", "approver"] {
        vault.ctl(identity, &["mask", &token]).ends(3);
    }
    for identity in ["service", "console", "oncall"] {
        assert_eq!(vault.ctl(identity, &["mask", &token]).ok().line(), "***-**-4102");
    }
    for identity in ["service", "console", "oncall", "rotator"] {
        vault.ctl(identity, &["audit", "query"]).ends(3);
    }
    // Every one of the refusals is on record.
    let ran = vault.ctl("auditor", &["--json", "audit", "query", "--token", &token, "--limit", "100"]).ok();
    let denied = ran.stdout.matches("\"deny\"").count();
    assert!(denied >= 6 + 6 + 4, "{denied} denials:\n{}", ran.stdout);
}

#[test]
fn unknown_and_foreign_and_hidden_tokens_look_the_same() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    // Of the same environment, another vault: unknown here.
    let other = DevVault::start(&dir.path().join("other"));
    let unknown = other.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4104").ok();
    let ran = vault.ctl("service", &["detokenize", unknown.line(), "--purpose", "TREAT"]).ends(1);
    assert!(ran.stderr.contains("no such token"), "{}", ran.stderr);
}

#[test]
fn an_unprovisioned_certificate_is_refused_and_on_record() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let principals = vault.dir().join("principals.toml");
    let text = std::fs::read_to_string(&principals).unwrap();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4105").ok();
    let token = token.line().to_owned();
    // Disabled while it runs: refused from the next reload on.
    let disabled = text.replacen("id = \"service\"", "id = \"service\"\nenabled = false", 1);
    assert_ne!(disabled, text);
    std::fs::write(&principals, disabled).unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        let ran = vault.ctl("service", &["detokenize", &token, "--purpose", "TREAT"]).run();
        if ran.code == Some(3) {
            break;
        }
        assert!(std::time::Instant::now() < until, "still served: {:?} {}", ran.code, ran.stderr);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
