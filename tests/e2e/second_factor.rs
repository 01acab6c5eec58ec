//! Security keys by the commands that people type, and the second factors that they give.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use vault_client::Client;
use vault_client::keys::Note;
use vault_client::second_factor::{
    Confirming, SecondFactorAction, SecurityKeySigner as _, SignError, SshAgent, SshKeygen,
};
use vault_server::access::{SecurityKey, SshSignature};
use vault_server::domain::{EntityKind, EntityScope};
use vault_tests::authenticator::{Authenticator, NAMESPACE};
use vault_tests::process::DevVault;
use vault_tests::site::Site;
use vault_tests::ssh_agent::SoftAgent;

fn client(vault: &DevVault, identity: &str) -> Client {
    Client::from_profile(vault.profile(), Some(identity)).unwrap().for_tenant("demo")
}

fn fingerprint(key: &Authenticator) -> String {
    SecurityKey::from_blob(&key.blob()).unwrap().fingerprint().to_string()
}

/// Enrolls a key: one admin asks for it, another one approves.
async fn enroll(vault: &DevVault, of: &str, line: &str) {
    let asked = client(vault, "admin").enroll_security_key(of, line, &Note::default()).await.unwrap();
    let (other, id) = (client(vault, "admin2"), asked.waiting.unwrap());
    let waiting = other.list_principal_changes().await.unwrap();
    let change = waiting.iter().find(|change| change.id == id).unwrap();
    other.approve_principal_change(change, &Note::default()).await.unwrap();
}

/// Whether the program is on this machine.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("-V").stdin(Stdio::null()).output().is_ok()
}

#[test]
fn a_key_is_enrolled_tried_and_taken_back_by_the_commands() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    site.add_second_admin("admin2");
    let vault = site.serve();
    let keys = || [Authenticator::ed25519(1), Authenticator::ed25519(2)];
    let [blue, red] = keys();
    let agent = SoftAgent::serve(&dir.path().join("agent"), keys().into());
    let socket = agent.socket().to_str().unwrap();
    let file = dir.path().join("blue.pub");
    std::fs::write(&file, blue.line("blue") + "\n").unwrap();
    let file = file.to_str().unwrap();
    let admin = |args: &[&str]| vault.ctl("admin", &[&["--tenant", "demo", "security-keys"], args].concat());
    let attempt = || vault.ctl("oncall", &["security-keys", "try"]).env("SSH_AUTH_SOCK", socket);

    // Nobody has one yet.
    assert!(attempt().ends(3).stderr.contains("security key"));
    // By an admin, for another; a key in a file is refused, and so are others' orders.
    vault.ctl("approver", &["security-keys", "enroll", "oncall", file]).ends(3);
    admin(&["enroll", "admin", file]).ends(3);
    admin(&["enroll", "service", file]).ends(2);
    admin(&["enroll", "nobody", file]).ends(1);
    admin(&["enroll", "oncall", "-"]).stdin("ssh-ed25519 AAAA me").ends(2);
    let by_two = |command| vault.by_two(command, "admin2", "demo");
    let enrolled = by_two(admin(&["enroll", "oncall", file, "--ticket", "SEC-1"]));
    assert!(enrolled.stdout.contains(&fingerprint(&blue)), "{}", enrolled.stdout);
    admin(&["enroll", "oncall", file]).ok();
    admin(&["enroll", "approver", file]).ends(2);

    // It is no second factor before its owner has shown that it has it.
    let own = ["security-keys", "list"];
    assert!(vault.ctl("oncall", &own).ok().stdout.contains("to be confirmed"));
    assert!(attempt().ends(3).stderr.contains("security key"));
    let confirm = || vault.ctl("oncall", &["security-keys", "confirm"]).env("SSH_AUTH_SOCK", socket);
    let confirmed = confirm().ok();
    assert!(confirmed.stderr.contains("confirm that this new security key is yours"), "{}", confirmed.stderr);
    confirm().ends(2);
    let listed = admin(&["list", "oncall"]).ok().stdout;
    assert!(listed.contains(&fingerprint(&blue)) && listed.contains("good"), "{listed}");
    assert!(vault.ctl("oncall", &own).ok().stdout.contains("blue"));

    let tried = attempt().ok();
    assert!(tried.stderr.contains("touch your security key") && tried.stderr.contains("principal: oncall"));
    assert_eq!(agent.touches(), 2, "by the key that is enrolled, and not by the other");
    let without = vault.ctl("oncall", &["security-keys", "try"]).env("SSH_AUTH_SOCK", "").ends(2);
    assert!(without.stderr.contains("SSH_AUTH_SOCK"), "{}", without.stderr);

    // The owner takes it back; another is enrolled.
    vault.ctl("oncall", &["security-keys", "revoke", "oncall", &fingerprint(&blue)]).ok();
    attempt().ends(3);
    by_two(admin(&["enroll", "oncall", "-"]).stdin(red.line("red")));
    confirm().ok();
    attempt().ok();
    admin(&["enroll", "oncall", file]).ends(2);

    let log = |action| {
        let query = ["--json", "audit", "query", "--action", action, "--tenant", "demo"];
        vault.ctl("auditor", &query).ok().stdout
    };
    let asked = log("principal_ask");
    assert!(asked.contains(&fingerprint(&blue)) && asked.contains("SEC-1"), "{asked}");
    assert!(log("principal_approve").contains(&fingerprint(&blue)));
    let entries = log("security_key_change");
    assert!(entries.contains("taken") && entries.contains("second_person"), "{entries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_signs_is_what_the_vault_verifies() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    site.add_second_admin("admin2");
    let vault = site.serve();
    let (blue, green) = (Authenticator::ed25519(1), Authenticator::ecdsa());
    let approver = client(&vault, "approver");
    for (count, (name, key)) in [("blue", blue), ("green", green)].into_iter().enumerate() {
        let (line, mark) = (key.line(name), fingerprint(&key));
        let agent = SoftAgent::serve(&dir.path().join(name), vec![key]);
        let signer = SshAgent::at(agent.socket());
        enroll(&vault, "approver", &line).await;
        let confirming = Confirming::new(mark);
        let asked = approver.begin_second_factor(confirming.action(), confirming.hash()).await.unwrap();
        assert_eq!(asked.public_keys(), std::slice::from_ref(&line), "the one that waits, and no other");
        let factor = signer.sign(&asked).await.unwrap();
        assert!(approver.confirm_security_key(&confirming, factor).await.unwrap().confirmed);
        let asked = approver.begin_second_factor(SecondFactorAction::GrantApprove, [7; 32]).await.unwrap();
        let again = approver.begin_second_factor(SecondFactorAction::GrantApprove, [7; 32]).await.unwrap();
        assert_ne!(asked.text(), again.text());
        assert!(asked.text().contains("approve a grant of break-glass"), "{}", asked.text());
        assert_eq!(asked.public_keys().len(), count + 1);
        let factor = signer.sign(&asked).await.unwrap();
        verified(factor.signature(), asked.text(), &line);
        by_ssh_keygen(dir.path(), name, &line, agent.socket(), &asked, factor.signature()).await;
    }
    let other = SoftAgent::serve(&dir.path().join("other"), vec![Authenticator::ed25519(9)]);
    let asked = approver.begin_second_factor(SecondFactorAction::GrantDeny, [7; 32]).await.unwrap();
    assert!(matches!(SshAgent::at(other.socket()).sign(&asked).await, Err(SignError::NoKey)));
}

/// Whether the vault's own reading of it is that the key was touched for this text.
fn verified(signature: &str, text: &str, line: &str) {
    let parsed = SshSignature::parse(signature).unwrap();
    assert_eq!(*parsed.key(), SecurityKey::parse_line(line).unwrap().0);
    assert!(parsed.verify(text.as_bytes(), false).is_ok());
    assert!(parsed.verify(b"another text", false).is_err());
}

/// The same in the eyes of OpenSSH, and the other way round: where it is there.
async fn by_ssh_keygen(
    dir: &Path,
    name: &str,
    line: &str,
    agent: &Path,
    asked: &vault_client::second_factor::Challenge,
    signature: &str,
) {
    if !is_there("ssh-keygen") {
        return;
    }
    let file = |what: &str, text: &str| {
        let path = dir.join(format!("{name}.{what}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let (sig, allowed) = (file("sig", signature), file("allowed", &format!("approver {line}\n")));
    let text = std::fs::File::open(file("text", asked.text())).unwrap();
    let judged = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-I", "approver", "-n", NAMESPACE, "-f"])
        .arg(allowed)
        .arg("-s")
        .arg(sig)
        .stdin(text)
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    let public = file("pub", &format!("{line}\n"));
    let made = SshKeygen::new(public).agent(agent).sign(asked).await.unwrap();
    verified(made.signature(), asked.text(), line);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_file_and_rows_outlive_the_process() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    site.add_second_admin("admin2");
    let (listed, enrolled) = (Authenticator::ed25519(1), Authenticator::ed25519(2));
    site.edit("principals.toml", |text| {
        let key = format!("security_keys = [\"{}\"]", listed.line("first"));
        let at = text.find("id = \"admin\"").unwrap();
        let end = at + text[at..].find('\n').unwrap();
        format!("{}\n{key}{}", &text[..end], &text[end..])
    });
    let vault = site.serve();
    let admin = client(&vault, "admin");
    let note = Note::default();
    enroll(&vault, "oncall", &enrolled.line("second")).await;
    let oncall = client(&vault, "oncall");
    let known = oncall.who_am_i().await.unwrap().principal.security_keys.remove(0);
    assert_eq!((known.label.as_str(), known.enrolled_by.as_str()), ("second", "admin"));
    let taken = admin.enroll_security_key("oncall", &listed.line(""), &note).await.unwrap_err();
    assert_eq!(taken.reason(), vault_client::Reason::Taken);
    let asked = admin.begin_second_factor(SecondFactorAction::GrantApprove, [1; 32]).await.unwrap();
    assert_eq!(asked.public_keys(), [listed.line("first")]);
    vault.kill();

    let store = site.open_store().await;
    let rows = async |kind| store.entities(&EntityScope::Kind(kind), None, 10).await.unwrap().len();
    assert_eq!(rows(EntityKind::SecurityKey).await, 1);
    assert_eq!(rows(EntityKind::Challenge).await, 1);
    assert_eq!(rows(EntityKind::Proposal).await, 0);
    store.close().await.unwrap();
    let vault = site.serve();
    let oncall = client(&vault, "oncall");
    let asked = oncall.begin_second_factor(SecondFactorAction::KeyConfirm, [1; 32]).await.unwrap();
    assert_eq!(asked.public_keys(), [enrolled.line("second")]);
    oncall.revoke_security_key("oncall", &known.fingerprint, &note).await.unwrap();
    let none = oncall.begin_second_factor(SecondFactorAction::GrantRequest, [1; 32]).await.unwrap_err();
    assert_eq!(none.reason(), vault_client::Reason::SecondFactor);
}
