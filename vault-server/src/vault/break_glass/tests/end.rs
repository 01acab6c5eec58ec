//! When a grant is over, and who sees to it.

use super::*;

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
    rig.clock.set_back(3 * DAY);
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::GrantState));
    assert_eq!(rig.get(&grant).await.state(), GrantState::Over);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_gives_no_more_time() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let dora = rig.cx("dora").await;
    let grant = rig.granted(&tokens, 9).await;
    rig.clock.set_back(3 * DAY);
    assert!(rig.reveal(&dora, &grant, &tokens).await.unwrap()[0].is_ok());
    tokio::time::advance(Duration::from_mins(15)).await;
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::GrantState));
    // An instance that has seen it since its approval ends it, too.
    assert_eq!(rig.get(&grant).await.end().unwrap().how, Ended::Expired);
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
