//! The log's signing key through its life, as an auditor sees it.

use std::fs;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vault_tests::process::DevVault;

#[test]
fn an_auditor_with_the_oldest_key_verifies_over_rotations_and_takes_no_forged_succession() {
    let dir = TempDir::new().unwrap();
    let vault = DevVault::start(&dir.path().join("vault"));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let export = |name: &str| vault.ctl("auditor", &["audit", "export", "--dir", &path(name)]).ok();
    let verify = |name: &str, key: &str| {
        let args = ["audit", "verify", "--dir", &path(name), "--key", &path(key)];
        let ran = vault.ctl("auditor", &args).run();
        assert!(ran.code == Some(0) || ran.stderr.contains("not verified"), "{}{}", ran.stdout, ran.stderr);
        ran.code == Some(0)
    };
    export("first");
    let rotate = ["--tenant", "*", "keys", "rotate", "--purpose", "log-signing"];
    // Not by who rotates a tenant's keys, and not as a tenant's.
    vault.ctl("rotator", &rotate).ends(3);
    let as_a_tenants = ["--tenant", "demo", "keys", "rotate", "--purpose", "log-signing"];
    assert_ne!(vault.ctl("admin", &as_a_tenants).run().code, Some(0));
    vault.ctl("admin", &rotate).ok();
    vault.ctl("admin", &rotate).ok();
    // Within this it signs.
    thread::sleep(Duration::from_secs(2));
    export("third");
    assert!(verify("first", "first.vkey"));
    assert!(verify("third", "first.vkey"));
    assert!(verify("third", "third.vkey"));

    // A history without its end, in another order, of another, or with a byte changed.
    let good = fs::read_to_string(path("third/keys")).unwrap();
    let second = good.rfind("phi-vault-signing-key/succession/v1").unwrap();
    let (one, two) = good.split_at(second);
    let statements = [
        one.to_owned(),
        two.to_owned(),
        format!("{two}{one}"),
        format!("{good}{two}"),
        good.replace("\n3\n", "\n4\n"),
    ];
    for bad in statements {
        fs::write(path("third/keys"), &bad).unwrap();
        assert!(!verify("third", "first.vkey"), "{bad}");
    }
    fs::write(path("third/keys"), &good).unwrap();
    assert!(verify("third", "first.vkey"));

    // The mark: who has only the old key has to get a new one by another way.
    let listed = vault.ctl("admin", &["--tenant", "*", "--json", "keys", "list"]).ok();
    let oldest = listed.stdout.lines().find(|line| line.contains("\"version\":1,")).unwrap();
    let id = oldest.split("\"key\":\"").nth(1).unwrap()[..32].to_owned();
    vault.ctl("admin", &["--tenant", "*", "keys", "revoke", &id, "--yes"]).ok();
    export("marked");
    assert!(!verify("marked", "first.vkey"));
    assert!(verify("marked", "third.vkey"));

    // All of it is there after the next start, and signs on.
    let home = vault.dir().to_owned();
    let vault = {
        assert_eq!(vault.stop(), Some(0));
        DevVault::start(&home)
    };
    vault.ctl("auditor", &["audit", "export", "--dir", &path("later")]).ok();
    let args = ["audit", "verify", "--dir", &path("later"), "--key", &path("third.vkey")];
    vault.ctl("auditor", &args).ok();
    assert_eq!(vault.stop(), Some(0));
}
