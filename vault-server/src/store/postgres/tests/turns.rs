//! Several instances whose changes are about the same rows.

use super::super::connect::Connection;
use super::*;

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

/// Each batch takes so long.
async fn slow(database: &Database, seconds: &str) {
    let sleep = format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'; \
         CREATE TRIGGER slow AFTER INSERT ON log_entries FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    );
    database.sql(&sleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_too_long_is_not_written() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    slow(&database, "0.15").await;
    let until = Instant::now() + Duration::from_millis(700);
    // A batch each: they all write the same row, which has expired as soon as it is there.
    let answer = || Remembered {
        key: [1; 32],
        request: [2; 32],
        tokens: Vec::new(),
        at: Timestamp(5),
        expires: Timestamp(5),
    };
    let changes = (0..40_u64).map(|_| {
        let store = Arc::clone(&store);
        let change = change([Write::Remember(answer())], &["entry"]);
        tokio::spawn(async move { store.commit_until(change, until).await })
    });
    let mut written = 0;
    let mut late = 0;
    for change in changes.collect::<Vec<_>>() {
        match change.await.unwrap() {
            Ok(_) => written += 1,
            Err(StoreError::Late) => late += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(Instant::now() < until + Duration::from_secs(2));
    assert!(written >= 1 && late >= 20, "{written} {late}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.log_size(LogId(0)).await, Ok(written));
    // Nothing is left in the way of who comes next.
    store.commit_until(change([], &["next"]), Instant::now() + Duration::from_secs(9)).await.unwrap();
    assert_eq!(store.log_size(LogId(0)).await, Ok(written + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_database_that_stands_still_is_given_up_with_its_room() {
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    slow(&database, "1").await;
    let first = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(change([], &["first"])).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Each takes all the room there is: but one waits for it.
    let large = || Change { writes: Vec::new(), entries: vec![vec![7; 65_000].into(); 1100] };
    let until = Instant::now() + Duration::from_millis(300);
    let (one, other) = tokio::join!(store.commit_until(large(), until), store.commit_until(large(), until));
    for given_up in [one, other] {
        assert!(
            matches!(&given_up, Err(StoreError::Unavailable { why }) if why.contains("nothing was written"))
        );
    }
    assert!(Instant::now() < until + Duration::from_millis(400), "before the first is written");
    assert!(first.await.unwrap().is_ok());
    store.commit_until(large(), Instant::now() + Duration::from_secs(20)).await.unwrap();
    assert_eq!(store.log_size(LogId(0)).await, Ok(1101));
}

/// Holds rows locked until it is dropped.
async fn hold(database: &Database, rows: &str) -> Connection {
    let connection = Connector::new(database.options()).connect().await.unwrap();
    connection.client().batch_execute(&format!("BEGIN; {rows} FOR UPDATE")).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_keys_share_a_statement_and_are_not_in_the_way_of_commits() {
    const TENANTS: u8 = 200;
    let database = Database::new();
    if !database.is_there() {
        return;
    }
    let store = database.instance("ann").await;
    let tenant = |number: u8| TenantId::parse(&format!("tenant-{number}")).unwrap();
    let keys = (0..TENANTS).map(|number| KeyRecord { tenant: Some(tenant(number)), ..key(number) });
    let keys = keys.map(Write::InsertKey).collect::<Vec<_>>();
    store.commit(change(keys, &[])).await.unwrap();
    let lists = (0..=TENANTS).map(|number| {
        let (store, tenant) = (Arc::clone(&store), tenant(number));
        tokio::spawn(async move { store.keys(Some(&tenant), KeyPurpose::Data).await.unwrap() })
    });
    for (number, list) in (0..).zip(lists.collect::<Vec<_>>()) {
        let there = KeyRecord { tenant: Some(tenant(number)), ..key(number) };
        let there = Some(there).filter(|_| number < TENANTS).into_iter().collect::<Vec<_>>();
        assert_eq!(list.await.unwrap(), there, "{number}");
    }
    let looks = database.sql("SELECT number FROM looks").await;
    let looks = looks.iter().find_map(|row| match row {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse::<u64>().ok(),
        _ => None,
    });
    let looks = looks.unwrap();
    assert!(looks < u64::from(TENANTS) / 4, "{looks} statements");
    // Each while the other is held up.
    let held = hold(&database, "SELECT number FROM looks").await;
    store.commit(change([], &["entry"])).await.unwrap();
    drop(held);
    let held = hold(&database, "SELECT log FROM logs").await;
    timeout(Duration::from_secs(3), store.keys(Some(&tenant(1)), KeyPurpose::Data)).await.unwrap().unwrap();
    drop(held);
}
