//! The administrator of a vault's database can change, swap, move and remove rows, with or without their checksums, which
//! have no key. No value of such a record is shown, and no such log is signed, exported or verified.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::block_in_place;
use tonic::Code;
use vault_proto::v1::{self, audit_item::Outcome};
use vault_server::domain::{Environment, Token};
use vault_tests::database::Database;
use vault_tests::process::DevVault;
use vault_tests::wire::{Wire, item, token};

use crate::bad_database::Ended;

/// A vault in a database, whichever store the other tests have.
fn vault(dir: &TempDir) -> Option<(Database, DevVault)> {
    block_in_place(|| {
        let database = Database::create()?;
        let vault = DevVault::start_with(&dir.path().join("vault"), &["--postgres", &database.url()], &[]);
        Some((database, vault))
    })
}

/// Tokens of values, each about a person of its own.
async fn people(wire: &mut Wire, count: usize) -> Vec<String> {
    let items = (0..count).map(|n| v1::TokenizeItem {
        subject: Some(v1::SubjectId { id: format!("person-{n}") }),
        ..item("ssn", &ssn(n))
    });
    let request = v1::TokenizeRequest { items: items.collect(), ..v1::TokenizeRequest::default() };
    let answer = wire.vault.tokenize(request).await.unwrap().into_inner();
    answer.results.iter().map(|result| token(result).unwrap()).collect()
}

fn ssn(n: usize) -> String {
    format!("999-31-{:04}", 4100 + n)
}

/// A token as the database's column has it.
fn column(token: &str) -> String {
    let token = Token::parse(token, &Environment::parse("dev").unwrap()).unwrap();
    format!("'\\x{}'::bytea", hex::encode(token.as_bytes()))
}

/// What an administrator may do to a row `$R`, given another one `$O`.
const ALTERATIONS: &[&str] = &[
    "UPDATE records SET tenant = 'other' WHERE token = $R",
    "UPDATE records SET class = 'name' WHERE token = $R",
    "UPDATE records SET class = 'no such class!' WHERE token = $R",
    "UPDATE records SET subject = NULL WHERE token = $R",
    "UPDATE records SET subject = o.subject FROM records o WHERE records.token = $R AND o.token = $O",
    "UPDATE records SET blind_index = NULL WHERE token = $R",
    "UPDATE records SET blind_index = o.blind_index FROM records o WHERE records.token = $R AND o.token = $O",
    "UPDATE records SET created = created + 1 WHERE token = $R",
    "UPDATE records SET created = -1 WHERE token = $R",
    "UPDATE records SET revision = revision + 1 WHERE token = $R",
    "UPDATE records SET key_version = key_version + 1 WHERE token = $R",
    "UPDATE records SET key_version = 9223372036854775807 WHERE token = $R",
    "UPDATE records SET key_id = NULL WHERE token = $R",
    "UPDATE records SET key_id = '\\x00' WHERE token = $R",
    "UPDATE records SET key_id = sha256('other')::bytea WHERE token = $R",
    "UPDATE records SET key_id = substring(sha256('other') for 16) WHERE token = $R",
    "UPDATE records SET sealed = set_byte(sealed, 0, get_byte(sealed, 0) # 1) WHERE token = $R",
    "UPDATE records SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 128) WHERE token = $R",
    "UPDATE records SET sealed = substring(sealed for length(sealed) - 1) WHERE token = $R",
    "UPDATE records SET sealed = sealed || '\\x00' WHERE token = $R",
    "UPDATE records SET sealed = '' WHERE token = $R",
    "UPDATE records SET sealed = NULL WHERE token = $R",
    "UPDATE records SET sealed = o.sealed FROM records o WHERE records.token = $R AND o.token = $O",
    "UPDATE records SET sealed = o.sealed, checksum = o.checksum FROM records o \
     WHERE records.token = $R AND o.token = $O",
    "UPDATE records SET (tenant, class, subject, blind_index, created, key_id, key_version, sealed, revision, \
     checksum) = (SELECT tenant, class, subject, blind_index, created, key_id, key_version, sealed, revision, \
     checksum FROM records WHERE token = $O) WHERE token = $R",
    "UPDATE records SET checksum = '' WHERE token = $R",
    "UPDATE records SET checksum = sha256(sealed) WHERE token = $R",
    "UPDATE records SET erased = -1 WHERE token = $R",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_administrator_altered_never_opens() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    let mut service = Wire::connect(&vault, "service").await;
    // The last but one is given parts of, the last one is removed.
    let tokens = people(&mut service, ALTERATIONS.len() + 2).await;
    let (other, removed) = (&tokens[ALTERATIONS.len()], &tokens[ALTERATIONS.len() + 1]);
    block_in_place(|| {
        for (alteration, token) in ALTERATIONS.iter().zip(&tokens) {
            let text = alteration.replace("$R", &column(token)).replace("$O", &column(other));
            let rows =
                database.sql(&format!("WITH altered AS ({text} RETURNING 1) SELECT count(*) FROM altered"));
            assert_eq!(rows, [[Some("1".to_owned())]], "{alteration}");
        }
        database.sql(&format!("DELETE FROM records WHERE token = {}", column(removed)));
    });
    let values = service.values("", &tokens).await;
    let is = |result: &Result<String, v1::ItemError>, code: Code| {
        result.as_ref().is_err_and(|error| error.code == code as i32)
    };
    for (alteration, value) in ALTERATIONS.iter().zip(&values) {
        assert!(is(value, Code::DataLoss), "{alteration}: {value:?}");
    }
    assert_eq!(values[ALTERATIONS.len()].as_ref(), Ok(&ssn(ALTERATIONS.len())), "the rest opens");
    assert!(is(&values[ALTERATIONS.len() + 1], Code::NotFound), "{:?}", values.last());
    let entries = Wire::connect(&vault, "auditor").await.entries("detokenize").await;
    let items = entries.iter().flat_map(|entry| &entry.items);
    let named: Vec<_> = items.filter(|item| item.outcome() == Outcome::Corrupt).collect();
    assert_eq!(named.len(), ALTERATIONS.len(), "only those are, once each");
    for (alteration, token) in ALTERATIONS.iter().zip(&tokens) {
        let token = Token::parse(token, &Environment::parse("dev").unwrap()).unwrap();
        let is_named = named.iter().any(|item| item.token == token.as_bytes().as_slice());
        assert!(is_named, "it is not on record: {alteration}");
    }
    assert!(!vault.log().contains("panicked"), "{}", vault.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_of_two_tenants_keys_opens_nothing() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    let tokens = people(&mut Wire::connect(&vault, "service").await, 1).await;
    vault.stop();
    // The data key has the wrapped bytes of the index key.
    let swap = "UPDATE keys SET wraps = o.wraps FROM keys o WHERE keys.purpose = 1 AND o.purpose = 2";
    block_in_place(|| database.sql(swap));
    let vault = block_in_place(|| DevVault::start(&dir.path().join("vault")));
    let mut service = Wire::connect(&vault, "service").await;
    let request = vault_tests::wire::detokenize("", &tokens);
    let Ok(answer) = service.vault.detokenize(request).await else { return };
    let value = vault_tests::wire::value(answer.into_inner().results.remove(0));
    assert!(value.is_err(), "a value under another key");
}

/// With the right checksum, which anybody can compute: `space(1) | 4:key | content`, where the key of an entry is the
/// number of its log and its own.
const CHECKSUMS: &str = "UPDATE log_entries SET checksum = substring(sha256('\\x09'::bytea || int4send(12) || \
                         int4send(log) || int8send(sequence) || entry) for 8);";

/// What an administrator may do to the log, and what the next start says.
const LOG_ALTERATIONS: &[(&str, &str)] = &[
    (
        "UPDATE log_entries SET entry = set_byte(entry, 20, get_byte(entry, 20) # 1) WHERE sequence = 3",
        "corrupt",
    ),
    (
        "UPDATE log_entries SET entry = set_byte(entry, 20, get_byte(entry, 20) # 1) WHERE sequence = 3; $C",
        "are not those that were signed",
    ),
    (
        "UPDATE log_entries SET entry = substring(entry for 30) WHERE sequence = 3; $C",
        "not those that were signed",
    ),
    ("DELETE FROM log_entries WHERE sequence = 3", "corrupt"),
    ("DELETE FROM log_entries WHERE sequence = (SELECT max(sequence) FROM log_entries)", "corrupt"),
    (
        "DELETE FROM log_entries WHERE sequence = (SELECT max(sequence) FROM log_entries); \
         UPDATE logs SET size = size - 1",
        "is missing",
    ),
    ("UPDATE logs SET size = size - 1", "is missing"),
    ("TRUNCATE log_entries; UPDATE logs SET size = 0, commits = 0", "is missing"),
    (
        "DELETE FROM log_entries WHERE sequence = 3; \
         UPDATE log_entries SET sequence = -sequence WHERE sequence > 3; \
         UPDATE log_entries SET sequence = -sequence - 1 WHERE sequence < 0; UPDATE logs SET size = size - 1; $C",
        "is missing",
    ),
    (
        "UPDATE log_entries SET sequence = -1 WHERE sequence = 3; \
         UPDATE log_entries SET sequence = 3 WHERE sequence = 4; \
         UPDATE log_entries SET sequence = 4 WHERE sequence = -1; $C",
        "are not those that were signed",
    ),
    (
        "UPDATE log_entries SET entry = o.entry FROM log_entries o WHERE log_entries.sequence = 3 AND o.sequence = 4; \
         $C",
        "are not those that were signed",
    ),
    ("UPDATE log_heads SET checkpoint = replace(checkpoint, 'phi-vault', 'phi-vau1t')", "checkpoint"),
    ("UPDATE log_heads SET checkpoint = ''", "checkpoint"),
    ("UPDATE log_heads SET upto = upto - 1", "the index covers"),
    ("UPDATE log_heads SET checkpoint = NULL, checkpoint_size = NULL", "the index covers"),
    // Behind the newest checkpoint: an entry of his own, one of the vault's again, and one of the vault's in another place.
    (
        "INSERT INTO log_entries (log, sequence, entry, checksum) SELECT log, size, 'x', 'x' FROM logs WHERE log = 0; \
         UPDATE logs SET size = size + 1, commits = commits + 1 WHERE log = 0; $C",
        "it has no seal of the vault",
    ),
    (
        "INSERT INTO log_entries SELECT e.log, l.size, e.entry, e.checksum, e.seal FROM log_entries e \
         JOIN logs l ON l.log = e.log WHERE e.log = 0 AND e.sequence = 3; \
         UPDATE logs SET size = size + 1, commits = commits + 1 WHERE log = 0; $C",
        "its seal is not the vault's",
    ),
    // All of it as if nothing had been signed yet.
    (
        "DELETE FROM log_heads; DELETE FROM log_tiles; DELETE FROM log_index; \
         UPDATE log_entries SET entry = set_byte(entry, 20, get_byte(entry, 20) # 1) WHERE sequence = 3; $C",
        "its seal is not the vault's",
    ),
];

const SAVE: &str = "CREATE SCHEMA saved; CREATE TABLE saved.entries AS SELECT * FROM log_entries; \
                    CREATE TABLE saved.heads AS SELECT * FROM log_heads; CREATE TABLE saved.logs AS SELECT * FROM logs";
/// The fence of a log only ever grows.
const RESTORE: &str = "TRUNCATE log_entries, log_heads; INSERT INTO log_entries SELECT * FROM saved.entries; \
                       INSERT INTO log_heads SELECT * FROM saved.heads; \
                       UPDATE logs SET size = s.size, commits = s.commits, expires = 'epoch' \
                       FROM saved.logs s WHERE s.log = logs.log; \
                       DELETE FROM logs WHERE log NOT IN (SELECT log FROM saved.logs)";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_an_administrator_altered_is_neither_followed_nor_exported() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    let mut service = Wire::connect(&vault, "service").await;
    let tokens = people(&mut service, 3).await;
    for _ in 0..5 {
        service.values("", &tokens).await;
    }
    block_in_place(|| {
        let old = export(&vault, dir.path(), "old").unwrap();
        assert_eq!(vault.stop(), Some(0));
        let config = dir.path().join("vault/vault.toml");
        database.sql(SAVE);
        for (alteration, why) in LOG_ALTERATIONS {
            database.sql(&alteration.replace("$C", CHECKSUMS));
            let ended = Ended::of(&config, Duration::from_secs(30));
            assert_eq!(ended.code, Some(1), "{alteration}\n{}", ended.says);
            assert!(ended.says.contains(why), "{alteration}: no {why:?} in\n{}", ended.says);
            assert!(!ended.says.contains("panicked"), "{}", ended.says);
            if why.contains("seal") && !alteration.contains("log_heads") {
                // The way out that is documented: the log ends where it was signed last, and the vault goes on with another.
                database.sql(
                    "UPDATE logs SET size = h.checkpoint_size, instance = '/retired', holder = '', \
                     fence = fence + 1, expires = 'epoch' FROM log_heads h WHERE h.log = logs.log AND logs.log = 0",
                );
                let vault = DevVault::start(&dir.path().join("vault"));
                assert!(vault.log().contains("this instance writes a log log=1"), "{}", vault.log());
                export(&vault, dir.path(), "ended").unwrap();
                std::fs::remove_dir_all(dir.path().join("ended")).unwrap();
                assert_eq!(vault.stop(), Some(0));
                database.sql(
                    "UPDATE logs SET instance = '' WHERE log = 0; DELETE FROM logs WHERE log = 1; \
                              DELETE FROM log_entries WHERE log = 1; DELETE FROM log_heads WHERE log = 1; \
                              DELETE FROM log_index WHERE log = 1",
                );
            }
            database.sql(RESTORE);
        }
        // As it was, it is good; and while the vault runs, nothing that was altered is exported.
        let vault = DevVault::start(&dir.path().join("vault"));
        export(&vault, dir.path(), "new").unwrap();
        let verify = |name: &str, old: &str| {
            let (log, key) = paths(dir.path(), name);
            vault
                .ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key, "--old-checkpoint", old])
                .run()
        };
        assert_eq!(verify("new", &old).code, Some(0));
        for alteration in [
            "UPDATE log_entries SET entry = set_byte(entry, 20, get_byte(entry, 20) # 1) WHERE sequence = 3",
            "DELETE FROM log_entries WHERE sequence = 3",
        ] {
            for checksums in ["", CHECKSUMS] {
                database.sql("CREATE TABLE undo AS SELECT * FROM log_entries WHERE sequence = 3");
                database.sql(&format!("{alteration}; {checksums}"));
                let says = export(&vault, dir.path(), "altered").expect_err(alteration);
                assert!(!says.contains("panicked"), "{says}");
                let (log, _) = paths(dir.path(), "altered");
                let _ = std::fs::remove_dir_all(log);
                database.sql(
                    "DELETE FROM log_entries WHERE sequence = 3; INSERT INTO log_entries SELECT * FROM undo; \
                     DROP TABLE undo",
                );
            }
        }
        export(&vault, dir.path(), "after").unwrap();
        assert_eq!(verify("after", &old).code, Some(0));
        assert_eq!(vault.stop(), Some(0));
    });
}

/// Checkpoints that are stored: the log's number, and how many entries it covers.
fn signed(database: &Database) -> Vec<[Option<String>; 2]> {
    let rows = database.sql("SELECT log, checkpoint_size FROM log_heads ORDER BY log");
    rows.into_iter().map(|row| row.try_into().unwrap()).collect()
}

fn says_in_time(vault: &DevVault, what: &str) {
    let until = std::time::Instant::now() + Duration::from_mins(1);
    while !vault.log().contains(what) {
        assert!(std::time::Instant::now() < until, "no {what:?} in\n{}", vault.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_an_administrator_invented_is_not_signed() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    people(&mut Wire::connect(&vault, "service").await, 3).await;
    block_in_place(|| {
        // As if an instance had written it and crashed. Its entries are the vault's own, of another log.
        database.sql(&format!(
            "INSERT INTO log_entries SELECT 7, sequence, entry, checksum, seal FROM log_entries WHERE log = 0; \
             INSERT INTO logs SELECT 7, size, commits, records, 1, holder, 'crashed', 'epoch' FROM logs \
             WHERE log = 0; UPDATE logs SET size = (SELECT count(*) FROM log_entries WHERE log = 7) WHERE log = 7; \
             {CHECKSUMS}"
        ));
        says_in_time(&vault, "the log of a crashed instance could not be brought to its end");
        assert!(vault.log().contains("its seal is not the vault's"), "{}", vault.log());
        let logs: Vec<_> = signed(&database).into_iter().map(|[log, _]| log.unwrap()).collect();
        assert_eq!(logs, ["0"], "another log was signed");
        assert_eq!(vault.stop(), Some(0));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vault_does_not_sign_what_was_altered_behind_a_checkpoint_that_was_put_back() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    let mut service = Wire::connect(&vault, "service").await;
    let tokens = people(&mut service, 3).await;
    block_in_place(|| {
        export(&vault, dir.path(), "early").unwrap();
        database.sql("CREATE TABLE early AS SELECT * FROM log_heads");
    });
    service.values("", &tokens).await;
    let old = block_in_place(|| export(&vault, dir.path(), "old").unwrap());
    // Set back, and the last entry that was signed says something else, under the seal of another one.
    let early = block_in_place(|| {
        database.sql(&format!(
            "CREATE TABLE genuine AS SELECT * FROM log_entries; DELETE FROM log_heads; \
             INSERT INTO log_heads SELECT * FROM early; \
             UPDATE log_entries SET (entry, seal) = (SELECT entry, seal FROM log_entries WHERE sequence = 3) \
             WHERE sequence = (SELECT checkpoint_size FROM early); {CHECKSUMS}"
        ));
        signed(&database)
    });
    service.values("", &tokens).await;
    block_in_place(|| {
        says_in_time(&vault, "are not those that were signed");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(signed(&database), early, "it was signed");
        // With the entry as it was, it goes on, and there is one history.
        database.sql(
            "UPDATE log_entries SET entry = g.entry, seal = g.seal, checksum = g.checksum FROM genuine g \
             WHERE g.log = log_entries.log AND g.sequence = log_entries.sequence",
        );
        let (log, key) = paths(dir.path(), "new");
        let until = std::time::Instant::now() + Duration::from_mins(1);
        while export(&vault, dir.path(), "new").is_err() {
            assert!(std::time::Instant::now() < until, "{}", vault.log());
            let _ = std::fs::remove_dir_all(&log);
        }
        vault
            .ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key, "--old-checkpoint", &old])
            .ok();
        assert_eq!(vault.stop(), Some(0));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_to_an_earlier_state_is_found_by_an_older_checkpoint() {
    let dir = TempDir::new().unwrap();
    let Some((database, vault)) = vault(&dir) else { return };
    let home = dir.path().join("vault");
    let tokens = people(&mut Wire::connect(&vault, "service").await, 1).await;
    assert_eq!(vault.stop(), Some(0));
    block_in_place(|| database.sql(SAVE));
    let vault = block_in_place(|| DevVault::start(&home));
    Wire::connect(&vault, "service").await.values("", &tokens).await;
    let old = block_in_place(|| export(&vault, dir.path(), "old").unwrap());
    assert_eq!(vault.stop(), Some(0));
    // Its checkpoint was signed by the vault itself: that alone does not show it.
    block_in_place(|| {
        database.sql(RESTORE);
        let vault = DevVault::start(&home);
        export(&vault, dir.path(), "new").unwrap();
        let (log, key) = paths(dir.path(), "new");
        let arguments = ["audit", "verify", "--dir", &log, "--key", &key];
        vault.ctl("auditor", &arguments).ok();
        let ran = vault.ctl("auditor", &[&arguments[..], &["--old-checkpoint", &old]].concat()).ends(1);
        assert!(ran.stderr.contains("not verified"), "{}", ran.stderr);
    });
}

fn paths(dir: &Path, name: &str) -> (String, String) {
    (dir.join(name).display().to_string(), dir.join(format!("{name}.vkey")).display().to_string())
}

/// Exports the log and verifies it; gives the path of its checkpoint, or what was said.
fn export(vault: &DevVault, dir: &Path, name: &str) -> Result<String, String> {
    let (log, key) = paths(dir, name);
    let done = vault.ctl("auditor", &["audit", "export", "--dir", &log, "--key-out", &key]).run();
    if done.code != Some(0) {
        return Err(done.stderr);
    }
    let done = vault.ctl("auditor", &["audit", "verify", "--dir", &log, "--key", &key]).run();
    if done.code == Some(0) { Ok(format!("{log}/checkpoint")) } else { Err(done.stderr) }
}
