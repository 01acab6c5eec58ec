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
const SOON: Duration = Duration::from_secs(30);

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
async fn site_with(dir: &TempDir, regions: &[&str]) -> (Site, Vec<FakeKms>) {
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

async fn create_key(moto: &Moto) -> String {
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
