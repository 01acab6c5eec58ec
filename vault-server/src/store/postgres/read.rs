//! Statements that read, and those that may be repeated without harm.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connect::Connection;
use super::log::{Grip, int4};
use super::reader::Table;
use super::rows;
use super::statement::{DURABLY, Statement, int8};
use crate::domain::{
    BlindIndex, ClassName, EntityPlace, EntityScope, JobPlace, KeyId, KeyVersion, LeaseName, Record,
    SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::keys::{self, Space};
use crate::store::row;
use crate::store::{Cursor, Derived, DerivedState, LogId, Lookup, Remembered, StoreError, TileId, corrupt};

/// A count of rows as a parameter.
fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn identity_statement() -> Statement<'static> {
    Statement::new("SELECT vault, environment FROM vault_identity")
}

pub(super) fn identity_of(rows: &[Row]) -> Result<Option<VaultIdentity>, StoreError> {
    let Some(row) = rows.first() else { return Ok(None) };
    rows::identity(row).map(Some).ok_or_else(|| corrupt(Space::Meta, b"identity"))
}

pub(super) async fn identity(connection: &Connection) -> Result<Option<VaultIdentity>, StoreError> {
    identity_of(&identity_statement().run(connection.client()).await?)
}

pub(super) fn found_statement(identity: &VaultIdentity) -> Statement<'_> {
    let mut statement = Statement::new(
        "INSERT INTO vault_identity (one, vault, environment) VALUES (1, $1, $2) ON CONFLICT (one) DO NOTHING",
    );
    statement.bind(identity.vault.as_bytes().as_slice(), Type::BYTEA);
    statement.bind(identity.environment.as_str(), Type::TEXT);
    statement
}

fn records_statement(tokens: &[Token]) -> Statement<'_> {
    let mut statement =
        Statement::new(&format!("SELECT {} FROM records WHERE token = ANY($1)", rows::RECORD));
    let tokens: Vec<_> = tokens.iter().map(|token| token.as_bytes().as_slice()).collect();
    statement.bind(tokens, Type::BYTEA_ARRAY);
    statement
}

/// Records by token.
pub(super) struct Records;

impl Table for Records {
    type Key = Token;
    type Found = Lookup;

    fn statement(keys: &[Token]) -> Statement<'_> {
        records_statement(keys)
    }

    fn read(row: &Row) -> Result<(Token, Lookup), StoreError> {
        rows::record(row).ok_or_else(|| corrupt(Space::Records, &[]))
    }
}

/// Remembered answers by key. A row that is not what was written is an error for who asked for it only.
pub(super) struct Answers;

impl Table for Answers {
    type Key = [u8; 32];
    type Found = Result<Remembered, StoreError>;

    fn statement(keys: &[[u8; 32]]) -> Statement<'_> {
        let mut statement =
            Statement::new(&format!("SELECT {} FROM remembered WHERE key = ANY($1)", rows::REMEMBERED));
        statement.bind(keys.iter().map(<[u8; 32]>::as_slice).collect::<Vec<_>>(), Type::BYTEA_ARRAY);
        statement
    }

    fn read(row: &Row) -> Result<([u8; 32], Self::Found), StoreError> {
        let key = row.try_get::<_, &[u8]>("key").ok().and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| corrupt(Space::Remembered, &[]))?;
        Ok((key, rows::remembered(row)))
    }
}

pub(super) fn find_statement<'a>(
    tenant: &'a TenantId,
    class: &'a ClassName,
    index: BlindIndex,
    limit: usize,
) -> Statement<'a> {
    let mut statement = Statement::new(
        "SELECT token FROM records WHERE tenant = $1 AND class = $2 AND blind_index = $3 ORDER BY token LIMIT $4",
    );
    statement.bind(tenant.as_str(), Type::TEXT).bind(class.as_str(), Type::TEXT);
    statement.bind(index.to_bytes().to_vec(), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

/// Nothing is before the empty string of bytes.
fn after(token: Option<Token>) -> Vec<u8> {
    token.map(|token| token.as_bytes().to_vec()).unwrap_or_default()
}

/// The same where the last row may have been malformed.
fn behind(cursor: Option<Cursor>) -> Vec<u8> {
    cursor.map(|cursor| cursor.place).unwrap_or_default()
}

pub(super) fn subject_statement(
    tenant: &TenantId,
    subject: SubjectRef,
    token: Option<Token>,
    limit: usize,
) -> Statement<'_> {
    let mut statement = Statement::new(
        "SELECT token FROM records WHERE tenant = $1 AND subject = $2 AND subject IS NOT NULL \
         AND key_id IS NOT NULL AND token > $3 ORDER BY token LIMIT $4",
    );
    statement.bind(tenant.as_str(), Type::TEXT).bind(subject.to_bytes().to_vec(), Type::BYTEA);
    statement.bind(after(token), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn key_tokens_statement(key: KeyId, after: Option<Cursor>, limit: usize) -> Statement<'static> {
    let mut statement =
        Statement::new("SELECT token FROM records WHERE key_id = $1 AND token > $2 ORDER BY token LIMIT $3");
    statement.bind(key.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(behind(after), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

/// How many records of a key are in the next `limit` of them, and the last of those; no row if there are none. A key of
/// very many is counted in several statements: each has to end within the time for a read.
pub(super) fn key_count_statement(key: KeyId, after: Option<Cursor>, limit: usize) -> Statement<'static> {
    let mut statement = Statement::new(
        "SELECT token, number FROM (SELECT token, row_number() OVER (ORDER BY token) AS number FROM \
         (SELECT token FROM records WHERE key_id = $1 AND token > $2 ORDER BY token LIMIT $3) AS page) AS numbered \
         ORDER BY number DESC LIMIT 1",
    );
    statement.bind(key.as_bytes().to_vec(), Type::BYTEA);
    statement.bind(behind(after), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

/// An index begins with its version.
pub(super) fn indexed_statement<'a>(
    (tenant, class): (&'a TenantId, &'a ClassName),
    version: KeyVersion,
    after: Option<Cursor>,
    limit: usize,
) -> Statement<'a> {
    let first = version.0.to_be_bytes().to_vec();
    // No index has as many bytes.
    let end = keys::past_prefix(&first).unwrap_or_else(|| vec![u8::MAX; BlindIndex::LEN + 1]);
    let after = after.map(|cursor| (cursor.place, cursor.then));
    let (index, token) = after.unwrap_or_default().max((first, Vec::new()));
    let mut statement = Statement::new(
        "SELECT blind_index, token FROM records WHERE tenant = $1 AND class = $2 AND blind_index IS NOT NULL \
         AND (blind_index, token) > ($3, $4) AND blind_index < $5 ORDER BY blind_index, token LIMIT $6",
    );
    statement.bind(tenant.as_str(), Type::TEXT).bind(class.as_str(), Type::TEXT);
    statement.bind(index, Type::BYTEA).bind(token, Type::BYTEA).bind(end, Type::BYTEA);
    statement.bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn key_statement(id: KeyId) -> Statement<'static> {
    let mut statement = Statement::new(&format!("SELECT {} FROM keys WHERE id = $1", rows::KEY));
    statement.bind(id.as_bytes().to_vec(), Type::BYTEA);
    statement
}

pub(super) fn forget_statement(now: Timestamp, limit: usize) -> Statement<'static> {
    let mut statement = Statement::new(
        "DELETE FROM remembered WHERE expires < $1 AND key IN \
         (SELECT key FROM remembered WHERE expires < $1 ORDER BY expires LIMIT $2) RETURNING key",
    );
    statement.bind(int8(now.0), Type::INT8).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn lease_statement(name: &LeaseName) -> Statement<'_> {
    let mut statement = Statement::new(&format!("SELECT {} FROM leases WHERE name = $1", rows::LEASE));
    statement.bind(name.as_str(), Type::TEXT);
    statement
}

pub(super) fn job_statement(place: &JobPlace) -> Statement<'static> {
    let mut statement = Statement::new(&format!("SELECT {} FROM jobs WHERE place = $1", rows::JOB));
    statement.bind(keys::job(place), Type::BYTEA);
    statement
}

pub(super) fn jobs_statement(after: Option<Cursor>, limit: usize) -> Statement<'static> {
    let mut statement =
        Statement::new(&format!("SELECT {} FROM jobs WHERE place > $1 ORDER BY place LIMIT $2", rows::JOB));
    statement.bind(behind(after), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn entity_statement(place: &EntityPlace) -> Statement<'static> {
    let mut statement = Statement::new(&format!("SELECT {} FROM entities WHERE place = $1", rows::ENTITY));
    statement.bind(keys::entity(place), Type::BYTEA);
    statement
}

/// All places of a scope are longer than what they begin with.
pub(super) fn entities_statement(of: &EntityScope, after: Option<&[u8]>, limit: usize) -> Statement<'static> {
    let first = keys::entities(of);
    // No place begins with more: a kind's number is small.
    let end = keys::past_prefix(&first).unwrap_or_else(|| vec![u8::MAX]);
    let after = after.map(<[u8]>::to_vec).unwrap_or_default().max(first);
    let mut statement = Statement::new(&format!(
        "SELECT {} FROM entities WHERE place > $1 AND place < $2 ORDER BY place LIMIT $3",
        rows::ENTITY
    ));
    statement.bind(after, Type::BYTEA).bind(end, Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

/// The place of the state is that in the row's content ([`row::JOB_STATE`]); a row that is too short has none.
pub(super) fn jobs_under_way_statement() -> Statement<'static> {
    let (at, over) = row::JOB_STATE;
    let over: Vec<String> = over.map(|state| format!("'\\x{state:02x}'::bytea")).collect();
    Statement::new(&format!(
        "SELECT {} FROM jobs WHERE substring(job FROM {} FOR 1) NOT IN ({}) ORDER BY place",
        rows::JOB,
        at + 1,
        over.join(", ")
    ))
}

pub(super) fn size_statement(log: LogId) -> Statement<'static> {
    let mut statement = Statement::new("SELECT size FROM logs WHERE log = $1");
    statement.bind(int4(log), Type::INT4);
    statement
}

/// The lengths are added up by the database, which need not read the entries for that.
pub(super) fn entries_statement(log: LogId, start: u64, most: usize, bytes: usize) -> Statement<'static> {
    let mut statement = Statement::new(
        "SELECT e.sequence, e.entry, e.checksum, e.seal FROM \
         (SELECT sequence, entry, checksum, seal, sum(length(entry)) OVER (ORDER BY sequence) AS total \
          FROM log_entries WHERE log = $1 AND sequence >= $2 AND sequence < $3) e \
         WHERE e.total <= $4 OR e.sequence = $2 ORDER BY e.sequence",
    );
    let end = start.saturating_add(most as u64);
    statement.bind(int4(log), Type::INT4).bind(int8(start), Type::INT8).bind(int8(end), Type::INT8);
    statement.bind(limit_of(bytes), Type::INT8);
    statement
}

/// Whether rows of the index may have been written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Postings {
    /// None: the statement writes nothing if one is there. It costs the database a third less than to look for each first.
    New,
    /// Some may be there, and stay.
    PerhapsThere,
}

/// One statement, under the condition that the fence is in force and that all entries it is about are there; it returns
/// the log's number if so.
pub(super) fn derive_statement<'a>(
    grip: &'a Grip,
    fence: u64,
    derived: &'a Derived,
    postings: Postings,
) -> Result<Statement<'a>, StoreError> {
    if derived.postings.iter().any(|posting| posting.key.len() > 255) {
        return Err(StoreError::Unavailable { why: "an index key is too long".to_owned() });
    }
    let mut statement = Statement::default();
    let (size, text) = derived.checkpoint.as_ref().map(|(size, text)| (int8(*size), text.as_str())).unzip();
    statement.bind(int4(grip.log), Type::INT4).bind(int8(fence), Type::INT8);
    statement.bind(int8(derived.upto), Type::INT8).bind(size, Type::INT8).bind(text, Type::TEXT);
    statement.bind(grip.holder.as_bytes().as_slice(), Type::BYTEA).bind(int8(derived.from), Type::INT8);
    statement.add(
        "WITH held AS (SELECT log FROM logs WHERE log = $1 AND fence = $2 AND holder = $6 \
          AND size >= $3 AND size >= coalesce($4, 0) \
          AND $7 <= coalesce((SELECT upto FROM log_heads WHERE log_heads.log = $1), 0)), \
         heads AS (INSERT INTO log_heads (log, upto, checkpoint_size, checkpoint) \
          SELECT log, $3, $4, $5 FROM held ON CONFLICT (log) DO UPDATE SET \
          upto = greatest(log_heads.upto, excluded.upto), \
          checkpoint = CASE WHEN excluded.checkpoint_size >= coalesce(log_heads.checkpoint_size, 0) \
           THEN excluded.checkpoint ELSE log_heads.checkpoint END, \
          checkpoint_size = CASE WHEN excluded.checkpoint_size >= coalesce(log_heads.checkpoint_size, 0) \
           THEN excluded.checkpoint_size ELSE log_heads.checkpoint_size END)",
    );
    if !derived.tiles.is_empty() {
        let levels: Vec<_> = derived.tiles.iter().map(|(id, _)| i16::from(id.level)).collect();
        let places: Vec<_> = derived.tiles.iter().map(|(id, _)| int8(id.index)).collect();
        let tiles: Vec<_> = derived.tiles.iter().map(|(_, tile)| &tile[..]).collect();
        let arrays = [
            statement.array(levels, Type::INT2_ARRAY),
            statement.array(places, Type::INT8_ARRAY),
            statement.array(tiles, Type::BYTEA_ARRAY),
        ];
        statement.add(&format!(
            ", tiles AS (INSERT INTO log_tiles (log, level, place, tile) SELECT held.log, u.* FROM held, \
             unnest({}) AS u (level, place, tile) ON CONFLICT (log, level, place) DO UPDATE SET tile = excluded.tile)",
            arrays.join(", ")
        ));
    }
    if !derived.postings.is_empty() {
        // In the order of the table's key, so that rows which come one after the other go to pages that are near.
        let mut rows: Vec<_> =
            derived.postings.iter().map(|row| (row.key.as_slice(), row.sequence)).collect();
        rows.sort_unstable();
        let (keys, sequences): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|(key, sequence)| (key, int8(sequence))).unzip();
        let arrays = [statement.array(keys, Type::BYTEA_ARRAY), statement.array(sequences, Type::INT8_ARRAY)];
        let there = match postings {
            Postings::New => "",
            Postings::PerhapsThere => " ON CONFLICT (log, key, sequence) DO NOTHING",
        };
        statement.add(&format!(
            ", postings AS (INSERT INTO log_index (log, key, sequence) SELECT held.log, u.* FROM held, \
             unnest({}) AS u (key, sequence){there})",
            arrays.join(", ")
        ));
    }
    statement.add(&format!(" SELECT log, {DURABLY} FROM held"));
    Ok(statement)
}

pub(super) fn derived_statement(log: LogId) -> Statement<'static> {
    let mut statement =
        Statement::new("SELECT upto, checkpoint_size, checkpoint FROM log_heads WHERE log = $1");
    statement.bind(int4(log), Type::INT4);
    statement
}

pub(super) fn derived_of(rows: &[Row]) -> Result<DerivedState, StoreError> {
    let Some(row) = rows.first() else { return Ok(DerivedState::default()) };
    let size: Option<Option<i64>> = row.try_get("checkpoint_size").ok();
    let text: Option<Option<String>> = row.try_get("checkpoint").ok();
    let checkpoint = match (size, text) {
        (Some(None), Some(None)) => None,
        (Some(Some(_)), Some(Some(text))) => Some((rows::number(row, "checkpoint_size")?, text)),
        _ => return Err(corrupt(Space::Meta, b"checkpoint")),
    };
    Ok(DerivedState { upto: rows::number(row, "upto")?, checkpoint })
}

pub(super) fn tile_statement(log: LogId, id: TileId) -> Statement<'static> {
    let mut statement =
        Statement::new("SELECT tile FROM log_tiles WHERE log = $1 AND level = $2 AND place = $3");
    statement.bind(int4(log), Type::INT4).bind(i16::from(id.level), Type::INT2);
    statement.bind(int8(id.index), Type::INT8);
    statement
}

pub(super) fn postings_statement(
    log: LogId,
    key: &[u8],
    (from, until): (u64, u64),
    newest_first: bool,
    limit: usize,
) -> Statement<'_> {
    let order = if newest_first { "DESC" } else { "ASC" };
    let mut statement = Statement::new(&format!(
        "SELECT sequence FROM log_index WHERE log = $1 AND key = $2 AND sequence >= $3 AND sequence < $4 \
         ORDER BY sequence {order} LIMIT $5"
    ));
    statement.bind(int4(log), Type::INT4).bind(key, Type::BYTEA);
    statement.bind(int8(from), Type::INT8).bind(int8(until), Type::INT8).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn scan_records_statement(token: Option<Token>, limit: usize) -> Statement<'static> {
    let mut statement = Statement::new(&format!(
        "SELECT {} FROM records WHERE token > $1 ORDER BY token LIMIT $2",
        rows::RECORD
    ));
    statement.bind(after(token), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn scanned_records(rows: &[Row]) -> Result<Vec<Record>, StoreError> {
    let of = |row: &Row| match rows::record(row) {
        Some((_, Lookup::Found(record))) => Ok(*record),
        Some((token, _)) => Err(corrupt(Space::Records, token.as_bytes())),
        None => Err(corrupt(Space::Records, &[])),
    };
    rows.iter().map(of).collect()
}

pub(super) fn scan_keys_statement(after: Option<Cursor>, limit: usize) -> Statement<'static> {
    let mut statement =
        Statement::new(&format!("SELECT {} FROM keys WHERE id > $1 ORDER BY id LIMIT $2", rows::KEY));
    statement.bind(behind(after), Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn scan_remembered_statement(key: Option<[u8; 32]>, limit: usize) -> Statement<'static> {
    let mut statement = Statement::new(&format!(
        "SELECT {} FROM remembered WHERE key > $1 ORDER BY key LIMIT $2",
        rows::REMEMBERED
    ));
    let key = key.map(|key| key.to_vec()).unwrap_or_default();
    statement.bind(key, Type::BYTEA).bind(limit_of(limit), Type::INT8);
    statement
}

pub(super) fn stats_statement() -> Statement<'static> {
    Statement::new(
        "SELECT coalesce(sum(records), 0)::int8 AS records, coalesce(sum(size), 0)::int8 AS entries FROM logs",
    )
}
