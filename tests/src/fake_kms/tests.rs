//! The vault's AWS client against this KMS: wire, states, faults, fail-over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use vault_mem::LockedKey;
use vault_server::domain::{Environment, KeyId, KeyPurpose, TenantId, VaultId, VaultIdentity, WrappedKey};
use vault_server::kms::aws::{AwsKms, Limits};
use vault_server::kms::breaker::BreakerOptions;
use vault_server::kms::retry::RetryPolicy;
use vault_server::kms::{KeyContext, Kms, KmsError, WrappingKeys};

use super::*;
use crate::moto::Moto;

fn sdk(endpoint: &str, region: &str) -> aws_sdk_kms::Config {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("AKIDTEST", "secret", None, None, "tests"))
        .build()
}

/// Quick, so that failures do not make tests slow; the breaker stays out of the way.
fn limits() -> Limits {
    Limits {
        retry: RetryPolicy {
            attempts: 3,
            attempt_timeout: Duration::from_millis(300),
            deadline: Duration::from_millis(800),
            base: Duration::from_millis(5),
            cap: Duration::from_millis(20),
        },
        breaker: BreakerOptions { failures: 1000, open_for: Duration::from_mins(1) },
    }
}

fn client(fake: &FakeKms, arn: &str, limits: Limits) -> AwsKms {
    AwsKms::with_config(&sdk(&fake.endpoint(), fake.region()), arn, limits).unwrap()
}

async fn one() -> (FakeKms, String, AwsKms) {
    let fake = FakeKms::start().await.unwrap();
    let arn = fake.create_key().unwrap();
    let kms = client(&fake, &arn, limits());
    (fake, arn, kms)
}

fn context() -> KeyContext {
    KeyContext {
        identity: VaultIdentity {
            vault: VaultId::from_bytes([1; 16]),
            environment: Environment::parse("qa").unwrap(),
        },
        tenant: Some(TenantId::parse("st-mary").unwrap()),
        purpose: KeyPurpose::Data,
        key_id: KeyId::from_bytes([2; 16]),
    }
}

fn same(a: &LockedKey, b: &LockedKey) -> bool {
    a.expose() == b.expose()
}

fn unavailable<T>(answer: &Result<T, KmsError>) -> bool {
    matches!(answer, Err(KmsError::Unavailable { .. }))
}

fn refused<T>(answer: &Result<T, KmsError>, code: &str) -> bool {
    matches!(answer, Err(KmsError::Refused { why, .. }) if why.contains(code))
}

fn invalid<T>(answer: &Result<T, KmsError>) -> bool {
    matches!(answer, Err(KmsError::Invalid { .. }))
}

#[tokio::test]
async fn keys_generated_and_wrapped_by_the_kms_unwrap_to_themselves() {
    let (_fake, arn, kms) = one().await;
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    assert_eq!(wrapped.wrapping_key, arn);
    assert!(same(&kms.unwrap(&wrapped, &context()).await.unwrap(), &key));
    let again = kms.wrap(&key, &context()).await.unwrap();
    assert_ne!(again.ciphertext, wrapped.ciphertext);
    assert!(same(&kms.unwrap(&again, &context()).await.unwrap(), &key));
    kms.probe().await.unwrap();
}

#[tokio::test]
async fn every_call_names_the_key_and_the_whole_context_and_nothing_else() {
    let (fake, arn, kms) = one().await;
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    kms.wrap(&key, &context()).await.unwrap();
    kms.unwrap(&wrapped, &context()).await.unwrap();
    let requests = fake.requests();
    assert_eq!(
        requests.iter().map(|r| r.operation.as_str()).collect::<Vec<_>>(),
        ["GenerateDataKey", "Encrypt", "Decrypt"]
    );
    let expected: BTreeMap<_, _> = context().pairs().into_iter().collect();
    for request in requests {
        assert_eq!(request.body["KeyId"], arn.as_str());
        assert_eq!(request.body["EncryptionContext"], serde_json::json!(expected));
    }
}

#[tokio::test]
async fn unwrap_refuses_another_context_another_key_and_altered_bytes() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let mut other = context();
    other.tenant = Some(TenantId::parse("st-john").unwrap());
    assert!(invalid(&kms.unwrap(&wrapped, &other).await));

    let second = fake.create_key().unwrap();
    let forged = WrappedKey { wrapping_key: second.clone(), ..wrapped.clone() };
    let fake_second = client(&fake, &second, limits());
    assert!(invalid(&fake_second.unwrap(&forged, &context()).await), "IncorrectKeyException");
    assert!(invalid(&fake_second.unwrap(&wrapped, &context()).await), "not even asked");

    for at in [0, 5, 40, 45, 60, wrapped.ciphertext.len() - 1] {
        let mut altered = wrapped.clone();
        altered.ciphertext[at] ^= 1;
        assert!(invalid(&kms.unwrap(&altered, &context()).await), "byte {at}");
    }
    let (before, cut) = (fake.received("Decrypt"), WrappedKey { ciphertext: vec![1], ..wrapped });
    assert!(invalid(&kms.unwrap(&cut, &context()).await));
    assert_eq!(fake.received("Decrypt") - before, 1, "an invalid wrap is not tried again");
}

#[tokio::test]
async fn a_key_that_is_disabled_pending_deletion_or_gone_is_refused_at_once() {
    let (fake, arn, kms) = one().await;
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    for (status, code) in [
        (Some(KeyStatus::Disabled), "DisabledException"),
        (Some(KeyStatus::PendingDeletion), "KMSInvalidStateException"),
        (None, "NotFoundException"),
    ] {
        match status {
            Some(status) => fake.set_status(&arn, status).unwrap(),
            None => fake.delete_key(&arn).unwrap(),
        }
        fake.clear_requests();
        assert!(refused(&kms.unwrap(&wrapped, &context()).await, code), "{code}");
        assert!(refused(&kms.wrap(&key, &context()).await, code), "{code}");
        assert!(refused(&kms.generate(&context()).await, code), "{code}");
        assert_eq!(fake.requests().len(), 3, "none was tried again");
        assert!(kms.probe().await.is_err());
    }
}

#[tokio::test]
async fn rotated_material_still_opens_older_wraps() {
    let (fake, arn, kms) = one().await;
    let (old_key, old) = kms.generate(&context()).await.unwrap();
    fake.rotate(&arn).unwrap();
    let (new_key, new) = kms.generate(&context()).await.unwrap();
    assert!(same(&kms.unwrap(&old, &context()).await.unwrap(), &old_key));
    assert!(same(&kms.unwrap(&new, &context()).await.unwrap(), &new_key));
}

#[tokio::test]
async fn passing_faults_are_overcome_by_trying_again() {
    let (fake, _, kms) = one().await;
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Error("ThrottlingException"),
        Fault::Error("KMSInternalException"),
        Fault::Error("KeyUnavailableException"),
        Fault::Reset,
        Fault::Garbage,
        Fault::Hang,
    ] {
        let before = fake.received("Decrypt");
        fake.script([fault.clone()]);
        assert!(same(&kms.unwrap(&wrapped, &context()).await.unwrap(), &key), "{fault:?}");
        assert!(fake.received("Decrypt") - before >= 2, "{fault:?}");
    }
}

#[tokio::test]
async fn lasting_faults_are_unavailable_within_the_deadline() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for fault in [Fault::Status(500), Fault::Hang, Fault::Reset, Fault::Garbage, Fault::Error("Throttling")] {
        fake.set_down(Some(fault.clone()));
        let (begin, before) = (Instant::now(), fake.received("Decrypt"));
        assert!(unavailable(&kms.unwrap(&wrapped, &context()).await), "{fault:?}");
        assert!(begin.elapsed() < limits().retry.deadline + Duration::from_millis(500), "{fault:?}");
        // A connection that breaks while idle in the pool may be replaced by the HTTP client itself.
        assert!(fake.received("Decrypt") - before <= 6, "{fault:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    for code in ["AccessDeniedException", "UnrecognizedClientException", "SomethingNewException"] {
        let before = fake.received("Decrypt");
        fake.script([Fault::Error(code)]);
        assert!(refused(&kms.unwrap(&wrapped, &context()).await, code));
        assert_eq!(fake.received("Decrypt") - before, 1);
    }
}

#[tokio::test]
async fn calls_over_the_kms_limit_are_unavailable_and_pass_later() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    fake.set_limit(Some(1));
    assert!(kms.unwrap(&wrapped, &context()).await.is_ok());
    assert!(unavailable(&kms.unwrap(&wrapped, &context()).await));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(kms.unwrap(&wrapped, &context()).await.is_ok());
}

#[tokio::test]
async fn after_failures_in_a_row_the_kms_is_left_alone_and_then_tried_again() {
    let (fake, arn, _) = one().await;
    let breaker = BreakerOptions { failures: 3, open_for: Duration::from_millis(300) };
    let kms = client(&fake, &arn, Limits { breaker, ..limits() });
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    fake.set_down(Some(Fault::Status(500)));
    assert!(unavailable(&kms.unwrap(&wrapped, &context()).await));
    fake.clear_requests();
    for _ in 0..10 {
        assert!(unavailable(&kms.unwrap(&wrapped, &context()).await));
    }
    assert_eq!(fake.requests().len(), 0, "left alone");
    fake.set_down(None);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(same(&kms.unwrap(&wrapped, &context()).await.unwrap(), &key));
}

#[tokio::test]
async fn an_answer_for_another_key_or_with_a_key_of_another_length_is_not_used() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    let other = fake.create_key().unwrap();
    for _ in 0..2 {
        fake.script([Fault::KeyId(other.clone())]);
        assert!(refused(&kms.generate(&context()).await, "another key"));
        fake.script([Fault::KeyId(other.clone())]);
        assert!(refused(&kms.unwrap(&wrapped, &context()).await, "another key"));
    }
    for len in [0, 16, 31, 33] {
        fake.script([Fault::PlaintextOf(len)]);
        assert!(kms.generate(&context()).await.is_err(), "{len}");
        fake.script([Fault::PlaintextOf(len)]);
        assert!(invalid(&kms.unwrap(&wrapped, &context()).await), "{len}");
    }
}

#[tokio::test]
async fn errors_hold_nothing_of_an_answer() {
    let (fake, _, kms) = one().await;
    let (_, wrapped) = kms.generate(&context()).await.unwrap();
    fake.set_down(Some(Fault::Garbage));
    let error = kms.unwrap(&wrapped, &context()).await.err().unwrap();
    assert!(!format!("{error} {error:?}").contains("html"));
}

#[tokio::test]
async fn a_second_region_opens_what_the_first_cannot_and_new_keys_need_both() {
    let (east, east_arn, east_kms) = one().await;
    let west = FakeKms::start_with(Options { region: Some("us-west-2".to_owned()), ..Options::default() });
    let west = west.await.unwrap();
    let west_arn = west.create_key().unwrap();
    let keys = WrappingKeys::new(vec![Arc::new(east_kms), Arc::new(client(&west, &west_arn, limits()))]);
    let (key, wraps) = keys.generate(&context()).await.unwrap();
    assert_eq!(wraps.iter().map(|w| &w.wrapping_key).collect::<Vec<_>>(), [&east_arn, &west_arn]);

    for fault in [Fault::Status(500), Fault::Hang, Fault::Reset] {
        east.set_down(Some(fault.clone()));
        assert!(same(&keys.unwrap(&wraps, &context()).await.unwrap(), &key), "{fault:?}");
    }
    assert!(unavailable(&keys.generate(&context()).await), "no key without every wrap");
    east.set_down(None);
    east.set_status(&east_arn, KeyStatus::Disabled).unwrap();
    assert!(same(&keys.unwrap(&wraps, &context()).await.unwrap(), &key));
    west.set_status(&west_arn, KeyStatus::Disabled).unwrap();
    assert!(refused(&keys.unwrap(&wraps, &context()).await, "DisabledException"));
}

#[tokio::test]
async fn a_wrap_is_made_from_another_without_the_key_and_under_its_context_only() {
    let (fake, a, from) = one().await;
    let b = fake.create_key().unwrap();
    let to = client(&fake, &b, limits());
    let (key, wrapped) = from.generate(&context()).await.unwrap();
    fake.clear_requests();
    let made = to.reencrypt(&wrapped, &context()).await.unwrap().unwrap();
    assert_eq!(made.wrapping_key, b);
    let request = fake.requests().remove(0).body;
    assert_eq!(
        (request["SourceKeyId"].as_str(), request["DestinationKeyId"].as_str()),
        (Some(&*a), Some(&*b))
    );
    assert_eq!(request["SourceEncryptionContext"], request["DestinationEncryptionContext"]);
    assert_eq!(request["SourceEncryptionContext"].as_object().unwrap().len(), 5);
    assert!(same(&to.unwrap(&made, &context()).await.unwrap(), &key));
    assert!(invalid(&from.unwrap(&made, &context()).await));
    let mut other = context();
    other.key_id = KeyId::from_bytes([3; 16]);
    assert!(matches!(to.reencrypt(&wrapped, &other).await, Err(KmsError::Invalid { .. })));
    assert!(
        matches!(to.reencrypt(&made, &context()).await, Ok(Some(_))),
        "a wrap of its own is a source, too"
    );
    fake.script([Fault::KeyId(a.clone())]);
    assert!(refused(&to.reencrypt(&wrapped, &context()).await, "another key"));
    fake.deny(&["ReEncrypt"]);
    assert!(refused(&to.reencrypt(&wrapped, &context()).await, "AccessDeniedException"));
    // Another region's endpoint does not know the source: it is not asked.
    fake.clear_requests();
    let elsewhere = WrappedKey {
        wrapping_key: a.replace("us-east-1", "eu-west-1"),
        ciphertext: wrapped.ciphertext.clone(),
    };
    assert!(matches!(to.reencrypt(&elsewhere, &context()).await, Ok(None)));
    assert_eq!(fake.requests().len(), 0);
}

#[tokio::test]
async fn where_encrypt_is_denied_a_rewrap_goes_by_reencrypt_and_the_other_way_round() {
    let (fake, a, _) = one().await;
    let b = fake.create_key().unwrap();
    let ring = |arns: &[&String]| {
        let kms = |arn: &&String| Arc::new(client(&fake, arn, limits())) as Arc<dyn Kms>;
        WrappingKeys::new(arns.iter().map(kms).collect())
    };
    let (key, wraps) = ring(&[&a]).generate(&context()).await.unwrap();
    for (denied, used) in [("Encrypt", "ReEncrypt"), ("ReEncrypt", "Encrypt")] {
        fake.clear_requests();
        fake.deny(&[denied]);
        let both = ring(&[&a, &b]).rewrap(&wraps, &context()).await.unwrap();
        assert_eq!((fake.answered(used), fake.answered(denied)), (1, 0));
        assert!(same(&ring(&[&b]).unwrap(&both, &context()).await.unwrap(), &key));
    }
    fake.deny(&["Encrypt", "ReEncrypt"]);
    assert!(refused(&ring(&[&a, &b]).rewrap(&wraps, &context()).await, "AccessDeniedException"));
}

#[tokio::test]
async fn its_keys_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options { file: Some(dir.path().join("kms.json")), ..Options::default() };
    let fake = FakeKms::start_with(options.clone()).await.unwrap();
    let arn = fake.create_key().unwrap();
    let kms = client(&fake, &arn, limits());
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    options.port = Some(fake.port());
    drop(fake);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(unavailable(&kms.unwrap(&wrapped, &context()).await));
    let _fake = FakeKms::start_with(options).await.unwrap();
    assert!(same(&kms.unwrap(&wrapped, &context()).await.unwrap(), &key));
}

#[tokio::test]
async fn the_client_works_against_an_aws_kms_that_is_not_ours() {
    let Some(moto) = tokio::task::spawn_blocking(Moto::start).await.unwrap() else { return };
    let config = sdk(&moto.endpoint(), "us-east-1");
    let made = aws_sdk_kms::Client::from_conf(config.clone()).create_key().send().await.unwrap();
    let arn = made.key_metadata.unwrap().arn.unwrap();
    let patient = Limits {
        retry: RetryPolicy {
            attempt_timeout: Duration::from_secs(20),
            deadline: Duration::from_mins(1),
            ..RetryPolicy::default()
        },
        ..Limits::default()
    };
    let kms = AwsKms::with_config(&config, &arn, patient).unwrap();
    kms.probe().await.unwrap();
    let (key, wrapped) = kms.generate(&context()).await.unwrap();
    assert!(same(&kms.unwrap(&wrapped, &context()).await.unwrap(), &key));
    let again = kms.wrap(&key, &context()).await.unwrap();
    assert!(same(&kms.unwrap(&again, &context()).await.unwrap(), &key));
    let made = aws_sdk_kms::Client::from_conf(config.clone()).create_key().send().await.unwrap();
    let target = AwsKms::with_config(&config, &made.key_metadata.unwrap().arn.unwrap(), patient).unwrap();
    let moved = target.reencrypt(&wrapped, &context()).await.unwrap().unwrap();
    assert!(same(&target.unwrap(&moved, &context()).await.unwrap(), &key));
    let mut other = context();
    other.key_id = KeyId::from_bytes([3; 16]);
    assert!(invalid(&kms.unwrap(&wrapped, &other).await));
    let mut altered = wrapped;
    *altered.ciphertext.last_mut().unwrap() ^= 1;
    assert!(kms.unwrap(&altered, &context()).await.is_err());
}
