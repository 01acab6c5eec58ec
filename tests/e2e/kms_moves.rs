//! Which KMS keys wrap whose keys, and how that changes: tenants that stay in their regions, keys that move to another KMS
//! key, instances that are not configured alike.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use vault_tests::fake_kms::{FakeKms, Fault};
use vault_tests::moto::Moto;
use vault_tests::process::{DevVault, binary};
use vault_tests::site::Site;

use crate::kms::{SOON, create_key, site_with};

const VALUE: &str = "999-31-4101";

/// ARN and endpoint of each KMS key in a configuration, in its order.
fn configured(site: &Site) -> Vec<(String, String)> {
    let text = fs::read_to_string(site.dir().join("vault.toml")).unwrap();
    let quoted = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).map(quoted).collect::<Vec<_>>();
    of("arn").into_iter().zip(of("endpoint")).collect()
}

/// Requests about a tenant's keys.
fn about(kms: &FakeKms, tenant: &str) -> usize {
    let names = ["EncryptionContext", "SourceEncryptionContext", "DestinationEncryptionContext"];
    let is = |body: &Value| names.iter().any(|name| body[*name]["phi-vault:tenant"].as_str() == Some(tenant));
    kms.requests().iter().filter(|request| is(&request.body)).count()
}

/// The versions of a tenant's keys.
fn keys(vault: &DevVault, identity: &str, tenant: &str) -> Vec<Value> {
    let listed = vault.ctl(identity, &["--tenant", tenant, "--json", "keys", "list"]).ok();
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Names of the KMS keys that wrap each of them.
fn wraps(keys: &[Value], field: &str) -> Vec<Vec<String>> {
    keys.iter().map(|key| serde_json::from_value(key[field].clone()).unwrap()).collect()
}

fn rewrap(vault: &DevVault) {
    vault.ctl("rotator", &["keys", "rewrap", "--watch"]).ok();
    vault.ctl("admin", &["--tenant", "*", "keys", "rewrap", "--watch"]).ok();
}

fn tokenize(vault: &DevVault, tenant: &str) -> String {
    let args = ["--tenant", tenant, "tokenize", "--class", "ssn"];
    vault.ctl("service", &args).stdin(VALUE).ok().line().to_owned()
}

fn opens(vault: &DevVault, tenant: &str, token: &str) {
    let args = ["--tenant", tenant, "detokenize", token, "--purpose", "TREAT"];
    assert_eq!(vault.ctl("service", &args).ok().line(), VALUE);
}

fn pin(site: &Site, tenant: &str, arn: &str) {
    site.edit("vault.toml", |text| {
        format!("{text}\n[[kms.residency]]\ntenant = \"{tenant}\"\nkeys = [\"{arn}\"]\n")
    });
}

/// A server that must not start; what it says.
fn refused(site: &Site) -> String {
    let mut command = std::process::Command::new(binary("vault-server"));
    let ran = command.args(["serve", "--config"]).arg(site.dir().join("vault.toml")).output().unwrap();
    assert!(!ran.status.success());
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pinned_tenants_keys_no_other_region_is_asked_anything() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1", "eu-west-1"]).await;
    site.provision("service", "\"demo\" = [\"service\"]\n\"fresh\" = [\"service\"]");
    let arns: Vec<String> = configured(&site).into_iter().map(|(arn, _)| arn).collect();
    let (east, west) = (&kms[0], &kms[1]);
    let vault = site.serve();
    let token = tokenize(&vault, "demo");
    assert!(about(east, "demo") > 0, "the test does not see what is asked");
    assert!(wraps(&keys(&vault, "rotator", "demo"), "wrapped_by").iter().all(|names| *names == arns));
    vault.stop();

    // One with keys that both wrapped, and one without any.
    pin(&site, "demo", &arns[1]);
    pin(&site, "fresh", &arns[1]);
    for kms in &kms {
        kms.clear_requests();
    }
    let vault = site.serve();
    let strays = wraps(&keys(&vault, "rotator", "demo"), "stray_wraps");
    assert!(strays.len() == 2 && strays.iter().all(|names| *names == arns[..1]), "{strays:?}");
    let shown = vault.ctl("rotator", &["keys", "list"]).ok();
    assert_eq!(shown.stdout.matches(&format!("!{}", arns[0])).count(), 2, "{}", shown.stdout);
    opens(&vault, "demo", &token);
    let fresh = tokenize(&vault, "fresh");
    vault.ctl("rotator", &["keys", "rotate"]).ok();
    rewrap(&vault);
    let after = keys(&vault, "rotator", "demo");
    assert_eq!(wraps(&after, "wrapped_by"), vec![arns[1..].to_vec(); 3]);
    assert_eq!(wraps(&after, "stray_wraps"), vec![Vec::<String>::new(); 3]);
    assert_eq!(
        wraps(&keys(&vault, "admin", "*"), "wrapped_by"),
        vec![arns; 2],
        "the vault's own are not pinned"
    );
    vault.stop();

    // All of its regions are down: it waits for them, and the other one is not asked.
    west.set_down(Some(Fault::Reset));
    let vault = site.serve();
    for (tenant, token) in [("demo", &token), ("fresh", &fresh)] {
        let args = ["--tenant", tenant, "detokenize", token, "--purpose", "TREAT"];
        assert_eq!(vault.ctl("service", &args).ends(4).stdout, "");
        vault.ctl("service", &["--tenant", tenant, "tokenize", "--class", "ssn"]).stdin(VALUE).ends(4);
    }
    west.set_down(None);
    let until = Instant::now() + SOON;
    let open = ["--tenant", "fresh", "detokenize", &fresh, "--purpose", "TREAT"];
    while vault.ctl("service", &open).run().code != Some(0) {
        assert!(Instant::now() < until, "it does not recover");
    }
    opens(&vault, "demo", &token);
    assert_eq!((about(east, "demo"), about(east, "fresh")), (0, 0));
    assert!(about(east, "-") > 0 && about(west, "fresh") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_residency_that_can_not_be_kept_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let (site, _kms) = site_with(&dir, &["us-east-1"]).await;
    let arn = configured(&site).remove(0).0;
    pin(&site, "demo", &arn.replace("us-east-1", "eu-west-1"));
    let says = refused(&site);
    assert!(says.contains("kms.residency.keys: demo is pinned to arn:aws:kms:eu-west-1:"), "{says}");
    site.edit("vault.toml", |text| text.replace("eu-west-1", "us-east-1"));
    pin(&site, "demo", &arn);
    let says = refused(&site);
    assert!(says.contains("kms.residency.tenant: demo is there twice"), "{says}");
    assert!(!site.is_begun());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_by_reencrypt_where_the_kms_lets_nobody_encrypt_and_by_the_key_where_it_must() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    let vault = site.serve();
    let token = tokenize(&vault, "demo");
    vault.ctl("rotator", &["keys", "rotate"]).ok();
    vault.stop();
    let a = configured(&site).remove(0);
    let [b, c] = [(); 2].map(|()| (kms[0].create_key().unwrap(), kms[0].endpoint()));
    let mut last = a;
    for (next, denied, used) in [(&b, "Encrypt", "ReEncrypt"), (&c, "ReEncrypt", "Encrypt")] {
        site.use_kms(&[last.clone(), next.clone()]);
        kms[0].clear_requests();
        kms[0].deny(&[denied]);
        let vault = site.serve();
        rewrap(&vault);
        assert_eq!((kms[0].answered(used), kms[0].answered(denied)), (5, 0), "{used}");
        assert!(
            wraps(&keys(&vault, "rotator", "demo"), "wrapped_by").iter().all(|names| names.contains(&next.0))
        );
        vault.stop();
        kms[0].deny(&[]);
        site.use_kms(std::slice::from_ref(next));
        let vault = site.serve();
        rewrap(&vault);
        opens(&vault, "demo", &token);
        vault.stop();
        kms[0].delete_key(&last.0).unwrap();
        last = next.clone();
    }
    let vault = site.serve();
    opens(&vault, "demo", &token);
    let there = keys(&vault, "rotator", "demo");
    assert_eq!(wraps(&there, "wrapped_by"), vec![vec![c.0]; 3]);
}

#[test]
fn keys_move_to_another_key_of_a_kms_that_is_not_ours() {
    let Some(moto) = Moto::start() else { return };
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [a, b] = [(); 2].map(|()| (runtime.block_on(create_key(&moto)), moto.endpoint()));
    site.use_kms(std::slice::from_ref(&a));
    let vault = site.serve();
    let token = tokenize(&vault, "demo");
    vault.ctl("rotator", &["keys", "rotate"]).ok();
    vault.stop();

    site.use_kms(&[a.clone(), b.clone()]);
    let vault = site.serve();
    rewrap(&vault);
    let both = vec![a.0.clone(), b.0.clone()];
    assert_eq!(wraps(&keys(&vault, "rotator", "demo"), "wrapped_by"), vec![both.clone(); 3]);
    assert_eq!(wraps(&keys(&vault, "admin", "*"), "wrapped_by"), vec![both; 2]);
    assert!(!vault.log().contains("did not re-encrypt"), "moto takes ReEncrypt");
    vault.stop();

    site.use_kms(std::slice::from_ref(&b));
    let vault = site.serve();
    opens(&vault, "demo", &token);
    assert!(
        wraps(&keys(&vault, "rotator", "demo"), "stray_wraps").iter().all(|names| *names == [a.0.clone()])
    );
    rewrap(&vault);
    let only = vec![b.0.clone()];
    assert_eq!(wraps(&keys(&vault, "rotator", "demo"), "wrapped_by"), vec![only.clone(); 3]);
    assert_eq!(wraps(&keys(&vault, "admin", "*"), "wrapped_by"), vec![only; 2]);
    vault.stop();

    // A is of no use any more, and a vault that knows only A does not start.
    site.use_kms(std::slice::from_ref(&a));
    let mut command = std::process::Command::new(binary("vault-server"));
    command.envs([("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    let ran = command.args(["serve", "--config"]).arg(site.dir().join("vault.toml")).output().unwrap();
    assert!(
        !ran.status.success()
            && String::from_utf8_lossy(&ran.stderr).contains("the key of the seals of rows")
    );
    site.use_kms(std::slice::from_ref(&b));
    let vault = site.serve();
    opens(&vault, "demo", &token);
    let other = tokenize(&vault, "demo");
    opens(&vault, "demo", &other);
}

/// Asks for a re-wrap, which must fail because instances are not configured alike.
fn rewrap_fails(vault: &DevVault) {
    let ran = vault.ctl("rotator", &["keys", "rewrap", "--watch"]).run();
    assert_eq!(ran.code, Some(5), "{} {}", ran.stdout, ran.stderr);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("kms_keys_differ"), "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_rewraps_while_instances_have_different_kms_keys() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    if site.database().is_none() {
        println!("skipped: an embedded store has one instance");
        return;
    }
    site.edit("vault.toml", |text| text + "\n[jobs]\npoll = \"200ms\"\nlease = \"1s\"\n");
    let a = configured(&site).remove(0);
    let b = (kms[0].create_key().unwrap(), kms[0].endpoint());
    let old_config = site.dir().join("old.toml");
    fs::copy(site.dir().join("vault.toml"), &old_config).unwrap();
    site.use_kms(&[a.clone(), b.clone()]);
    site.edit("vault.toml", |text| text + "\n[jobs]\npoll = \"200ms\"\nlease = \"1s\"\n");
    let (only_a, both) = (vec![vec![a.0.clone()]; 2], vec![vec![a.0, b.0]; 2]);
    let there = |vault: &DevVault| wraps(&keys(vault, "rotator", "demo"), "wrapped_by");

    let old = site.serve_beside(&old_config, "old-profile.toml");
    let token = tokenize(&old, "demo");
    let new = site.serve();
    rewrap_fails(&new);
    rewrap_fails(&old);
    assert_eq!(there(&new), only_a);
    old.stop();
    rewrap(&new);
    assert_eq!(there(&new), both);

    // One that was forgotten comes back: what it is asked it does not do, either.
    let old = site.serve_beside(&old_config, "old-profile.toml");
    rewrap_fails(&old);
    assert_eq!(there(&new), both);
    // And what the new one was asked it does not do in its place, when that is gone.
    new.ctl("rotator", &["keys", "rewrap"]).ok();
    new.kill();
    let until = Instant::now() + SOON * 2;
    let state = || {
        let listed = old.ctl("rotator", &["--json", "jobs", "list"]).ok();
        let jobs = listed.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        jobs.filter(|job| job["kind"] == "rewrap").map(|job| job["state"].clone()).next().unwrap()
    };
    while state() == "running" {
        assert!(Instant::now() < until, "the job hangs");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!((state(), there(&old)), (Value::from("failed"), both));
    opens(&old, "demo", &token);
}
