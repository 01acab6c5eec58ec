use super::*;
use crate::domain::{Environment, VaultId};

const NOW: Timestamp = Timestamp(1_795_345_200_000_000);

fn ada() -> PrincipalId {
    PrincipalId::parse("ada@example.org").unwrap()
}

fn challenge() -> Challenge {
    Challenge {
        id: ChallengeId::from_bytes([1; 16]),
        principal: ada(),
        credential: [4; 32],
        action: SecondFactorAction::GrantApprove,
        request_hash: [2; 32],
        random: [3; 32],
        issued: NOW,
        expires: later(NOW, LIFETIME),
    }
}

fn identity() -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment: Environment::parse("dev").unwrap() }
}

#[test]
fn the_text_says_what_for_who_and_until_when() {
    assert_eq!(challenge().text(&identity()).unwrap(), include_str!("security_key_vectors/text"));
    let mut texts = std::collections::BTreeSet::new();
    let one = challenge();
    for other in [
        one.clone(),
        Challenge { principal: PrincipalId::parse("grace").unwrap(), ..one.clone() },
        Challenge { action: SecondFactorAction::GrantDeny, ..one.clone() },
        Challenge { request_hash: [9; 32], ..one.clone() },
        Challenge { random: [9; 32], ..one.clone() },
        Challenge { expires: NOW, ..one.clone() },
    ] {
        assert!(texts.insert(other.text(&identity()).unwrap()), "{other:?}");
    }
    assert_eq!(Challenge { expires: Timestamp(u64::MAX), ..one }.text(&identity()), None);
}

/// A row that was written once. It opens for as long as one can be under way.
const VECTOR: &str = "010a0f616461406578616d706c652e6f72671220040404040404040404040404040404040404040404040404040404040404\
    04041802222002020202020202020202020202020202020202020202020202020202020202022a2003030303030303030303\
    030303030303030303030303030303030303030303033080d89487b69b980338809e9b96b79b9803";

#[test]
fn a_row_is_as_it_always_was() {
    let row = challenge().entity().unwrap();
    assert_eq!(hex::encode(&row.content), VECTOR);
    assert_eq!(Challenge::open(&row), Some(challenge()));
    for len in 0..row.content.len() {
        let cut = Entity { content: row.content[..len].to_vec(), ..row.clone() };
        assert_ne!(Challenge::open(&cut), Some(challenge()), "{len}");
    }
    let longer = Entity { content: [&row.content[..], &[0x50, 1]].concat(), ..row };
    assert_eq!(Challenge::open(&longer), None);
}

#[test]
fn it_is_good_for_one_thing_for_a_while() {
    let one = challenge();
    let (ada, grace) = (ada(), PrincipalId::parse("grace").unwrap());
    let wanted = Wanted {
        principal: &ada,
        credential: &[4; 32],
        action: SecondFactorAction::GrantApprove,
        request_hash: &[2; 32],
    };
    let end = one.expires.0;
    for (wanted, now, answer) in [
        (wanted, NOW, Ok(())),
        (wanted, Timestamp(end - 1), Ok(())),
        (wanted, Timestamp(end), Err(ChallengeError::Expired)),
        (wanted, Timestamp(NOW.0 - 10_000_000), Ok(())),
        (wanted, Timestamp(NOW.0 - 10_000_001), Err(ChallengeError::Future)),
        (Wanted { principal: &grace, ..wanted }, NOW, Err(ChallengeError::Principal)),
        (Wanted { credential: &[5; 32], ..wanted }, NOW, Err(ChallengeError::Credential)),
        (Wanted { action: SecondFactorAction::GrantDeny, ..wanted }, NOW, Err(ChallengeError::Action)),
        (Wanted { request_hash: &[5; 32], ..wanted }, NOW, Err(ChallengeError::Request)),
    ] {
        assert_eq!(one.check(wanted, now), answer, "{wanted:?} {now:?}");
    }
    assert!(!one.is_stale(Timestamp(end)), "another instance's clock may be behind");
    assert!(one.is_stale(Timestamp(end + 10_000_000)));
}

#[test]
fn the_causes_in_the_log_are_what_they_always_were() {
    use ChallengeError as E;
    for (why, cause) in [
        (E::Principal, "second_factor_principal"),
        (E::Credential, "second_factor_credential"),
        (E::Action, "second_factor_action"),
        (E::Request, "second_factor_request"),
        (E::Expired, "second_factor_expired"),
        (E::Future, "second_factor_future"),
    ] {
        assert_eq!(why.as_str(), cause);
    }
}

#[test]
fn no_two_are_alike() {
    let wanted = Wanted {
        principal: &ada(),
        credential: &[4; 32],
        action: SecondFactorAction::GrantApprove,
        request_hash: &[2; 32],
    };
    let (one, two) = (Challenge::new(wanted, NOW).unwrap(), Challenge::new(wanted, NOW).unwrap());
    assert!(one.random != two.random && one.id != two.id);
    assert_eq!(one.check(wanted, NOW), Ok(()));
    assert_eq!(one.expires.0 - NOW.0, 300_000_000);
}
