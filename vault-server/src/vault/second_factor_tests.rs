use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message as _;
use vault_format::note::Signer;
use vault_proto::v1::AuditEntry;

use super::*;
use crate::access::authenticator::{Authenticator, Manner};
use crate::access::testing::test_policies;
use crate::access::{
    Access, Credential, CredentialKind, Directory, Honeytokens, LimitRules, Provisioning, SecurityKey,
    UsageLimits,
};
use crate::audit::{Fixed, Follower, FollowerOptions, KeyJournal, Log, LogOptions};
use crate::domain::class::{ClassOptions, Classes};
use crate::domain::{Clock, Entity, Environment, JobBudget, PrincipalId, TenantId, VaultId, VaultIdentity};
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::memory::MemoryStore;
use crate::store::{LogId, Store};
use crate::vault::{
    Approved, Enrollment, JobRules, Limits, Note, Parts, PeopleRules, ProposalNamed, Revocation,
};

pub(in crate::vault) const START: u64 = 1_790_000_000_000_000;
const MINUTE: u64 = 60_000_000;
/// What is asked for, as it came.
const REQUEST: &[u8] = b"a request";

/// A clock that tests set.
pub(in crate::vault) struct TestClock(AtomicU64);

impl TestClock {
    pub(in crate::vault) fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A vault with people in it: `ada` is on call and `grace` approves at `demo`, `boss` is admin there, `root` everywhere.
pub(in crate::vault) struct Rig {
    pub(in crate::vault) vault: Vault,
    pub(in crate::vault) store: Arc<dyn Store>,
    pub(in crate::vault) clock: Arc<TestClock>,
}

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

/// The principals file; `keys`: lines of security keys that it lists, and whose they are.
fn people(keys: &[(&str, String)]) -> Directory {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (id, kind, scope, role) in PEOPLE {
        let listed: Vec<_> =
            keys.iter().filter(|(of, _)| of == id).map(|(_, line)| format!("'{line}'")).collect();
        let listed = listed.join(",");
        write!(
            text,
            "[[principal]]\nid = '{id}'\nkind = '{kind}'\nidentities = ['spiffe://test.local/{id}']\n\
             security_keys = [{listed}]\n[principal.roles]\n'{scope}' = ['{role}']\n"
        )
        .unwrap();
    }
    Directory::parse(&text).unwrap()
}

impl Rig {
    pub(in crate::vault) async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()), &[], false).await
    }

    pub(in crate::vault) async fn over(
        store: Arc<dyn Store>,
        keys: &[(&str, String)],
        user_verification: bool,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START)));
        let as_clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        let environment = Environment::parse("dev").unwrap();
        let identity = VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment };
        let keyring = Keyring::new(
            identity.clone(),
            Arc::clone(&store),
            WrappingKeys::new(vec![TestKms::new("east")]),
            Arc::new(KeyJournal::new(Arc::clone(&as_clock))),
            Arc::clone(&as_clock),
            CacheOptions { lifetime: Duration::from_mins(1), max_uses: 100, max_entries: 100 },
        );
        let options = LogOptions { deadline: Duration::from_secs(20), max_in_flight: 64 };
        let log = Log::new(Arc::clone(&store), Arc::clone(&as_clock), options);
        let follower = Follower::start(
            Arc::clone(&store),
            Arc::new(Fixed::from(Signer::from_seed("phi-vault/test/log", &[3; 32]).unwrap())),
            "phi-vault/test/log",
            Arc::clone(&as_clock),
            FollowerOptions { checkpoint_every: Duration::from_hours(1) },
        );
        let access = Arc::new(Access::new(people(keys), test_policies("dev")));
        let provisioning = Provisioning::new(Arc::clone(&store), Arc::clone(&access));
        let vault = Vault::new(Parts {
            identity,
            classes: Arc::new(Classes::builtin(ClassOptions { accept_synthetic: true })),
            store: Arc::clone(&store),
            keyring: Arc::new(keyring),
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
                items: 10,
                value_bytes: 100,
                response_bytes: 1000,
                remember: Duration::from_mins(1),
            },
            jobs: JobRules {
                budget: JobBudget { bytes: 1 << 20, kms_calls: 10 },
                waiting: Duration::from_secs(1),
                kms_price: 0,
            },
            people: PeopleRules { second_person: true, wait: Duration::from_hours(72) },
            second_factor: SecondFactorRules { user_verification, for_approvals: true },
            grants: crate::vault::GrantRules::for_tests(),
        });
        Self { vault, store, clock }
    }

    pub(in crate::vault) async fn cx(&self, who: &str) -> Context {
        // Each has a certificate of its own.
        let number = PEOPLE.iter().position(|person| person.0 == who).map_or(99, |at| 100 + at as u8);
        self.cx_with(who, number).await
    }

    pub(in crate::vault) async fn cx_with(&self, who: &str, certificate: u8) -> Context {
        let credential = Credential {
            kind: CredentialKind::Certificate,
            fingerprint: [certificate; 32],
            identities: vec![format!("spiffe://test.local/{who}")],
            source: None,
            not_before: Timestamp(0),
            not_after: Timestamp(u64::MAX),
        };
        self.vault.enter(&credential, AuditAction::GrantRequest).await.unwrap()
    }

    /// By `who`, then approved by an admin of the vault, and confirmed by its owner.
    pub(in crate::vault) async fn enroll(
        &self,
        who: &str,
        id_of: &str,
        line: &str,
    ) -> Result<EnrolledKey, Problem> {
        let (key, label) = SecurityKey::parse_line(line).unwrap();
        let asked =
            Enrollment { principal: PrincipalId::parse(id_of).unwrap(), key, label, note: Note::default() };
        let cx = self.cx(who).await;
        let asked = self.vault.enroll_security_key(&cx, "demo", Ok(asked)).await;
        let (key, waits) = asked.map_err(|refused| refused.problem)?;
        let Some(id) = waits else { return Ok(key) };
        let approver = self.cx(if who == "root" { "super" } else { "root" }).await;
        let waiting = self.vault.list_principal_changes(&approver, "demo").await.unwrap();
        let waits = waiting.into_iter().find(|waits| waits.proposal.id == id).unwrap();
        let named =
            ProposalNamed { id, hash: waits.proposal.hash().to_vec(), note: Note::default(), factor: None };
        match self.vault.approve_principal_change(&approver, "demo", Ok(named)).await {
            // One that nobody could make again is confirmed by who has it.
            Ok(Approved::SecurityKey(key)) if line.starts_with("sk-ecdsa") => Ok(*key),
            Ok(Approved::SecurityKey(_)) => Ok(self.confirm(id_of, line).await.unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => Err(refused.problem),
        }
    }

    /// By its owner, with the key that has this line.
    pub(in crate::vault) async fn confirm(&self, owner: &str, line: &str) -> Result<EnrolledKey, Problem> {
        let is_it = |key: &Authenticator| key.line("").split(' ').nth(1) == line.split(' ').nth(1);
        let key = (1..=32).map(Authenticator::ed25519).find(is_it).unwrap();
        self.confirm_with(owner, &key, Manner::good(0)).await
    }

    pub(in crate::vault) async fn confirm_with(
        &self,
        owner: &str,
        key: &Authenticator,
        manner: Manner<'_>,
    ) -> Result<EnrolledKey, Problem> {
        let wanted = SecurityKey::from_blob(&key.blob()).unwrap();
        let cx = self.cx(owner).await;
        let begun = self.begin_for(&cx, SecondFactorAction::KeyConfirm).await?;
        // A key that was somebody's before goes on counting.
        let before = self.vault.key_row(&wanted.fingerprint()).await.unwrap().known.unwrap().counter;
        let counter = if before == 0 { 0 } else { before + 1 };
        let factor = given(&begun, key, Manner { counter, ..manner });
        let asked = Ok((wanted.fingerprint(), Some(factor)));
        self.vault.confirm_security_key(&cx, asked).await.map_err(|refused| refused.problem)
    }

    pub(in crate::vault) async fn revoke(&self, who: &str, id: &str, line: &str) -> Result<(), Problem> {
        let key = SecurityKey::parse_line(line).unwrap().0.fingerprint();
        let asked = Revocation { principal: PrincipalId::parse(id).unwrap(), key, note: Note::default() };
        let cx = self.cx(who).await;
        self.vault.revoke_security_key(&cx, "demo", Ok(asked)).await.map_err(|refused| refused.problem)
    }

    pub(in crate::vault) async fn begin(&self, cx: &Context) -> Result<BegunFactor, Problem> {
        self.begin_for(cx, SecondFactorAction::GrantApprove).await
    }

    pub(in crate::vault) async fn begin_for(
        &self,
        cx: &Context,
        action: SecondFactorAction,
    ) -> Result<BegunFactor, Problem> {
        let fields = (action, Sha256::digest(REQUEST).into());
        self.vault.begin_second_factor(cx, Ok(fields)).await.map_err(|refused| refused.problem)
    }

    async fn touched(&self, cx: &Context, given: Option<GivenFactor>) -> Result<Touch, Problem> {
        let draft = cx.draft(AuditAction::GrantApprove, &demo());
        let touched = self.vault.touched(cx, &draft, SecondFactorAction::GrantApprove, given).await;
        touched.map_err(|refused| {
            assert!(refused.logged, "a refusal is on record");
            refused.problem
        })
    }

    /// Does what it was touched for.
    async fn used(&self, cx: &Context, given: GivenFactor) -> Result<(), Problem> {
        let touch = self.touched(cx, Some(given)).await?;
        self.commit(cx, touch).await.map_err(|error| {
            assert!(matches!(error, LogError::Conflict { .. }));
            Problem::ChangedMeanwhile
        })
    }

    async fn commit(&self, cx: &Context, touch: Touch) -> Result<(), LogError> {
        let draft = cx.draft(AuditAction::GrantApprove, &demo());
        self.vault.parts.log.commit(draft, Vec::new(), touch.into_writes()).await.map(drop)
    }

    /// Does what it was touched for, with this key.
    pub(in crate::vault) async fn used_with(
        &self,
        cx: &Context,
        begun: &BegunFactor,
        key: &Authenticator,
        counter: u32,
    ) -> Result<(), Problem> {
        self.used(cx, self.given(begun, key, counter)).await
    }

    #[expect(clippy::unused_self, reason = "one of a kind with the others")]
    pub(in crate::vault) fn given(
        &self,
        begun: &BegunFactor,
        key: &Authenticator,
        counter: u32,
    ) -> GivenFactor {
        given(begun, key, Manner::good(counter))
    }

    /// Puts a row that is not there.
    pub(in crate::vault) async fn put_row(&self, row: Entity) {
        self.vault.parts.log.write(vec![Write::PutEntity(row)]).await.unwrap();
    }

    pub(in crate::vault) async fn rows(&self, kind: EntityKind) -> Vec<Entity> {
        self.store.entities(&EntityScope::Kind(kind), None, 100).await.unwrap()
    }

    pub(in crate::vault) async fn entries(&self) -> Vec<AuditEntry> {
        let entries = self.store.entries(self.store.log(), 0, 1000, 1 << 20).await.unwrap();
        entries.iter().map(|bytes| AuditEntry::decode(&bytes[..]).unwrap()).collect()
    }

    /// The alerts that wait for delivery: their kinds.
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

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

/// What a person gives who touched the key.
fn given(begun: &BegunFactor, key: &Authenticator, manner: Manner<'_>) -> GivenFactor {
    let signature = key.pem(&begun.text, manner);
    GivenFactor::parse(begun.challenge.as_bytes(), signature, REQUEST).unwrap()
}

fn cause<T>(cause: &'static str) -> Result<T, Problem> {
    Err(Problem::SecondFactor(cause))
}

/// What became of it, without what nobody can compare.
fn told<T>(outcome: Result<T, Problem>) -> Result<(), Problem> {
    outcome.map(drop)
}

#[tokio::test]
async fn a_touch_is_good_once_for_either_kind_of_key() {
    for key in [Authenticator::ed25519(1), Authenticator::ecdsa()] {
        let rig = Rig::new().await;
        let enrolled = rig.enroll("boss", "grace", &key.line("blue")).await.unwrap();
        if enrolled.confirmed == Confirmation::Waits {
            rig.confirm_with("grace", &key, Manner::good(0)).await.unwrap();
        }
        let cx = rig.cx("grace").await;
        let begun = rig.begin(&cx).await.unwrap();
        assert_eq!(begun.public_keys, [key.line("blue")]);
        assert!(begun.text.contains("principal: grace\n"), "{}", begun.text);
        let first = given(&begun, &key, Manner::good(5));
        assert_eq!(rig.used(&cx, first.clone()).await, Ok(()));
        assert_eq!(rig.used(&cx, first).await, cause("second_factor_unknown"), "a replay");
        // The same challenge, signed anew.
        let again = given(&begun, &key, Manner::good(6));
        assert_eq!(rig.used(&cx, again).await, cause("second_factor_unknown"));
        let entries = rig.entries().await;
        let replay = entries.last().unwrap();
        assert_eq!(replay.cause, "second_factor_unknown");
        assert_eq!(replay.action(), AuditAction::GrantApprove);
    }
}

#[tokio::test]
async fn of_two_uses_at_once_on_two_instances_one_is_done() {
    let store = MemoryStore::new();
    let (one, two) = (
        Rig::over(Arc::new(store.clone()), &[], false).await,
        Rig::over(Arc::new(store.instance(LogId(1))), &[], false).await,
    );
    let key = Authenticator::ed25519(1);
    one.enroll("boss", "grace", &key.line("")).await.unwrap();
    let (cx, other) = (one.cx("grace").await, two.cx("grace").await);
    let begun = one.begin(&cx).await.unwrap();
    let first = one.touched(&cx, Some(given(&begun, &key, Manner::good(1)))).await.ok().unwrap();
    // The other instance sees the same rows, before the first commit.
    let second = two.touched(&other, Some(given(&begun, &key, Manner::good(2)))).await.ok().unwrap();
    assert!(one.commit(&cx, first).await.is_ok());
    assert!(matches!(two.commit(&other, second).await, Err(LogError::Conflict { .. })));
    let late = given(&begun, &key, Manner::good(3));
    assert_eq!(two.used(&other, late).await, cause("second_factor_unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_stays_used_after_a_restart() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = async || {
        let path = dir.path().to_owned();
        let open = || embedded::open(EngineKind::Fjall, &path, StoreOptions::default()).unwrap();
        let store = tokio::task::block_in_place(open);
        Rig::over(store, &[], false).await
    };
    let key = Authenticator::ed25519(1);
    let rig = open().await;
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let cx = rig.cx("grace").await;
    let (begun, pending) = (rig.begin(&cx).await.unwrap(), rig.begin(&cx).await.unwrap());
    let first = given(&begun, &key, Manner::good(9));
    rig.used(&cx, first.clone()).await.unwrap();
    rig.vault.parts.follower.stop(Duration::from_secs(20)).await;
    rig.store.close().await.unwrap();
    drop(rig);
    let rig = open().await;
    let cx = rig.cx("grace").await;
    assert_eq!(rig.used(&cx, first).await, cause("second_factor_unknown"));
    let back = given(&pending, &key, Manner::good(9));
    assert_eq!(rig.used(&cx, back).await, cause("second_factor_counter"), "the counter is kept, too");
    let onward = given(&pending, &key, Manner::good(10));
    assert_eq!(rig.used(&cx, onward).await, Ok(()), "what was begun before can be ended");
}

#[tokio::test]
async fn it_is_good_for_what_it_was_asked_for_and_nothing_else() {
    let rig = Rig::new().await;
    let (blue, red) = (Authenticator::ed25519(1), Authenticator::ed25519(2));
    rig.enroll("boss", "grace", &blue.line("")).await.unwrap();
    rig.enroll("boss", "ada", &red.line("")).await.unwrap();
    let (grace, ada) = (rig.cx("grace").await, rig.cx("ada").await);
    let begun = rig.begin(&grace).await.unwrap();
    let good = given(&begun, &blue, Manner::good(1));
    assert_eq!(told(rig.touched(&grace, None).await), cause("second_factor_missing"));
    assert_eq!(rig.used(&ada, good.clone()).await, cause("second_factor_principal"));
    let elsewhere = rig.cx_with("grace", 8).await;
    assert_eq!(rig.used(&elsewhere, good.clone()).await, cause("second_factor_credential"));
    let other = GivenFactor { request_hash: [9; 32], ..good.clone() };
    assert_eq!(rig.used(&grace, other).await, cause("second_factor_request"));
    let draft = grace.draft(AuditAction::GrantDeny, &demo());
    let denied = rig.vault.touched(&grace, &draft, SecondFactorAction::GrantDeny, Some(good.clone())).await;
    assert_eq!(told(denied.map_err(|refused| refused.problem)), cause("second_factor_action"));
    let nowhere = GivenFactor { challenge: ChallengeId::from_bytes([1; 16]), ..good.clone() };
    assert_eq!(rig.used(&grace, nowhere).await, cause("second_factor_unknown"));
    // Another one's key, and one that nobody has.
    let foreign = given(&begun, &red, Manner::good(1));
    assert_eq!(rig.used(&grace, foreign).await, cause("second_factor_key_foreign"));
    let unknown = given(&begun, &Authenticator::ecdsa(), Manner::good(1));
    assert_eq!(rig.used(&grace, unknown).await, cause("second_factor_key_unknown"));
    for (manner, why) in [
        (Manner { flags: 0, ..Manner::good(1) }, "second_factor_presence"),
        (Manner { namespace: "git", ..Manner::good(1) }, "second_factor_namespace"),
        (Manner { hash: "sha384", ..Manner::good(1) }, "second_factor_hash"),
    ] {
        assert_eq!(rig.used(&grace, given(&begun, &blue, manner)).await, cause(why));
    }
    let wrong = BegunFactor { text: begun.text.replace("demo", "prod") + "x", ..begun.clone() };
    assert_eq!(
        rig.used(&grace, given(&wrong, &blue, Manner::good(1))).await,
        cause("second_factor_signature")
    );
    for garbage in ["", "x", "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n"] {
        let bad = GivenFactor { signature: garbage.to_owned(), ..good.clone() };
        assert_eq!(rig.used(&grace, bad).await, cause("second_factor_malformed"));
    }
    let short = GivenFactor::parse(&[1; 15], String::new(), REQUEST).map(drop);
    assert_eq!(short.map_err(|refused| refused.problem), cause("second_factor_malformed"));
    // None of which used it up.
    assert_eq!(rig.used(&grace, good).await, Ok(()));
}

#[tokio::test]
async fn its_time_is_five_minutes_by_a_clock_that_is_not_set_back() {
    let rig = Rig::new().await;
    let key = Authenticator::ed25519(1);
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let cx = rig.cx("grace").await;
    let begun = rig.begin(&cx).await.unwrap();
    assert_eq!(begun.expires, Timestamp(START + 5 * MINUTE));
    let good = given(&begun, &key, Manner::good(1));
    rig.clock.set(START + 5 * MINUTE);
    assert_eq!(rig.used(&cx, good.clone()).await, cause("second_factor_expired"));
    rig.clock.set(START - MINUTE);
    assert_eq!(rig.used(&cx, good.clone()).await, cause("second_factor_future"));
    rig.clock.set(START + 5 * MINUTE - 1);
    assert_eq!(rig.used(&cx, good).await, Ok(()));
}

#[tokio::test]
async fn a_counter_that_goes_back_is_refused_and_somebody_hears_of_it() {
    let rig = Rig::new().await;
    let key = Authenticator::ed25519(1);
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let cx = rig.cx("grace").await;
    for (counter, good) in [(0, true), (0, true), (7, true), (7, false), (6, false), (0, false), (8, true)] {
        let begun = rig.begin(&cx).await.unwrap();
        let used = rig.used(&cx, given(&begun, &key, Manner::good(counter))).await;
        let wanted = if good { Ok(()) } else { cause("second_factor_counter") };
        assert_eq!(used, wanted, "{counter}");
    }
    let alerts = rig.alerts().await;
    assert_eq!(alerts.iter().filter(|kind| *kind == "security_key_cloned").count(), 3);
    let entries = rig.entries().await;
    assert_eq!(entries.iter().filter(|entry| entry.cause == "second_factor_counter").count(), 3);
}

#[tokio::test]
async fn verification_is_asked_for_where_it_is_configured() {
    let rig = Rig::over(Arc::new(MemoryStore::new()), &[], true).await;
    let key = Authenticator::ecdsa();
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let touched = rig.confirm_with("grace", &key, Manner::good(0)).await;
    assert_eq!(told(touched), cause("second_factor_verification"), "to confirm it, too");
    rig.confirm_with("grace", &key, Manner { flags: 5, ..Manner::good(0) }).await.unwrap();
    let cx = rig.cx("grace").await;
    let begun = rig.begin(&cx).await.unwrap();
    let touched = given(&begun, &key, Manner::good(1));
    assert_eq!(rig.used(&cx, touched).await, cause("second_factor_verification"));
    let verified = given(&begun, &key, Manner { flags: 5, ..Manner::good(1) });
    assert_eq!(rig.used(&cx, verified).await, Ok(()));
}

#[tokio::test]
async fn a_revoked_key_is_good_for_nothing_from_then_on() {
    let rig = Rig::new().await;
    let (blue, red) = (Authenticator::ed25519(1), Authenticator::ed25519(2));
    rig.enroll("boss", "grace", &blue.line("")).await.unwrap();
    rig.enroll("boss", "grace", &red.line("")).await.unwrap();
    let cx = rig.cx("grace").await;
    let begun = rig.begin(&cx).await.unwrap();
    let touch = rig.touched(&cx, Some(given(&begun, &blue, Manner::good(1)))).await.ok().unwrap();
    rig.revoke("boss", "grace", &blue.line("")).await.unwrap();
    assert!(rig.commit(&cx, touch).await.is_err(), "also what was verified a moment before");
    let late = given(&begun, &blue, Manner::good(2));
    assert_eq!(rig.used(&cx, late).await, cause("second_factor_key_revoked"));
    assert_eq!(rig.begin(&cx).await.unwrap().public_keys, [red.line("")]);
    assert_eq!(rig.used(&cx, given(&begun, &red, Manner::good(1))).await, Ok(()));
}

#[tokio::test]
async fn keys_of_the_file_are_good_for_as_long_as_it_lists_them() {
    let store = MemoryStore::new();
    let key = Authenticator::ed25519(1);
    let listed = [("grace", key.line("blue"))];
    let rig = Rig::over(Arc::new(store.clone()), &listed, false).await;
    let cx = rig.cx("grace").await;
    let begun = rig.begin(&cx).await.unwrap();
    assert_eq!(begun.public_keys, [key.line("blue")]);
    assert_eq!(rig.used(&cx, given(&begun, &key, Manner::good(4))).await, Ok(()));
    let begun = rig.begin(&cx).await.unwrap();
    assert_eq!(begun.public_keys, [key.line("blue")], "listed once, though it has a row now");
    assert_eq!(
        rig.used(&cx, given(&begun, &key, Manner::good(4))).await,
        cause("second_factor_counter"),
        "its counter is kept as well"
    );
    assert_eq!(rig.enroll("boss", "ada", &key.line("")).await, Err(Problem::Taken));
    // Another list: the key is nobody's, also for whom it is listed then.
    rig.vault.parts.access.reload(people(&[]), test_policies("dev"));
    let used = rig.used(&cx, given(&begun, &key, Manner::good(5))).await;
    assert_eq!(used, cause("second_factor_key_unknown"));
    assert_eq!(told(rig.begin(&cx).await), cause("second_factor_no_key"));
    rig.vault.parts.access.reload(people(&[("ada", key.line(""))]), test_policies("dev"));
    assert_eq!(told(rig.begin(&cx).await), cause("second_factor_no_key"));
    // And it can be enrolled, with the counter that it had.
    rig.vault.parts.access.reload(people(&[]), test_policies("dev"));
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let back = rig.used(&cx, given(&begun, &key, Manner::good(4))).await;
    assert_eq!(back, cause("second_factor_counter"));
    assert_eq!(rig.used(&cx, given(&begun, &key, Manner::good(6))).await, Ok(()));
}

#[tokio::test]
async fn only_a_person_with_a_key_begins() {
    let rig = Rig::new().await;
    let robot = rig.cx("robot").await;
    assert_eq!(told(rig.begin(&robot).await), Err(Problem::ActionNotAllowed));
    let ada = rig.cx("ada").await;
    assert_eq!(told(rig.begin(&ada).await), cause("second_factor_no_key"));
    assert!(rig.rows(EntityKind::Challenge).await.is_empty());
    assert_eq!(rig.entries().await.len(), 2, "both on record");
}

#[tokio::test]
async fn stale_challenges_are_swept_away_and_no_others() {
    let rig = Rig::new().await;
    let key = Authenticator::ed25519(1);
    rig.enroll("boss", "grace", &key.line("")).await.unwrap();
    let cx = rig.cx("grace").await;
    for _ in 0..3 {
        rig.begin(&cx).await.unwrap();
    }
    rig.clock.set(START + 4 * MINUTE);
    let begun = rig.begin(&cx).await.unwrap();
    assert_eq!(rig.vault.sweep_challenges().await.unwrap(), 0);
    rig.clock.set(START + 6 * MINUTE);
    assert_eq!(rig.vault.sweep_challenges().await.unwrap(), 3);
    assert_eq!(rig.used(&cx, given(&begun, &key, Manner::good(1))).await, Ok(()));
    assert!(rig.rows(EntityKind::Challenge).await.is_empty());
}
