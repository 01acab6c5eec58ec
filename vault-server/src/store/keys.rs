//! Where a row stands: its space and its key. Keys sort by their bytes; numbers are big-endian, so that they
//! sort as numbers; names are preceded by their length (one byte), so that none is the beginning of another.
//!
//! | space        | key                                               | row                                |
//! |--------------|---------------------------------------------------|------------------------------------|
//! | `Records`    | token(16)                                         | the record                         |
//! | `Subjects`   | tenant, subject reference(20), token(16)          | empty                              |
//! | `Indexes`    | tenant, class, blind index(20), token(16)         | empty                              |
//! | `SealedUnder`| key id(16), token(16)                             | empty                              |
//! | `Keys`       | tenant (or length 0), purpose(1), version(4)      | the key                            |
//! | `KeyIds`     | key id(16)                                        | the key of its row in `Keys`       |
//! | `Remembered` | idempotency hash(32)                              | the answer                         |
//! | `Expiries`   | expiry(8), idempotency hash(32)                   | empty                              |
//! | `Log`        | sequence(8)                                       | the entry                          |
//! | `Tiles`      | level(1), index(8)                                | the tile                           |
//! | `Postings`   | index key (length 1, bytes), sequence(8)          | empty                              |
//! | `Leases`     | name                                              | the lease                          |
//! | `Jobs`       | tenant (bytes, or none), 0(1), kind(1)            | the job                            |
//! | `Entities`   | kind(1), tenant (bytes, or none), 0(1), name      | the entity                         |
//! | `Meta`       | `format`, `identity`, `records`, `derived`, `checkpoint` | see [`super::row`]          |
//!
//! A tenant's name has no byte below `-`: with a 0 behind it, jobs and entities sort as their tenants do, the vault's own
//! first. An entity's name may have any bytes: the first 0 behind the kind ends the tenant.
//!
//! Every row, an empty one too, ends with the checksum of [`super::row`].
//!
//! A record has a row in `Subjects` and in `SealedUnder` while it holds a value and in `Indexes` while it has an
//! index: an erased one is found by its token only.

use crate::domain::{
    BlindIndex, Body, ClassName, EntityKind, EntityName, EntityPlace, EntityScope, JobKind, JobPlace, KeyId,
    KeyPurpose, KeyVersion, Record, SubjectRef, TenantId, Timestamp, Token,
};
use crate::store::TileId;

/// What kind of row. The number is on disk (as a prefix, and in checksums): never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    Records = 1,
    Subjects = 2,
    Indexes = 3,
    SealedUnder = 4,
    Keys = 5,
    KeyIds = 6,
    Remembered = 7,
    Expiries = 8,
    Log = 9,
    Tiles = 10,
    Postings = 11,
    Meta = 12,
    Leases = 13,
    Jobs = 14,
    Entities = 15,
}

impl Space {
    /// All of them, in the order of their numbers, which count from 1 without a gap.
    pub(crate) const ALL: [Self; 15] = [
        Self::Records,
        Self::Subjects,
        Self::Indexes,
        Self::SealedUnder,
        Self::Keys,
        Self::KeyIds,
        Self::Remembered,
        Self::Expiries,
        Self::Log,
        Self::Tiles,
        Self::Postings,
        Self::Meta,
        Self::Leases,
        Self::Jobs,
        Self::Entities,
    ];

    /// Name of a row of this space in errors, and of the space in engines that name theirs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Records => "record",
            Self::Subjects => "subject-index",
            Self::Indexes => "blind-index",
            Self::SealedUnder => "key-index",
            Self::Keys => "key",
            Self::KeyIds => "key-id",
            Self::Remembered => "remembered-answer",
            Self::Expiries => "expiry-index",
            Self::Log => "log-entry",
            Self::Tiles => "log-tile",
            Self::Postings => "log-index",
            Self::Meta => "meta",
            Self::Leases => "lease",
            Self::Jobs => "job",
            Self::Entities => "entity",
        }
    }

    /// From its place in [`Space::ALL`].
    pub(crate) const fn position(self) -> usize {
        self as usize - 1
    }
}

/// Keys in [`Space::Meta`].
pub(crate) mod meta {
    /// The format of the whole store, a big-endian u64.
    pub(crate) const FORMAT: &[u8] = b"format";
    /// Whose store it is.
    pub(crate) const IDENTITY: &[u8] = b"identity";
    /// How many records there are, a big-endian u64.
    pub(crate) const RECORDS: &[u8] = b"records";
    /// How far derived rows go, a big-endian u64.
    pub(crate) const DERIVED: &[u8] = b"derived";
    /// The newest checkpoint: its size as a big-endian u64, its text.
    pub(crate) const CHECKPOINT: &[u8] = b"checkpoint";
}

/// The beginning of a subject's rows; each goes on with a token.
pub(crate) fn subject(tenant: &TenantId, subject: SubjectRef) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 63 + SubjectRef::LEN + 16);
    push_name(&mut key, tenant.as_str());
    key.extend_from_slice(&subject.to_bytes());
    key
}

/// The beginning of a blind index's rows; each goes on with a token.
pub(crate) fn index(tenant: &TenantId, class: &ClassName, index: BlindIndex) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + 63 + 32 + BlindIndex::LEN + 16);
    push_name(&mut key, tenant.as_str());
    push_name(&mut key, class.as_str());
    key.extend_from_slice(&index.to_bytes());
    key
}

/// The beginning of the rows of blind indexes that a version of the index key made; each goes on with the rest of the
/// index (16 bytes) and a token.
pub(crate) fn indexes_under(tenant: &TenantId, class: &ClassName, version: KeyVersion) -> Vec<u8> {
    let mut key = index(tenant, class, BlindIndex { version, mac: [0; 16] });
    key.truncate(key.len() - 16);
    key
}

/// The beginning of the rows of what is sealed under a key; each goes on with a token.
pub(crate) fn sealed_under(key: KeyId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The beginning of a tenant's (or the vault's) keys of a purpose; each goes on with a version.
pub(crate) fn keys(tenant: Option<&TenantId>, purpose: KeyPurpose) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 63 + 1 + 4);
    push_name(&mut key, tenant.map_or("", TenantId::as_str));
    key.push(purpose_byte(purpose));
    key
}

/// One version of a key.
pub(crate) fn key(tenant: Option<&TenantId>, purpose: KeyPurpose, version: KeyVersion) -> Vec<u8> {
    let mut key = keys(tenant, purpose);
    key.extend_from_slice(&version.0.to_be_bytes());
    key
}

/// A job.
pub(crate) fn job(place: &JobPlace) -> Vec<u8> {
    let mut key = place.tenant.as_ref().map_or(&[][..], |tenant| tenant.as_str().as_bytes()).to_vec();
    key.extend_from_slice(&[0, place.kind.number()]);
    key
}

/// What [`job`] was made of.
pub(crate) fn parse_job(key: &[u8]) -> Option<JobPlace> {
    let [name @ .., 0, kind] = key else { return None };
    Some(JobPlace { tenant: parse_tenant(name)?, kind: JobKind::from_number(*kind)? })
}

/// An entity.
pub(crate) fn entity(place: &EntityPlace) -> Vec<u8> {
    let mut key = entities_of(place.kind, place.tenant.as_ref());
    key.extend_from_slice(place.name.as_bytes());
    key
}

/// What [`entity`] was made of.
pub(crate) fn parse_entity(key: &[u8]) -> Option<EntityPlace> {
    let (kind, rest) = key.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(EntityPlace {
        kind: EntityKind::from_number(*kind)?,
        tenant: parse_tenant(&rest[..end])?,
        name: EntityName::new(&rest[end + 1..])?,
    })
}

/// The beginning of the rows of entities that are read together; each goes on.
pub(crate) fn entities(of: &EntityScope) -> Vec<u8> {
    match of {
        EntityScope::Kind(kind) => vec![kind.number()],
        EntityScope::Tenant(kind, tenant) => entities_of(*kind, tenant.as_ref()),
    }
}

fn entities_of(kind: EntityKind, tenant: Option<&TenantId>) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 63 + 1 + EntityName::MAX_LEN);
    key.push(kind.number());
    key.extend_from_slice(tenant.map_or("", TenantId::as_str).as_bytes());
    key.push(0);
    key
}

/// The tenant of a key in which a 0 ends it. The inner `None`: the vault's own.
#[expect(clippy::option_option, reason = "no tenant is not a malformed one")]
fn parse_tenant(name: &[u8]) -> Option<Option<TenantId>> {
    match std::str::from_utf8(name).ok()? {
        "" => Some(None),
        name => TenantId::parse(name).ok().map(Some),
    }
}

/// When an answer may be forgotten.
pub(crate) fn expiry(expires: Timestamp, answer: &[u8; 32]) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&expires.0.to_be_bytes());
    key[8..].copy_from_slice(answer);
    key
}

/// What [`expiry`] was made of.
pub(crate) fn parse_expiry(key: &[u8]) -> Option<(Timestamp, [u8; 32])> {
    let (expires, answer) = key.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*expires)), answer.try_into().ok()?))
}

/// A tile.
pub(crate) fn tile(id: TileId) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = id.level;
    key[1..].copy_from_slice(&id.index.to_be_bytes());
    key
}

/// The beginning of an index key's rows; each goes on with a sequence. `None` if it is longer than 255 bytes.
pub(crate) fn postings(index_key: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(index_key.len()).ok()?;
    let mut key = Vec::with_capacity(1 + index_key.len() + 8);
    key.push(len);
    key.extend_from_slice(index_key);
    Some(key)
}

/// What the index rows of a record are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Indexed<'a> {
    pub(crate) token: &'a [u8; 16],
    pub(crate) tenant: &'a str,
    pub(crate) class: &'a str,
    /// Of one that holds a value.
    pub(crate) subject: Option<[u8; SubjectRef::LEN]>,
    pub(crate) index: Option<[u8; BlindIndex::LEN]>,
    /// Of one that holds a value.
    pub(crate) key: Option<[u8; 16]>,
}

impl<'a> Indexed<'a> {
    /// The spaces of index rows.
    pub(crate) const SPACES: [Space; 3] = [Space::Subjects, Space::Indexes, Space::SealedUnder];

    pub(crate) fn of(record: &'a Record) -> Self {
        let (subject, key) = match &record.body {
            Body::Sealed { key_id, .. } => (record.subject, Some(*key_id.as_bytes())),
            Body::Erased { .. } => (None, None),
        };
        Self {
            token: record.token.as_bytes(),
            tenant: record.tenant.as_str(),
            class: record.class.as_str(),
            subject: subject.map(SubjectRef::to_bytes),
            index: record.index.map(BlindIndex::to_bytes),
            key,
        }
    }

    /// The key of the row in one of [`Indexed::SPACES`]. Empty: there is none.
    pub(crate) fn key_in(&self, space: Space) -> Vec<u8> {
        let mut key = Vec::new();
        match (space, self.subject, self.index, self.key) {
            (Space::Subjects, Some(subject), _, _) => {
                key.reserve_exact(1 + self.tenant.len() + subject.len() + 16);
                push_name(&mut key, self.tenant);
                key.extend_from_slice(&subject);
            }
            (Space::Indexes, _, Some(index), _) => {
                key.reserve_exact(2 + self.tenant.len() + self.class.len() + index.len() + 16);
                push_name(&mut key, self.tenant);
                push_name(&mut key, self.class);
                key.extend_from_slice(&index);
            }
            (Space::SealedUnder, _, _, Some(id)) => {
                key.reserve_exact(32);
                key.extend_from_slice(&id);
            }
            _ => return key,
        }
        key.extend_from_slice(self.token);
        key
    }

    /// Whether it has the same row as another of the same token in a space, or both have none.
    pub(crate) fn same_in(&self, space: Space, other: &Self) -> bool {
        let of = (self.tenant, self.token) == (other.tenant, other.token);
        match space {
            Space::Subjects => of && self.subject == other.subject,
            Space::Indexes => of && (self.class, self.index) == (other.class, other.index),
            Space::SealedUnder => self.token == other.token && self.key == other.key,
            _ => true,
        }
    }
}

/// The token at the end of an index row's key.
pub(crate) fn token_at_end(key: &[u8]) -> Option<Token> {
    key.last_chunk::<16>().map(|bytes| Token::from_bytes(*bytes))
}

/// The sequence at the end of a log-index row's key.
pub(crate) fn sequence_at_end(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The first key past all that begin with `prefix`: `None` if there is none.
pub(crate) fn past_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// The purpose in keys and rows. Never change one.
pub(crate) const fn purpose_byte(purpose: KeyPurpose) -> u8 {
    match purpose {
        KeyPurpose::Data => 1,
        KeyPurpose::Index => 2,
        KeyPurpose::LogSigning => 3,
        KeyPurpose::RowMac => 4,
    }
}

/// What [`purpose_byte`] was made of.
pub(crate) fn purpose_of(byte: u8) -> Option<KeyPurpose> {
    KeyPurpose::ALL.into_iter().find(|purpose| purpose_byte(*purpose) == byte)
}

fn push_name(key: &mut Vec<u8>, name: &str) {
    key.push(u8::try_from(name.len()).expect("names have at most 128 bytes"));
    key.extend_from_slice(name.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn positions_agree_with_numbers() {
        for (position, space) in Space::ALL.into_iter().enumerate() {
            assert_eq!(space.position(), position);
        }
    }

    #[test]
    fn no_tenants_rows_are_within_anothers() {
        let reference = SubjectRef { version: KeyVersion(1), mac: [7; 16] };
        let (short, long) = (tenant("a"), tenant("ab"));
        assert!(!subject(&long, reference).starts_with(&subject(&short, reference)[..2]));
        assert!(!keys(Some(&long), KeyPurpose::Data).starts_with(&keys(Some(&short), KeyPurpose::Data)[..2]));
        assert_ne!(keys(None, KeyPurpose::Data), keys(Some(&short), KeyPurpose::Data));
    }

    #[test]
    fn moving_a_character_from_tenant_to_class_gives_another_key() {
        let class = |name| ClassName::parse(name).unwrap();
        let blind = BlindIndex { version: KeyVersion(1), mac: [7; 16] };
        assert_ne!(index(&tenant("ab"), &class("c"), blind), index(&tenant("a"), &class("bc"), blind));
    }

    #[test]
    fn jobs_sort_as_their_places_do_and_come_back() {
        let tenants = [None, Some("-"), Some("0"), Some("a"), Some("a-b"), Some("a0"), Some("ab"), Some("b")];
        let tenants = tenants.map(|name| name.and_then(|name| TenantId::parse(name).ok()));
        let mut places: Vec<_> = tenants
            .iter()
            .flat_map(|tenant| {
                JobKind::ALL.iter().map(|kind| JobPlace { tenant: tenant.clone(), kind: *kind })
            })
            .collect();
        places.sort();
        places.dedup();
        assert!(places.iter().is_sorted_by_key(job));
        assert!(places.iter().all(|place| parse_job(&job(place)).as_ref() == Some(place)));
        for bad in [&b""[..], b"\x01", b"\0", b"\0\0", b"\0\x06", b"a\x01", b"A\0\x01", b"a\0\0\x01"] {
            assert_eq!(parse_job(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn entities_sort_as_their_places_do_and_come_back() {
        let tenants = [None, Some("-"), Some("0"), Some("a"), Some("a-b"), Some("a0"), Some("ab"), Some("b")];
        let tenants = tenants.map(|name| name.and_then(|name| TenantId::parse(name).ok()));
        let names = [&b"\0"[..], b"\0\0", b"\0a", b"a", b"a\0", b"ab", b"b\0\0", &[u8::MAX; 64]];
        let mut places = Vec::new();
        for (kind, tenant) in EntityKind::ALL.iter().flat_map(|kind| tenants.iter().map(move |t| (kind, t))) {
            let place = |name| EntityPlace {
                kind: *kind,
                tenant: tenant.clone(),
                name: EntityName::new(name).unwrap(),
            };
            places.extend(names.map(place));
        }
        places.sort();
        places.dedup();
        assert!(places.iter().is_sorted_by_key(entity));
        for place in &places {
            let key = entity(place);
            assert_eq!(parse_entity(&key).as_ref(), Some(place));
            for scope in places.iter().map(|other| EntityScope::Tenant(other.kind, other.tenant.clone())) {
                assert_eq!(key.starts_with(&entities(&scope)), scope.contains(place), "{place:?} {scope:?}");
            }
        }
        for bad in [&b""[..], b"\x01", b"\x01\0", b"\0\0a", b"\x0c\0a", b"\x01A\0a", b"\x01ab"] {
            assert_eq!(parse_entity(bad), None, "{bad:?}");
        }
        assert_eq!(parse_entity(&[&b"\x01\0"[..], &[b'a'; 65]].concat()), None);
    }

    #[test]
    fn past_prefix_is_the_least_key_behind_it() {
        assert_eq!(past_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(past_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(past_prefix(b"\xff\xff"), None);
    }
}
