//! On a real server: the one that `PHI_VAULT_TEST_POSTGRES` names. Each test has a database of its own.

mod altered;
mod gone;
mod refused;
mod turns;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU32;

use super::connect::Connector;
use super::*;
use crate::domain::{
    Body, EntityKind, EntityScope, Environment, InstanceId, JobKind, KeyRecord, KeyState, VaultId,
};
use crate::store::conformance::{
    Backend, change, conformance_tests, destroy_under_writers, entity, entity_place, job, key, key_id,
    record, retire_under_writers, row_key, stand_on_each_other, token,
};
use crate::store::{EntrySeals, Malformed, Unsealed, Write};

/// What outlives a test's own runtime: committers of stores that were dropped still have to give their log back.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

fn on_runtime<R: Send + 'static>(work: impl Future<Output = R> + Send + 'static) -> R {
    let (sender, receiver) = std::sync::mpsc::channel();
    RUNTIME.spawn(async move { sender.send(work.await) });
    receiver.recv().unwrap()
}

/// A database of its own.
pub(crate) struct Database {
    options: Option<PostgresOptions>,
}

impl Database {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var("PHI_VAULT_TEST_POSTGRES") else {
            println!("skipped: no PostgreSQL to test with (PHI_VAULT_TEST_POSTGRES)");
            return Self { options: None };
        };
        let server: tokio_postgres::Config = url.parse().unwrap();
        let tokio_postgres::config::Host::Tcp(host) = &server.get_hosts()[0] else { panic!("{url}") };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("store_{}_{number}", std::process::id());
        let options = PostgresOptions {
            hosts: vec![(host.clone(), server.get_ports()[0])],
            database: database.clone(),
            user: server.get_user().unwrap().to_owned(),
            password: Password::None,
            transport: Transport::Plain,
            connections: 4,
            instance: Some("test".to_owned()),
            lease: Duration::from_secs(10),
        };
        on_runtime(async move {
            let (client, connection) = server.connect(tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        });
        Self { options: Some(options) }
    }

    /// For tests of others. `None`: there is no server.
    pub(crate) fn there() -> Option<Self> {
        Some(Self::new()).filter(Backend::is_there)
    }

    fn options(&self) -> PostgresOptions {
        self.options.clone().unwrap()
    }

    /// Runs statements as a database administrator would.
    pub(crate) async fn sql(&self, text: &str) -> Vec<tokio_postgres::SimpleQueryMessage> {
        let connection = Connector::new(self.options()).connect().await.unwrap();
        connection.client().simple_query(text).await.unwrap()
    }

    /// Another instance.
    pub(crate) async fn instance(&self, name: &str) -> Arc<dyn Store> {
        open(PostgresOptions { instance: Some(name.to_owned()), ..self.options() }, None).await.unwrap()
    }
}

impl Backend for Database {
    fn open(&self) -> Arc<dyn Store> {
        let options = self.options();
        on_runtime(async move { open(options, None).await.unwrap() })
    }

    fn malform(&self, key: &[u8]) {
        let (options, place) = (self.options(), hex::encode(key));
        let text = format!(
            "INSERT INTO entities (place, revision, content, checksum) VALUES ('\\x{place}', 0, 'x', '') \
             ON CONFLICT (place) DO UPDATE SET checksum = ''"
        );
        on_runtime(async move {
            let connection = Connector::new(options).connect().await.unwrap();
            connection.client().batch_execute(&text).await.unwrap();
        });
    }

    fn is_there(&self) -> bool {
        self.options.is_some()
    }
}

conformance_tests!(Database::new());
fn insert(number: u64) -> Change {
    change([Write::Insert(record(number))], &[&number.to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_write_logs_of_their_own() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    assert_eq!((ann.log(), bob.log()), (LogId(0), LogId(1)));
    assert_eq!(ann.commit(insert(1)).await, Ok(Committed { first_sequence: 0 }));
    assert_eq!(bob.commit(insert(2)).await, Ok(Committed { first_sequence: 0 }));
    assert_eq!(bob.commit(insert(1)).await, Err(StoreError::Conflict { write: 0 }));
    assert_eq!(ann.entries(LogId(1), 0, 9, 99).await, Ok(vec![Bytes::from_static(b"2")]));
    assert_eq!((ann.logs().await, ann.log_size(LogId(1)).await), (Ok(vec![LogId(0), LogId(1)]), Ok(1)));
    assert!(matches!(&ann.records(&[token(2)]).await.unwrap()[..], [Lookup::Found(_)]));
    bob.close().await.unwrap();
    // What was given back is taken before a new one is made.
    let cat = database.instance("cat").await;
    assert_eq!((cat.log(), cat.log_size(LogId(1)).await), (LogId(1), Ok(1)));
    assert_eq!(cat.commit(insert(3)).await, Ok(Committed { first_sequence: 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_log_was_taken_writes_nothing_any_more() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let first = database.instance("ann").await;
    first.commit(insert(1)).await.unwrap();
    // The same name: a restart, while the first still lives.
    let second = database.instance("ann").await;
    assert_eq!((second.log(), second.log_size(LogId(0)).await), (LogId(0), Ok(1)));
    assert_eq!(first.commit(insert(2)).await, Err(StoreError::Taken));
    assert_eq!(first.records(&[token(1)]).await, Err(StoreError::Taken));
    assert_eq!(second.commit(insert(2)).await, Ok(Committed { first_sequence: 1 }));
}

/// Ends all of Ann's connections.
const CUT: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'ann' AND datname = current_database()";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_connection_is_cut_is_made_once() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let cutting = CancellationToken::new();
    let cutter = {
        let (options, cutting) = (database.options(), cutting.clone());
        tokio::spawn(async move {
            let connection =
                Connector::new(PostgresOptions { instance: None, ..options }).connect().await.unwrap();
            let mut cuts = 0;
            while !cutting.is_cancelled() {
                connection.client().simple_query(CUT).await.unwrap();
                cuts += 1;
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            cuts
        })
    };
    let writers = (0..8_u64).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..40 {
                store.commit(insert(writer * 100 + number)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    cutting.cancel();
    assert!(cutter.await.unwrap() > 3);
    assert_eq!(store.log_size(LogId(0)).await, Ok(320));
    let entries = store.entries(LogId(0), 0, 999, 1 << 20).await.unwrap();
    let mut numbers: Vec<u64> =
        entries.iter().map(|entry| std::str::from_utf8(entry).unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..8).flat_map(|writer| (0..40).map(move |n| writer * 100 + n)).collect();
    assert_eq!(numbers, expected, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_left_is_brought_to_its_end_and_stays_its_instances() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let lease = Duration::from_millis(600);
    let open = |name: &str| {
        open(PostgresOptions { instance: Some(name.to_owned()), lease, ..database.options() }, None)
    };
    let (ann, bob) = (open("ann").await.unwrap(), open("bob").await.unwrap());
    ann.commit(insert(1)).await.unwrap();
    bob.commit(insert(2)).await.unwrap();
    assert!(ann.adopt().await.unwrap().is_none(), "nobody fell silent");
    // As after an outage: every lease has ended, and each is about to be renewed.
    database.sql("UPDATE logs SET expires = now() - interval '1 minute'").await;
    assert!(ann.adopt().await.unwrap().is_none(), "nobody has been silent for long");
    tokio::time::sleep(lease).await;
    assert!(ann.adopt().await.unwrap().is_none(), "both have renewed it");
    // Bob does not renew any more: somebody took it, and is gone.
    database.sql("UPDATE logs SET holder = '\\x00', fence = fence + 1 WHERE log = 1").await;
    tokio::time::sleep(lease).await;
    assert!(ann.adopt().await.unwrap().is_none(), "seen for the first time");
    tokio::time::sleep(lease).await;
    let adopted = ann.adopt().await.unwrap().unwrap();
    assert_eq!((adopted.log(), adopted.log_size(LogId(1)).await), (LogId(1), Ok(1)));
    assert!(ann.adopt().await.unwrap().is_none(), "it is being followed");
    assert_eq!(bob.commit(insert(3)).await, Err(StoreError::Taken));
    let checkpoint = Some((1, "one".to_owned()));
    adopted
        .derive(Derived { from: 0, upto: 1, tiles: Vec::new(), postings: Vec::new(), checkpoint })
        .await
        .unwrap();
    adopted.close().await.unwrap();
    assert!(ann.adopt().await.unwrap().is_none(), "all of it is under a checkpoint");
    assert_eq!(ann.commit(insert(4)).await, Ok(Committed { first_sequence: 1 }));
    assert_eq!(database.instance("bob").await.log(), LogId(1), "it has its name still");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_is_told_from_a_log_that_was_taken() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    store.commit(insert(2)).await.unwrap();
    // As after a failover to a server that lacks the last commit.
    database.sql("UPDATE logs SET size = 1, commits = 1").await;
    let lost = store.commit(insert(3)).await;
    assert!(matches!(&lost, Err(StoreError::Fatal { why }) if why.contains("lost commits")), "{lost:?}");
    // Going on with it would fork it: the next process of that name begins another.
    assert_eq!(database.instance("ann").await.log(), LogId(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_derived_from_entries_that_the_database_lost() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    store.commit(insert(2)).await.unwrap();
    let derived = |upto: u64, signed: u64| Derived {
        from: 0,
        upto,
        tiles: Vec::new(),
        postings: vec![crate::store::Posting { key: b"k".to_vec(), sequence: upto - 1 }],
        checkpoint: Some((signed, signed.to_string())),
    };
    // As after a failover to a server that lacks the last commit.
    database.sql("UPDATE logs SET size = 1, commits = 1").await;
    for lost in [derived(2, 2), derived(1, 2)] {
        let refused = store.derive(lost).await;
        let Err(StoreError::Unavailable { why }) = refused else { panic!("{refused:?}") };
        assert_eq!(
            why,
            "log 0 has 1 entries in the database, fewer than the 2 that were read or acknowledged"
        );
    }
    assert_eq!(store.derived(LogId(0)).await, Ok(DerivedState::default()));
    assert_eq!(store.postings(LogId(0), b"k", 0, 9, false, 9).await, Ok(vec![]));
    store.derive(derived(1, 1)).await.unwrap();
    let checkpoint = Some((1, "1".to_owned()));
    assert_eq!(store.derived(LogId(0)).await, Ok(DerivedState { upto: 1, checkpoint }));
}
