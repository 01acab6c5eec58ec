//! Counters at rest.
//!
//! ```text
//! place    counter, of no tenant, SHA-256 of what is counted, each part with its length(8) before it:
//!            "limit" principal rule window-start(8)       how much of a window is reserved
//!            "limit told" principal rule window-start(8)  that it was told that the limit was crossed
//!            "hours told" principal rule day(8)           that it was told of an unusual hour
//!            "tenant told" principal tenant               that it was told of the first use
//! content  version(1)=1 | expires(8) | requests(8) | values(8) | subjects(8)
//! told     version(1)=1 | expires(8)
//! ```
//!
//! After `expires`, in microseconds since 1970, a row may be swept; never, if that is the largest number.

use sha2::{Digest as _, Sha256};

use crate::domain::{Entity, EntityKind, EntityName, EntityPlace};

const VERSION: u8 = 1;

/// The place of a counter.
pub(super) fn place(what: &str, parts: &[&[u8]]) -> EntityPlace {
    let mut hash = Sha256::new();
    for part in std::iter::once(what.as_bytes()).chain(parts.iter().copied()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let name = EntityName::new(&hash.finalize()).expect("32 bytes");
    EntityPlace { kind: EntityKind::Counter, tenant: None, name }
}

/// A row that says that something was told.
pub(super) fn told(place: EntityPlace, expires: u64) -> Entity {
    Entity { place, revision: 0, content: [&[VERSION], expires.to_be_bytes().as_slice()].concat() }
}

/// A row that says how much is reserved.
pub(super) fn reserved(place: EntityPlace, revision: u64, expires: u64, counts: [u64; 3]) -> Entity {
    let mut content = told(place.clone(), expires).content;
    for count in counts {
        content.extend_from_slice(&count.to_be_bytes());
    }
    Entity { place, revision, content }
}

/// How much is reserved; `None` if the row is none of those.
pub(super) fn read(entity: &Entity) -> Option<[u64; 3]> {
    let (_, counts) = split(entity)?;
    let counts: &[u8; 24] = counts.try_into().ok()?;
    let (counts, _) = counts.as_chunks::<8>();
    Some([0, 1, 2].map(|n| u64::from_be_bytes(counts[n])))
}

/// When it may be swept; `None` if another version of the software wrote it.
pub(super) fn expires(entity: &Entity) -> Option<u64> {
    split(entity).map(|(expires, _)| expires)
}

fn split(entity: &Entity) -> Option<(u64, &[u8])> {
    let (&VERSION, rest) = entity.content.split_first()? else { return None };
    let (expires, counts) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*expires), counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_they_always_were() {
        // SHA-256 of 5 "limit" 3 "ann" 4 "bulk" 8 bytes, made with Python's hashlib.
        let place = place("limit", &[b"ann", b"bulk", &7_u64.to_be_bytes()]);
        assert_eq!(
            hex::encode(place.name.as_bytes()),
            "8486152983fb96196bd1a4e953d641b7637dfa43c2f13d84e8c6419e4ecfab94"
        );
        let row = reserved(place.clone(), 3, 9, [1, 2, 3]);
        let hex = "010000000000000009000000000000000100000000000000020000000000000003";
        assert_eq!((hex::encode(&row.content).as_str(), row.revision), (hex, 3));
        assert_eq!((read(&row), expires(&row)), (Some([1, 2, 3]), Some(9)));
        let once = told(place, u64::MAX);
        assert_eq!(hex::encode(&once.content), "01ffffffffffffffff");
        assert_eq!((read(&once), expires(&once)), (None, Some(u64::MAX)));
        let newer = Entity { content: [&[2], &row.content[1..]].concat(), ..row };
        assert_eq!((read(&newer), expires(&newer)), (None, None));
    }

    #[test]
    fn no_two_places_read_alike() {
        assert_ne!(place("a", &[b"b", b"c"]), place("a", &[b"bc", b""]));
        assert_ne!(place("a", &[b"b"]), place("ab", &[]));
    }
}
