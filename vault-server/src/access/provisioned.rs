//! Principals as they are kept in the store, and how each instance learns of a change.
//!
//! ```text
//! place    principal, of no tenant, SHA-256(id)        content  version(1)=1 | protobuf
//! place    principal, of no tenant, "generation"       content  version(1)=1 | random(16)
//! ```
//!
//! Every change of a principal also changes the row `generation`: so changes come one after another, which is what keeps two
//! principals from getting the same identity, and one row tells whether there is anything new.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::access::{Principal, PrincipalKind, Role, TenantScope, identity};
use crate::domain::{Entity, EntityKind, EntityName, EntityPlace, PrincipalId, TenantId, Timestamp};

const VERSION: u8 = 1;
/// No SHA-256 has so few bytes.
const GENERATION: &[u8] = b"generation";

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(string, tag = "1")]
    id: String,
    /// 1: service, 2: human.
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, repeated, tag = "3")]
    identities: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    roles: Vec<RolesRow>,
    #[prost(string, optional, tag = "5")]
    owner: Option<String>,
    #[prost(bool, tag = "6")]
    enabled: bool,
    #[prost(uint64, optional, tag = "7")]
    expires: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RolesRow {
    /// `*`: everywhere.
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, repeated, tag = "2")]
    roles: Vec<String>,
}

/// Where a principal stands.
pub fn principal_place(id: &PrincipalId) -> EntityPlace {
    place(&Sha256::digest(id.as_str()))
}

/// Where the row stands that changes with every principal.
pub fn generation_place() -> EntityPlace {
    place(GENERATION)
}

/// The row of [`generation_place`] with the change after `before`. Random, besides its number: a store that was set back counts
/// to the same number again, and that is another change.
pub fn next_generation(before: Option<&Entity>) -> Result<Entity, getrandom::Error> {
    let revision = before.map_or(0, |before| before.revision + 1);
    let mut content = vec![VERSION; 17];
    getrandom::fill(&mut content[1..])?;
    Ok(Entity { place: generation_place(), revision, content })
}

fn place(name: &[u8]) -> EntityPlace {
    let name = EntityName::new(name).expect("1 to 64 bytes");
    EntityPlace { kind: EntityKind::Principal, tenant: None, name }
}

/// A principal as it is kept.
pub fn write_principal(principal: &Principal) -> Entity {
    let content = content(principal);
    Entity { place: principal_place(&principal.id), revision: principal.revision.unwrap_or(0), content }
}

/// The one encoding of a principal.
pub(super) fn content(principal: &Principal) -> Vec<u8> {
    let row = Row {
        id: principal.id.to_string(),
        kind: match principal.kind {
            PrincipalKind::Service => 1,
            PrincipalKind::Human => 2,
        },
        identities: principal.identities.iter().cloned().collect(),
        roles: principal
            .roles
            .iter()
            .map(|(scope, roles)| RolesRow {
                tenant: scope.to_string(),
                roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
            })
            .collect(),
        owner: principal.owner.clone(),
        enabled: principal.enabled,
        expires: principal.expires.map(|time| time.0),
    };
    let mut content = vec![VERSION];
    content.extend_from_slice(&row.encode_to_vec());
    content
}

/// The principal of a row; `Ok(None)` for the row that is none.
pub fn read_principal(entity: &Entity) -> Result<Option<Principal>, CorruptPrincipal> {
    if entity.place == generation_place() {
        return Ok(None);
    }
    let principal = parse(&entity.content, entity.revision).ok_or(CorruptPrincipal)?;
    // Under another's name it would be found as that.
    if principal_place(&principal.id) == entity.place { Ok(Some(principal)) } else { Err(CorruptPrincipal) }
}

/// The row is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a principal's row is not what was written")]
pub struct CorruptPrincipal;

/// The principal of a row's content.
pub(super) fn parse(content: &[u8], revision: u64) -> Option<Principal> {
    let (&VERSION, bytes) = content.split_first()? else { return None };
    let row = Row::decode(bytes).ok()?;
    let kind = match row.kind {
        1 => PrincipalKind::Service,
        2 => PrincipalKind::Human,
        _ => return None,
    };
    let mut roles = BTreeMap::new();
    for RolesRow { tenant, roles: names } in &row.roles {
        let scope = match tenant.as_str() {
            "*" => TenantScope::All,
            tenant => TenantScope::One(TenantId::parse(tenant).ok()?),
        };
        let held: BTreeSet<_> = names.iter().map(|name| Role::parse(name)).collect::<Option<_>>()?;
        (!held.is_empty()).then_some(())?;
        roles.insert(scope, held);
    }
    let canonical =
        |text: &String| identity::canonical(text).is_ok_and(|canonical| canonical == text.as_str());
    let whole = !row.identities.is_empty() && !roles.is_empty() && row.roles.len() == roles.len();
    (whole && row.identities.iter().all(canonical)).then_some(())?;
    Some(Principal {
        id: PrincipalId::parse(&row.id).ok()?,
        kind,
        identities: row.identities.into_iter().collect(),
        roles,
        owner: row.owner,
        enabled: row.enabled,
        expires: row.expires.map(Timestamp),
        revision: Some(revision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn principal() -> Principal {
        let one = |tenant: &str| TenantScope::One(TenantId::parse(tenant).unwrap());
        Principal {
            id: PrincipalId::parse("ann@example.org").unwrap(),
            kind: PrincipalKind::Human,
            identities: ["spiffe://dev.local/ann".to_owned()].into(),
            roles: [
                (one("demo"), [Role::OnCall, Role::Approver].into()),
                (TenantScope::All, [Role::Auditor].into()),
            ]
            .into(),
            owner: Some("operations".to_owned()),
            enabled: true,
            expires: Some(Timestamp(1_800_000_000_000_000)),
            revision: Some(3),
        }
    }

    /// A row as the first version wrote it.
    const VECTOR: &str = include_str!("vectors/principal.hex");

    #[test]
    fn the_committed_row_opens_to_what_was_written() {
        let content = hex::decode(VECTOR.trim()).unwrap();
        let entity = Entity { place: principal_place(&principal().id), revision: 3, content };
        assert_eq!(read_principal(&entity), Ok(Some(principal())));
        assert_eq!(write_principal(&principal()), entity);
        let service =
            Principal { kind: PrincipalKind::Service, expires: None, enabled: false, ..principal() };
        assert_eq!(read_principal(&write_principal(&service)), Ok(Some(service)));
    }

    #[test]
    fn what_was_not_written_so_is_corrupt() {
        let good = write_principal(&principal());
        let with = |change: &dyn Fn(&mut Entity)| {
            let mut entity = good.clone();
            change(&mut entity);
            read_principal(&entity)
        };
        assert_eq!(with(&|_| ()), Ok(Some(principal())));
        assert_eq!(with(&|entity| entity.content[0] = 2), Err(CorruptPrincipal), "version");
        for len in 0..40 {
            assert_eq!(with(&|entity| entity.content.truncate(len)), Err(CorruptPrincipal), "cut to {len}");
        }
        assert_eq!(with(&|entity| entity.content.clear()), Err(CorruptPrincipal), "empty");
        let other = PrincipalId::parse("bob").unwrap();
        assert_eq!(with(&|entity| entity.place = principal_place(&other)), Err(CorruptPrincipal), "place");
        let rewritten = |change: &dyn Fn(&mut Row)| {
            let mut row = Row::decode(&good.content[1..]).unwrap();
            change(&mut row);
            let content = [vec![VERSION], row.encode_to_vec()].concat();
            read_principal(&Entity { content, ..good.clone() })
        };
        assert_eq!(rewritten(&|row| row.kind = 0), Err(CorruptPrincipal), "kind");
        assert_eq!(rewritten(&|row| row.roles[0].roles[0] = "root".into()), Err(CorruptPrincipal), "role");
        assert_eq!(rewritten(&|row| row.roles[0].tenant = "A".into()), Err(CorruptPrincipal), "tenant");
        let none = Err(CorruptPrincipal);
        assert_eq!(rewritten(&|row| row.id = "Ann B".into()), none, "id");
        assert_eq!(rewritten(&|row| row.identities.clear()), none, "no identity");
        assert_eq!(rewritten(&|row| row.roles.clear()), none, "no roles");
        assert_eq!(rewritten(&|row| row.roles[0].roles.clear()), none, "none at a tenant");
        assert_eq!(rewritten(&|row| row.roles.push(row.roles[0].clone())), none, "a tenant twice");
        let alias = "spiffe://DEV.local/ann";
        assert_eq!(rewritten(&|row| row.identities[0] = alias.into()), Err(CorruptPrincipal), "identity");
    }

    #[test]
    fn the_generation_is_nobody() {
        let first = next_generation(None).unwrap();
        assert_eq!((first.revision, read_principal(&first)), (0, Ok(None)));
        assert_eq!(next_generation(Some(&first)).unwrap().revision, 1);
        assert_ne!(next_generation(None).unwrap(), first, "the same number, another change");
    }
}
