//! For tests of the use cases: a vault with people in it, on whatever store, at a time that the test tells.
//!
//! [`Rig::new`] has the people of [`PEOPLE`]; a subject that needs others has a rig of its own on top of [`Rig::set`].

mod touch;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message as _;
use vault_format::note::Signer;
use vault_proto::v1::AuditEntry;

use super::{Context, GrantRules, JobRules, Limits, Parts, PeopleRules, SecondFactorRules, Vault};
use crate::access::testing::test_policies;
use crate::access::{
    Access, Credential, CredentialKind, Directory, Honeytokens, LimitRules, Provisioning, UsageLimits,
};
use crate::audit::{AuditAction, Fixed, Follower, FollowerOptions, KeyJournal, Log, LogOptions};
use crate::domain::class::{ClassOptions, Classes};
use crate::domain::{
    Clock, Entity, EntityKind, EntityScope, Environment, JobBudget, Timestamp, VaultId, VaultIdentity,
};
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::memory::MemoryStore;
use crate::store::{Store, Write};

pub(in crate::vault) use touch::{REQUEST, given};

/// The time at which tests begin.
pub(in crate::vault) const START: u64 = 1_790_000_000_000_000;
pub(in crate::vault) const MINUTE: u64 = 60_000_000;

/// A clock that tests set.
pub(in crate::vault) struct TestClock(AtomicU64);

impl TestClock {
    pub(in crate::vault) fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }

    pub(in crate::vault) fn pass(&self, micros: u64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    pub(in crate::vault) fn set_back(&self, micros: u64) {
        self.0.fetch_sub(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Somebody of the principals file.
pub(in crate::vault) struct Person<'a> {
    pub(in crate::vault) id: &'a str,
    /// `human` or `service`.
    pub(in crate::vault) kind: &'a str,
    /// Lines of TOML: at which tenant, which roles.
    pub(in crate::vault) roles: String,
    /// Lines of security keys that the file lists.
    pub(in crate::vault) keys: Vec<String>,
}

/// The principals file with these people.
pub(in crate::vault) fn directory<'a>(people: impl IntoIterator<Item = Person<'a>>) -> Directory {
    let mut text = String::new();
    for Person { id, kind, roles, keys } in people {
        let keys: Vec<_> = keys.iter().map(|line| format!("'{line}'")).collect();
        let keys = keys.join(",");
        write!(
            text,
            "[[principal]]\nid = '{id}'\nkind = '{kind}'\n\
             identities = ['spiffe://test.local/{id}', 'subject:CN={id},O=Test']\n\
             security_keys = [{keys}]\n[principal.roles]\n{roles}\n"
        )
        .unwrap();
    }
    Directory::parse(&text).unwrap()
}

/// `ada` is on call and `grace` approves at `demo`, `boss` is admin there, `root` everywhere.
const PEOPLE: &[(&str, &str, &str, &str)] = &[
    ("ada", "human", "demo", "oncall"),
    ("grace", "human", "demo", "approver"),
    ("boss", "human", "demo", "admin"),
    ("chief", "human", "demo", "admin"),
    ("root", "human", "*", "admin"),
    ("super", "human", "*", "admin"),
    ("far", "human", "other", "oncall"),
    ("wide", "human", "*", "oncall"),
    ("robot", "service", "demo", "admin"),
    ("app", "service", "demo", "service"),
];

/// The principals file of [`PEOPLE`]; `keys`: lines of security keys that it lists, and whose they are.
pub(in crate::vault) fn people(keys: &[(&str, String)]) -> Directory {
    directory(PEOPLE.iter().map(|(id, kind, scope, role)| Person {
        id,
        kind,
        roles: format!("'{scope}' = ['{role}']"),
        keys: keys.iter().filter(|(of, _)| of == id).map(|(_, line)| line.clone()).collect(),
    }))
}

/// What a rig is made with.
pub(in crate::vault) struct Setting {
    pub(in crate::vault) store: Arc<dyn Store>,
    pub(in crate::vault) people: Directory,
    pub(in crate::vault) grants: GrantRules,
    pub(in crate::vault) user_verification: bool,
}

/// An instance of a vault.
pub(in crate::vault) struct Rig {
    pub(in crate::vault) vault: Vault,
    pub(in crate::vault) store: Arc<dyn Store>,
    pub(in crate::vault) clock: Arc<TestClock>,
}

impl Rig {
    /// In memory, with the people of [`PEOPLE`].
    pub(in crate::vault) async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()), &[], false).await
    }

    /// On a store, with the people of [`PEOPLE`], for whom the file lists these security keys.
    pub(in crate::vault) async fn over(
        store: Arc<dyn Store>,
        keys: &[(&str, String)],
        user_verification: bool,
    ) -> Self {
        let grants = GrantRules::for_tests();
        Self::set(Setting { store, people: people(keys), grants, user_verification }, None).await
    }

    /// `beside`: another instance, whose clock it shares.
    pub(in crate::vault) async fn set(setting: Setting, beside: Option<&Self>) -> Self {
        let Setting { store, people, grants, user_verification } = setting;
        let clock = match beside {
            Some(other) => Arc::clone(&other.clock),
            None => Arc::new(TestClock(AtomicU64::new(START))),
        };
        let as_clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let environment = Environment::parse("dev").unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment };
        let keyring = match beside {
            // Wraps are the KMS's own: all instances have the same one.
            Some(other) => Arc::clone(&other.vault.parts.keyring),
            None => keyring(&identity, &store, &as_clock, TestKms::new("east")),
        };
        let options = LogOptions { deadline: Duration::from_mins(1), max_in_flight: 256 };
        let log = Log::new(Arc::clone(&store), Arc::clone(&as_clock), options);
        let origin = format!("phi-vault/test/{}", store.log());
        let follower = Follower::start(
            Arc::clone(&store),
            Arc::new(Fixed::from(Signer::from_seed(&origin, &[3; 32]).unwrap())),
            &origin,
            Arc::clone(&as_clock),
            FollowerOptions { checkpoint_every: Duration::from_hours(1) },
        );
        let access = Arc::new(Access::new(people, test_policies("dev")));
        let usage = UsageLimits::new(Arc::clone(&store), Arc::clone(&as_clock), LimitRules::default());
        let vault = Vault::new(Parts {
            identity,
            classes: Arc::new(Classes::builtin(ClassOptions { accept_synthetic: true })),
            store: Arc::clone(&store),
            keyring,
            provisioning: Arc::new(Provisioning::new(Arc::clone(&store), Arc::clone(&access))),
            access,
            sessions: None,
            honeytokens: Arc::new(Honeytokens::new(Arc::clone(&store))),
            usage: Arc::new(usage),
            log: Arc::new(log),
            follower: Arc::new(follower.await.unwrap()),
            clock: as_clock,
            limits: LIMITS,
            jobs: JobRules {
                budget: JobBudget { bytes: 1 << 20, kms_calls: 10 },
                waiting: Duration::from_secs(1),
                kms_price: 0,
            },
            people: PeopleRules { second_person: true, wait: Duration::from_hours(72) },
            second_factor: SecondFactorRules { user_verification, for_approvals: true },
            grants,
        });
        Self { vault, store, clock }
    }

    /// It opens keys by this KMS from now on, and knows of none.
    pub(in crate::vault) fn opens_by(&mut self, kms: &Arc<TestKms>) {
        let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&self.clock);
        self.vault.parts.keyring =
            keyring(&self.vault.parts.identity.clone(), &self.store, &clock, Arc::clone(kms));
    }

    pub(in crate::vault) async fn cx(&self, who: &str) -> Context {
        // Each has a certificate of its own.
        let number = PEOPLE.iter().position(|person| person.0 == who).map_or(99, |at| 100 + at as u8);
        self.cx_with(who, number).await
    }

    pub(in crate::vault) async fn cx_with(&self, who: &str, certificate: u8) -> Context {
        self.cx_by(&format!("spiffe://test.local/{who}"), certificate).await
    }

    /// A request of whoever has this identity.
    pub(in crate::vault) async fn cx_by(&self, identity: &str, certificate: u8) -> Context {
        let credential = Credential {
            kind: CredentialKind::Certificate,
            fingerprint: [certificate; 32],
            identities: vec![identity.to_owned()],
            source: None,
            not_before: Timestamp(0),
            not_after: Timestamp(u64::MAX),
        };
        self.vault.enter(&credential, AuditAction::GrantRequest).await.unwrap()
    }

    /// Puts a row that is not there.
    pub(in crate::vault) async fn put_row(&self, row: Entity) {
        self.vault.parts.log.write(vec![Write::PutEntity(row)]).await.unwrap();
    }

    pub(in crate::vault) async fn rows(&self, kind: EntityKind) -> Vec<Entity> {
        self.store.entities(&EntityScope::Kind(kind), None, 1000).await.unwrap()
    }

    /// What this instance has written to its log.
    pub(in crate::vault) async fn entries(&self) -> Vec<AuditEntry> {
        let entries = self.store.entries(self.store.log(), 0, 10_000, 1 << 24).await.unwrap();
        entries.iter().map(|bytes| AuditEntry::decode(&bytes[..]).unwrap()).collect()
    }

    /// The alerts that wait for delivery: their kinds, sorted.
    pub(in crate::vault) async fn alerts(&self) -> Vec<String> {
        let kind = |row: &Entity| {
            let json: serde_json::Value = serde_json::from_slice(&row.content[13..]).unwrap();
            json["kind"].as_str().unwrap().to_owned()
        };
        let mut kinds: Vec<_> = self.rows(EntityKind::Alert).await.iter().map(kind).collect();
        kinds.sort_unstable();
        kinds
    }
}

/// So much that no test here comes to an end of it.
const LIMITS: Limits =
    Limits { items: 1000, value_bytes: 100, response_bytes: 1 << 20, remember: Duration::from_mins(1) };

fn keyring(
    identity: &VaultIdentity,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    kms: Arc<TestKms>,
) -> Arc<Keyring> {
    Arc::new(Keyring::new(
        identity.clone(),
        Arc::clone(store),
        WrappingKeys::new(vec![kms]),
        Arc::new(KeyJournal::new(Arc::clone(clock))),
        Arc::clone(clock),
        CacheOptions { lifetime: Duration::from_hours(1), max_uses: u64::MAX, max_entries: 100 },
    ))
}
