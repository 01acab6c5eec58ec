//! What a change makes more of somebody by. Such a change needs two people; what makes less of somebody is done at once.
//!
//! Which roles matter is known here by name, and asked of the policies besides: no policy can make a role harmless that sees
//! values or steers others, and a site's own policies may give another one such power.

use std::collections::BTreeSet;

use super::question::Asked;
use crate::access::{Action, GrantSeen, Policies, Principal, Role, TenantScope};
use crate::domain::{ClassName, Purpose, TenantId};

/// Roles that see or release values, or steer others, whatever policies say.
const STEERING: &[Role] = &[Role::Service, Role::OnCall, Role::Approver, Role::Auditor, Role::Admin];

/// What sees or releases values, or steers others; of it the calls about values.
const OF_VALUES: &[Action] = &[Action::Find, Action::Erase];
/// And those about the tenant, or the vault.
const OF_PLACES: &[Action] = &[
    Action::PrincipalChange,
    Action::PrincipalApprove,
    Action::GrantRequest,
    Action::GrantApprove,
    Action::GrantReview,
    Action::JobApprove,
    Action::KeyDestroy,
    Action::KeyShred,
    Action::HoneytokenChange,
];

/// By what a change makes more of somebody; empty: by nothing. `before`: `None` for one that is not there yet.
pub(super) fn widened(
    policies: &Policies,
    before: Option<&Principal>,
    after: &Principal,
) -> Vec<&'static str> {
    let mut by = Vec::new();
    if gives_roles(before, after) || opens(policies, before, after) {
        by.push("roles");
    }
    let Some(before) = before else { return by };
    if !after.identities.is_subset(&before.identities) {
        by.push("identities");
    }
    if after.enabled && !before.enabled {
        by.push("enabled");
    }
    let later = match (before.expires, after.expires) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(after)) => after > before,
    };
    if later {
        by.push("expires");
    }
    by
}

/// Whether a role that matters, or any role everywhere, is new.
fn gives_roles(before: Option<&Principal>, after: &Principal) -> bool {
    after.roles.iter().any(|(place, roles)| {
        let had = before.map(|before| before.roles_at(place)).unwrap_or_default();
        roles
            .iter()
            .any(|role| !had.contains(*role) && (*place == TenantScope::All || STEERING.contains(role)))
    })
}

/// Whether policies let it do something that matters and that they did not let it do before: by a role of the site's, by
/// several together, or by the loss of one that a guard hung on.
fn opens(policies: &Policies, before: Option<&Principal>, after: &Principal) -> bool {
    let changed =
        |place: &&TenantScope| before.is_none_or(|before| before.roles_at(place) != after.roles_at(place));
    let classes = policies.named_classes();
    // A role that is held everywhere is held at every tenant, too: at each that policies could treat unlike others, and at others.
    let everywhere = tenants(policies);
    // Where all roles of a place's own are gone, those that are held everywhere are left: without the guards of the others.
    let before_too = before.into_iter().flat_map(|before| before.roles.keys());
    let mut places: BTreeSet<&TenantScope> = after.roles.keys().chain(before_too).collect();
    if places.contains(&TenantScope::All) {
        places.extend(&everywhere);
    }
    places.into_iter().filter(changed).filter(|place| !after.roles_at(place).is_empty()).any(|place| {
        questions(after, place, &classes).any(|asked| {
            let had = before.map(|before| before.roles_at(place)).unwrap_or_default();
            let then = Asked { roles: had, ..asked.clone() };
            policies.evaluate(&asked).allowed && (had.is_empty() || !policies.evaluate(&then).allowed)
        })
    })
}

/// The tenants that policies name, and one that they don't.
fn tenants(policies: &Policies) -> Vec<TenantScope> {
    let mut tenants = policies.named_tenants();
    let others = (0..).map(|number| TenantId::parse(&format!("any-{number}")).expect("a tenant's name"));
    let other = others.into_iter().find(|other| !tenants.contains(other));
    tenants.extend(other);
    tenants.into_iter().map(TenantScope::One).collect()
}

/// All that matters, asked of a principal at a place: about values of any class, and of each that policies make a difference of.
fn questions<'a>(
    principal: &'a Principal,
    place: &'a TenantScope,
    classes: &'a [ClassName],
) -> impl Iterator<Item = Asked> + 'a {
    let asked = move |action, purpose, grant| Asked {
        principal: principal.id.clone(),
        kind: principal.kind,
        roles: principal.roles_at(place),
        place: place.clone(),
        action,
        class: None,
        purpose,
        grant,
    };
    let purposes = Purpose::ALL.iter().map(move |purpose| asked(Action::Detokenize, Some(*purpose), None));
    let under_grant = Some(GrantSeen { approvals: u32::MAX });
    let granted = asked(Action::Detokenize, Some(Purpose::BreakTheGlass), under_grant);
    let of_values = OF_VALUES.iter().map(move |action| asked(*action, None, None));
    let of_values = of_values.chain([granted, asked(Action::Detokenize, None, None)]).chain(purposes);
    let of_classes = of_values.flat_map(move |about| {
        let each = classes.iter().cloned().map(Some).chain([None]);
        each.map(move |class| Asked { class, ..about.clone() })
    });
    OF_PLACES.iter().map(move |action| asked(*action, None, None)).chain(of_classes)
}

#[cfg(test)]
#[path = "widening_tests.rs"]
mod tests;
