use sha2::{Digest as _, Sha256};

use super::*;
use crate::access::authenticator::Authenticator;
use crate::vault::testing::Rig;

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

/// What an admin typed wrong, or a key that was lost on its way, is no second factor; and the owner sees what is its own.
#[tokio::test]
async fn a_key_counts_once_its_owner_has_signed_with_it() {
    let rig = Rig::new().await;
    let (blue, red) = (Authenticator::ed25519(1), Authenticator::ed25519(2));
    rig.enroll("boss", "grace", &red.line("red")).await.unwrap();
    let (key, label) = SecurityKey::parse_line(&blue.line("blue")).unwrap();
    let enrolled = EnrolledKey {
        principal: PrincipalId::parse("grace").unwrap(),
        key: key.clone(),
        label,
        enrolled: Timestamp(1),
        enrolled_by: Some(PrincipalId::parse("boss").unwrap()),
        confirmed: Confirmation::Waits,
        revoked: None,
        counter: 0,
    };
    rig.put_row(enrolled.entity(None).unwrap()).await;
    let cx = rig.cx("grace").await;
    // It is not among those that may sign, and what it signs does not count.
    let begun = rig.begin(&cx).await.unwrap();
    assert_eq!(begun.public_keys, [red.line("red")]);
    assert_eq!(
        rig.used_with(&cx, &begun, &blue, 1).await,
        Err(Problem::SecondFactor("second_factor_key_unconfirmed"))
    );
    let known = rig.vault.who_am_i(&cx).await.unwrap().keys;
    let mut states: Vec<_> = known.iter().map(|known| (known.label.as_str(), known.confirmed)).collect();
    states.sort_unstable_by_key(|(label, _)| *label);
    assert_eq!(states[0], ("blue", Confirmation::Waits));
    assert!(matches!(states[1], ("red", Confirmation::At(_))));
    // With another key, nothing; nor by another person.
    let fields = (SecondFactorAction::KeyConfirm, Sha256::digest(b"a request").into());
    let confirming = rig.vault.begin_second_factor(&cx, Ok(fields)).await.unwrap();
    assert_eq!(confirming.public_keys, [blue.line("blue")]);
    let by_red = rig.given(&confirming, &red, 5);
    let asked = Ok((key.fingerprint(), Some(by_red)));
    let refused = rig.vault.confirm_security_key(&cx, asked).await.unwrap_err();
    assert_eq!(refused.problem, Problem::SecondFactor("second_factor_key_unconfirmed"));
    let ada = rig.cx("ada").await;
    let refused = rig.vault.confirm_security_key(&ada, Ok((key.fingerprint(), None))).await.unwrap_err();
    assert_eq!(refused.problem, Problem::NotFound);
    let missing = rig.vault.confirm_security_key(&cx, Ok((key.fingerprint(), None))).await.unwrap_err();
    assert_eq!(missing.problem, Problem::SecondFactor("second_factor_missing"));
    // With its own it counts from then on; and once is enough.
    let confirmed = rig.confirm("grace", &blue.line("blue")).await.unwrap();
    assert!(matches!(confirmed.confirmed, Confirmation::At(_)));
    let again = rig.vault.confirm_security_key(&cx, Ok((key.fingerprint(), None))).await;
    assert_eq!(again, Ok(confirmed));
    assert_eq!(rig.begin(&cx).await.unwrap().public_keys.len(), 2);
    assert_eq!(rig.used_with(&cx, &rig.begin(&cx).await.unwrap(), &blue, 1).await, Ok(()));
}
