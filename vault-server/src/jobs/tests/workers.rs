//! Several workers, and their clocks.

use super::*;

/// Another clock than the system's: so many microseconds ahead of it.
struct Ahead(u64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0)
    }
}

#[tokio::test]
async fn no_clock_holds_up_a_job_that_destroys_nothing() {
    let rig = Rig::new(10).await;
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    let there = rig.store.job(&rig.place(JobKind::Reencrypt)).await.unwrap().unwrap();
    // Asked of an instance whose clock is an hour ahead.
    let order = JobOrder { not_before: Ahead(3_600_000_000).now(), ..there.order.clone() };
    rig.write(vec![Write::PutJob(Job { order, revision: there.revision + 1, ..there })]).await;
    let job = rig.done(JobKind::Reencrypt).await;
    assert_eq!((job.state, job.progress.done), (JobState::Done, 10));
}

#[tokio::test]
async fn workers_whose_clocks_differ_do_not_take_a_job_from_each_other() {
    let rig = Rig::new(200).await;
    // Longer than a lease, and than three batches that are not waited for.
    rig.order(JobKind::Reencrypt, None, JobBudget { bytes: 30_000, kms_calls: 5 }).await;
    let stopping = CancellationToken::new();
    let workers = [0, 2_000_000].map(|ahead| {
        let mut parts = rig.parts(&stopping);
        parts.clock = Arc::new(Ahead(ahead));
        let clock = Arc::clone(&parts.clock);
        parts.leases = Leases::new(Arc::clone(&parts.store), clock, InstanceId::random().unwrap());
        tokio::spawn(Workers::new(parts).run())
    });
    let began = tokio::time::Instant::now();
    let job = rig.over(JobKind::Reencrypt).await;
    assert!(began.elapsed() > LEASE * 2, "{:?}", began.elapsed());
    assert_eq!((job.state, job.progress.done), (JobState::Done, 200));
    assert_eq!(rig.entries(AuditAction::JobBegin).await.len(), 1);
    stopping.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn who_lost_a_job_to_another_rests_before_it_takes_it_again() {
    let rig = Rig::new(200).await;
    rig.order(JobKind::Reencrypt, None, JobBudget { bytes: 500, kms_calls: 0 }).await;
    let stopping = CancellationToken::new();
    let worker = tokio::spawn(Workers::new(rig.parts(&stopping)).run());
    let begun = async |times| {
        while rig.entries(AuditAction::JobBegin).await.len() < times {
            sleep(Duration::from_millis(2)).await;
        }
    };
    begun(1).await;
    let name = crate::domain::LeaseName::parse("job/st-mary/reencrypt").unwrap();
    // Another takes it, and gives it back.
    loop {
        let there = rig.store.lease(&name).await.unwrap().unwrap();
        let (fence, revision) = (there.fence + 1, there.revision + 1);
        let taken = Write::PutLease(Lease { fence, revision, expires: Timestamp(0), ..there });
        if rig.store.commit(Change { writes: vec![taken], entries: Vec::new() }).await.is_ok() {
            break;
        }
    }
    let lost = tokio::time::Instant::now();
    timeout(Duration::from_secs(20), begun(2)).await.expect("it is taken up again");
    assert!(lost.elapsed() >= Duration::from_secs(1), "{:?}", lost.elapsed());
    stopping.cancel();
    worker.await.unwrap();
}

#[tokio::test]
async fn not_one_write_of_a_worker_lands_whose_lease_another_has_taken() {
    let rig = Rig::new(10).await;
    let [new, old] = rig.keys(KeyPurpose::Data).await.try_into().unwrap();
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    let job = rig.store.job(&rig.place(JobKind::Reencrypt)).await.unwrap().unwrap();
    let name = crate::domain::LeaseName::parse("job/st-mary/reencrypt").unwrap();
    let stopping = CancellationToken::new();
    let stale = Arc::new(rig.parts(&stopping));
    let held = stale.leases.take(&name, LEASE).await.unwrap().unwrap();
    let mut shift = shift_of(Arc::clone(&stale), job, held);
    let mandate = Arc::new(crypto::Mandate::assertion(shift.job.id, rig.tenant.clone()));
    let task = Task {
        parts: Arc::clone(&stale),
        mandate,
        from: [(old.id, Arc::new(rig.data_key(old.id).await))].into(),
        known: Arc::new([old.id, new.id].into()),
        to: Arc::new(rig.data_key(new.id).await),
        index: None,
        fence: shift.fence(),
    };
    // It stands still for as long as another looks on, which then takes the job.
    let other = rig.parts(&stopping);
    assert_eq!(other.leases.take(&name, LEASE).await, Ok(None));
    sleep(LEASE).await;
    assert!(other.leases.take(&name, LEASE).await.unwrap().is_some());
    assert!(matches!(walk(&mut shift, task, Pages::OfKey(old.id, None)).await, Err(Stop::Lost)));
    assert!(matches!(shift.report().await, Err(Stop::Lost)));
    assert!(matches!(shift.end(End::Done).await, Err(Stop::Lost)));
    assert_eq!(rig.store.count_of_key(old.id).await, Ok(10));
    assert!(rig.entries(AuditAction::JobEnd).await.is_empty());
}
