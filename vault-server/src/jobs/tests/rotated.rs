//! Keys that are rotated while a job is at work.

use super::*;

#[tokio::test]
async fn indexes_are_made_anew_though_the_worker_does_not_know_of_the_rotation_yet() {
    let rig = Rig::new(30).await;
    rig.keyring.active_index_key(&rig.tenant).await.unwrap();
    // By another instance: nothing is forgotten here.
    let active = rig.keys(KeyPurpose::Index).await.swap_remove(0);
    let new = rig.keyring.new_version(&rig.tenant, KeyPurpose::Index, KeyVersion(2)).await.unwrap();
    let retired = KeyRecord { state: KeyState::Retired, revision: active.revision + 1, ..active };
    rig.write(vec![Write::InsertKey(new), Write::ReplaceKey(retired)]).await;
    rig.order(JobKind::Reindex, None, JobBudget::default()).await;
    let job = rig.done(JobKind::Reindex).await;
    assert_eq!((job.state, job.progress.done), (JobState::Done, 30));
    let left = rig.store.indexed_under(&rig.tenant, &ssn(), KeyVersion(1), None, 1).await;
    assert!(left.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_is_not_done_under_a_key_that_was_replaced_after_its_last_batch() {
    for (kind, purpose) in [(JobKind::Reencrypt, KeyPurpose::Data), (JobKind::Reindex, KeyPurpose::Index)] {
        let rig = Rig::new(60).await;
        rig.rotate(KeyPurpose::Index).await;
        // All is one batch, and is paid for in about two seconds after it was written.
        rig.order(kind, None, JobBudget { bytes: 5_000, kms_calls: 0 }).await;
        let is_left = async || {
            let old = rig.keys(KeyPurpose::Data).await.last().unwrap().id;
            if kind == JobKind::Reencrypt {
                return rig.store.count_of_key(old).await.unwrap() > 0;
            }
            let left = rig.store.indexed_under(&rig.tenant, &ssn(), KeyVersion(1), None, 1).await;
            !left.unwrap().is_empty()
        };
        let stopping = CancellationToken::new();
        let worker = tokio::spawn(Workers::new(rig.parts(&stopping)).run());
        while is_left().await {
            sleep(Duration::from_millis(2)).await;
        }
        let there = rig.store.job(&rig.place(kind)).await.unwrap().unwrap();
        assert_eq!(there.state, JobState::Running, "it pays");
        rig.rotate(purpose).await;
        let job = rig.over(kind).await;
        assert_eq!((job.state, job.progress.done), (JobState::Done, 120), "{kind:?}");
        let newest = rig.keys(purpose).await.swap_remove(0);
        for number in 0..60 {
            let record = rig.record(number).await;
            let made_by = match kind {
                JobKind::Reencrypt => record.key_id(),
                _ => record.index.filter(|index| index.version == newest.version).map(|_| newest.id),
            };
            assert_eq!(made_by, Some(newest.id), "{kind:?}");
        }
        stopping.cancel();
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn records_that_another_job_sealed_under_a_newer_key_meanwhile_are_not_in_trouble() {
    let rig = Rig::new(20).await;
    rig.rotate(KeyPurpose::Index).await;
    let data = rig.keys(KeyPurpose::Data).await;
    let [to, old] = [&data[0], &data[1]];
    rig.order(JobKind::Reindex, None, JobBudget::default()).await;
    let job = rig.store.job(&rig.place(JobKind::Reindex)).await.unwrap().unwrap();
    let stopping = CancellationToken::new();
    let parts = Arc::new(rig.parts(&stopping));
    let name = crate::domain::LeaseName::parse("job/st-mary/reindex").unwrap();
    let held = parts.leases.take(&name, LEASE).await.unwrap().unwrap();
    let mut shift = shift_of(Arc::clone(&parts), job, held);
    let index = rig.keyring.active_index_key(&rig.tenant).await.unwrap();
    let to_key = Arc::new(rig.data_key(to.id).await);
    let task = Task {
        parts: Arc::clone(&parts),
        mandate: Arc::new(crypto::Mandate::assertion(shift.job.id, rig.tenant.clone())),
        from: [(old.id, Arc::new(rig.data_key(old.id).await)), (to.id, Arc::clone(&to_key))].into(),
        known: Arc::new(data.iter().map(|key| key.id).collect()),
        to: to_key,
        index: Some((ssn(), index)),
        fence: shift.fence(),
    };
    let pages =
        Pages::OfIndex { tenant: rig.tenant.clone(), class: ssn(), version: KeyVersion(1), after: None };
    // Another worker, after a rotation that this one has not heard of.
    rig.rotate(KeyPurpose::Data).await;
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    assert_eq!(rig.done(JobKind::Reencrypt).await.state, JobState::Done);
    let walked = walk(&mut shift, task, pages).await.ok().unwrap();
    assert!(walked.rotated && walked.done == 0);
    assert_eq!(shift.job.progress.failed, 0);
    assert!(rig.entries(AuditAction::JobTrouble).await.is_empty());
}
