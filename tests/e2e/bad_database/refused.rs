//! Databases that a start refuses.

use vault_tests::database::Database;
use vault_tests::postgres::{Cluster, Options};

use super::{Home, plain};

/// The part of a configuration that leads to a database of the shared server.
fn section(database: &Database, name: &str) -> String {
    let (port, user) = database.address();
    plain(port, name, &user)
}

fn tokenize(vault: &vault_tests::process::DevVault, value: &str) -> String {
    let ran = vault.ctl("service", &["tokenize", "--class", "ssn"]).stdin(value).ok();
    ran.line().to_owned()
}

#[test]
fn the_database_of_another_vault_or_environment_is_refused() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let config = home.config("own", &section(&database, database.name()));
    home.serve(&config).stop();
    let text = std::fs::read_to_string(&config).unwrap();
    let (other, dir) = (Home::make(), home.site.dir());
    let id = |text: &str| text.lines().find(|line| line.starts_with("id = ")).unwrap().to_owned();
    let others = std::fs::read_to_string(other.site.dir().join("vault.toml")).unwrap();
    for (name, changed) in [
        ("another-vault", text.replace(&id(&text), &id(&others))),
        ("another-environment", text.replace("environment = \"dev\"", "environment = \"qa\"")),
    ] {
        assert_ne!(text, changed);
        let config = dir.join(format!("{name}.toml"));
        std::fs::write(&config, changed).unwrap();
        Home::refuses(&config, &["another vault"]);
    }
    // Nothing was lost by it.
    assert_eq!(home.serve(&config).stop(), Some(0));
}

#[test]
fn a_schema_for_newer_software_is_refused_and_one_that_is_merely_newer_is_not() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let config = home.config("vault", &section(&database, database.name()));
    home.serve(&config).stop();
    database.sql("INSERT INTO vault_schema (number, oldest) VALUES (98, 1)");
    let vault = home.serve(&config);
    let token = tokenize(&vault, "999-31-4101");
    vault.stop();
    database.sql("INSERT INTO vault_schema (number, oldest) VALUES (99, 99)");
    Home::refuses(&config, &["newer software", "99"]);
    database.sql("DELETE FROM vault_schema WHERE number = 99");
    let vault = home.serve(&config);
    let opened = vault.ctl("service", &["detokenize", &token, "--purpose", "TREAT"]).ok();
    assert_eq!(opened.line(), "999-31-4101");
}

#[test]
fn a_database_that_takes_no_writes_or_may_lose_them_is_refused() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let name = database.name().to_owned();
    let config = home.config("vault", &section(&database, &name));
    for (setting, values, words) in [
        ("default_transaction_read_only", &["on"][..], "takes no writes"),
        ("synchronous_commit", &["off", "local", "remote_write"], "synchronous_commit"),
    ] {
        for value in values {
            database.administer(&format!("ALTER DATABASE {name} SET {setting} = {value}"));
            Home::refuses(&config, &[words]);
        }
        database.administer(&format!("ALTER DATABASE {name} RESET {setting}"));
    }
    assert!(!database.is_begun(), "something was written first");
    assert_eq!(home.serve(&config).stop(), Some(0));
    Home::refuses(
        &home.config("nowhere", &section(&database, "no_such_database")),
        &["does not exist", "3D000"],
    );
}

#[test]
fn a_server_that_does_not_sync_is_refused() {
    for setting in ["fsync", "full_page_writes"] {
        let Some(cluster) = Cluster::start(&Options::default().set(setting, "off")) else { return };
        let home = Home::make();
        let section = plain(cluster.port(), "postgres", vault_tests::postgres::USER);
        Home::refuses(&home.config("vault", &section), &[&format!("{setting} is off")]);
    }
}

#[test]
fn a_role_that_may_make_no_tables_is_enough_once_they_are_there() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let (port, _) = database.address();
    let role = format!("role_{}", database.name());
    database.sql(&format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN"));
    let narrow = home.config("narrow", &plain(port, database.name(), &role));
    Home::refuses(&narrow, &["permission denied", "42501"]);
    home.serve(&home.config("wide", &section(&database, database.name()))).stop();
    // Not even a look at the tables: the reason is the database's.
    Home::refuses(&narrow, &["permission denied", "42501"]);
    database.sql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"));
    let vault = home.serve(&narrow);
    let token = tokenize(&vault, "999-31-4101");
    let opened = vault.ctl("service", &["detokenize", &token, "--purpose", "TREAT"]).ok();
    assert_eq!(opened.line(), "999-31-4101");
    assert_eq!(vault.stop(), Some(0));
}

#[test]
fn a_table_that_somebody_holds_locked_does_not_hold_the_start_for_ever() {
    let Some(database) = Database::create() else { return };
    let home = Home::make();
    let config = home.config("vault", &section(&database, database.name()));
    home.serve(&config).stop();
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            // Ended by the administrator below.
            let held =
                database.try_sql("BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(120)");
            assert!(held.is_err(), "the lock was held too shortly");
        });
        let is_held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                       AND relation = 'logs'::regclass";
        while database.sql(is_held) != [[Some("1".to_owned())]] {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let ended = super::Ended::of(&config, super::BOUND * 2);
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LOCK TABLE logs%' \
             AND pid <> pg_backend_pid() AND datname = current_database()",
        );
        holder.join().unwrap();
        ended.is_clear();
        assert!(ended.says.contains("in time"), "{}", ended.says);
    });
    assert_eq!(home.serve(&config).stop(), Some(0));
}
