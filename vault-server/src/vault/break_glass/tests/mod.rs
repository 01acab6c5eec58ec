//! By subject; here is what they share, and a grant's whole life.

mod approve;
mod end;
mod race;
mod read;
mod request;
mod reveal;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vault_proto::v1::AuditEntry;

use super::*;
use crate::access::authenticator::{Authenticator, Manner};
use crate::access::{Directory, Ended, ReviewVerdict};
use crate::audit::AuditAction;
use crate::domain::{
    ClassName, Clock, Entity, EntityKind, IdempotencyKey, InstanceId, LeaseName, Plaintext, Purpose,
    SecondFactorAction, SubjectId, Token,
};
use crate::store::memory::MemoryStore;
use crate::store::{Leases, Store};
use crate::vault::testing::{self, MINUTE, Person, Setting};
use crate::vault::{GivenFactor, NewValue};

const DAY: u64 = 24 * 60 * MINUTE;
const HASH: [u8; 32] = [9; 32];
const WHY: &str = "The patient in bay 4 does not answer";

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
    testing::directory(PEOPLE.iter().map(|(id, kind, roles, seed)| Person {
        id,
        kind,
        roles: (*roles).to_owned(),
        keys: if *kind == "human" { vec![Authenticator::ed25519(*seed).line(id)] } else { Vec::new() },
    }))
}

fn rules() -> GrantRules {
    GrantRules::for_tests()
}

/// The rig of all use cases, with people who break the glass, and what they do.
struct Rig {
    rig: testing::Rig,
    /// Of the security keys.
    counter: AtomicU32,
}

impl Deref for Rig {
    type Target = testing::Rig;

    fn deref(&self) -> &testing::Rig {
        &self.rig
    }
}

impl Rig {
    async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()), rules(), None).await
    }

    /// `beside`: another instance, whose clock it shares.
    async fn with(store: Arc<dyn Store>, grants: GrantRules, beside: Option<&Self>) -> Self {
        let setting = Setting { store, people: people(), grants, user_verification: false };
        let rig = testing::Rig::set(setting, beside.map(|other| &other.rig)).await;
        Self { rig, counter: AtomicU32::new(beside.map_or(1, |_| 1000)) }
    }

    async fn cx(&self, who: &str) -> Context {
        let certificate = 20 + PEOPLE.iter().position(|person| person.0 == who).unwrap() as u8;
        self.cx_with(who, certificate).await
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

    async fn last(&self, action: AuditAction) -> AuditEntry {
        let of = |entry: &AuditEntry| entry.action() == action;
        self.entries().await.into_iter().rfind(of).expect("an entry of the action")
    }

    /// Kinds of the alerts that wait for delivery, sorted. They tell no token, no reason and no ticket.
    async fn alerts(&self) -> Vec<String> {
        for row in self.rows(EntityKind::Alert).await {
            let text = std::str::from_utf8(&row.content[13..]).unwrap();
            assert!(!text.contains("phi_") && !text.contains("bay 4") && !text.contains("INC"), "{text}");
        }
        self.rig.alerts().await
    }

    /// What the sweep of an instance does.
    async fn sweep(&self) {
        let instance = InstanceId::random().unwrap();
        let clock: Arc<dyn Clock> = Arc::<testing::TestClock>::clone(&self.clock);
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
    assert_eq!((grant.state(), grant.end().unwrap().how), (GrantState::Over, Ended::UsedUp));
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
