//! Servers that are silent, went back, or were told to be less careful; tables that others use.

use std::time::Instant;

use super::*;
use crate::store::postgres::open_alone;

/// What a store says once it has found out that the database lost commits.
fn is_lost<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Fatal { why }) if why.contains("lost commits"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_behind_this_instance_is_told_from_a_log_that_was_taken() {
    for back in [
        // To before this instance took the log: another one, or an earlier process, has it.
        "UPDATE logs SET fence = fence - 1, holder = '\\x00'",
        "UPDATE logs SET holder = '\\x00'",
        // To before there was one.
        "DELETE FROM logs",
        // Its last entries are gone, and the count of commits is not.
        "UPDATE logs SET size = size - 1",
    ] {
        let database = Database::new();
        if !database.is_there() {
            return;
        }
        let store = database.instance("ann").await;
        store.commit(insert(1)).await.unwrap();
        store.commit(insert(2)).await.unwrap();
        database.sql(back).await;
        // Nobody may say that another instance has it, since that would be no loss.
        let keys = store.keys(None, KeyPurpose::LogSigning).await;
        assert!(!matches!(keys, Err(StoreError::Taken)), "{back}: {keys:?}");
        let lost = store.commit(insert(3)).await;
        assert!(is_lost(&lost), "{back}: {lost:?}");
        // Going on with it would fork it: the next process of that name begins another.
        let next = database.instance("ann").await;
        assert_eq!(next.log(), LogId(1), "{back}");
        let emptied = back.starts_with("DELETE");
        let logs = if emptied { vec![LogId(1)] } else { vec![LogId(0), LogId(1)] };
        assert_eq!(next.logs().await, Ok(logs), "{back}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_asked_after_where_there_is_no_log_any_more_is_lost() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    database
        .sql(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM pg_sleep(5); RETURN NEW; END$$; \
             CREATE TRIGGER linger BEFORE INSERT ON log_entries FOR EACH ROW EXECUTE FUNCTION linger()",
        )
        .await;
    let commit = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(insert(2)).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The connection is lost in the middle of it, and by the time that it is asked after the log is gone.
    database
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
             AND pid <> pg_backend_pid() AND state = 'active' AND query LIKE 'WITH%'; DELETE FROM logs",
        )
        .await;
    let lost = commit.await.unwrap();
    assert!(is_lost(&lost), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_nobody_calls_notices_that_the_database_went_back() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let lease = Duration::from_millis(600);
    let store = open(PostgresOptions { lease, ..database.options() }, None).await.unwrap();
    store.commit(insert(1)).await.unwrap();
    database.sql("DELETE FROM logs").await;
    let begin = Instant::now();
    while !is_lost(&store.log_size(LogId(0)).await) {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_process_takes_the_first_log_that_may_still_be_written() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    store.commit(insert(1)).await.unwrap();
    database.sql("UPDATE logs SET commits = 0").await;
    assert!(is_lost(&store.commit(insert(2)).await));
    for _ in 0..2 {
        let alone = open_alone(database.options(), None).await.unwrap();
        assert_eq!(alone.log(), LogId(1));
        alone.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_durable_whatever_the_session_was_told() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    // As a pooler's other client would leave the session behind; and what a commit runs under, told as it commits.
    database
        .sql(
            "CREATE TABLE told (at text); \
             CREATE FUNCTION careless() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM set_config('synchronous_commit', 'off', false); RETURN NULL; END$$; \
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN INSERT INTO told VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$; \
             CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON log_entries \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell(); \
             CREATE CONSTRAINT TRIGGER zz_careless AFTER INSERT ON log_entries \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION careless()",
        )
        .await;
    for number in 0..4 {
        store.commit(insert(number)).await.unwrap();
    }
    // With a condition: a transaction of several statements.
    store.commit(change([Write::Replace(Record { revision: 1, ..record(0) })], &["e"])).await.unwrap();
    let connection = Connector::new(database.options()).connect().await.unwrap();
    let told = connection.client().query_typed("SELECT at FROM told", &[]).await.unwrap();
    let told: Vec<&str> = told.iter().map(|row| row.get(0)).collect();
    assert_eq!(told, ["on"; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_says_nothing_keeps_nobody_from_the_next() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    database.instance("ann").await.close().await.unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = database.options();
    options.hosts.insert(0, ("127.0.0.1".to_owned(), silent.local_addr().unwrap().port()));
    let begin = Instant::now();
    let store = open(options, None).await.unwrap();
    assert!(matches!(&store.records(&[token(1)]).await.unwrap()[..], [Lookup::Missing]));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_schema_does_not_keep_those_at_work_waiting() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    database.sql("DELETE FROM vault_schema WHERE number > 4").await;
    // As a backup that takes long.
    let backup = Connector::new(database.options()).connect().await.unwrap();
    backup.client().batch_execute("BEGIN; LOCK TABLE keys IN ACCESS SHARE MODE").await.unwrap();
    let newer = {
        let options = PostgresOptions { instance: Some("bob".to_owned()), ..database.options() };
        tokio::spawn(async move { open(options, None).await })
    };
    for _ in 0..8 {
        let begin = Instant::now();
        store.keys(None, KeyPurpose::Data).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    backup.client().batch_execute("COMMIT").await.unwrap();
    assert_eq!(newer.await.unwrap().unwrap().log(), LogId(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_make_the_same_rows_at_once_do_not_wait_for_each_other() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let (ann, bob) = (database.instance("ann").await, database.instance("bob").await);
    // Each row takes a while: the two are sure to be in the middle of it at once.
    database
        .sql(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END$$; \
             CREATE TRIGGER linger AFTER INSERT ON entities FOR EACH ROW EXECUTE FUNCTION linger(); \
             CREATE TRIGGER linger_before BEFORE INSERT ON entities FOR EACH ROW EXECUTE FUNCTION linger()",
        )
        .await;
    let mut fastest = Duration::MAX;
    for round in 0..3_u8 {
        let place = |name: u8| entity_place(EntityKind::SecurityKey, Some("st-mary"), &[b'n', round, name]);
        let put = |names: [u8; 2]| {
            let puts = names.map(|name| Write::PutEntity(entity(&place(name), 0)));
            change(puts, &["e"])
        };
        let begin = Instant::now();
        let (one, other) = tokio::join!(ann.commit(put([1, 2])), bob.commit(put([2, 1])));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        fastest = fastest.min(begin.elapsed());
    }
    // The database looks for a deadlock after a second: with one, each round takes longer.
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
}

/// Another address of the server, which goes when this is dropped, with all connections to it.
struct Address {
    port: u16,
    _connections: tokio::task::JoinSet<()>,
}

async fn another_address(host: &str, port: u16) -> Address {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (own, there) = (listener.local_addr().unwrap().port(), (host.to_owned(), port));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let there = there.clone();
            connections.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(there).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    Address { port: own, _connections: tasks }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_passed_over_is_one_that_is_left() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let [(host, port)] = &database.options().hosts[..] else { panic!() };
    let other = another_address(host, *port).await;
    let hosts = vec![(host.clone(), *port), ("127.0.0.1".to_owned(), other.port)];
    let connector = Connector::new(PostgresOptions { hosts, ..database.options() });
    let first = connector.connect().await.unwrap();
    let again = connector.connect().await.unwrap();
    assert!(connector.is_current(&first) && connector.is_current(&again));
    connector.pass_over();
    let second = connector.connect().await.unwrap();
    assert!(connector.is_current(&second) && !connector.is_current(&first) && !connector.is_current(&again));
}
