use super::*;
use crate::access::authenticator::Authenticator;
use crate::vault::second_factor::tests::Rig;

#[tokio::test]
async fn a_key_is_enrolled_by_another_person_with_an_alert() {
    let rig = Rig::new().await;
    let line = Authenticator::ed25519(1).line("ada blue");
    for (who, id, why) in [
        // Of whom the caller may not say anything, or does not know.
        ("ada", "grace", Problem::ActionNotAllowed),
        ("boss", "far", Problem::NotFound),
        ("boss", "nobody", Problem::NotFound),
        ("boss", "wide", Problem::ActionNotAllowed),
        // Oneself; a program; for a program.
        ("boss", "boss", Problem::SecondPerson),
        ("robot", "ada", Problem::SecondPerson),
        ("boss", "robot", Problem::Field("a person: programs have no security keys")),
    ] {
        assert_eq!(rig.enroll(who, id, &line).await, Err(why.clone()), "{who} for {id}");
        assert_eq!(rig.entries().await.last().unwrap().cause, why.cause(), "{who} for {id}");
    }
    assert!(rig.rows(EntityKind::SecurityKey).await.is_empty());
    assert!(rig.alerts().await.is_empty());

    let known = rig.enroll("boss", "ada", &line).await.unwrap();
    assert_eq!(known.enrolled_by.as_ref().map(PrincipalId::as_str), Some("boss"));
    assert_eq!(known.label, "ada blue");
    assert_eq!(rig.alerts().await, ["principal_change_asked", "security_key_enrolled"]);
    // Once more: as it is. For another: taken, whoever asks.
    assert_eq!(rig.enroll("chief", "ada", &line).await, Ok(known));
    assert_eq!(rig.enroll("chief", "grace", &line).await, Err(Problem::Taken));
    assert_eq!(rig.alerts().await.len(), 2);
    assert_eq!(rig.rows(EntityKind::SecurityKey).await.len(), 1);
    // Who is admin of the vault may for whoever is in it.
    assert!(rig.enroll("root", "wide", &Authenticator::ed25519(2).line("")).await.is_ok());
    let entries = rig.entries().await;
    let details = &entries.last().unwrap().details;
    assert!(details.values().any(|value| value.starts_with("SHA256:")), "{details:?}");
}

#[tokio::test]
async fn a_key_is_taken_back_for_good_by_its_owner_or_by_who_may_enroll() {
    let rig = Rig::new().await;
    let line = |seed| Authenticator::ed25519(seed).line("");
    for seed in 1..=3 {
        rig.enroll("boss", "ada", &line(seed)).await.unwrap();
    }
    for (who, id, seed, why) in [
        ("grace", "ada", 1, Problem::ActionNotAllowed),
        ("boss", "grace", 1, Problem::NotFound),
        ("grace", "grace", 1, Problem::NotFound),
        ("boss", "ada", 9, Problem::NotFound),
        ("boss", "far", 1, Problem::NotFound),
        ("boss", "wide", 1, Problem::ActionNotAllowed),
    ] {
        assert_eq!(rig.revoke(who, id, &line(seed)).await, Err(why), "{who}: {id}'s {seed}");
    }
    assert_eq!(rig.revoke("boss", "ada", &line(1)).await, Ok(()));
    assert_eq!(rig.revoke("ada", "ada", &line(2)).await, Ok(()), "its own");
    assert_eq!(rig.revoke("ada", "ada", &line(2)).await, Ok(()), "twice is once");
    let cx = rig.cx("ada").await;
    assert_eq!(rig.begin(&cx).await.unwrap().public_keys, [line(3)]);
    // It stays so.
    assert_eq!(rig.enroll("boss", "ada", &line(1)).await, Err(Problem::Taken));
    assert_eq!(rig.enroll("boss", "grace", &line(1)).await, Err(Problem::Taken));
}

#[tokio::test]
async fn a_person_has_so_many_keys_and_no_more() {
    let rig = Rig::new().await;
    let line = |seed: usize| Authenticator::ed25519(u8::try_from(seed).unwrap()).line("");
    for seed in 1..=MOST_KEYS {
        rig.enroll("boss", "ada", &line(seed)).await.unwrap();
    }
    let more = rig.enroll("boss", "ada", &line(MOST_KEYS + 1)).await;
    assert!(matches!(more, Err(Problem::Field(_))), "{more:?}");
    assert!(rig.enroll("boss", "ada", &line(1)).await.is_ok(), "one that it has");
    rig.revoke("boss", "ada", &line(1)).await.unwrap();
    assert!(rig.enroll("boss", "ada", &line(MOST_KEYS + 1)).await.is_ok());
}
