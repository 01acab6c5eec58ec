//! Rows that a disk or a stray hand altered.

use vault_proto::v1::AuditItem;

use super::*;
use crate::store::postgres::tests::Database;

impl Rig {
    /// How a job ended.
    async fn end_of(&self, kind: JobKind, key: Option<KeyId>) -> (JobState, String, u64) {
        self.order(kind, key, JobBudget::default()).await;
        let job = self.done(kind).await;
        (job.state, job.cause, job.progress.done)
    }

    /// The items that the log names as not changed: token and outcome.
    async fn named(&self) -> Vec<(Vec<u8>, String)> {
        let entries = self.entries(AuditAction::JobTrouble).await;
        let item = |item: AuditItem| (item.token.to_vec(), item.outcome().as_str_name().to_owned());
        let mut named: Vec<_> = entries.into_iter().flat_map(|entry| entry.items).map(item).collect();
        named.sort();
        named.dedup();
        named
    }
}

fn failed(cause: &str, done: u64) -> (JobState, String, u64) {
    (JobState::Failed, cause.to_owned(), done)
}

/// What the log says of tokens.
fn items<const N: usize>(tokens: [&[u8]; N], outcome: &str) -> Vec<(Vec<u8>, String)> {
    tokens.map(|token| (token.to_vec(), format!("OUTCOME_{outcome}"))).to_vec()
}

#[tokio::test]
async fn a_row_of_a_key_that_can_not_be_read_is_named_and_the_others_are_moved() {
    let rig = Rig::new(5).await;
    let [new, old] = rig.keys(KeyPurpose::Data).await.try_into().unwrap();
    rig.memory.malform_token_of_key(old.id, &[3; 16]);
    rig.memory.malform_token_of_key(old.id, &[9; 17]);
    assert_eq!(rig.end_of(JobKind::Reencrypt, None).await, failed("records_left", 4));
    assert_eq!(rig.named().await, items([&[], &[3; 16]], "CORRUPT"));
    for number in [0, 1, 2, 4] {
        assert_eq!(rig.opens_under(number).await, new.id);
    }
    assert_eq!(rig.end_of(JobKind::Destroy, Some(old.id)).await, failed("key_in_use", 0));
}

#[tokio::test]
async fn a_row_of_an_index_that_can_not_be_read_is_named_and_the_others_are_made_anew() {
    let rig = Rig::new(5).await;
    let index = rig.record(2).await.index.unwrap();
    rig.rotate(KeyPurpose::Index).await;
    rig.memory.malform_index(&rig.tenant, &ssn(), index, &[2; 16]);
    assert_eq!(rig.end_of(JobKind::Reindex, None).await, failed("records_left", 4));
    assert_eq!(rig.named().await, items([&[2; 16]], "CORRUPT"));
}

#[tokio::test]
async fn a_record_that_is_not_behind_its_row_is_named() {
    let rig = Rig::new(5).await;
    rig.memory.lose(token(1));
    assert_eq!(rig.end_of(JobKind::Reencrypt, None).await, failed("records_left", 4));
    assert_eq!(rig.named().await, items([&[1; 16]], "CORRUPT"));
}

#[tokio::test]
async fn records_whose_index_nobody_can_make_anew_are_named() {
    let rig = Rig::new(2).await;
    rig.rotate(KeyPurpose::Index).await;
    let mut lost = rig.keys(KeyPurpose::Data).await.swap_remove(1);
    lost.revision += 1;
    lost.wraps[0].ciphertext[0] = 200;
    rig.write(vec![Write::ReplaceKey(lost)]).await;
    assert_eq!(rig.end_of(JobKind::Reindex, None).await, failed("records_left", 0));
    assert_eq!(rig.named().await, items([&[], &[0; 16], &[1; 16]], "KEY_UNUSABLE"));
}

#[tokio::test]
async fn who_erases_a_record_meanwhile_is_not_told_of() {
    let rig = Rig::new(250).await;
    let place = rig.place(JobKind::Reencrypt);
    // Half a second's work, from the first one on; erased is from the last one on.
    rig.order(JobKind::Reencrypt, None, JobBudget { bytes: 64 << 10, kms_calls: 0 }).await;
    let erased = async {
        for number in (0..250).rev() {
            let record = rig.record(number).await;
            let body = Body::Erased { at: Timestamp(9) };
            let record = Record { body, index: None, revision: record.revision + 1, ..record };
            let change = Change { writes: vec![Write::Replace(record)], entries: Vec::new() };
            // Whoever came first.
            let _ = rig.store.commit(change).await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    let (job, ()) = tokio::join!(rig.done(JobKind::Reencrypt), erased);
    assert_eq!((job.state, job.place), (JobState::Done, place));
    assert_eq!(rig.named().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_administrator_altered_are_named_and_the_others_are_moved() {
    let Some(database) = Database::there() else { return };
    let rig = Rig::on(database.instance("ann").await, 6).await;
    rig.rotate(KeyPurpose::Index).await;
    let old = rig.keys(KeyPurpose::Data).await.swap_remove(1);
    let hex = |number: u8| hex::encode(token(number).as_bytes());
    for (change, number) in [("blind_index = blind_index || '\\x00'", 3), ("token = token || '\\x00'", 4)] {
        database.sql(&format!("UPDATE records SET {change} WHERE token = '\\x{}'", hex(number))).await;
    }
    let named = items([&[], &[3; 16]], "CORRUPT");
    assert_eq!(rig.end_of(JobKind::Reindex, None).await, failed("records_left", 4));
    assert_eq!(rig.named().await, named);
    assert_eq!(rig.end_of(JobKind::Reencrypt, None).await, failed("records_left", 0));
    assert_eq!(rig.named().await, named);
    assert_eq!(rig.end_of(JobKind::Destroy, Some(old.id)).await, failed("key_in_use", 0));
    assert_eq!(rig.store.count_of_key(old.id).await, Ok(2));
    // Without the keys themselves nothing can be done until somebody restores them.
    database.sql("UPDATE keys SET created = created + 1").await;
    for (kind, key) in [(JobKind::Reencrypt, None), (JobKind::Destroy, Some(old.id)), (JobKind::Shred, None)]
    {
        assert_eq!(rig.end_of(kind, key).await, failed("corrupt_row", 0), "{kind:?}");
    }
}
