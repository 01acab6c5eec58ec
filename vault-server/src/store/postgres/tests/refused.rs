//! Databases that are not used, or only once they were brought forward.

use super::*;

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
