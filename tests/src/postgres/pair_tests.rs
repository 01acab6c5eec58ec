use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio_postgres::{AsyncMessage, NoTls};

use super::{Cluster, Options, Pair};

/// A database with an empty table.
fn table(pair: &Pair) -> String {
    let database = pair.primary().create_database();
    pair.primary().sql(&database, "CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    database
}

fn rows(cluster: &Cluster, database: &str) -> Vec<u32> {
    let rows = cluster.sql(database, "SELECT n FROM t ORDER BY n").unwrap();
    rows.into_iter().flatten().flatten().map(|n| n.parse().unwrap()).collect()
}

/// Inserts rows one by one into whoever takes them, until told to stop; gives those that were acknowledged.
fn write(ports: [u16; 2], database: &str, first: u32, stop: &AtomicBool) -> Vec<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("postgres://phi_vault@127.0.0.1:{},127.0.0.1:{}/{database}", ports[0], ports[1]);
    let mut acknowledged = Vec::new();
    let mut n = first;
    runtime.block_on(async {
        while !stop.load(Ordering::Relaxed) {
            let url = format!("{url}?target_session_attrs=read-write");
            let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            tokio::spawn(connection);
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                if client.execute(&format!("INSERT INTO t VALUES ({n})"), &[]).await.is_err() {
                    break;
                }
                acknowledged.push(n);
            }
        }
    });
    acknowledged
}

#[test]
fn what_was_acknowledged_is_on_the_promoted_standby() {
    let rounds = 4;
    let Some(mut pair) = Pair::start(&Options::default()) else { return };
    let database = table(&pair);
    let ports = pair.ports();
    let begin = Instant::now();
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let acknowledged = thread::scope(|scope| {
            let writers = [0, 1, 2].map(|writer| {
                let first = (round * 3 + writer) * 1_000_000;
                let (database, stop) = (&database, &stop);
                scope.spawn(move || write(ports, database, first, stop))
            });
            thread::sleep(Duration::from_millis(200));
            pair.fail_over();
            pair.rebuild();
            stop.store(true, Ordering::Relaxed);
            writers.map(|writer| writer.join().unwrap()).concat()
        });
        let there = rows(pair.primary(), &database);
        assert!(acknowledged.len() > 10, "{}", acknowledged.len());
        let lost: Vec<_> = acknowledged.iter().filter(|n| there.binary_search(n).is_err()).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        assert_eq!(pair.ports(), ports);
    }
    println!("{rounds} fail-overs, {:?} each", begin.elapsed() / rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_until_there_is_a_standby() {
    let Some(mut pair) = Pair::start(&Options::default()) else { return };
    let database = table(&pair);
    pair.fail_over();
    let (client, connection) = tokio_postgres::connect(&pair.primary().url(&database), NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut commit = Box::pin(client.simple_query("INSERT INTO t VALUES (1)"));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut commit).await.is_err());
    pair.rebuild();
    tokio::time::timeout(Duration::from_secs(20), commit).await.unwrap().unwrap();
    assert_eq!(rows(pair.primary(), &database), [1]);
}

/// What PostgreSQL does, and what nobody who needs both copies may ask of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cancelled_while_it_waits_is_acknowledged_with_a_warning() {
    let Some(mut pair) = Pair::start(&Options::default()) else { return };
    let database = table(&pair);
    pair.fail_over();
    let (client, mut connection) =
        tokio_postgres::connect(&pair.primary().url(&database), NoTls).await.unwrap();
    let notices = tokio::spawn(async move {
        let mut notices = Vec::new();
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                notices.push(notice.message().to_owned());
            }
        }
        notices
    });
    let cancel = client.cancel_token();
    // A limit of time does not count for the wait.
    let commit = async move {
        client.simple_query("SET statement_timeout = '100ms'").await.unwrap();
        client.simple_query("INSERT INTO t VALUES (1)").await
    };
    let mut commit = Box::pin(commit);
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut commit).await.is_err());
    cancel.cancel_query(NoTls).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), commit).await.unwrap().unwrap();
    let notices = notices.await.unwrap();
    assert!(notices[0].contains("canceling wait for synchronous replication"), "{notices:?}");
}

#[test]
fn a_standby_that_comes_back_is_synchronous_again() {
    let Some(mut pair) = Pair::start(&Options::default()) else { return };
    let database = table(&pair);
    pair.standby_mut().unwrap().kill();
    pair.standby_mut().unwrap().restart();
    pair.wait_synchronous();
    pair.primary().sql(&database, "INSERT INTO t VALUES (1)").unwrap();
    pair.standby_mut().unwrap().kill();
    pair.rebuild();
    pair.primary().sql(&database, "INSERT INTO t VALUES (2)").unwrap();
    pair.fail_over();
    assert_eq!(rows(pair.primary(), &database), [1, 2]);
}

/// The control: the rig does show a loss where nothing is promised.
#[test]
fn without_synchronous_replication_a_fail_over_loses_acknowledged_rows() {
    let options = Options::default().set("synchronous_standby_names", "");
    let Some(mut pair) = Pair::start(&options) else { return };
    let database = table(&pair);
    // The new standby begins with the table.
    pair.rebuild();
    pair.standby_mut().unwrap().kill();
    pair.primary().sql(&database, "INSERT INTO t VALUES (1)").unwrap();
    pair.primary_mut().kill();
    pair.standby_mut().unwrap().restart();
    pair.fail_over();
    assert_eq!(rows(pair.primary(), &database), [0; 0]);
}
