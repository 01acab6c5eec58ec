//! People who come by an identity provider, over real processes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use vault_client::session::AccessToken;
use vault_client::{Client, DataClass, NewValue, Plaintext, Reason};
use vault_tests::fleet::{Fleet, Place};
use vault_tests::idp::{AUDIENCE, Fault, Idp};
use vault_tests::postgres::Server;
use vault_tests::process::DevVault;
use vault_tests::site::Site;

/// Joan is an on-call engineer: she may mask.
fn joan(idp: &Idp) -> String {
    format!(
        "\n[[principal]]\nid = \"joan\"\nkind = \"human\"\nidentities = [\"{}\"]\n[principal.roles]\n\"demo\" = [\"oncall\"]\n",
        idp.identity("00u1")
    )
}

/// What the configuration says of the provider. Keys are asked for often, so that tests need not wait.
pub(crate) fn section(idp: &Idp, of_issuer: &str, sessions: &str) -> String {
    format!(
        "\n[oidc]\nrefresh_every = \"2s\"\nunknown_key_every = \"1s\"\nkeys_max_age = \"1h\"\ntimeout = \"3s\"\n\
         [[oidc.issuer]]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nca = \"{}\"\n{of_issuer}\n[sessions]\n{sessions}\n",
        idp.issuer(),
        idp.ca().display()
    )
}

/// An identity of the profile that has no certificate.
fn identity(name: &str, idp: &Idp) -> String {
    format!(
        "\n[identities.{name}]\nsession_file = \"{name}.session\"\n\
         login = {{ issuer = \"{}\", client_id = \"vaultctl\", ca = \"{}\" }}\n",
        idp.issuer(),
        idp.ca().display()
    )
}

struct Stage {
    _dir: TempDir,
    idp: Idp,
    site: Site,
}

fn site(of_issuer: &str, sessions: &str) -> Stage {
    let dir = TempDir::new().unwrap();
    let idp = Idp::start(dir.path());
    let site = Site::make(&dir.path().join("vault"));
    site.edit("vault.toml", |text| text + &section(&idp, of_issuer, sessions));
    site.edit("principals.toml", |text| text + &joan(&idp));
    site.edit("profile.toml", |text| text + &identity("joan", &idp) + &identity("laptop", &idp));
    Stage { _dir: dir, idp, site }
}

fn login(vault: &DevVault, identity: &str, token: &str, code: i32) -> String {
    let ran = vault.ctl(identity, &["login", "--token-file", "-"]).stdin(token).ends(code);
    assert!(!ran.stdout.contains("pvs_") && !ran.stderr.contains("pvs_"), "a secret was printed");
    ran.stdout + &ran.stderr
}

fn tokenized(vault: &DevVault) -> String {
    vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok().line().to_owned()
}

fn mask(vault: &DevVault, identity: &str, token: &str) -> Option<i32> {
    vault.ctl(identity, &["mask", token]).run().code
}

/// All that the log says now.
fn log(vault: &DevVault) -> String {
    vault
        .ctl("auditor", &["--json", "--tenant", "*", "audit", "query", "--since", "1h", "--limit", "500"])
        .ok()
        .stdout
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(45);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_person_logs_in_by_a_device_works_and_logs_out() {
    let Stage { _dir, idp, site } = site("amr = [\"hwk\"]", "");
    let vault = site.serve();
    let token = tokenized(&vault);
    assert_eq!(mask(&vault, "joan", &token), Some(3), "nobody without a session");

    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| vault.ctl("joan", &["login"]).ok());
        idp.decide_device(Some("00u1"));
        ran.join().unwrap()
    });
    assert!(ran.stderr.contains("WDJB-") && ran.stdout.contains("joan"), "{}{}", ran.stdout, ran.stderr);
    let file = site.dir().join("joan.session");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(mask(&vault, "joan", &token), Some(0));
    vault.ctl("joan", &["detokenize", &token, "--purpose", "TREAT"]).ends(3);
    assert_eq!(mask(&vault, "service", &token), Some(0), "certificates work as before");

    let session = fs::read_to_string(&file).unwrap();
    vault.ctl("joan", &["logout"]).ok();
    assert!(!file.exists());
    fs::write(&file, &session).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(mask(&vault, "joan", &token), Some(3), "a closed session speaks for nobody");

    let log = log(&vault);
    for said in [
        "session_open",
        "session_close",
        "session_closed",
        "credential_missing",
        "hwk",
        &idp.identity("00u1"),
    ] {
        assert!(log.contains(said), "{said} is not on record:\n{log}");
    }
    assert!(!log.contains(session.trim()), "the log holds a session's token");

    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| vault.ctl("laptop", &["login"]).ends(3));
        idp.decide_device(None);
        ran.join().unwrap()
    });
    assert!(ran.stderr.contains("denied"), "{}", ran.stderr);
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn a_token_that_is_not_good_opens_nothing_and_is_on_record() {
    let Stage { _dir, idp, site } = site("single_use = true\namr = [\"hwk\", \"mfa\"]", "");
    let vault = site.serve();
    let claims = idp.claims("00u1");
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        idp.sign("ES256", &claims)
    };
    let good = idp.sign("EdDSA", &claims);
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, "A".repeat(86));
    let mut answers = std::collections::BTreeSet::new();
    for (token, cause) in [
        ("rubbish".to_owned(), "token_form"),
        (forged, "token_signature"),
        (with("aud", json!("another")), "token_audience"),
        (with("iss", json!("https://localhost")), "token_issuer"),
        (with("exp", json!(1)), "token_expired"),
        (with("exp", json!("1999999999")), "token_times"),
        (with("amr", json!(["pwd"])), "token_factors"),
        (with("sub", json!("00u2")), "principal_unknown"),
        (with("cnf", json!({ "x5t#S256": "a" })), "token_bound"),
    ] {
        answers.insert(login(&vault, "joan", &token, 3).split("\n  request").next().unwrap().to_owned());
        assert!(log(&vault).contains(&format!("\"{cause}\"")), "{cause} is not on record");
    }
    assert_eq!(answers.len(), 1, "an outsider can tell them apart: {answers:?}");
    login(&vault, "joan", &good, 0);
    login(&vault, "laptop", &good, 3);
    assert!(log(&vault).contains("\"token_used\""));
    // An access token is no session.
    let file = site.dir().join("laptop.session");
    fs::write(&file, with("jti", json!("another"))).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(mask(&vault, "laptop", &tokenized(&vault)), Some(3));
    assert!(log(&vault).contains("\"token_not_a_session\""));
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn a_session_ends_when_it_is_idle_and_in_any_case() {
    let Stage { _dir, idp, site } = site("", "idle = \"8s\"\nlifetime = \"25s\"");
    let vault = site.serve();
    let token = tokenized(&vault);
    login(&vault, "joan", &idp.token("00u1"), 0);
    login(&vault, "laptop", &idp.token("00u1"), 0);
    let begun = Instant::now();
    // Used all the time it stays, past its idle time, until its end.
    let mut last = Duration::ZERO;
    eventually("a session never ends", || {
        let works = mask(&vault, "joan", &token) == Some(0);
        if works {
            last = begun.elapsed();
        }
        !works
    });
    assert!(begun.elapsed() >= Duration::from_secs(24), "it ended after {:?}", begun.elapsed());
    assert!(last >= Duration::from_secs(9), "it was idle while it was used: {last:?}");
    assert_eq!(mask(&vault, "laptop", &token), Some(3), "nobody used it");
    let log = log(&vault);
    assert!(log.contains("\"session_expired\""), "{log}");
    assert!(log.contains("\"session_idle\"") || log.contains("\"session_expired\""), "{log}");
    login(&vault, "laptop", &idp.token("00u1"), 0);
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(mask(&vault, "laptop", &token), Some(3));
    assert!(self::log(&vault).contains("\"session_idle\""));
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn whoever_is_disabled_has_no_session_any_more() {
    let Stage { _dir, idp, site } = site("", "per_principal = 1");
    let vault = site.serve();
    let token = tokenized(&vault);
    login(&vault, "joan", &idp.token("00u1"), 0);
    assert_eq!(mask(&vault, "joan", &token), Some(0));
    // One more than there may be: the older one goes.
    login(&vault, "laptop", &idp.token("00u1"), 0);
    assert_eq!(mask(&vault, "laptop", &token), Some(0));
    eventually("two sessions where there may be one", || mask(&vault, "joan", &token) == Some(3));
    site.edit("principals.toml", |text| text.replace("id = \"joan\"", "id = \"joan\"\nenabled = false"));
    eventually("she is disabled and still served", || mask(&vault, "laptop", &token) == Some(3));
    login(&vault, "joan", &idp.token("00u1"), 3);
    assert!(log(&vault).contains("\"principal_disabled\""));
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn sessions_go_on_while_the_provider_is_down_and_new_keys_are_found() {
    let Stage { _dir, idp, site } = site("", "");
    let vault = site.serve();
    let token = tokenized(&vault);
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        login(&vault, "joan", &idp.sign(algorithm, &idp.claims("00u1")), 0);
    }
    for fault in [Fault::Down, Fault::Hang, Fault::WrongIssuer, Fault::Garbage, Fault::Error] {
        idp.set_fault(Some(fault));
        // Past a refresh that failed.
        std::thread::sleep(Duration::from_secs(4));
        assert_eq!(mask(&vault, "joan", &token), Some(0), "{fault:?}");
        assert_eq!(mask(&vault, "service", &token), Some(0), "{fault:?}");
        login(&vault, "laptop", &idp.token("00u1"), 0);
    }
    let old = idp.token("00u1");
    idp.rotate();
    login(&vault, "laptop", &idp.token("00u1"), 3);
    idp.set_fault(None);
    eventually("new keys are not found", || {
        vault.ctl("laptop", &["login", "--token-file", "-"]).stdin(idp.token("00u1")).run().code == Some(0)
    });
    login(&vault, "laptop", &old, 3);
    assert_eq!(mask(&vault, "joan", &token), Some(0), "a session needs no key");
    let (asked, begun) = (idp.requests("/keys"), Instant::now());
    for _ in 0..20 {
        login(&vault, "laptop", &idp.sign_by_nobody("00u1"), 3);
    }
    // Once a second because of them, and every other second anyway.
    let asked = u64::try_from(idp.requests("/keys") - asked).unwrap();
    assert!(asked <= 3 + 2 * begun.elapsed().as_secs(), "it was asked for keys {asked} times");
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn a_vault_starts_without_its_provider_and_without_people_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let idp = Idp::start(dir.path());
    idp.set_fault(Some(Fault::Down));
    let site = Site::make(&dir.path().join("vault"));
    site.edit("profile.toml", |text| text + &identity("joan", &idp));
    let vault = site.serve();
    let token = tokenized(&vault);
    let ran = vault.ctl("joan", &["mask", &token]).run();
    assert_eq!(ran.code, Some(3), "a connection without a certificate: {}", ran.stderr);
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);
    assert_eq!(vault.stop(), Some(0));
    site.edit("vault.toml", |text| text + &section(&idp, "", ""));
    site.edit("principals.toml", |text| text + &joan(&idp));
    let vault = site.serve();
    assert_eq!(mask(&vault, "service", &token), Some(0));
    login(&vault, "joan", &idp.token("00u1"), 3);
    idp.set_fault(None);
    eventually("keys are never known", || {
        vault.ctl("joan", &["login", "--token-file", "-"]).stdin(idp.token("00u1")).run().code == Some(0)
    });
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn a_session_that_is_closed_is_over_on_every_instance_within_a_second() {
    let Some(server) = Server::shared() else { return };
    let dir = TempDir::new().unwrap();
    let idp = Idp::start(dir.path());
    let place = Place::of_url(&server.url(&server.create_database()));
    let home = dir.path().join("vault");
    let fleet = Fleet::make_with(&home, &place, 2, &section(&idp, "", ""));
    let append = |file: &str, more: &str| {
        let path = home.join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    };
    append("principals.toml", &joan(&idp));
    fleet.start_all();
    let client = |number: usize| {
        Client::builder()
            .endpoint(fleet.endpoint(number))
            .server_name("localhost")
            .ca_file(home.join("pki/ca.pem"))
            .session_file(home.join("joan.session"))
            .tenant("demo")
            .connect()
            .unwrap()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let service = fleet.client("service");
        let value = NewValue::new(DataClass::EMAIL, Plaintext::new("joan@example.org".to_owned()));
        let token = service.tokenize_one(value).await.unwrap();
        let login = async || {
            let text = idp.token("00u1");
            let session = client(0).open_session(&AccessToken::new(text)).await.unwrap();
            session.token.write_to(&home.join("joan.session")).unwrap();
        };
        eventually_async(async || {
            let text = idp.token("00u1");
            client(0).open_session(&AccessToken::new(text)).await.is_ok()
        })
        .await;
        login().await;
        let (first, second) = (client(0), client(1));
        first.mask_one(&token).await.unwrap();
        second.mask_one(&token).await.unwrap();
        first.close_session().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for client in [&first, &second] {
            let error = client.mask_one(&token).await.err().expect("a closed session is refused");
            assert_eq!(error.reason(), Reason::SessionInvalid, "{error}");
        }
    });
    fleet.stop_all();
}

async fn eventually_async(holds: impl AsyncFn() -> bool) {
    let until = Instant::now() + Duration::from_secs(45);
    while !holds().await {
        assert!(Instant::now() < until, "never");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
