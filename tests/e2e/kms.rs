//! The vault with its keys in a KMS: one that speaks AWS's protocol and is not ours, and one that fails on demand.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tonic::Code;
use vault_proto::v1;
use vault_tests::canary::Canaries;
use vault_tests::data;
use vault_tests::fake_kms::{FakeKms, Fault, Options};
use vault_tests::moto::Moto;
use vault_tests::process::{DevVault, binary};
use vault_tests::site::Site;
use vault_tests::wire::{Wire, detokenize, item, token, value};

/// What a call may take when the KMS is down: its retries, the client's, and a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// PHI of the project's own CSV.
fn canaries() -> Canaries {
    let text = fs::read_to_string(data::own("patients.csv")).unwrap();
    let canaries = Canaries::new(data::columns(&text, &["SSN", "PASSPORT", "ADDRESS"]));
    assert!(!canaries.is_empty());
    canaries
}

/// A file goes in, masks are shown, the file comes back, the log verifies.
fn main_job(vault: &DevVault, dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let (input, tokenized, restored) =
        (data::own("patients.csv"), path("tokenized.csv"), path("restored.csv"));
    let mut args = vec!["import".to_owned(), input.display().to_string()];
    for map in
        ["SSN=ssn", "DRIVERS=license", "PASSPORT=passport", "FIRST=name", "LAST=name", "ADDRESS=address"]
    {
        args.extend(["--map".to_owned(), map.to_owned()]);
    }
    args.extend(["--subject", "ID", "--out", &tokenized].map(str::to_owned));
    vault.ctl("service", &args).ok();
    let text = fs::read_to_string(&tokenized).unwrap();
    assert_eq!(canaries().scan("tokenized file", text.as_bytes()), []);
    let token = text.split(',').find(|cell| cell.starts_with("phi_dev_")).unwrap();
    let mask = vault.ctl("console", &["mask", token]).ok();
    assert!(mask.line().starts_with("***-**-"), "{}", mask.stdout);
    vault.ctl("service", &["export", &tokenized, "--purpose", "TREAT", "--out", &restored]).ok();
    assert!(fs::read(&restored).unwrap() == fs::read(&input).unwrap(), "the export is not the original");
    let (log, key) = (path("log"), path("log.vkey"));
    vault.ctl("auditor", &["audit", "export", "--dir", &log, "--key-out", &key]).ok();
    vault.ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key]).ok();
}

/// A site whose keys are in KMSs of our own: one for each region.
pub(crate) async fn site_with(dir: &TempDir, regions: &[&str]) -> (Site, Vec<FakeKms>) {
    let site = tokio::task::block_in_place(|| Site::make(&dir.path().join("vault")));
    let (mut all, mut keys) = (Vec::new(), Vec::new());
    for region in regions {
        let options = Options { region: Some((*region).to_owned()), ..Options::default() };
        let kms = FakeKms::start_with(options).await.unwrap();
        keys.push((kms.create_key().unwrap(), kms.endpoint()));
        all.push(kms);
    }
    site.use_kms(&keys);
    (site, all)
}

/// Decrypts that were asked for, of keys of one purpose.
fn decrypts(kms: &FakeKms, purpose: &str) -> usize {
    let of = |request: &&vault_tests::fake_kms::Request| {
        request.operation == "Decrypt"
            && request.body["EncryptionContext"]["phi-vault:purpose"].as_str() == Some(purpose)
    };
    kms.requests().iter().filter(of).count()
}

#[test]
fn the_main_job_runs_on_an_aws_kms_that_is_not_ours() {
    let Some(moto) = Moto::start() else { return };
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arn = runtime.block_on(create_key(&moto));
    site.use_kms(&[(arn, moto.endpoint())]);
    let vault = site.serve();
    main_job(&vault, dir.path());
    assert_eq!(vault.stop(), Some(0));
    // Its keys open again.
    let vault = site.serve();
    let text = fs::read_to_string(dir.path().join("tokenized.csv")).unwrap();
    let token = text.split(',').find(|cell| cell.starts_with("phi_dev_")).unwrap();
    vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ok();
}

pub(crate) async fn create_key(moto: &Moto) -> String {
    use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
    use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new("us-east-1"))
        .endpoint_url(moto.endpoint())
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "tests"))
        .build();
    let made = aws_sdk_kms::Client::from_conf(config).create_key().send().await.unwrap();
    made.key_metadata.unwrap().arn.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_requests_hold_no_phi_and_name_key_and_context() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1", "eu-west-1"]).await;
    let vault = site.serve();
    main_job(&vault, dir.path());
    vault.stop();
    let vault = site.serve();
    let text = fs::read_to_string(dir.path().join("tokenized.csv")).unwrap();
    let token = text.split(',').find(|cell| cell.starts_with("phi_dev_")).unwrap();
    vault.ctl("service", &["detokenize", token, "--purpose", "TREAT"]).ok();
    let canaries = canaries();
    for (kms, region) in kms.iter().zip(["us-east-1", "eu-west-1"]) {
        let requests = kms.requests();
        assert!(decrypts(kms, "data") >= 1, "{region}: nothing was opened");
        for request in &requests {
            assert_eq!(canaries.scan("a KMS request", request.text.as_bytes()), []);
            let key = request.body["KeyId"].as_str().unwrap_or_default();
            assert!(key.starts_with(&format!("arn:aws:kms:{region}:")), "{} of {key:?}", request.operation);
            if request.operation == "DescribeKey" {
                continue;
            }
            let context = request.body["EncryptionContext"].as_object().unwrap();
            let mut names: Vec<&str> = context.keys().map(String::as_str).collect();
            names.sort_unstable();
            let wanted = ["environment", "key", "purpose", "tenant", "vault"];
            assert_eq!(names, wanted.map(|name| format!("phi-vault:{name}")), "{}", request.operation);
            assert_eq!(context["phi-vault:environment"], "dev");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_region_opens_what_the_first_can_not() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1", "eu-west-1"]).await;
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    vault.stop();
    kms[0].set_down(Some(Fault::Reset));
    kms[1].clear_requests();
    let vault = site.serve();
    let value = vault.ctl("service", &["detokenize", token.line(), "--purpose", "TREAT"]).ok();
    assert_eq!(value.line(), "999-31-4101");
    assert!(decrypts(&kms[1], "data") >= 1, "the second region was not asked");
    // A new tenant's key would have only one wrap: it is not made.
    site.provision("service", "\"demo\" = [\"service\"]\n\"fresh\" = [\"service\"]");
    refused_for_the_new_tenant(&vault);
}

/// Waits until the new tenant is known, then its first tokenize must fail for the KMS.
fn refused_for_the_new_tenant(vault: &DevVault) {
    let until = Instant::now() + SOON;
    loop {
        let args = ["--tenant", "fresh", "tokenize", "--class", "ssn"];
        let ran = vault.ctl("service", &args).stdin("999-31-4102").run();
        if ran.code == Some(4) {
            assert_eq!(ran.stdout, "");
            return;
        }
        assert!(ran.code == Some(3) && Instant::now() < until, "{:?} {}", ran.code, ran.stderr);
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_keys_serve_while_the_kms_is_down_and_cold_ones_fail_fast_until_it_is_back() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    site.provision("service", "\"demo\" = [\"service\"]\n\"fresh\" = [\"service\"]");
    let vault = site.serve();
    let tokenize = ["--tenant", "demo", "tokenize", "--class", "ssn"];
    let token = vault.ctl("service", &tokenize).stdin("999-31-4101").ok();
    let open = ["--tenant", "demo", "detokenize", token.line(), "--purpose", "TREAT"];
    vault.ctl("service", &open).ok();

    kms[0].set_down(Some(Fault::Hang));
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
    vault.ctl("service", &tokenize).stdin("999-31-4103").ok();

    // A tenant without a key gets none, and nothing is half-done.
    let begin = Instant::now();
    refused_for_the_new_tenant(&vault);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    let mut auditor = Wire::connect(&vault, "auditor").await;
    let allowed = auditor.entries("tokenize").await;
    assert!(
        allowed
            .iter()
            .all(|entry| entry.tenant != "fresh" || entry.decision() == v1::audit_entry::Decision::Deny)
    );
    let made = auditor.entries("key_create").await;
    assert!(!made.is_empty() && made.iter().all(|entry| entry.tenant != "fresh"), "a key without its KMS");

    // Cold keys: of a server that was started while the KMS answered, and that went before the first use.
    vault.stop();
    kms[0].set_down(None);
    let vault = site.serve();
    kms[0].set_down(Some(Fault::Hang));
    let begin = Instant::now();
    let ran = vault.ctl("service", &open).ends(4);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(ran.stdout.is_empty() && ran.stderr.contains("KMS"), "{}", ran.stderr);
    let mut service = Wire::connect(&vault, "service").await;
    let request = detokenize("demo", &[token.line().to_owned()]);
    let answer = service.vault.detokenize(request).await.unwrap().into_inner();
    let error = value(answer.results[0].clone()).unwrap_err();
    assert_eq!((error.code, error.reason()), (Code::Unavailable as i32, v1::Reason::KmsUnavailable));
    assert!(error.retry_after_ms > 0);

    kms[0].set_down(None);
    let until = Instant::now() + SOON;
    while vault.ctl("service", &open).run().code != Some(0) {
        assert!(Instant::now() < until, "it does not recover");
    }
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
    let args = ["--tenant", "fresh", "tokenize", "--class", "ssn"];
    vault.ctl("service", &args).stdin("999-31-4102").ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_kms_ends_soon_and_says_why() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    vault.stop();
    kms[0].set_down(Some(Fault::Hang));
    let begin = Instant::now();
    let ran = std::process::Command::new(binary("vault-server"))
        .args(["serve", "--config"])
        .arg(site.dir().join("vault.toml"))
        .envs([("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")])
        .output()
        .unwrap();
    assert!(!ran.status.success() && begin.elapsed() < SOON, "{} {:?}", ran.status, begin.elapsed());
    let says = String::from_utf8_lossy(&ran.stderr);
    assert!(says.contains("KMS"), "{says}");
    kms[0].set_down(None);
    let vault = site.serve();
    vault.ctl("service", &["detokenize", token.line(), "--purpose", "TREAT"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_readers_of_one_cold_key_make_one_kms_call() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    site.edit("vault.toml", |text| format!("{text}\n[limits]\nmax_requests = 2000\n"));
    let vault = site.serve();
    let tokens = Wire::connect(&vault, "service").await.tokens("ssn", &["999-31-4101"]).await;
    vault.stop();
    let vault = site.serve();
    kms[0].clear_requests();
    // So that all of them come while it is asked.
    kms[0].set_down(Some(Fault::Delay(Duration::from_millis(700))));
    let mut calls = Vec::new();
    for _ in 0..10 {
        let wire = Wire::connect(&vault, "service").await;
        for _ in 0..100 {
            let (mut wire, tokens) = (wire.clone(), tokens.clone());
            calls.push(tokio::spawn(async move { wire.values("", &tokens).await }));
        }
    }
    for call in calls {
        assert!(call.await.unwrap()[0].as_deref().is_ok_and(|value| value == "999-31-4101"));
    }
    assert_eq!(decrypts(&kms[0], "data"), 1);
    assert_eq!(decrypts(&kms[0], "index"), 0, "a detokenize needs no index key");
}

#[test]
fn a_local_root_key_in_prod_needs_the_exact_words() {
    let dir = TempDir::new().unwrap();
    let site = Site::make(&dir.path().join("vault"));
    site.edit("vault.toml", |text| text.replace("environment = \"dev\"", "environment = \"prod\""));
    for words in ["", "local_in_prod = \"yes\"\n"] {
        site.edit("vault.toml", |text| {
            let kept = text.lines().filter(|line| !line.starts_with("local_in_prod"));
            format!("{}\n{words}# tried\n", kept.collect::<Vec<_>>().join("\n"))
        });
        let ran = std::process::Command::new(binary("vault-server"))
            .args(["serve", "--config"])
            .arg(site.dir().join("vault.toml"))
            .output()
            .unwrap();
        let says = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && says.contains("the root key lies on this machine's disk"), "{says}");
        assert!(!site.is_begun(), "it was refused only after it began");
    }
    site.edit("vault.toml", |text| {
        let words = "local_in_prod = \"yes, the root key lies on this machine's disk\"\n";
        text.replace("local_in_prod = \"yes\"\n", words)
    });
    let vault = site.serve();
    assert_eq!(vault.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_that_refuses_its_key_is_told_apart_from_one_that_is_down() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    let vault = site.serve();
    let tokens = Wire::connect(&vault, "service").await.tokens("ssn", &["999-31-4101"]).await;
    vault.stop();
    let vault = site.serve();
    let mut service = Wire::connect(&vault, "service").await;
    kms[0].set_down(Some(Fault::Error("DisabledException")));
    let error = service.values("", &tokens).await.remove(0).unwrap_err();
    assert_eq!((error.code, error.reason()), (Code::FailedPrecondition as i32, v1::Reason::KeyUnusable));
    let request = v1::TokenizeRequest { items: vec![item("ssn", "999-31-4102")], ..Default::default() };
    let status = service.vault.tokenize(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    kms[0].set_down(None);
    let answer = service.vault.tokenize(request).await;
    let until = Instant::now() + SOON;
    let mut answer = answer.ok();
    while answer.is_none() {
        assert!(Instant::now() < until, "it does not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let request = v1::TokenizeRequest { items: vec![item("ssn", "999-31-4102")], ..Default::default() };
        answer = service.vault.tokenize(request).await.ok();
    }
    assert!(token(&answer.unwrap().into_inner().results[0]).is_ok());
}

/// A site with many tenants, each with a value, and none of their keys open.
async fn cold_tenants(dir: &TempDir, count: usize) -> (Site, Vec<FakeKms>, DevVault, Vec<(String, String)>) {
    let (site, kms) = site_with(dir, &["us-east-1"]).await;
    site.edit("vault.toml", |text| format!("{text}\n[limits]\nmax_requests = 12000\n"));
    let tenants: Vec<String> = (0..count).map(|number| format!("tenant-{number}")).collect();
    let roles: Vec<_> = tenants.iter().map(|tenant| format!("\"{tenant}\" = [\"service\"]")).collect();
    site.provision("service", &roles.join("\n"));
    let vault = site.serve();
    let mut kept = Vec::new();
    for tenant in tenants {
        let args = ["--tenant", &tenant, "tokenize", "--class", "ssn"];
        let token = vault.ctl("service", &args).stdin("999-31-4101").ok().line().to_owned();
        kept.push((tenant, token));
    }
    vault.stop();
    let vault = site.serve();
    kms[0].clear_requests();
    (site, kms, vault, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_readers_of_fifty_cold_keys_make_fifty_kms_calls() {
    const READERS: usize = 10_000;
    let dir = TempDir::new().unwrap();
    let (_site, kms, vault, kept) = cold_tenants(&dir, 50).await;
    kms[0].set_down(Some(Fault::Delay(Duration::from_millis(700))));
    let mut calls = Vec::new();
    for number in 0..READERS / 100 {
        let wire = Wire::connect(&vault, "service").await;
        for reader in 0..100 {
            let (mut wire, (tenant, token)) = (wire.clone(), kept[(number + reader) % kept.len()].clone());
            calls.push(tokio::spawn(async move { wire.values(&tenant, &[token]).await }));
        }
    }
    for call in calls {
        assert!(call.await.unwrap()[0].as_deref().is_ok_and(|value| value == "999-31-4101"));
    }
    // One that the KMS seemed not to answer in time, where the machine stood still, is sent again: it is no second reader's.
    let calls = decrypts(&kms[0], "data");
    println!("{calls} calls of the KMS for {READERS} readers of 50 keys");
    assert!((50..60).contains(&calls), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_that_throttles_costs_open_keys_nothing_and_cold_ones_a_bounded_wait() {
    let dir = TempDir::new().unwrap();
    let (_site, kms, vault, kept) = cold_tenants(&dir, 40).await;
    let mut wire = Wire::connect(&vault, "service").await;
    let (warm, cold) = kept.split_at(5);
    for (tenant, token) in warm {
        assert!(wire.values(tenant, std::slice::from_ref(token)).await[0].is_ok());
    }
    kms[0].set_limit(Some(10));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = tokio::spawn({
        let (mut wire, warm, stop) = (wire.clone(), warm.to_vec(), stop.clone());
        async move {
            let mut opened = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                for (tenant, token) in &warm {
                    assert!(wire.values(tenant, std::slice::from_ref(token)).await[0].is_ok());
                    opened += 1;
                }
            }
            opened
        }
    });
    let begin = Instant::now();
    let opening: Vec<_> = cold
        .iter()
        .map(|(tenant, token)| {
            let (mut wire, tenant, token) = (wire.clone(), tenant.clone(), token.clone());
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                loop {
                    let asked = Instant::now();
                    let value = wire.values(&tenant, std::slice::from_ref(&token)).await.swap_remove(0);
                    longest = longest.max(asked.elapsed());
                    match value {
                        Ok(_) => return longest,
                        Err(error) => assert_eq!(error.reason(), v1::Reason::KmsUnavailable),
                    }
                    assert!(begin.elapsed() < SOON * 4, "a cold key is never opened");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for task in opening {
        longest = longest.max(task.await.unwrap());
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let opened = asking.await.unwrap();
    println!(
        "35 cold keys at 10 KMS calls a second took {:?}, the longest answer {longest:?}",
        begin.elapsed()
    );
    assert!(opened > 0 && longest < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_to_another_region_and_the_first_may_go() {
    let dir = TempDir::new().unwrap();
    let (site, mut kms) = site_with(&dir, &["us-east-1"]).await;
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    let open = ["detokenize", token.line(), "--purpose", "TREAT"];
    vault.ctl("rotator", &["keys", "rotate"]).ok();
    vault.stop();

    // Both regions: every key gets its wrap by the second.
    let options = Options { region: Some("eu-west-1".to_owned()), ..Options::default() };
    let west = FakeKms::start_with(options).await.unwrap();
    let (east_key, west_key) = {
        let text = fs::read_to_string(site.dir().join("vault.toml")).unwrap();
        let arn = text.split("arn = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        ((arn, kms[0].endpoint()), (west.create_key().unwrap(), west.endpoint()))
    };
    site.use_kms(&[east_key, west_key.clone()]);
    let vault = site.serve();
    vault.ctl("rotator", &["keys", "rewrap", "--watch"]).ok();
    vault.ctl("admin", &["--tenant", "*", "keys", "rewrap", "--watch"]).ok();
    let listed = vault.ctl("rotator", &["--json", "keys", "list"]).ok();
    assert_eq!(listed.stdout.lines().count(), 3);
    assert!(listed.stdout.lines().all(|line| line.contains(&west_key.0)), "{}", listed.stdout);
    vault.stop();

    // The first region is gone for good, and no wrap by it stays.
    drop(kms.remove(0));
    site.use_kms(std::slice::from_ref(&west_key));
    let vault = site.serve();
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
    vault.ctl("rotator", &["keys", "rewrap", "--watch"]).ok();
    let listed = vault.ctl("rotator", &["--json", "keys", "list"]).ok();
    assert!(!listed.stdout.contains("us-east-1"), "{}", listed.stdout);
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
    vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();

    // A KMS key that refuses: the job says which keys are left, and nothing else changes.
    let refusing = (west_key.0.replace("eu-west-1", "eu-west-2"), west.endpoint());
    vault.stop();
    site.use_kms(&[west_key, refusing]);
    let vault = site.serve();
    let ran = vault.ctl("rotator", &["keys", "rewrap", "--watch"]).run();
    assert_eq!(ran.code, Some(5), "{} {}", ran.stdout, ran.stderr);
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_its_kms_does_not_carry_out_changes_nothing() {
    use vault_tests::fake_kms::KeyStatus;
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1", "eu-west-1"]).await;
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    let list = || vault.ctl("rotator", &["--json", "keys", "list"]).ok().stdout;
    let before = list();
    let arn = fs::read_to_string(site.dir().join("vault.toml")).unwrap();
    let arn = arn.rsplit("arn = \"").next().unwrap().split('"').next().unwrap().to_owned();
    for status in [KeyStatus::Disabled, KeyStatus::PendingDeletion] {
        kms[1].set_status(&arn, status).unwrap();
        let ran = vault.ctl("rotator", &["keys", "rotate"]).run();
        assert!(ran.code != Some(0) && ran.stdout.is_empty(), "{:?} {}", ran.code, ran.stderr);
        assert_eq!(list(), before);
        kms[1].set_status(&arn, KeyStatus::Enabled).unwrap();
    }
    for fault in [Fault::Reset, Fault::Status(500), Fault::Hang] {
        kms[1].set_down(Some(fault));
        vault.ctl("rotator", &["keys", "rotate"]).ends(4);
        assert_eq!(list(), before);
        vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
        kms[1].set_down(None);
    }
    let until = Instant::now() + SOON;
    while vault.ctl("rotator", &["keys", "rotate"]).run().code != Some(0) {
        assert!(Instant::now() < until, "it does not recover");
    }
    assert_eq!(list().lines().count(), before.lines().count() + 1);
    let value = vault.ctl("service", &["detokenize", token.line(), "--purpose", "TREAT"]).ok();
    assert_eq!(value.line(), "999-31-4101");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromise_is_marked_though_no_kms_is_there_to_make_a_new_key() {
    let dir = TempDir::new().unwrap();
    let (site, kms) = site_with(&dir, &["us-east-1"]).await;
    site.provision("approver", "\"demo\" = [\"admin\"]");
    let vault = site.serve();
    let token = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4101").ok();
    let open = ["detokenize", token.line(), "--purpose", "TREAT"];
    vault.ctl("service", &open).ok();
    let listed = vault.ctl("approver", &["--json", "keys", "list"]).ok();
    let active = listed.stdout.lines().find(|line| line.contains("\"data\"")).unwrap();
    let id = active.split("\"key\":\"").nth(1).unwrap()[..32].to_owned();
    kms[0].set_down(Some(Fault::Reset));
    let marked = vault.ctl("approver", &["keys", "revoke", &id, "--yes"]).ends(1);
    assert!(marked.stderr.contains("NO VERSION TOOK ITS PLACE"), "{}", marked.stderr);
    std::thread::sleep(Duration::from_secs(1));
    let ran = vault.ctl("service", &open).ends(1);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ends(1);
    kms[0].set_down(None);
    let until = Instant::now() + SOON;
    while vault.ctl("rotator", &["keys", "rotate"]).run().code != Some(0) {
        assert!(Instant::now() < until, "it does not recover");
    }
    vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin("999-31-4102").ok();
    vault.ctl("rotator", &["keys", "reencrypt", "--watch"]).ok();
    assert_eq!(vault.ctl("service", &open).ok().line(), "999-31-4101");
}
