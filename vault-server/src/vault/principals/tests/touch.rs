//! Who ever had a security key touches it to approve.

use super::*;
use crate::domain::SecondFactorAction;
use crate::vault::GivenFactor;

const MISSING: (Problem, &str) = (Problem::SecondFactor("second_factor_missing"), "");

impl Rig {
    async fn touch_for(
        &self,
        cx: &Context,
        action: SecondFactorAction,
        key: &Authenticator,
        counter: u32,
    ) -> GivenFactor {
        let begun = self.begin_for(cx, action).await.unwrap();
        self.given(&begun, key, counter)
    }

    pub(super) async fn touch(&self, cx: &Context, key: &Authenticator, counter: u32) -> GivenFactor {
        self.touch_for(cx, SecondFactorAction::PrincipalChangeApprove, key, counter).await
    }
}

impl Rig {
    /// A key that `boss` asks for, and `root` approves by a touch.
    pub(super) async fn enroll_by_root(
        &self,
        owner: &str,
        key: &Authenticator,
        by: &Authenticator,
        counter: u32,
    ) {
        let asked = self.enroll("boss", owner, &key.line("")).await;
        assert_eq!(asked.map(drop), Err(MISSING.0));
        let root = self.cx("root").await;
        let waits = self.vault.list_principal_changes(&root, "demo").await.unwrap().remove(0).proposal;
        let factor = self.touch(&root, by, counter).await;
        let approved = self.approve_with(&root, &waits, Some(factor)).await;
        assert!(matches!(approved, Ok(Approved::SecurityKey(_))), "{approved:?}");
        self.confirm(owner, &key.line("")).await.unwrap();
    }
}

#[tokio::test]
async fn an_approver_with_a_security_key_touches_it_for_this_change() {
    let rig = Rig::new().await;
    let red = Authenticator::ed25519(2);
    rig.enroll("boss", "chief", &red.line("")).await.unwrap();
    let (one, two) = (
        rig.waits("boss", new("one", &[Role::Admin])).await,
        rig.waits("boss", new("two", &[Role::OnCall])).await,
    );
    let chief = rig.cx("chief").await;
    rig.is_refused(&chief, &one, one.hash().to_vec(), MISSING).await;

    // One for something else is none, and neither is one for another request.
    let for_grant = rig.touch_for(&chief, SecondFactorAction::GrantApprove, &red, 1).await;
    let for_job = rig.touch_for(&chief, SecondFactorAction::JobApprove, &red, 2).await;
    let elsewhere = GivenFactor { request_hash: [9; 32], ..rig.touch(&chief, &red, 3).await };
    for (factor, cause) in [
        (for_grant, "second_factor_action"),
        (for_job, "second_factor_action"),
        (elsewhere, "second_factor_request"),
    ] {
        let before = rig.state_of_all().await;
        let refused = rig.approve_with(&chief, &one, Some(factor)).await;
        assert_eq!(refused, Err(Problem::SecondFactor(cause)));
        assert_eq!(rig.state_of_all().await, before);
        let entry = rig.entries().await.pop().unwrap();
        assert_eq!((entry.action(), entry.cause.as_str()), (AuditAction::PrincipalApprove, cause));
        assert_eq!(entry.details["proposal"], one.id.to_string());
    }

    let factor = rig.touch(&chief, &red, 4).await;
    assert!(rig.approve_with(&chief, &one, Some(factor.clone())).await.is_ok());
    let entry = rig.entries().await.pop().unwrap();
    assert_eq!(entry.action(), AuditAction::PrincipalApprove);
    let fingerprint = SecurityKey::from_blob(&red.blob()).unwrap().fingerprint().to_string();
    assert_eq!(entry.details["security_key"], fingerprint);
    // It is used up, for this change and for every other.
    assert_eq!(rig.approve_with(&chief, &one, Some(factor.clone())).await, Err(Problem::NotFound));
    let used = Err(Problem::SecondFactor("second_factor_unknown"));
    assert_eq!(rig.approve_with(&chief, &two, Some(factor)).await, used);
    // The counter is noted: what does not count on is a copy.
    let copy = rig.touch(&chief, &red, 4).await;
    assert_eq!(
        rig.approve_with(&chief, &two, Some(copy)).await,
        Err(Problem::SecondFactor("second_factor_counter"))
    );
    let on = rig.touch(&chief, &red, 5).await;
    assert!(rig.approve_with(&chief, &two, Some(on)).await.is_ok());
}

#[tokio::test]
async fn what_would_be_refused_anyway_uses_no_touch_up() {
    let rig = Rig::new().await;
    let red = Authenticator::ed25519(2);
    rig.enroll("boss", "chief", &red.line("")).await.unwrap();
    let own = rig.waits("chief", new("one", &[Role::OnCall])).await;
    let chief = rig.cx("chief").await;
    let factor = rig.touch(&chief, &red, 1).await;
    assert_eq!(rig.approve_with(&chief, &own, Some(factor.clone())).await, Err(Problem::SecondPerson));
    let another = rig.waits("boss", new("two", &[Role::OnCall])).await;
    assert!(rig.approve_with(&chief, &another, Some(factor)).await.is_ok());
}

#[tokio::test]
async fn without_a_key_or_without_the_rule_nobody_touches_anything() {
    let rig = Rig::new().await;
    // Who asks has one; who approves has one that counts for nothing yet.
    rig.enroll("chief", "boss", &Authenticator::ed25519(1).line("")).await.unwrap();
    rig.enroll("boss", "chief", &Authenticator::ecdsa().line("")).await.unwrap();
    rig.there("ann", &[Role::Admin]).await;
    assert!(!rig.entries().await.pop().unwrap().details.contains_key("security_key"));

    let mut rig = Rig::new().await;
    rig.vault.parts.second_factor.for_approvals = false;
    rig.enroll("boss", "chief", &Authenticator::ed25519(2).line("")).await.unwrap();
    rig.there("ann", &[Role::Admin]).await;
}

#[tokio::test]
async fn a_key_that_was_taken_back_makes_no_approval_easier() {
    let rig = Rig::new().await;
    let (red, blue) = (Authenticator::ed25519(2), Authenticator::ed25519(4));
    rig.enroll("boss", "chief", &red.line("")).await.unwrap();
    rig.revoke("chief", "chief", &red.line("")).await.unwrap();
    let proposal = rig.waits("boss", new("ann", &[Role::Admin])).await;
    let chief = rig.cx("chief").await;
    rig.is_refused(&chief, &proposal, proposal.hash().to_vec(), MISSING).await;
    // Another one is as good as the first.
    rig.enroll("boss", "chief", &blue.line("")).await.unwrap();
    let factor = rig.touch(&chief, &blue, 1).await;
    assert!(rig.approve_with(&chief, &proposal, Some(factor)).await.is_ok());
}

#[tokio::test]
async fn a_key_of_the_file_is_touched_to_approve_somebody_elses_key() {
    let red = Authenticator::ed25519(2);
    let rig = Rig::over(Arc::new(MemoryStore::new()), &[("root", red.line(""))], false).await;
    rig.enroll_by_root("ada", &Authenticator::ed25519(1), &red, 1).await;
    // The key that came into force, and the one that was touched.
    assert_eq!(rig.rows(EntityKind::SecurityKey).await.len(), 2);
}

#[tokio::test]
async fn of_two_changes_that_one_touch_comes_with_at_once_one_is_made() {
    let store = MemoryStore::new();
    let (one, two) = (
        Rig::over(Arc::new(store.clone()), &[], false).await,
        Rig::over(Arc::new(store.instance(LogId(1))), &[], false).await,
    );
    let red = Authenticator::ed25519(2);
    one.enroll("boss", "chief", &red.line("")).await.unwrap();
    for round in 0..8 {
        let changes = [format!("ann{round}"), format!("bob{round}")];
        let [ann, bob] = changes.each_ref().map(|name| new(name, &[Role::Approver]));
        let (ann, bob) = (one.waits("boss", ann).await, one.waits("boss", bob).await);
        let chief = one.cx("chief").await;
        let factor = Some(one.touch(&chief, &red, round + 1).await);
        let (first, second) = tokio::join!(
            one.approve_with(&chief, &ann, factor.clone()),
            two.approve_with(&chief, &bob, factor)
        );
        let made = [&first, &second].into_iter().filter(|made| made.is_ok()).count();
        assert_eq!(made, 1, "{first:?} {second:?}");
        let other = if first.is_ok() { second } else { first };
        assert!(matches!(other, Err(Problem::SecondFactor(_))), "{other:?}");
    }
}
