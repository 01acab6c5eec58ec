//! Reads of an engine's rows: keys and rows to the words of the domain, every row checked.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::domain::{
    BlindIndex, ClassName, Entity, EntityPlace, EntityScope, Job, JobPlace, KeyId, KeyPurpose, KeyRecord,
    KeyVersion, LeaseName, Record, SubjectRef, TenantId, Timestamp, Token, VaultIdentity,
};
use crate::store::embedded::engine::{Direction, View};
use crate::store::keys::{self, Space, meta};
use crate::store::row::{self, CHECKSUM};
use crate::store::{
    Cursor, DerivedState, EntityRow, Lease, Lookup, Page, Remembered, StoreError, TileId, UnderWay, corrupt,
};

pub(crate) fn identity(view: &impl View) -> Result<Option<VaultIdentity>, StoreError> {
    let key = meta::IDENTITY;
    let content = content(view, Space::Meta, key)?;
    content.map(|content| row::read_identity(&content).map_err(|_| corrupt(Space::Meta, key))).transpose()
}

/// A number in [`Space::Meta`].
pub(crate) fn number(view: &impl View, key: &[u8]) -> Result<Option<u64>, StoreError> {
    let content = content(view, Space::Meta, key)?;
    let number = |content: Bytes| content.as_ref().try_into().map(u64::from_be_bytes);
    content.map(|content| number(content).map_err(|_| corrupt(Space::Meta, key))).transpose()
}

pub(crate) fn records(view: &impl View, tokens: &[Token]) -> Result<Vec<Lookup>, StoreError> {
    let lookup = |token: &Token| {
        let row = view.get(Space::Records, token.as_bytes())?;
        Ok(row.map_or(Lookup::Missing, |row| {
            row::read_record(*token, row.as_ref())
                .map_or(Lookup::Corrupt, |record| Lookup::Found(Box::new(record)))
        }))
    };
    tokens.iter().map(lookup).collect()
}

pub(crate) fn find(
    view: &impl View,
    tenant: &TenantId,
    class: &ClassName,
    index: BlindIndex,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    tokens(view, Space::Indexes, &keys::index(tenant, class, index), None, limit)
}

pub(crate) fn tokens_of_subject(
    view: &impl View,
    tenant: &TenantId,
    subject: SubjectRef,
    after: Option<Token>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    tokens(view, Space::Subjects, &keys::subject(tenant, subject), after, limit)
}

pub(crate) fn tokens_of_key(
    view: &impl View,
    key: KeyId,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    token_rows(view, (Space::SealedUnder, &keys::sealed_under(key)), 16, after, limit)
}

pub(crate) fn count_of_key(view: &impl View, key: KeyId) -> Result<u64, StoreError> {
    let (prefix, mut count) = (keys::sealed_under(key), 0);
    scan(view, Space::SealedUnder, &prefix, &prefix, Direction::Forward, &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// Whether any record is sealed under a key. A row that is not what was written counts: it was one once.
pub(crate) fn is_used(view: &impl View, key: KeyId) -> Result<bool, StoreError> {
    let prefix = keys::sealed_under(key);
    let end = keys::past_prefix(&prefix);
    let mut used = false;
    view.scan(Space::SealedUnder, (&prefix, end.as_deref()), Direction::Forward, &mut |_, _| {
        used = true;
        ControlFlow::Break(())
    })?;
    Ok(used)
}

pub(crate) fn indexed_under(
    view: &impl View,
    (tenant, class): (&TenantId, &ClassName),
    version: KeyVersion,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    // The rest of the index, and the token.
    token_rows(view, (Space::Indexes, &keys::indexes_under(tenant, class, version)), 16 + 16, after, limit)
}

pub(crate) fn keys(
    view: &impl View,
    tenant: Option<&TenantId>,
    purpose: KeyPurpose,
) -> Result<Vec<KeyRecord>, StoreError> {
    let prefix = keys::keys(tenant, purpose);
    let mut found = Vec::new();
    scan(view, Space::Keys, &prefix, &prefix, Direction::Forward, &mut |key, row| {
        found.push(row::read_key(key, row).map_err(|_| corrupt(Space::Keys, key))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn key(view: &impl View, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
    let Some(place) = content(view, Space::KeyIds, id.as_bytes())? else { return Ok(None) };
    let lost = || corrupt(Space::KeyIds, id.as_bytes());
    let row = view.get(Space::Keys, &place)?.ok_or_else(lost)?;
    let key = row::read_key(&place, row.as_ref()).map_err(|_| corrupt(Space::Keys, &place))?;
    if key.id == id { Ok(Some(key)) } else { Err(lost()) }
}

pub(crate) fn remembered(view: &impl View, key: &[u8; 32]) -> Result<Option<Remembered>, StoreError> {
    let read = |row: &[u8]| row::read_remembered(key, row).map_err(|_| corrupt(Space::Remembered, key));
    view.get(Space::Remembered, key)?.map(|row| read(row.as_ref())).transpose()
}

/// Answers that expired before `now`, at most `limit`, oldest first.
pub(crate) fn expired(
    view: &impl View,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, [u8; 32])>, StoreError> {
    let mut found = Vec::new();
    scan(view, Space::Expiries, &[], &[], Direction::Forward, &mut |key, row| {
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

pub(crate) fn lease(view: &impl View, name: &LeaseName) -> Result<Option<Lease>, StoreError> {
    let key = name.as_str().as_bytes();
    let read = |row: &[u8]| row::read_lease(name, row).map_err(|_| corrupt(Space::Leases, key));
    view.get(Space::Leases, key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn job(view: &impl View, place: &JobPlace) -> Result<Option<Job>, StoreError> {
    let key = keys::job(place);
    let read = |row: &[u8]| row::read_job(place, row).map_err(|_| corrupt(Space::Jobs, &key));
    view.get(Space::Jobs, &key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn jobs(view: &impl View, after: Option<&JobPlace>, limit: usize) -> Result<Vec<Job>, StoreError> {
    let from = after.map(keys::job);
    page(view, Space::Jobs, from.as_deref(), limit, |key, row| {
        row::read_job(&keys::parse_job(key)?, row).ok()
    })
}

/// The same with those that are malformed.
pub(crate) fn job_rows(
    view: &impl View,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Job>, StoreError> {
    rows(view, (Space::Jobs, &[]), after, limit, |key, row| {
        let job = keys::parse_job(key).and_then(|place| row::read_job(&place, row).ok());
        (None, job.ok_or_else(|| corrupt(Space::Jobs, key)))
    })
}

pub(crate) fn entity(view: &impl View, place: &EntityPlace) -> Result<Option<Entity>, StoreError> {
    let key = keys::entity(place);
    let read = |row: &[u8]| row::read_entity(place, row).map_err(|_| corrupt(Space::Entities, &key));
    view.get(Space::Entities, &key)?.map(|row| read(row.as_ref())).transpose()
}

pub(crate) fn entities(
    view: &impl View,
    of: &EntityScope,
    after: Option<&EntityPlace>,
    limit: usize,
) -> Result<Vec<Entity>, StoreError> {
    some_entities(view, of, after, limit, |key, read| {
        read.map(Some).ok_or_else(|| corrupt(Space::Entities, key))
    })
}

/// The same with those that are malformed.
pub(crate) fn entity_rows(
    view: &impl View,
    of: &EntityScope,
    after: Option<&EntityPlace>,
    limit: usize,
) -> Result<Vec<EntityRow>, StoreError> {
    some_entities(view, of, after, limit, |key, read| Ok(EntityRow::at(key, read)))
}

/// What `take` makes of the rows of a scope past `after`: of the key, and what was read.
fn some_entities<R>(
    view: &impl View,
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
    scan(view, Space::Entities, &prefix, &from, Direction::Forward, &mut |key, row| {
        let read = keys::parse_entity(key).and_then(|place| row::read_entity(&place, row).ok());
        found.extend(take(key, read)?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

pub(crate) fn jobs_under_way(view: &impl View) -> Result<UnderWay, StoreError> {
    let mut found = UnderWay::default();
    scan(view, Space::Jobs, &[], &[], Direction::Forward, &mut |key, row| {
        if !row::says_over(row) {
            let job = keys::parse_job(key).and_then(|place| row::read_job(&place, row).ok());
            found.push(job.ok_or_else(|| corrupt(Space::Jobs, key)))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) fn scan_records(
    view: &impl View,
    after: Option<Token>,
    limit: usize,
) -> Result<Vec<Record>, StoreError> {
    let from = after.map(|token| *token.as_bytes());
    page(view, Space::Records, from.as_ref().map(<[u8; 16]>::as_slice), limit, |key, row| {
        let token = Token::from_bytes(key.try_into().ok()?);
        row::read_record(token, row).ok()
    })
}

pub(crate) fn scan_keys(
    view: &impl View,
    after: Option<KeyId>,
    limit: usize,
) -> Result<Vec<KeyRecord>, StoreError> {
    let from = after.map(|id| *id.as_bytes());
    let ids = page(view, Space::KeyIds, from.as_ref().map(<[u8; 16]>::as_slice), limit, |id, row| {
        row::content(Space::KeyIds, id, row).ok()?;
        id.try_into().ok().map(KeyId::from_bytes)
    })?;
    let lost = |id: &KeyId| corrupt(Space::KeyIds, id.as_bytes());
    ids.iter().map(|id| key(view, *id)?.ok_or_else(|| lost(id))).collect()
}

/// The same with those that are malformed.
pub(crate) fn key_rows(
    view: &impl View,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<KeyRecord>, StoreError> {
    let ids = rows(view, (Space::KeyIds, &[]), after, limit, |id, row| {
        let lost = || corrupt(Space::KeyIds, id);
        let read = check(Space::KeyIds, id, row).and_then(|_| id.try_into().map_err(|_| lost()));
        (None, read.map(KeyId::from_bytes))
    })?;
    let mut found = Page { items: Vec::new(), malformed: ids.malformed, next: ids.next };
    for id in ids.items {
        let read = key(view, id).and_then(|key| key.ok_or_else(|| corrupt(Space::KeyIds, id.as_bytes())));
        found.push(None, read)?;
    }
    Ok(found)
}

pub(crate) fn scan_remembered(
    view: &impl View,
    after: Option<[u8; 32]>,
    limit: usize,
) -> Result<Vec<Remembered>, StoreError> {
    page(view, Space::Remembered, after.as_ref().map(<[u8; 32]>::as_slice), limit, |key, row| {
        row::read_remembered(key.try_into().ok()?, row).ok()
    })
}

/// The rows of a space past `after`, each read by `read`.
fn page<R>(
    view: &impl View,
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
    scan(view, space, &[], &from, Direction::Forward, &mut |key, row| {
        found.push(read(key, row).ok_or_else(|| corrupt(space, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// How many entries there are, durable or not.
pub(crate) fn log_end(view: &impl View) -> Result<u64, StoreError> {
    let mut end = 0;
    scan(view, Space::Log, &[], &[], Direction::Backward, &mut |key, _| {
        let last = key.try_into().map(u64::from_be_bytes).map_err(|_| corrupt(Space::Log, key))?;
        end = last.checked_add(1).ok_or_else(|| corrupt(Space::Log, key))?;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(end)
}

/// Entries of `start..end`: at least one if there is one, then as many as fit. `check` is told each one's sequence, bytes and
/// seal.
pub(crate) fn entries(
    view: &impl View,
    (start, end): (u64, u64),
    max_entries: usize,
    max_bytes: usize,
    check: impl Fn(u64, &[u8], Option<&[u8]>) -> Result<(), StoreError>,
) -> Result<Vec<Bytes>, StoreError> {
    let mut found: Vec<Bytes> = Vec::new();
    if start >= end {
        return Ok(found);
    }
    let (mut next, mut bytes) = (start, 0);
    scan(view, Space::Log, &[], &start.to_be_bytes(), Direction::Forward, &mut |key, row| {
        let len = row.len().saturating_sub(CHECKSUM);
        let full = !found.is_empty() && (found.len() >= max_entries || bytes + len > max_bytes);
        if full || next >= end {
            return Ok(ControlFlow::Break(()));
        }
        if key != next.to_be_bytes() {
            return Err(corrupt(Space::Log, &next.to_be_bytes()));
        }
        let (entry, seal) = row::read_entry(next, row).map_err(|_| corrupt(Space::Log, key))?;
        check(next, entry, seal.map(<[_; _]>::as_slice))?;
        found.push(Bytes::copy_from_slice(entry));
        bytes += len;
        next += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    // The log ends before `end`.
    if found.is_empty() { Err(corrupt(Space::Log, &start.to_be_bytes())) } else { Ok(found) }
}

pub(crate) fn derived(view: &impl View) -> Result<DerivedState, StoreError> {
    let upto = number(view, meta::DERIVED)?.unwrap_or(0);
    let lost = || corrupt(Space::Meta, meta::CHECKPOINT);
    let checkpoint = match content(view, Space::Meta, meta::CHECKPOINT)? {
        None => None,
        Some(content) => {
            let (size, text) = content.split_first_chunk().ok_or_else(lost)?;
            let text = std::str::from_utf8(text).map_err(|_| lost())?;
            Some((u64::from_be_bytes(*size), text.to_owned()))
        }
    };
    Ok(DerivedState { upto, checkpoint })
}

pub(crate) fn tile(view: &impl View, id: TileId) -> Result<Option<Bytes>, StoreError> {
    content(view, Space::Tiles, &keys::tile(id))
}

/// Sequences under an index key within `from..until`.
pub(crate) fn postings(
    view: &impl View,
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
    scan_range(view, Space::Postings, (&first, Some(&last)), direction, &mut |key, row| {
        check(Space::Postings, key, row)?;
        found.push(keys::sequence_at_end(key).ok_or_else(|| corrupt(Space::Postings, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// Tokens at the end of the keys that begin with `prefix`.
fn tokens(
    view: &impl View,
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
    scan(view, space, prefix, &from, Direction::Forward, &mut |key, row| {
        check(space, key, row)?;
        let token = keys::token_at_end(key).filter(|_| key.len() == prefix.len() + 16);
        found.push(token.ok_or_else(|| corrupt(space, key))?);
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// The rows whose key begins with `prefix` and goes on with so many bytes more, of which the last are a token.
fn token_rows(
    view: &impl View,
    (space, prefix): (Space, &[u8]),
    more: usize,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, StoreError> {
    rows(view, (space, prefix), after, limit, |key, row| {
        let token = keys::token_at_end(key).filter(|_| key.len() == prefix.len() + more);
        (token, check(space, key, row).and_then(|_| token.ok_or_else(|| corrupt(space, key))))
    })
}

/// The rows whose key begins with `prefix`, past `after`, those too that are malformed: `read` says at which token a row
/// stands, and what is in it.
fn rows<T>(
    view: &impl View,
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
    scan(view, space, prefix, &from, Direction::Forward, &mut |key, row| {
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
fn content(view: &impl View, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(row) = view.get(space, key)? else { return Ok(None) };
    check(space, key, row.as_ref()).map(|content| Some(Bytes::copy_from_slice(content)))
}

fn check<'a>(space: Space, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], StoreError> {
    row::content(space, key, row).map_err(|_| corrupt(space, key))
}

/// Visits rows; an error ends the scan.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>;

/// Visits the rows whose key begins with `prefix`, from `from` on.
fn scan(
    view: &impl View,
    space: Space,
    prefix: &[u8],
    from: &[u8],
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let until = keys::past_prefix(prefix);
    scan_range(view, space, (from, until.as_deref()), direction, visit)
}

fn scan_range(
    view: &impl View,
    space: Space,
    range: (&[u8], Option<&[u8]>),
    direction: Direction,
    visit: Visit<'_>,
) -> Result<(), StoreError> {
    let mut failed = None;
    view.scan(space, range, direction, &mut |key, row| {
        visit(key, row).unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}
