//! Who may call, as admins steer it, by `vaultctl` and from many instances.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tempfile::TempDir;
use vault_client::keys::Note;
use vault_client::principals::{Kind, NewPrincipal};
use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, Reason};
use vault_tests::site::Site;

/// Within this a change is in force.
const BOUND: Duration = Duration::from_secs(1);

/// A vault with an admin of tenant demo alone, and certificates of people it does not know yet.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    site.provision("approver", "\"demo\" = [\"admin\"]");
    for id in ["ann", "bob"] {
        site.add_identity(id);
    }
    site
}

const ANN: &str = "spiffe://dev.phi-vault.internal/ann";

#[test]
fn a_principal_comes_is_changed_and_goes() {
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    let vault = site.serve();
    vault.ctl("ann", &["whoami"]).ends(3);
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    let token = token.line().to_owned();

    let add = ["principals", "add", "ann", "--kind", "human", "--identity", ANN, "--role", "console"];
    for nobody in ["service", "console", "oncall", "rotator", "auditor"] {
        vault.ctl(nobody, &add).ends(3);
    }
    vault.ctl("approver", &add).ok();
    let who = vault.ctl("ann", &["whoami"]).ok();
    assert!(who.stdout.contains("demo:console") && who.stdout.contains("mtls"), "{}", who.stdout);
    assert_eq!(vault.ctl("ann", &["mask", &token]).ok().line(), "***-**-4102");

    // Twice is not once more, and an identity is nobody else's, in no spelling.
    vault.ctl("approver", &add).ends(2);
    let alias = ANN.replace("dev.", "DEV.") + "/";
    let other = ["principals", "add", "ann2", "--kind", "human", "--identity", &alias, "--role", "console"];
    let ran = vault.ctl("approver", &other).ends(2);
    assert!(ran.stderr.contains("another's"), "{}", ran.stderr);
    let service = "spiffe://dev.phi-vault.internal/service";
    let other = ["principals", "add", "ann2", "--kind", "human", "--identity", service, "--role", "console"];
    vault.ctl("approver", &other).ends(2);

    // An admin of one tenant gives nothing at another, and nobody changes itself or who is configured.
    vault.ctl("approver", &["principals", "change", "ann", "--role", "other=console"]).ends(2);
    vault.ctl("approver", &["principals", "change", "ann", "--role", "*=admin"]).ends(2);
    vault.ctl("approver", &["principals", "disable", "approver"]).ends(3);
    vault.ctl("approver", &["principals", "disable", "service"]).ends(1);
    vault.ctl("approver", &["principals", "disable", "nobody"]).ends(1);

    // By an admin of the vault it gets a role elsewhere: then the tenant's admin has a say on its own tenant only.
    let elsewhere = [
        "--tenant",
        "*",
        "principals",
        "change",
        "ann",
        "--role",
        "demo=console",
        "--role",
        "st-mary=oncall",
    ];
    vault.ctl("admin", &elsewhere).ok();
    let seen = vault.ctl("approver", &["principals", "show", "ann"]).ok();
    assert!(seen.stdout.contains("demo:console") && !seen.stdout.contains("st-mary"), "{}", seen.stdout);
    vault.ctl("approver", &["principals", "disable", "ann"]).ends(3);
    vault.ctl("approver", &["principals", "change", "ann", "--owner", "me"]).ends(3);
    vault.ctl("approver", &["principals", "change", "ann", "--role", "oncall"]).ok();
    let all = vault.ctl("admin", &["--tenant", "*", "principals", "show", "ann"]).ok();
    assert!(all.stdout.contains("demo:oncall st-mary:oncall"), "{}", all.stdout);
    vault.ctl("approver", &["principals", "change", "ann", "--no-roles"]).ok();
    vault.ctl("ann", &["--tenant", "demo", "mask", &token]).ends(3);

    vault.ctl("admin", &["--tenant", "*", "principals", "disable", "ann", "--reason", "left"]).ok();
    vault.ctl("ann", &["whoami"]).ends(3);
    vault.ctl("admin", &["--tenant", "*", "principals", "enable", "ann"]).ok();
    vault.ctl("ann", &["whoami"]).ok();

    // It is all on record, with what changed; and it is there after a restart.
    let query =
        ["--tenant", "*", "--json", "audit", "query", "--action", "principal_change", "--limit", "100"];
    let log = vault.ctl("auditor", &query).ok();
    assert!(log.stdout.contains("\"left\"") && log.stdout.contains("st-mary:oncall"), "{}", log.stdout);
    assert!(log.stdout.matches("\"deny\"").count() >= 10, "{}", log.stdout);
    vault.stop();
    let vault = site.serve();
    vault.ctl("ann", &["whoami"]).ok();
}

#[test]
fn two_who_change_one_principal_do_not_undo_each_other() {
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let admin = Client::from_profile(vault.profile(), Some("approver")).unwrap().for_tenant("demo");
        let mut ann = NewPrincipal::new("ann", Kind::Human, ANN);
        ann.roles.insert("demo".to_owned(), vec!["console".to_owned()]);
        let seen = admin.put_principal(&ann.into(), &Note::default()).await.unwrap();
        let change = |role: &str| {
            let mut changed = seen.clone();
            changed.roles.insert("demo".to_owned(), vec![role.to_owned()]);
            changed
        };
        let note = Note::default();
        let (one, other) = (change("oncall"), change("approver"));
        let (one, other) = tokio::join!(admin.put_principal(&one, &note), admin.put_principal(&other, &note));
        let lost = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(
            lost.iter().map(vault_client::Error::reason).collect::<Vec<_>>(),
            [Reason::ChangedMeanwhile]
        );
        // And two ids for one identity: one of them.
        let bob = |id: &str| {
            let mut bob = NewPrincipal::new(id, Kind::Human, "spiffe://dev.phi-vault.internal/bob");
            bob.roles.insert("demo".to_owned(), vec!["console".to_owned()]);
            bob.into()
        };
        let (one, other) = (bob("bob"), bob("robert"));
        let (one, other) = tokio::join!(admin.put_principal(&one, &note), admin.put_principal(&other, &note));
        let lost = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(lost.iter().map(vault_client::Error::reason).collect::<Vec<_>>(), [Reason::Taken]);
    });
}

/// The last value that a stream of a million gets after its principal was disabled.
#[test]
fn a_stream_ends_within_the_bound_after_its_principal_was_disabled() {
    const MESSAGE: usize = 1000;
    const MESSAGES: usize = 1000;
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let admin = Client::from_profile(vault.profile(), Some("approver")).unwrap().for_tenant("demo");
        let mut ann = NewPrincipal::new("ann", Kind::Service, ANN);
        ann.roles.insert("demo".to_owned(), vec!["service".to_owned()]);
        admin.put_principal(&ann.into(), &Note::default()).await.unwrap();
        let ann = Client::from_profile(vault.profile(), Some("ann")).unwrap().for_tenant("demo");
        let values =
            (0..MESSAGE).map(|n| NewValue::new(DataClass::EMAIL, Plaintext::new(format!("a{n}@b.org"))));
        let kept = ann.tokenize(values.collect()).await.unwrap();
        let tokens: Vec<_> = kept.into_iter().map(Result::unwrap).collect();

        let batches = futures::stream::iter((0..MESSAGES).map(move |_| tokens.clone()));
        let options = DetokenizeOptions::default();
        let answers = ann.detokenize_stream(batches, Purpose::Treatment, &options).await.unwrap();
        let mut answers = std::pin::pin!(answers);
        let mut served = 0;
        let mut disabled: Option<Instant> = None;
        let mut last = None;
        while let Some(answer) = answers.next().await {
            let Ok(Ok(values)) = answer else { break };
            if values.iter().any(Result::is_ok) {
                served += values.len();
                last = Some(Instant::now());
            }
            if served >= 20 * MESSAGE && disabled.is_none() {
                admin.set_principal_state("ann", false, &Note::default()).await.unwrap();
                disabled = Some(Instant::now());
            }
        }
        let (disabled, last) = (disabled.unwrap(), last.unwrap());
        let after = last.saturating_duration_since(disabled);
        println!(
            "{served} of {} values served, the last {after:?} after the principal was disabled",
            MESSAGE * MESSAGES
        );
        assert!(served < MESSAGE * MESSAGES, "the stream was served to its end");
        assert!(after < BOUND, "{after:?}");
        let refused = ann.who_am_i().await.unwrap_err();
        assert_eq!(refused.reason(), Reason::PrincipalUnknown);
    });
}
