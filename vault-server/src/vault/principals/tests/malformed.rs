//! A malformed row is nobody's, and closes nothing but itself.

use vault_mem::{LockedKey, LockedMemoryError};

use super::*;
use crate::access::Challenge;
use crate::crypto::RowKey;
use crate::domain::{EntityPlace, Environment, KeyVersion, SecondFactorAction, VaultId, VaultIdentity};
use crate::store::SealedStore;

fn sealed(engine: &MemoryStore) -> Arc<SealedStore> {
    let identity = VaultIdentity {
        vault: VaultId::from_bytes([7; 16]),
        environment: Environment::parse("dev").unwrap(),
    };
    let key = LockedKey::fill(|key| {
        key.fill(3);
        Ok::<_, LockedMemoryError>(())
    });
    let key = RowKey::new(KeyVersion::FIRST, identity, key.unwrap());
    Arc::new(SealedStore::new(Arc::new(engine.clone()), Arc::new(key)))
}

fn place_of_key(key: &Authenticator) -> EntityPlace {
    EnrolledKey::place(&SecurityKey::from_blob(&key.blob()).unwrap().fingerprint()).unwrap()
}

#[tokio::test]
async fn the_row_of_one_principal_is_in_the_way_of_no_other() {
    let engine = MemoryStore::new();
    let rig = Rig::over(sealed(&engine), &[], false).await;
    let (ann, bob) = (rig.there("ann", &[Role::OnCall]).await, rig.there("bob", &[Role::OnCall]).await);
    engine.malform(principal_place(&ann.id));
    // With the next change all of them are read.
    rig.made("boss", PrincipalAsked { roles: demo(&[Role::Console]), ..again(&bob) }).await;
    let is_there = |who: &str| rig.vault.parts.access.principal(&id(who)).is_some();
    assert!(!is_there("ann") && is_there("bob"));
    rig.cx("bob").await;
    rig.there("carl", &[Role::Approver]).await;
    assert!(is_there("carl"));
    // What is in its place is nobody's to change.
    let put = rig.put("boss", PrincipalAsked { seen: None, ..again(&ann) }).await;
    assert_eq!(put.map(drop), Err(Problem::RecordCorrupt));
    let listed = rig.vault.list_principals(&rig.cx("boss").await, "demo").await.unwrap();
    assert!(listed.iter().all(|known| known.principal.id != ann.id));
}

#[tokio::test]
async fn a_change_of_ones_own_that_is_malformed_is_gone_and_the_others_are_approved() {
    let engine = MemoryStore::new();
    let rig = Rig::over(sealed(&engine), &[], false).await;
    let (one, two) = (
        rig.waits("boss", new("one", &[Role::OnCall])).await,
        rig.waits("boss", new("two", &[Role::OnCall])).await,
    );
    engine.malform(Proposal::place(one.tenant.as_ref(), one.id));
    assert_eq!(rig.approve("chief", &one).await, Err(Problem::NotFound));
    assert!(rig.approve("chief", &two).await.is_ok());
}

#[tokio::test]
async fn the_row_of_one_security_key_closes_no_other_key_and_what_it_leaves_open_is_refused() {
    let engine = MemoryStore::new();
    let [red, blue, green] = [1, 2, 3].map(Authenticator::ed25519);
    let rig = Rig::over(sealed(&engine), &[("root", green.line(""))], false).await;
    rig.enroll_by_root("ada", &red, &green, 1).await;
    rig.enroll_by_root("grace", &blue, &green, 2).await;
    engine.malform(place_of_key(&red));
    // Its owner has no second factor, and the others have theirs.
    let (ada, grace) = (rig.cx("ada").await, rig.cx("grace").await);
    assert_eq!(rig.begin(&ada).await.map(drop), Err(Problem::SecondFactor("second_factor_no_key")));
    let begun = rig.begin(&grace).await.unwrap();
    rig.used_with(&grace, &begun, &blue, 1).await.unwrap();

    // Whose it was can't be said: who has no key may be the one.
    let proposal = rig.waits("boss", new("ann", &[Role::OnCall])).await;
    let chief = rig.cx("chief").await;
    assert_eq!(rig.approve_with(&chief, &proposal, None).await, Err(Problem::RecordCorrupt));
    let entry = rig.entries().await.pop().unwrap();
    assert_eq!((entry.action(), entry.cause.as_str()), (AuditAction::PrincipalApprove, "record_corrupt"));
    assert_eq!(entry.details["proposal"], proposal.id.to_string());
    // Who has one touches it.
    let root = rig.cx("root").await;
    let factor = rig.touch(&root, &green, 3).await;
    assert!(rig.approve_with(&root, &proposal, Some(factor)).await.is_ok());
}

#[tokio::test]
async fn challenges_are_swept_past_one_that_is_malformed() {
    let engine = MemoryStore::new();
    let blue = Authenticator::ed25519(2);
    let rig = Rig::over(sealed(&engine), &[("grace", blue.line(""))], false).await;
    let grace = rig.cx("grace").await;
    let mut begun = Vec::new();
    for _ in 0..3 {
        begun.push(rig.begin_for(&grace, SecondFactorAction::GrantApprove).await.unwrap());
    }
    begun.sort_by_key(|begun| begun.challenge.to_string());
    engine.malform(Challenge::place(begun[1].challenge).unwrap());
    assert_eq!(
        rig.used_with(&grace, &begun[1], &blue, 1).await,
        Err(Problem::RecordCorrupt),
        "it opens nothing"
    );
    rig.used_with(&grace, &begun[0], &blue, 2).await.unwrap();
    rig.clock.set(START + 24 * HOUR);
    assert_eq!(rig.vault.sweep_challenges().await, Ok(1));
}

#[tokio::test]
async fn without_the_row_that_counts_changes_those_of_the_file_may_call_and_nobody_else() {
    let engine = MemoryStore::new();
    let rig = Rig::over(sealed(&engine), &[], false).await;
    rig.there("ann", &[Role::OnCall]).await;
    let is_there = |who: &str| rig.vault.parts.access.principal(&id(who)).is_some();
    assert!(is_there("ann"));
    engine.malform(generation_place());
    rig.vault.parts.provisioning.look().await.unwrap();
    rig.vault.parts.provisioning.look().await.unwrap();
    assert!(!is_there("ann") && is_there("boss"));
    rig.cx("boss").await;
}
