use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{ClassName, JobState, KeyPurpose, Plaintext};
use crate::jobs::Schedule;
use crate::store::Store as _;
use crate::store::memory::MemoryStore;
use crate::vault::NewValue;
use crate::vault::testing::Rig;

fn demo() -> TenantId {
    TenantId::parse("demo").unwrap()
}

/// A vault with a value of the tenant, and what it is on.
async fn altered() -> (Rig, MemoryStore) {
    let memory = MemoryStore::new();
    let rig = Rig::over(Arc::new(memory.clone()), &[], false).await;
    let value = NewValue {
        class: ClassName::parse("email").unwrap(),
        value: Plaintext::from_utf8(b"a@example.org".to_vec()).unwrap(),
        subject: None,
    };
    rig.vault.tokenize(&rig.cx("app").await, "demo", Ok(vec![Ok(value)]), Ok(None)).await.unwrap();
    (rig, memory)
}

#[tokio::test]
async fn a_row_that_can_not_be_read_is_not_in_the_way_of_who_cancels_another_job() {
    let (rig, memory) = altered().await;
    let (boss, chief, root) = (rig.cx("boss").await, rig.cx("chief").await, rig.cx("root").await);
    let asked = JobAsked { kind: JobKind::Shred, key: None, budget: JobBudget::default() };
    let job = rig.vault.start_job(&boss, "demo", Ok(asked), Ok(Note::default())).await.unwrap();
    memory.malform_job(&JobPlace { tenant: Some(demo()), kind: JobKind::Reencrypt });
    memory.malform_job(&JobPlace { tenant: None, kind: JobKind::Rewrap });
    let approval = JobApproval { id: job.id, note: Note::default(), factor: None };
    let approved = rig.vault.approve_job(&chief, "demo", Ok(approval)).await.unwrap();
    assert_eq!(rig.vault.list_jobs(&boss, "demo").await.unwrap(), std::slice::from_ref(&approved));
    assert_eq!(rig.vault.list_jobs(&root, "*").await.unwrap(), std::slice::from_ref(&approved));
    assert_eq!(rig.vault.watched_job(&boss, "demo", Ok(job.id)).await.unwrap(), approved);
    for (control, state) in [(JobControl::Pause, JobState::Paused), (JobControl::Cancel, JobState::Cancelled)]
    {
        let job = rig.vault.control_job(&boss, "demo", Ok(job.id), control).await.unwrap();
        assert_eq!(job.state, state);
    }
    // It may be the one that can't be read.
    let other = rig.vault.watched_job(&boss, "demo", Ok(JobId::from_bytes([9; 16]))).await;
    assert_eq!(other.unwrap_err().problem, Problem::RecordCorrupt);
}

#[tokio::test]
async fn a_list_of_nothing_but_rows_that_can_not_be_read_is_no_empty_list() {
    let (rig, memory) = altered().await;
    memory.malform_job(&JobPlace { tenant: Some(demo()), kind: JobKind::Reencrypt });
    for (who, tenant) in [("boss", "demo"), ("root", "*")] {
        let listed = rig.vault.list_jobs(&rig.cx(who).await, tenant).await;
        assert_eq!(listed.unwrap_err().problem, Problem::RecordCorrupt, "{tenant}");
    }
}

#[tokio::test]
async fn a_key_that_can_not_be_read_is_not_in_the_way_of_others_that_are_due() {
    let (rig, memory) = altered().await;
    // Before all others, and behind them.
    for id in [0, 0xff] {
        memory.malform_key(KeyId::from_bytes([id; 16]));
    }
    let stopping = CancellationToken::new();
    let schedule = Schedule { after: Some(Duration::ZERO), after_records: None };
    let (store, clock) = (Arc::clone(&rig.store), Arc::clone(&rig.clock));
    let running = tokio::spawn(schedule.run(Arc::new(rig.vault), store, clock, stopping.clone()));
    let rotated = async {
        while memory.keys(Some(&demo()), KeyPurpose::Data).await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), rotated).await.expect("a key that is due is rotated");
    stopping.cancel();
    running.await.unwrap();
}
