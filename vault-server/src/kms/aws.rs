//! AWS KMS, and what speaks its protocol.
//!
//! * Every call names the key (its full ARN) and the encryption context; `Decrypt` never lets the ciphertext choose.
//!   An alias is refused: it can be moved to another key, and then wraps no longer open.
//! * `ReEncrypt` names both keys, and the same context for both. One call reaches one region: it is not tried from a KMS
//!   key of another one. It needs `kms:ReEncryptFrom` on the source and `kms:ReEncryptTo` on the target, of whichever
//!   account; who may not gets [`KmsError::Refused`], and wraps instead.
//! * Retries are ours ([`RetryPolicy`]); the SDK's are off, so that one deadline bounds the whole call. A
//!   [`Breaker`] counts failed tries.
//! * Plain keys go over this connection: an endpoint without TLS is refused unless it is on the loopback interface.
//! * The SDK's own buffers (the JSON body, the `Blob`) are ordinary memory: short-lived, and overwritten when freed by
//!   the process's wiping allocator.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use vault_mem::LockedKey;
use zeroize::Zeroizing;

use super::breaker::{Breaker, BreakerOptions, Outcome};
use super::retry::RetryPolicy;
use super::{KeyContext, Kms, KmsError};
use crate::domain::WrappedKey;

/// How to reach a key.
#[derive(Debug, Clone)]
pub struct AwsOptions {
    /// The key's full ARN, `arn:aws:kms:<region>:<account>:key/<id>`; it also says the region.
    pub key_arn: String,
    /// Another endpoint than the region's own.
    pub endpoint: Option<String>,
    /// Times and counts.
    pub limits: Limits,
}

/// Times and counts of the calls to one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of one call.
    pub retry: RetryPolicy,
    /// Across calls.
    pub breaker: BreakerOptions,
}

/// What is wrong with the configuration of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsConfigError {
    /// An alias can be moved to another key; wraps would no longer open.
    #[error(
        "KMS key {0:?} is an alias; give the ARN of the key itself (arn:aws:kms:<region>:<account>:key/<id>)"
    )]
    Alias(String),
    /// Not a key's ARN.
    #[error("KMS key {0:?} is not the ARN of a key (arn:aws:kms:<region>:<account>:key/<id>)")]
    NotAnArn(String),
    /// Plain keys would cross the network.
    #[error("KMS endpoint {0:?} must be an https:// URL (http:// only on the loopback interface)")]
    Endpoint(String),
}

/// One AWS KMS key.
pub struct AwsKms {
    client: Client,
    arn: String,
    retry: RetryPolicy,
    breaker: Mutex<Breaker>,
}

impl AwsKms {
    /// With credentials from the standard chain (environment, profile, web identity, container, instance).
    pub async fn connect(options: AwsOptions) -> Result<Self, AwsConfigError> {
        let region = region_of(&options.key_arn)?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(http);
        if let Some(endpoint) = &options.endpoint {
            check_endpoint(endpoint)?;
            loader = loader.endpoint_url(endpoint);
        }
        let shared = loader.load().await;
        Self::with_config(&aws_sdk_kms::Config::new(&shared), &options.key_arn, options.limits)
    }

    /// With a configuration of the SDK's; its retries and timeouts are replaced by `limits`.
    pub fn with_config(
        config: &aws_sdk_kms::Config,
        key_arn: &str,
        limits: Limits,
    ) -> Result<Self, AwsConfigError> {
        region_of(key_arn)?;
        let timeouts = TimeoutConfig::builder().connect_timeout(limits.retry.attempt_timeout).build();
        let config =
            config.to_builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts).build();
        Ok(Self {
            client: Client::from_conf(config),
            arn: key_arn.to_owned(),
            retry: limits.retry,
            breaker: Mutex::new(Breaker::new(limits.breaker)),
        })
    }

    /// Makes a call until it is answered, refused, or out of tries or time.
    async fn call<T, E, F>(&self, send: impl Fn() -> F) -> Result<T, KmsError>
    where
        E: ProvideErrorMetadata,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let mut attempts = self.retry.begin(Instant::now());
        loop {
            if !self.breaker.lock().admit(Instant::now()) {
                return Err(unavailable("left alone after repeated failures"));
            }
            let answer = match timeout(attempts.timeout(Instant::now()), send()).await {
                Ok(answer) => answer.map_err(|error| self.classify(&error)),
                Err(_elapsed) => Err(unavailable("no answer in time")),
            };
            let Err(error @ KmsError::Unavailable { .. }) = answer else {
                self.breaker.lock().record(Outcome::Answered, Instant::now());
                return answer;
            };
            let now = Instant::now();
            self.breaker.lock().record(Outcome::Failed, now);
            // Without randomness the pause is the longest: still correct, only less spread.
            let Some(pause) = attempts.pause(now, getrandom::u32().unwrap_or(u32::MAX)) else {
                return Err(error);
            };
            sleep(pause).await;
        }
    }

    /// The one place where the SDK's errors become ours. Codes and kinds only: an error's message may quote the
    /// request.
    fn classify<E: ProvideErrorMetadata>(&self, error: &SdkError<E>) -> KmsError {
        let service = match error {
            SdkError::ServiceError(service) => service,
            SdkError::TimeoutError(_) => return unavailable("no answer in time"),
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                return unavailable("request could not be sent (endpoint, credentials or TLS)");
            }
            SdkError::DispatchFailure(_) => return unavailable("no connection, or it broke"),
            SdkError::ResponseError(_) => return unavailable("an answer that cannot be read"),
            _ => return unavailable("request could not be made"),
        };
        let status = service.raw().status();
        match service.err().code() {
            // A success that the SDK could not read is an "error" of its: a broken proxy, say.
            _ if status.is_success() => unavailable("an answer that cannot be read"),
            Some("InvalidCiphertextException" | "IncorrectKeyException") => self.invalid(),
            Some(
                code @ ("ThrottlingException"
                | "Throttling"
                | "TooManyRequestsException"
                | "RequestLimitExceeded"
                | "LimitExceededException"
                | "KeyUnavailableException"
                | "DependencyTimeoutException"
                | "KMSInternalException"),
            ) => unavailable(code),
            code if status.is_server_error() || status.as_u16() == 429 => {
                unavailable(&format!("{} (status {})", known(code), status.as_u16()))
            }
            // Disabled, pending deletion, gone, forbidden, bad credentials ...: the operator's to mend.
            code => self.refused(&format!("{} (status {})", known(code), status.as_u16())),
        }
    }

    /// Checks that the answer is about our key.
    fn check_key_id(&self, answered: Option<&str>) -> Result<(), KmsError> {
        if answered == Some(self.arn.as_str()) {
            Ok(())
        } else {
            Err(self.refused("it answered for another key"))
        }
    }

    fn wrapped(&self, ciphertext: Option<Blob>) -> Result<WrappedKey, KmsError> {
        let ciphertext = ciphertext.map(Blob::into_inner).unwrap_or_default();
        if ciphertext.is_empty() {
            return Err(unavailable("an answer without a ciphertext"));
        }
        Ok(WrappedKey { wrapping_key: self.arn.clone(), ciphertext })
    }

    fn invalid(&self) -> KmsError {
        KmsError::Invalid { wrapping_key: self.arn.clone() }
    }

    fn refused(&self, why: &str) -> KmsError {
        KmsError::Refused { wrapping_key: self.arn.clone(), why: why.to_owned() }
    }
}

#[async_trait]
impl Kms for AwsKms {
    fn wrapping_key(&self) -> &str {
        &self.arn
    }

    async fn generate(&self, context: &KeyContext) -> Result<(LockedKey, WrappedKey), KmsError> {
        let request = self
            .client
            .generate_data_key()
            .key_id(&self.arn)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(encryption_context(context)));
        let answer = self.call(|| request.clone().send()).await?;
        let key = locked(answer.plaintext, || unavailable("an answer without a 32-byte key"))?;
        self.check_key_id(answer.key_id.as_deref())?;
        Ok((key, self.wrapped(answer.ciphertext_blob)?))
    }

    async fn wrap(&self, key: &LockedKey, context: &KeyContext) -> Result<WrappedKey, KmsError> {
        let answer = self
            .call(|| {
                self.client
                    .encrypt()
                    .key_id(&self.arn)
                    .set_encryption_context(Some(encryption_context(context)))
                    // Exposed: to the KMS, over TLS; that is what wrapping is.
                    .plaintext(Blob::new(key.expose().to_vec()))
                    .send()
            })
            .await?;
        self.check_key_id(answer.key_id.as_deref())?;
        self.wrapped(answer.ciphertext_blob)
    }

    async fn reencrypt(
        &self,
        source: &WrappedKey,
        context: &KeyContext,
    ) -> Result<Option<WrappedKey>, KmsError> {
        if !is_same_region(&source.wrapping_key, &self.arn) {
            return Ok(None);
        }
        let pairs = encryption_context(context);
        let request = self
            .client
            .re_encrypt()
            .source_key_id(&source.wrapping_key)
            .set_source_encryption_context(Some(pairs.clone()))
            .ciphertext_blob(Blob::new(source.ciphertext.clone()))
            .destination_key_id(&self.arn)
            .set_destination_encryption_context(Some(pairs));
        let answer = self.call(|| request.clone().send()).await?;
        self.check_key_id(answer.key_id.as_deref())?;
        if answer.source_key_id.as_deref() != Some(source.wrapping_key.as_str()) {
            return Err(self.refused("it answered for another source"));
        }
        self.wrapped(answer.ciphertext_blob).map(Some)
    }

    async fn unwrap(&self, wrapped: &WrappedKey, context: &KeyContext) -> Result<LockedKey, KmsError> {
        if wrapped.wrapping_key != self.arn {
            return Err(self.invalid());
        }
        let request = self
            .client
            .decrypt()
            .key_id(&self.arn)
            .set_encryption_context(Some(encryption_context(context)))
            .ciphertext_blob(Blob::new(wrapped.ciphertext.clone()));
        let answer = self.call(|| request.clone().send()).await?;
        let key = locked(answer.plaintext, || self.invalid())?;
        self.check_key_id(answer.key_id.as_deref())?;
        Ok(key)
    }

    async fn probe(&self) -> Result<(), KmsError> {
        let request = self.client.describe_key().key_id(&self.arn);
        let answer = self.call(|| request.clone().send()).await?;
        match answer.key_metadata {
            Some(key) if key.enabled => Ok(()),
            Some(_) => Err(self.refused("the key is not enabled")),
            None => Err(unavailable("an answer without the key's state")),
        }
    }
}

fn encryption_context(context: &KeyContext) -> HashMap<String, String> {
    context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Takes a plain key over into locked memory and wipes where it came in.
fn locked(plain: Option<Blob>, wrong: impl Fn() -> KmsError) -> Result<LockedKey, KmsError> {
    let plain = Zeroizing::new(plain.map(Blob::into_inner).unwrap_or_default());
    LockedKey::fill(|key| {
        if plain.len() != key.len() {
            return Err(wrong());
        }
        key.copy_from_slice(&plain);
        Ok(())
    })
}

fn unavailable(why: &str) -> KmsError {
    KmsError::Unavailable { why: why.to_owned() }
}

/// An error code as it may be shown: what a broken server put there is not.
fn known(code: Option<&str>) -> &str {
    match code {
        Some(code) if code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()) => code,
        _ => "an error without a code",
    }
}

/// The region in a key's ARN: `arn:<partition>:kms:<region>:<account>:key/<id>`.
fn region_of(arn: &str) -> Result<&str, AwsConfigError> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        _ if arn.starts_with("alias/") || parts.last().is_some_and(|p| p.starts_with("alias/")) => {
            Err(AwsConfigError::Alias(arn.to_owned()))
        }
        ["arn", partition, "kms", region, account, key]
            if !partition.is_empty()
                && !region.is_empty()
                && !account.is_empty()
                && key.strip_prefix("key/").is_some_and(|id| !id.is_empty()) =>
        {
            Ok(region)
        }
        _ => Err(AwsConfigError::NotAnArn(arn.to_owned())),
    }
}

/// Whether one endpoint knows both: keys of one partition and region. `false` for what is not a key of AWS KMS.
fn is_same_region(one: &str, other: &str) -> bool {
    let place = |arn: &str| {
        let region = region_of(arn).ok()?.to_owned();
        Some((arn.split(':').nth(1)?.to_owned(), region))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

fn check_endpoint(endpoint: &str) -> Result<(), AwsConfigError> {
    let wrong = || AwsConfigError::Endpoint(endpoint.to_owned());
    let uri: http::Uri = endpoint.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_arn_of_a_key_names_a_key() {
        assert_eq!(region_of("arn:aws:kms:us-east-1:111122223333:key/mrk-1a2b"), Ok("us-east-1"));
        for alias in ["alias/vault", "arn:aws:kms:us-east-1:111122223333:alias/vault"] {
            assert_eq!(region_of(alias), Err(AwsConfigError::Alias(alias.to_owned())));
        }
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:us-east-1:111122223333:key/",
            "arn:aws:s3:us-east-1:111122223333:key/1",
            "arn:aws:kms:us-east-1:111122223333:key/1:x",
        ] {
            assert_eq!(region_of(bad), Err(AwsConfigError::NotAnArn(bad.to_owned())));
        }
    }

    #[test]
    fn only_keys_of_one_partition_and_region_are_reached_by_one_call() {
        let east = "arn:aws:kms:us-east-1:111122223333:key/1";
        assert!(is_same_region(east, "arn:aws:kms:us-east-1:444455556666:key/2"));
        for other in [
            "arn:aws:kms:us-east-2:111122223333:key/2",
            "arn:aws-cn:kms:us-east-1:111122223333:key/2",
            "local:00112233445566778899aabbccddeeff",
            "",
        ] {
            assert!(!is_same_region(east, other) && !is_same_region(other, east), "{other}");
        }
        assert!(!is_same_region("local:a", "local:a"));
    }

    #[test]
    fn an_endpoint_without_tls_must_be_on_the_loopback_interface() {
        for good in
            ["https://kms.example.org", "http://127.0.0.1:5000", "http://localhost:1", "http://[::1]:5000"]
        {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "http://kms.example.org",
            "http://127.0.0.1.example.org",
            "http://10.0.0.1:5000",
            "ftp://127.0.0.1",
            "127.0.0.1:5000",
            "",
        ] {
            assert_eq!(check_endpoint(bad), Err(AwsConfigError::Endpoint(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn an_error_code_is_shown_only_if_it_looks_like_one() {
        assert_eq!(known(Some("DisabledException")), "DisabledException");
        for bad in [
            None,
            Some("a b"),
            Some(
                "
",
            ),
            Some("x".repeat(65).as_str()),
        ] {
            assert_eq!(known(bad), "an error without a code");
        }
    }

    #[test]
    fn a_plain_key_of_another_length_is_refused() {
        for len in [0, 16, 31, 33, 64] {
            let answer = locked(Some(Blob::new(vec![1; len])), || unavailable("x"));
            assert!(matches!(answer, Err(KmsError::Unavailable { .. })), "{len}");
        }
        assert!(locked(None, || unavailable("x")).is_err());
    }
}
