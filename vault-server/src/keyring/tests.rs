//! Behaviour of the whole keyring, over a KMS and a store in memory.

mod bound;
mod store;

use futures::future::join_all;
use tokio::time::sleep;

use self::store::KeyStore;
use super::flight::LINGER;
use super::versions::FRESH;
use super::*;
use crate::domain::{
    BlindIndex, Body, ClassName, Entity, EntityPlace, EntityScope, Environment, Job, JobPlace, KeyState,
    KeyVersion, LeaseName, Record, Sealed, SubjectRef, Timestamp, Token, VaultId,
};
use crate::kms::KeyContext;
use crate::kms::testing::{Mood, TestKms};
use crate::store::{
    Change, Committed, Cursor, Derived, DerivedState, EntityRow, Lease, LogId, Lookup, Page, Remembered,
    Stats, TileId, Write,
};

const LIFETIME: Duration = Duration::from_mins(5);
const OPTIONS: CacheOptions = CacheOptions { lifetime: LIFETIME, max_uses: u64::MAX, max_entries: 100 };

struct IdJournal;

impl Journal for IdJournal {
    fn key_created(&self, key: &KeyRecord) -> Bytes {
        Bytes::copy_from_slice(key.id.as_bytes())
    }
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000)
    }
}

struct Bench {
    store: Arc<KeyStore>,
    kms: Arc<TestKms>,
    keyring: Arc<Keyring>,
}

impl Bench {
    fn new() -> Self {
        Self::with(OPTIONS, Duration::ZERO)
    }

    fn with(options: CacheOptions, slow: Duration) -> Self {
        let store = Arc::new(KeyStore { slow, ..KeyStore::default() });
        let kms = TestKms::slow("east", slow);
        let keyring = instance(&store, &kms, options);
        Self { store, kms, keyring }
    }

    /// A second instance of the same vault, or this one after a restart.
    fn another(&self) -> Arc<Keyring> {
        instance(&self.store, &self.kms, OPTIONS)
    }

    async fn open(&self, records: &[Record]) -> HashMap<KeyId, Result<Arc<DataKey>, KeyringError>> {
        self.keyring.0.data_keys_of(records).await
    }

    async fn open_one(&self, tenant: &TenantId, id: KeyId) -> Result<Arc<DataKey>, KeyringError> {
        self.open(&[record(tenant, id)]).await.remove(&id).unwrap()
    }
}

fn instance(store: &Arc<KeyStore>, kms: &Arc<TestKms>, options: CacheOptions) -> Arc<Keyring> {
    let identity =
        VaultIdentity { vault: VaultId::from_bytes([1; 16]), environment: Environment::parse("qa").unwrap() };
    let keys = WrappingKeys::new(vec![kms.clone()]);
    Arc::new(Keyring::new(
        identity,
        store.clone(),
        keys,
        Arc::new(IdJournal),
        Arc::new(StoppedClock),
        options,
    ))
}

fn mary() -> TenantId {
    TenantId::parse("st-mary").unwrap()
}

fn john() -> TenantId {
    TenantId::parse("st-john").unwrap()
}

fn record(tenant: &TenantId, key_id: KeyId) -> Record {
    Record {
        token: Token::from_bytes([7; 16]),
        tenant: tenant.clone(),
        class: ClassName::parse("ssn").unwrap(),
        subject: None,
        index: None,
        created: Timestamp(0),
        body: Body::Sealed { key_id, key_version: KeyVersion::FIRST, bytes: Sealed(vec![]) },
        revision: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_made_on_first_use_with_its_log_entry_and_then_served_from_the_cache() {
    let bench = Bench::new();
    let key = bench.keyring.active_data_key(&mary()).await.unwrap();
    let stored = bench.store.only();
    assert_eq!((stored.id, stored.version, stored.state), (key.id(), KeyVersion::FIRST, KeyState::Active));
    assert_eq!(stored.created, StoppedClock.now());
    assert_eq!(*bench.store.entries.lock(), [Bytes::copy_from_slice(key.id().as_bytes())]);
    let calls = bench.kms.calls();
    for _ in 0..100 {
        assert_eq!(bench.keyring.active_data_key(&mary()).await.unwrap().id(), key.id());
        assert_eq!(bench.open_one(&mary(), key.id()).await.unwrap().id(), key.id());
    }
    assert_eq!(bench.kms.calls(), calls);
    assert!(bench.keyring.stats().hits >= 200);
}

#[tokio::test(start_paused = true)]
async fn the_context_is_the_stored_keys_own() {
    let bench = Bench::new();
    bench.keyring.active_index_key(&mary()).await.unwrap();
    let stored = bench.store.only();
    assert_eq!(
        bench.kms.contexts(),
        [KeyContext {
            identity: VaultIdentity {
                vault: VaultId::from_bytes([1; 16]),
                environment: Environment::parse("qa").unwrap()
            },
            tenant: Some(mary()),
            purpose: KeyPurpose::Index,
            key_id: stored.id,
        }]
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_readers_of_one_key_make_one_kms_call() {
    let bench = Bench::with(OPTIONS, Duration::from_millis(20));
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.keyring.forget_all();
    let (before, tenant) = (bench.kms.calls(), mary());
    let opened = join_all((0..1000).map(|_| bench.open_one(&tenant, id))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(bench.kms.calls() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_first_writers_of_a_tenant_make_one_key() {
    let bench = Bench::with(OPTIONS, Duration::from_millis(20));
    let tenant = mary();
    let keys = join_all((0..1000).map(|_| bench.keyring.active_data_key(&tenant))).await;
    let id = bench.store.only().id;
    assert!(keys.into_iter().all(|key| key.unwrap().id() == id));
    assert_eq!(bench.keyring.stats().kms_calls, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_instances_that_make_a_tenants_first_key_one_wins_and_both_use_its_key() {
    let bench = Bench::with(OPTIONS, Duration::from_millis(20));
    let other = bench.another();
    let (tenant, here, there) = (mary(), &bench.keyring, &other);
    let (a, b) = tokio::join!(here.active_data_key(&tenant), there.active_data_key(&tenant));
    let id = bench.store.only().id;
    assert_eq!((a.unwrap().id(), b.unwrap().id()), (id, id));
    assert_eq!(bench.store.entries.lock().len(), 1, "the loser logged nothing");
}

#[tokio::test(start_paused = true)]
async fn tenants_and_purposes_have_keys_of_their_own() {
    let bench = Bench::new();
    let ids = [
        bench.keyring.active_data_key(&mary()).await.unwrap().id(),
        bench.keyring.active_data_key(&john()).await.unwrap().id(),
        bench.keyring.active_index_key(&mary()).await.unwrap().id(),
        bench.keyring.active_index_key(&john()).await.unwrap().id(),
    ];
    assert_eq!(std::collections::HashSet::from(ids).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_names_another_tenants_key_does_not_get_it() {
    let bench = Bench::new();
    let marys = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.keyring.active_data_key(&john()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(bench.open_one(&john(), marys).await.err(), Some(KeyringError::Corrupt));
        bench.keyring.forget_all();
    }
    let mixed = bench.open(&[record(&john(), marys), record(&mary(), marys)]).await;
    assert_eq!(*mixed[&marys].as_ref().unwrap().tenant(), mary(), "carries its owner");
}

#[tokio::test(start_paused = true)]
async fn a_key_row_moved_to_another_tenant_does_not_open() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.keyring.forget_all();
    bench.store.change(id, |key| key.tenant = Some(john()));
    assert_eq!(bench.open_one(&john(), id).await.err(), Some(KeyringError::Corrupt), "context differs");
    assert_eq!(bench.open_one(&mary(), id).await.err(), Some(KeyringError::Corrupt), "not in mary's list");
}

#[tokio::test(start_paused = true)]
async fn an_index_key_is_never_served_as_a_data_key() {
    let bench = Bench::new();
    let id = bench.keyring.active_index_key(&mary()).await.unwrap().id();
    assert_eq!(bench.open_one(&mary(), id).await.err(), Some(KeyringError::Corrupt));
    bench.store.change(id, |key| key.purpose = KeyPurpose::Data);
    bench.keyring.forget_all();
    assert_eq!(bench.open_one(&mary(), id).await.err(), Some(KeyringError::Corrupt), "context differs");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_there_is_corruption() {
    let bench = Bench::new();
    let id = KeyId::from_bytes([9; 16]);
    assert_eq!(bench.open_one(&mary(), id).await.err(), Some(KeyringError::Corrupt));
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_opens_and_its_successor_seals() {
    let bench = Bench::new();
    let old = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    let mut next = bench.store.only();
    let new = KeyId::from_bytes([5; 16]);
    (next.id, next.version) = (new, KeyVersion(2));
    let context = KeyContext {
        identity: bench.keyring.0.identity.clone(),
        tenant: Some(mary()),
        purpose: KeyPurpose::Data,
        key_id: new,
    };
    (_, next.wraps) = bench.keyring.0.kms.generate(&context).await.unwrap();
    bench.store.keys.lock().push(next);
    bench.store.change(old, |key| key.state = KeyState::Retired);
    assert!(bench.open_one(&mary(), new).await.is_ok(), "a key younger than the list is found");
    sleep(FRESH).await;
    assert_eq!(bench.keyring.active_data_key(&mary()).await.unwrap().id(), new);
    assert!(bench.open_one(&mary(), old).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn open_keys_serve_through_a_kms_outage_until_their_lifetime_ends() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.kms.set(Mood::Unavailable);
    for _ in 0..9 {
        sleep(LIFETIME / 10).await;
        assert!(bench.open_one(&mary(), id).await.is_ok());
        assert!(bench.keyring.active_data_key(&mary()).await.is_ok());
    }
    sleep(LIFETIME / 10).await;
    assert_eq!(bench.open_one(&mary(), id).await.err(), Some(KeyringError::KmsUnavailable));
    assert_eq!(bench.keyring.probe().await, Err(KeyringError::KmsUnavailable));
    bench.kms.set(Mood::Answers);
    sleep(LINGER).await;
    assert!(bench.open_one(&mary(), id).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_nobody_asks_for_again_leaves_the_cache() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    let key = Arc::downgrade(&bench.open_one(&mary(), id).await.unwrap());
    assert_eq!(bench.keyring.stats().entries, 1);
    sleep(LIFETIME * 5 / 4 + Duration::from_secs(1)).await;
    assert_eq!(bench.keyring.stats().entries, 0);
    assert!(key.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn forget_all_reaches_a_key_that_is_just_being_opened() {
    let slow = Duration::from_millis(20);
    let bench = Bench::with(OPTIONS, slow);
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    bench.keyring.forget_all();
    let tenant = mary();
    let (opened, ()) = tokio::join!(bench.open_one(&tenant, id), async {
        sleep(slow / 2).await;
        bench.keyring.forget_all();
    });
    assert!(opened.is_ok());
    assert_eq!(bench.keyring.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_an_altered_wrap_are_told_apart() {
    let bench = Bench::new();
    let id = bench.keyring.active_data_key(&mary()).await.unwrap().id();
    for (mood, error) in [(Mood::Refuses, KeyringError::KmsRefused), (Mood::Invalid, KeyringError::Corrupt)] {
        bench.keyring.forget_all();
        bench.kms.set(mood);
        assert_eq!(bench.open_one(&mary(), id).await.err(), Some(error));
    }
}

#[tokio::test(start_paused = true)]
async fn index_keys_are_every_version_that_is_not_gone_newest_first() {
    let bench = Bench::new();
    assert!(bench.keyring.index_keys(&mary()).await.unwrap().is_empty());
    bench.keyring.active_index_key(&mary()).await.unwrap();
    let first = bench.store.only();
    for (version, state) in [(2, KeyState::Destroyed), (3, KeyState::Retired), (4, KeyState::Active)] {
        let id = KeyId::from_bytes([version; 16]);
        let context = KeyContext {
            identity: bench.keyring.0.identity.clone(),
            tenant: Some(mary()),
            purpose: KeyPurpose::Index,
            key_id: id,
        };
        let (_, wraps) = bench.keyring.0.kms.generate(&context).await.unwrap();
        let version = KeyVersion(u32::from(version));
        bench.store.keys.lock().push(KeyRecord { id, version, state, wraps, ..first.clone() });
    }
    sleep(FRESH).await;
    let versions: Vec<u32> =
        bench.keyring.index_keys(&mary()).await.unwrap().iter().map(|key| key.version().0).collect();
    assert_eq!(versions, [4, 3, 1]);
    // What a compromised version made is still found: not to find is not to answer.
    bench.store.keys.lock()[1].state = KeyState::Compromised;
    bench.keyring.forget_all();
    assert_eq!(bench.keyring.index_keys(&mary()).await.unwrap().len(), 4);
    bench.store.keys.lock()[1].state = KeyState::Destroyed;
    bench.keyring.forget_all();
    bench.kms.set(Mood::Unavailable);
    assert!(bench.keyring.index_keys(&mary()).await.is_err(), "all or an error");
}

#[tokio::test(start_paused = true)]
async fn the_log_signing_key_is_made_once_and_is_the_same_on_every_instance() {
    let bench = Bench::with(OPTIONS, Duration::from_millis(20));
    let other = bench.another();
    let (a, b) = tokio::join!(bench.keyring.log_signing_key(), other.log_signing_key());
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.expose() == b.expose());
    assert_eq!(bench.store.only().tenant, None);
    assert!(bench.another().log_signing_key().await.unwrap().expose() == a.expose());
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_change_was_not_committed_is_not_used() {
    let bench = Bench::new();
    bench.store.down.store(true, Ordering::Relaxed);
    assert!(matches!(bench.keyring.active_data_key(&mary()).await, Err(KeyringError::Store(_))));
    assert_eq!(bench.keyring.stats().entries, 0);
}
