//! What can't be taken back, when others change the job's row meanwhile.

use super::*;

/// A worker that has begun a job which somebody approved.
async fn at_work(rig: &Rig, kind: JobKind, key: Option<KeyId>) -> Shift {
    rig.order(kind, key, JobBudget::default()).await;
    let parts = Arc::new(rig.parts(&CancellationToken::new()));
    let name = crate::domain::LeaseName::parse(&format!("job/st-mary/{}", kind.as_str())).unwrap();
    let held = parts.leases.take(&name, LEASE).await.unwrap().unwrap();
    let job = rig.store.job(&rig.place(kind)).await.unwrap().unwrap();
    shift_of(parts, job, held)
}

#[tokio::test]
async fn a_worker_that_wakes_does_not_go_on_under_an_approval_that_came_meanwhile() {
    let rig = Rig::new(0).await;
    let mut shift = at_work(&rig, JobKind::Shred, None).await;
    // It stands still. The shred is paused, resumed, and approved by somebody else, with a wait of its own.
    let third = Some(PrincipalId::parse("third").unwrap());
    let wait = Timestamp(rig.clock.now().0 + 86_400_000_000);
    for (state, approved_by, not_before) in [
        (JobState::Paused, shift.job.approved_by.clone(), shift.job.order.not_before),
        (JobState::Asked, None, shift.job.order.not_before),
        (JobState::Running, third.clone(), wait),
    ] {
        let job = rig.store.job(&rig.place(JobKind::Shred)).await.unwrap().unwrap();
        let order = JobOrder { not_before, ..job.order.clone() };
        rig.write(vec![Write::PutJob(Job { state, approved_by, order, revision: job.revision + 1, ..job })])
            .await;
    }
    sleep(Duration::from_millis(600)).await;
    assert!(matches!(ended::shred(&mut shift, &rig.tenant).await, Err(Stop::Told)));
    let keys = rig.keys(KeyPurpose::Data).await;
    assert!(keys.iter().all(|key| key.state != KeyState::Destroyed));
    let there = rig.store.job(&rig.place(JobKind::Shred)).await.unwrap().unwrap();
    assert_eq!((there.order.not_before, there.approved_by), (wait, third));
}

#[tokio::test]
async fn what_is_destroyed_is_on_record_as_done_in_the_same_commit() {
    for kind in [JobKind::Destroy, JobKind::Shred] {
        let rig = Rig::new(0).await;
        let old = (kind == JobKind::Destroy).then_some(rig.keys(KeyPurpose::Data).await[1].id);
        let mut shift = at_work(&rig, kind, old).await;
        let end = match kind {
            JobKind::Destroy => ended::destroy(&mut shift, &rig.tenant).await.unwrap(),
            _ => ended::shred(&mut shift, &rig.tenant).await.unwrap(),
        };
        // As if the worker died here: nobody can say of it any more that nothing happened.
        let job = rig.store.job(&rig.place(kind)).await.unwrap().unwrap();
        assert_eq!(job.state, JobState::Done, "{kind:?}");
        let gone = rig.entries(AuditAction::KeyDestroy).await;
        let [ended] = rig.entries(AuditAction::JobEnd).await.try_into().unwrap();
        assert_eq!(ended.details["state"], "done");
        shift.end(end).await.unwrap();
        assert_eq!(rig.entries(AuditAction::JobEnd).await.len(), 1, "it is said once");
        let left = [KeyPurpose::Data, KeyPurpose::Index].map(|purpose| (purpose, gone.len()));
        for (purpose, destroyed) in left {
            let keys = rig.keys(purpose).await;
            let there = keys.iter().filter(|key| key.state != KeyState::Destroyed).count();
            let expected = usize::from(kind != JobKind::Shred);
            assert_eq!(there, expected, "{kind:?} {purpose:?}");
            assert_eq!(destroyed, if kind == JobKind::Shred { 3 } else { 1 });
        }
    }
}

#[tokio::test]
async fn a_destruction_that_was_cancelled_or_paused_destroys_nothing_however_late_its_worker_wakes() {
    for state in [JobState::Cancelled, JobState::Paused] {
        for kind in [JobKind::Destroy, JobKind::Shred] {
            let rig = Rig::new(0).await;
            let old = rig.keys(KeyPurpose::Data).await[1].id;
            let key = (kind == JobKind::Destroy).then_some(old);
            rig.order(kind, key, JobBudget::default()).await;
            let stopping = CancellationToken::new();
            let parts = Arc::new(rig.parts(&stopping));
            let name = crate::domain::LeaseName::parse("job/st-mary/x").unwrap();
            let held = parts.leases.take(&name, LEASE).await.unwrap().unwrap();
            let job = rig.store.job(&rig.place(kind)).await.unwrap().unwrap();
            let mut shift = shift_of(Arc::clone(&parts), job.clone(), held);
            rig.write(vec![Write::PutJob(Job { state, revision: job.revision + 1, ..job })]).await;
            let ended = match kind {
                JobKind::Destroy => ended::destroy(&mut shift, &rig.tenant).await,
                _ => ended::shred(&mut shift, &rig.tenant).await,
            };
            assert!(matches!(ended, Err(Stop::Told)), "{ended:?}");
            assert!(rig.keys(KeyPurpose::Data).await.iter().all(|key| key.state != KeyState::Destroyed));
            assert!(rig.entries(AuditAction::KeyDestroy).await.is_empty());
        }
    }
}

#[tokio::test]
async fn what_nobody_else_approved_or_is_not_due_destroys_nothing() {
    let rig = Rig::new(0).await;
    let old = rig.keys(KeyPurpose::Data).await[1].id;

    let changes: [fn(Job) -> Job; 3] = [
        |job| Job { approved_by: None, ..job },
        |job| Job { approved_by: Some(job.order.asked_by.clone()), ..job },
        |job| {
            let order = JobOrder { not_before: Timestamp(u64::MAX), ..job.order.clone() };
            Job { order, ..job }
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        rig.order(JobKind::Destroy, Some(old), JobBudget::default()).await;
        let stopping = CancellationToken::new();
        let parts = Arc::new(rig.parts(&stopping));
        let name = crate::domain::LeaseName::parse(&format!("job/{number}")).unwrap();
        let held = parts.leases.take(&name, LEASE).await.unwrap().unwrap();
        let job = rig.store.job(&rig.place(JobKind::Destroy)).await.unwrap().unwrap();
        let mut shift = shift_of(parts, change(job), held);
        let ended = ended::destroy(&mut shift, &rig.tenant).await.unwrap();
        assert_eq!(ended, End::Failed("not_approved"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_does_not_shorten_the_wait() {
    let rig = Rig::new(0).await;
    rig.order(JobKind::Shred, None, JobBudget::default()).await;
    let stopping = CancellationToken::new();
    let mut parts = rig.parts(&stopping);
    parts.options.waiting = Duration::from_hours(24);
    parts.options.poll = Duration::from_secs(1);
    let worker = tokio::spawn(Workers::new(parts).run());
    sleep(Duration::from_mins(59)).await;
    let place = rig.place(JobKind::Shred);
    assert_eq!(rig.store.job(&place).await.unwrap().unwrap().state, JobState::Running);
    assert!(
        rig.entries(AuditAction::KeyDestroy).await.is_empty(),
        "due by the clock, but known for an hour only"
    );
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.store.job(&place).await.unwrap().unwrap().state, JobState::Done);
    stopping.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_came_anew_is_known_from_then_on_only() {
    let rig = Rig::new(0).await;
    rig.order(JobKind::Shred, None, JobBudget::default()).await;
    let stopping = CancellationToken::new();
    let mut parts = rig.parts(&stopping);
    parts.options.waiting = Duration::from_hours(24);
    parts.options.poll = Duration::from_secs(1);
    let worker = tokio::spawn(Workers::new(parts).run());
    sleep(Duration::from_mins(59)).await;
    // Paused, resumed and approved between two looks; by a clock that is ahead it is due at once.
    let place = rig.place(JobKind::Shred);
    let there = rig.store.job(&place).await.unwrap().unwrap();
    let order = JobOrder { not_before: Timestamp(there.order.not_before.0 + 1), ..there.order.clone() };
    rig.write(vec![Write::PutJob(Job { order, revision: there.revision + 1, ..there })]).await;
    sleep(Duration::from_mins(59)).await;
    assert_eq!(rig.store.job(&place).await.unwrap().unwrap().state, JobState::Running);
    assert!(rig.entries(AuditAction::KeyDestroy).await.is_empty());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(rig.store.job(&place).await.unwrap().unwrap().state, JobState::Done);
    stopping.cancel();
    worker.await.unwrap();
}
