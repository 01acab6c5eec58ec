mod malformed;
mod touch;

use super::*;
use crate::access::authenticator::Authenticator;
use crate::access::{Party, Proposal, SecurityKey};
use crate::domain::ProposalId;
use crate::store::LogId;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::memory::MemoryStore;
use crate::vault::second_factor::tests::{Rig, START};
use crate::vault::{Enrollment, GivenFactor};

const HOUR: u64 = 3_600_000_000;

fn id(name: &str) -> PrincipalId {
    PrincipalId::parse(name).unwrap()
}

fn demo(roles: &[Role]) -> BTreeMap<TenantScope, BTreeSet<Role>> {
    let demo = TenantScope::One(TenantId::parse("demo").unwrap());
    [(demo, roles.iter().copied().collect())].into()
}

fn new(name: &str, roles: &[Role]) -> PrincipalAsked {
    PrincipalAsked {
        id: id(name),
        kind: PrincipalKind::Human,
        identities: [format!("spiffe://test.local/{name}")].into(),
        roles: demo(roles),
        owner: None,
        expires: None,
        seen: None,
    }
}

/// The same as it is, to be changed.
fn again(principal: &Principal) -> PrincipalAsked {
    PrincipalAsked {
        id: principal.id.clone(),
        kind: principal.kind,
        identities: principal.identities.clone(),
        roles: principal.roles.clone(),
        owner: principal.owner.clone(),
        expires: principal.expires,
        seen: principal.revision,
    }
}

impl Rig {
    async fn put(&self, who: &str, asked: PrincipalAsked) -> Result<Outcome<KnownPrincipal>, Problem> {
        let cx = self.cx(who).await;
        let put = self.vault.put_principal(&cx, "demo", Ok(asked), Ok(Note::default())).await;
        put.map_err(|refused| {
            assert!(refused.logged, "a refusal is on record");
            refused.problem
        })
    }

    async fn waits(&self, who: &str, asked: PrincipalAsked) -> Proposal {
        match self.put(who, asked).await {
            Ok(Outcome::Waits(waits)) => waits.proposal,
            other => panic!("{other:?}"),
        }
    }

    async fn made(&self, who: &str, asked: PrincipalAsked) -> Principal {
        match self.put(who, asked).await {
            Ok(Outcome::Made(known)) => (*known.principal).clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self, who: &str, of: &str, enabled: bool) -> Result<Outcome<KnownPrincipal>, Problem> {
        let cx = self.cx(who).await;
        let state = self.vault.set_principal_state(&cx, "demo", Ok(id(of)), enabled, Ok(Note::default()));
        state.await.map_err(|refused| refused.problem)
    }

    async fn approve(&self, who: &str, proposal: &Proposal) -> Result<Approved, Problem> {
        let cx = self.cx(who).await;
        self.approve_as(&cx, proposal.id, proposal.hash().to_vec()).await
    }

    async fn approve_as(&self, cx: &Context, id: ProposalId, hash: Vec<u8>) -> Result<Approved, Problem> {
        self.approve_named(cx, ProposalNamed { id, hash, note: Note::default(), factor: None }).await
    }

    async fn approve_with(
        &self,
        cx: &Context,
        proposal: &Proposal,
        factor: Option<GivenFactor>,
    ) -> Result<Approved, Problem> {
        let (id, hash) = (proposal.id, proposal.hash().to_vec());
        self.approve_named(cx, ProposalNamed { id, hash, note: Note::default(), factor }).await
    }

    async fn approve_named(&self, cx: &Context, named: ProposalNamed) -> Result<Approved, Problem> {
        let approved = self.vault.approve_principal_change(cx, "demo", Ok(named)).await;
        approved.map_err(|refused| {
            assert!(refused.logged, "a refusal is on record");
            refused.problem
        })
    }

    /// Refused with this cause on record, and nothing is other than before.
    async fn is_refused(&self, who: &Context, proposal: &Proposal, hash: Vec<u8>, why: (Problem, &str)) {
        let before = self.state_of_all().await;
        assert_eq!(self.approve_as(who, proposal.id, hash).await, Err(why.0.clone()), "{}", why.1);
        assert_eq!(self.state_of_all().await, before, "{}", why.1);
        let entry = self.entries().await.pop().unwrap();
        assert_eq!((entry.action(), entry.cause.as_str()), (AuditAction::PrincipalApprove, why.0.cause()));
        assert_eq!(entry.details.get("why").map_or("", String::as_str), why.1);
        // Who may not at all is not asked which.
        let named = entry.details.get("proposal").is_some_and(|id| *id == proposal.id.to_string());
        assert!(named || why.0 == Problem::ActionNotAllowed);
    }

    async fn state_of_all(&self) -> Vec<Entity> {
        let mut rows = Vec::new();
        for kind in [EntityKind::Principal, EntityKind::SecurityKey, EntityKind::Proposal, EntityKind::Alert]
        {
            rows.extend(self.rows(kind).await);
        }
        rows
    }

    /// A principal that is there by two people.
    async fn there(&self, name: &str, roles: &[Role]) -> Principal {
        let proposal = self.waits("boss", new(name, roles)).await;
        match self.approve("chief", &proposal).await {
            Ok(Approved::Principal(known)) => (*known.principal).clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_admin_makes_no_second_self() {
    let rig = Rig::new().await;
    for role in [Role::Approver, Role::OnCall, Role::Admin, Role::Service, Role::Auditor] {
        let proposal = rig.waits("boss", new("second", &[role])).await;
        assert!(rig.vault.parts.access.principal(&id("second")).is_none(), "{role}: nothing has changed yet");
        let boss = rig.cx("boss").await;
        let second_person = (Problem::SecondPerson, "second_person");
        rig.is_refused(&boss, &proposal, proposal.hash().to_vec(), second_person.clone()).await;
        // Nor with another certificate of its own, nor as another principal with the same certificate.
        let other = rig.cx_with("boss", 3).await;
        rig.is_refused(&other, &proposal, proposal.hash().to_vec(), second_person.clone()).await;
        let alias = rig.cx_with("chief", boss.caller.credential[0]).await;
        rig.is_refused(&alias, &proposal, proposal.hash().to_vec(), second_person).await;
    }
    // A program is no second person; who is no admin may not.
    let proposal = rig.waits("boss", new("second", &[Role::Approver])).await;
    let robot = rig.cx("robot").await;
    rig.is_refused(&robot, &proposal, proposal.hash().to_vec(), (Problem::SecondPerson, "")).await;
    let ada = rig.cx("ada").await;
    rig.is_refused(&ada, &proposal, proposal.hash().to_vec(), (Problem::ActionNotAllowed, "")).await;
    assert!(rig.approve("chief", &proposal).await.is_ok());
    assert!(rig.vault.parts.access.principal(&id("second")).is_some());
}

#[tokio::test]
async fn asking_and_approving_are_on_record_with_alerts_and_lead_to_each_other() {
    let rig = Rig::new().await;
    let proposal = rig.waits("boss", new("ann", &[Role::Approver])).await;
    assert_eq!(rig.alerts().await, ["principal_change_asked"]);
    let asked = rig.entries().await.pop().unwrap();
    assert_eq!(asked.action(), AuditAction::PrincipalAsk);
    assert_eq!(asked.details["proposal"], proposal.id.to_string());
    assert_eq!(asked.details["roles_given"], "demo:approver");
    assert_eq!(asked.details["widens"], "roles");
    // The same once more is the same.
    assert_eq!(rig.waits("boss", new("ann", &[Role::Approver])).await, proposal);
    assert_eq!(rig.alerts().await.len(), 1);
    let listed = rig.vault.list_principal_changes(&rig.cx("chief").await, "demo").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].proposal, proposal);
    assert!(!listed[0].superseded);

    rig.approve("chief", &proposal).await.unwrap();
    assert_eq!(rig.alerts().await, ["principal_change_asked", "principal_changed"]);
    let approved = rig.entries().await.pop().unwrap();
    assert_eq!(approved.action(), AuditAction::PrincipalApprove);
    assert_eq!(approved.details["proposal"], proposal.id.to_string());
    assert_eq!(approved.details["asked_by"], "boss");
    assert_eq!(approved.details["asked_in"], hex::encode(&asked.request_id));
    assert_eq!(approved.details["roles_given"], "demo:approver");
    // An approval counts once.
    let chief = rig.cx("chief").await;
    rig.is_refused(&chief, &proposal, proposal.hash().to_vec(), (Problem::NotFound, "")).await;
    assert!(rig.rows(EntityKind::Proposal).await.is_empty());
}

#[tokio::test]
async fn what_makes_less_of_somebody_is_done_by_one_at_once() {
    let rig = Rig::new().await;
    let ann = rig.there("ann", &[Role::Approver, Role::Console]).await;
    let soon = Some(Timestamp(START + HOUR));
    let less = PrincipalAsked { expires: soon, roles: demo(&[Role::Console]), ..again(&ann) };
    let ann = rig.made("boss", less).await;
    assert!(matches!(rig.state("boss", "ann", false).await, Ok(Outcome::Made(_))));
    assert!(matches!(rig.state("boss", "ann", false).await, Ok(Outcome::Made(_))), "twice is once");
    // And back it takes two.
    let Ok(Outcome::Waits(on)) = rig.state("boss", "ann", true).await else { panic!() };
    let off = Principal { revision: Some(3), enabled: false, ..ann };
    let later = PrincipalAsked { expires: None, ..again(&off) };
    rig.waits("boss", later).await;
    let more = PrincipalAsked { roles: demo(&[Role::Console, Role::Approver]), ..again(&off) };
    rig.waits("boss", more).await;
    let identities: BTreeSet<_> =
        ["spiffe://test.local/ann".to_owned(), "spiffe://test.local/me".to_owned()].into();
    rig.waits("boss", PrincipalAsked { identities, ..again(&off) }).await;
    assert!(!rig.vault.parts.access.principal(&id("ann")).unwrap().enabled);
    rig.approve("chief", &on.proposal).await.unwrap();
    assert!(rig.vault.parts.access.principal(&id("ann")).unwrap().enabled);
    // A role that neither sees values nor steers others is given by one.
    rig.made("boss", new("screen", &[Role::Console, Role::Rotator])).await;
}

#[tokio::test]
async fn an_approval_is_of_what_was_seen_while_it_stands() {
    let rig = Rig::new().await;
    let ann = rig.there("ann", &[Role::OnCall]).await;
    let chief = rig.cx("chief").await;
    let approver = rig.waits("boss", PrincipalAsked { roles: demo(&[Role::Approver]), ..again(&ann) }).await;
    let admin = rig.waits("boss", PrincipalAsked { roles: demo(&[Role::Admin]), ..again(&ann) }).await;
    // Of another content.
    for hash in [admin.hash().to_vec(), Vec::new(), vec![0; 32]] {
        rig.is_refused(&chief, &approver, hash, (Problem::ChangedMeanwhile, "another_content")).await;
    }
    // Of one that another took the place of.
    rig.approve("chief", &approver).await.unwrap();
    let superseded = (Problem::ChangedMeanwhile, "superseded");
    rig.is_refused(&chief, &admin, admin.hash().to_vec(), superseded.clone()).await;
    let listed = rig.vault.list_principal_changes(&chief, "demo").await.unwrap();
    assert!(listed[0].superseded);
    // Of an identity that somebody else got meanwhile.
    let mut bob = new("bob", &[Role::OnCall]);
    bob.identities = ["spiffe://test.local/robert".to_owned()].into();
    let (bob, robert) =
        (rig.waits("boss", bob).await, rig.waits("boss", new("robert", &[Role::OnCall])).await);
    rig.approve("chief", &bob).await.unwrap();
    rig.is_refused(&chief, &robert, robert.hash().to_vec(), superseded).await;
    // After its time.
    let late = rig.waits("boss", new("late", &[Role::OnCall])).await;
    rig.clock.set(late.expires.0);
    rig.is_refused(&chief, &late, late.hash().to_vec(), (Problem::NotFound, "expired")).await;
    assert!(rig.vault.list_principal_changes(&chief, "demo").await.unwrap().is_empty());
    assert_eq!(rig.vault.sweep_principal_changes().await, Ok(3));
    rig.is_refused(&chief, &late, late.hash().to_vec(), (Problem::NotFound, "")).await;
    // What was asked for again has a time of its own.
    let anew = rig.waits("boss", new("late", &[Role::OnCall])).await;
    assert_ne!(anew.id, late.id);
    assert!(rig.approve("chief", &anew).await.is_ok());
}

#[tokio::test]
async fn who_asks_or_approves_must_be_allowed_to_at_that_moment() {
    let rig = Rig::new().await;
    for name in ["asker", "helper"] {
        rig.there(name, &[Role::Admin]).await;
    }
    let asker = async |name: &str| {
        let cx = rig.cx_with("asker", 50).await;
        let asked = Ok(new(name, &[Role::OnCall]));
        match rig.vault.put_principal(&cx, "demo", asked, Ok(Note::default())).await {
            Ok(Outcome::Waits(waits)) => waits.proposal,
            other => panic!("{other:?}"),
        }
    };
    let (one, two) = (asker("one").await, asker("two").await);
    // The approver is disabled meanwhile: what is left of it is a request that was let in a moment ago.
    let helper = rig.cx_with("helper", 51).await;
    assert!(matches!(rig.state("boss", "helper", false).await, Ok(Outcome::Made(_))));
    rig.is_refused(&helper, &one, one.hash().to_vec(), (Problem::ChangedMeanwhile, "")).await;
    // The asker.
    assert!(matches!(rig.state("boss", "asker", false).await, Ok(Outcome::Made(_))));
    let chief = rig.cx("chief").await;
    let asker_may_not = (Problem::ChangedMeanwhile, "asker_may_not");
    rig.is_refused(&chief, &one, one.hash().to_vec(), asker_may_not.clone()).await;
    // It is back, but is no admin any more.
    let Ok(Outcome::Waits(on)) = rig.state("boss", "asker", true).await else { panic!() };
    let Ok(Approved::Principal(back)) = rig.approve("chief", &on.proposal).await else { panic!() };
    rig.made("boss", PrincipalAsked { roles: demo(&[Role::Console]), ..again(&back.principal) }).await;
    rig.is_refused(&chief, &two, two.hash().to_vec(), asker_may_not).await;
    // An admin of one tenant approves nothing that it could not do itself.
    let root = rig.cx("root").await;
    let wide = BTreeMap::from([(TenantScope::All, BTreeSet::from([Role::Auditor]))]);
    let wide = PrincipalAsked { roles: wide, ..new("wide2", &[]) };
    let put = rig.vault.put_principal(&root, "*", Ok(wide), Ok(Note::default())).await;
    let Ok(Outcome::Waits(waits)) = put else { panic!("{put:?}") };
    rig.is_refused(&chief, &waits.proposal, waits.proposal.hash().to_vec(), (Problem::NotFound, "")).await;
    let named = ProposalNamed {
        id: waits.proposal.id,
        hash: waits.proposal.hash().to_vec(),
        note: Note::default(),
        factor: None,
    };
    let done = rig.vault.approve_principal_change(&rig.cx("super").await, "*", Ok(named)).await;
    assert!(done.is_ok(), "{done:?}");
}

#[tokio::test]
async fn a_change_is_rejected_or_taken_back_and_then_is_gone() {
    let rig = Rig::new().await;
    let reject = async |who: &str, id: ProposalId| {
        let named = ProposalNamed { id, hash: Vec::new(), note: Note::default(), factor: None };
        let cx = rig.cx(who).await;
        rig.vault.reject_principal_change(&cx, "demo", Ok(named)).await.map_err(|refused| refused.problem)
    };
    let proposal = rig.waits("boss", new("ann", &[Role::OnCall])).await;
    assert_eq!(reject("ada", proposal.id).await, Err(Problem::ActionNotAllowed));
    assert_eq!(reject("chief", proposal.id).await, Ok(()));
    assert_eq!(rig.entries().await.pop().unwrap().action(), AuditAction::PrincipalReject);
    assert_eq!(reject("chief", proposal.id).await, Err(Problem::NotFound));
    let chief = rig.cx("chief").await;
    rig.is_refused(&chief, &proposal, proposal.hash().to_vec(), (Problem::NotFound, "")).await;
    let own = rig.waits("boss", new("ann", &[Role::OnCall])).await;
    assert_eq!(reject("boss", own.id).await, Ok(()));
    // Nobody fills the list for the others.
    for n in 0..32 {
        rig.waits("boss", new(&format!("p{n}"), &[Role::OnCall])).await;
    }
    let more = rig.put("boss", new("p32", &[Role::OnCall])).await;
    assert!(matches!(more, Err(Problem::Field(_))), "{more:?}");
    rig.waits("chief", new("p32", &[Role::OnCall])).await;
}

#[tokio::test]
async fn of_two_approvals_at_once_on_two_instances_one_is_made() {
    let store = MemoryStore::new();
    let (one, two) = (
        Rig::over(Arc::new(store.clone()), &[], false).await,
        Rig::over(Arc::new(store.instance(LogId(1))), &[], false).await,
    );
    for round in 0..8 {
        let proposal = one.waits("boss", new(&format!("ann{round}"), &[Role::Approver])).await;
        let (first, second) = tokio::join!(one.approve("chief", &proposal), two.approve("super", &proposal));
        let made = [&first, &second].into_iter().filter(|made| made.is_ok()).count();
        assert_eq!(made, 1, "{first:?} {second:?}");
        let other = if first.is_ok() { second } else { first };
        assert_eq!(other, Err(Problem::NotFound));
    }
    let rows = one.rows(EntityKind::Principal).await;
    assert_eq!(rows.len(), 8 + 1, "and the generation");
    assert!(rows.iter().all(|row| row.place == generation_place() || row.revision == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_still_waits_after_a_restart_and_what_was_approved_is_not_approved_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = async || {
        let path = dir.path().to_owned();
        let open = || embedded::open(EngineKind::Fjall, &path, StoreOptions::default()).unwrap();
        let rig = Rig::over(tokio::task::block_in_place(open), &[], false).await;
        rig.vault.parts.provisioning.look().await.unwrap();
        rig
    };
    let rig = open().await;
    let (done, waits) = (
        rig.waits("boss", new("done", &[Role::OnCall])).await,
        rig.waits("boss", new("ann", &[Role::Admin])).await,
    );
    rig.approve("chief", &done).await.unwrap();
    rig.vault.parts.follower.stop(Duration::from_secs(20)).await;
    rig.store.close().await.unwrap();
    drop(rig);
    let rig = open().await;
    assert_eq!(rig.approve("chief", &done).await, Err(Problem::NotFound));
    assert_eq!(rig.approve("boss", &waits).await, Err(Problem::SecondPerson));
    assert!(rig.approve("chief", &waits).await.is_ok());
}

#[tokio::test]
async fn a_security_key_takes_an_asker_an_approver_and_an_owner() {
    let rig = Rig::new().await;
    let line = Authenticator::ed25519(1).line("blue");
    let (key, label) = SecurityKey::parse_line(&line).unwrap();
    let asked = || Enrollment {
        principal: id("boss"),
        key: key.clone(),
        label: label.clone(),
        note: Note::default(),
    };
    let chief = rig.cx("chief").await;
    let (_, waits) = rig.vault.enroll_security_key(&chief, "demo", Ok(asked())).await.unwrap();
    let listed = rig.vault.list_principal_changes(&rig.cx("root").await, "demo").await.unwrap();
    let proposal = &listed[0].proposal;
    assert_eq!(Some(proposal.id), waits);
    assert!(rig.rows(EntityKind::SecurityKey).await.is_empty());
    // Not by who asked, and not by whose it shall be.
    for who in ["chief", "boss"] {
        let cx = rig.cx(who).await;
        let second_person = (Problem::SecondPerson, "second_person");
        rig.is_refused(&cx, proposal, proposal.hash().to_vec(), second_person).await;
    }
    let Ok(Approved::SecurityKey(enrolled)) = rig.approve("root", proposal).await else { panic!() };
    assert_eq!(enrolled.enrolled_by, Some(id("chief")));
    assert_eq!(rig.approve("root", proposal).await, Err(Problem::NotFound));
    // A key that was taken back meanwhile stays so.
    let red = Authenticator::ed25519(2).line("red");
    let (key, label) = SecurityKey::parse_line(&red).unwrap();
    let asked = |who: &str| Enrollment {
        principal: id(who),
        key: key.clone(),
        label: label.clone(),
        note: Note::default(),
    };
    for who in ["ada", "grace"] {
        rig.vault.enroll_security_key(&chief, "demo", Ok(asked(who))).await.unwrap();
    }
    let listed = rig.vault.list_principal_changes(&rig.cx("root").await, "demo").await.unwrap();
    assert!(rig.approve("root", &listed[0].proposal).await.is_ok());
    assert_eq!(rig.approve("root", &listed[1].proposal).await, Err(Problem::Taken), "it is another's by now");
}

#[tokio::test]
async fn texts_that_could_deceive_who_approves_are_refused() {
    let rig = Rig::new().await;
    let cx = rig.cx("boss").await;
    for (reason, owner) in [("red \u{1b}[31m", None), ("", Some("right \u{202e}to left".to_owned()))] {
        let asked = PrincipalAsked { owner, ..new("ann", &[Role::OnCall]) };
        let note = Note { reason: reason.to_owned(), ticket: String::new() };
        let put = rig.vault.put_principal(&cx, "demo", Ok(asked), Ok(note)).await;
        assert!(matches!(put.map_err(|refused| refused.problem), Err(Problem::Field(_))));
    }
    assert!(rig.rows(EntityKind::Proposal).await.is_empty());
}

#[tokio::test]
async fn without_the_rule_one_is_enough_and_the_log_and_the_alert_say_so() {
    let mut rig = Rig::new().await;
    rig.vault.parts.people.second_person = false;
    rig.made("boss", new("ann", &[Role::Approver])).await;
    let entry = rig.entries().await.pop().unwrap();
    assert_eq!(entry.details["second_person"], "not_asked_for");
    assert_eq!(rig.alerts().await, ["principal_changed"]);
    let alert = rig.rows(EntityKind::Alert).await.pop().unwrap();
    assert!(String::from_utf8_lossy(&alert.content).contains("not_asked_for"));
    let line = Authenticator::ed25519(1).line("");
    assert!(rig.enroll("boss", "ada", &line).await.is_ok());
    assert!(rig.rows(EntityKind::Proposal).await.is_empty());
    // What needs nobody else does not say so.
    rig.made("boss", new("screen", &[Role::Console])).await;
    assert!(!rig.entries().await.pop().unwrap().details.contains_key("second_person"));
}

/// Who asked is known again by everything that it came with.
#[tokio::test]
async fn the_row_keeps_who_asked_as_a_party() {
    let rig = Rig::new().await;
    let proposal = rig.waits("boss", new("ann", &[Role::OnCall])).await;
    assert_eq!(proposal.asker, Party::of(&rig.cx("boss").await.caller));
}
