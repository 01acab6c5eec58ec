//! Principals as admins see them, and what is other about one than it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::{Principal, TenantScope};
use crate::domain::{TenantId, Timestamp};

use super::KnownPrincipal;

/// What is other about a principal, by name.
pub(super) type Differences = Vec<(&'static str, String)>;

/// With the roles that an admin of `tenant` (or of the vault) sees.
pub(super) fn shown(principal: &Arc<Principal>, tenant: Option<&TenantId>) -> KnownPrincipal {
    let mut roles = principal.roles.clone();
    if let Some(tenant) = tenant {
        roles.retain(|place, _| *place == TenantScope::All || *place == TenantScope::One(tenant.clone()));
    }
    KnownPrincipal { principal: Arc::clone(principal), roles, keys: Vec::new() }
}

/// Whether an admin of `tenant` (or of the vault) has it in its list.
pub(super) fn seen_at(principal: &Principal, tenant: Option<&TenantId>) -> bool {
    tenant.is_none_or(|tenant| !principal.roles_at(&TenantScope::One(tenant.clone())).is_empty())
}

/// What changed, for the log and an alert: of roles those at the tenant that is acted for, or all for an admin of the vault.
pub(super) fn difference(
    before: Option<&Principal>,
    after: &Principal,
    tenant: Option<&TenantId>,
) -> Differences {
    let roles = |principal: &Principal| -> BTreeSet<String> {
        let mut roles = principal.roles.clone();
        roles.retain(|place, _| tenant.is_none_or(|tenant| *place == TenantScope::One(tenant.clone())));
        roles
            .iter()
            .flat_map(|(place, roles)| roles.iter().map(move |role| format!("{place}:{role}")))
            .collect()
    };
    let expiry = |principal: &Principal| -> BTreeSet<String> {
        [principal.expires.map_or_else(|| "never".to_owned(), |Timestamp(us)| us.to_string())].into()
    };
    let owner = |principal: &Principal| principal.owner.iter().cloned().collect::<BTreeSet<_>>();
    let enabled = |principal: &Principal| BTreeSet::from([principal.enabled.to_string()]);
    let identities = |principal: &Principal| principal.identities.clone();
    let mut details = vec![("change", if before.is_some() { "changed" } else { "provisioned" }.to_owned())];
    let mut add = |names: [&'static str; 2], of: &dyn Fn(&Principal) -> BTreeSet<String>| {
        let (old, new) = (before.map(of).unwrap_or_default(), of(after));
        for (name, mut there) in
            names.into_iter().zip([new.difference(&old).peekable(), old.difference(&new).peekable()])
        {
            if there.peek().is_some() {
                details.push((name, there.cloned().collect::<Vec<_>>().join(" ")));
            }
        }
    };
    add(["kind", "kind_before"], &|principal| BTreeSet::from([principal.kind.as_str().to_owned()]));
    add(["roles_given", "roles_taken"], &roles);
    add(["identities_given", "identities_taken"], &identities);
    add(["owner", "owner_before"], &owner);
    add(["expires_us", "expires_us_before"], &expiry);
    add(["enabled", "enabled_before"], &enabled);
    details
}
