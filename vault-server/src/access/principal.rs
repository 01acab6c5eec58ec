//! Who may call: principals as they were provisioned, and callers as they were authenticated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::access::{Role, RoleSet};
use crate::domain::{PrincipalId, TenantId, Timestamp};

/// What kind of caller a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalKind {
    /// A program.
    Service,
    /// One person; never shared (45 CFR 164.312(a)(2)(i)).
    Human,
}

impl PrincipalKind {
    /// The name, in the principals file and in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Human => "human",
        }
    }
}

/// Where a role counts. Also what a question is about: one tenant, or the vault as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantScope {
    /// One tenant.
    One(TenantId),
    /// Every tenant, those to come too, and what belongs to none: `*`.
    All,
}

impl fmt::Display for TenantScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(tenant) => fmt::Display::fmt(tenant, f),
            Self::All => f.write_str("*"),
        }
    }
}

/// A provisioned caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its name, in the log and in policies.
    pub id: PrincipalId,
    /// Program or person.
    pub kind: PrincipalKind,
    /// The canonical identities by which a credential is known to be its own.
    pub identities: BTreeSet<String>,
    /// What it is for, and where. Never empty, and no set in it is.
    pub roles: BTreeMap<TenantScope, BTreeSet<Role>>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Whether it may call at all.
    pub enabled: bool,
    /// From when on it may not call any more.
    pub expires: Option<Timestamp>,
    /// How often it was changed since it was provisioned in the vault; `None` for one of the configuration's file.
    pub revision: Option<u64>,
}

impl Principal {
    /// The roles that count at `place`: for a tenant those held there and those held everywhere, for the vault
    /// as a whole only those held everywhere.
    pub fn roles_at(&self, place: &TenantScope) -> RoleSet {
        let mut roles = RoleSet::EMPTY;
        for scope in [Some(place), matches!(place, TenantScope::One(_)).then_some(&TenantScope::All)] {
            roles.extend(scope.and_then(|scope| self.roles.get(scope)).into_iter().flatten());
        }
        roles
    }
}

/// An authenticated caller, for one request. Made by [`Access::authenticate`](crate::access::Access::authenticate).
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// SHA-256 of the certificate, or of the session token.
    pub credential: [u8; 32],
    /// The identity in the certificate or behind the session, as presented.
    pub identity: String,
    /// How it was authenticated.
    pub factors: Vec<&'static str>,
    /// Where the connection comes from.
    pub source: Option<IpAddr>,
}
