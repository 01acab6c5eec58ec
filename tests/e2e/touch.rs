//! Approvals by who has a security key: it is touched for each of them, by the commands and over the wire.

use std::time::Duration;

use tempfile::TempDir;
use tokio::task::block_in_place;
use tonic::Code;
use vault_client::keys::{JobKind, JobOrder, JobState, Note};
use vault_client::{Client, DataClass, DetokenizeOptions, NewValue, Plaintext, Purpose, Reason};
use vault_proto::v1::principal_service_client::PrincipalServiceClient;
use vault_proto::v1::{self, SecondFactorAction};
use vault_server::access::SecurityKey;
use vault_tests::authenticator::Authenticator;
use vault_tests::process::{DevVault, waits};
use vault_tests::site::Site;
use vault_tests::ssh_agent::SoftAgent;
use vault_tests::wire::Wire;

use crate::break_glass::{reason, touch};

const SEED: u8 = 7;

/// Two admins; the second one, `chief`, has a security key, and it alone.
fn site(dir: &TempDir) -> Site {
    let site = Site::make(&dir.path().join("vault"));
    site.add_second_admin("chief");
    let line = Authenticator::ed25519(SEED).line("chief");
    site.edit("principals.toml", |text| {
        text.replace("id = \"chief\"\n", &format!("id = \"chief\"\nsecurity_keys = [\"{line}\"]\n"))
    });
    site.edit("vault.toml", |text| {
        format!("{text}\n[keys]\ndestroy_after = \"1s\"\n[jobs]\npoll = \"50ms\"\nlease = \"1s\"\n")
    });
    site
}

fn client(vault: &DevVault, identity: &str) -> Client {
    Client::from_profile(vault.profile(), Some(identity)).unwrap().for_tenant("demo")
}

fn fingerprint() -> String {
    SecurityKey::from_blob(&Authenticator::ed25519(SEED).blob()).unwrap().fingerprint().to_string()
}

/// Has an admin ask for a principal, and answers with the change that waits.
fn asked(vault: &DevVault, id: &str) -> String {
    let identity = format!("spiffe://x.org/{id}");
    let add = ["principals", "add", id, "--kind", "human", "--role", "approver", "--identity", &identity];
    waits(vault.ctl("admin", &[&["--tenant", "demo"], &add[..]].concat()))
}

fn is_there(vault: &DevVault, id: &str) -> bool {
    let listed = vault.ctl("admin", &["--tenant", "demo", "--json", "principals", "list"]).ok().stdout;
    let mut listed = listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    listed.any(|principal| principal["id"] == id)
}

fn log(vault: &DevVault, action: &str) -> String {
    let query = ["--json", "audit", "query", "--action", action, "--tenant", "demo"];
    vault.ctl("auditor", &query).ok().stdout
}

#[test]
fn a_change_of_principals_is_approved_by_a_touch() {
    let dir = TempDir::new().unwrap();
    let vault = site(&dir).serve();
    let agent = SoftAgent::serve(&dir.path().join("agent"), vec![Authenticator::ed25519(SEED)]);
    let change = asked(&vault, "ann");
    let approve = |socket: &str| {
        let args = ["--tenant", "demo", "principals", "approve", &change];
        vault.ctl("chief", &args).env("SSH_AUTH_SOCK", socket)
    };
    let without = approve("").ends(2);
    assert!(without.stderr.contains("SSH_AUTH_SOCK"), "{}", without.stderr);
    assert!(!is_there(&vault, "ann"));
    assert!(log(&vault, "principal_approve").contains("second_factor_missing"));

    let approved = approve(agent.socket().to_str().unwrap()).ok();
    for said in ["approve a change of principals", "principal: chief", "touch your security key"] {
        assert!(approved.stderr.contains(said), "{said}: {}", approved.stderr);
    }
    assert_eq!(agent.touches(), 1);
    assert!(is_there(&vault, "ann"));
    assert!(log(&vault, "principal_approve").contains(&fingerprint()));
    // Who asks is not asked for one, and who rejects neither.
    let other = asked(&vault, "bob");
    vault.ctl("chief", &["--tenant", "demo", "principals", "reject", &other]).ok();
    assert_eq!(vault.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touch_is_for_one_change_once() {
    let dir = TempDir::new().unwrap();
    let vault = block_in_place(|| site(&dir).serve());
    let ids = block_in_place(|| [asked(&vault, "ann"), asked(&vault, "bob")]);
    let wire = Wire::connect(&vault, "chief").await;
    let mut service = PrincipalServiceClient::new(wire.channel.clone());
    let list = v1::ListPrincipalChangesRequest { tenant: "demo".to_owned() };
    let changes = service.list_principal_changes(list).await.unwrap().into_inner().changes;
    let request = |id: &str| {
        let change = changes.iter().find(|change| change.id == id).unwrap();
        v1::ApprovePrincipalChangeRequest {
            tenant: "demo".to_owned(),
            id: change.id.clone(),
            hash: change.hash.clone(),
            ..Default::default()
        }
    };
    let [ann, bob] = ids.each_ref().map(|id| request(id));
    let other = Some(touch(&wire, SEED, SecondFactorAction::JobApprove, &ann).await);
    let factor = Some(touch(&wire, SEED, SecondFactorAction::PrincipalChangeApprove, &ann).await);
    for (what, refused) in [
        ("none", ann.clone()),
        ("for something else", v1::ApprovePrincipalChangeRequest { second_factor: other, ..ann.clone() }),
        (
            "for another change",
            v1::ApprovePrincipalChangeRequest { second_factor: factor.clone(), ..bob.clone() },
        ),
        (
            "for other words",
            v1::ApprovePrincipalChangeRequest {
                second_factor: factor.clone(),
                reason: "another one".to_owned(),
                ..ann.clone()
            },
        ),
    ] {
        let refused = service.approve_principal_change(refused).await.unwrap_err();
        let said = (refused.code(), reason(&refused));
        assert_eq!(said, (Code::PermissionDenied, "SECOND_FACTOR".to_owned()), "{what}");
    }
    block_in_place(|| assert!(!is_there(&vault, "ann") && !is_there(&vault, "bob")));
    let with = |request: v1::ApprovePrincipalChangeRequest| v1::ApprovePrincipalChangeRequest {
        second_factor: factor.clone(),
        ..request
    };
    service.approve_principal_change(with(ann.clone())).await.unwrap();
    let again = service.approve_principal_change(with(ann)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let used = service.approve_principal_change(with(bob)).await.unwrap_err();
    assert_eq!(reason(&used), "SECOND_FACTOR");
    block_in_place(|| {
        assert!(is_there(&vault, "ann") && !is_there(&vault, "bob"));
        assert_eq!(vault.stop(), Some(0));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_is_approved_by_a_touch() {
    let dir = TempDir::new().unwrap();
    let vault = block_in_place(|| site(&dir).serve());
    let agent = SoftAgent::serve(&dir.path().join("agent"), vec![Authenticator::ed25519(SEED)]);
    let (service, admin, chief) =
        (client(&vault, "service"), client(&vault, "admin"), client(&vault, "chief"));
    let note = Note::default();
    let value = NewValue::new(DataClass::EMAIL, Plaintext::new("last@example.org".to_owned()));
    let kept = vec![service.tokenize(vec![value]).await.unwrap().remove(0).unwrap()];
    let job = admin.start_job(&JobOrder::new(JobKind::Shred), &note).await.unwrap();
    assert_eq!(job.state, JobState::Asked);
    assert_eq!(chief.approve_job(job.id, &note).await.unwrap_err().reason(), Reason::SecondFactor);
    let still = service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
    assert!(still[0].is_ok());

    let id = job.id.to_string();
    block_in_place(|| {
        let approve = ["--tenant", "demo", "jobs", "approve", &id, "--yes"];
        vault.ctl("chief", &approve).env("SSH_AUTH_SOCK", "").ends(2);
        let socket = agent.socket().to_str().unwrap();
        let approved = vault.ctl("chief", &approve).env("SSH_AUTH_SOCK", socket).ok();
        assert!(approved.stderr.contains("approve a destruction of keys"), "{}", approved.stderr);
        assert_eq!(agent.touches(), 1);
        let entries = log(&vault, "job_approve");
        assert!(entries.contains(&fingerprint()) && entries.contains("second_factor_missing"), "{entries}");
    });
    let until = std::time::Instant::now() + Duration::from_mins(1);
    while admin.list_jobs().await.unwrap().iter().any(|job| !job.state.is_over()) {
        assert!(std::time::Instant::now() < until, "{}", vault.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let gone = || async {
        let values =
            service.detokenize(&kept, Purpose::Treatment, &DetokenizeOptions::default()).await.unwrap();
        values[0].as_ref().err().map(vault_client::ItemError::reason) == Some(Reason::KeyDestroyed)
    };
    while !gone().await {
        assert!(std::time::Instant::now() < until, "{}", vault.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(block_in_place(|| vault.stop()), Some(0));
}
