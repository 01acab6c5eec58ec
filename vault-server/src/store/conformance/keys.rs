//! The life of keys: what may still be sealed under one, what is, and the jobs that work on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Backend, CONFLICT, blind, change, class, get, key, key_id, paged, record, tenant, write};
use crate::domain::{
    BlindIndex, Body, Job, JobBudget, JobId, JobKind, JobOrder, JobPlace, JobProgress, JobState, KeyId,
    KeyPurpose, KeyRecord, KeyState, KeyVersion, PrincipalId, Record, Sealed, TenantId, Timestamp,
};
use crate::store::{Page, Store, StoreError, UnderWay, Write};

/// A record of key `version`.
fn under(number: u64, version: u8) -> Record {
    let bytes = Sealed(number.to_be_bytes().repeat(12));
    let key_version = KeyVersion(version.into());
    Record { body: Body::Sealed { key_id: key_id(version), key_version, bytes }, ..record(number) }
}

fn retired(version: u8) -> KeyRecord {
    KeyRecord { state: KeyState::Retired, revision: 1, ..key(version) }
}

/// Retires a version and puts the next one in its place.
async fn rotate(store: &Arc<dyn Store>, version: u8) {
    let next = Write::InsertKey(key(version + 1));
    store.commit(change([Write::ReplaceKey(retired(version)), next], &["rotated"])).await.unwrap();
}

fn refused(write: usize) -> Result<(), StoreError> {
    Err(StoreError::Conflict { write })
}

pub(crate) async fn a_write_under_a_key_that_is_not_active_is_refused(backend: &impl Backend) {
    let store = backend.open();
    let active = |version| Write::Active(key_id(version));
    assert_eq!(write(&store, [Write::Insert(record(1)), active(1)]).await, refused(1), "there is none");
    write(&store, [1, 3].map(|version| Write::InsertKey(key(version)))).await.unwrap();
    write(&store, [active(1), Write::Insert(under(1, 1)), active(1), active(3)]).await.unwrap();
    rotate(&store, 1).await;
    assert_eq!(write(&store, [Write::Insert(under(2, 1)), active(1)]).await, refused(1));
    assert_eq!(write(&store, [active(3), active(1), Write::Insert(under(2, 1))]).await, refused(1));
    let next = Record { revision: 1, ..under(1, 1) };
    assert_eq!(write(&store, [Write::Replace(next), active(2), active(1)]).await, refused(2));
    assert_eq!(write(&store, [active(1)]).await, CONFLICT);
    assert_eq!((get(&store, 2).await, store.count_of_key(key_id(1)).await), (None, Ok(1)));
    write(&store, [active(2), Write::Insert(under(2, 2)), active(3)]).await.unwrap();
    for (revision, state) in [(2, KeyState::Compromised), (3, KeyState::Destroyed)] {
        write(&store, [Write::ReplaceKey(KeyRecord { state, revision, ..key(1) })]).await.unwrap();
        assert_eq!(write(&store, [active(1)]).await, CONFLICT);
    }
    drop(store);
    let store = backend.open();
    assert_eq!(write(&store, [active(2), active(1)]).await, refused(1));
    write(&store, [active(3), active(2)]).await.unwrap();
}

pub(crate) async fn a_condition_is_about_the_key_before_the_change(backend: &impl Backend) {
    let store = backend.open();
    let (first, second) = (Write::Active(key_id(1)), Write::Active(key_id(2)));
    let made = write(&store, [Write::InsertKey(key(1)), first.clone()]).await;
    assert_eq!(made, refused(1));
    write(&store, [Write::InsertKey(key(1))]).await.unwrap();
    let swap = || [Write::ReplaceKey(retired(1)), Write::InsertKey(key(2))];
    let refused_swap = write(&store, swap().into_iter().chain([second.clone()]).collect::<Vec<_>>()).await;
    assert_eq!(refused_swap, refused(2));
    // So two who rotate at once have one winner.
    write(&store, swap().into_iter().chain([first.clone()]).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(write(&store, [second, first]).await, refused(1));
}

/// Writers go on under a key until they are refused. What is under it when its change was acknowledged stays all there is.
pub(crate) async fn retire_under_writers(rotator: &Arc<dyn Store>, writers: &[Arc<dyn Store>], rounds: u8) {
    const WRITERS: usize = 12;
    write(rotator, [Write::InsertKey(key(1))]).await.unwrap();
    let next = Arc::new(AtomicU64::new(0));
    for version in 1..=rounds {
        let before = next.load(Ordering::SeqCst);
        let writers = (0..WRITERS).map(|writer| {
            let (store, next) = (Arc::clone(&writers[writer % writers.len()]), Arc::clone(&next));
            tokio::spawn(async move {
                let mut landed = 0_u64;
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let writes = [Write::Insert(under(number, version)), Write::Active(key_id(version))];
                    match store.commit(change(writes, &["e"])).await {
                        Ok(_) => landed += 1,
                        other => break assert_eq!(other.map(|_| ()), refused(1), "version {version}"),
                    }
                }
                landed
            })
        });
        let writers: Vec<_> = writers.collect();
        while next.load(Ordering::SeqCst) < before + 5 * WRITERS as u64 {
            tokio::task::yield_now().await;
        }
        rotate(rotator, version).await;
        let then = rotator.count_of_key(key_id(version)).await.unwrap();
        let mut landed = 0;
        for writer in writers {
            landed += writer.await.unwrap();
        }
        let now = rotator.count_of_key(key_id(version)).await.unwrap();
        assert_eq!((now, landed), (then, then), "version {version}");
    }
}

pub(crate) async fn no_record_lands_under_a_key_that_was_retired(backend: &impl Backend) {
    let store = backend.open();
    retire_under_writers(&store, &[Arc::clone(&store)], 20).await;
}

fn destroyed(version: u8, revision: u32) -> Write {
    Write::ReplaceKey(KeyRecord { state: KeyState::Destroyed, revision, ..key(version) })
}

pub(crate) async fn a_key_that_must_be_unused_has_no_record(backend: &impl Backend) {
    let store = backend.open();
    let unused = |version| Write::Unused(key_id(version));
    write(&store, [unused(1)]).await.unwrap();
    write(&store, [1, 2].map(|version| Write::InsertKey(key(version)))).await.unwrap();
    write(&store, [Write::Insert(under(1, 1)), unused(1), Write::Insert(under(2, 1))]).await.unwrap();
    // Neighbours, in the order of their ids.
    write(&store, [Write::Insert(under(3, 0)), Write::Insert(under(4, 3))]).await.unwrap();
    for (writes, wrong) in [
        (vec![unused(1)], 0),
        (vec![unused(2), unused(1), destroyed(1, 1)], 1),
        (vec![Write::Active(key_id(1)), destroyed(2, 1), unused(2), unused(1)], 3),
        (vec![unused(1), Write::Active(key_id(3))], 0),
        (vec![Write::Active(key_id(3)), unused(1)], 0),
        // The condition is about what is there before the change.
        (vec![Write::Replace(Record { revision: 1, ..under(1, 2) }), destroyed(1, 1), unused(1)], 2),
    ] {
        assert_eq!(write(&store, writes.clone()).await, refused(wrong), "{writes:?}");
    }
    assert_eq!(store.key(key_id(2)).await, Ok(Some(key(2))), "a refused change left nothing");
    drop(store);
    let store = backend.open();
    write(&store, [Write::Replace(Record { revision: 1, ..under(1, 2) })]).await.unwrap();
    assert_eq!(write(&store, [unused(1), destroyed(1, 1)]).await, refused(0));
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..under(2, 1) };
    write(&store, [Write::Replace(erased)]).await.unwrap();
    assert_eq!(write(&store, [Write::Active(key_id(1)), unused(2)]).await, refused(1));
    let done = store.commit(change([unused(1), destroyed(1, 1)], &["destroyed"])).await.unwrap();
    assert_eq!(done.first_sequence, 0);
    assert_eq!(store.key(key_id(1)).await.unwrap().map(|key| key.state), Some(KeyState::Destroyed));
    // The highest id has no end.
    let highest = KeyId::from_bytes([0xff; 16]);
    let body = Body::Sealed { key_id: highest, key_version: KeyVersion(9), bytes: Sealed(vec![1]) };
    write(&store, [Write::Unused(highest), Write::Insert(Record { body, ..record(400) })]).await.unwrap();
    assert_eq!(write(&store, [Write::Unused(highest)]).await, CONFLICT);
}

/// Keys are destroyed while others write under them: what landed before keeps its key, and nothing lands behind.
pub(crate) async fn destroy_under_writers(
    destroyer: &Arc<dyn Store>,
    writers: &[Arc<dyn Store>],
    rounds: u8,
) {
    const WRITERS: u64 = 6;
    let (mut early, mut late) = (0, 0);
    for version in 1..=rounds {
        write(destroyer, [Write::InsertKey(key(version))]).await.unwrap();
        // With and without retiring it first; both at different moments of the writers.
        let retire = version % 2 == 0;
        let wait = u32::from(version / 2 % 5);
        let numbers = u64::from(version) * 1000..u64::from(version) * 1000 + WRITERS;
        let tasks = numbers.map(|number| {
            let store = Arc::clone(&writers[number as usize % writers.len()]);
            tokio::spawn(async move {
                // The destroyer comes before them, among them and behind them.
                tokio::time::sleep(Duration::from_millis(2 + number % WRITERS / 2)).await;
                let writes = [Write::Insert(under(number, version)), Write::Active(key_id(version))];
                let landed = store.commit(change(writes, &["e"])).await.map(|_| ());
                assert!(landed.is_ok() || landed == refused(1), "version {version}: {landed:?}");
                // It goes again after a while, so that a key which was retired can be destroyed.
                if landed.is_ok() && retire {
                    tokio::task::yield_now().await;
                    let body = Body::Erased { at: Timestamp(7) };
                    let erased = Record { index: None, body, revision: 1, ..under(number, version) };
                    write(&store, [Write::Replace(erased)]).await.unwrap();
                }
                landed.is_ok()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        tokio::time::sleep(Duration::from_millis(1) * wait).await;
        let mut revision = 1;
        if retire {
            write(destroyer, [Write::ReplaceKey(retired(version))]).await.unwrap();
            revision = 2;
        }
        let outcome = loop {
            let writes = [Write::Unused(key_id(version)), destroyed(version, revision)];
            let outcome = write(destroyer, writes).await;
            assert!(outcome.is_ok() || outcome == refused(0), "version {version}: {outcome:?}");
            if outcome.is_ok() || !retire {
                break outcome;
            }
        };
        let mut landed = 0;
        for task in tasks {
            landed += u64::from(task.await.unwrap());
        }
        let there = destroyer.count_of_key(key_id(version)).await.unwrap();
        assert_eq!(there, if retire { 0 } else { landed }, "version {version}");
        if outcome.is_ok() {
            assert_eq!(there, 0, "version {version}");
            early += 1;
        } else {
            assert!(there > 0, "version {version}");
            late += 1;
        }
    }
    println!("{early} keys were destroyed, {late} were in use");
}

pub(crate) async fn no_record_is_under_a_key_that_was_destroyed(backend: &impl Backend) {
    let store = backend.open();
    destroy_under_writers(&store, &[Arc::clone(&store)], 60).await;
}

pub(crate) async fn a_retired_key_refuses_its_own_writes_only(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [1, 3].map(|version| Write::InsertKey(key(version)))).await.unwrap();
    rotate(&store, 1).await;
    let writers = (0..60_u64).map(|number| {
        let store = Arc::clone(&store);
        let version = 1 + (number % 3) as u8;
        tokio::spawn(async move {
            let writes = [Write::Active(key_id(version)), Write::Insert(under(number, version))];
            (number, version, store.commit(change(writes, &[&number.to_string()])).await)
        })
    });
    let mut written = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        let (number, version, outcome) = writer.await.unwrap();
        assert_eq!(outcome.is_ok(), version != 1, "{outcome:?}");
        match outcome {
            Ok(done) => written.push((done.first_sequence, number.to_string())),
            Err(error) => assert_eq!(error, StoreError::Conflict { write: 0 }),
        }
    }
    written.sort();
    let entries: Vec<_> = written.iter().map(|(_, entry)| entry.as_str()).collect();
    assert_eq!(super::all_entries(&store).await[1..], entries);
    assert_eq!(store.count_of_key(key_id(1)).await, Ok(0));
    assert_eq!((store.count_of_key(key_id(2)).await, store.count_of_key(key_id(3)).await), (Ok(20), Ok(20)));
}

pub(crate) async fn records_of_a_key_are_counted(backend: &impl Backend) {
    let store = backend.open();
    let count = |version| store.count_of_key(key_id(version));
    assert_eq!(count(1).await, Ok(0));
    write(&store, (1..=300).map(|n| Write::Insert(under(n, 1))).collect::<Vec<_>>()).await.unwrap();
    write(&store, [Write::Insert(under(301, 2))]).await.unwrap();
    assert_eq!((count(1).await, count(2).await, count(3).await), (Ok(300), Ok(1), Ok(0)));
    let moved = Record { revision: 1, ..under(1, 2) };
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(2) };
    write(&store, [Write::Replace(moved), Write::Replace(erased)]).await.unwrap();
    assert_eq!((count(1).await, count(2).await), (Ok(298), Ok(2)));
    let highest = KeyId::from_bytes([0xff; 16]);
    let bytes = Sealed(vec![1]);
    let body = Body::Sealed { key_id: highest, key_version: KeyVersion(9), bytes };
    write(&store, [Write::Insert(Record { body, ..record(400) })]).await.unwrap();
    assert_eq!(store.count_of_key(highest).await, Ok(1));
}

pub(crate) async fn records_are_found_by_the_version_of_their_index(backend: &impl Backend) {
    let store = backend.open();
    let of = |number: u64, version: u32, mac: u8| {
        let index = Some(BlindIndex { version: KeyVersion(version), mac: [mac; 16] });
        Record { index, ..record(number) }
    };
    let found = [of(7, 2, 0), of(1, 2, 1), of(2, 2, 1), of(500, 2, 1), of(3, 2, 0xfe), of(4, 2, 0xff)];
    let others = [
        of(10, 1, 0xff),
        of(11, 3, 0),
        of(12, 256 + 2, 1),
        of(13, u32::MAX, 0xff),
        Record { tenant: tenant("st-mary2"), ..of(14, 2, 1) },
        Record { class: class("ssn2"), ..of(15, 2, 1) },
        Record { index: None, ..record(16) },
    ];
    let all = others.iter().chain(found.iter().rev()).cloned();
    write(&store, all.map(Write::Insert).collect::<Vec<_>>()).await.unwrap();
    let (mary, ssn) = (tenant("st-mary"), class("ssn"));
    let page = |version, after, limit| store.indexed_under(&mary, &ssn, KeyVersion(version), after, limit);
    let expected: Vec<_> = found.iter().map(|record| record.token).collect();
    for limit in 1..=expected.len() + 1 {
        let pages = paged(limit, async |after| page(2, after, limit).await).await;
        assert_eq!(pages, expected, "limit {limit}");
    }
    assert_eq!(page(2, None, 0).await, Ok(Page::default()));
    assert_eq!(page(u32::MAX, None, 9).await.unwrap().len(), 1);
    assert_eq!(page(0, None, 9).await, Ok(Page::default()));

    let moved = Record { revision: 1, ..of(1, 3, 1) };
    let erased = Record { index: None, body: Body::Erased { at: Timestamp(7) }, revision: 1, ..record(2) };
    write(&store, [Write::Replace(moved), Write::Replace(erased)]).await.unwrap();
    assert_eq!(page(2, None, 9).await.unwrap().len(), 4);
    assert_eq!(page(3, None, 9).await.unwrap().len(), 2);
    assert_eq!(store.find(&mary, &ssn, blind(1), 9).await, Ok(vec![]));
}

fn place(tenant: Option<&str>, kind: JobKind) -> JobPlace {
    JobPlace { tenant: tenant.map(super::tenant), kind }
}

/// A job to re-encrypt, with something in every field.
pub(crate) fn job(place: JobPlace, revision: u64) -> Job {
    Job {
        id: JobId::from_bytes([9; 16]),
        place,
        order: JobOrder {
            key: Some(key_id(1)),
            budget: JobBudget { bytes: 1 << 20, kms_calls: 5 },
            asked_by: PrincipalId::parse("ann@example.org").unwrap(),
            asked: Timestamp(100),
            not_before: Timestamp(200),
            asker: Vec::new(),
            kms_set: None,
        },
        state: if revision == 0 { JobState::Asked } else { JobState::Running },
        approved_by: (revision > 0).then(|| PrincipalId::parse("bob").unwrap()),
        begun: Timestamp(250),
        changed: Timestamp(300 + revision % 100),
        progress: JobProgress { total: 10, done: revision, failed: 1, bytes: u64::MAX, kms_calls: 3 },
        cause: "kms".to_owned(),
        revision,
    }
}

pub(crate) async fn a_job_is_changed_from_the_revision_before(backend: &impl Backend) {
    let store = backend.open();
    let mary = place(Some("st-mary"), JobKind::Reencrypt);
    let at = |revision| Write::PutJob(job(mary.clone(), revision));
    assert_eq!(store.job(&mary).await, Ok(None));
    assert_eq!(write(&store, [at(1)]).await, CONFLICT);
    write(&store, [at(0)]).await.unwrap();
    for wrong in [0, 2, u64::MAX] {
        assert_eq!(write(&store, [at(wrong)]).await, CONFLICT);
    }
    assert_eq!(write(&store, [at(1), at(2)]).await, refused(1), "a row is written once");
    write(&store, [at(1), Write::Insert(record(1))]).await.unwrap();
    assert_eq!(write(&store, [Write::Insert(record(2)), at(1)]).await, refused(1));
    assert_eq!((store.job(&mary).await, get(&store, 2).await), (Ok(Some(job(mary, 1))), None));
    for other in [place(None, JobKind::Reencrypt), place(Some("st-mary"), JobKind::Shred)] {
        assert_eq!(store.job(&other).await, Ok(None));
        write(&store, [Write::PutJob(job(other.clone(), 0))]).await.unwrap();
        assert_eq!(store.job(&other).await, Ok(Some(job(other, 0))));
    }
}

pub(crate) async fn concurrent_changes_of_a_job_have_one_winner(backend: &impl Backend) {
    let store = backend.open();
    let mary = place(Some("st-mary"), JobKind::Reindex);
    for revision in 0..8 {
        let racers = (0..16_u64).map(|racer| {
            let (store, mine) =
                (Arc::clone(&store), Job { begun: Timestamp(racer), ..job(mary.clone(), revision) });
            tokio::spawn(async move { (racer, write(&store, [Write::PutJob(mine)]).await) })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                (racer, Ok(())) => winners.push(Timestamp(racer)),
                (_, lost) => assert_eq!(lost, CONFLICT),
            }
        }
        let there = store.job(&mary).await.unwrap().unwrap();
        assert_eq!((winners, there.revision), (vec![there.begun], revision));
    }
}

pub(crate) async fn jobs_page_in_the_order_of_their_places(backend: &impl Backend) {
    let store = backend.open();
    // Names that a language's order, or one by length, would put otherwise.
    let tenants = [None, Some("0"), Some("a"), Some("a-b"), Some("a0"), Some("aa"), Some("b"), Some("b-")];
    let kinds = [JobKind::Reencrypt, JobKind::Destroy, JobKind::Shred];
    let places = tenants.iter().flat_map(|tenant| kinds.map(|kind| place(*tenant, kind)));
    let expected: Vec<_> = places.map(|place| job(place, 0)).collect();
    write(&store, expected.iter().rev().cloned().map(Write::PutJob).collect::<Vec<_>>()).await.unwrap();
    for limit in [1, 2, 5, 24, 99] {
        let mut jobs: Vec<Job> = Vec::new();
        while let more = store.jobs(jobs.last().map(|job| &job.place), limit).await.unwrap()
            && !more.is_empty()
        {
            assert!(more.len() <= limit);
            jobs.extend(more);
        }
        assert_eq!(jobs, expected, "limit {limit}");
        let rows = paged(limit, async |after| store.job_rows(after, limit).await).await;
        assert_eq!(rows, expected, "limit {limit}");
    }
    let behind = place(Some("a"), JobKind::Rewrap);
    assert_eq!(
        store.jobs(Some(&behind), 1).await,
        Ok(vec![expected[7].clone()]),
        "from one that is not there"
    );
    assert_eq!(store.jobs(None, 0).await, Ok(vec![]));
}

pub(crate) async fn jobs_that_are_over_are_not_under_way(backend: &impl Backend) {
    use JobState::{Asked, Cancelled, Done, Failed, Paused, Running};
    let store = backend.open();
    assert_eq!(store.jobs_under_way().await, Ok(UnderWay::default()));
    let states = [Asked, Done, Running, Failed, Paused, Cancelled];
    let names = ["a", "b", "c", "d", "e", "f"];
    let jobs: Vec<Job> = states
        .into_iter()
        .zip(names)
        .map(|(state, name)| Job { state, ..job(place(Some(name), JobKind::Reindex), 0) })
        .collect();
    write(&store, jobs.iter().cloned().map(Write::PutJob).collect::<Vec<_>>()).await.unwrap();
    let jobs: Vec<Job> = jobs.into_iter().filter(|job| !job.state.is_over()).collect();
    assert_eq!(jobs.len(), 3);
    assert_eq!(store.jobs_under_way().await, Ok(UnderWay { jobs, corrupt: Vec::new() }));
}

pub(crate) async fn a_job_is_there_after_a_reopen(backend: &impl Backend) {
    let store = backend.open();
    let vaults = place(None, JobKind::Rewrap);
    let bare = |revision| {
        let job = job(vaults.clone(), revision);
        let order = JobOrder { key: None, budget: JobBudget::default(), ..job.order };
        Job { order, approved_by: None, cause: String::new(), ..job }
    };
    let mary = place(Some("st-mary"), JobKind::Reencrypt);
    write(&store, [Write::PutJob(bare(0)), Write::PutJob(job(mary.clone(), 0))]).await.unwrap();
    write(&store, [Write::PutJob(bare(1))]).await.unwrap();
    drop(store);
    let store = backend.open();
    assert_eq!(store.jobs(None, 9).await, Ok(vec![bare(1), job(mary, 0)]));
    write(&store, [Write::PutJob(bare(2))]).await.unwrap();
    assert_eq!(store.job(&vaults).await, Ok(Some(bare(2))));
}

pub(crate) async fn keys_are_told_apart_and_ordered(backend: &impl Backend) {
    let store = backend.open();
    let of = |n, tenant: Option<&str>, purpose| KeyRecord {
        id: key_id(n),
        tenant: tenant.map(|name| TenantId::parse(name).unwrap()),
        purpose,
        ..key(1)
    };
    let others = [
        of(21, Some("st-mary2"), KeyPurpose::Data),
        of(22, Some("st-mary"), KeyPurpose::Index),
        of(23, None, KeyPurpose::LogSigning),
        of(24, None, KeyPurpose::Data),
    ];
    write(&store, others.clone().map(Write::InsertKey)).await.unwrap();
    write(&store, [3, 1, 2].map(|version| Write::InsertKey(key(version)))).await.unwrap();
    let mary = tenant("st-mary");
    assert_eq!(store.keys(Some(&mary), KeyPurpose::Data).await, Ok(vec![key(1), key(2), key(3)]));
    assert_eq!(store.keys(Some(&mary), KeyPurpose::Index).await, Ok(vec![others[1].clone()]));
    assert_eq!(store.keys(None, KeyPurpose::LogSigning).await, Ok(vec![others[2].clone()]));
    assert_eq!(store.keys(Some(&tenant("st")), KeyPurpose::Data).await, Ok(vec![]));
    for other in others {
        assert_eq!(store.key(other.id).await, Ok(Some(other)));
    }
}

pub(crate) async fn a_key_is_inserted_once_by_name_and_by_id(backend: &impl Backend) {
    let store = backend.open();
    write(&store, [Write::InsertKey(key(1))]).await.unwrap();
    let same_name = KeyRecord { id: key_id(9), ..key(1) };
    let same_id = KeyRecord { id: key_id(1), ..key(2) };
    assert_eq!(write(&store, [Write::InsertKey(same_name)]).await, CONFLICT);
    assert_eq!(write(&store, [Write::InsertKey(same_id)]).await, CONFLICT);
    assert_eq!(store.keys(Some(&tenant("st-mary")), KeyPurpose::Data).await, Ok(vec![key(1)]));
    assert_eq!(store.key(key_id(9)).await, Ok(None));
}

pub(crate) async fn replace_key_needs_the_revision_before_and_the_same_id(backend: &impl Backend) {
    let store = backend.open();
    let at = |revision, state| KeyRecord { state, revision, ..key(1) };
    assert_eq!(write(&store, [Write::ReplaceKey(at(1, KeyState::Retired))]).await, CONFLICT);
    write(&store, [Write::InsertKey(key(1))]).await.unwrap();
    let other_id = KeyRecord { id: key_id(2), ..at(1, KeyState::Retired) };
    for wrong in [other_id, at(0, KeyState::Retired), at(2, KeyState::Retired)] {
        assert_eq!(write(&store, [Write::ReplaceKey(wrong)]).await, CONFLICT);
    }
    write(&store, [Write::ReplaceKey(at(1, KeyState::Destroyed))]).await.unwrap();
    assert_eq!(store.key(key_id(1)).await, Ok(Some(at(1, KeyState::Destroyed))));
}
