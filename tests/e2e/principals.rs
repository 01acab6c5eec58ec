//! Who may call, as admins steer it, by `vaultctl` and from many instances.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tempfile::TempDir;
use vault_client::keys::Note;
use vault_client::principals::{Kind, NewPrincipal};
use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, Reason};
use vault_tests::fleet::{Fleet, Place};
use vault_tests::postgres::Server;
use vault_tests::process::waits;
use vault_tests::site::Site;

/// Within this a change is in force.
const BOUND: Duration = Duration::from_secs(1);

/// A vault with an admin of tenant demo alone, and certificates of people it does not know yet.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    site.provision("approver", "\"demo\" = [\"admin\"]");
    site.add_second_admin("chief");
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
    vault.by_two(vault.ctl("admin", &elsewhere), "chief", "*");
    let seen = vault.ctl("approver", &["principals", "show", "ann"]).ok();
    assert!(seen.stdout.contains("demo:console") && !seen.stdout.contains("st-mary"), "{}", seen.stdout);
    vault.ctl("approver", &["principals", "disable", "ann"]).ends(3);
    vault.ctl("approver", &["principals", "change", "ann", "--owner", "me"]).ends(3);
    vault.by_two(
        vault.ctl("approver", &["principals", "change", "ann", "--role", "oncall"]),
        "chief",
        "demo",
    );
    let all = vault.ctl("admin", &["--tenant", "*", "principals", "show", "ann"]).ok();
    assert!(all.stdout.contains("demo:oncall st-mary:oncall"), "{}", all.stdout);
    vault.ctl("approver", &["principals", "change", "ann", "--no-roles"]).ok();
    vault.ctl("ann", &["--tenant", "demo", "mask", &token]).ends(3);

    vault.ctl("admin", &["--tenant", "*", "principals", "disable", "ann", "--reason", "left"]).ok();
    vault.ctl("ann", &["whoami"]).ends(3);
    let id = waits(vault.ctl("admin", &["--tenant", "*", "principals", "enable", "ann"]));
    vault.ctl("ann", &["whoami"]).ends(3);
    vault.ctl("chief", &["--tenant", "*", "principals", "approve", &id]).ok();
    vault.ctl("ann", &["whoami"]).ok();

    // It is all on record, with what changed; and it is there after a restart.
    let log = |action| {
        let query = ["--tenant", "*", "--json", "audit", "query", "--action", action, "--limit", "100"];
        vault.ctl("auditor", &query).ok().stdout
    };
    let (changed, approved) = (log("principal_change"), log("principal_approve"));
    assert!(changed.contains("\"left\"") && approved.contains("st-mary:oncall"), "{changed}\n{approved}");
    assert!(changed.matches("\"deny\"").count() >= 10, "{changed}");
    vault.stop();
    let vault = site.serve();
    vault.ctl("ann", &["whoami"]).ok();
}

/// The way of an admin who would be two people: each step of it is refused, and the ones of two are not.
#[test]
fn more_of_somebody_is_made_by_two_people() {
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    let vault = site.serve();
    let add = ["principals", "add", "ann", "--kind", "human", "--identity", ANN, "--role", "approver"];
    let id = waits(vault.ctl("approver", &add));
    // Asked for again it is the same; it is in the list, and nothing has changed yet.
    assert_eq!(waits(vault.ctl("approver", &add)), id);
    vault.ctl("ann", &["whoami"]).ends(3);
    let pending = vault.ctl("chief", &["--tenant", "demo", "principals", "pending"]).ok();
    for part in [id.as_str(), "roles_given", "demo:approver", ANN, "approver as admin of demo"] {
        assert!(pending.stdout.contains(part), "{part}: {}", pending.stdout);
    }
    let approve = |who: &str, id: &str| vault.ctl(who, &["--tenant", "demo", "principals", "approve", id]);
    let own = approve("approver", &id).ends(3);
    assert!(own.stderr.contains("two people"), "{}", own.stderr);
    for nobody in ["oncall", "auditor", "service"] {
        approve(nobody, &id).ends(3);
    }
    vault.ctl("ann", &["whoami"]).ends(3);
    // After a restart it waits as before.
    vault.stop();
    let vault = site.serve();
    let approve = |who: &str, id: &str| vault.ctl(who, &["--tenant", "demo", "principals", "approve", id]);
    approve("approver", &id).ends(3);
    // The first digits are enough, and what came of it is said.
    approve("chief", &id[..5]).ends(2);
    let approved = approve("chief", &id[..8]).ok();
    assert!(approved.stderr.contains("done: ann is as shown from now on"), "{}", approved.stderr);
    let none = vault.ctl("chief", &["--tenant", "demo", "principals", "pending"]).ok();
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains("no change waits"), "{}", none.stderr);
    let who = vault.ctl("ann", &["whoami"]).ok();
    assert!(who.stdout.contains("demo:approver"), "{}", who.stdout);
    approve("chief", &id).ends(1);

    // What is taken away is taken at once; back it comes by two.
    let until = |time: &str| vault.ctl("approver", &["principals", "change", "ann", "--expires", time]);
    until("2030-01-01T00:00:00Z").ok();
    let later = waits(until("2031-01-01T00:00:00Z"));
    vault.ctl("approver", &["principals", "disable", "ann"]).ok();
    vault.ctl("ann", &["whoami"]).ends(3);
    // It was changed since it was asked for.
    let superseded = approve("chief", &later).run();
    assert!(superseded.code != Some(0) && superseded.stderr.contains("meanwhile"), "{}", superseded.stderr);
    let on = waits(vault.ctl("approver", &["principals", "enable", "ann"]));
    let rejected = vault.ctl("chief", &["--tenant", "demo", "principals", "reject", &on[..12]]).ok();
    assert!(rejected.stderr.contains("nothing has changed"), "{}", rejected.stderr);
    approve("chief", &on).ends(1);
    vault.ctl("ann", &["whoami"]).ends(3);

    let query = ["--tenant", "demo", "--json", "audit", "query", "--limit", "100", "--action"];
    let log = |action: &str| vault.ctl("auditor", &[&query[..], &[action]].concat()).ok().stdout;
    let (asked, approved) = (log("principal_ask"), log("principal_approve"));
    assert!(asked.contains(&id) && approved.contains(&id), "{asked}\n{approved}");
    for cause in ["second_person", "superseded"] {
        assert!(approved.contains(cause), "{cause}: {approved}");
    }
    assert!(log("principal_reject").contains(&on));
}

/// A site that has one admin says so, and everybody can see it.
#[test]
fn without_the_rule_one_person_is_enough_and_that_is_said() {
    let dir = TempDir::new().unwrap();
    let site = site(&dir);
    site.edit("vault.toml", |text| {
        let alone = "[second_factor]\nfor_approvals = false\n\n[access]\nsecond_person_for_roles = false\n";
        text.replace("[access]\n", alone)
    });
    let vault = site.serve();
    let add = ["principals", "add", "ann", "--kind", "human", "--identity", ANN, "--role", "approver"];
    vault.ctl("approver", &add).ok();
    vault.ctl("ann", &["whoami"]).ok();
    let query = ["--tenant", "*", "--json", "audit", "query", "--limit", "100", "--action"];
    let log = |action: &str| vault.ctl("auditor", &[&query[..], &[action]].concat()).ok().stdout;
    assert!(log("principal_change").contains("not_asked_for"));
    let start = log("start");
    assert!(start.contains("second_person_for_roles") && start.contains("second_factor_for_approvals"));
}

/// Asked for at one instance; of two others that approve it at once, one does, and it is in force on all.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_approved_once_on_whichever_instance() {
    let dir = TempDir::new().unwrap();
    let Some(server) = Server::shared() else { return };
    let home = dir.path().join("vault");
    let fleet = tokio::task::block_in_place(|| {
        let place = Place::of_url(&server.url(&server.create_database()));
        let fleet = Fleet::make(&home, &place, 3);
        for admin in ["chief", "third"] {
            Site::of(&home).add_second_admin(admin);
        }
        fleet.start_all();
        fleet
    });
    let to = |number: usize, who: &str| {
        let profile = std::fs::read_to_string(home.join("profile.toml")).unwrap();
        let endpoints = format!("endpoints = [\"https://{}\"]", fleet.address(number));
        let lines = profile.lines().map(|line| if line.starts_with("endpoints") { &endpoints } else { line });
        let file = home.join(format!("to-{number}.toml"));
        std::fs::write(&file, lines.fold(String::new(), |text, line| text + line + "\n")).unwrap();
        Client::from_profile(&file, Some(who)).unwrap().for_tenant("demo")
    };
    let (asker, one, other) = (to(0, "admin"), to(1, "chief"), to(2, "third"));
    let note = Note::default();
    for round in 0..5 {
        let identity = format!("spiffe://x.org/p{round}");
        let mut new = NewPrincipal::new(format!("p{round}"), Kind::Human, identity);
        new.roles.insert("demo".to_owned(), vec!["approver".to_owned()]);
        let asked = asker.put_principal(&new.into(), &note).await.unwrap().waits().unwrap();
        let own = asker.approve_principal_change(&asked, &note).await.unwrap_err();
        assert_eq!(own.reason(), Reason::SecondPerson);
        let (first, second) = tokio::join!(
            one.approve_principal_change(&asked, &note),
            other.approve_principal_change(&asked, &note)
        );
        let lost: Vec<_> = [first, second].into_iter().filter_map(Result::err).collect();
        assert_eq!(lost.iter().map(vault_client::Error::reason).collect::<Vec<_>>(), [Reason::NotFound]);
    }
    let until = Instant::now() + Duration::from_secs(30);
    for client in [&asker, &one, &other] {
        let there = async || client.list_principals().await.unwrap();
        while there().await.iter().filter(|principal| !principal.configured).count() < 5 {
            assert!(Instant::now() < until, "not in force");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    tokio::task::block_in_place(|| fleet.stop_all());
}

#[test]
fn two_who_change_one_principal_do_not_undo_each_other() {
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let admin = Client::from_profile(vault.profile(), Some("approver")).unwrap().for_tenant("demo");
        let mut ann = NewPrincipal::new("ann", Kind::Human, ANN);
        ann.roles.insert("demo".to_owned(), vec!["console".to_owned()]);
        let seen = admin.put_principal(&ann.into(), &Note::default()).await.unwrap().made().unwrap();
        let change = |role: &str| {
            let mut changed = seen.clone();
            changed.roles.insert("demo".to_owned(), vec![role.to_owned()]);
            changed
        };
        let note = Note::default();
        let (one, other) = (change("rotator"), change("rotator"));
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
        let asked = admin.put_principal(&ann.into(), &Note::default()).await.unwrap().waits().unwrap();
        let chief = Client::from_profile(vault.profile(), Some("chief")).unwrap().for_tenant("demo");
        chief.approve_principal_change(&asked, &Note::default()).await.unwrap();
        let ann = Client::from_profile(vault.profile(), Some("ann")).unwrap().for_tenant("demo");
        let values =
            (0..MESSAGE).map(|n| NewValue::new(DataClass::EMAIL, Plaintext::new(format!("a{n}@b.org"))));
        let kept = ann.tokenize(values.collect()).await.unwrap();
        let tokens: Vec<_> = kept.into_iter().map(Result::unwrap).collect();

        let batches = futures::stream::iter((0..MESSAGES).map(move |_| tokens.clone()));
        let options = DetokenizeOptions::default();
        let answers = ann.detokenize_stream(batches, Purpose::Treatment, &options).await.unwrap();
        let mut answers = std::pin::pin!(answers);
        let (begin, mut message) = (Instant::now(), Duration::ZERO);
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
                message = begin.elapsed() / 20;
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
        // What was under way is answered: on a busy machine that takes its time, but it is few messages.
        assert!(after < BOUND.max(8 * message), "{after:?}, at {message:?} a message");
        let refused = ann.who_am_i().await.unwrap_err();
        assert_eq!(refused.reason(), Reason::PrincipalUnknown);
    });
}
