//! Reads over an engine: keys and rows to the words of the domain, every row checked.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::embedded::engine::{Direction, Engine};
use crate::store::keys::{self, Space, meta};
use crate::store::row::{self, CHECKSUM};
use crate::store::{
    Cursor, DerivedState, EntityRow, Lease, Lookup, Page, Remembered, StoreError, TileId, UnderWay, corrupt,
};

pub(crate) fn identity(engine: &impl Engine) -> Result<Option<VaultIdentity>, StoreError> {
    let key = meta::IDENTITY;
    let content = content(engine, Space::Meta, key)?;
    content.map(|content| row::read_identity(&content).map_err(|_| corrupt(Space::Meta, key))).transpose()
}

/// A number in [`Space::Meta`].
pub(crate) fn number(engine: &impl Engine, key: &[u8]) -> Result<Option<u64>, StoreError> {
    let content = content(engine, Space::Meta, key)?;
    let number = |content: Bytes| content.as_ref().try_into().map(u64::from_be_bytes);
    content.map(|content| number(content).map_err(|_| corrupt(Space::Meta, key))).transpose()
}

pub(crate) fn records(engine: &impl Engine, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
    let lookup = |token: &Token| {
        let row = engine.get(Space::Records, token.as_bytes())?;
        Ok(row.map_or(Lookup::Missing, |row| {
            row::read_record(*token, row.as_ref())
                .map_or(Lookup::Corrupt, |record| Lookup::Found(Box::new(record)))
        }))
    };
    tokens.iter().map(lookup).collect()
}

pub(crate) fn find(
    engine: &impl Engine,
    tenant: &TenantId,
    class: &ClassName,
    index: BlindIndex,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    tokens(engine, Space::Indexes, &keys::index(tenant, class, index), None, limit)
}

pub(crate) fn tokens_of_subject(
    engine: &impl Engine,
    tenant: &TenantId,
    subject: SubjectRef,
    after: Option<Token>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    tokens(engine, Space::Subjects, &keys::subject(tenant, subject), after, limit)
}

pub(crate) fn tokens_of_key(
    engine: &impl Engine,
    key: KeyId,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    token_rows(engine, (Space::SealedUnder, &keys::sealed_under(key)), 16, after, limit)
}

pub(crate) fn count_of_key(engine: &impl Engine, key: KeyId) -> Result<u64, StoreError> {
    let (prefix, mut count) = (keys::sealed_under(key), 0);
    scan(engine, Space::SealedUnder, &prefix, &prefix, Direction::Forward, &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// Whether any record is sealed under a key. A row that is not what was written counts: it was one once.
pub(crate) fn is_used(engine: &impl Engine, key: KeyId) -> Result<bool, StoreError> {
    let prefix = keys::sealed_under(key);
    let end = keys::past_prefix(&prefix);
    let mut used = false;
    engine.scan(Space::SealedUnder, (&prefix, end.as_deref()), Direction::Forward, &mut |_, _| {
        used = true;
        ControlFlow::Break(())
    })?;
    Ok(used)
}

pub(crate) fn indexed_under(
    engine: &impl Engine,
    (tenant, class): (&TenantId, &ClassName),
    version: KeyVersion,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    // The rest of the index, and the token.
    token_rows(engine, (Space::Indexes, &keys::indexes_under(tenant, class, version)), 16 + 16, after, limit)
}

pub(crate) fn keys(
    engine: &impl Engine,
    tenant: Option<&TenantId>,
    purpose: KeyPurpose,
) -> Result<Vec<KeyRecord>, StoreError> {
    let prefix = keys::keys(tenant, purpose);
    let mut found = Vec::new();
    scan(engine, Space::Keys, &prefix, &prefix, Direction::Forward, &mut |key, row| {
        found.push(row::read_key(key, row).map_err(|_| corrupt(Space::Keys, key))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn key(engine: &impl Engine, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
    let Some(place) = content(engine, Space::KeyIds, id.as_bytes())? else { return Ok(None) };
    let lost = || corrupt(Space::KeyIds, id.as_bytes());
    let row = engine.get(Space::Keys, &place)?.ok_or_else(lost)?;
    let key = row::read_key(&place, row.as_ref()).map_err(|_| corrupt(Space::Keys, &place))?;
    if key.id == id { Ok(Some(key)) } else { Err(lost()) }
}

pub(crate) fn remembered(engine: &impl Engine, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
    let read = |row: &[u8]| row::read_remembered(key, row).map_err(|_| corrupt(Space::Remembered, key));
    engine.get(Space::Remembered, key)?.map(|row| read(row.as_ref())).transpose()
}

/// Answers that expired before `now`, at most `limit`, oldest first.
pub(crate) fn expired(
    engine: &impl Engine,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, [u8; 32])>, StoreError> {
    let mut found = Vec::new();
    scan(engine, Space::Expiries, &[], &[], Direction::Forward, &mut |key, row| {
        check(Space::Expiries, key, row)?;
        let (expires, answer) = keys::parse_expiry(key).ok_or_else(|| corrupt(Space::Expiries, key))?;
        if expires >= now || found.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        found.push((expires, answer));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn lease(engine: &impl Engine, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
    let key = name.as_str().as_bytes();
    let read = |row: &[u8]| row::read_lease(name, row).map_err(|_| corrupt(Space::Leases, key));
    engine.get(Space::Leases, key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn job(engine: &impl Engine, place: &JobPlace) -> Result<Option<Job>, StoreError> {
    let key = keys::job(place);
    let read = |row: &[u8]| row::read_job(place, row).map_err(|_| corrupt(Space::Jobs, &key));
    engine.get(Space::Jobs, &key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn jobs(
    engine: &impl Engine,
    after: Option<&JobPlace>,
    limit: usize,
) -> Result<Vec<Job>, StoreError> {
    let from = after.map(keys::job);
    page(engine, Space::Jobs, from.as_deref(), limit, |key, row| {
        row::read_job(&keys::parse_job(key)?, row).ok()
    })
}

/// The same with those that are malformed.
pub(crate) fn job_rows(
    engine: &impl Engine,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Job>, StoreError> {
    rows(engine, (Space::Jobs, &[]), after, limit, |key, row| {
        let job = keys::parse_job(key).and_then(|place| row::read_job(&place, row).ok());
        (None, job.ok_or_else(|| corrupt(Space::Jobs, key)))
    })
}

pub(crate) fn entity(engine: &impl Engine, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
    let key = keys::entity(place);
    let read = |row: &[u8]| row::read_entity(place, row).map_err(|_| corrupt(Space::Entities, &key));
    engine.get(Space::Entities, &key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn entities(
    engine: &impl Engine,
    of: &EntityScope,
    after: Option<&EntityPlace>,
    limit: usize,
) -> Result<Vec<Entity>, StoreError> {
    some_entities(engine, of, after, limit, |key, read| {
        read.map(Some).ok_or_else(|| corrupt(Space::Entities, key))
    })
}

/// The same with those that are malformed.
pub(crate) fn entity_rows(
    engine: &impl Engine,
    of: &EntityScope,
    after: Option<&EntityPlace>,
    limit: usize,
) -> Result<Vec<EntityRow>, StoreError> {
    some_entities(engine, of, after, limit, |key, read| Ok(EntityRow::at(key, read)))
}

/// What `take` makes of the rows of a scope past `after`: of the key, and what was read.
fn some_entities<R>(
    engine: &impl Engine,
    of: &EntityScope,
    after: Option<&EntityPlace>,
    limit: usize,
    take: impl Fn(&[u8], Option<Entity>) -> Result<Option<R>, StoreError>,
) -> Result<Vec<R>, StoreError> {
    let mut found = Vec::new();
    let prefix = keys::entities(of);
    let from = after.map_or_else(Vec::new, |place| [&keys::entity(place)[..], &[0]].concat());
    let from = from.max(prefix.clone());
    if limit == 0 || !from.starts_with(&prefix) {
        return Ok(found);
    }
    scan(engine, Space::Entities, &prefix, &from, Direction::Forward, &mut |key, row| {
        let read = keys::parse_entity(key).and_then(|place| row::read_entity(&place, row).ok());
        found.extend(take(key, read)?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

pub(crate) fn jobs_under_way(engine: &impl Engine) -> Result<UnderWay, StoreError> {
    let mut found = UnderWay::default();
    scan(engine, Space::Jobs, &[], &[], Direction::Forward, &mut |key, row| {
        if !row::says_over(row) {
            let job = keys::parse_job(key).and_then(|place| row::read_job(&place, row).ok());
            found.push(job.ok_or_else(|| corrupt(Space::Jobs, key)))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn scan_records(
    engine: &impl Engine,
    after: Option<Token>,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    let from = after.map(|token| *token.as_bytes());
    page(engine, Space::Records, from.as_ref().map(<[u8; 16]>::as_slice), limit, |key, row| {
        let token = Token::from_bytes(key.try_into().ok()?);
        row::read_record(token, row).ok()
    })
}

pub(crate) fn scan_keys(
    engine: &impl Engine,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Vec<KeyRecord>, StoreError> {
    let from = after.map(|id| *id.as_bytes());
    let ids = page(engine, Space::KeyIds, from.as_ref().map(<[u8; 16]>::as_slice), limit, |id, row| {
        row::content(Space::KeyIds, id, row).ok()?;
        id.try_into().ok().map(KeyId::from_bytes)
    })?;
    let lost = |id: &KeyId| corrupt(Space::KeyIds, id.as_bytes());
    ids.iter().map(|id| key(engine, *id)?.ok_or_else(|| lost(id))).collect()
}

/// The same with those that are malformed.
pub(crate) fn key_rows(
    engine: &impl Engine,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<KeyRecord>, StoreError> {
    let ids = rows(engine, (Space::KeyIds, &[]), after, limit, |id, row| {
        let lost = || corrupt(Space::KeyIds, id);
        let read = check(Space::KeyIds, id, row).and_then(|_| id.try_into().map_err(|_| lost()));
        (None, read.map(KeyId::from_bytes))
    })?;
    let mut found = Page { items: Vec::new(), malformed: ids.malformed, next: ids.next };
    for id in ids.items {
        let read = key(engine, id).and_then(|key| key.ok_or_else(|| corrupt(Space::KeyIds, id.as_bytes())));
        found.push(None, read)?;
    }
    Ok(found)
}

pub(crate) fn scan_remembered(
    engine: &impl Engine,
    after: Option<[u8; 32]>,
    limit: usize,
) -> Result<Vec<Remembered>, StoreError> {
    page(engine, Space::Remembered, after.as_ref().map(<[u8; 32]>::as_slice), limit, |key, row| {
        row::read_remembered(key.try_into().ok()?, row).ok()
    })
}

/// The rows of a space past `after`, each read by `read`.
fn page<R>(
    engine: &impl Engine,
    space: Space,
    after: Option<&[u8]>,
    limit: usize,
    read: impl Fn(&[u8], &[u8]) -> Option<R>,
) -> Result<Vec<R>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let from = after.map(|key| [key, &[0]].concat()).unwrap_or_default();
    scan(engine, space, &[], &from, Direction::Forward, &mut |key, row| {
        found.push(read(key, row).ok_or_else(|| corrupt(space, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// How many entries there are, durable or not.
pub(crate) fn log_end(engine: &impl Engine) -> Result<u64, StoreError> {
    let mut end = 0;
    scan(engine, Space::Log, &[], &[], Direction::Backward, &mut |key, _| {
        let last = key.try_into().map(u64::from_be_bytes).map_err(|_| corrupt(Space::Log, key))?;
        end = last.checked_add(1).ok_or_else(|| corrupt(Space::Log, key))?;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(end)
}

/// Entries of `start..end`: at least one if there is one, then as many as fit.
pub(crate) fn entries(
    engine: &impl Engine,
    start: u64,
    end: u64,
    max_entries: usize,
    max_bytes: usize,
) -> Result<Vec<Bytes>, StoreError> {
    let mut found: Vec<Bytes> = Vec::new();
    if start >= end {
        return Ok(found);
    }
    let (mut next, mut bytes) = (start, 0);
    scan(engine, Space::Log, &[], &start.to_be_bytes(), Direction::Forward, &mut |key, row| {
        let len = row.len().saturating_sub(CHECKSUM);
        let full = !found.is_empty() && (found.len() >= max_entries || bytes + len > max_bytes);
        if full || next >= end {
            return Ok(ControlFlow::Break(()));
        }
        if key != next.to_be_bytes() {
            return Err(corrupt(Space::Log, &next.to_be_bytes()));
        }
        found.push(Bytes::copy_from_slice(check(Space::Log, key, row)?));
        bytes += len;
        next += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    // The log ends before `end`.
    if found.is_empty() { Err(corrupt(Space::Log, &start.to_be_bytes())) } else { Ok(found) }
}

pub(crate) fn derived(engine: &impl Engine) -> Result<DerivedState, StoreError> {
    let upto = number(engine, meta::DERIVED)?.unwrap_or(0);
    let lost = || corrupt(Space::Meta, meta::CHECKPOINT);
    let checkpoint = match content(engine, Space::Meta, meta::CHECKPOINT)? {
        None => None,
        Some(content) => {
            let (size, text) = content.split_first_chunk().ok_or_else(lost)?;
            let text = std::str::from_utf8(text).map_err(|_| lost())?;
            Some((u64::from_be_bytes(*size), text.to_owned()))
        }
    };
    Ok(DerivedState { upto, checkpoint })
}

pub(crate) fn tile(engine: &impl Engine, id: TileId) -> Result<Option<Bytes>, StoreError> {
    content(engine, Space::Tiles, &keys::tile(id))
}

/// Sequences under an index key within `from..until`.
pub(crate) fn postings(
    engine: &impl Engine,
    index_key: &[u8],
    (from, until): (u64, u64),
    direction: Direction,
    limit: usize,
) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    let Some(prefix) = keys::postings(index_key).filter(|_| from < until && limit > 0) else {
        return Ok(found);
    };
    let first = [&prefix[..], &from.to_be_bytes()].concat();
    let last = [&prefix[..], &until.to_be_bytes()].concat();
    scan_range(engine, Space::Postings, (&first, Some(&last)), direction, &mut |key, row| {
        check(Space::Postings, key, row)?;
        found.push(keys::sequence_at_end(key).ok_or_else(|| corrupt(Space::Postings, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// Tokens at the end of the keys that begin with `prefix`.
fn tokens(
    engine: &impl Engine,
    space: Space,
    prefix: &[u8],
    after: Option<Token>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    let mut found = Vec::new();
    if limit == 0 {
        return Ok(found);
    }
    let mut from = prefix.to_vec();
    if let Some(after) = after {
        from.extend_from_slice(after.as_bytes());
        from.push(0);
    }
    scan(engine, space, prefix, &from, Direction::Forward, &mut |key, row| {
        check(space, key, row)?;
        let token = keys::token_at_end(key).filter(|_| key.len() == prefix.len() + 16);
        found.push(token.ok_or_else(|| corrupt(space, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// The rows whose key begins with `prefix` and goes on with so many bytes more, of which the last are a token.
fn token_rows(
    engine: &impl Engine,
    (space, prefix): (Space, &[u8]),
    more: usize,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    rows(engine, (space, prefix), after, limit, |key, row| {
        let token = keys::token_at_end(key).filter(|_| key.len() == prefix.len() + more);
        (token, check(space, key, row).and_then(|_| token.ok_or_else(|| corrupt(space, key))))
    })
}

/// The rows whose key begins with `prefix`, past `after`, those too that are malformed: `read` says at which token a row
/// stands, and what is in it.
fn rows<T>(
    engine: &impl Engine,
    (space, prefix): (Space, &[u8]),
    after: Option<Cursor>,
    limit: usize,
    read: impl Fn(&[u8], &[u8]) -> (Option<Token>, Result<T, StoreError>),
) -> Result<Page<T>, StoreError> {
    let mut found = Page::default();
    let from = after.map_or_else(|| prefix.to_vec(), |after| [&after.place[..], &[0]].concat());
    if limit == 0 || !from.starts_with(prefix) {
        return Ok(found);
    }
    let mut next = None;
    scan(engine, space, prefix, &from, Direction::Forward, &mut |key, row| {
        let (token, read) = read(key, row);
        found.push(token, read)?;
        if found.len() < limit {
            return Ok(ControlFlow::Continue(()));
        }
        next = Some(Cursor::behind(key));
        Ok(ControlFlow::Break(()))
    })?;
    Ok(Page { next, ..found })
}

/// A row's content.
fn content(engine: &impl Engine, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(row) = engine.get(space, key)? else { return Ok(None) };
    check(space, key, row.as_ref()).map(|content| Some(Bytes::copy_from_slice(content)))
}

fn check<'a>(space: Space, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], StoreError> {
    row::content(space, key, row).map_err(|_| corrupt(space, key))
}

/// Visits rows; an error ends the scan.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>;

/// Visits the rows whose key begins with `prefix`, from `from` on.
fn scan(
    engine: &impl Engine,
    space: Space,
    prefix: &[u8],
    from: &[u8],
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let until = keys::past_prefix(prefix);
    scan_range(engine, space, (from, until.as_deref()), direction, visit)
}

fn scan_range(
    engine: &impl Engine,
    space: Space,
    range: (&[u8], Option<&[u8]>),
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let mut failed = None;
    engine.scan(space, range, direction, &mut |key, row| {
        visit(key, row).unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}
