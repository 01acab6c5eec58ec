//! Policy that changes while a request is under way.

use std::pin::pin;

use futures::poll;
use vault_proto::v1::{AuditItem, audit_entry};

use super::*;
use crate::access::Policies;
use crate::domain::{Environment, Plaintext, Purpose};
use crate::vault::testing::{Rig, people};
use crate::vault::{EraseTarget, NewValue, Note};

/// By nobody, nothing.
const NONE: &str = "";

async fn erased(rig: &Rig) -> Token {
    let cx = rig.cx("app").await;
    let value = Plaintext::from_utf8(b"219-09-9999".to_vec()).unwrap();
    let item = NewValue { class: ClassName::parse("ssn").unwrap(), value, subject: None };
    let kept = rig.vault.tokenize(&cx, "demo", Ok(vec![Ok(item)]), Ok(None)).await.unwrap();
    let token = *kept[0].as_ref().unwrap();
    let target = EraseTarget::Tokens(vec![Ok(token)]);
    rig.vault.erase(&cx, "demo", Ok(target), Ok(Note::default())).await.unwrap();
    token
}

/// That a record was erased is told to those who could have had it. It has no permit that would ask policy once more.
#[tokio::test]
async fn what_is_looked_up_after_policy_changed_is_decided_by_the_new_one() {
    let rig = Rig::new().await;
    let token = erased(&rig).await;
    let cx = rig.cx("app").await;
    let tokens = vec![Ok(token); CHUNK + 1];
    let asked = rig.vault.detokenize(&cx, "demo", Ok(tokens), Ok(Purpose::Treatment), Ok(Note::default()));
    let mut asked = pin!(asked);
    // It stands at the first look-up, and then at the second one.
    for _ in 0..2 {
        assert!(poll!(&mut asked).is_pending());
    }
    let nothing = Policies::parse(NONE, Environment::parse("dev").unwrap()).unwrap();
    rig.vault.parts.access.reload(people(&[]), nothing);
    let answers = asked.await.unwrap();
    let told =
        |problem: Problem| answers.iter().filter(|answer| answer.as_ref().err() == Some(&problem)).count();
    assert_eq!((told(Problem::Erased), told(Problem::NotFound)), (CHUNK, 1));
    let entries = rig.entries().await;
    let asked_for = entries.iter().filter(|entry| entry.action() == audit_entry::Action::Detokenize);
    let outcomes: Vec<_> = asked_for.flat_map(|entry| &entry.items).map(AuditItem::outcome).collect();
    let (before, after) = outcomes.split_at(CHUNK);
    assert!(before.iter().all(|outcome| *outcome == Outcome::Erased));
    assert_eq!(after, [Outcome::Denied]);
}
