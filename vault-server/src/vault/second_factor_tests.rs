use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::access::authenticator::{Authenticator, Manner};
use crate::access::testing::test_policies;
use crate::domain::TenantId;
use crate::store::LogId;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::memory::MemoryStore;
use crate::vault::testing::{MINUTE, REQUEST, given, people};

pub(in crate::vault) use crate::vault::testing::{Rig, START};

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
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
