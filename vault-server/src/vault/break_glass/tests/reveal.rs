//! Whose a grant is, and what it lets them see.

use super::*;
use crate::store::StoreError;
use crate::vault::Note;

#[tokio::test]
async fn a_scope_that_was_widened_in_the_store_is_refused() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 2, None).await;
    let grant = rig.granted(&tokens[..1], 1).await;
    let row = rig.row(&grant).await;
    // The second token in place of the first.
    let at = row.content.windows(16).position(|bytes| bytes == tokens[0].as_bytes()).unwrap();
    let mut content = row.content.clone();
    content[at..at + 16].copy_from_slice(tokens[1].as_bytes());
    let widened = Entity { content, revision: row.revision + 1, ..row };
    rig.vault.parts.log.write(vec![Write::PutEntity(widened)]).await.unwrap();
    let dora = rig.cx("dora").await;
    assert_eq!(rig.reveal(&dora, &grant, &[]).await, Err(Problem::GrantChanged));
    assert_eq!(rig.last(AuditAction::Detokenize).await.cause, "grant_changed");
}

#[tokio::test]
async fn a_grant_is_its_requesters_with_the_credential_it_asked_with() {
    let rig = Rig::new().await;
    let tokens = rig.keep("demo", 1, None).await;
    let grant = rig.granted(&tokens, 5).await;
    let before = rig.row(&grant).await;
    for (cx, problem, why) in [
        (rig.cx("dirk").await, Problem::NotFound, "another_requester"),
        (rig.cx("gus").await, Problem::NotFound, "another_requester"),
        (rig.cx_by("spiffe://test.local/dora", 99).await, Problem::GrantState, "another_credential"),
    ] {
        assert_eq!(rig.reveal(&cx, &grant, &tokens).await, Err(problem));
        let entry = rig.last(AuditAction::Detokenize).await;
        assert_eq!((detail(&entry, "why"), entry.items.len()), (why, 1));
    }
    // Another grant's id, and one that is none.
    let id = GrantId::from_bytes([1; 16]);
    let unknown = rig.vault.reveal(&rig.cx("dora").await, "demo", Ok(id), Vec::new()).await;
    assert_eq!(told(unknown).err(), Some(Problem::NotFound));
    assert_eq!(rig.row(&grant).await, before);
    // The grant is no key to a detokenize.
    let dora = rig.cx("dora").await;
    let parsed = Ok(tokens.iter().copied().map(Ok).collect());
    let around = rig.vault.detokenize(&dora, "demo", parsed, Ok(Purpose::BreakTheGlass), Ok(Note::default()));
    assert_eq!(told(around.await).err(), Some(Problem::ActionNotAllowed));
}

#[tokio::test]
async fn a_grant_about_a_person_is_about_all_of_its_values_and_never_tells_who() {
    let rig = Rig::new().await;
    let of_him = rig.keep("demo", 3, Some("mrn-4711")).await;
    let of_her = rig.keep("demo", 1, Some("mrn-0815")).await;
    let dora = rig.cx("dora").await;
    let subject = |id: &str| AskedScope::Subject(SubjectId::parse(id.to_owned()).unwrap());
    let ask = |id: &str, key: &str, values| GrantAsked { scope: subject(id), values, ..asked(&[], key) };
    let grant = rig.ask(&dora, "demo", ask("mrn-4711", "k", 2)).await.unwrap();
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(rig.reveal(&dora, &grant, &of_her).await.unwrap(), [Err(Problem::NotFound)]);
    let shown = rig.reveal(&dora, &grant, &[]).await.unwrap();
    assert_eq!(shown.iter().filter(|shown| shown.is_ok()).count(), 2);
    assert_eq!(shown.len(), of_him.len());
    for entry in rig.entries().await {
        assert!(!format!("{entry:?}").contains("4711") || entry.ticket == "INC-4711", "{entry:?}");
    }
    assert!(!rig.row(&grant).await.content.windows(8).any(|bytes| bytes == b"mrn-4711"));
    // Of somebody of whom nothing is kept: nothing, on record.
    let grant = rig.ask(&dora, "demo", ask("nobody", "n", 0)).await.unwrap();
    let grant = rig.approve(&rig.cx("gus").await, &grant).await.unwrap();
    assert_eq!(rig.reveal(&dora, &grant, &[]).await.unwrap(), []);
    assert_eq!(rig.last(AuditAction::Detokenize).await.items[0].subject.len(), 20);
    assert_eq!(rig.get(&grant).await.seen(), 0);
}

#[tokio::test]
async fn a_log_that_is_down_lets_nothing_out_and_nothing_change() {
    let store = MemoryStore::new();
    let rig = Rig::with(Arc::new(store.clone()), rules(), None).await;
    let tokens = rig.keep("demo", 1, None).await;
    let grant = rig.granted(&tokens, 1).await;
    let dora = rig.cx("dora").await;
    let before = rig.row(&grant).await;
    store.fail_next_commit(StoreError::Unavailable { why: "down".to_owned() });
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await, Err(Problem::LogUnavailable));
    assert_eq!(rig.row(&grant).await, before);
    store.fail_next_commit(StoreError::Unavailable { why: "down".to_owned() });
    assert_eq!(rig.close(&dora, &grant).await, Err(Problem::LogUnavailable));
    assert_eq!(rig.row(&grant).await, before);
    assert_eq!(rig.reveal(&dora, &grant, &tokens).await.unwrap(), [Ok("p0@example.org".to_owned())]);
}
