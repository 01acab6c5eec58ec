//! Index rows over the log: under which keys an entry is found.
//!
//! ```text
//! 0x01 | token(16)                     tokens and references are random or keyed: they need no tenant
//! 0x02 | subject reference(20)
//! 0x03 | principal(1..128)
//! 0x04 | action(4, big-endian) | tenant(0..63)
//! 0x05 | tenant(0..63)                 empty: entries of the vault itself
//! 0x06 | grant(32)                     as the entry has it, in hexadecimal digits
//! ```
//!
//! A row says where to look, never what is there: readers filter the entries themselves.

use vault_proto::v1::AuditEntry;

pub(super) fn token(token: &[u8]) -> Vec<u8> {
    key(0x01, &[token])
}

pub(super) fn subject(reference: &[u8]) -> Vec<u8> {
    key(0x02, &[reference])
}

pub(super) fn principal(name: &str) -> Vec<u8> {
    key(0x03, &[name.as_bytes()])
}

pub(super) fn action(action: i32, tenant: &str) -> Vec<u8> {
    key(0x04, &[&action.to_be_bytes(), tenant.as_bytes()])
}

pub(super) fn tenant(name: &str) -> Vec<u8> {
    key(0x05, &[name.as_bytes()])
}

pub(super) fn grant(id: &str) -> Vec<u8> {
    key(0x06, &[id.as_bytes()])
}

/// All keys of an entry, each once.
pub(super) fn keys(entry: &AuditEntry) -> Vec<Vec<u8>> {
    let mut keys = vec![tenant(&entry.tenant), action(entry.action, &entry.tenant)];
    if let Some(actor) = entry.actor.as_ref().filter(|actor| !actor.principal.is_empty()) {
        keys.push(principal(&actor.principal));
    }
    if !entry.grant.is_empty() {
        keys.push(grant(&entry.grant));
    }
    keys.extend(once_each(entry.items.iter().map(|item| &item.token[..])).map(token));
    keys.extend(once_each(entry.items.iter().map(|item| &item.subject[..])).map(subject));
    keys
}

/// Those that say something.
fn once_each<'a>(ids: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut ids: Vec<_> = ids.filter(|id| !id.is_empty()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}
