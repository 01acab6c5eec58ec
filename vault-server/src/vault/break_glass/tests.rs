use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use prost::Message as _;
use vault_format::note::Signer;
use vault_proto::v1::AuditEntry;

use super::*;
use crate::access::authenticator::{Authenticator, Manner};
use crate::access::testing::test_policies;
use crate::access::{
    Access, Credential, CredentialKind, Directory, Honeytokens, LimitRules, Provisioning, ReviewVerdict,
    UsageLimits,
};
use crate::audit::{AuditAction, Fixed, Follower, FollowerOptions, KeyJournal, Log, LogOptions};
use crate::domain::class::{ClassOptions, Classes};
use crate::domain::{
    ClassName, Clock, Entity, EntityKind, EntityScope, Environment, IdempotencyKey, InstanceId, JobBudget,
    LeaseName, Plaintext, Purpose, SecondFactorAction, SubjectId, Timestamp, Token, VaultId, VaultIdentity,
};
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::memory::MemoryStore;
use crate::store::postgres::{self, Password, PostgresOptions, Transport};
use crate::store::{Leases, LogId, Store, StoreError};
use crate::vault::{GivenFactor, JobRules, Limits, NewValue, Note, Parts, PeopleRules, SecondFactorRules};

const START: u64 = 1_790_000_000_000_000;
const MINUTE: u64 = 60_000_000;
const DAY: u64 = 24 * 60 * MINUTE;
const HASH: [u8; 32] = [9; 32];
const WHY: &str = "The patient in bay 4 does not answer";

struct TestClock(AtomicU64);

impl TestClock {
    fn pass(&self, micros: u64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Id, kind, roles, and the seed of the security key.
const PEOPLE: &[(&str, &str, &str, u8)] = &[
    ("dora", "human", "'demo' = ['oncall']\n'other' = ['oncall']", 1),
    ("dirk", "human", "'demo' = ['oncall']", 2),
    ("gus", "human", "'demo' = ['approver']", 3),
    ("hal", "human", "'demo' = ['approver']\n'other' = ['approver']", 4),
    ("dual", "human", "'demo' = ['oncall', 'approver', 'auditor']", 5),
    ("ann", "human", "'demo' = ['auditor']", 6),
    ("boss", "human", "'demo' = ['admin']", 7),
    ("robot", "service", "'demo' = ['oncall', 'approver', 'auditor']", 8),
    ("app", "service", "'demo' = ['service']\n'other' = ['service']", 9),
];

fn people() -> Directory {
    let mut text = String::new();
    for (id, kind, roles, seed) in PEOPLE {
        let key = Authenticator::ed25519(*seed).line(id);
        let keys = if *kind == "human" { format!("security_keys = ['{key}']\n") } else { String::new() };
        write!(
            text,
            "[[principal]]\nid = '{id}'\nkind = '{kind}'\n\
             identities = ['spiffe://test.local/{id}', 'subject:CN={id},O=Test']\n{keys}[principal.roles]\n{roles}\n"
        )
        .unwrap();
    }
    Directory::parse(&text).unwrap()
}

fn rules() -> GrantRules {
    GrantRules::for_tests()
}

struct Rig {
    vault: Vault,
    store: Arc<dyn Store>,
    clock: Arc<TestClock>,
    counter: AtomicU32,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()), rules(), None).await
    }

    /// `beside`: another instance, whose clock it shares.
    async fn with(store: Arc<dyn Store>, grants: GrantRules, beside: Option<&Self>) -> Self {
        let clock = match beside {
            Some(other) => Arc::clone(&other.clock),
            None => Arc::new(TestClock(AtomicU64::new(START))),
        };
        let as_clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let environment = Environment::parse("dev").unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment };
        let kms = match beside {
            // Wraps are the KMS's own: all instances have the same one.
            Some(other) => Arc::clone(&other.vault.parts.keyring),
            None => Arc::new(Keyring::new(
                identity.clone(),
                Arc::clone(&store),
                WrappingKeys::new(vec![TestKms::new("east")]),
                Arc::new(KeyJournal::new(Arc::clone(&as_clock))),
                Arc::clone(&as_clock),
                CacheOptions { lifetime: Duration::from_hours(1), max_uses: u64::MAX, max_entries: 100 },
            )),
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
        let access = Arc::new(Access::new(people(), test_policies("dev")));
        let provisioning = Provisioning::new(Arc::clone(&store), Arc::clone(&access));
        let vault = Vault::new(Parts {
            identity,
            classes: Arc::new(Classes::builtin(ClassOptions { accept_synthetic: true })),
            store: Arc::clone(&store),
            keyring: kms,
            access,
            provisioning: Arc::new(provisioning),
            sessions: None,
            honeytokens: Arc::new(Honeytokens::new(Arc::clone(&store))),
            usage: Arc::new(UsageLimits::new(
                Arc::clone(&store),
                Arc::clone(&as_clock),
                LimitRules::default(),
            )),
            log: Arc::new(log),
            follower: Arc::new(follower.await.unwrap()),
            clock: as_clock,
            limits: Limits {
                items: 1000,
                value_bytes: 100,
                response_bytes: 1 << 20,
                remember: Duration::from_mins(1),
            },
            jobs: JobRules {
                budget: JobBudget { bytes: 1 << 20, kms_calls: 10 },
                waiting: Duration::from_secs(1),
                kms_price: 0,
            },
            people: PeopleRules { second_person: true, wait: Duration::from_hours(72) },
            second_factor: SecondFactorRules { user_verification: false, for_approvals: true },
            grants,
        });
        Self { vault, store, clock, counter: AtomicU32::new(beside.map_or(1, |_| 1000)) }
    }

    async fn cx(&self, who: &str) -> Context {
        let certificate = 20 + PEOPLE.iter().position(|person| person.0 == who).unwrap() as u8;
        self.cx_by(&format!("spiffe://test.local/{who}"), certificate).await
    }

    async fn cx_by(&self, identity: &str, certificate: u8) -> Context {
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

    /// A touch of the caller's security key.
    async fn factor(&self, cx: &Context, action: SecondFactorAction) -> Option<GivenFactor> {
        let seed = PEOPLE.iter().find(|person| person.0 == cx.caller.principal.id.as_str()).unwrap().3;
        let begun = self.vault.begin_second_factor(cx, Ok((action, HASH))).await.ok()?;
        let counter = self.counter.fetch_add(1, Ordering::SeqCst);
        let signature = Authenticator::ed25519(seed).pem(&begun.text, Manner::good(counter));
        Some(GivenFactor { challenge: begun.challenge, signature, request_hash: HASH })
    }

    async fn keep(&self, tenant: &str, values: usize, subject: Option<&str>) -> Vec<Token> {
        let cx = self.cx("app").await;
        let value = |n| {
            Ok(NewValue {
                class: ClassName::parse("email").unwrap(),
                value: Plaintext::from_utf8(format!("p{n}@example.org").into_bytes()).unwrap(),
                subject: subject.map(|id| SubjectId::parse(id.to_owned()).unwrap()),
            })
        };
        let kept = self.vault.tokenize(&cx, tenant, Ok((0..values).map(value).collect()), Ok(None)).await;
        kept.unwrap_or_else(|refused| panic!("{refused:?}")).into_iter().map(Result::unwrap).collect()
    }

    async fn ask(&self, cx: &Context, tenant: &str, mut asked: GrantAsked) -> Result<Grant, Problem> {
        if asked.factor.is_none() {
            asked.factor = self.factor(cx, SecondFactorAction::GrantRequest).await;
        }
        told(self.vault.request_grant(cx, tenant, Ok(asked)).await)
    }

    async fn approve(&self, cx: &Context, grant: &Grant) -> Result<Grant, Problem> {
        let factor = self.factor(cx, SecondFactorAction::GrantApprove).await;
        let terms = grant.terms().hash().to_vec();
        let asked = Approving { id: grant.terms().id, terms, notes: String::new(), factor };
        told(self.vault.approve_grant(cx, grant.terms().tenant.as_str(), Ok(asked)).await)
    }

    /// A grant of dora's about these tokens, approved by gus.
    async fn granted(&self, tokens: &[Token], values: u32) -> Grant {
        let asked = GrantAsked { values, ..asked(tokens, "granted") };
        let grant = self.ask(&self.cx("dora").await, "demo", asked).await.unwrap();
        self.approve(&self.cx("gus").await, &grant).await.unwrap()
    }

    async fn reveal(&self, cx: &Context, grant: &Grant, tokens: &[Token]) -> Result<Vec<Shown>, Problem> {
        let parsed = tokens.iter().copied().map(Ok).collect();
        let revealed = self.vault.reveal(cx, "demo", Ok(grant.terms().id), parsed).await;
        let (revealed, _) = told(revealed)?;
        let shown = |revealed: Revealed| {
            revealed.outcome.map(|(class, opened)| {
                assert_eq!(class.as_str(), "email");
                opened.value.expose().to_owned()
            })
        };
        Ok(revealed.into_iter().map(shown).collect())
    }

    async fn close(&self, cx: &Context, grant: &Grant) -> Result<Grant, Problem> {
        told(self.vault.close_grant(cx, "demo", Ok((grant.terms().id, String::new()))).await)
    }

    async fn review(&self, cx: &Context, grant: &Grant, verdict: ReviewVerdict) -> Result<Grant, Problem> {
        let asked = Reviewing { id: grant.terms().id, verdict, notes: "It was as they said".to_owned() };
        told(self.vault.review_grant(cx, "demo", Ok(asked)).await)
    }

    async fn get(&self, grant: &Grant) -> Grant {
        let cx = self.cx("ann").await;
        told(self.vault.get_grant(&cx, "demo", Ok(grant.terms().id)).await).unwrap()
    }

    /// As it is kept.
    async fn row(&self, grant: &Grant) -> Entity {
        let place = Grant::place(&grant.terms().tenant, grant.terms().id);
        self.store.entity(&place).await.unwrap().unwrap()
    }

    async fn entries(&self) -> Vec<AuditEntry> {
        let entries = self.store.entries(self.store.log(), 0, 10_000, 1 << 24).await.unwrap();
        entries.iter().map(|bytes| AuditEntry::decode(&bytes[..]).unwrap()).collect()
    }

    async fn last(&self, action: AuditAction) -> AuditEntry {
        let of = |entry: &AuditEntry| entry.action() == action;
        self.entries().await.into_iter().rfind(of).expect("an entry of the action")
    }

    /// Kinds of the alerts that wait for delivery, sorted.
    async fn alerts(&self) -> Vec<String> {
        let rows = self.store.entities(&EntityScope::Kind(EntityKind::Alert), None, 1000).await.unwrap();
        let kind = |row: &Entity| {
            let text = std::str::from_utf8(&row.content[13..]).unwrap();
            assert!(!text.contains("phi_") && !text.contains("bay 4") && !text.contains("INC"), "{text}");
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            json["kind"].as_str().unwrap().to_owned()
        };
        let mut kinds: Vec<_> = rows.iter().map(kind).collect();
        kinds.sort();
        kinds
    }

    /// What the sweep of an instance does.
    async fn sweep(&self) {
        let instance = InstanceId::random().unwrap();
        let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&self.clock);
        let leases = Leases::new(Arc::clone(&self.store), clock, instance);
        let name = LeaseName::parse("grants/end").unwrap();
        let held = leases.take(&name, Duration::from_secs(1)).await.unwrap().unwrap();
        for due in told(self.vault.grants_due().await).unwrap() {
            told(self.vault.end_due(&due, held.fence()).await).unwrap();
        }
        leases.release(held).await.unwrap();
    }
}

type Shown = Result<String, Problem>;

fn asked(tokens: &[Token], key: &str) -> GrantAsked {
    GrantAsked {
        scope: AskedScope::Tokens(tokens.iter().copied().map(Ok).collect()),
        classes: vec![ClassName::parse("email").unwrap()],
        reason_code: "patient_safety".to_owned(),
        reason: WHY.to_owned(),
        ticket: "INC-4711".to_owned(),
        duration: 0,
        values: 0,
        key: IdempotencyKey::parse(key).unwrap(),
        factor: None,
    }
}

/// A refusal is on record before anybody is told.
fn told<T>(outcome: Result<T, Refused>) -> Result<T, Problem> {
    outcome.map_err(|refused| {
        assert!(refused.logged, "{refused:?} is not on record");
        refused.problem
    })
}

fn detail<'a>(entry: &'a AuditEntry, name: &str) -> &'a str {
    entry.details.get(name).map_or("", String::as_str)
}

#[tokio::test]
async fn glass_is_broken_on_record_from_the_request_to_the_review() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 3, None).await;
    let (dora, gus) = (rig.cx("dora").await, rig.cx("gus").await);
    let grant = rig.ask(&dora, "demo", asked(&tokens[..2], "k")).await.unwrap();
    assert_eq!((grant.state(), grant.terms().values), (GrantState::Requested, 2));
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantState));
    let grant = rig.approve(&gus, &grant).await.unwrap();
    assert_eq!(grant.state(), GrantState::Active);
    let shown = rig.reveal(&dora, &grant, &[tokens[1], tokens[2]]).await.unwrap();
    assert_eq!(shown, [Ok("p1@example.org".to_owned()), Err(Problem::NotFound)]);
    let entry = rig.last(AuditAction::Detokenize).await;
    assert_eq!(
        (entry.purpose.as_str(), entry.grant),
        (Purpose::BreakTheGlass.code(), grant.terms().id.to_string())
    );
    assert_eq!((entry.reason.as_str(), entry.ticket.as_str()), (WHY, "INC-4711"));
    assert_eq!(detail(&rig.last(AuditAction::Detokenize).await, "emergency_override"), "started");
    assert_eq!(entry.items.len(), 2);
    // What is not the grant's does not count.
    let grant = rig.get(&grant).await;
    assert_eq!((grant.seen(), grant.left()), (1, 1));
    let shown = rig.reveal(&dora, &grant, &[]).await.unwrap();
    assert_eq!(shown, [Ok("p0@example.org".to_owned()), Err(Problem::GrantState)], "one was left");
    assert_eq!(detail(&rig.last(AuditAction::Detokenize).await, "emergency_override"), "");
    let grant = rig.get(&grant).await;
    assert_eq!((grant.state(), grant.end().unwrap().how), (GrantState::Over, crate::access::Ended::UsedUp));
    let end = rig.last(AuditAction::GrantEnd).await;
    assert_eq!((detail(&end, "ended"), detail(&end, "emergency_override")), ("used_up", "stopped"));
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantState));
    let grant = rig.review(&rig.cx("ann").await, &grant, ReviewVerdict::NotJustified).await.unwrap();
    assert_eq!(grant.state(), GrantState::Reviewed);
    let told = ["grant_active", "grant_ended", "grant_first_use", "grant_questioned", "grant_requested"];
    assert_eq!(rig.alerts().await, told);
    // Nothing waits any more.
    assert!(pending::Pending::all(&*rig.store).await.unwrap().is_empty());
}

/// So many values are told, however many ask at once on so many instances.
async fn exactly_ten(instances: Vec<Rig>, clients: usize) {
    let tokens = instances[0].keep("demo", 4, None).await;
    let grant = instances[0].granted(&tokens, 10).await;
    let instances: Arc<Vec<Rig>> = Arc::new(instances);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (instances, grant, tokens) = (Arc::clone(&instances), grant.clone(), tokens.clone());
        tasks.spawn(async move {
            let rig = &instances[client % instances.len()];
            let dora = rig.cx("dora").await;
            let mut told = 0;
            // One asks for one, another for three at once.
            while let Ok(shown) = rig.reveal(&dora, &grant, &tokens[..=2 * (client % 2)]).await {
                told += shown.iter().filter(|shown| shown.is_ok()).count();
            }
            told
        });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 10);
    let rig = &instances[0];
    assert_eq!(rig.get(&grant).await.seen(), 10);
    let mut on_record = 0;
    for rig in instances.iter() {
        let opened =
            rig.entries().await.into_iter().filter(|entry| entry.action() == AuditAction::Detokenize);
        on_record += opened.flat_map(|entry| entry.items).filter(|item| item.outcome == 1).count();
    }
    assert_eq!(on_record, 10);
    let firsts = rig.alerts().await.into_iter().filter(|kind| kind == "grant_first_use").count();
    assert_eq!(firsts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_in_memory() {
    let store = MemoryStore::new();
    let one = Rig::with(Arc::new(store.clone()), rules(), None).await;
    let two = Rig::with(Arc::new(store.instance(LogId(1))), rules(), Some(&one)).await;
    exactly_ten(vec![one, two], 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_on_disk() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = || embedded::open(EngineKind::Fjall, dir.path(), StoreOptions::default()).unwrap();
    let store = tokio::task::block_in_place(open);
    exactly_ten(vec![Rig::with(store, rules(), None).await], 32).await;
}

/// So many instances on one database; `None` where there is no server to test with.
async fn on_postgres(instances: usize) -> Option<Vec<Rig>> {
    let Ok(url) = std::env::var("PHI_VAULT_TEST_POSTGRES") else {
        println!("skipped: no PostgreSQL to test with (PHI_VAULT_TEST_POSTGRES)");
        return None;
    };
    let server: tokio_postgres::Config = url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &server.get_hosts()[0] else { panic!("{url}") };
    let database = format!("glass_{}_{instances}", std::process::id());
    let (client, connection) = server.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
    let mut rigs: Vec<Rig> = Vec::new();
    for number in 0..instances {
        let options = PostgresOptions {
            hosts: vec![(host.clone(), server.get_ports()[0])],
            database: database.clone(),
            user: server.get_user().unwrap().to_owned(),
            password: Password::None,
            transport: Transport::Plain,
            connections: 4,
            instance: Some(format!("glass-{number}")),
            lease: Duration::from_mins(1),
        };
        let store = postgres::open(options, None).await.unwrap();
        let environment = Environment::parse("dev").unwrap();
        store.found(&VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment }).await.unwrap();
        rigs.push(Rig::with(store, rules(), rigs.first()).await);
    }
    Some(rigs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_on_one_and_on_three_instances() {
    for instances in [1, 3] {
        let Some(rigs) = on_postgres(instances).await else { return };
        exactly_ten(rigs, 32).await;
    }
}

#[tokio::test]
async fn nobody_approves_its_own_whoever_it_says_it_is() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dual = rig.cx("dual").await;
    let grant = rig.ask(&dual, "demo", asked(&tokens, "k")).await.unwrap();
    let before = rig.row(&grant).await;
    for (identity, certificate) in [
        ("spiffe://test.local/dual", 7),
        ("SPIFFE://TEST.LOCAL/dual", 8),
        ("spiffe://Test.Local/dual/", 9),
        ("subject:CN=dual,O=Test", 10),
        ("subject:cn=dual, o=Test", 11),
    ] {
        let cx = rig.cx_by(identity, certificate).await;
        assert_eq!(rig.approve(&cx, &grant).await, Err(Problem::SecondPerson), "{identity}");
        let entry = rig.last(AuditAction::GrantApprove).await;
        assert_eq!((entry.cause.as_str(), detail(&entry, "why")), ("second_person", "second_person"));
        assert_eq!(rig.row(&grant).await, before, "{identity}");
    }
    // Nor is one's own reviewed, nor one that one approved.
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    let grant = rig.close(&dual, &grant).await.unwrap();
    assert_eq!(rig.review(&dual, &grant, ReviewVerdict::Justified).await, Err(Problem::SecondPerson));
    // A program is no person.
    let robot = rig.cx("robot").await;
    for refused in [
        told(rig.vault.request_grant(&robot, "demo", Ok(asked(&tokens, "r"))).await),
        rig.approve(&robot, &grant).await,
        rig.review(&robot, &grant, ReviewVerdict::Justified).await,
    ] {
        assert_eq!(refused, Err(Problem::ActionNotAllowed));
    }
}

#[tokio::test]
async fn an_approval_is_good_once_and_for_one_grant() {
    let store = MemoryStore::new();
    let rig = Rig::with(Arc::new(store.clone()), GrantRules { approvals: 2, ..rules() }, None).await;
    let other = Rig::with(Arc::new(store.instance(LogId(1))), rules(), Some(&rig)).await;
    let tokens = rig.keep("demo", 2, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens[..1], "a")).await.unwrap();
    let wider = rig.ask(&dora, "demo", asked(&tokens, "b")).await.unwrap();
    let gus = rig.cx("gus").await;
    let factor = rig.factor(&gus, SecondFactorAction::GrantApprove).await;
    let approving = |grant: &Grant, terms: &Grant, factor: &Option<GivenFactor>| Approving {
        id: grant.terms().id,
        terms: terms.terms().hash().to_vec(),
        notes: String::new(),
        factor: factor.clone(),
    };
    // Terms of another grant.
    let before = rig.row(&wider).await;
    let refused = rig.vault.approve_grant(&gus, "demo", Ok(approving(&wider, &grant, &factor))).await;
    assert_eq!(told(refused), Err(Problem::GrantChanged));
    assert_eq!(rig.row(&wider).await, before);
    // Once.
    let once = rig.vault.approve_grant(&gus, "demo", Ok(approving(&grant, &grant, &factor))).await;
    assert_eq!(told(once).unwrap().state(), GrantState::Requested, "one of two");
    // The same again: here, on another instance, and for another grant.
    let before = (rig.row(&grant).await, rig.row(&wider).await);
    for (rig, grant, problem) in [
        (&rig, &grant, Problem::SecondPerson),
        (&other, &grant, Problem::SecondPerson),
        (&rig, &wider, Problem::SecondFactor("second_factor_unknown")),
        (&other, &wider, Problem::SecondFactor("second_factor_unknown")),
    ] {
        let gus = rig.cx("gus").await;
        let again = rig.vault.approve_grant(&gus, "demo", Ok(approving(grant, grant, &factor))).await;
        assert_eq!(told(again), Err(problem));
    }
    assert_eq!((rig.row(&grant).await, rig.row(&wider).await), before);
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantState));
    let grant = other.approve(&other.cx("hal").await, &grant).await.unwrap();
    assert_eq!(grant.state(), GrantState::Active);
    let entry = other.last(AuditAction::GrantApprove).await;
    assert_eq!((detail(&entry, "approvals"), detail(&entry, "security_key").is_empty()), ("2/2", false));
    // Without a touch there is none.
    let refused = rig.vault.approve_grant(&gus, "demo", Ok(approving(&wider, &wider, &None))).await;
    assert_eq!(told(refused), Err(Problem::SecondFactor("second_factor_missing")));
}

#[tokio::test]
async fn a_scope_that_was_widened_in_the_store_is_refused() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 2, None).await;
    let grant = rig.granted(&tokens[..1], 1).await;
    let row = rig.row(&grant).await;
    // The second token in place of the first.
    let at = row.content.windows(16).position(|bytes| bytes == tokens[0].as_bytes()).unwrap();
    let mut content = row.content.clone();
    content[at..at + 16].copy_from_slice(tokens[1].as_bytes());
    let widened = Entity { content, revision: row.revision + 1, ..row };
    rig.vault.parts.log.write(vec![Write::PutEntity(widened)]).await.unwrap();
    let dora = rig.cx("dora").await;
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantChanged));
    assert_eq!(rig.last(AuditAction::Detokenize).await.cause, "grant_changed");
}

#[tokio::test]
async fn a_grant_is_its_requesters_with_the_credential_it_asked_with() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let grant = rig.granted(&tokens, 5).await;
    let before = rig.row(&grant).await;
    for (cx, problem, why) in [
        (rig.cx("dirk").await, Problem::NotFound, "another_requester"),
        (rig.cx("gus").await, Problem::NotFound, "another_requester"),
        (rig.cx_by("spiffe://test.local/dora", 99).await, Problem::GrantState, "another_credential"),
    ] {
        assert_eq!(rig.reveal(&cx, &grant, &tokens).await, Err(problem));
        let entry = rig.last(AuditAction::Detokenize).await;
        assert_eq!((detail(&entry, "why"), entry.items.len()), (why, 1));
    }
    // Another grant's id, and one that is none.
    let id = GrantId::from_bytes([1; 16]);
    let unknown = rig.vault.reveal(&rig.cx("dora").await, "demo", Ok(id), Vec::new()).await;
    assert_eq!(told(unknown).err(), Some(Problem::NotFound));
    assert_eq!(rig.row(&grant).await, before);
    // The grant is no key to a detokenize.
    let dora = rig.cx("dora").await;
    let parsed = Ok(tokens.iter().copied().map(Ok).collect());
    let around = rig.vault.detokenize(&dora, "demo", parsed, Ok(Purpose::BreakTheGlass), Ok(Note::default()));
    assert_eq!(told(around.await).err(), Some(Problem::ActionNotAllowed));
}

#[tokio::test]
async fn what_is_over_gives_nothing_whatever_the_clock_says() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.granted(&tokens, 9).await;
    rig.clock.pass(15 * MINUTE);
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::GrantState));
    let end = rig.last(AuditAction::GrantEnd).await;
    assert_eq!((detail(&end, "ended"), detail(&end, "emergency_override")), ("expired", ""));
    assert_eq!(end.actor.unwrap().principal, "");
    // Set back by three days: what is over stays so.
    rig.clock.0.fetch_sub(3 * DAY, Ordering::SeqCst);
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::GrantState));
    assert_eq!(rig.get(&grant).await.state(), GrantState::Over);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_gives_no_more_time() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.granted(&tokens, 9).await;
    rig.clock.0.fetch_sub(3 * DAY, Ordering::SeqCst);
    assert!(rig.reveal(&dora, &grant, &tokens).await.unwrap()[0].is_ok());
    tokio::time::advance(Duration::from_mins(15)).await;
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::GrantState));
    // An instance that has seen it since its approval ends it, too.
    assert_eq!(rig.get(&grant).await.end().unwrap().how, crate::access::Ended::Expired);
}

#[tokio::test]
async fn the_vault_ends_what_nobody_looks_at() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let waits = rig.ask(&rig.cx("dirk").await, "demo", asked(&tokens, "w")).await.unwrap();
    let grant = rig.granted(&tokens, 9).await;
    rig.reveal(&rig.cx("dora").await, &grant, &tokens).await.unwrap();
    rig.sweep().await;
    assert_eq!(rig.last(AuditAction::Detokenize).await.grant, grant.terms().id.to_string());
    rig.clock.pass(20 * MINUTE);
    rig.sweep().await;
    let read = |entity: Entity| Grant::read(&entity).unwrap();
    let grant = read(rig.row(&grant).await);
    assert_eq!(grant.state(), GrantState::Over);
    assert_eq!(read(rig.row(&waits).await).state(), GrantState::Requested);
    let end = rig.last(AuditAction::GrantEnd).await;
    assert_eq!((detail(&end, "ended"), detail(&end, "emergency_override")), ("expired", "stopped"));
    rig.clock.pass(60 * MINUTE);
    rig.sweep().await;
    assert_eq!(read(rig.row(&waits).await).state(), GrantState::Lapsed);
    assert!(pending::Pending::all(&*rig.store).await.unwrap().is_empty());
    let ended = rig.alerts().await.into_iter().filter(|kind| kind == "grant_ended").count();
    assert_eq!(ended, 2);
}

#[tokio::test]
async fn what_is_asked_for_must_be_whole_and_harmless() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let foreign = rig.keep("other", 1, None).await;
    let dora = rig.cx("dora").await;
    let good = || asked(&tokens, "bad");
    let long = "x".repeat(1 << 20);
    let mut bad: Vec<GrantAsked> =
        ["short", "a line\nanother", "\u{1b}[2Jgone it is", "left\u{202e}to right", &long]
            .map(|reason| GrantAsked { reason: reason.to_owned(), ..good() })
            .into();
    bad.extend([
        GrantAsked { ticket: "INC\n4711".to_owned(), ..good() },
        GrantAsked { reason_code: "curiosity".to_owned(), ..good() },
        GrantAsked { reason_code: String::new(), ..good() },
        GrantAsked { classes: Vec::new(), ..good() },
        GrantAsked { classes: vec![ClassName::parse("nonsense").unwrap()], ..good() },
        GrantAsked { duration: 3601, ..good() },
        GrantAsked { values: 1001, ..good() },
        GrantAsked { scope: AskedScope::Tokens(Vec::new()), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(tokens[0]); 257]), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(tokens[0]), Ok(foreign[0])]), ..good() },
        GrantAsked { scope: AskedScope::Tokens(vec![Ok(Token::from_bytes([3; 16]))]), ..good() },
    ]);
    for asked in bad {
        let refused = rig.ask(&dora, "demo", asked).await.unwrap_err();
        assert!(
            matches!(refused, Problem::Field(_) | Problem::ClassUnknown | Problem::NotFound),
            "{refused:?}"
        );
        let entry = rig.last(AuditAction::GrantRequest).await;
        assert!(!entry.reason.contains('\n') && entry.reason.len() < 2048);
        assert_eq!(entry.decision, 2);
    }
    let grants = rig.store.entities(&EntityScope::Kind(EntityKind::Grant), None, 10).await.unwrap();
    assert!(grants.is_empty() && rig.alerts().await.is_empty(), "{grants:?}");
    // Of a foreign token the log alone knows what it is.
    let scope = AskedScope::Tokens(vec![Ok(foreign[0])]);
    assert_eq!(rig.ask(&dora, "demo", GrantAsked { scope, ..good() }).await, Err(Problem::NotFound));
    assert_eq!(rig.last(AuditAction::GrantRequest).await.items[0].outcome, 4);
    // Without a touch of its key.
    let untouched = rig.vault.request_grant(&dora, "demo", Ok(good())).await;
    assert_eq!(told(untouched), Err(Problem::SecondFactor("second_factor_missing")));
}

#[tokio::test]
async fn the_same_request_gives_the_same_grant() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 2, None).await;
    let dora = rig.cx("dora").await;
    let first = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    rig.clock.pass(MINUTE);
    let again = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(detail(&rig.last(AuditAction::GrantRequest).await, "repeated"), "true");
    assert_eq!(rig.alerts().await, ["grant_requested"]);
    for other in [asked(&tokens[..1], "k"), GrantAsked { values: 7, ..asked(&tokens, "k") }] {
        assert_eq!(rig.ask(&dora, "demo", other).await, Err(Problem::IdempotencyConflict));
    }
    // Somebody else's key is another.
    let other = rig.ask(&rig.cx("dirk").await, "demo", asked(&tokens, "k")).await.unwrap();
    assert_ne!(first.terms().id, other.terms().id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_requester_has_so_many_at_a_time_however_fast_it_asks() {
    let rig = Arc::new(Rig::new().await);
    let tokens = rig.keep("demo", 1, None).await;
    let mut tasks = tokio::task::JoinSet::new();
    // Each with a touch of its own, in the order of the key's counter: what comes late is used up by what came first.
    for n in 0..8 {
        let (rig, tokens) = (Arc::clone(&rig), tokens.clone());
        tasks.spawn(async move {
            let dora = rig.cx("dora").await;
            rig.ask(&dora, "demo", asked(&tokens, &format!("k{n}"))).await
        });
    }
    let made = tasks.join_all().await.into_iter().flatten().count();
    assert!((1..=3).contains(&made), "{made}");
    let dora = rig.cx("dora").await;
    let mut grants = Vec::new();
    for n in 0..8 {
        match rig.ask(&dora, "demo", asked(&tokens, &format!("late{n}"))).await {
            Ok(grant) => grants.push(grant),
            Err(problem) => assert!(matches!(problem, Problem::LimitReached { limit: "open_grants", .. })),
        }
    }
    assert_eq!(made + grants.len(), 3);
    // One that was taken back makes room.
    if let Some(grant) = grants.first() {
        rig.close(&dora, grant).await.unwrap();
        rig.ask(&dora, "demo", asked(&tokens, "room")).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_one_unreviewed_gets_no_other_at_any_tenant() {
    let rig = Rig::new().await;
    let (tokens, foreign) = (rig.keep("demo", 1, None).await, rig.keep("other", 1, None).await);
    let dora = rig.cx("dora").await;
    let grant = rig.granted(&tokens, 1).await;
    // Never used, and over: it is reviewed all the same.
    let grant = rig.close(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(grant.state(), GrantState::Over);
    rig.clock.pass(2 * DAY);
    let fine = rig.ask(&dora, "other", asked(&foreign, "in time")).await.unwrap();
    rig.clock.pass(DAY);
    assert_eq!(rig.ask(&dora, "other", asked(&foreign, "late")).await, Err(Problem::ReviewOverdue));
    assert_eq!(rig.ask(&dora, "demo", asked(&tokens, "late")).await, Err(Problem::ReviewOverdue));
    assert_eq!(rig.last(AuditAction::GrantRequest).await.cause, "review_overdue");
    rig.review(&rig.cx("ann").await, &grant, ReviewVerdict::Justified).await.unwrap();
    rig.ask(&dora, "demo", asked(&tokens, "again")).await.unwrap();
    drop(fine);
}

#[tokio::test]
async fn a_grant_about_a_person_is_about_all_of_its_values_and_never_tells_who() {
    let rig = Rig::new().await;
    let of_him = rig.keep("demo", 3, Some("mrn-4711")).await;
    let of_her = rig.keep("demo", 1, Some("mrn-0815")).await;
    let dora = rig.cx("dora").await;
    let subject = |id: &str| AskedScope::Subject(SubjectId::parse(id.to_owned()).unwrap());
    let ask = |id: &str, key: &str, values| GrantAsked { scope: subject(id), values, ..asked(&[], key) };
    let grant = rig.ask(&dora, "demo", ask("mrn-4711", "k", 2)).await.unwrap();
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(rig.reveal(&dora, &grant, &of_her).await.unwrap(), [Err(Problem::NotFound)]);
    let shown = rig.reveal(&dora, &grant, &[]).await.unwrap();
    assert_eq!(shown.iter().filter(|shown| shown.is_ok()).count(), 2);
    assert_eq!(shown.len(), of_him.len());
    for entry in rig.entries().await {
        assert!(!format!("{entry:?}").contains("4711") || entry.ticket == "INC-4711", "{entry:?}");
    }
    assert!(!rig.row(&grant).await.content.windows(8).any(|bytes| bytes == b"mrn-4711"));
    // Of somebody of whom nothing is kept: nothing, on record.
    let grant = rig.ask(&dora, "demo", ask("nobody", "n", 0)).await.unwrap();
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(rig.reveal(&dora, &grant, &[]).await.unwrap(), []);
    assert_eq!(rig.last(AuditAction::Detokenize).await.items[0].subject.len(), 20);
    assert_eq!(rig.get(&grant).await.seen(), 0);
}

#[tokio::test]
async fn a_log_that_is_down_lets_nothing_out_and_nothing_change() {
    let store = MemoryStore::new();
    let rig = Rig::with(Arc::new(store.clone()), rules(), None).await;
    let tokens = rig.keep("demo", 1, None).await;
    let grant = rig.granted(&tokens, 1).await;
    let dora = rig.cx("dora").await;
    let before = rig.row(&grant).await;
    store.fail_next_commit(StoreError::Unavailable { why: "down".to_owned() });
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::LogUnavailable));
    assert_eq!(rig.row(&grant).await, before);
    store.fail_next_commit(StoreError::Unavailable { why: "down".to_owned() });
    assert_eq!(rig.close(&dora, &grant).await, Err(Problem::LogUnavailable));
    assert_eq!(rig.row(&grant).await, before);
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await.unwrap(), [Ok("p0@example.org".to_owned())]);
}

#[tokio::test]
async fn a_tenant_may_say_that_nobody_needs_to_approve_and_somebody_is_woken() {
    let tenants = [(
        TenantId::parse("demo").unwrap(),
        TenantRules { approvals: Some(0), max_duration: Some(Duration::from_mins(5)), max_values: Some(3) },
    )];
    let rules = GrantRules { tenants: tenants.into(), ..rules() };
    let rig = Rig::with(Arc::new(MemoryStore::new()), rules, None).await;
    let tokens = rig.keep("demo", 1, None).await;
    let foreign = rig.keep("other", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens, "k")).await.unwrap();
    assert!(grant.is_unapproved() && grant.state() == GrantState::Active);
    assert_eq!(grant.terms().duration, 300);
    assert_eq!(rig.alerts().await, ["grant_requested", "grant_unapproved"]);
    assert!(rig.reveal(&dora, &grant, &[]).await.unwrap()[0].is_ok());
    let more = GrantAsked { values: 4, ..asked(&tokens, "more") };
    assert!(matches!(rig.ask(&dora, "demo", more).await, Err(Problem::Field(_))));
    let elsewhere = rig.ask(&dora, "other", asked(&foreign, "k")).await.unwrap();
    assert_eq!(elsewhere.state(), GrantState::Requested);
}

#[tokio::test]
async fn grants_are_seen_and_ended_by_who_has_to_do_with_them() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let (dora, dirk) = (rig.cx("dora").await, rig.cx("dirk").await);
    let grant = rig.granted(&tokens, 1).await;
    rig.clock.pass(1);
    let second = rig.ask(&dirk, "demo", asked(&tokens, "k")).await.unwrap();
    let list = async |who: &str, waiting, limit| {
        let listing = Listing { waiting, limit };
        let grants = told(rig.vault.list_grants(&rig.cx(who).await, "demo", listing).await)?;
        Ok::<_, Problem>(grants.iter().map(|grant| grant.terms().id).collect::<Vec<_>>())
    };
    let (one, two) = (grant.terms().id, second.terms().id);
    for who in ["gus", "ann", "boss"] {
        assert_eq!(list(who, false, 0).await, Ok(vec![two, one]), "{who}");
    }
    assert_eq!(list("ann", false, 1).await, Ok(vec![two]));
    assert_eq!(list("ann", true, 0).await, Ok(vec![two]));
    assert_eq!(list("dora", false, 0).await, Ok(vec![one]));
    assert_eq!(list("app", false, 0).await, Err(Problem::ActionNotAllowed));
    assert_eq!(list("ann", false, 1001).await, Err(Problem::Field("at most 1,000")));
    assert_eq!(told(rig.vault.get_grant(&dirk, "demo", Ok(one)).await), Err(Problem::NotFound));
    assert_eq!(told(rig.vault.get_grant(&dora, "demo", Ok(one)).await), Ok(grant.clone()));
    // Ended by its requester, an approver or an admin; not by another on-call, nor by a service.
    assert_eq!(rig.close(&dirk, &grant).await, Err(Problem::NotFound));
    assert_eq!(rig.close(&rig.cx("app").await, &grant).await, Err(Problem::ActionNotAllowed));
    assert_eq!(rig.close(&rig.cx("ann").await, &grant).await, Err(Problem::ActionNotAllowed));
    let over = rig.close(&rig.cx("boss").await, &grant).await.unwrap();
    assert_eq!(
        (over.state(), over.end().unwrap().by.clone()),
        (GrantState::Over, Some(rig.cx("boss").await.caller.principal.id.clone()))
    );
    assert_eq!(rig.close(&dora, &grant).await, Err(Problem::GrantState));
    assert_eq!(list("ann", true, 0).await, Ok(vec![two, one]), "it waits for its review");
    // Denied by an approver, and not by who asked.
    let gus = rig.cx("gus").await;
    let factor = rig.factor(&gus, SecondFactorAction::GrantDeny).await;
    let denying = Denying { id: two, notes: "not without a ticket".to_owned(), factor };
    let denied = told(rig.vault.deny_grant(&gus, "demo", Ok(denying)).await).unwrap();
    assert_eq!(denied.state(), GrantState::Denied);
    assert_eq!(rig.reveal(&dirk, &denied, &[]).await, Err(Problem::GrantState));
    assert_eq!(rig.last(AuditAction::GrantDeny).await.reason, "not without a ticket");
}

/// The story of a grant has them; and whoever asks learns nothing by it.
#[tokio::test]
async fn who_may_not_is_on_record_with_the_grant_that_it_named() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.ask(&dora, "demo", asked(&tokens, "a")).await.unwrap();
    let terms = grant.terms().hash().to_vec();
    let nothing = GrantId::from_bytes([0xee; 16]);
    let (app, robot) = (rig.cx("app").await, rig.cx("robot").await);
    for id in [grant.terms().id, nothing] {
        let (notes, factor) = (String::new, None);
        let approving = || Approving { id, terms: terms.clone(), notes: notes(), factor: factor.clone() };
        let denying = || Denying { id, notes: notes(), factor: factor.clone() };
        let reviewing =
            Reviewing { id, verdict: ReviewVerdict::Justified, notes: "It was as they said".to_owned() };
        let begin = rig.entries().await.len();
        let answers = [
            told(rig.vault.approve_grant(&app, "demo", Ok(approving())).await).map(drop),
            told(rig.vault.deny_grant(&app, "demo", Ok(denying())).await).map(drop),
            told(rig.vault.review_grant(&app, "demo", Ok(reviewing)).await).map(drop),
            told(rig.vault.close_grant(&app, "demo", Ok((id, notes()))).await).map(drop),
            told(rig.vault.get_grant(&app, "demo", Ok(id)).await).map(drop),
        ];
        assert!(answers.iter().all(|answer| *answer == Err(Problem::ActionNotAllowed)), "{answers:?}");
        // A program, whatever roles it has.
        let program = told(rig.vault.approve_grant(&robot, "demo", Ok(approving())).await);
        assert_eq!(program, Err(Problem::ActionNotAllowed));
        let entries = rig.entries().await.split_off(begin);
        assert_eq!(entries.len(), answers.len() + 1);
        for entry in entries {
            assert_eq!(entry.grant, id.to_string(), "{:?}", entry.action());
            assert_eq!(entry.decision(), vault_proto::v1::audit_entry::Decision::Deny);
        }
    }
}
