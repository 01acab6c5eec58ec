//! Who sees grants, and who ends them.

use super::*;

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
