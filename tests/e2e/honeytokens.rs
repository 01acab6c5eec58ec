//! Honeytokens: answered like any other, and told of, once, whichever instance is asked.

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vault_client::audit::AuditQuery;
use vault_client::keys::Note;
use vault_client::{DataClass, NewValue, Plaintext};
use vault_tests::fleet::{Fleet, Place};
use vault_tests::postgres::Server;
use vault_tests::process::DevVault;
use vault_tests::site::Site;

fn plant(vault: &DevVault, value: &str) -> String {
    let args = ["--tenant", "demo", "honeytokens", "plant", "--class", "ssn", "--label", "a trap"];
    vault.ctl("admin", &args).stdin(value).ok().line().to_owned()
}

fn entries(vault: &DevVault, action: &str) -> Vec<Value> {
    let query = ["--tenant", "*", "--json", "audit", "query", "--action", action, "--limit", "100"];
    let shown: Value = serde_json::from_str(&vault.ctl("auditor", &query).ok().stdout).unwrap();
    shown["entries"].as_array().unwrap().clone()
}

#[test]
fn who_touches_one_learns_nothing_and_is_on_record_at_once() {
    let dir = TempDir::new().unwrap();
    let vault = Site::make(&dir.path().join("vault")).serve();
    for nobody in ["service", "console", "oncall", "rotator", "auditor"] {
        let args = ["--tenant", "demo", "honeytokens", "plant", "--class", "ssn"];
        vault.ctl(nobody, &args).stdin("999-12-3456").ends(3);
    }
    let token = plant(&vault, "999-12-3456");
    let other = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    let other = other.line().to_owned();
    assert!(entries(&vault, "alarm").is_empty());

    // To describe one is no touch. To open one is, and looks like opening any other.
    vault.ctl("console", &["describe", &token]).ok();
    assert!(entries(&vault, "alarm").is_empty());
    let opened = |token: &str| vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ok();
    assert_eq!((opened(&other).line(), opened(&token).line()), ("999-31-4102", "999-12-3456"));
    let alarms = entries(&vault, "alarm");
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["details"]["alarm"], "honeytoken_touched");
    assert!(alarms[0].to_string().contains("service"), "{alarms:?}");

    // Once; after that it is counted.
    opened(&token);
    let found = vault.ctl("service", &["find", "--class", "ssn"]).stdin("999-12-3456").ok();
    assert_eq!(found.line(), token);
    assert_eq!(entries(&vault, "alarm").len(), 1);
    let counted = |action| {
        let entries = entries(&vault, action);
        entries.iter().filter(|entry| entry["details"]["honeytoken"] == "1").count()
    };
    assert_eq!((counted("detokenize"), counted("find"), counted("mask")), (2, 1, 0));

    // Who may not open it has touched it, too, and is told what it is always told.
    let second = plant(&vault, "999-12-3457");
    let refusal = |token: &str| {
        let ran = vault.ctl("console", &["detokenize", token, "--purpose", "TREAT"]).ends(3);
        // But for the request's id.
        ran.stderr.lines().filter(|line| !line.contains("request ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(refusal(&second), refusal(&other));
    assert_eq!(entries(&vault, "alarm").len(), 2);

    let list = vault.ctl("auditor", &["--tenant", "demo", "--json", "honeytokens", "list"]).ok().stdout;
    let listed: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let by =
        |token: &str| listed.iter().find(|one| one["token"] == token).unwrap()["first_touched_by"].clone();
    assert_eq!((by(&token), by(&second)), ("service".into(), "console".into()));

    // Removed before it was touched, it is a token like any other.
    let third = plant(&vault, "999-12-3458");
    let remove = ["--tenant", "demo", "honeytokens", "remove", &third];
    vault.ctl("admin", &remove).ok();
    vault.ctl("admin", &remove).ends(1);
    opened(&third);
    assert_eq!(entries(&vault, "alarm").len(), 2);

    // And what was planted stays planted.
    let fourth = plant(&vault, "999-12-3459");
    let home = vault.dir().to_owned();
    vault.kill();
    let vault = DevVault::start(&home);
    vault.ctl("service", &["mask", &fourth]).ok();
    assert_eq!(entries(&vault, "alarm").len(), 3);
}

/// Two instances that are asked at once for what one of them planted: both know it, and one tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_one_tells() {
    const ROUNDS: usize = 8;
    let dir = TempDir::new().unwrap();
    let Some(server) = Server::shared() else { return };
    let place = Place::of_url(&server.url(&server.create_database()));
    let fleet = Fleet::make(&dir.path().join("vault"), &place, 2);
    let fleet = tokio::task::spawn_blocking(move || {
        fleet.start_all();
        fleet
    });
    let fleet = fleet.await.unwrap();
    let (one, other) = (fleet.client_of(0, "service"), fleet.client_of(1, "service"));
    let admin = fleet.client_of(0, "admin");
    for round in 0..ROUNDS {
        let invented = NewValue::new(DataClass::SSN, Plaintext::new(format!("999-12-34{round:02}")));
        let planted = admin.plant_honeytoken(invented, "", &Note::default()).await.unwrap();
        // In force elsewhere within a second; the machine may be slow.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let tokens = [planted.token];
        let (first, second) = tokio::join!(one.mask(&tokens), other.mask(&tokens));
        assert!(first.unwrap()[0].is_ok() && second.unwrap()[0].is_ok());
    }
    let auditor = fleet.client_of(0, "auditor");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let query = AuditQuery { action: Some("alarm".to_owned()), limit: 100, ..AuditQuery::default() };
        let alarms = auditor.audit_query(query).await.unwrap().entries.len();
        assert!(alarms <= ROUNDS, "{alarms} alarms");
        if alarms == ROUNDS {
            return;
        }
        assert!(Instant::now() < until, "{alarms} alarms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
