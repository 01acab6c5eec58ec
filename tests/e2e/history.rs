//! What several instances of a store answer at once, while connections break and servers die, could have come from one
//! store that does one thing at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use vault_server::domain::{
    Body, ClassName, InstanceId, KeyId, KeyPurpose, KeyRecord, KeyState, KeyVersion, LeaseName, Record,
    Sealed, TenantId, Timestamp, Token, WrappedKey,
};
use vault_server::store::embedded::{self, EngineKind, StoreOptions};
use vault_server::store::{Change, LogId, Lookup, Remembered, Store, StoreError, Write, postgres};
use vault_tests::fleet::Place;
use vault_tests::fleet::load::Dice;
use vault_tests::history::{
    Lease, LeaseAnswer, LeaseAsked, Model, Once, OnceAnswer, OnceAsked, Recorder, Register, RegisterAnswer,
    RegisterAsked, is_linearizable,
};
use vault_tests::postgres::{Cluster, Options, Pair};

/// How many callers each row has, and how often each of them looks and then writes.
const CALLERS: u64 = 6;
const STEPS: u32 = 4;

/// An instance of the store, or the one that took its place.
struct Instance(RwLock<Arc<dyn Store>>);

/// What all callers share.
struct Run {
    instances: Vec<Instance>,
    /// Numbers what is written.
    next: AtomicU64,
    /// What was acknowledged: its log, its place there, its number.
    acknowledged: Mutex<Vec<(LogId, u64, u64)>>,
    /// Operations of which it is not known whether they were done.
    unknown: AtomicU64,
    operations: AtomicU64,
}

/// One caller of one row.
struct Caller {
    run: Arc<Run>,
    store: Arc<dyn Store>,
    row: u64,
    dice: Dice,
}

impl Run {
    fn of(stores: Vec<Arc<dyn Store>>) -> Arc<Self> {
        Arc::new(Self {
            instances: stores.into_iter().map(|store| Instance(RwLock::new(store))).collect(),
            next: AtomicU64::new(1),
            acknowledged: Mutex::default(),
            unknown: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    fn instance(&self, number: u64) -> Arc<dyn Store> {
        let instances = self.instances.len() as u64;
        Arc::clone(&self.instances[(number % instances) as usize].0.read())
    }

    /// Callers of new rows, until it is stopped; the histories of all rows are checked.
    async fn go_on(self: Arc<Self>, stop: Arc<AtomicBool>) -> u64 {
        let mut rows = 0;
        while !stop.load(Ordering::SeqCst) {
            let row = self.number();
            tokio::join!(
                self.row::<Once>(row, answer_once),
                self.row::<Once>(row, key_once),
                self.row::<Register>(row, change_record),
                self.row::<Lease>(row, hold_lease),
            );
            rows += 4;
        }
        rows
    }

    async fn row<M: Model>(
        self: &Arc<Self>,
        row: u64,
        work: for<'a> fn(&'a mut Caller, &'a Recorder<M>) -> BoxFuture<'a, ()>,
    ) where
        M::Asked: Clone,
        M::Answer: Clone,
    {
        let recorder = Recorder::<M>::default();
        let callers = (0..CALLERS).map(|number| {
            let store = self.instance(number);
            let mut caller =
                Caller { run: Arc::clone(self), store, row, dice: Dice((row << 8) + number + 1) };
            let recorder = &recorder;
            async move { work(&mut caller, recorder).await }
        });
        join_all(callers).await;
        let history = recorder.history();
        self.operations.fetch_add(history.len() as u64, Ordering::Relaxed);
        let unknown = history.iter().filter(|operation| operation.ended.is_none()).count() as u64;
        self.unknown.fetch_add(unknown, Ordering::Relaxed);
        assert!(is_linearizable::<M>(&history), "row {row}: no order explains {history:#?}");
    }

    /// Whether what was acknowledged is in its log at its place, and nothing is in any log twice.
    async fn check_logs(&self) {
        let store = self.instance(0);
        let mut places = HashMap::new();
        for log in store.logs().await.unwrap() {
            let size = store.log_size(log).await.unwrap();
            let mut at = 0;
            while at < size {
                for entry in store.entries(log, at, 1000, 1 << 20).await.unwrap() {
                    let number = u64::from_be_bytes(entry[..].try_into().unwrap());
                    let twice = places.insert(number, (log, at));
                    assert_eq!(twice, None, "{number} is on record twice: also at {at} of log {log}");
                    at += 1;
                }
            }
        }
        for (log, sequence, number) in self.acknowledged.lock().iter() {
            assert_eq!(
                places.get(number),
                Some(&(*log, *sequence)),
                "{number} is not where it was said to be"
            );
        }
    }
}

impl Caller {
    /// What became of a write: `None` if that is not known.
    async fn write(&mut self, number: u64, writes: Vec<Write>) -> Option<Result<(), usize>> {
        let change = Change { writes, entries: vec![Bytes::copy_from_slice(&number.to_be_bytes())] };
        // Some callers don't wait for the answer.
        let patience = if self.dice.below(10) == 0 { self.dice.below(8) } else { 60_000 };
        let committed = timeout(Duration::from_millis(patience), self.store.commit(change)).await;
        match committed.ok()? {
            Ok(committed) => {
                let place = (self.store.log(), committed.first_sequence, number);
                self.run.acknowledged.lock().push(place);
                Some(Ok(()))
            }
            Err(StoreError::Conflict { write }) => Some(Err(write)),
            Err(StoreError::Unavailable { .. } | StoreError::Fatal { .. } | StoreError::Taken) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn read<T>(answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(StoreError::Unavailable { .. } | StoreError::Fatal { .. } | StoreError::Taken) => None,
            Err(error) => panic!("{error}"),
        }
    }

    async fn pause(&mut self) {
        let millis = self.dice.below(4);
        sleep(Duration::from_millis(millis)).await;
    }
}

/// The answer to an idempotency key.
fn answer_once<'a>(caller: &'a mut Caller, recorder: &'a Recorder<Once>) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&caller.row.to_be_bytes());
        for _ in 0..STEPS {
            let read = async {
                let there = Caller::read(caller.store.remembered(&key).await)?;
                Some(OnceAnswer::Is(there.map(|answer| number_of(answer.tokens[0].unwrap()))))
            };
            recorder.record(OnceAsked::Read, read).await;
            caller.pause().await;
            let number = caller.run.number();
            let answer = Remembered {
                key,
                request: [1; 32],
                tokens: vec![Some(token(number))],
                at: Timestamp(1),
                expires: Timestamp(2),
            };
            let writes = vec![Write::Insert(record(number, 0, number)), Write::Remember(answer)];
            let claim = async { caller.write(number, writes).await.map(|done| once(done, 1)) };
            recorder.record(OnceAsked::Claim(number), claim).await;
        }
    })
}

/// The first version of a tenant's key.
fn key_once<'a>(caller: &'a mut Caller, recorder: &'a Recorder<Once>) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let tenant = TenantId::parse(&format!("tenant-{}", caller.row)).unwrap();
        for _ in 0..STEPS {
            let number = caller.run.number();
            let claim = async {
                caller
                    .write(number, vec![Write::InsertKey(key(&tenant, number))])
                    .await
                    .map(|done| once(done, 0))
            };
            recorder.record(OnceAsked::Claim(number), claim).await;
            caller.pause().await;
            let read = async {
                let there = Caller::read(caller.store.keys(Some(&tenant), KeyPurpose::Data).await)?;
                assert!(there.len() < 2, "two keys of one version");
                let number = |key: &KeyRecord| u128::from_be_bytes(*key.id.as_bytes()) as u64;
                Some(OnceAnswer::Is(there.first().map(number)))
            };
            recorder.record(OnceAsked::Read, read).await;
        }
    })
}

/// A record, changed by compare-and-set.
fn change_record<'a>(caller: &'a mut Caller, recorder: &'a Recorder<Register>) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let at = caller.row;
        for _ in 0..STEPS {
            let mut revision = caller.dice.below(3) as u32;
            let read = async {
                let there = Caller::read(caller.store.records(&[token(at)]).await)?.remove(0);
                let there = match there {
                    Lookup::Found(record) => Some((record.revision, record.created.0)),
                    Lookup::Missing => None,
                    Lookup::Corrupt => panic!("corrupt"),
                };
                revision = there.map_or(0, |(revision, _)| revision + 1);
                Some(RegisterAnswer::Is(there))
            };
            recorder.record(RegisterAsked::Read, read).await;
            caller.pause().await;
            let number = caller.run.number();
            let written = record(at, revision, number);
            let write = if revision == 0 { Write::Insert(written) } else { Write::Replace(written) };
            let write = async {
                let done = caller.write(number, vec![write]).await?;
                Some(if done.is_ok() { RegisterAnswer::Written } else { RegisterAnswer::Conflict })
            };
            recorder.record(RegisterAsked::Write { revision, value: number }, write).await;
        }
    })
}

/// A lease: taken, written under, renewed, written under again, and by then perhaps taken by another.
fn hold_lease<'a>(caller: &'a mut Caller, recorder: &'a Recorder<Lease>) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        let name = LeaseName::parse(&format!("lease-{}", caller.row)).unwrap();
        let holder = InstanceId::from_bytes([caller.dice.below(256) as u8; 16]);
        for _ in 0..STEPS {
            let mut next = (0, 1);
            let read = async {
                let there = Caller::read(caller.store.lease(&name).await)?;
                let there = there.map(|lease| (lease.revision, lease.fence));
                next = there.map_or((0, 1), |(revision, fence)| (revision + 1, fence + 1));
                Some(LeaseAnswer::Is(there))
            };
            recorder.record(LeaseAsked::Read, read).await;
            let (revision, fence) = next;
            for revision in [revision, revision + 1] {
                let number = caller.run.number();
                let lease = vault_server::store::Lease {
                    name: name.clone(),
                    holder,
                    fence,
                    expires: Timestamp(1),
                    revision,
                };
                let put = async { caller.write(number, vec![Write::PutLease(lease)]).await.map(done) };
                recorder.record(LeaseAsked::Put { revision, fence }, put).await;
                caller.pause().await;
                let number = caller.run.number();
                let fenced = Write::Fence { lease: name.clone(), fence };
                let writes = vec![fenced, Write::Insert(record(number, 0, number))];
                let write = async { caller.write(number, writes).await.map(done) };
                recorder.record(LeaseAsked::Write { fence }, write).await;
            }
        }
    })
}

fn done(outcome: Result<(), usize>) -> LeaseAnswer {
    if outcome.is_ok() { LeaseAnswer::Done } else { LeaseAnswer::Conflict }
}

/// `condition` is the write that may be in conflict.
fn once(outcome: Result<(), usize>, condition: usize) -> OnceAnswer {
    match outcome {
        Ok(()) => OnceAnswer::Won,
        Err(write) => {
            assert_eq!(write, condition, "a conflict about what nobody else has");
            OnceAnswer::Lost
        }
    }
}

fn token(number: u64) -> Token {
    Token::from_bytes(u128::from(number).to_be_bytes())
}

fn number_of(token: Token) -> u64 {
    u128::from_be_bytes(*token.as_bytes()) as u64
}

/// The first version of a tenant's data key.
fn key(tenant: &TenantId, number: u64) -> KeyRecord {
    KeyRecord {
        id: KeyId::from_bytes(u128::from(number).to_be_bytes()),
        tenant: Some(tenant.clone()),
        purpose: KeyPurpose::Data,
        version: KeyVersion::FIRST,
        state: KeyState::Active,
        created: Timestamp(1),
        wraps: vec![WrappedKey { wrapping_key: "local:a".to_owned(), ciphertext: vec![7; 40] }],
        revision: 0,
        statements: String::new(),
    }
}

fn record(number: u64, revision: u32, value: u64) -> Record {
    Record {
        token: token(number),
        tenant: TenantId::parse("st-mary").unwrap(),
        class: ClassName::parse("ssn").unwrap(),
        subject: None,
        index: None,
        created: Timestamp(value),
        body: Body::Sealed {
            key_id: KeyId::from_bytes([1; 16]),
            key_version: KeyVersion::FIRST,
            bytes: Sealed(value.to_be_bytes().repeat(12)),
        },
        revision,
    }
}

const NAMES: [&str; 3] = ["ann", "bob", "cat"];

async fn instances(place: &Place) -> Arc<Run> {
    let mut stores = Vec::new();
    for name in NAMES {
        stores.push(postgres::open(place.options(name), None).await.unwrap());
    }
    Run::of(stores)
}

/// Ends some connections of the instances.
const CUT: &str = "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = \
                   current_database() AND application_name IN ('ann', 'bob', 'cat') ORDER BY random() LIMIT 3) AS chosen";

/// Cuts connections for a while; how many.
async fn cut(cluster: &Cluster, database: &str, times: u32) -> usize {
    let mut cuts = 0;
    for _ in 0..times {
        sleep(Duration::from_millis(80)).await;
        cuts += cluster.sql(database, CUT).unwrap().len();
    }
    cuts
}

/// Starts an instance a second time while the first still lives: its log is taken from it.
async fn take_over(run: &Run, place: &Place, number: usize) {
    let store = postgres::open(place.options(NAMES[number]), None).await.unwrap();
    *run.instances[number].0.write() = store;
}

async fn ended(run: Arc<Run>, stop: Arc<AtomicBool>, going: tokio::task::JoinHandle<u64>, faults: &str) {
    stop.store(true, Ordering::SeqCst);
    let rows = going.await.unwrap();
    run.check_logs().await;
    let (operations, unknown) = (run.operations.load(Ordering::Relaxed), run.unknown.load(Ordering::Relaxed));
    println!("{faults}: {rows} rows, {operations} operations, {unknown} of unknown outcome: linearizable");
    assert!(rows > 20, "too little to prove anything");
}

fn begin(run: &Arc<Run>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    (Arc::clone(&stop), tokio::spawn(Arc::clone(run).go_on(stop)))
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_one_store_while_connections_are_cut_and_the_server_is_killed() {
    let Some(mut cluster) = Cluster::start(&Options::default()) else { return };
    let place = Place::on(&[cluster.port()], &cluster.create_database());
    let run = instances(&place).await;
    let (stop, going) = begin(&run);
    let mut cuts = cut(&cluster, &place.database, 25).await;
    take_over(&run, &place, 1).await;
    cuts += cut(&cluster, &place.database, 10).await;
    for _ in 0..2 {
        cluster.kill();
        sleep(Duration::from_millis(100)).await;
        cluster.restart();
        cuts += cut(&cluster, &place.database, 12).await;
    }
    ended(run, stop, going, &format!("{cuts} cut connections, a log taken over, 2 kills of the server"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_one_store_while_the_database_fails_over() {
    let Some(mut pair) = Pair::start(&Options::default()) else { return };
    let place = Place::on(&pair.ports(), &pair.primary().create_database());
    let run = instances(&place).await;
    let (stop, going) = begin(&run);
    let mut cuts = 0;
    for _ in 0..2 {
        cuts += cut(pair.primary(), &place.database, 12).await;
        // A commit whose session was ended is shown before the standby has it: let that pass.
        sleep(Duration::from_millis(500)).await;
        let failed_over = tokio::task::spawn_blocking(move || {
            pair.fail_over();
            pair.rebuild();
            pair
        });
        pair = failed_over.await.unwrap();
    }
    cuts += cut(pair.primary(), &place.database, 12).await;
    ended(run, stop, going, &format!("{cuts} cut connections, 2 fail-overs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_fail_over_could_take_back_is_not_given_out() {
    let Some(pair) = Pair::start(&Options::default()) else { return };
    let place = Place::on(&pair.ports(), &pair.primary().create_database());
    let (ann, bob) = (
        postgres::open(place.options("ann"), None).await.unwrap(),
        postgres::open(place.options("bob"), None).await.unwrap(),
    );
    let tenant = TenantId::parse("st-mary").unwrap();
    pair.standby().unwrap().pause();
    let change = Change { writes: vec![Write::InsertKey(key(&tenant, 1))], entries: Vec::new() };
    let made = tokio::spawn(async move { ann.commit(change).await });
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ann' AND wait_event = \
               'SyncRep'";
    // The primary shows it then, and the standby does not have it.
    while pair.primary().sql(&place.database, "SELECT 1 FROM keys").unwrap().is_empty() {
        sleep(Duration::from_millis(20)).await;
        pair.primary().sql(&place.database, end).unwrap();
    }
    let asked = timeout(Duration::from_secs(2), bob.keys(Some(&tenant), KeyPurpose::Data)).await;
    assert!(!matches!(&asked, Ok(Ok(keys)) if !keys.is_empty()), "it was given out: {asked:?}");
    pair.standby().unwrap().resume();
    made.await.unwrap().unwrap();
    assert_eq!(bob.keys(Some(&tenant), KeyPurpose::Data).await.unwrap(), [key(&tenant, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_store_is_one_store_while_it_is_closed_and_opened() {
    let dir = TempDir::new().unwrap();
    let open = || embedded::open(EngineKind::Fjall, dir.path(), StoreOptions::default()).unwrap();
    let run = Run::of(vec![open()]);
    let (stop, going) = begin(&run);
    for _ in 0..3 {
        sleep(Duration::from_millis(700)).await;
        run.instance(0).close().await.unwrap();
        *run.instances[0].0.write() = open();
    }
    sleep(Duration::from_millis(700)).await;
    ended(run, stop, going, "3 closings of an embedded store").await;
}
