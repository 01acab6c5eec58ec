//! On a real server: the one that `PHI_VAULT_TEST_POSTGRES` names. Each test has a database of its own.

mod gone;

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
    record, retire_under_writers, stand_on_each_other, token,
};
use crate::store::{Malformed, Write};

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
async fn rows_that_an_administrator_altered_are_named() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    store.commit(insert(2)).await.unwrap();
    for altered in [
        "UPDATE records SET tenant = 'st-john'",
        "UPDATE records SET tenant = 'st-mary', sealed = sealed || '\\x00'",
        "UPDATE records SET subject = NULL",
        "UPDATE records SET key_version = -1",
        "UPDATE records SET erased = 5, sealed = NULL, key_id = NULL",
    ] {
        database.sql(altered).await;
        assert_eq!(store.records(&[token(1)]).await, Ok(vec![Lookup::Corrupt]), "{altered}");
        assert!(matches!(store.scan_records(None, 9).await, Err(StoreError::Corrupt { .. })), "{altered}");
    }
    database.sql("UPDATE log_entries SET entry = 'forged' WHERE sequence = 1").await;
    assert!(matches!(store.entries(LogId(0), 0, 9, 99).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.entries(LogId(0), 0, 1, 99).await.unwrap().len(), 1);
    database.sql("UPDATE log_entries SET sequence = 7 WHERE sequence = 0").await;
    assert!(matches!(store.entries(LogId(0), 0, 9, 99).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_administrator_altered_are_in_the_way_of_no_others() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    for number in 1..=5 {
        store.commit(insert(number)).await.unwrap();
    }
    let jobs = ["a", "b", "c"].map(|name| {
        job(JobPlace { tenant: Some(TenantId::parse(name).unwrap()), kind: JobKind::Reindex }, 0)
    });
    store.commit(change(jobs.clone().map(Write::PutJob), &[])).await.unwrap();
    store.commit(change([1, 2, 3].map(|number| Write::InsertKey(key(number))), &[])).await.unwrap();
    let (second, fourth) = (hex::encode(token(2).as_bytes()), hex::encode(token(4).as_bytes()));
    for altered in [
        format!("UPDATE records SET blind_index = blind_index || '\\x00' WHERE token = '\\x{second}'"),
        format!("UPDATE records SET token = token || '\\x07' WHERE token = '\\x{fourth}'"),
        format!("UPDATE keys SET created = created + 1 WHERE version = {}", key(2).version.0),
        format!("UPDATE jobs SET revision = 7 WHERE place = '\\x{}'", hex::encode(keys::job(&jobs[1].place))),
    ] {
        database.sql(&altered).await;
    }
    let malformed = |what: String, token| vec![Malformed { what, token }];
    let longer = format!("record {fourth}07");
    // Alone, too: the others are gone on to behind each of them.
    for limit in [1, 2, 9] {
        let (found, bad) = paged(async |after| store.tokens_of_key(key_id(1), after, limit).await).await;
        assert_eq!(found, [1, 2, 3, 5].map(token), "{limit}");
        assert_eq!(bad, malformed(longer.clone(), None), "{limit}");
        let (mary, ssn) = (TenantId::parse("st-mary").unwrap(), ClassName::parse("ssn").unwrap());
        let version = KeyVersion(1);
        let (found, bad) =
            paged(async |after| store.indexed_under(&mary, &ssn, version, after, limit).await).await;
        assert_eq!(found.len(), 3, "{limit}");
        let named = bad.into_iter().map(|row| (row.what, row.token)).collect::<BTreeSet<_>>();
        let expected = [(format!("record {second}"), Some(token(2))), (longer.clone(), None)];
        assert_eq!(named, BTreeSet::from(expected), "{limit}");
        let (found, bad) = paged(async |after| store.key_rows(after, limit).await).await;
        assert_eq!(found, [key(1), key(3)], "{limit}");
        assert_eq!(bad, malformed(format!("key {}", "02".repeat(16)), None), "{limit}");
        let (found, bad) = paged(async |after| store.job_rows(after, limit).await).await;
        assert_eq!(found, [jobs[0].clone(), jobs[2].clone()], "{limit}");
        assert_eq!((bad.len(), bad[0].token), (1, None), "{limit}");
    }
    assert_eq!(store.count_of_key(key_id(1)).await, Ok(5), "what can't be read counts");
}

/// What was read, and what is malformed, some at a time.
async fn paged<T>(
    read: impl AsyncFn(Option<Cursor>) -> Result<Page<T>, StoreError>,
) -> (Vec<T>, Vec<Malformed>) {
    let (mut items, mut malformed, mut next) = (Vec::new(), Vec::new(), None);
    loop {
        let page = read(next).await.unwrap();
        items.extend(page.items);
        malformed.extend(page.malformed);
        next = page.next;
        if next.is_none() {
            return (items, malformed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_vault_or_for_newer_software_is_refused() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let identity = |byte| VaultIdentity {
        vault: VaultId::from_bytes([byte; 16]),
        environment: Environment::parse("qa").unwrap(),
    };
    let store = database.instance("ann").await;
    store.found(&identity(1)).await.unwrap();
    store.close().await.unwrap();
    assert!(open(database.options(), Some(&identity(1))).await.is_ok());
    let other = open(database.options(), Some(&identity(2))).await;
    assert!(matches!(other.err(), Some(StoreError::Foreign { .. })));
    assert_eq!(database.sql("SELECT * FROM logs").await.len(), 3, "no log was taken for it");

    // One step ahead, and this software may go on beside it; and one with which it may not.
    database.sql("INSERT INTO vault_schema SELECT max(number) + 1, 2 FROM vault_schema").await;
    assert!(open(database.options(), Some(&identity(1))).await.is_ok());
    database.sql("INSERT INTO vault_schema SELECT max(number) + 1, max(number) + 1 FROM vault_schema").await;
    let newer = open(database.options(), Some(&identity(1))).await;
    assert!(matches!(newer.err(), Some(StoreError::Foreign { why }) if why.contains("newer software")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_schema_before_is_brought_forward_and_closed_to_its_software() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    store.close().await.unwrap();
    for older in [
        "DELETE FROM vault_schema WHERE number = 6",
        "ALTER TABLE keys DROP COLUMN statements; DELETE FROM vault_schema WHERE number >= 5",
        "ALTER TABLE keys DROP COLUMN statements; DROP TABLE awaited_keys; \
         DELETE FROM vault_schema WHERE number >= 4",
        "ALTER TABLE keys DROP COLUMN statements; DROP TABLE entities, awaited_keys; \
         DELETE FROM vault_schema WHERE number >= 3",
        "ALTER TABLE keys DROP COLUMN statements; DROP TABLE jobs, entities, awaited_keys; \
         DELETE FROM vault_schema WHERE number >= 2",
    ] {
        database.sql(older).await;
        let store = database.instance("ann").await;
        assert!(matches!(&store.records(&[token(1)]).await.unwrap()[..], [Lookup::Found(_)]));
        assert_eq!(store.jobs(None, 9).await, Ok(vec![]));
        assert_eq!(store.entities(&EntityScope::Kind(EntityKind::Grant), None, 9).await, Ok(vec![]));
        store.close().await.unwrap();
    }
    let newest = database.sql("SELECT max(oldest) FROM vault_schema").await;
    let newest = newest.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    });
    assert_eq!(newest.as_deref(), Some("6"), "software that knows less is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_lose_what_it_acknowledges_is_refused() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let name = database.options().database;
    for (setting, said) in [
        ("synchronous_commit = off", "synchronous_commit"),
        ("synchronous_commit = local", "synchronous_commit"),
        ("synchronous_commit = remote_write", "synchronous_commit"),
        (
            "synchronous_commit = on; ALTER DATABASE {name} SET default_transaction_read_only = on",
            "takes no writes",
        ),
    ] {
        let setting = setting.replace("{name}", &name);
        // Through the server's own database: a read-only one could not be changed back from within.
        let administrator =
            Connector::new(PostgresOptions { database: "postgres".to_owned(), ..database.options() });
        let administrator = administrator.connect().await.unwrap();
        administrator.client().batch_execute(&format!("ALTER DATABASE {name} SET {setting}")).await.unwrap();
        let refused = open(database.options(), None).await;
        let Some(StoreError::Unavailable { why }) = refused.err() else { panic!("{setting}") };
        assert!(why.contains(said), "{setting}: {why}");
    }
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
    adopted.derive(Derived { upto: 1, tiles: Vec::new(), postings: Vec::new(), checkpoint }).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hides_its_warnings_is_refused() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let name = database.options().database;
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    let hidden = format!("ALTER DATABASE {name} SET client_min_messages = error");
    database.sql(&hidden).await;
    let refused = open(database.options(), None).await;
    let Some(StoreError::Unavailable { why }) = refused.err() else { panic!("it is not refused") };
    assert!(why.contains("hides warnings"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_lands_under_a_key_that_another_instance_retired() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    retire_under_writers(&ann, &[Arc::clone(&bob)], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_retired_while_several_instances_write_under_it() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    let cat = database.instance("cat").await;
    retire_under_writers(&ann, &[Arc::clone(&ann), bob, cat], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_under_a_key_that_another_instance_destroyed() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    let cat = database.instance("cat").await;
    destroy_under_writers(&ann, &[bob, Arc::clone(&ann), cat], 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_key_unused_waits_for_who_writes_under_it() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let name = database.options().database;
    // Whatever the database's own default is.
    for level in ["repeatable read", "serializable", "read committed"] {
        database.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
        let set = format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'");
        database.sql(&set).await;
        let store = database.instance("ann").await;
        store.commit(change([Write::InsertKey(key(1)), Write::Insert(record(1))], &[])).await.unwrap();
        let other = Connector::new(database.options()).connect().await.unwrap();
        // As another instance writes, but slowly.
        let begin = "BEGIN; SELECT id FROM keys FOR SHARE";
        other.client().batch_execute("CREATE TABLE kept AS SELECT * FROM records").await.unwrap();
        let body = Body::Erased { at: Timestamp(7) };
        let erased = Record { index: None, body, revision: 1, ..record(1) };
        store.commit(change([Write::Replace(erased)], &[])).await.unwrap();
        other.client().batch_execute(begin).await.unwrap();
        let insert = "INSERT INTO records SELECT '\\x77777777777777777777777777777777', tenant, class, subject, \
                      blind_index, created, key_id, key_version, sealed, erased, revision, checksum FROM kept";
        other.client().batch_execute(insert).await.unwrap();
        let destroyed = KeyRecord { state: KeyState::Destroyed, revision: 1, ..key(1) };
        let writes = [Write::Unused(key_id(1)), Write::ReplaceKey(destroyed)];
        let asked = {
            let (store, writes) = (Arc::clone(&store), writes.clone());
            tokio::spawn(async move { store.commit(change(writes, &[])).await })
        };
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!asked.is_finished(), "{level}");
        other.client().batch_execute("COMMIT").await.unwrap();
        assert_eq!(asked.await.unwrap(), Err(StoreError::Conflict { write: 0 }), "{level}");
        other.client().batch_execute("DELETE FROM records WHERE key_id IS NOT NULL").await.unwrap();
        store.commit(change(writes, &[])).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_of_two_instances_that_stand_on_each_other_one_wins() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    stand_on_each_other([&ann, &bob], 90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_no_entity_at_a_place_waits_for_who_puts_one_there() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let place = entity_place(EntityKind::Session, None, b"ann");
    store.commit(change([Write::PutEntity(entity(&place, 0))], &[])).await.unwrap();
    let other = Connector::new(database.options()).connect().await.unwrap();
    // As another instance writes, but slowly.
    other.client().batch_execute("CREATE TABLE kept AS SELECT * FROM entities").await.unwrap();
    store.commit(change([Write::DropEntity { place: place.clone(), revision: 0 }], &[])).await.unwrap();
    for end in ["ROLLBACK", "COMMIT"] {
        let insert = "BEGIN; INSERT INTO entities SELECT * FROM kept";
        other.client().batch_execute(insert).await.unwrap();
        let asked = {
            let none = Write::Stands { place: place.clone(), revision: None };
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(change([none], &["none"])).await.map(|_| ()) })
        };
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!asked.is_finished(), "{end}");
        other.client().batch_execute(end).await.unwrap();
        let expected = if end == "COMMIT" { Err(StoreError::Conflict { write: 0 }) } else { Ok(()) };
        assert_eq!(asked.await.unwrap(), expected, "{end}");
    }
    assert_eq!(
        (store.entity(&place).await, store.log_size(LogId(0)).await),
        (Ok(Some(entity(&place, 0))), Ok(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_an_administrator_altered_is_named() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let place = entity_place(EntityKind::Principal, None, b"ann");
    let scope = EntityScope::Kind(EntityKind::Principal);
    store.commit(change([Write::PutEntity(entity(&place, 0))], &[])).await.unwrap();
    database.sql("CREATE TABLE kept AS SELECT * FROM entities").await;
    let named = |key: &str| StoreError::Corrupt { what: format!("entity {key}") };
    for altered in ["content = content || '\\x00'", "revision = 1", "checksum = '\\x00'", "content = ''"] {
        database.sql(&format!("UPDATE entities SET {altered}")).await;
        assert_eq!(store.entity(&place).await, Err(named("0100616e6e")), "{altered}");
        assert_eq!(store.entities(&scope, None, 9).await, Err(named("0100616e6e")), "{altered}");
        let next = Write::PutEntity(entity(&place, if altered == "revision = 1" { 2 } else { 1 }));
        let refused = store.commit(change([next], &[])).await;
        assert_eq!(refused.err(), Some(named("0100616e6e")), "{altered}");
        database.sql("DELETE FROM entities; INSERT INTO entities SELECT * FROM kept").await;
    }
    database.sql("UPDATE entities SET place = '\\x0100626f62'").await;
    assert_eq!(store.entities(&scope, None, 9).await, Err(named("0100626f62")));
}

/// Commits take a while, each its own: at any moment one of several instances shares the lock of a key.
const SLOW_COMMITS: &str = "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS \
                            $$BEGIN PERFORM pg_sleep(0.02 + random() * 0.03); RETURN NULL; END$$; \
                            CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON log_entries \
                            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger()";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gets_its_turn_although_there_is_always_an_instance_that_writes_under_it() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let rotator = database.instance("ann").await;
    let mut writers = Vec::new();
    for number in 0..12 {
        writers.push(database.instance(&format!("writer-{number}")).await);
    }
    database.sql(SLOW_COMMITS).await;
    // A change that gets no turn is refused, and this does not stand for it.
    retire_under_writers(&rotator, &writers, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_key_that_gets_no_turn_fails_alone() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(change([Write::InsertKey(key(1))], &[])).await.unwrap();
    // As an instance that hangs in the middle of a commit.
    let other = Connector::new(database.options()).connect().await.unwrap();
    other.client().batch_execute("BEGIN; SELECT id FROM keys FOR SHARE").await.unwrap();
    let retired = KeyRecord { state: KeyState::Retired, revision: 1, ..key(1) };
    let retire = || store.commit(change([Write::ReplaceKey(retired.clone())], &[]));
    let (changed, written) = tokio::join!(retire(), store.commit(insert(1)));
    assert!(matches!(changed, Err(StoreError::Unavailable { .. })), "{changed:?}");
    assert_eq!(written, Ok(Committed { first_sequence: 0 }));
    // Others write under it meanwhile, and nobody waits for a change that was given up.
    let under = |number| change([Write::Insert(record(number)), Write::Active(key_id(1))], &[]);
    store.commit(under(2)).await.unwrap();
    assert_eq!(database.sql("SELECT id FROM awaited_keys").await.len(), 2, "no row");
    other.client().batch_execute("COMMIT").await.unwrap();
    retire().await.unwrap();
    assert_eq!(store.commit(under(3)).await, Err(StoreError::Conflict { write: 1 }));
    assert_eq!(database.sql("SELECT id FROM awaited_keys").await.len(), 2, "no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_under_a_key_keeps_off_while_its_change_waits_and_no_longer() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(change([Write::InsertKey(key(1)), Write::InsertKey(key(2))], &[])).await.unwrap();
    let note = format!(
        "INSERT INTO awaited_keys SELECT id, now() + interval '1400 milliseconds' FROM keys WHERE version = {}",
        key(1).version.0
    );
    for (number, end) in [(10, "UPDATE awaited_keys SET until = now()"), (20, "DELETE FROM awaited_keys")] {
        database.sql("DELETE FROM awaited_keys").await;
        database.sql(&note).await;
        let under = |number, key| change([Write::Insert(record(number)), Write::Active(key_id(key))], &[]);
        store.commit(under(number, 2)).await.unwrap();
        let waits = {
            let (store, change) = (Arc::clone(&store), under(number + 1, 1));
            tokio::spawn(async move { store.commit(change).await })
        };
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!waits.is_finished(), "{end}");
        database.sql(end).await;
        waits.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_altered_fails_who_needs_it_and_nobody_who_shares_the_commit() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let lease = |name: &str, fence, revision| Lease {
        name: LeaseName::parse(name).unwrap(),
        holder: InstanceId::from_bytes([7; 16]),
        fence,
        expires: Timestamp(9),
        revision,
    };
    let first = [Write::PutLease(lease("good", 1, 0)), Write::PutLease(lease("bad", 1, 0))];
    store.commit(change(first, &[])).await.unwrap();
    store.commit(change([Write::InsertKey(key(1)), Write::InsertKey(key(2))], &[])).await.unwrap();
    database.sql("UPDATE leases SET expires = 8 WHERE name = 'bad'").await;
    let keys = format!("UPDATE keys SET created = created + 1 WHERE version = {}", key(1).version.0);
    database.sql(&keys).await;
    let mut commits = Vec::new();
    for round in 0..8_u64 {
        let fence = |name: &str| Write::Fence { lease: LeaseName::parse(name).unwrap(), fence: 1 };
        let number = 100 + round * 10;
        let under = |number| vec![fence("good"), Write::Active(key_id(number))];
        for (place, writes) in
            [vec![fence("good")], vec![fence("bad")], under(2), under(1)].into_iter().enumerate()
        {
            let record = Write::Insert(record(number + place as u64));
            let writes: Vec<_> = writes.into_iter().chain([record]).collect();
            commits.push((place % 2 == 0, store.commit(change(writes, &["e"]))));
        }
        // Under a name of its own, where the altered one is.
        let again = KeyRecord { id: KeyId::from_bytes([0xee; 16]), ..key(1) };
        commits.push((false, store.commit(change([Write::InsertKey(again)], &[]))));
    }
    let (fine, commits): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
    for (fine, outcome) in fine.into_iter().zip(futures::future::join_all(commits).await) {
        match outcome {
            Ok(_) => assert!(fine),
            Err(error) => assert!(!fine && matches!(error, StoreError::Corrupt { .. }), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_another_clock_keeps_nobody_off() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(change([Write::InsertKey(key(1))], &[])).await.unwrap();
    database.sql("INSERT INTO awaited_keys SELECT id, now() + interval '1 hour' FROM keys").await;
    let under = change([Write::Insert(record(1)), Write::Active(key_id(1))], &[]);
    timeout(Duration::from_secs(5), store.commit(under)).await.unwrap().unwrap();
}
