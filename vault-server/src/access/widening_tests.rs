use super::*;
use crate::access::PrincipalKind;
use crate::access::testing::test_policies;
use crate::domain::{Environment, PrincipalId, Timestamp};

fn roles_at(tenant: &str, roles: &[Role]) -> (TenantScope, BTreeSet<Role>) {
    let place = match tenant {
        "*" => TenantScope::All,
        tenant => TenantScope::One(TenantId::parse(tenant).unwrap()),
    };
    (place, roles.iter().copied().collect())
}

fn ann(roles: &[(&str, &[Role])]) -> Principal {
    Principal {
        id: PrincipalId::parse("ann").unwrap(),
        kind: PrincipalKind::Human,
        identities: ["spiffe://test.local/ann".to_owned()].into(),
        roles: roles.iter().map(|(tenant, roles)| roles_at(tenant, roles)).collect(),
        owner: None,
        enabled: true,
        expires: Some(Timestamp(5)),
        revision: Some(0),
    }
}

fn by(before: Option<&Principal>, after: &Principal) -> Vec<&'static str> {
    widened(&test_policies("prod"), before, after)
}

#[test]
fn a_new_one_is_more_by_each_role_that_sees_values_or_steers_others() {
    for &role in Role::ALL {
        let harmless = matches!(role, Role::Console | Role::Rotator);
        let wanted: &[&str] = if harmless { &[] } else { &["roles"] };
        for kind in [PrincipalKind::Human, PrincipalKind::Service] {
            let new = Principal { kind, ..ann(&[("demo", &[role])]) };
            assert_eq!(by(None, &new), wanted, "{role}");
        }
        assert_eq!(by(None, &ann(&[("*", &[role])])), ["roles"], "{role} everywhere");
    }
}

#[test]
fn whatever_makes_more_of_somebody_is_found_and_what_makes_less_is_not() {
    let before = ann(&[("demo", &[Role::OnCall, Role::Console])]);
    let with = |change: &dyn Fn(&mut Principal)| {
        let mut after = before.clone();
        change(&mut after);
        by(Some(&before), &after)
    };
    let nothing: [&str; 0] = [];
    let add = |after: &mut Principal, tenant: &str, role| {
        after.roles.entry(roles_at(tenant, &[]).0).or_default().insert(role);
    };
    assert_eq!(with(&|_| ()), nothing);
    // More.
    assert_eq!(with(&|after| add(after, "demo", Role::Approver)), ["roles"]);
    assert_eq!(with(&|after| add(after, "other", Role::OnCall)), ["roles"], "the same elsewhere");
    assert_eq!(with(&|after| add(after, "*", Role::Console)), ["roles"], "the same everywhere");
    let other = || "spiffe://test.local/other".to_owned();
    assert_eq!(with(&|after| after.identities.extend([other()])), ["identities"]);
    assert_eq!(with(&|after| after.identities = [other()].into()), ["identities"], "one for another");
    assert_eq!(with(&|after| after.expires = Some(Timestamp(6))), ["expires"]);
    assert_eq!(with(&|after| after.expires = None), ["expires"]);
    let more = |after: &mut Principal| {
        add(after, "demo", Role::Admin);
        after.identities.insert(other());
        after.expires = None;
    };
    assert_eq!(with(&more), ["roles", "identities", "expires"]);
    // Less, or neither.
    assert_eq!(with(&|after| add(after, "demo", Role::Rotator)), nothing);
    assert_eq!(with(&|after| after.roles = [roles_at("demo", &[Role::Console])].into()), nothing);
    assert_eq!(with(&|after| after.expires = Some(Timestamp(4))), nothing);
    assert_eq!(with(&|after| after.owner = Some("me".to_owned())), nothing);
    assert_eq!(with(&|after| after.enabled = false), nothing);
    // What was narrow may not become wide step by step.
    let off = Principal { enabled: false, expires: None, ..before.clone() };
    assert_eq!(by(Some(&off), &before), ["enabled"]);
    let two = Principal { identities: [other(), "spiffe://test.local/ann".to_owned()].into(), ..off.clone() };
    assert_eq!(by(Some(&two), &off), nothing, "it loses an identity, and stays off");
    let forever = Principal { expires: None, ..before.clone() };
    assert_eq!(by(Some(&forever), &before), nothing, "an end where there was none");
}

/// Who is admin, too, approves no grants, and who sees masks has no hand in keys: the loss of a role can be a gain.
#[test]
fn the_loss_of_a_role_that_a_guard_hung_on_makes_more_of_somebody() {
    for (before, after) in [
        (&[Role::Admin, Role::Approver][..], &[Role::Approver][..]),
        (&[Role::Admin, Role::OnCall], &[Role::OnCall]),
        (&[Role::Admin, Role::Console], &[Role::Admin]),
    ] {
        for place in ["demo", "*"] {
            let (before, after) = (ann(&[(place, before)]), ann(&[(place, after)]));
            assert_eq!(by(Some(&before), &after), ["roles"], "{:?} {:?}", before.roles, after.roles);
        }
    }
    let (before, after) =
        (ann(&[("demo", &[Role::Admin, Role::Auditor])]), ann(&[("demo", &[Role::Auditor])]));
    assert!(by(Some(&before), &after).is_empty(), "no guard hangs on this one");
}

/// A site's own policies may give power to a role that has none, to somebody by name, or for one class alone.
#[test]
fn policies_can_make_a_role_matter_but_none_harmless() {
    let site = |policy: &str| {
        let environment = Environment::parse("prod").unwrap();
        let text = format!("{}\n{policy}", crate::access::policy::BUILTIN);
        Policies::parse(&text, environment).unwrap()
    };
    let plain = site("");
    let new = ann(&[("demo", &[Role::Console])]);
    assert!(widened(&plain, None, &new).is_empty());
    for policy in [
        "@id(\"x\") permit (principal in Role::\"console\", action == Action::\"detokenize\", resource) \
         when { context has purpose && context.purpose == Purpose::\"DISASTER\" };",
        "@id(\"x\") permit (principal == Principal::\"ann\", action == Action::\"detokenize\", \
         resource == DataClass::\"npi\") when { context has purpose };",
        "@id(\"x\") permit (principal in Role::\"console\", action == Action::\"detokenize\", resource) \
         when { context has grant && context.grant.approvals > 2 };",
        "@id(\"x\") permit (principal in Role::\"console\", action == Action::\"find\", resource);",
        "@id(\"x\") permit (principal in Role::\"console\", action == Action::\"principal_approve\", resource);",
    ] {
        assert_eq!(widened(&site(policy), None, &new), ["roles"], "{policy}");
    }
    let nothing = site("@id(\"x\") forbid (principal, action, resource);");
    assert!(widened(&nothing, None, &new).is_empty());
    assert_eq!(widened(&nothing, None, &ann(&[("demo", &[Role::Approver])])), ["roles"]);
}

#[test]
fn who_loses_all_roles_of_a_place_may_be_more_by_those_held_everywhere() {
    let nothing: [&str; 0] = [];
    let everywhere = ann(&[("*", &[Role::OnCall])]);
    let guarded = ann(&[("*", &[Role::OnCall]), ("st-mary", &[Role::Admin])]);
    assert_eq!(by(Some(&guarded), &everywhere), ["roles"], "who keeps principals asks for no grants");
    let masked = ann(&[("*", &[Role::Admin]), ("st-mary", &[Role::Console])]);
    assert_eq!(by(Some(&masked), &ann(&[("*", &[Role::Admin])])), ["roles"]);
    let plain = ann(&[("demo", &[Role::OnCall]), ("st-mary", &[Role::Admin])]);
    assert_eq!(by(Some(&plain), &ann(&[("demo", &[Role::OnCall])])), nothing);
}

#[test]
fn a_guard_of_one_class_is_lost_with_the_role_that_it_hangs_on() {
    let text = "@id(\"values\")\n\
                permit (principal in Role::\"service\", action == Action::\"detokenize\", resource);\n\
                @id(\"guard\")\n\
                forbid (principal in Role::\"console\", action == Action::\"detokenize\", \
                resource == DataClass::\"ssn\");\n";
    let policies = Policies::parse(text, Environment::parse("prod").unwrap()).unwrap();
    let both = ann(&[("demo", &[Role::Service, Role::Console])]);
    assert_eq!(widened(&policies, Some(&both), &ann(&[("demo", &[Role::Service])])), ["roles"]);
    let nothing: [&str; 0] = [];
    assert_eq!(widened(&policies, Some(&both), &ann(&[("demo", &[Role::Console])])), nothing);
}

fn with_services(guard: &str) -> Policies {
    let text = format!(
        "@id(\"values\") permit (principal in Role::\"service\", action == Action::\"detokenize\", resource);\n{guard}"
    );
    Policies::parse(&text, Environment::parse("prod").unwrap()).unwrap()
}

/// A role that is held everywhere may be what a guard of one tenant alone hangs on.
#[test]
fn a_guard_of_one_tenant_is_lost_with_a_role_that_is_held_everywhere() {
    let nothing: [&str; 0] = [];
    let guards = [
        "@id(\"guard\") forbid (principal in Role::\"console\", action == Action::\"detokenize\", \
         resource in Tenant::\"st-mary\");",
        // Everywhere but at the one that is named: also at tenants that nobody has heard of.
        "@id(\"guard\") forbid (principal in Role::\"console\", action == Action::\"detokenize\", resource) \
         unless { resource in Tenant::\"any-0\" };",
    ];
    let (both, service) = (&[Role::Service, Role::Console][..], &[Role::Service][..]);
    for guard in guards {
        let policies = with_services(guard);
        let by = |before: &[(&str, &[Role])], after: &[(&str, &[Role])]| {
            widened(&policies, Some(&ann(before)), &ann(after))
        };
        assert_eq!(by(&[("*", both)], &[("*", service)]), ["roles"], "{guard}");
        let apart = [("*", service), ("demo", &[Role::Console][..])];
        assert_eq!(by(&[("*", both)], &apart), ["roles"], "{guard}: it is kept at one tenant");
        assert_eq!(by(&[("*", both)], &[("*", &[Role::Console])]), nothing, "{guard}: what it guards goes");
    }
    // Where no guard hangs on it, a role that goes is less.
    let other = "@id(\"guard\") forbid (principal in Role::\"oncall\", action == Action::\"detokenize\", \
                 resource in Tenant::\"st-mary\");";
    let gone = widened(&with_services(other), Some(&ann(&[("*", both)])), &ann(&[("*", service)]));
    assert_eq!(gone, nothing);
}
