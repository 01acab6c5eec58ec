use super::*;
use crate::access::Directory;
use crate::access::authenticator::Authenticator;
use crate::access::testing::test_policies;
use crate::domain::{
    ClassName, JobBudget, JobKind, JobOrder, JobPlace, Plaintext, PrincipalId, TenantId, Timestamp,
};
use crate::vault::testing::Rig;
use crate::vault::{JobAsked, NewValue};

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

impl Rig {
    /// `boss` asks for the tenant to be shredded.
    async fn shred(&self) -> Job {
        let app = self.cx("app").await;
        let value = NewValue {
            class: ClassName::parse("email").unwrap(),
            value: Plaintext::from_utf8(b"a@example.org".to_vec()).unwrap(),
            subject: None,
        };
        self.vault.tokenize(&app, "demo", Ok(vec![Ok(value)]), Ok(None)).await.unwrap();
        let asked = JobAsked { kind: JobKind::Shred, key: None, budget: JobBudget::default() };
        let boss = self.cx("boss").await;
        self.vault.start_job(&boss, "demo", Ok(asked), Ok(Note::default())).await.unwrap()
    }

    async fn approve_by(&self, cx: &Context, id: JobId, factor: Option<GivenFactor>) -> Result<Job, Problem> {
        let approval = JobApproval { id, note: Note::default(), factor };
        self.vault.approve_job(cx, "demo", Ok(approval)).await.map_err(|refused| {
            assert!(refused.logged, "a refusal is on record");
            refused.problem
        })
    }
}

#[tokio::test]
async fn who_asked_for_a_destruction_does_not_approve_it_under_any_name() {
    let rig = Rig::new().await;
    let job = rig.shred().await;
    assert_eq!(job.state, JobState::Asked);
    let boss = rig.cx("boss").await;
    let second_person = Err(Problem::SecondPerson);
    assert_eq!(rig.approve_by(&boss, job.id, None).await, second_person);
    let elsewhere = rig.cx_with("boss", 3).await;
    assert_eq!(rig.approve_by(&elsewhere, job.id, None).await, second_person, "another certificate");
    let alias = rig.cx_with("chief", boss.caller.credential[0]).await;
    assert_eq!(rig.approve_by(&alias, job.id, None).await, second_person, "another name");
    let robot = rig.cx("robot").await;
    assert_eq!(rig.approve_by(&robot, job.id, None).await, second_person, "a program");
    let there = rig.store.job(&job.place).await.unwrap().unwrap();
    assert_eq!((there.state, there.revision), (JobState::Asked, job.revision));
    let chief = rig.cx("chief").await;
    let approved = rig.approve_by(&chief, job.id, None).await.unwrap();
    assert_eq!(approved.state, JobState::Running);
    assert_eq!(approved.approved_by, Some(PrincipalId::parse("chief").unwrap()));
}

#[tokio::test]
async fn of_a_row_of_before_the_principal_is_compared_and_an_unreadable_asker_is_anybody() {
    let rig = Rig::new().await;
    let place = JobPlace { tenant: Some(demo()), kind: JobKind::Shred };
    let job = Job {
        id: JobId::from_bytes([1; 16]),
        place,
        order: JobOrder {
            key: None,
            budget: JobBudget::default(),
            asked_by: PrincipalId::parse("boss").unwrap(),
            asked: Timestamp(1),
            not_before: Timestamp(1),
            asker: Vec::new(),
            kms_set: None,
        },
        state: JobState::Asked,
        approved_by: None,
        begun: Timestamp(0),
        changed: Timestamp(1),
        progress: crate::domain::JobProgress::default(),
        cause: String::new(),
        revision: 0,
    };
    let with = |asker: Vec<u8>| Job { order: JobOrder { asker, ..job.order.clone() }, ..job.clone() };
    let boss = rig.cx("boss").await.caller;
    let (chief, alias) =
        (rig.cx("chief").await.caller, rig.cx_with("chief", boss.credential[0]).await.caller);
    assert!(is_who_asked(&job, &boss) && !is_who_asked(&job, &chief) && !is_who_asked(&job, &alias));
    let known = with(Party::of(&boss).to_bytes());
    assert!(is_who_asked(&known, &boss) && !is_who_asked(&known, &chief) && is_who_asked(&known, &alias));
    assert!(is_who_asked(&with(vec![9]), &chief));
}

#[tokio::test]
async fn an_approver_with_a_security_key_touches_it_whatever_who_asked_has() {
    let rig = Rig::new().await;
    let red = Authenticator::ed25519(2);
    let job = rig.shred().await;
    rig.enroll("boss", "chief", &red.line("")).await.unwrap();
    let chief = rig.cx("chief").await;
    let missing = Err(Problem::SecondFactor("second_factor_missing"));
    assert_eq!(rig.approve_by(&chief, job.id, None).await, missing);
    // One for something else is none.
    let begun = rig.begin(&chief).await.unwrap();
    let other = rig.given(&begun, &red, 1);
    let wrong = Err(Problem::SecondFactor("second_factor_action"));
    assert_eq!(rig.approve_by(&chief, job.id, Some(other)).await, wrong);
    let begun = rig.begin_for(&chief, SecondFactorAction::JobApprove).await.unwrap();
    let factor = rig.given(&begun, &red, 2);
    let approved = rig.approve_by(&chief, job.id, Some(factor.clone())).await.unwrap();
    assert_eq!(approved.state, JobState::Running);
    // The touch is used up with it; the same call once more is the same job.
    assert_eq!(rig.approve_by(&chief, job.id, Some(factor)).await, Ok(approved));
    assert!(
        rig.rows(crate::domain::EntityKind::Challenge).await.len() <= 1,
        "but the one for something else"
    );
    let entries = rig.entries().await;
    assert!(
        entries
            .iter()
            .any(|entry| entry.details.contains_key("security_key")
                && entry.action() == AuditAction::JobApprove)
    );
}

#[tokio::test]
async fn without_a_key_or_without_the_rule_nobody_touches_anything() {
    let rig = Rig::new().await;
    rig.enroll("chief", "boss", &Authenticator::ed25519(1).line("")).await.unwrap();
    let job = rig.shred().await;
    assert!(rig.approve_by(&rig.cx("chief").await, job.id, None).await.is_ok(), "who approves has none");
    let mut rig = Rig::new().await;
    rig.vault.parts.second_factor.for_approvals = false;
    rig.enroll("boss", "chief", &Authenticator::ed25519(2).line("")).await.unwrap();
    let job = rig.shred().await;
    assert!(rig.approve_by(&rig.cx("chief").await, job.id, None).await.is_ok());
}

#[tokio::test]
async fn a_key_that_was_taken_back_makes_no_approval_easier() {
    let rig = Rig::new().await;
    let red = Authenticator::ed25519(2);
    rig.enroll("boss", "chief", &red.line("")).await.unwrap();
    let job = rig.shred().await;
    rig.revoke("chief", "chief", &red.line("")).await.unwrap();
    let chief = rig.cx("chief").await;
    let missing = Err(Problem::SecondFactor("second_factor_missing"));
    assert_eq!(rig.approve_by(&chief, job.id, None).await, missing);
}

#[tokio::test]
async fn nobody_approves_what_was_asked_for_by_somebody_who_may_not_any_more() {
    let rig = Rig::new().await;
    let job = rig.shred().await;
    let admin = |id: &str, enabled: bool| {
        format!(
            "[[principal]]\nid = '{id}'\nkind = 'human'\nenabled = {enabled}\n\
             identities = ['spiffe://test.local/{id}']\n[principal.roles]\ndemo = ['admin']\n"
        )
    };
    let directory = Directory::parse(&(admin("boss", false) + &admin("chief", true))).unwrap();
    rig.vault.parts.access.reload(directory, test_policies("dev"));
    let chief = rig.cx("chief").await;
    assert_eq!(rig.approve_by(&chief, job.id, None).await, Err(Problem::ChangedMeanwhile));
    let there = rig.store.job(&job.place).await.unwrap().unwrap();
    assert_eq!((there.state, there.revision), (JobState::Asked, job.revision));
}
