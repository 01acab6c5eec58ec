//! Who starts a vault, and what becomes of rows that it did not write.

use std::time::Duration;

use super::*;
use crate::access::testing::{test_directory, test_policies};
use crate::access::{
    Access, Honeytoken, Honeytokens, Principal, PrincipalKind, Provisioning, next_generation, write_principal,
};
use crate::audit::KeyJournal;
use crate::domain::{
    ClassName, Clock, Environment, KeyPurpose, PrincipalId, SystemClock, TenantId, Timestamp, Token, VaultId,
    VaultIdentity,
};
use crate::keyring::CacheOptions;
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::memory::MemoryStore;
use crate::store::{Change, LogId, Write};

pub(in crate::app) fn identity() -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment: Environment::parse("dev").unwrap() }
}

/// A database, and the KMS whose keys wrap the vault's.
pub(in crate::app) struct Bench {
    pub(in crate::app) store: MemoryStore,
    pub(in crate::app) kms: Arc<TestKms>,
}

impl Bench {
    pub(in crate::app) fn new() -> Self {
        Self { store: MemoryStore::new(), kms: TestKms::new("east") }
    }

    pub(in crate::app) fn keyring(&self, store: &MemoryStore) -> Arc<Keyring> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Arc::new(Keyring::new(
            identity(),
            Arc::new(store.clone()),
            WrappingKeys::new(vec![Arc::clone(&self.kms) as _]),
            Arc::new(KeyJournal::new(Arc::clone(&clock))),
            clock,
            CacheOptions { lifetime: Duration::from_mins(1), max_uses: u64::MAX, max_entries: 100 },
        ))
    }

    /// Starts an instance.
    pub(in crate::app) async fn start(&self, log: u32) -> anyhow::Result<Arc<dyn Store>> {
        let store = self.store.instance(LogId(log));
        let keyring = self.keyring(&store);
        sealed(&(Arc::new(store) as Arc<dyn Store>), &keyring, Unsealed::Refuse).await
    }
}

pub(in crate::app) async fn put(store: &dyn Store, entity: Entity) {
    store.commit(Change { writes: vec![Write::PutEntity(entity)], entries: Vec::new() }).await.unwrap();
}

pub(in crate::app) fn principal(id: &str) -> Principal {
    Principal {
        id: PrincipalId::parse(id).unwrap(),
        kind: PrincipalKind::Human,
        identities: [format!("spiffe://test.local/{id}")].into(),
        roles: [(
            crate::access::TenantScope::All,
            std::iter::once(crate::access::Role::parse("admin").unwrap()).collect(),
        )]
        .into(),
        owner: None,
        enabled: true,
        expires: None,
        revision: None,
    }
}

async fn key_rows(store: &MemoryStore) -> usize {
    store.keys(None, KeyPurpose::RowMac).await.unwrap().len()
}

#[tokio::test]
async fn a_new_vault_makes_its_key_before_anything_else_and_opens_it_from_then_on() {
    let bench = Bench::new();
    let store = bench.start(0).await.unwrap();
    assert_eq!((key_rows(&bench.store).await, store.log_size(LogId(0)).await), (1, Ok(1)));
    put(&*store, write_principal(&principal("ann"))).await;
    let again = bench.start(0).await.unwrap();
    let place = write_principal(&principal("ann")).place;
    assert_eq!(again.entity(&place).await, store.entity(&place).await);
    assert_eq!((key_rows(&bench.store).await, store.log_size(LogId(0)).await), (1, Ok(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_start_at_once_have_one_key() {
    for _ in 0..20 {
        let bench = Bench::new();
        let (one, other, third) = tokio::join!(bench.start(0), bench.start(1), bench.start(2));
        let (one, other, third) = (one.unwrap(), other.unwrap(), third.unwrap());
        let ann = write_principal(&principal("ann"));
        put(&*one, ann.clone()).await;
        assert_eq!(other.entity(&ann.place).await, Ok(Some(ann.clone())));
        assert_eq!(third.entity(&ann.place).await, Ok(Some(ann)));
        assert_eq!(key_rows(&bench.store).await, 1);
    }
}

#[tokio::test]
async fn every_entry_of_a_new_vault_has_its_seal_that_of_the_key_itself_too() {
    let bench = Bench::new();
    for log in [0, 1] {
        let store = bench.start(log).await.unwrap();
        let entry = Change { writes: Vec::new(), entries: vec!["an entry".into()] };
        store.commit(entry).await.unwrap();
        let log = LogId(log);
        let size = store.log_size(log).await.unwrap();
        assert_eq!(store.entries_to_sign(log, 0, 99, 9999).await.unwrap().len() as u64, size);
        // Of somebody who has the database alone.
        let forged = Change { writes: Vec::new(), entries: vec!["forged".into()] };
        bench.store.instance(log).commit(forged).await.unwrap();
        let refused = store.entries_to_sign(log, 0, 99, 9999).await;
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert_eq!(store.entries(log, 0, 99, 9999).await.unwrap().len() as u64, size + 1);
    }
}

#[tokio::test]
async fn a_vault_with_a_log_and_no_key_is_not_served() {
    let bench = Bench::new();
    let entry = Change { writes: Vec::new(), entries: vec!["an entry".into()] };
    // Of another instance, too.
    bench.store.instance(LogId(3)).commit(entry).await.unwrap();
    for _ in 0..2 {
        let refused = bench.start(0).await.err().unwrap().to_string();
        assert!(refused.contains("vault-server seal-rows") && refused.contains("restore"), "{refused}");
    }
    assert_eq!(key_rows(&bench.store).await, 0, "none is made for it");
}

#[tokio::test]
async fn a_vault_whose_key_does_not_open_is_not_served() {
    let bench = Bench::new();
    bench.start(0).await.unwrap();
    // The database's administrator has no KMS: whatever is put there does not open.
    let of_another = Bench { store: bench.store.clone(), kms: TestKms::new("east") };
    assert!(of_another.start(0).await.is_err());
}

#[tokio::test]
async fn a_principal_that_the_vault_did_not_write_is_nobody_and_the_others_are_who_they_were() {
    let bench = Bench::new();
    let store = bench.start(0).await.unwrap();
    put(&*store, write_principal(&principal("ann"))).await;
    put(&bench.store, write_principal(&principal("eve"))).await;
    // Ann's row at Joe's place, as the vault sealed it.
    let ann = bench.store.entity(&write_principal(&principal("ann")).place).await.unwrap().unwrap();
    let joe = write_principal(&principal("joe")).place;
    put(&bench.store, Entity { place: joe, revision: 0, content: ann.content }).await;
    put(&*store, next_generation(None).unwrap()).await;
    let access = Arc::new(Access::new(test_directory(), test_policies("dev")));
    let provisioning = Provisioning::new(Arc::clone(&store), Arc::clone(&access));
    provisioning.look().await.unwrap();
    let known = |name: &str| {
        let credential = crate::access::testing::test_credential(name);
        access.authenticate(&credential, Timestamp(1)).is_ok()
    };
    assert!(known("ann") && !known("eve") && !known("joe"));
    // A row of the vault's that is altered while it is served: with the next change that person is nobody.
    let ann = bench.store.entity(&write_principal(&principal("ann")).place).await.unwrap().unwrap();
    let mut content = ann.content.clone();
    *content.last_mut().unwrap() ^= 1;
    put(&bench.store, Entity { revision: 1, content, ..ann }).await;
    let before = store.entity(&crate::access::generation_place()).await.unwrap();
    put(&*store, next_generation(before.as_ref()).unwrap()).await;
    provisioning.look().await.unwrap();
    assert!(!known("ann"));
}

#[tokio::test]
async fn a_honeytoken_whose_row_is_altered_goes_on_to_be_one_and_a_forged_one_is_none() {
    let planted = |number: u8| Honeytoken {
        tenant: TenantId::parse("st-mary").unwrap(),
        token: Token::from_bytes([number; 16]),
        class: ClassName::parse("ssn").unwrap(),
        label: String::new(),
        planted: Timestamp(7),
        planted_by: PrincipalId::parse("root").unwrap(),
        touched: None,
        revision: 0,
    };
    let bench = Bench::new();
    let store = bench.start(0).await.unwrap();
    for number in [1, 2] {
        put(&*store, planted(number).entity()).await;
    }
    put(&*store, Honeytokens::next_generation(None)).await;
    let honeytokens = Honeytokens::new(Arc::clone(&store));
    honeytokens.look().await.unwrap();
    put(&bench.store, Entity { revision: 1, ..planted(1).entity() }).await;
    put(&bench.store, planted(3).entity()).await;
    let before = store.entity(&Honeytokens::generation_place()).await.unwrap();
    put(&*store, Honeytokens::next_generation(before.as_ref())).await;
    honeytokens.look().await.unwrap();
    let tokens = [1, 2, 3].map(|number| planted(number).token);
    assert_eq!(honeytokens.among(tokens.into_iter()), [planted(1), planted(2)]);
}
