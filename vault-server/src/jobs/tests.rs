mod altered;
mod irreversible;
mod rotated;
mod workers;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vault_proto::v1::AuditEntry;

use super::agreement::Agreement;
use super::ended;
use super::schedule::Schedule;
use super::shift::{End, Shift, Stop};
use super::walk::{Pages, Task, walk};
use super::worker::{Options, Parts, Workers};
use crate::audit::{AuditAction, KeyJournal, Log, LogOptions};
use crate::crypto::{self, DataKey, Detokenize, Place, Warrant};
use crate::domain::class::{ClassOptions, Classes};
use crate::domain::{
    Body, ClassName, Clock, Environment, InstanceId, Job, JobBudget, JobId, JobKind, JobOrder, JobPlace,
    JobProgress, JobState, KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion, KmsSet, Plaintext,
    PrincipalId, Record, RequestId, SystemClock, TenantId, Timestamp, Token, VaultId, VaultIdentity,
};
use crate::keyring::{CacheOptions, Keyring};
use crate::kms::WrappingKeys;
use crate::kms::testing::TestKms;
use crate::store::memory::MemoryStore;
use crate::store::{Change, Held, Lease, Leases, Lookup, Store, StoreError, Write};

const VALUE: &str = "219-09-9999";
const LEASE: Duration = Duration::from_millis(400);

struct Rig {
    /// What it is on, if it is in memory.
    memory: MemoryStore,
    store: Arc<dyn Store>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    tenant: TenantId,
}

fn identity() -> VaultIdentity {
    VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment: Environment::parse("dev").unwrap() }
}

fn ssn() -> ClassName {
    ClassName::parse("ssn").unwrap()
}

impl Rig {
    /// A tenant with so many records under its first data key, which is retired now.
    async fn new(records: u8) -> Self {
        let memory = MemoryStore::new();
        Self { memory: memory.clone(), ..Self::on(Arc::new(memory), records).await }
    }

    async fn on(store: Arc<dyn Store>, records: u8) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keyring = Arc::new(Keyring::new(
            identity(),
            Arc::clone(&store),
            WrappingKeys::new(vec![TestKms::new("east")]),
            Arc::new(KeyJournal::new(Arc::clone(&clock))),
            Arc::clone(&clock),
            CacheOptions { lifetime: Duration::from_mins(1), max_uses: u64::MAX, max_entries: 100 },
        ));
        let tenant = TenantId::parse("st-mary").unwrap();
        let rig = Self { memory: MemoryStore::new(), store, keyring, clock, tenant };
        rig.keep(0..records, Timestamp(1)).await;
        rig.rotate(KeyPurpose::Data).await;
        rig
    }

    /// Writes records of these numbers.
    async fn keep(&self, numbers: Range<u8>, created: Timestamp) {
        let key = self.keyring.active_data_key(&self.tenant).await.unwrap();
        let index = self.keyring.active_index_key(&self.tenant).await.unwrap();
        let classes = Classes::builtin(ClassOptions { accept_synthetic: true });
        let class = classes.get(&ssn()).unwrap();
        let value = || Plaintext::from_utf8(VALUE.as_bytes().to_vec()).unwrap();
        let normalized = class.normalize(&value(), self.clock.now()).unwrap();
        let blind = crypto::blind_index(&index, &ssn(), &normalized);
        for number in numbers {
            let mut record = Record {
                token: token(number),
                tenant: self.tenant.clone(),
                class: ssn(),
                subject: None,
                index: Some(blind),
                created,
                body: Body::Erased { at: Timestamp(0) },
                revision: 0,
            };
            let place = Place {
                identity: &identity(),
                token: record.token,
                tenant: &self.tenant,
                class: &ssn(),
                subject: None,
                index: Some(blind),
                created,
            };
            let bytes = crypto::seal(&place, &key, &value(), 64).unwrap();
            record.body = Body::Sealed { key_id: key.id(), key_version: key.version(), bytes };
            self.write(vec![Write::Insert(record)]).await;
        }
    }

    async fn write(&self, writes: Vec<Write>) {
        self.store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
    }

    async fn rotate(&self, purpose: KeyPurpose) {
        let active = self.keys(purpose).await.swap_remove(0);
        let version = KeyVersion(active.version.0 + 1);
        let new = self.keyring.new_version(&self.tenant, purpose, version).await.unwrap();
        let retired = KeyRecord { state: KeyState::Retired, revision: active.revision + 1, ..active };
        self.write(vec![Write::InsertKey(new), Write::ReplaceKey(retired)]).await;
        self.keyring.forget(&self.tenant, purpose);
    }

    /// Newest first.
    async fn keys(&self, purpose: KeyPurpose) -> Vec<KeyRecord> {
        self.keyring.list(Some(&self.tenant), purpose).await.unwrap()
    }

    fn place(&self, kind: JobKind) -> JobPlace {
        JobPlace { tenant: Some(self.tenant.clone()), kind }
    }

    async fn order(&self, kind: JobKind, key: Option<KeyId>, budget: JobBudget) {
        let job = Job {
            id: JobId::random().unwrap(),
            place: self.place(kind),
            order: JobOrder {
                key,
                budget,
                asked_by: PrincipalId::parse("rota").unwrap(),
                asked: self.clock.now(),
                not_before: self.clock.now(),
                asker: Vec::new(),
                kms_set: None,
            },
            state: JobState::Running,
            approved_by: Some(PrincipalId::parse("second").unwrap()),
            begun: Timestamp(0),
            changed: self.clock.now(),
            progress: JobProgress::default(),
            cause: String::new(),
            revision: self.store.job(&self.place(kind)).await.unwrap().map_or(0, |job| job.revision + 1),
        };
        self.write(vec![Write::PutJob(job)]).await;
    }

    fn parts(&self, stopping: &CancellationToken) -> Parts {
        let store = Arc::clone(&self.store);
        let options = LogOptions { deadline: Duration::from_secs(1), max_in_flight: 64 };
        Parts {
            identity: identity(),
            classes: Arc::new(Classes::builtin(ClassOptions { accept_synthetic: true })),
            store: Arc::clone(&store),
            keyring: Arc::clone(&self.keyring),
            log: Arc::new(Log::new(Arc::clone(&store), Arc::clone(&self.clock), options)),
            clock: Arc::clone(&self.clock),
            leases: Leases::new(store, Arc::clone(&self.clock), InstanceId::random().unwrap()),
            tally: Arc::default(),
            options: Options {
                poll: Duration::from_millis(5),
                lease: LEASE,
                at_once: 4,
                waiting: Duration::ZERO,
            },
            stopping: stopping.clone(),
        }
    }

    /// Lets a worker do it.
    async fn done(&self, kind: JobKind) -> Job {
        let stopping = CancellationToken::new();
        let worker = tokio::spawn(Workers::new(self.parts(&stopping)).run());
        let job = self.over(kind).await;
        stopping.cancel();
        worker.await.unwrap();
        job
    }

    /// Waits for its end.
    async fn over(&self, kind: JobKind) -> Job {
        let over = async {
            loop {
                let job = self.store.job(&self.place(kind)).await.unwrap().unwrap();
                if job.state.is_over() {
                    return job;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(20), over).await.expect("a job that ends")
    }

    async fn record(&self, number: u8) -> Record {
        match self.store.records(&[token(number)]).await.unwrap().swap_remove(0) {
            Lookup::Found(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    /// Under which key it opens.
    async fn opens_under(&self, number: u8) -> KeyId {
        let record = self.record(number).await;
        let id = record.key_id().unwrap();
        let key = self.data_key(id).await;
        let warrant: Warrant<Detokenize> = Warrant::assertion(RequestId::from_bytes([1; 16]), vec![record]);
        let value = crypto::open(&warrant, 0, &identity(), &key).unwrap();
        assert_eq!(value.expose(), VALUE);
        id
    }

    async fn data_key(&self, id: KeyId) -> DataKey {
        let mandate = crypto::Mandate::assertion(JobId::from_bytes([0; 16]), self.tenant.clone());
        self.keyring.data_key_for_job(&mandate, id).await.unwrap()
    }

    async fn entries(&self, action: AuditAction) -> Vec<AuditEntry> {
        use prost::Message as _;
        let size = self.store.log_size(self.store.log()).await.unwrap();
        let most = usize::try_from(size).unwrap();
        let entries = self.store.entries(self.store.log(), 0, most.max(1), usize::MAX).await.unwrap();
        let entries = entries.into_iter().map(|bytes| AuditEntry::decode(bytes).unwrap());
        entries.filter(|entry| entry.action() == action).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewrap_is_left_alone_by_who_has_other_kms_keys_and_fails_in_the_end() {
    let rig = Rig::new(0).await;
    let before = rig.keys(KeyPurpose::Data).await;
    for (set, state, cause) in [
        (rig.keyring.kms_set(), JobState::Done, ""),
        (KmsSet::from_bytes([9; 16]), JobState::Failed, "kms_keys_differ"),
    ] {
        rig.order(JobKind::Rewrap, None, JobBudget::default()).await;
        let there = rig.store.job(&rig.place(JobKind::Rewrap)).await.unwrap().unwrap();
        let order = JobOrder { kms_set: Some(set), ..there.order.clone() };
        let job = Job { order, revision: there.revision + 1, ..there };
        rig.write(vec![Write::PutJob(job)]).await;
        let job = rig.done(JobKind::Rewrap).await;
        assert_eq!((job.state, job.cause.as_str()), (state, cause));
    }
    assert_eq!(rig.keys(KeyPurpose::Data).await, before);
    assert_eq!(rig.entries(AuditAction::JobBegin).await.len(), 1, "the second was never begun");
}

fn shift_of(parts: Arc<Parts>, job: Job, held: Held) -> Shift {
    let (store, clock) = (Arc::clone(&parts.store), Arc::clone(&parts.clock));
    let agreement = Agreement::new(store, clock, parts.keyring.kms_set(), LEASE);
    Shift::new(parts, Arc::new(agreement), job, held)
}

fn token(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

#[tokio::test]
async fn everything_is_sealed_anew_once_and_the_log_says_so() {
    let rig = Rig::new(50).await;
    let [new, old] = rig.keys(KeyPurpose::Data).await.try_into().unwrap();
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    let job = rig.done(JobKind::Reencrypt).await;
    assert_eq!((job.state, job.progress.done, job.progress.failed), (JobState::Done, 50, 0));
    assert_eq!(rig.store.count_of_key(old.id).await, Ok(0));
    for number in 0..50 {
        assert_eq!(rig.opens_under(number).await, new.id);
        assert_eq!(rig.record(number).await.revision, 1);
    }
    let [end] = rig.entries(AuditAction::JobEnd).await.try_into().unwrap();
    assert_eq!((end.details["done"].as_str(), end.details["state"].as_str()), ("50", "done"));
    assert_eq!(rig.entries(AuditAction::JobBegin).await.len(), 1);
}

#[tokio::test]
async fn what_a_job_moved_makes_no_key_due() {
    let rig = Rig::new(30).await;
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    rig.done(JobKind::Reencrypt).await;
    let key = rig.keys(KeyPurpose::Data).await.swap_remove(0);
    assert_eq!(rig.store.count_of_key(key.id).await, Ok(30));
    let schedule = Schedule { after: None, after_records: Some(10) };
    let due = async || schedule.due(&key, &*rig.store, &*rig.clock).await.ok().unwrap();
    assert_eq!(due().await, None);
    rig.keep(30..39, rig.clock.now()).await;
    assert_eq!(due().await, None);
    rig.keep(39..40, rig.clock.now()).await;
    assert_eq!(due().await, Some("records"));
}

#[tokio::test]
async fn a_failed_commit_at_any_place_costs_nothing_and_nothing_is_done_twice() {
    for place in 0..12 {
        let rig = Rig::new(40).await;
        let new = rig.keys(KeyPurpose::Data).await[0].id;
        rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
        let store = rig.memory.clone();
        let faults = tokio::spawn(async move {
            for _ in 0..place {
                tokio::task::yield_now().await;
            }
            store.fail_next_commit(StoreError::Unavailable { why: "told to".to_owned() });
        });
        let job = rig.done(JobKind::Reencrypt).await;
        faults.await.unwrap();
        assert_eq!(job.state, JobState::Done, "{place}");
        for number in 0..40 {
            assert_eq!(rig.opens_under(number).await, new, "{place}");
            assert_eq!(rig.record(number).await.revision, 1, "{place}");
        }
    }
}

#[tokio::test]
async fn what_does_not_open_is_named_and_the_job_says_that_it_is_not_done() {
    let rig = Rig::new(5).await;
    let mut altered = rig.record(3).await;
    let Body::Sealed { bytes, .. } = &mut altered.body else { panic!("erased") };
    *bytes.0.last_mut().unwrap() ^= 1;
    altered.revision += 1;
    rig.write(vec![Write::Replace(altered)]).await;
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    let job = rig.done(JobKind::Reencrypt).await;
    assert_eq!((job.state, job.cause.as_str(), job.progress.done), (JobState::Failed, "records_left", 4));
    let entries = rig.entries(AuditAction::JobTrouble).await;
    assert!(!entries.is_empty());
    assert!(entries.iter().all(|entry| entry.items.len() == 1 && entry.items[0].token[..] == [3; 16]));
}

#[tokio::test]
async fn an_index_is_made_anew_and_found_under_the_new_key() {
    let rig = Rig::new(30).await;
    let old = rig.record(1).await.index.unwrap();
    rig.rotate(KeyPurpose::Index).await;
    rig.order(JobKind::Reindex, None, JobBudget::default()).await;
    let job = rig.done(JobKind::Reindex).await;
    assert_eq!((job.state, job.progress.done), (JobState::Done, 30));
    let new = rig.record(1).await.index.unwrap();
    assert_eq!(new.version, KeyVersion(2));
    assert_eq!(rig.store.find(&rig.tenant, &ssn(), old, 100).await.unwrap().len(), 0);
    assert_eq!(rig.store.find(&rig.tenant, &ssn(), new, 100).await.unwrap().len(), 30);
    let active = rig.keys(KeyPurpose::Data).await[0].id;
    assert_eq!(rig.opens_under(1).await, active);
}

#[tokio::test]
async fn a_key_is_destroyed_only_when_nothing_refers_to_it() {
    let rig = Rig::new(3).await;
    let [new, old] = rig.keys(KeyPurpose::Data).await.try_into().unwrap();
    for (key, cause) in [(&new, "key_active"), (&old, "key_in_use")] {
        rig.order(JobKind::Destroy, Some(key.id), JobBudget::default()).await;
        let job = rig.done(JobKind::Destroy).await;
        assert_eq!((job.state, job.cause.as_str()), (JobState::Failed, cause));
    }
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    rig.done(JobKind::Reencrypt).await;
    rig.order(JobKind::Destroy, Some(old.id), JobBudget::default()).await;
    assert_eq!(rig.done(JobKind::Destroy).await.state, JobState::Done);
    let gone = &rig.keys(KeyPurpose::Data).await[1];
    assert_eq!((gone.state, gone.wraps.len()), (KeyState::Destroyed, 0));
    let [certificate] = rig.entries(AuditAction::KeyDestroy).await.try_into().unwrap();
    assert_eq!(certificate.items[0].key_id[..], *old.id.as_bytes());
    assert_eq!(certificate.details["records"], "0");
}

#[tokio::test]
async fn a_tenant_that_is_shredded_has_no_key_and_gets_none() {
    let rig = Rig::new(3).await;
    rig.order(JobKind::Shred, None, JobBudget::default()).await;
    assert_eq!(rig.done(JobKind::Shred).await.state, JobState::Done);
    for purpose in [KeyPurpose::Data, KeyPurpose::Index] {
        let keys = rig.keys(purpose).await;
        assert!(keys.iter().all(|key| key.state == KeyState::Destroyed && key.wraps.is_empty()));
    }
    assert!(rig.keyring.active_data_key(&rig.tenant).await.is_err());
    assert_eq!(rig.entries(AuditAction::KeyDestroy).await.len(), 3);
}

#[tokio::test]
async fn a_pause_is_heard_in_the_middle_and_the_rest_is_done_later() {
    let rig = Rig::new(200).await;
    let old = rig.keys(KeyPurpose::Data).await[1].id;
    // About a batch a minute.
    rig.order(JobKind::Reencrypt, None, JobBudget { bytes: 500, kms_calls: 0 }).await;
    let stopping = CancellationToken::new();
    let worker = tokio::spawn(Workers::new(rig.parts(&stopping)).run());
    let place = rig.place(JobKind::Reencrypt);
    sleep(Duration::from_millis(100)).await;
    let pause = |job: Job| Job { state: JobState::Paused, revision: job.revision + 1, ..job };
    let change = |job| Change { writes: vec![Write::PutJob(job)], entries: Vec::new() };
    while rig.store.commit(change(pause(rig.store.job(&place).await.unwrap().unwrap()))).await.is_err() {}
    sleep(Duration::from_millis(700)).await;
    let paused = rig.store.job(&place).await.unwrap().unwrap();
    assert_eq!(paused.state, JobState::Paused);
    let left = rig.store.count_of_key(old).await.unwrap();
    let name = crate::domain::LeaseName::parse("job/st-mary/reencrypt").unwrap();
    assert_eq!(rig.store.lease(&name).await.unwrap().unwrap().expires, Timestamp(0), "given back");
    stopping.cancel();
    worker.await.unwrap();
    let go_on = Job { state: JobState::Running, revision: paused.revision + 1, ..paused };
    let go_on = Job { order: JobOrder { budget: JobBudget::default(), ..go_on.order.clone() }, ..go_on };
    rig.write(vec![Write::PutJob(go_on)]).await;
    let job = rig.done(JobKind::Reencrypt).await;
    assert_eq!(job.state, JobState::Done);
    assert!(left <= 200 && rig.store.count_of_key(old).await.unwrap() == 0);
}

#[tokio::test]
async fn one_version_that_can_not_be_opened_is_named_and_the_others_are_moved() {
    let rig = Rig::new(5).await;
    let [new, old] = rig.keys(KeyPurpose::Data).await.try_into().unwrap();
    // Records under two more versions, of which one is lost.
    rig.rotate(KeyPurpose::Data).await;
    let mut record = rig.record(0).await;
    let key = rig.data_key(new.id).await;
    let place = Place {
        identity: &identity(),
        token: record.token,
        tenant: &rig.tenant,
        class: &ssn(),
        subject: None,
        index: record.index,
        created: record.created,
    };
    let value = Plaintext::from_utf8(VALUE.as_bytes().to_vec()).unwrap();
    let bytes = crypto::seal(&place, &key, &value, 64).unwrap();
    record.body = Body::Sealed { key_id: new.id, key_version: new.version, bytes };
    record.revision += 1;
    rig.write(vec![Write::Replace(record)]).await;
    let mut lost = new.clone();
    lost.revision = 2;
    lost.state = KeyState::Retired;
    lost.wraps[0].ciphertext[0] = 200;
    rig.write(vec![Write::ReplaceKey(lost)]).await;
    rig.order(JobKind::Reencrypt, None, JobBudget::default()).await;
    let job = rig.done(JobKind::Reencrypt).await;
    assert_eq!((job.state, job.cause.as_str(), job.progress.done), (JobState::Failed, "records_left", 4));
    assert_eq!(rig.store.count_of_key(old.id).await, Ok(0));
    let entries = rig.entries(AuditAction::JobTrouble).await;
    assert!(entries.iter().all(|entry| entry.items[0].key_id[..] == *new.id.as_bytes()));
}

#[tokio::test]
async fn the_next_job_is_taken_up_when_one_has_ended() {
    let rig = Rig::new(3).await;
    for kind in [JobKind::Reencrypt, JobKind::Rewrap] {
        rig.order(kind, None, JobBudget::default()).await;
    }
    let stopping = CancellationToken::new();
    let mut parts = rig.parts(&stopping);
    // One of a tenant at once; and nobody looks in vain twice.
    parts.options.poll = Duration::from_hours(1);
    let worker = tokio::spawn(Workers::new(parts).run());
    let over = async {
        for kind in [JobKind::Reencrypt, JobKind::Rewrap] {
            while rig.store.job(&rig.place(kind)).await.unwrap().unwrap().state != JobState::Done {
                sleep(Duration::from_millis(2)).await;
            }
        }
    };
    timeout(Duration::from_secs(20), over).await.expect("both end");
    stopping.cancel();
    worker.await.unwrap();
}
