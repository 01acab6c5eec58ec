//! The bytes of rows. Numbers are big-endian; `n:` before a field is its length.
//!
//! ```text
//! any row    content | checksum(8)
//!            checksum = the first 8 bytes of SHA-256(space(1) | 4:key | content), where space and key are those
//!            of the row's place (store::keys)
//!
//! record     version(1)=1 | revision(4) | created(8) | 1:tenant | 1:class | flags(1)
//!            | subject reference(20), if flags & 1 | blind index(20), if flags & 2
//!            | erased at(8), if flags & 4; else key id(16) | key version(4) | 4:sealed bytes
//! key        version(1)=1 | revision(4) | created(8) | key id(16) | 1:tenant (empty: the vault's own) | purpose(1)
//!            | key version(4) | state(1) | number of wraps(4) | each: 4:wrapping key | 4:ciphertext
//!            version(1)=2: the same, and 4:statements, which are not empty
//! remembered version(1)=1 | request(32) | at(8) | expires(8) | number of tokens(4) | each: 0(1), or 1(1) token(16)
//! lease      version(1)=1 | revision(8) | fence(8) | holder(16) | expires(8)
//! job        version(1)=1 | revision(8) | id(16) | state(1) | flags(1) | 1:asked by | asked(8) | not before(8)
//!            | budget: bytes(8) | KMS calls(4) | key id(16), if flags & 1 | 1:approved by, if flags & 2
//!            | KMS set(16), if flags & 4 | 4:asker, if flags & 8 | begun(8) | changed(8) | progress: total(8) | done(8) | failed(8) | bytes(8) | KMS calls(8) | 4:cause
//! entity     version(1)=1 | revision(8) | 4:content
//! identity   version(1)=1 | vault(16) | 1:environment
//! ```
//!
//! Log entries, tiles and pointers are their own content; rows of indexes have none. Behind an entry that has a seal
//! ([`crate::crypto::RowKey`]) stands the seal(37), and the key of its place is sequence(8) | 1(1) where its checksum is made.
//!
//! The checksum finds what a disk or a stray hand changed, and a row put under another key. It has no key: who
//! can write to the store can make one. Against that stand the seal of each record, the seal of each entity, which is a part of
//! its content here ([`crate::crypto::RowKey`]), and the signed log.
//!
//! A row is read strictly: one encoding for each value, nothing after it.

mod record;

use sha2::{Digest, Sha256};

pub(crate) use self::record::{RecordRow, read_record, write_record};

use crate::crypto::ENTRY_SEAL;
use crate::domain::{
    Entity, EntityPlace, Environment, InstanceId, Job, JobBudget, JobId, JobOrder, JobPlace, JobProgress,
    JobState, KeyId, KeyRecord, KeyState, KeyVersion, KmsSet, LeaseName, PrincipalId, TenantId, Timestamp,
    Token, VaultId, VaultIdentity, WrappedKey,
};
use crate::store::keys::{self, Space, purpose_byte};
use crate::store::{Lease, Remembered};

/// Length of the checksum at the end of every row.
pub(crate) const CHECKSUM: usize = 8;

/// The row is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CorruptRow;

const VERSION: u8 = 1;
/// Of a key's row, where there are any.
const WITH_STATEMENTS: u8 = 2;
/// Behind the key of a log entry that has a seal, where its checksum is made.
const SEALED_ENTRY: u8 = 1;
const HAS_KEY: u8 = 1;
const IS_APPROVED: u8 = 2;
const HAS_KMS_SET: u8 = 4;
const HAS_ASKER: u8 = 8;

/// The checksum of a row at its place.
pub(crate) fn checksum(space: Space, key: &[u8], content: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    hash.update([space as u8]);
    hash.update(length(key));
    hash.update(key);
    hash.update(content);
    let digest = hash.finalize();
    *digest.first_chunk().expect("a SHA-256 digest has 32 bytes")
}

/// The checksum of a log entry's row in an embedded engine. One with a seal is checked at a place that no other row has, so that
/// one is not read as the other.
pub(crate) fn entry_checksum(sequence: u64, content: &[u8], sealed: bool) -> [u8; CHECKSUM] {
    let mut place = [0; 9];
    place[..8].copy_from_slice(&sequence.to_be_bytes());
    place[8] = SEALED_ENTRY;
    checksum(Space::Log, if sealed { &place } else { &place[..8] }, content)
}

/// A log entry's row in an embedded engine, after its checksum was compared: the entry, and its seal.
pub(crate) fn read_entry(
    sequence: u64,
    row: &[u8],
) -> Result<(&[u8], Option<&[u8; ENTRY_SEAL]>), CorruptRow> {
    let (content, found) = row.split_last_chunk::<CHECKSUM>().ok_or(CorruptRow)?;
    if *found == entry_checksum(sequence, content, true) {
        let (entry, seal) = content.split_last_chunk::<ENTRY_SEAL>().ok_or(CorruptRow)?;
        return Ok((entry, Some(seal)));
    }
    if *found == entry_checksum(sequence, content, false) { Ok((content, None)) } else { Err(CorruptRow) }
}

/// The content of a row, after its checksum was compared.
pub(crate) fn content<'a>(space: Space, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], CorruptRow> {
    let (content, found) = row.split_last_chunk::<CHECKSUM>().ok_or(CorruptRow)?;
    if *found == checksum(space, key, content) { Ok(content) } else { Err(CorruptRow) }
}

/// Content of a key's row.
pub(crate) fn write_key(key: &KeyRecord, out: &mut Vec<u8>) {
    out.push(if key.statements.is_empty() { VERSION } else { WITH_STATEMENTS });
    out.extend_from_slice(&key.revision.to_be_bytes());
    out.extend_from_slice(&key.created.0.to_be_bytes());
    out.extend_from_slice(key.id.as_bytes());
    push_name(out, key.tenant.as_ref().map_or("", TenantId::as_str));
    out.push(purpose_byte(key.purpose));
    out.extend_from_slice(&key.version.0.to_be_bytes());
    out.push(match key.state {
        KeyState::Active => 1,
        KeyState::Retired => 2,
        KeyState::Compromised => 3,
        KeyState::Destroyed => 4,
    });
    out.extend_from_slice(&count(key.wraps.len()));
    for wrap in &key.wraps {
        push_bytes(out, wrap.wrapping_key.as_bytes());
        push_bytes(out, &wrap.ciphertext);
    }
    if !key.statements.is_empty() {
        push_bytes(out, key.statements.as_bytes());
    }
}

/// The key of the row at `place` in [`Space::Keys`].
pub(crate) fn read_key(place: &[u8], row: &[u8]) -> Result<KeyRecord, CorruptRow> {
    let mut reader = Reader(content(Space::Keys, place, row)?);
    let format = reader.u8()?;
    if ![VERSION, WITH_STATEMENTS].contains(&format) {
        return Err(CorruptRow);
    }
    let revision = reader.u32()?;
    let created = reader.time()?;
    let id = KeyId::from_bytes(*reader.array()?);
    let tenant = match reader.name()? {
        "" => None,
        name => Some(TenantId::parse(name).map_err(|_| CorruptRow)?),
    };
    let purpose = keys::purpose_of(reader.u8()?).ok_or(CorruptRow)?;
    let version = KeyVersion(reader.u32()?);
    let state = match reader.u8()? {
        1 => KeyState::Active,
        2 => KeyState::Retired,
        3 => KeyState::Compromised,
        4 => KeyState::Destroyed,
        _ => return Err(CorruptRow),
    };
    let mut wraps = Vec::new();
    for _ in 0..reader.u32()? {
        let wrapping_key = reader.text()?.to_owned();
        wraps.push(WrappedKey { wrapping_key, ciphertext: reader.bytes()?.to_vec() });
    }
    let statements = if format == VERSION { String::new() } else { reader.text()?.to_owned() };
    reader.end()?;
    if format != VERSION && statements.is_empty() {
        return Err(CorruptRow);
    }
    Ok(KeyRecord { id, tenant, purpose, version, state, created, wraps, revision, statements })
}

/// Content of a remembered answer's row.
pub(crate) fn write_remembered(answer: &Remembered, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&answer.request);
    out.extend_from_slice(&answer.at.0.to_be_bytes());
    out.extend_from_slice(&answer.expires.0.to_be_bytes());
    out.extend_from_slice(&count(answer.tokens.len()));
    for token in &answer.tokens {
        match token {
            None => out.push(0),
            Some(token) => {
                out.push(1);
                out.extend_from_slice(token.as_bytes());
            }
        }
    }
}

/// The remembered answer of a row.
pub(crate) fn read_remembered(key: &[u8; 32], row: &[u8]) -> Result<Remembered, CorruptRow> {
    let mut reader = Reader(content(Space::Remembered, key, row)?);
    reader.version()?;
    let request = *reader.array()?;
    let (at, expires) = (reader.time()?, reader.time()?);
    let mut tokens = Vec::new();
    for _ in 0..reader.u32()? {
        tokens.push(match reader.u8()? {
            0 => None,
            1 => Some(Token::from_bytes(*reader.array()?)),
            _ => return Err(CorruptRow),
        });
    }
    reader.end()?;
    Ok(Remembered { key: *key, request, tokens, at, expires })
}

/// Content of a lease's row; its name is the row's key.
pub(crate) fn write_lease(lease: &Lease, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&lease.revision.to_be_bytes());
    out.extend_from_slice(&lease.fence.to_be_bytes());
    out.extend_from_slice(lease.holder.as_bytes());
    out.extend_from_slice(&lease.expires.0.to_be_bytes());
}

/// The lease of a row.
pub(crate) fn read_lease(name: &LeaseName, row: &[u8]) -> Result<Lease, CorruptRow> {
    let mut reader = Reader(content(Space::Leases, name.as_str().as_bytes(), row)?);
    reader.version()?;
    let (revision, fence) = (reader.u64()?, reader.u64()?);
    let holder = InstanceId::from_bytes(*reader.array()?);
    let expires = reader.time()?;
    reader.end()?;
    Ok(Lease { name: name.clone(), holder, fence, expires, revision })
}

/// Content of a job's row; its place is the row's key.
pub(crate) fn write_job(job: &Job, out: &mut Vec<u8>) {
    let Job { id, place: _, order, state, approved_by, begun, changed, progress, cause, revision } = job;
    let JobOrder { key, budget, asked_by, asked, not_before, asker, kms_set } = order;
    out.push(VERSION);
    out.extend_from_slice(&revision.to_be_bytes());
    out.extend_from_slice(id.as_bytes());
    out.push(match state {
        JobState::Asked => 1,
        JobState::Running => 2,
        JobState::Paused => 3,
        JobState::Done => 4,
        JobState::Failed => 5,
        JobState::Cancelled => 6,
    });
    out.push(
        if key.is_some() { HAS_KEY } else { 0 }
            | if approved_by.is_some() { IS_APPROVED } else { 0 }
            | if kms_set.is_some() { HAS_KMS_SET } else { 0 }
            | if asker.is_empty() { 0 } else { HAS_ASKER },
    );
    push_name(out, asked_by.as_str());
    out.extend_from_slice(&asked.0.to_be_bytes());
    out.extend_from_slice(&not_before.0.to_be_bytes());
    out.extend_from_slice(&budget.bytes.to_be_bytes());
    out.extend_from_slice(&budget.kms_calls.to_be_bytes());
    if let Some(key) = key {
        out.extend_from_slice(key.as_bytes());
    }
    if let Some(principal) = approved_by {
        push_name(out, principal.as_str());
    }
    if let Some(set) = kms_set {
        out.extend_from_slice(set.as_bytes());
    }
    if !asker.is_empty() {
        push_bytes(out, asker);
    }
    let JobProgress { total, done, failed, bytes, kms_calls } = *progress;
    for number in [begun.0, changed.0, total, done, failed, bytes, kms_calls] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    push_bytes(out, cause.as_bytes());
}

/// Where a job's content has its state, and the states of one that is over.
pub(crate) const JOB_STATE: (usize, std::ops::RangeInclusive<u8>) = (25, 4..=6);

/// Whether a job's row says that the job is over. It is not compared with its checksum: to be passed over only.
pub(crate) fn says_over(row: &[u8]) -> bool {
    row.get(JOB_STATE.0).is_some_and(|state| JOB_STATE.1.contains(state))
}

/// The job of a row.
pub(crate) fn read_job(place: &JobPlace, row: &[u8]) -> Result<Job, CorruptRow> {
    read_job_content(place, content(Space::Jobs, &keys::job(place), row)?)
}

/// The job of a row's content, after its checksum was compared.
pub(crate) fn read_job_content(place: &JobPlace, content: &[u8]) -> Result<Job, CorruptRow> {
    let mut reader = Reader(content);
    reader.version()?;
    let revision = reader.u64()?;
    let id = JobId::from_bytes(*reader.array()?);
    let state = match reader.u8()? {
        1 => JobState::Asked,
        2 => JobState::Running,
        3 => JobState::Paused,
        4 => JobState::Done,
        5 => JobState::Failed,
        6 => JobState::Cancelled,
        _ => return Err(CorruptRow),
    };
    let flags = reader.u8()?;
    if flags & !(HAS_KEY | IS_APPROVED | HAS_KMS_SET | HAS_ASKER) != 0 {
        return Err(CorruptRow);
    }
    let asked_by = reader.principal()?;
    let (asked, not_before) = (reader.time()?, reader.time()?);
    let budget = JobBudget { bytes: reader.u64()?, kms_calls: reader.u32()? };
    let key = if flags & HAS_KEY == 0 { None } else { Some(KeyId::from_bytes(*reader.array()?)) };
    let approved_by = if flags & IS_APPROVED == 0 { None } else { Some(reader.principal()?) };
    let kms_set = if flags & HAS_KMS_SET == 0 { None } else { Some(KmsSet::from_bytes(*reader.array()?)) };
    let asker = if flags & HAS_ASKER == 0 { Vec::new() } else { reader.bytes()?.to_vec() };
    if flags & HAS_ASKER != 0 && asker.is_empty() {
        return Err(CorruptRow);
    }
    let (begun, changed) = (reader.time()?, reader.time()?);
    let progress = JobProgress {
        total: reader.u64()?,
        done: reader.u64()?,
        failed: reader.u64()?,
        bytes: reader.u64()?,
        kms_calls: reader.u64()?,
    };
    let cause = reader.text()?.to_owned();
    reader.end()?;
    let order = JobOrder { key, budget, asked_by, asked, not_before, asker, kms_set };
    let place = place.clone();
    Ok(Job { id, place, order, state, approved_by, begun, changed, progress, cause, revision })
}

/// Content of an entity's row; its place is the row's key.
pub(crate) fn write_entity(entity: &Entity, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&entity.revision.to_be_bytes());
    push_bytes(out, &entity.content);
}

/// The entity of a row.
pub(crate) fn read_entity(place: &EntityPlace, row: &[u8]) -> Result<Entity, CorruptRow> {
    read_entity_content(place, content(Space::Entities, &keys::entity(place), row)?)
}

/// The entity of a row's content, after its checksum was compared.
pub(crate) fn read_entity_content(place: &EntityPlace, content: &[u8]) -> Result<Entity, CorruptRow> {
    let mut reader = Reader(content);
    reader.version()?;
    let revision = reader.u64()?;
    let content = reader.bytes()?.to_vec();
    reader.end()?;
    Ok(Entity { place: place.clone(), revision, content })
}

/// Content of the identity's row.
pub(crate) fn write_identity(identity: &VaultIdentity, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(identity.vault.as_bytes());
    push_name(out, identity.environment.as_str());
}

/// The identity of a row's content.
pub(crate) fn read_identity(content: &[u8]) -> Result<VaultIdentity, CorruptRow> {
    let mut reader = Reader(content);
    reader.version()?;
    let vault = VaultId::from_bytes(*reader.array()?);
    let environment = Environment::parse(reader.name()?).map_err(|_| CorruptRow)?;
    reader.end()?;
    Ok(VaultIdentity { vault, environment })
}

fn count(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("a row has far fewer than 2^32 parts or bytes").to_be_bytes()
}

fn length(bytes: &[u8]) -> [u8; 4] {
    count(bytes.len())
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).expect("names have at most 128 bytes"));
    out.extend_from_slice(name.as_bytes());
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CorruptRow> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CorruptRow)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], CorruptRow> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CorruptRow)?;
        self.0 = rest;
        Ok(taken)
    }

    fn version(&mut self) -> Result<(), CorruptRow> {
        if self.u8()? == VERSION { Ok(()) } else { Err(CorruptRow) }
    }

    fn u8(&mut self) -> Result<u8, CorruptRow> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Result<u32, CorruptRow> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, CorruptRow> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    fn time(&mut self) -> Result<Timestamp, CorruptRow> {
        self.u64().map(Timestamp)
    }

    fn bytes(&mut self) -> Result<&'a [u8], CorruptRow> {
        let len = usize::try_from(self.u32()?).map_err(|_| CorruptRow)?;
        self.take(len)
    }

    fn text(&mut self) -> Result<&'a str, CorruptRow> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CorruptRow)
    }

    fn name(&mut self) -> Result<&'a str, CorruptRow> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.take(len)?).map_err(|_| CorruptRow)
    }

    fn principal(&mut self) -> Result<PrincipalId, CorruptRow> {
        PrincipalId::parse(self.name()?).map_err(|_| CorruptRow)
    }

    fn end(self) -> Result<(), CorruptRow> {
        if self.0.is_empty() { Ok(()) } else { Err(CorruptRow) }
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
