//! Several KMS keys, as a rule in several regions, that each wrap every key of the vault.
//!
//! * A new key is wrapped by all of them, or it is not made: a region whose wrap is missing could not open last
//!   night's backup. And each wrap is opened once before the key is handed out: what is sealed under a key that no
//!   KMS opens again would be lost without anyone noticing.
//! * A wrap is opened by the first that can, in the configured order; each gets a bounded time, so a region that
//!   hangs delays an open, but does not prevent it.
//! * A tenant may be pinned to some of them ([`WrappingKeys::pin`]). Then the others are asked nothing about its keys, be
//!   it that all of its own are down: neither a key nor a wrap of one leaves the regions that were chosen for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use vault_mem::LockedKey;

use super::{KeyContext, Kms, KmsError};
use crate::domain::{KmsSet, TenantId, WrappedKey};

/// Longest wait for one KMS key, before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(6);

/// The configured KMS keys, in order of preference.
#[derive(Clone)]
pub struct WrappingKeys {
    keys: Arc<[Arc<dyn Kms>]>,
    /// Tenants whose keys only these may wrap.
    pinned: BTreeMap<TenantId, Arc<[Arc<dyn Kms>]>>,
    patience: Duration,
}

/// A tenant can't be pinned so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Nothing could wrap its keys.
    #[error("tenant {0} is pinned to no KMS key")]
    Nothing(TenantId),
    /// There is no such KMS key.
    #[error("tenant {0} is pinned to {1}, which is not a configured KMS key")]
    Unknown(TenantId, String),
    /// It is not said which of the two holds.
    #[error("tenant {0} is pinned twice")]
    Twice(TenantId),
}

impl WrappingKeys {
    /// The first makes new keys; all wrap them; all are asked, in order, to open one.
    pub fn new(keys: Vec<Arc<dyn Kms>>) -> Self {
        Self { keys: keys.into(), pinned: BTreeMap::new(), patience: PATIENCE }
    }

    /// From now on only these wrap a tenant's keys, in this order, and no other is asked anything about them.
    pub fn pin(mut self, tenant: TenantId, names: &[String]) -> Result<Self, PinError> {
        let mut keys = Vec::new();
        for name in names {
            // More than one, where a KMS key is reached by several endpoints.
            let of_name = self.keys.iter().filter(|key| key.wrapping_key() == name).cloned();
            let before = keys.len();
            keys.extend(of_name);
            if keys.len() == before {
                return Err(PinError::Unknown(tenant, name.clone()));
            }
        }
        if keys.is_empty() {
            return Err(PinError::Nothing(tenant));
        }
        if self.pinned.contains_key(&tenant) {
            return Err(PinError::Twice(tenant));
        }
        self.pinned.insert(tenant, keys.into());
        Ok(self)
    }

    /// Another bound on the wait for one KMS key.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Full names of the KMS keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.wrapping_key())
    }

    /// Full names of those that wrap a tenant's keys, or the vault's own.
    pub fn names_for(&self, tenant: Option<&TenantId>) -> impl Iterator<Item = &str> {
        self.keys_for(tenant).iter().map(|key| key.wrapping_key())
    }

    /// Which wrap whose keys. The order in which they are asked is no part of it:
    ///
    /// ```text
    /// SHA-256("phi-vault kms set v1" | names | number of pins(4) | each: 4:tenant | names)[..16]
    /// names = count(4) | each: 4:name, sorted, none twice
    /// ```
    pub fn set(&self) -> KmsSet {
        let mut hash = Sha256::new();
        hash.update(b"phi-vault kms set v1");
        hash_names(&mut hash, &self.keys);
        hash.update(length(self.pinned.len()));
        for (tenant, keys) in &self.pinned {
            hash.update(length(tenant.as_str().len()));
            hash.update(tenant.as_str());
            hash_names(&mut hash, keys);
        }
        let digest = hash.finalize();
        KmsSet::from_bytes(*digest.first_chunk().expect("a SHA-256 digest has 32 bytes"))
    }

    /// The one place where it is chosen who is asked about a key.
    fn keys_for(&self, tenant: Option<&TenantId>) -> &[Arc<dyn Kms>] {
        tenant.and_then(|tenant| self.pinned.get(tenant)).unwrap_or(&self.keys)
    }

    /// A new key from the first that makes one, wrapped by all, in their order. Fails unless every one wrapped it.
    pub async fn generate(&self, context: &KeyContext) -> Result<(LockedKey, Vec<WrappedKey>), KmsError> {
        let mut failures = Vec::new();
        for (maker, kms) in self.keys_for(context.tenant.as_ref()).iter().enumerate() {
            match self.bounded(kms.generate(context)).await {
                Ok((key, first)) => {
                    let wraps = self.wrap_by_others(maker, first, &key, context).await?;
                    self.prove(&wraps, &key, context).await?;
                    return Ok((key, wraps));
                }
                Err(error) => failures.push(note(kms.as_ref(), "make a key", error)),
            }
        }
        Err(worth_retrying_first(failures))
    }

    /// Opens a key by whichever of its wraps can be opened.
    ///
    /// When none can: `Unavailable` if any of them may later, else `Refused` if any was, else `Invalid`.
    pub async fn unwrap(&self, wraps: &[WrappedKey], context: &KeyContext) -> Result<LockedKey, KmsError> {
        let mut failures = Vec::new();
        for kms in self.keys_for(context.tenant.as_ref()) {
            for wrapped in wraps.iter().filter(|wrapped| wrapped.wrapping_key == kms.wrapping_key()) {
                match self.bounded(kms.unwrap(wrapped, context)).await {
                    Ok(key) => return Ok(key),
                    Err(error) => failures.push(note(kms.as_ref(), "open a key", error)),
                }
            }
        }
        Err(worth_retrying_first(failures))
    }

    /// The wraps that a key should have: one by each KMS key, in their order, each of which opens to it. Those that are
    /// there and do are kept; others are made. Fails unless every KMS key takes part.
    pub async fn rewrap(
        &self,
        wraps: &[WrappedKey],
        context: &KeyContext,
    ) -> Result<Vec<WrappedKey>, KmsError> {
        let key = self.unwrap(wraps, context).await?;
        let keys = self.keys_for(context.tenant.as_ref()).iter();
        try_join_all(keys.map(|kms| self.wrap_of(kms, wraps, &key, context))).await
    }

    /// The wrap by one KMS key: one that is there and opens, or a new one.
    async fn wrap_of(
        &self,
        kms: &Arc<dyn Kms>,
        wraps: &[WrappedKey],
        key: &LockedKey,
        context: &KeyContext,
    ) -> Result<WrappedKey, KmsError> {
        for wrapped in wraps.iter().filter(|wrapped| wrapped.wrapping_key == kms.wrapping_key()) {
            match self.bounded(kms.unwrap(wrapped, context)).await {
                // Exposed: compared, in constant time.
                Ok(opened) if bool::from(opened.expose().ct_eq(key.expose())) => return Ok(wrapped.clone()),
                // Two wraps that open to two keys: nobody can tell here which is the right one.
                Ok(_) => return Err(KmsError::Invalid { wrapping_key: kms.wrapping_key().to_owned() }),
                // Altered: it is made anew.
                Err(error @ KmsError::Invalid { .. }) => note(kms.as_ref(), "open a wrap", error),
                Err(error) => return Err(error),
            };
        }
        let made = match self.reencrypted(kms, wraps, context).await {
            Some(made) => made,
            None => self.bounded(kms.wrap(key, context)).await?,
        };
        self.opens_to(kms, &made, key, context).await?;
        Ok(made)
    }

    /// The wrap by one KMS key, made within the KMS from the wrap by another, if any can.
    ///
    /// That does not spare the vault the key's bytes. A wrap is kept only after it opened to the same key, and for that
    /// both are opened here: a wrap that turns out to be of no use after the old ones were dropped would be the loss of
    /// all that the key sealed, which is worse than a key in this process's locked memory for a moment more, where it is
    /// each time that it is used. What is won: the key is not *sent* to any KMS once more, and a KMS key whose policy
    /// lets nobody encrypt with it but by `ReEncrypt` gets its wrap. Whatever goes wrong, wrapping is left.
    async fn reencrypted(
        &self,
        kms: &Arc<dyn Kms>,
        wraps: &[WrappedKey],
        context: &KeyContext,
    ) -> Option<WrappedKey> {
        // Wraps by others than these are not to be shown to anybody.
        let may_be_shown: Vec<&str> = self.names_for(context.tenant.as_ref()).collect();
        let sources = wraps.iter().filter(|wrap| {
            wrap.wrapping_key != kms.wrapping_key() && may_be_shown.contains(&wrap.wrapping_key.as_str())
        });
        for source in sources {
            match self.bounded(kms.reencrypt(source, context)).await {
                Ok(Some(made)) => return Some(made),
                Ok(None) => {}
                Err(error) => {
                    tracing::info!(wrapping_key = kms.wrapping_key(), source = source.wrapping_key, %error,
                        "a KMS key did not re-encrypt a wrap: the key is sent to it instead");
                }
            }
        }
        None
    }

    /// Whether keys can be opened: one KMS key that answers is enough, and one of those that a tenant is pinned to for
    /// each that is. Those that do not are logged.
    pub async fn probe(&self) -> Result<(), KmsError> {
        let answers = join_all(self.keys.iter().map(|kms| self.bounded(kms.probe()))).await;
        let mut failures = Vec::new();
        let mut answered = Vec::new();
        for (kms, answer) in self.keys.iter().zip(answers) {
            match answer {
                Ok(()) => answered.push(kms.wrapping_key()),
                Err(error) => failures.push(note(kms.as_ref(), "answer", error)),
            }
        }
        let serves = |keys: &[Arc<dyn Kms>]| keys.iter().any(|kms| answered.contains(&kms.wrapping_key()));
        let all = serves(&self.keys) && self.pinned.values().all(|keys| serves(keys));
        if all { Ok(()) } else { Err(worth_retrying_first(failures)) }
    }

    async fn wrap_by_others(
        &self,
        maker: usize,
        first: WrappedKey,
        key: &LockedKey,
        context: &KeyContext,
    ) -> Result<Vec<WrappedKey>, KmsError> {
        let keys = self.keys_for(context.tenant.as_ref());
        let others = keys.iter().enumerate().filter(|(at, _)| *at != maker);
        let mut wraps = try_join_all(others.map(|(_, kms)| self.bounded(kms.wrap(key, context)))).await?;
        wraps.insert(maker, first);
        Ok(wraps)
    }

    async fn prove(
        &self,
        wraps: &[WrappedKey],
        key: &LockedKey,
        context: &KeyContext,
    ) -> Result<(), KmsError> {
        let keys = self.keys_for(context.tenant.as_ref()).iter();
        let proofs = keys.zip(wraps).map(|(kms, wrapped)| self.opens_to(kms, wrapped, key, context));
        try_join_all(proofs).await.map(|_| ())
    }

    /// `Invalid` unless the wrap opens to this key.
    async fn opens_to(
        &self,
        kms: &Arc<dyn Kms>,
        wrapped: &WrappedKey,
        key: &LockedKey,
        context: &KeyContext,
    ) -> Result<(), KmsError> {
        let opened = self.bounded(kms.unwrap(wrapped, context)).await?;
        // Exposed: compared, in constant time.
        if opened.expose().ct_eq(key.expose()).into() {
            Ok(())
        } else {
            Err(KmsError::Invalid { wrapping_key: kms.wrapping_key().to_owned() })
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, KmsError>>) -> Result<T, KmsError> {
        let late = KmsError::Unavailable { why: "no answer in time".to_owned() };
        timeout(self.patience, call).await.unwrap_or(Err(late))
    }
}

fn hash_names(hash: &mut Sha256, keys: &[Arc<dyn Kms>]) {
    let names: BTreeSet<&str> = keys.iter().map(|key| key.wrapping_key()).collect();
    hash.update(length(names.len()));
    for name in names {
        hash.update(length(name.len()));
        hash.update(name);
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a configuration is far smaller than 4 GiB").to_be_bytes()
}

/// Tells the operator: a caller may never notice, as another KMS key serves it.
fn note(kms: &dyn Kms, what: &str, error: KmsError) -> KmsError {
    tracing::warn!(wrapping_key = kms.wrapping_key(), %error, "a KMS key did not {what}");
    error
}

/// The failure to report for all.
fn worth_retrying_first(failures: Vec<KmsError>) -> KmsError {
    let rank = |error: &KmsError| match error {
        KmsError::Unavailable { .. } => 0,
        KmsError::LockedMemory | KmsError::Random => 1,
        KmsError::Refused { .. } => 2,
        KmsError::Invalid { .. } => 3,
    };
    failures.into_iter().min_by_key(rank).unwrap_or_else(|| KmsError::Refused {
        wrapping_key: "-".to_owned(),
        why: "no KMS key that may be asked has a wrap of this key".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Environment, KeyId, KeyPurpose, VaultId, VaultIdentity};
    use crate::kms::testing::{Mood, TestKms};

    fn context() -> KeyContext {
        KeyContext {
            identity: VaultIdentity {
                vault: VaultId::from_bytes([1; 16]),
                environment: Environment::parse("qa").unwrap(),
            },
            tenant: None,
            purpose: KeyPurpose::LogSigning,
            key_id: KeyId::from_bytes([2; 16]),
        }
    }

    fn two() -> (Arc<TestKms>, Arc<TestKms>, WrappingKeys) {
        let (east, west) = (TestKms::new("east"), TestKms::new("west"));
        let keys = WrappingKeys::new(vec![east.clone(), west.clone()]);
        (east, west, keys)
    }

    #[tokio::test]
    async fn a_new_key_is_wrapped_by_every_kms_key_and_opens_by_each_alone() {
        let (east, west, keys) = two();
        let (key, wraps) = keys.generate(&context()).await.unwrap();
        assert_eq!(wraps.iter().map(|w| w.wrapping_key.as_str()).collect::<Vec<_>>(), ["east", "west"]);
        for (down, up) in [(&east, &west), (&west, &east)] {
            up.set(Mood::Answers);
            for mood in [Mood::Unavailable, Mood::Refuses, Mood::Invalid] {
                down.set(mood);
                assert!(keys.unwrap(&wraps, &context()).await.unwrap().expose() == key.expose(), "{mood:?}");
            }
        }
    }

    #[tokio::test]
    async fn no_key_is_made_unless_every_kms_key_wraps_it() {
        for mood in [Mood::Unavailable, Mood::Refuses] {
            for down in 0..2 {
                let (east, west, keys) = two();
                [east, west][down].set(mood);
                assert!(keys.generate(&context()).await.is_err(), "{mood:?} {down}");
            }
        }
    }

    #[tokio::test]
    async fn a_key_whose_wrap_does_not_open_to_it_is_never_handed_out() {
        for corrupt in 0..2 {
            let (east, west, keys) = two();
            [&east, &west][corrupt].set(Mood::Corrupts);
            let name = ["east", "west"][corrupt].to_owned();
            let error = keys.generate(&context()).await.err();
            assert_eq!(error, Some(KmsError::Invalid { wrapping_key: name }));
        }
    }

    #[tokio::test]
    async fn wraps_that_are_missing_altered_or_of_no_configured_key_are_mended_and_others_kept() {
        let (east, west, keys) = two();
        let (key, whole) = keys.generate(&context()).await.unwrap();
        assert_eq!(keys.rewrap(&whole, &context()).await.unwrap(), whole);
        // The test KMS's wraps are not alike, but each opens.
        let missing = keys.rewrap(&whole[..1], &context()).await.unwrap();
        assert_eq!(missing[0], whole[0]);
        let mut altered = whole.clone();
        altered[0].ciphertext[0] = 200;
        let mended = keys.rewrap(&altered, &context()).await.unwrap();
        assert_eq!(mended[1], whole[1]);
        for wraps in [missing, mended] {
            for (down, up) in [(&east, &west), (&west, &east)] {
                up.set(Mood::Answers);
                down.set(Mood::Unavailable);
                assert!(keys.unwrap(&wraps, &context()).await.unwrap().expose() == key.expose());
            }
            east.set(Mood::Answers);
            west.set(Mood::Answers);
        }
        let north = TestKms::new("north");
        let moved = WrappingKeys::new(vec![north.clone(), west.clone()]);
        let wraps = moved.rewrap(&whole, &context()).await.unwrap();
        assert_eq!(wraps.iter().map(|w| w.wrapping_key.as_str()).collect::<Vec<_>>(), ["north", "west"]);
        for mood in [Mood::Unavailable, Mood::Refuses] {
            north.set(mood);
            assert!(moved.rewrap(&whole, &context()).await.is_err(), "all or none: {mood:?}");
        }
    }

    fn pinned() -> (Arc<TestKms>, Arc<TestKms>, WrappingKeys, KeyContext) {
        let (east, west, keys) = two();
        let tenant = TenantId::parse("st-mary").unwrap();
        let keys = keys.pin(tenant.clone(), &["west".to_owned()]).unwrap();
        (east, west, keys, KeyContext { tenant: Some(tenant), purpose: KeyPurpose::Data, ..context() })
    }

    #[tokio::test]
    async fn of_a_pinned_tenants_keys_no_other_kms_key_is_asked_anything() {
        let (east, west, keys, of_mary) = pinned();
        let (key, wraps) = keys.generate(&of_mary).await.unwrap();
        assert_eq!(wraps.iter().map(|w| w.wrapping_key.as_str()).collect::<Vec<_>>(), ["west"]);
        assert!(keys.unwrap(&wraps, &of_mary).await.unwrap().expose() == key.expose());
        assert_eq!(keys.rewrap(&wraps, &of_mary).await.unwrap(), wraps);
        for mood in [Mood::Unavailable, Mood::Refuses] {
            west.set(mood);
            let errors = [keys.unwrap(&wraps, &of_mary).await.err(), keys.generate(&of_mary).await.err()];
            assert!(errors.iter().flatten().count() == 2, "{mood:?}");
            let is_down = |error: &Option<KmsError>| matches!(error, Some(KmsError::Unavailable { .. }));
            assert_eq!(errors.iter().all(is_down), mood == Mood::Unavailable);
        }
        assert_eq!(east.calls(), 0);
        // Others', and the vault's own, are wrapped by all.
        west.set(Mood::Answers);
        let of_john = KeyContext { tenant: Some(TenantId::parse("st-john").unwrap()), ..of_mary };
        for context in [context(), of_john] {
            assert_eq!(keys.generate(&context).await.unwrap().1.len(), 2);
        }
    }

    #[tokio::test]
    async fn wraps_from_before_a_pin_are_dropped_and_shown_to_nobody() {
        let (east, west, keys, of_mary) = pinned();
        let (key, wraps) = two_of(&east, &west).generate(&of_mary).await.unwrap();
        let asked = east.calls();
        let kept = keys.rewrap(&wraps, &of_mary).await.unwrap();
        assert_eq!(kept, wraps[1..]);
        assert!(keys.unwrap(&wraps, &of_mary).await.unwrap().expose() == key.expose());
        // Only the other one has it: it is not for it to open.
        assert!(matches!(keys.unwrap(&wraps[..1], &of_mary).await, Err(KmsError::Refused { .. })));
        assert!(matches!(keys.rewrap(&wraps[..1], &of_mary).await, Err(KmsError::Refused { .. })));
        assert_eq!(east.calls(), asked);
    }

    fn two_of(east: &Arc<TestKms>, west: &Arc<TestKms>) -> WrappingKeys {
        WrappingKeys::new(vec![east.clone(), west.clone()])
    }

    #[test]
    fn a_pin_that_says_nothing_or_too_much_is_refused() {
        let tenant = TenantId::parse("st-mary").unwrap();
        let pin = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            two().2.pin(tenant.clone(), &names)
        };
        assert_eq!(pin(&[]).err(), Some(PinError::Nothing(tenant.clone())));
        assert_eq!(pin(&["north"]).err(), Some(PinError::Unknown(tenant.clone(), "north".to_owned())));
        assert_eq!(
            pin(&["west", "north"]).err(),
            Some(PinError::Unknown(tenant.clone(), "north".to_owned()))
        );
        let again = pin(&["west"]).unwrap().pin(tenant.clone(), &["east".to_owned()]);
        assert_eq!(again.err(), Some(PinError::Twice(tenant.clone())));
        let ordered = pin(&["west", "east"]).unwrap();
        assert_eq!(ordered.names_for(Some(&tenant)).collect::<Vec<_>>(), ["west", "east"]);
    }

    #[test]
    fn sets_differ_by_who_wraps_whose_keys_and_by_nothing_else() {
        let of = |names: &[&str], pins: &[(&str, &[&str])]| {
            let kms = names.iter().map(|name| TestKms::new(name) as Arc<dyn Kms>).collect();
            let mut keys = WrappingKeys::new(kms);
            for (tenant, names) in pins {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                keys = keys.pin(TenantId::parse(tenant).unwrap(), &names).unwrap();
            }
            keys.set()
        };
        let set = of(&["a", "b"], &[("t", &["a"])]);
        assert_eq!(hex::encode(set.as_bytes()), SET);
        assert_eq!(of(&["b", "a"], &[("t", &["a"])]), set);
        assert_eq!(of(&["b", "a", "b"], &[("t", &["a", "a"])]), set);
        let others = [
            of(&["a", "b"], &[]),
            of(&["a"], &[("t", &["a"])]),
            of(&["a", "b"], &[("t", &["b"])]),
            of(&["a", "b"], &[("t", &["a", "b"])]),
            of(&["a", "b"], &[("u", &["a"])]),
            of(&["a", "b"], &[("t", &["a"]), ("u", &["a"])]),
            of(&["ab"], &[("t", &["ab"])]),
        ];
        assert!(others.iter().all(|other| *other != set), "{others:?}");
    }

    /// `printf 'phi-vault kms set v1\0\0\0\2\0\0\0\1a\0\0\0\1b\0\0\0\1\0\0\0\1t\0\0\0\1\0\0\0\1a' | sha256sum`
    const SET: &str = "6d9ef8c75ee4192b25ffb94f71b37b0d";

    #[tokio::test]
    async fn a_wrap_is_made_within_the_kms_where_it_can_and_is_proven_all_the_same() {
        let (_, west, keys) = two();
        let (key, wraps) = keys.generate(&context()).await.unwrap();
        west.share(&wraps[0], &key);
        assert_eq!(west.wrapped(), 1);
        let whole = keys.rewrap(&wraps[..1], &context()).await.unwrap();
        assert_eq!((west.wrapped(), west.reencrypted()), (1, 1), "the key was sent although it need not be");
        assert!(keys.unwrap(&whole[1..], &context()).await.unwrap().expose() == key.expose());
        // What comes back is of another key: it is not kept.
        west.set(Mood::Corrupts);
        let error = keys.rewrap(&wraps[..1], &context()).await.err();
        assert_eq!(error, Some(KmsError::Invalid { wrapping_key: "west".to_owned() }));
        // It can't: the key is wrapped.
        west.set(Mood::Answers);
        west.unshare();
        keys.rewrap(&wraps[..1], &context()).await.unwrap();
        assert_eq!(west.wrapped(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kms_key_that_hangs_delays_an_open_by_a_bounded_time() {
        let (east, _west, keys) = two();
        let (key, wraps) = keys.generate(&context()).await.unwrap();
        east.set(Mood::Hangs);
        let begin = tokio::time::Instant::now();
        assert!(keys.unwrap(&wraps, &context()).await.unwrap().expose() == key.expose());
        assert_eq!(begin.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn what_may_work_later_is_reported_before_what_never_will() {
        let (east, west, keys) = two();
        let (_, wraps) = keys.generate(&context()).await.unwrap();
        let said = async |a, b| {
            east.set(a);
            west.set(b);
            keys.unwrap(&wraps, &context()).await.err().unwrap()
        };
        assert!(matches!(said(Mood::Invalid, Mood::Unavailable).await, KmsError::Unavailable { .. }));
        assert!(matches!(said(Mood::Refuses, Mood::Unavailable).await, KmsError::Unavailable { .. }));
        assert!(matches!(said(Mood::Invalid, Mood::Refuses).await, KmsError::Refused { .. }));
        assert!(matches!(said(Mood::Invalid, Mood::Invalid).await, KmsError::Invalid { .. }));
    }

    #[tokio::test]
    async fn a_wrap_is_only_ever_given_to_the_kms_key_that_made_it() {
        let (_, _, keys) = two();
        let (_, mut wraps) = keys.generate(&context()).await.unwrap();
        for wrap in &mut wraps {
            wrap.wrapping_key = "north".to_owned();
        }
        assert!(matches!(keys.unwrap(&wraps, &context()).await, Err(KmsError::Refused { .. })));
    }

    #[tokio::test]
    async fn the_probe_fails_only_when_no_kms_key_answers() {
        let (east, west, keys) = two();
        east.set(Mood::Unavailable);
        assert!(keys.probe().await.is_ok());
        west.set(Mood::Refuses);
        assert!(keys.probe().await.is_err());
        east.set(Mood::Answers);
        assert!(keys.probe().await.is_ok());
        let mary = TenantId::parse("st-mary").unwrap();
        let keys = keys.pin(mary, &["west".to_owned()]).unwrap();
        assert!(keys.probe().await.is_err(), "a pinned tenant's keys can't be opened");
    }
}
