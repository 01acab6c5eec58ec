//! Alerts reach a receiver that was down, by a vault that was killed, and are in nobody's way meanwhile.

use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vault_tests::site::Site;
use vault_tests::webhook::Receiver;

#[test]
fn an_alert_outlives_its_receiver_s_troubles_and_a_kill() {
    let dir = TempDir::new().unwrap();
    let (site, receiver) = (Site::make(&dir.path().join("vault")), Receiver::start(500));
    let section = receiver.section(site.dir());
    site.edit("vault.toml", |text| text + &section);
    let vault = site.serve();
    let plant = ["--tenant", "demo", "honeytokens", "plant", "--class", "ssn"];
    let token = vault.ctl("admin", &plant).stdin("999-12-3456").ok().line().to_owned();
    assert_eq!(vault.ctl("service", &["mask", &token]).ok().line(), "***-**-3456");
    receiver.wait("tried again after an error", |receiver| receiver.got().len() >= 2);
    vault.kill();

    // The receiver takes connections and says nothing.
    receiver.answer(0);
    let vault = site.serve();
    receiver.wait("tried by the next process", |receiver| receiver.hanging() >= 1);
    for _ in 0..3 {
        vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    }
    assert!(receiver.got().iter().all(|delivery| delivery.status == 500));

    receiver.answer(204);
    receiver.wait("delivered", |receiver| receiver.got().iter().any(|delivery| delivery.status == 204));
    // What was delivered is gone.
    thread::sleep(Duration::from_secs(3));
    let got = receiver.got();
    let delivered: Vec<_> = got.iter().filter(|delivery| delivery.status == 204).collect();
    assert_eq!(delivered.len(), 1, "{got:?}");
    assert!(got.iter().all(|other| other.id == got[0].id && other.alert == got[0].alert), "{got:?}");
    let alert = &delivered[0].alert;
    assert_eq!(alert["kind"], "honeytoken_touched");
    assert_eq!(
        (alert["id"].as_str(), alert["principal"].as_str()),
        (Some(got[0].id.as_str()), Some("service"))
    );
    assert_eq!(alert["details"]["action"], "mask");
    assert_eq!(alert["details"]["source"], "127.0.0.1");
    assert_eq!(alert["details"]["credential"].as_str().map(str::len), Some(64));
    let told = alert.to_string();
    assert!(!told.contains(&token) && !told.contains("999-12"), "{told}");
}
