//! Keys that another instance changes meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::crypto;
use crate::domain::{ClassName, Clock as _, Plaintext, Record, SubjectId, Token};
use crate::kms::testing::TestKms;
use crate::store::memory::MemoryStore;
use crate::store::{Change, LogId, Lookup};
use crate::vault::testing::Rig;
use crate::vault::{EraseTarget, NewValue};

const SSN: &str = "219-09-9999";
const SUBJECT: &str = "patient-17";

/// Two instances on one store, with keyrings of their own and the same KMS.
async fn instances() -> [Rig; 2] {
    let (store, kms) = (MemoryStore::new(), TestKms::new("east"));
    let mut rigs = [
        Rig::over(Arc::new(store.clone()), &[], false).await,
        Rig::over(Arc::new(store.instance(LogId(1))), &[], false).await,
    ];
    for rig in &mut rigs {
        rig.opens_by(&kms);
    }
    rigs
}

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

fn ssn() -> ClassName {
    ClassName::parse("ssn").unwrap()
}

fn value() -> Plaintext {
    Plaintext::from_utf8(SSN.as_bytes().to_vec()).unwrap()
}

async fn keep(rig: &Rig) -> Token {
    let subject = Some(SubjectId::parse(SUBJECT.to_owned()).unwrap());
    let item = NewValue { class: ssn(), value: value(), subject };
    let cx = rig.cx("app").await;
    rig.vault.tokenize(&cx, "demo", Ok(vec![Ok(item)]), Ok(None)).await.unwrap().remove(0).unwrap()
}

async fn found(rig: &Rig) -> Vec<Token> {
    let cx = rig.cx("app").await;
    let found = rig.vault.find(&cx, "demo", Ok(ssn()), Ok(vec![Ok(value())]), 0).await.unwrap().remove(0);
    found.unwrap().tokens
}

async fn newest(rig: &Rig, purpose: KeyPurpose) -> KeyRecord {
    rig.vault.parts.keyring.list(Some(&demo()), purpose).await.unwrap().remove(0)
}

#[tokio::test]
async fn what_was_kept_under_a_key_that_this_instance_does_not_know_is_found_and_erased() {
    let [here, there] = instances().await;
    let first = keep(&here).await;
    assert_eq!(found(&here).await, [first]);
    // A moment later, in the other one.
    let active = newest(&there, KeyPurpose::Index).await;
    assert!(there.vault.rotate_due(&active, "age").await.unwrap());
    let second = keep(&there).await;
    let mut both = [first, second];
    both.sort_unstable();
    assert_eq!(found(&here).await, both);
    let active = newest(&there, KeyPurpose::Index).await;
    assert!(there.vault.rotate_due(&active, "age").await.unwrap());
    let third = keep(&there).await;
    let target = EraseTarget::Subject(SubjectId::parse(SUBJECT.to_owned()).unwrap());
    let cx = here.cx("app").await;
    let erased = here.vault.erase(&cx, "demo", Ok(target), Ok(Note::default())).await.unwrap();
    assert_eq!(erased.len(), 3);
    let records = here.store.records(&[first, second, third]).await.unwrap();
    assert!(records.iter().all(|there| matches!(there, Lookup::Found(record) if record.key_id().is_none())));
}

#[tokio::test]
async fn the_first_value_of_a_tenant_is_found_by_an_instance_that_knew_of_none() {
    let [here, there] = instances().await;
    assert_eq!(found(&here).await, []);
    let token = keep(&there).await;
    assert_eq!(found(&here).await, [token]);
}

#[tokio::test]
async fn a_record_is_found_at_every_instant_of_its_move_to_another_key() {
    for finds in 1..=3 {
        let store = MemoryStore::new();
        let rig = Rig::over(Arc::new(store.clone()), &[], false).await;
        let token = keep(&rig).await;
        for _ in 0..2 {
            let active = newest(&rig, KeyPurpose::Index).await;
            assert!(rig.vault.rotate_due(&active, "age").await.unwrap());
        }
        let class = rig.vault.parts.classes.get(&ssn()).unwrap();
        let normalized = class.normalize(&value(), rig.clock.now()).unwrap();
        let newest = rig.vault.parts.keyring.active_index_key(&demo()).await.unwrap();
        let Lookup::Found(record) = rig.store.records(&[token]).await.unwrap().remove(0) else { panic!() };
        // A job moves it between two looks.
        let index = Some(crypto::blind_index(&newest, &ssn(), &normalized));
        let moved = Record { index, revision: record.revision + 1, ..*record };
        store.change_after_finds(finds, Change { writes: vec![Write::Replace(moved)], entries: Vec::new() });
        assert_eq!(found(&rig).await, [token], "after {finds} looks");
        assert_eq!(found(&rig).await, [token], "moved");
    }
}

#[tokio::test]
async fn what_is_gone_by_the_time_its_record_is_read_hides_nothing_behind_the_limit() {
    let store = MemoryStore::new();
    let rig = Rig::over(Arc::new(store.clone()), &[], false).await;
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(keep(&rig).await);
    }
    tokens.sort_unstable();
    // Erased after the look at the index, say.
    tokens[..3].iter().for_each(|token| store.lose(*token));
    let cx = rig.cx("app").await;
    for (limit, truncated) in [(1, true), (2, false)] {
        let found = rig.vault.find(&cx, "demo", Ok(ssn()), Ok(vec![Ok(value())]), limit).await.unwrap();
        let found = found.into_iter().next().unwrap().unwrap();
        assert_eq!((&found.tokens[..], found.truncated), (&tokens[3..3 + limit], truncated));
    }
}

#[tokio::test]
async fn a_compromised_key_is_marked_though_its_replacement_is_long_in_coming() {
    let mut rig = Rig::new().await;
    keep(&rig).await;
    let key = newest(&rig, KeyPurpose::Data).await;
    rig.opens_by(&TestKms::slow("east", Duration::from_secs(30)));
    let (cx, began) = (rig.cx("boss").await, tokio::time::Instant::now());
    let marked = rig.vault.mark_compromised(&cx, "demo", Ok(key.id), Ok(Note::default())).await.unwrap();
    // As fast as one call that hangs would not be.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(marked.key.state, KeyState::Compromised);
    let now = newest(&rig, KeyPurpose::Data).await;
    assert_eq!((now.id, now.state), (key.id, KeyState::Compromised), "nothing seals in its place yet");
}

#[tokio::test]
async fn no_key_is_made_for_a_tenant_whose_last_one_is_destroyed_meanwhile() {
    let mut rig = Rig::new().await;
    rig.opens_by(&TestKms::slow("east", Duration::from_millis(300)));
    keep(&rig).await;
    let key = newest(&rig, KeyPurpose::Data).await;
    let marked = changed(&key, KeyState::Compromised);
    let write = async |key: &KeyRecord| {
        rig.vault.parts.log.write(vec![Write::ReplaceKey(key.clone())]).await.unwrap()
    };
    write(&marked).await;
    let (rotated, _) = tokio::join!(rig.vault.rotate_due(&marked, "age"), async {
        sleep(Duration::from_millis(100)).await;
        write(&KeyRecord { wraps: Vec::new(), ..changed(&marked, KeyState::Destroyed) }).await
    });
    assert!(matches!(rotated, Err(Refused { problem: Problem::KeyDestroyed, .. })));
    assert_eq!(newest(&rig, KeyPurpose::Data).await.version, KeyVersion::FIRST);
}
