//! Rows of the tables and the words of the domain. Every row read is checked: its checksum is that of the row which
//! the embedded engines would keep for the same thing at the same place, so there is one definition of both.

use std::fmt::Display;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::row::RowIndex;
use tokio_postgres::types::{FromSql, Type};

use crate::domain::{
    BlindIndex, Body, ClassName, Entity, Environment, InstanceId, Job, KeyId, KeyPurpose, KeyRecord,
    KeyState, KeyVersion, LeaseName, Record, Sealed, SubjectRef, TenantId, Timestamp, Token, VaultId,
    VaultIdentity, WrappedKey,
};
use crate::store::keys::{self, Space, purpose_byte};
use crate::store::row::{self, CHECKSUM};
use crate::store::{Cursor, EntityRow, Lease, LogId, Lookup, Page, Remembered, StoreError, corrupt};

pub(super) const RECORD: &str = "token, tenant, class, subject, blind_index, created, key_id, key_version, sealed, \
                                 erased, revision, checksum";
pub(super) const KEY: &str =
    "id, tenant, purpose, version, state, created, wrapping_keys, wraps, revision, checksum, statements";
pub(super) const REMEMBERED: &str = "key, request, tokens, at, expires, checksum";
pub(super) const LEASE: &str = "name, holder, fence, expires, revision, checksum";
pub(super) const JOB: &str = "place, revision, job, checksum";
pub(super) const ENTITY: &str = "place, revision, content, checksum";

/// A row's checksum.
pub(super) fn checksum(space: Space, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> [u8; CHECKSUM] {
    let mut content = Vec::with_capacity(512);
    write(&mut content);
    row::checksum(space, key, &content)
}

pub(super) fn record_checksum(record: &Record) -> [u8; CHECKSUM] {
    checksum(Space::Records, record.token.as_bytes(), |out| row::write_record(record, out))
}

pub(super) fn key_checksum(key: &KeyRecord) -> [u8; CHECKSUM] {
    let place = keys::key(key.tenant.as_ref(), key.purpose, key.version);
    checksum(Space::Keys, &place, |out| row::write_key(key, out))
}

pub(super) fn remembered_checksum(answer: &Remembered) -> [u8; CHECKSUM] {
    checksum(Space::Remembered, &answer.key, |out| row::write_remembered(answer, out))
}

pub(super) fn lease_checksum(lease: &Lease) -> [u8; CHECKSUM] {
    checksum(Space::Leases, lease.name.as_str().as_bytes(), |out| row::write_lease(lease, out))
}

/// A job's place, content and checksum.
pub(super) fn write_job(job: &Job) -> (Vec<u8>, Vec<u8>, [u8; CHECKSUM]) {
    let (place, mut content) = (keys::job(&job.place), Vec::new());
    row::write_job(job, &mut content);
    let sum = row::checksum(Space::Jobs, &place, &content);
    (place, content, sum)
}

/// An entity's place, the content of its row and its checksum.
pub(super) fn write_entity(entity: &Entity) -> (Vec<u8>, Vec<u8>, [u8; CHECKSUM]) {
    let (place, mut content) = (keys::entity(&entity.place), Vec::with_capacity(16 + entity.content.len()));
    row::write_entity(entity, &mut content);
    let sum = row::checksum(Space::Entities, &place, &content);
    (place, content, sum)
}

pub(super) fn entry_checksum(log: LogId, sequence: u64, entry: &[u8]) -> [u8; CHECKSUM] {
    row::checksum(Space::Log, &entry_key(log, sequence), entry)
}

fn entry_key(log: LogId, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&log.0.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// An array of a column. One that claims more elements than it has bytes for is none: room is made for what is claimed.
#[derive(Debug)]
struct Elements<T>(Vec<T>);

impl<'a, T: FromSql<'a>> FromSql<'a> for Elements<T> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // Dimensions, whether there are nulls, the elements' type; of the first dimension its length.
        let claimed = raw.get(12..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        // Each has a length of four bytes.
        if claimed as usize > raw.len() / 4 {
            return Err("more elements than bytes".into());
        }
        Vec::from_sql(of, raw).map(Self)
    }

    fn accepts(of: &Type) -> bool {
        Vec::<T>::accepts(of)
    }
}

/// The column's value; `None` if it has another type or is null.
fn get<'a, T: FromSql<'a>>(row: &'a Row, column: impl RowIndex + Display) -> Option<T> {
    row.try_get(column).ok()
}

fn array<const N: usize>(row: &Row, column: impl RowIndex + Display) -> Option<[u8; N]> {
    get::<&[u8]>(row, column)?.try_into().ok()
}

/// The outer `None`: not an array of that length; the inner one: null.
#[expect(clippy::option_option, reason = "a malformed column is not a null one")]
fn optional_array<const N: usize>(row: &Row, column: impl RowIndex + Display) -> Option<Option<[u8; N]>> {
    match get::<Option<&[u8]>>(row, column)? {
        None => Some(None),
        Some(bytes) => bytes.try_into().ok().map(Some),
    }
}

fn unsigned(row: &Row, column: impl RowIndex + Display) -> Option<u64> {
    get::<i64>(row, column)?.try_into().ok()
}

fn version(row: &Row, column: impl RowIndex + Display) -> Option<KeyVersion> {
    unsigned(row, column)?.try_into().ok().map(KeyVersion)
}

fn is_checked(row: &Row, computed: [u8; CHECKSUM]) -> bool {
    array(row, "checksum") == Some(computed)
}

/// The row's token, and what is kept under it. `None` if there is no token in it.
pub(super) fn record(row: &Row) -> Option<(Token, Lookup)> {
    let token = Token::from_bytes(array(row, 0)?);
    let read = read_record(token, row).filter(|record| array(row, 11) == Some(record_checksum(record)));
    Some((token, read.map_or(Lookup::Corrupt, |record| Lookup::Found(Box::new(record)))))
}

/// By the columns' places in [`RECORD`]: to find them by name would be much of the work for a row, and there are many.
fn read_record(token: Token, row: &Row) -> Option<Record> {
    let erased: Option<i64> = get(row, 9)?;
    let body = if let Some(at) = erased {
        Body::Erased { at: Timestamp(at.try_into().ok()?) }
    } else {
        Body::Sealed {
            key_id: KeyId::from_bytes(array(row, 6)?),
            key_version: version(row, 7)?,
            bytes: Sealed(get::<&[u8]>(row, 8)?.to_vec()),
        }
    };
    Some(Record {
        token,
        tenant: TenantId::parse(get(row, 1)?).ok()?,
        class: ClassName::parse(get(row, 2)?).ok()?,
        subject: optional_array(row, 3)?.map(SubjectRef::from_bytes),
        index: optional_array(row, 4)?.map(BlindIndex::from_bytes),
        created: Timestamp(unsigned(row, 5)?),
        body,
        revision: unsigned(row, 10)?.try_into().ok()?,
    })
}

pub(super) fn key(row: &Row) -> Result<KeyRecord, StoreError> {
    let id: &[u8] = get(row, "id").unwrap_or_default();
    let read = read_key(row).filter(|key| is_checked(row, key_checksum(key)));
    read.ok_or_else(|| corrupt(Space::Keys, id))
}

/// Tenant, purpose and version of a key as the embedded engines name it, whatever else is in its row.
pub(super) fn key_place(row: &Row) -> Option<Vec<u8>> {
    let (tenant, purpose, version) = read_place(row)?;
    Some(keys::key(tenant.as_ref(), purpose, version))
}

fn read_place(row: &Row) -> Option<(Option<TenantId>, KeyPurpose, KeyVersion)> {
    let tenant = match get(row, "tenant")? {
        "" => None,
        name => Some(TenantId::parse(name).ok()?),
    };
    let purpose = keys::purpose_of(get::<i16>(row, "purpose")?.try_into().ok()?)?;
    Some((tenant, purpose, version(row, "version")?))
}

fn read_key(row: &Row) -> Option<KeyRecord> {
    let (tenant, purpose, version) = read_place(row)?;
    let state = match get::<i16>(row, "state")? {
        1 => KeyState::Active,
        2 => KeyState::Retired,
        3 => KeyState::Compromised,
        4 => KeyState::Destroyed,
        _ => return None,
    };
    let (Elements::<String>(names), Elements::<Vec<u8>>(wraps)) =
        (get(row, "wrapping_keys")?, get(row, "wraps")?);
    if names.len() != wraps.len() {
        return None;
    }
    let wraps = names.into_iter().zip(wraps);
    Some(KeyRecord {
        id: KeyId::from_bytes(array(row, "id")?),
        tenant,
        purpose,
        version,
        state,
        created: Timestamp(unsigned(row, "created")?),
        wraps: wraps.map(|(wrapping_key, ciphertext)| WrappedKey { wrapping_key, ciphertext }).collect(),
        revision: unsigned(row, "revision")?.try_into().ok()?,
        statements: get::<&str>(row, "statements")?.to_owned(),
    })
}

/// The purpose's column.
pub(super) fn purpose(purpose: KeyPurpose) -> i16 {
    purpose_byte(purpose).into()
}

/// The state's column.
pub(super) fn state(state: KeyState) -> i16 {
    match state {
        KeyState::Active => 1,
        KeyState::Retired => 2,
        KeyState::Compromised => 3,
        KeyState::Destroyed => 4,
    }
}

pub(super) fn remembered(row: &Row) -> Result<Remembered, StoreError> {
    let key: &[u8] = get(row, "key").unwrap_or_default();
    let read = read_remembered(row).filter(|answer| is_checked(row, remembered_checksum(answer)));
    read.ok_or_else(|| corrupt(Space::Remembered, key))
}

fn read_remembered(row: &Row) -> Option<Remembered> {
    Some(Remembered {
        key: array(row, "key")?,
        request: array(row, "request")?,
        tokens: read_tokens(get(row, "tokens")?)?,
        at: Timestamp(unsigned(row, "at")?),
        expires: Timestamp(unsigned(row, "expires")?),
    })
}

/// The column of an answer's tokens: `0`, or `1` and the token, for each.
pub(super) fn write_tokens(tokens: &[Option<Token>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tokens.len() * 17);
    for token in tokens {
        bytes.push(token.is_some().into());
        bytes.extend_from_slice(token.as_ref().map_or(&[][..], |token| token.as_bytes()));
    }
    bytes
}

fn read_tokens(mut bytes: &[u8]) -> Option<Vec<Option<Token>>> {
    let mut tokens = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        bytes = rest;
        tokens.push(match tag {
            0 => None,
            1 => {
                let (token, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Some(Token::from_bytes(*token))
            }
            _ => return None,
        });
    }
    Some(tokens)
}

pub(super) fn lease(row: &Row) -> Result<Lease, StoreError> {
    let name: &str = get(row, "name").unwrap_or_default();
    let read = read_lease(row).filter(|lease| is_checked(row, lease_checksum(lease)));
    read.ok_or_else(|| corrupt(Space::Leases, name.as_bytes()))
}

fn read_lease(row: &Row) -> Option<Lease> {
    Some(Lease {
        name: LeaseName::parse(get(row, "name")?).ok()?,
        holder: InstanceId::from_bytes(array(row, "holder")?),
        fence: unsigned(row, "fence")?,
        expires: Timestamp(unsigned(row, "expires")?),
        revision: unsigned(row, "revision")?,
    })
}

pub(super) fn job(row: &Row) -> Result<Job, StoreError> {
    let place: &[u8] = get(row, "place").unwrap_or_default();
    read_job(place, row).ok_or_else(|| corrupt(Space::Jobs, place))
}

fn read_job(place: &[u8], row: &Row) -> Option<Job> {
    let content: &[u8] = get(row, "job")?;
    if !is_checked(row, row::checksum(Space::Jobs, place, content)) {
        return None;
    }
    let job = row::read_job_content(&keys::parse_job(place)?, content).ok()?;
    (unsigned(row, "revision")? == job.revision).then_some(job)
}

pub(super) fn entity(row: &Row) -> Result<Entity, StoreError> {
    let place = entity_key(row);
    read_entity(place, row).ok_or_else(|| corrupt(Space::Entities, place))
}

/// Where an entity's row stands.
pub(super) fn entity_key(row: &Row) -> &[u8] {
    get(row, "place").unwrap_or_default()
}

/// The same where it may be malformed. `None`: it is at no place of an entity.
pub(super) fn entity_row(row: &Row) -> Option<EntityRow> {
    let place = entity_key(row);
    EntityRow::at(place, read_entity(place, row))
}

fn read_entity(place: &[u8], row: &Row) -> Option<Entity> {
    let content: &[u8] = get(row, "content")?;
    if !is_checked(row, row::checksum(Space::Entities, place, content)) {
        return None;
    }
    let entity = row::read_entity_content(&keys::parse_entity(place)?, content).ok()?;
    (unsigned(row, "revision")? == entity.revision).then_some(entity)
}

pub(super) fn identity(row: &Row) -> Option<VaultIdentity> {
    Some(VaultIdentity {
        vault: VaultId::from_bytes(array(row, "vault")?),
        environment: Environment::parse(get(row, "environment")?).ok()?,
    })
}

/// The entry of a row that should have this sequence.
pub(super) fn entry(log: LogId, expected: u64, row: &Row) -> Result<Bytes, StoreError> {
    let lost = || corrupt(Space::Log, &entry_key(log, expected));
    let (sequence, bytes): (u64, &[u8]) =
        unsigned(row, "sequence").zip(get(row, "entry")).ok_or_else(lost)?;
    let sound = sequence == expected && is_checked(row, entry_checksum(log, sequence, bytes));
    if sound { Ok(Bytes::copy_from_slice(bytes)) } else { Err(lost()) }
}

/// The seal beside an entry.
pub(super) fn seal(row: &Row) -> Option<&[u8]> {
    // One that can't be read is none.
    get(row, "seal")
}

/// The row that should be there and is not.
pub(super) fn lost_entry(log: LogId, sequence: u64) -> StoreError {
    corrupt(Space::Log, &entry_key(log, sequence))
}

/// A token in a column of that name.
pub(super) fn token(row: &Row) -> Result<Token, StoreError> {
    let bytes: &[u8] = get(row, "token").unwrap_or_default();
    bytes.try_into().map(Token::from_bytes).map_err(|_| corrupt(Space::Records, bytes))
}

/// The token of a row that was found by its blind index.
pub(super) fn indexed(row: &Row) -> Result<Token, StoreError> {
    let token = token(row)?;
    let index: Option<[u8; BlindIndex::LEN]> = array(row, "blind_index");
    index.map(|_| token).ok_or_else(|| corrupt(Space::Records, token.as_bytes()))
}

/// The rows of a statement for at most `limit` of them, in the order of these one or two columns, which are strings of
/// bytes: each as it is read, or malformed.
pub(super) fn page<T>(
    rows: &[Row],
    limit: usize,
    columns: &[&str],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let mut found = Page::default();
    for row in rows {
        found.push(array(row, "token").map(Token::from_bytes), read(row))?;
    }
    found.next = rows.last().filter(|_| rows.len() >= limit).map(|row| cursor(row, columns)).transpose()?;
    Ok(found)
}

/// Where a row stands in the order of these columns, whatever is in them.
pub(super) fn cursor(row: &Row, columns: &[&str]) -> Result<Cursor, StoreError> {
    let bytes = |column: Option<&&str>| match column {
        None => Ok(Vec::new()),
        Some(column) => get::<&[u8]>(row, *column)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StoreError::Corrupt { what: format!("column {column}") }),
    };
    Ok(Cursor { place: bytes(columns.first())?, then: bytes(columns.get(1))? })
}

/// A number that is never negative.
pub(super) fn number(row: &Row, column: &str) -> Result<u64, StoreError> {
    unsigned(row, column).ok_or_else(|| StoreError::Corrupt { what: format!("column {column}") })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio_postgres::types::ToSql as _;

    use super::*;

    #[test]
    fn an_array_that_claims_more_than_it_has_is_none() {
        let mut raw = BytesMut::new();
        vec!["ann", "bob"].to_sql(&Type::TEXT_ARRAY, &mut raw).unwrap();
        let Elements::<String>(read) = Elements::from_sql(&Type::TEXT_ARRAY, &raw).unwrap();
        assert_eq!(read, ["ann", "bob"]);
        raw[12..16].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(Elements::<String>::from_sql(&Type::TEXT_ARRAY, &raw).is_err());
        let mut empty = BytesMut::new();
        Vec::<&str>::new().to_sql(&Type::TEXT_ARRAY, &mut empty).unwrap();
        let Elements::<String>(read) = Elements::from_sql(&Type::TEXT_ARRAY, &empty).unwrap();
        assert!(read.is_empty());
    }
}
