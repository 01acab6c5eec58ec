//! The tables, and how they come to be.
//!
//! A migration is applied once, in the order of their numbers, by whichever instance starts first with software that
//! knows it. Each says the oldest schema whose software may go on working beside it: an instance refuses a database
//! that asks for newer software than itself, and works on one that is merely newer. Statements can be repeated, since
//! not every engine of the family undoes a table with its transaction.
//!
//! Tables are not partitioned by tenant: a record is looked up by its token, which names no tenant, and would have to
//! be looked for in every partition. Rows are typed columns; each has the checksum of the row that the embedded
//! engines would keep ([`crate::store::row`]), which finds what a disk or a stray hand changed. A job is that row itself
//! (its place is the row's key, so that places sort as they do there, whatever the database's collation): nothing in it
//! is looked for. So is an entity.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::connect::Connection;
use super::error::Failure;
use crate::store::StoreError;

/// One step of the schema.
struct Migration {
    number: i32,
    /// The schema that the software of must know to work on a database with this step.
    oldest: i32,
    statements: &'static [&'static str],
}

/// All steps. One that was released is never changed.
const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        oldest: 1,
        statements: &[
            "CREATE TABLE IF NOT EXISTS vault_identity (
             one int2 PRIMARY KEY CHECK (one = 1),
             vault bytea NOT NULL,
             environment text NOT NULL)",
            "CREATE TABLE IF NOT EXISTS records (
             token bytea PRIMARY KEY,
             tenant text NOT NULL,
             class text NOT NULL,
             subject bytea,
             blind_index bytea,
             created int8 NOT NULL,
             key_id bytea,
             key_version int8,
             sealed bytea,
             erased int8,
             revision int8 NOT NULL,
             checksum bytea NOT NULL)",
            "CREATE INDEX IF NOT EXISTS records_by_subject ON records (tenant, subject, token)
             WHERE subject IS NOT NULL AND key_id IS NOT NULL",
            "CREATE INDEX IF NOT EXISTS records_by_index ON records (tenant, class, blind_index, token)
             WHERE blind_index IS NOT NULL",
            "CREATE INDEX IF NOT EXISTS records_by_key ON records (key_id, token) WHERE key_id IS NOT NULL",
            "CREATE TABLE IF NOT EXISTS keys (
             id bytea PRIMARY KEY,
             tenant text NOT NULL,
             purpose int2 NOT NULL,
             version int8 NOT NULL,
             state int2 NOT NULL,
             created int8 NOT NULL,
             wrapping_keys text[] NOT NULL,
             wraps bytea[] NOT NULL,
             revision int8 NOT NULL,
             checksum bytea NOT NULL,
             UNIQUE (tenant, purpose, version))",
            "CREATE TABLE IF NOT EXISTS remembered (
             key bytea PRIMARY KEY,
             request bytea NOT NULL,
             tokens bytea NOT NULL,
             at int8 NOT NULL,
             expires int8 NOT NULL,
             checksum bytea NOT NULL)",
            "CREATE INDEX IF NOT EXISTS remembered_by_expiry ON remembered (expires)",
            "CREATE TABLE IF NOT EXISTS leases (
             name text PRIMARY KEY,
             holder bytea NOT NULL,
             fence int8 NOT NULL,
             expires int8 NOT NULL,
             revision int8 NOT NULL,
             checksum bytea NOT NULL)",
            "CREATE TABLE IF NOT EXISTS logs (
             log int4 PRIMARY KEY,
             size int8 NOT NULL,
             commits int8 NOT NULL,
             records int8 NOT NULL,
             fence int8 NOT NULL,
             holder bytea NOT NULL,
             instance text NOT NULL,
             expires timestamptz NOT NULL)",
            "CREATE TABLE IF NOT EXISTS log_entries (
             log int4 NOT NULL,
             sequence int8 NOT NULL,
             entry bytea NOT NULL,
             checksum bytea NOT NULL,
             PRIMARY KEY (log, sequence))",
            "CREATE TABLE IF NOT EXISTS log_heads (
             log int4 PRIMARY KEY,
             upto int8 NOT NULL,
             checkpoint_size int8,
             checkpoint text)",
            "CREATE TABLE IF NOT EXISTS log_tiles (
             log int4 NOT NULL,
             level int2 NOT NULL,
             place int8 NOT NULL,
             tile bytea NOT NULL,
             PRIMARY KEY (log, level, place))",
            "CREATE TABLE IF NOT EXISTS log_index (
             log int4 NOT NULL,
             key bytea NOT NULL,
             sequence int8 NOT NULL,
             PRIMARY KEY (log, key, sequence))",
        ],
    },
    // Software of before would write under keys whose place others took: it does not look whether one is active.
    Migration {
        number: 2,
        oldest: 2,
        statements: &["CREATE TABLE IF NOT EXISTS jobs (
             place bytea PRIMARY KEY,
             revision int8 NOT NULL,
             job bytea NOT NULL,
             checksum bytea NOT NULL)"],
    },
    // Software of before knows nobody by what is kept there, and so lets nobody in by it.
    Migration {
        number: 3,
        oldest: 2,
        statements: &["CREATE TABLE IF NOT EXISTS entities (
             place bytea PRIMARY KEY,
             revision int8 NOT NULL,
             content bytea NOT NULL,
             checksum bytea NOT NULL)"],
    },
    // Software of before does not keep off a key whose change waits: beside it a change waits longer, or is refused.
    Migration {
        number: 4,
        oldest: 2,
        statements: &["CREATE TABLE IF NOT EXISTS awaited_keys (
             id bytea PRIMARY KEY,
             until timestamptz NOT NULL)"],
    },
    // Software of before would go on to sign with a key whose place another took.
    Migration {
        number: 5,
        oldest: 5,
        statements: &["ALTER TABLE keys ADD COLUMN IF NOT EXISTS statements text NOT NULL DEFAULT ''"],
    },
    // Software of before would write entities without a seal, and takes those with one for corrupt.
    Migration { number: 6, oldest: 6, statements: &[] },
    // What software of before writes has no seal: should it crash, what it left is signed by software of before, or on demand.
    Migration {
        number: 7,
        oldest: 6,
        statements: &[
            "ALTER TABLE log_entries ADD COLUMN IF NOT EXISTS seal bytea",
            "CREATE TABLE IF NOT EXISTS looks (
             log int4 PRIMARY KEY,
             number int8 NOT NULL)",
        ],
    },
];

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS vault_schema (
    number int4 PRIMARY KEY,
    oldest int4 NOT NULL)";

/// Two that start at once may both make a table: how often one of them looks again.
const ATTEMPTS: usize = 10;

/// How long a change of a table waits for those who use it, at each attempt. Others wait with it.
const LOCK: &str = "500ms";

/// Brings the database to this software's schema, or refuses it.
pub(super) async fn prepare(connection: &Connection) -> Result<(), StoreError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let failure = match migrate(connection).await {
            Ok(done) => return done,
            Err(failure) => failure,
        };
        // A table that somebody else made a moment ago is told as a duplicate, or as one that exists.
        let again = matches!(failure, Failure::Again(_) | Failure::Duplicate)
            || matches!(&failure, Failure::Refused(why) if why.contains("42P07"));
        if !again || attempt == ATTEMPTS {
            return Err(failure.into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50 * attempt as u64)).await;
    }
}

/// Whether it is a vault's already.
pub(super) async fn is_there(connection: &Connection) -> Result<bool, Failure> {
    let there =
        connection.client().query_typed("SELECT to_regclass('vault_identity') IS NOT NULL", &[]).await?;
    Ok(there.first().and_then(|row| row.try_get(0).ok()) == Some(true))
}

/// Whether software that knows the schema `known` may work on a database that has the step `number`.
fn may_work_beside(known: i32, number: i32, oldest: i32) -> Result<(), StoreError> {
    if oldest <= known {
        return Ok(());
    }
    let why = format!("its schema {number} is for newer software: this one knows {known}");
    Err(StoreError::Foreign { why })
}

/// Makes one statement's change, or gives up soon if it must wait for a lock: behind one that waits to change a table waits
/// everybody who only reads it.
async fn step(client: &Client, statement: &str) -> Result<(), Failure> {
    let done =
        client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '{LOCK}'; {statement}; COMMIT")).await;
    if done.is_err() {
        // What was wrong is told by the statement itself.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    Ok(done?)
}

/// The outer error is the database's, the inner one says that this software must not work on it.
async fn migrate(connection: &Connection) -> Result<Result<(), StoreError>, Failure> {
    let client = connection.client();
    let known = MIGRATIONS.last().map_or(0, |migration| migration.number);
    let there = client.query_typed("SELECT to_regclass('vault_schema') IS NOT NULL", &[]).await?;
    if there.first().and_then(|row| row.try_get(0).ok()) != Some(true) {
        client.batch_execute(VERSIONS).await?;
    }
    let rows = client.query_typed("SELECT number, oldest FROM vault_schema ORDER BY number", &[]).await?;
    let mut applied = Vec::new();
    for row in &rows {
        let (number, oldest): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
        if let Err(refused) = may_work_beside(known, number, oldest) {
            return Ok(Err(refused));
        }
        applied.push(number);
    }
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.number)) {
        for statement in migration.statements {
            step(client, statement).await?;
        }
        client
            .execute_typed(
                "INSERT INTO vault_schema (number, oldest) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING",
                &[(&migration.number, Type::INT4), (&migration.oldest, Type::INT4)],
            )
            .await?;
        tracing::info!(number = migration.number, "the database's schema was brought forward");
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_a_gap_and_none_asks_for_less_than_one_before() {
        let numbers: Vec<_> = MIGRATIONS.iter().map(|step| step.number).collect();
        assert_eq!(numbers, (1..).take(numbers.len()).collect::<Vec<_>>());
        assert!(MIGRATIONS.is_sorted_by_key(|step| step.oldest));
        assert!(MIGRATIONS.iter().all(|step| step.oldest <= step.number));
    }

    #[test]
    fn software_that_would_write_what_newer_one_must_not_read_is_refused() {
        let refused =
            |known| MIGRATIONS.iter().any(|step| may_work_beside(known, step.number, step.oldest).is_err());
        assert!((1..=5).all(refused));
        assert!(!refused(6) && !refused(7));
    }
}
