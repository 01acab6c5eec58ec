//! A vault's store to move, and what the tests move it with.

use std::sync::Arc;
use std::time::Duration;

use vault_format::note::Signer;

use crate::app::migrate::copy::{Ended, Limits, Move};
use crate::app::migrate::error::MoveError;
use crate::app::migrate::logs::Exported;
use crate::app::migrate::open::Opened;
use crate::app::migrate::progress::Progress;
use crate::audit::{AuditAction, Draft, Fixed, Follower, FollowerOptions, Log, LogOptions};
use crate::crypto::RowKey;
use crate::domain::{
    BlindIndex, Body, ClassName, Clock, Entity, EntityKind, EntityName, EntityPlace, Environment, Job,
    JobBudget, JobId, JobKind, JobOrder, JobPlace, JobProgress, JobState, KeyId, KeyPurpose, KeyRecord,
    KeyState, KeyVersion, PrincipalId, Record, RequestId, Sealed, SubjectRef, TenantId, Timestamp, Token,
    VaultId, VaultIdentity, WrappedKey,
};
use crate::store::{Change, EntrySeals, LogId, Remembered, Store, Unsealed, Write};

pub(super) const RECORDS: u64 = 40;
pub(super) const ENTRIES: u64 = 530;
/// How many of them are under the checkpoint.
pub(super) const SIGNED: u64 = 515;
pub(super) const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

pub(super) struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

pub(super) fn identity(vault: u8) -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([vault; 16]), environment: Environment::parse("qa").unwrap() }
}

pub(super) fn signer(log: LogId) -> Signer {
    let origin = format!("phi-vault/qa/{}", identity(1).vault);
    let name = if log == LogId::default() { origin } else { format!("{origin}/{log}") };
    Signer::from_seed(&name, &[7; 32]).unwrap()
}

pub(super) fn record(number: u64) -> Record {
    let sealed = Body::Sealed {
        key_id: KeyId::from_bytes([1; 16]),
        key_version: KeyVersion(1),
        bytes: Sealed(vec![number as u8; 50 + number as usize]),
    };
    let is_erased = number.is_multiple_of(5);
    Record {
        token: Token::from_bytes((u128::from(number) << 100).to_be_bytes()),
        tenant: TenantId::parse("st-mary").unwrap(),
        class: ClassName::parse("ssn").unwrap(),
        subject: Some(SubjectRef { version: KeyVersion(1), mac: [3; 16] }),
        index: (!is_erased).then_some(BlindIndex { version: KeyVersion(1), mac: [4; 16] }),
        created: Timestamp(number),
        body: if is_erased { Body::Erased { at: Timestamp(9) } } else { sealed },
        revision: number as u32 % 3,
    }
}

pub(super) fn key(number: u8) -> KeyRecord {
    KeyRecord {
        id: KeyId::from_bytes([number; 16]),
        tenant: (number > 1).then(|| TenantId::parse("st-mary").unwrap()),
        purpose: if number > 1 { KeyPurpose::Data } else { KeyPurpose::LogSigning },
        version: KeyVersion(number.into()),
        state: KeyState::Active,
        created: Timestamp(5),
        wraps: vec![
            WrappedKey { wrapping_key: "local:a".to_owned(), ciphertext: vec![number; 40] },
            WrappedKey { wrapping_key: "local:b".to_owned(), ciphertext: vec![number; 60] },
        ],
        revision: number.into(),
        statements: if number > 1 { String::new() } else { "a statement\n".to_owned() },
    }
}

/// Number 2 is over.
pub(super) fn answer(number: u8) -> Remembered {
    Remembered {
        key: [number; 32],
        request: [7; 32],
        tokens: vec![Some(record(1).token), None],
        at: Timestamp(NOW.0 - 10),
        expires: Timestamp(if number == 2 { NOW.0 - 1 } else { NOW.0 + 1000 }),
    }
}

/// Of the vault itself, or of a tenant.
pub(super) fn job(tenant: Option<&str>, kind: JobKind) -> Job {
    Job {
        id: JobId::from_bytes([kind.number(); 16]),
        place: JobPlace { tenant: tenant.map(|name| TenantId::parse(name).unwrap()), kind },
        order: JobOrder {
            key: None,
            budget: JobBudget { bytes: 1000, kms_calls: 2 },
            asked_by: PrincipalId::parse("ann").unwrap(),
            asked: NOW,
            not_before: NOW,
            asker: Vec::new(),
            kms_set: None,
        },
        state: JobState::Running,
        approved_by: None,
        begun: NOW,
        changed: NOW,
        progress: JobProgress { total: 9, done: 4, ..JobProgress::default() },
        cause: String::new(),
        revision: 0,
    }
}

/// More than a page of them, one changed since it began.
pub(super) fn jobs() -> Vec<Job> {
    let tenants = [None, Some("st-john"), Some("st-mary")];
    tenants.iter().flat_map(|tenant| JobKind::ALL.iter().map(|kind| job(*tenant, *kind))).collect()
}

/// Of every kind, some of a tenant and some of the vault itself, and one that is long.
pub(super) fn entities() -> Vec<Entity> {
    let of_kind = |kind: EntityKind| {
        [(None, 1), (None, 2), (Some("st-mary"), 1)].map(|(tenant, number)| {
            let tenant = tenant.map(|name| TenantId::parse(name).unwrap());
            let name = EntityName::new(&[0, number]).unwrap();
            let content = vec![number; if number == 2 { 2000 } else { 10 }];
            Entity { place: EntityPlace { kind, tenant, name }, revision: 0, content }
        })
    };
    EntityKind::ALL.iter().flat_map(|kind| of_kind(*kind)).collect()
}

pub(super) async fn write(store: &Arc<dyn Store>, writes: Vec<Write>) {
    store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
}

pub(super) async fn log(store: &Arc<dyn Store>, entries: u64) {
    let options = LogOptions { deadline: Duration::from_secs(30), max_in_flight: 64 };
    let log = Log::new(Arc::clone(store), Arc::new(StoppedClock), options);
    for number in 0..entries {
        let request = RequestId::from_bytes([number as u8; 16]);
        log.record(Draft::of_vault(request, AuditAction::Reload), Vec::new()).await.unwrap();
    }
}

/// Follows a store's own log until all of it is under a checkpoint.
pub(super) async fn sign(store: &Arc<dyn Store>) {
    let options = FollowerOptions { checkpoint_every: Duration::from_secs(1) };
    let signer = signer(store.log());
    let (origin, clock) = (signer.verifier().name().to_owned(), Arc::new(StoppedClock));
    let signing = Arc::new(Fixed::from(signer));
    let follower = Follower::start(Arc::clone(store), signing, &origin, clock, options).await.unwrap();
    follower.fresh_checkpoint(Duration::from_secs(30)).await.unwrap();
    follower.stop(Duration::from_secs(30)).await;
}

pub(super) async fn fill(store: &Arc<dyn Store>) {
    store.found(&identity(1)).await.unwrap();
    write(store, (1..=4).map(|number| Write::InsertKey(key(number))).collect()).await;
    write(store, (1..=RECORDS).map(|number| Write::Insert(record(number))).collect()).await;
    write(store, (1..=9).map(|number| Write::Remember(answer(number))).collect()).await;
    write(store, jobs().into_iter().map(Write::PutJob).collect()).await;
    write(store, vec![Write::PutJob(Job { revision: 1, ..jobs().remove(3) })]).await;
    write(store, entities().into_iter().map(Write::PutEntity).collect()).await;
    write(store, vec![Write::PutEntity(Entity { revision: 1, ..entities().remove(3) })]).await;
    log(store, SIGNED).await;
    sign(store).await;
    log(store, ENTRIES - SIGNED).await;
}

/// As every time the same.
pub(super) fn seals() -> Arc<EntrySeals> {
    let key = vault_mem::LockedKey::fill(|key| {
        key.fill(9);
        Ok::<_, vault_mem::LockedMemoryError>(())
    });
    let key = RowKey::new(KeyVersion::FIRST, identity(1), key.unwrap());
    EntrySeals::new(Arc::new(key), Unsealed::Refuse)
}

pub(super) async fn run(old: &Arc<dyn Store>, new: &Arc<dyn Store>) -> Result<Ended, MoveError> {
    run_with(old, new, Vec::new()).await
}

pub(super) async fn run_with(
    old: &Arc<dyn Store>,
    new: &Arc<dyn Store>,
    exported: Vec<Exported>,
) -> Result<Ended, MoveError> {
    run_sealed(old, new, exported, None).await
}

pub(super) async fn run_sealed(
    old: &Arc<dyn Store>,
    new: &Arc<dyn Store>,
    exported: Vec<Exported>,
    seals: Option<Arc<EntrySeals>>,
) -> Result<Ended, MoveError> {
    let opened = |store: &Arc<dyn Store>| Opened { store: Arc::clone(store), shared: None };
    let plan = Move {
        old: &opened(old),
        new: &opened(new),
        identity: &identity(1),
        clock: Arc::new(StoppedClock),
        limits: Limits { rows: 7, bytes: 1500, entries: 90 },
        progress: &Progress::silent(),
        seals,
        exported,
    };
    plan.run().await
}
