//! Breaking the glass, by the commands that people type at night.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vault_proto::v1;
use vault_proto::v1::break_glass_service_client::BreakGlassServiceClient;
use vault_tests::authenticator::Authenticator;
use vault_tests::fake_kms::Fault;
use vault_tests::idp::{self, Idp};
use vault_tests::process::{Ctl, DevVault, Ran};
use vault_tests::site::Site;
use vault_tests::ssh_agent::SoftAgent;
use vault_tests::wire::Wire;

use crate::break_glass::reason;
use crate::kms::site_with;
use crate::oidc;

const SSN: &str = "999-31-4102";
const NAME: &str = "Zoë Example";
/// How long a slow machine may take to get on.
const PATIENCE: Duration = Duration::from_mins(2);

/// A vault, and people with security keys.
struct Night {
    vault: DevVault,
    agents: Vec<(&'static str, SoftAgent)>,
}

impl Night {
    /// `oncall` asks and `approver` approves; `approver` could ask, too.
    fn falls(dir: &Path) -> Self {
        Self::falls_at(&Site::make(&dir.join("vault")), dir)
    }

    fn falls_at(site: &Site, dir: &Path) -> Self {
        site.provision("approver", "\"demo\" = [\"approver\", \"oncall\"]");
        site.add_second_admin("admin2");
        let vault = site.serve();
        let people = [("oncall", 1), ("approver", 2)];
        let agents = people.map(|(who, seed)| {
            let key = Authenticator::ed25519(seed);
            let enroll = ["--tenant", "demo", "security-keys", "enroll", who, "-"];
            vault.by_two(vault.ctl("admin", &enroll).stdin(key.line(who)), "admin2", "demo");
            let agent = SoftAgent::serve(&dir.join(who), vec![key]);
            let socket = agent.socket().to_str().unwrap();
            vault.ctl(who, &["security-keys", "confirm"]).env("SSH_AUTH_SOCK", socket).ok();
            (who, agent)
        });
        Self { vault, agents: agents.into() }
    }

    /// `vaultctl break-glass`, with the security key of who types it.
    fn types(&self, who: &str, args: &[&str]) -> Ctl {
        let socket = self.agents.iter().find(|(name, _)| *name == who).map(|(_, agent)| agent.socket());
        let socket = socket.map_or("", |socket| socket.to_str().unwrap());
        let tenant = ["--tenant", "demo", "break-glass"];
        self.vault.ctl(who, &[&tenant, args].concat()).env("SSH_AUTH_SOCK", socket)
    }

    /// The same, while other things happen.
    fn types_and_waits(&self, who: &str, args: &[&str]) -> JoinHandle<Ran> {
        let command = self.types(who, args);
        thread::spawn(move || command.run())
    }

    /// Beside the one that confirmed the key.
    fn touches(&self, who: &str) -> u32 {
        self.agents.iter().find(|(name, _)| *name == who).unwrap().1.touches() - 1
    }

    fn keep(&self, class: &str, value: &str) -> String {
        let kept =
            self.vault.ctl("service", &["tokenize", "--class", class, "--subject", "p1"]).stdin(value).ok();
        kept.line().to_owned()
    }

    /// The grant that waits, as an approver finds it.
    fn waiting(&self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let ran = self.types("approver", &["list", "--waiting", "--json"]).ok();
            let grants: Vec<Value> =
                ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if let Some(grant) = grants.into_iter().find(|grant| grant["state"] == "requested") {
                return grant;
            }
            assert!(Instant::now() < until, "nobody asks");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn shown(&self, who: &str, id: &str) -> Value {
        serde_json::from_str(&self.types(who, &["show", id, "--json"]).ok().stdout).unwrap()
    }
}

const WHY: [&str; 6] =
    ["--class", "ssn", "--reason-code", "patient_safety", "--reason", "two charts were merged"];

fn request<'a>(about: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["request"], about, &WHY, more].concat()
}

fn id_of(grant: &Value) -> String {
    grant["id"].as_str().unwrap().to_owned()
}

#[test]
fn two_people_get_from_a_need_to_the_value_by_two_commands() {
    let dir = TempDir::new().unwrap();
    let night = Night::falls(dir.path());
    let (ssn, name) = (night.keep("ssn", SSN), night.keep("name", NAME));

    // The first command, and the second.
    let more = ["--for", "10m", "--values", "3", "--ticket", "INC-7", "--wait", "--reveal", "--out", "-"];
    let asked = night.types_and_waits("oncall", &request(&[&ssn], &more));
    let grant = night.waiting();
    let id = id_of(&grant);
    let short = &id[..8];
    let approved = night.types("approver", &["approve", short, "--yes"]).ok();
    let asked = asked.join().unwrap();
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), &*format!("{SSN}\n")), "{}", asked.stderr);
    assert_eq!((night.touches("oncall"), night.touches("approver")), (1, 1));

    // Each was told beforehand what it comes to, and by which command it goes on.
    let before_touch = |said: &str| said.split("touch your security key now").next().unwrap().to_owned();
    let first = before_touch(&asked.stderr);
    assert!(first.contains("on record, for good") && first.contains("told at once"), "{first}");
    assert!(asked.stderr.contains(&format!("break-glass approve {}", &id[..12])), "{}", asked.stderr);
    assert!(asked.stderr.contains("2 of 3 values are left"), "{}", asked.stderr);
    let second = before_touch(&approved.stderr);
    for told in ["oncall", "two charts were merged", "INC-7", &ssn, "on record, for good", "10m"] {
        assert!(second.contains(told), "{told}: {second}");
    }
    assert!(approved.stderr.contains("break-glass reveal"), "{}", approved.stderr);

    // Nothing is shown where it would stay, nor counted; nor what the grant is not about.
    let piped = night.types("oncall", &["reveal", short]).ends(2);
    assert!(piped.stdout.is_empty() && piped.stderr.contains("--out -"), "{}", piped.stderr);
    assert_eq!(night.shown("oncall", short)["values_seen"], 1);
    let other = night.types("oncall", &["reveal", short, &name, "--out", "-"]).run();
    assert!(other.code != Some(0) && !other.stdout.contains(NAME), "{}", other.stdout);
    let again = night.types("oncall", &["reveal", short, &ssn, "--out", "-", "--json"]).ok();
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&again["results"][0]["value"], &again["grant"]["values_seen"]),
        (&Value::from(SSN), &2.into())
    );
    // Nobody else sees values under it.
    let approvers = night.types("approver", &["reveal", short, "--out", "-"]).run();
    assert!(approvers.code != Some(0) && approvers.stdout.is_empty(), "{}", approvers.stdout);

    // Who may not answer is in its story, and learns nothing by it.
    is_refused_an_answer(&night, &id);

    // It ends, is reviewed by who had no part in it, and is told.
    night
        .types("auditor", &["review", short, "--verdict", "justified", "--notes", "charts were merged"])
        .ends(1);
    night.types("oncall", &["close", short, "--notes", "done"]).ok();
    night.types("oncall", &["reveal", short, "--out", "-"]).ends(1);
    let verdict = ["review", short, "--verdict", "justified", "--notes", "charts were merged"];
    night.types("approver", &verdict).ends(3);
    night.types("auditor", &verdict).ok();
    assert_eq!(night.shown("auditor", short)["verdict"], "justified");
    told(&night, short, &ssn);
}

/// Started while a region of the KMS and the provider of identities are gone: people come by certificates and security keys.
#[test]
fn the_glass_breaks_without_a_region_and_without_the_identity_provider() {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (site, kms) = runtime.block_on(site_with(&dir, &["us-east-1", "eu-west-1"]));
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin(SSN).ok();
    assert_eq!(vault.stop(), Some(0));

    kms[0].set_down(Some(Fault::Reset));
    let provider = Idp::start(dir.path());
    provider.set_fault(Some(idp::Fault::Down));
    site.edit("vault.toml", |text| text + &oidc::section(&provider, "", ""));
    let night = Night::falls_at(&site, dir.path());
    let asked =
        night.types_and_waits("oncall", &request(&[token.line()], &["--wait", "--reveal", "--out", "-"]));
    let id = id_of(&night.waiting());
    night.types("approver", &["approve", &id, "--yes"]).ok();
    let asked = asked.join().unwrap();
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), &*format!("{SSN}\n")), "{}", asked.stderr);
    assert_eq!(night.vault.stop(), Some(0));
}

/// An approval and a denial by who may do neither: of a grant, and of none that there is.
fn is_refused_an_answer(night: &Night, id: &str) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let wire = Wire::connect(&night.vault, "auditor").await;
        let mut glass = BreakGlassServiceClient::new(wire.channel.clone());
        let mut answers = Vec::new();
        for grant_id in [id.to_owned(), "0".repeat(32)] {
            let tenant = || "demo".to_owned();
            let approval = v1::ApproveGrantRequest {
                tenant: tenant(),
                grant_id: grant_id.clone(),
                ..Default::default()
            };
            let denial = v1::DenyGrantRequest { tenant: tenant(), grant_id, ..Default::default() };
            let refused = [
                glass.approve_grant(approval).await.unwrap_err(),
                glass.deny_grant(denial).await.unwrap_err(),
            ];
            answers.push(refused.map(|status| (status.code(), reason(&status), status.message().to_owned())));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0][0].1, "ACTION_NOT_ALLOWED");
    });
}

/// The whole story: each step in order, whose it was and of what, refused ones too.
fn told(night: &Night, id: &str, ssn: &str) {
    let story = night.types("auditor", &["story", id]).ok().stdout;
    let steps = [
        "oncall           asked for it",
        "approver         approved it",
        "oncall           saw 1 of 1 value",
        "approver         REFUSED",
        "auditor          REFUSED (action_not_allowed): would have approved it",
        "auditor          REFUSED (action_not_allowed): would have denied it",
        "oncall           ended it",
        "auditor          reviewed it",
    ];
    let mut from = 0;
    for step in steps {
        let at = story[from..].find(step);
        from += at.unwrap_or_else(|| panic!("{step} is not told in its place:\n{story}"));
    }
    assert!(story.contains(&format!("{ssn} ssn ok")) && story.contains("INC-7"), "{story}");
    assert!(!story.contains(SSN), "{story}");
    night.types("oncall", &["story", id]).ends(3);

    // It is what the whole log has of this grant, no entry more or less.
    let full: Value =
        serde_json::from_str(&night.types("auditor", &["story", id, "--json"]).ok().stdout).unwrap();
    let grant = full["grant"]["id"].as_str().unwrap();
    let place = |entry: &Value| (entry["log"].as_u64().unwrap(), entry["sequence"].as_u64().unwrap());
    let of_story: Vec<_> = full["entries"].as_array().unwrap().iter().map(place).collect();
    let query = ["--tenant", "demo", "--json", "audit", "query", "--limit", "1000", "--oldest-first"];
    let log: Value = serde_json::from_str(&night.vault.ctl("auditor", &query).ok().stdout).unwrap();
    assert_eq!(log["more"], false);
    let of_log = log["entries"].as_array().unwrap().iter().filter(|entry| entry["grant"] == grant);
    assert_eq!(of_story, of_log.map(place).collect::<Vec<_>>());
}

#[test]
fn what_is_denied_or_ones_own_gives_no_value() {
    let dir = TempDir::new().unwrap();
    let night = Night::falls(dir.path());
    let ssn = night.keep("ssn", SSN);
    refused_before_the_touch(&night, &ssn);

    // Denied: who waits learns it, and it can't be approved any more.
    let asked = night.types_and_waits("oncall", &request(&[&ssn], &["--wait", "--reveal", "--out", "-"]));
    let id = id_of(&night.waiting());
    night.types("approver", &["deny", &id, "--notes", "call me first"]).ok();
    let asked = asked.join().unwrap();
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(3), ""), "{}", asked.stderr);
    assert!(asked.stderr.contains("approver denied it"), "{}", asked.stderr);
    night.types("approver", &["approve", &id, "--yes"]).ends(1);
    night.types("oncall", &["reveal", &id, "--out", "-"]).ends(1);

    // One's own: not to be approved by oneself, though the role would allow it. Nobody is asked without a terminal.
    let own = night.types("approver", &request(&[&ssn], &[])).ends(6);
    let id = own.stdout.split_whitespace().next().unwrap().to_owned();
    let touches = night.touches("approver");
    night.types("approver", &["approve", &id]).ends(2);
    let refused = night.types("approver", &["approve", &id, "--yes"]).ends(3);
    assert!(refused.stderr.contains("two people"), "{}", refused.stderr);
    night.types("approver", &["deny", &id]).ends(3);
    assert_eq!(night.touches("approver"), touches, "nobody touches a key for what is refused anyway");
    assert_eq!(night.shown("approver", &id)["state"], "requested");

    // Without a security key, or without the role, there is none.
    night.types("oncall", &request(&[&ssn], &[])).env("SSH_AUTH_SOCK", "").ends(2);
    night.types("auditor", &request(&[&ssn], &[])).ends(2);
    night.types("oncall", &["approve", &id, "--yes"]).ends(1);
    night.types("approver", &["approve", "aaaaaa", "--yes"]).ends(1);

    // A person's id comes by a file, and is told to nobody.
    let file = dir.path().join("patient");
    std::fs::write(&file, "p1\n").unwrap();
    let about = ["--subject-file", file.to_str().unwrap()];
    let asked = night.types("oncall", &request(&about, &["--values", "5"])).ends(6);
    let id = asked.stdout.split_whitespace().next().unwrap().to_owned();
    night.types("approver", &["approve", &id, "--yes"]).ok();
    let revealed = night.types("oncall", &["reveal", &id, "--out", "-"]).ok();
    assert_eq!(revealed.stdout, format!("{SSN}\n"));
    night.types("oncall", &["close", &id]).ok();
}

/// What a person can only be told by the vault, before the security key blinks; and it is on record.
fn refused_before_the_touch(night: &Night, ssn: &str) {
    let touches = night.touches("oncall");
    let mut wrong = request(&[ssn], &[]);
    for (at, said) in [(5, "reason_code"), (3, "no such data class")] {
        let right = std::mem::replace(&mut wrong[at], "nosuch");
        let refused = night.types("oncall", &wrong).ends(2);
        assert!(
            refused.stderr.contains(said) && !refused.stderr.contains("touch your"),
            "{}",
            refused.stderr
        );
        wrong[at] = right;
    }
    let nobodys = vault_client::Token::from_log(&[7; 16], &vault_client::Environment::parse("dev").unwrap())
        .unwrap()
        .to_string();
    night.types("oncall", &request(&[&nobodys], &[])).ends(1);
    assert_eq!(night.touches("oncall"), touches);
    let query = ["--tenant", "demo", "--json", "audit", "query", "--action", "grant_request"];
    let log = night.vault.ctl("auditor", &query).ok().stdout;
    for cause in ["field_invalid", "class_unknown", "not_found"] {
        assert!(log.contains(cause), "{cause}: {log}");
    }
}

#[test]
fn policies_are_asked_before_they_are_in_force() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    let vault = site.serve();
    let policy = |args: &[&str]| vault.ctl("admin", &[&["--tenant", "demo", "policy"], args].concat());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let may = |more: &[&str]| {
        let args = [&["explain", "oncall", "--action", "detokenize", "--purpose", "BTG"], more].concat();
        policy(&args).ok().stdout
    };
    assert!(may(&["--with-grant", "1"]).contains("oncall-sees-values-under-a-grant"));
    assert!(may(&[]).contains("no-break-glass-without-grant"));
    let nobody = policy(&["explain", "nobody"]).ends(1).stderr;
    assert!(nobody.contains("principals list") && nobody.contains("tenant demo"), "{nobody}");
    // Every combination is asked: that takes a slow machine its time.
    assert!(policy(&["matrix", "--timeout", "3m"]).ok().stdout.contains("grant_approve"));
    vault.ctl("service", &["policy", "matrix"]).ends(3);

    let bad =
        policy(&["check", &file("bad.cedar", "permit (principal, action == Action::\"see\", resource);")]);
    assert!(!bad.ends(1).stdout.is_empty());
    let case = |allowed| {
        format!(
            "[[case]]\nprincipal = 'oncall'\ntenant = 'demo'\naction = 'mask'\nclass = 'ssn'\nallowed = {allowed}\n"
        )
    };
    policy(&["test", &file("good.toml", &(case(true) + &case(true)))]).ok();
    let failed = policy(&["test", &file("bad.toml", &(case(true) + &case(false)))]).ends(1).stdout;
    assert!(failed.contains("case 2") && failed.contains("1 of 2"), "{failed}");
}
