use std::time::Instant;

use super::*;
use crate::access::testing::{
    test_access, test_caller, test_caller_everywhere, test_credential, test_directory, test_policies,
    test_tenant,
};
use crate::access::{Reason, Role};
use crate::crypto::{Detokenize, Mask};
use crate::domain::{Body, Environment, KeyId, KeyVersion, Sealed, Token};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const ALL: &str = "@id(\"all\") permit (principal, action, resource);";

fn site(text: &str) -> Policies {
    Policies::parse(text, Environment::parse("dev").unwrap()).unwrap()
}

fn class(name: &str) -> ClassName {
    ClassName::parse(name).unwrap()
}

fn token(number: u8) -> Token {
    Token::from_bytes([number; 16])
}

fn record(number: u8, tenant: &str, of: &str) -> Record {
    Record {
        token: token(number),
        tenant: TenantId::parse(tenant).unwrap(),
        class: class(of),
        subject: None,
        index: None,
        created: Timestamp(0),
        body: Body::Sealed {
            key_id: KeyId::from_bytes([1; 16]),
            key_version: KeyVersion::FIRST,
            bytes: Sealed(Vec::new()),
        },
        revision: 0,
    }
}

fn ask(action: Action) -> Question<'static> {
    Question { action, class: None, purpose: Some(Purpose::Treatment), grant: None }
}

fn request() -> RequestId {
    RequestId::from_bytes([9; 16])
}

#[test]
fn access_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Access>();
    shared::<Permit<Detokenize>>();
}

#[test]
fn a_permit_owns_the_allowed_records_in_order() {
    let access = test_access();
    let records = vec![record(1, "demo", "ssn"), record(2, "other", "ssn"), record(3, "demo", "dob")];
    let (permit, verdicts) = access.permit::<Detokenize>(
        &test_caller(Role::Service),
        request(),
        &test_tenant(),
        Some(Purpose::Payment),
        records,
    );
    assert_eq!(permit.request(), request());
    assert_eq!(permit.policies().iter().collect::<Vec<_>>(), ["service-detokenizes-for-a-purpose"]);
    let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(reasons, [Reason::Allowed, Reason::ForeignTenant, Reason::Allowed]);
    let tokens: Vec<_> = permit.into_records().into_iter().map(|record| record.token).collect();
    assert_eq!(tokens, [token(1), token(3)]);
}

#[test]
fn a_foreign_record_is_never_permitted_whatever_the_policy() {
    let access = Access::new(test_directory(), site(ALL));
    for caller in [test_caller(Role::Service), test_caller_everywhere(Role::Admin)] {
        let records = vec![record(1, "other", "ssn")];
        let (permit, verdicts) = access.permit::<Mask>(&caller, request(), &test_tenant(), None, records);
        assert!(permit.records().is_empty() && permit.policies().is_empty());
        assert_eq!(verdicts[0].reason, Reason::ForeignTenant);
    }
    // Neither is one of the tenant asked for, if the caller has no role there.
    let (other, records) = (TenantId::parse("other").unwrap(), vec![record(1, "other", "ssn")]);
    let (permit, verdicts) =
        access.permit::<Mask>(&test_caller(Role::Service), request(), &other, None, records);
    assert!(permit.records().is_empty());
    assert_eq!(verdicts[0].reason, Reason::ForeignTenant);
}

#[test]
fn a_permit_denies_by_class() {
    let text = format!("{ALL} @id(\"no-ssn\") forbid (principal, action, resource == DataClass::\"ssn\");");
    let access = Access::new(test_directory(), site(&text));
    let records = vec![record(1, "demo", "ssn"), record(2, "demo", "dob"), record(3, "demo", "ssn")];
    let (permit, verdicts) =
        access.permit::<Mask>(&test_caller(Role::Console), request(), &test_tenant(), None, records);
    let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(reasons, [Reason::DeniedByPolicy, Reason::Allowed, Reason::DeniedByPolicy]);
    assert_eq!(permit.records().len(), 1);
    assert_eq!(verdicts[0].policies.concat(), "no-ssn");
}

#[test]
fn nobody_but_a_service_detokenizes() {
    let access = test_access();
    for &role in Role::ALL {
        let records = vec![record(1, "demo", "ssn")];
        let (permit, verdicts) = access.permit::<Detokenize>(
            &test_caller(role),
            request(),
            &test_tenant(),
            Some(Purpose::Treatment),
            records,
        );
        assert_eq!(verdicts[0].allowed, role == Role::Service, "{role}");
        assert_eq!(permit.records().len(), usize::from(role == Role::Service), "{role}");
    }
}

#[test]
fn a_reload_counts_for_the_next_question() {
    let access = test_access();
    let (caller, tenant) = (test_caller(Role::Service), test_tenant());
    for _ in 0..2 {
        assert!(access.decide(&caller, &tenant, ask(Action::Detokenize)).allowed);
        let generation = access.reload(test_directory(), site(""));
        assert_eq!(generation, access.generation());
        assert!(
            !access.decide(&caller, &tenant, ask(Action::Detokenize)).allowed,
            "answered from an old cache"
        );
        access.reload(test_directory(), test_policies("dev"));
    }
    assert_eq!(access.generation(), 5);
}

#[test]
fn a_verdict_is_kept_for_the_whole_question_only() {
    let text = "@id(\"a\") permit (principal == Principal::\"console\", action == Action::\"mask\", \
                resource == DataClass::\"ssn\") \
                when { resource in Tenant::\"demo\" && context has purpose && context.purpose == Purpose::\"TREAT\" };";
    let access = Access::new(test_directory(), site(text));
    let (demo, other) = (test_tenant(), TenantId::parse("other").unwrap());
    let (ssn, dob) = (class("ssn"), class("dob"));
    let allowed = |caller: &Caller, tenant, action, class, purpose| {
        access.decide(caller, tenant, Question { action, class: Some(class), purpose, grant: None }).allowed
    };
    let console = test_caller(Role::Console);
    let treatment = Some(Purpose::Treatment);
    for _ in 0..2 {
        assert!(allowed(&console, &demo, Action::Mask, &ssn, treatment));
        assert!(!allowed(&console, &demo, Action::Mask, &ssn, Some(Purpose::Payment)));
        assert!(!allowed(&console, &demo, Action::Mask, &ssn, None));
        assert!(!allowed(&console, &demo, Action::Mask, &dob, treatment));
        assert!(!allowed(&console, &demo, Action::Find, &ssn, treatment));
        assert!(!allowed(&console, &other, Action::Mask, &ssn, treatment));
        assert!(!allowed(&test_caller(Role::OnCall), &demo, Action::Mask, &ssn, treatment));
        assert!(!allowed(&test_caller_everywhere(Role::Console), &demo, Action::Mask, &ssn, treatment));
    }
    assert_eq!(access.state.load().decisions.len(), 7, "a foreign tenant is not a question for policies");
}

#[test]
fn a_principal_with_other_roles_or_kind_does_not_get_its_old_verdict() {
    let access = test_access();
    let (tenant, mut caller) = (test_tenant(), test_caller(Role::Service));
    assert!(access.decide(&caller, &tenant, ask(Action::Detokenize)).allowed);
    let mut changed = (*caller.principal).clone();
    changed.roles = test_caller(Role::Console).principal.roles.clone();
    caller.principal = Arc::new(changed);
    assert!(!access.decide(&caller, &tenant, ask(Action::Detokenize)).allowed);
}

fn directory(change: &str) -> Directory {
    Directory::parse(&format!(
        "[[principal]]\nid = 'service'\nkind = 'service'\nidentities = ['spiffe://test.local/service']\n{change}\n\
         [principal.roles]\n'demo' = ['service']\n"
    ))
    .unwrap()
}

#[test]
fn a_disabled_principal_is_refused_at_its_next_request() {
    let access = test_access();
    let credential = test_credential("service");
    assert!(access.authenticate(&credential, NOW).is_ok());
    access.reload(directory("enabled = false"), test_policies("dev"));
    assert_eq!(access.authenticate(&credential, NOW).unwrap_err(), Unauthenticated::Disabled);
    assert_eq!(
        access.authenticate(&test_credential("console"), NOW).unwrap_err(),
        Unauthenticated::Unknown,
        "removed"
    );
}

#[test]
fn times_are_checked_at_each_request() {
    let access = Access::new(directory("expires = '2027-01-15T08:00:00Z'"), test_policies("dev"));
    let at = |now| access.authenticate(&test_credential("service"), Timestamp(now)).map(|_| ());
    assert_eq!(at(NOW.0 - 1), Ok(()));
    assert_eq!(at(NOW.0), Err(Unauthenticated::Expired));

    let access = test_access();
    let mut credential = test_credential("service");
    (credential.not_before, credential.not_after) = (Timestamp(10), Timestamp(20));
    let at = |now| access.authenticate(&credential, Timestamp(now)).map(|_| ());
    assert_eq!(at(9), Err(Unauthenticated::CertificateNotYetValid));
    assert_eq!((at(10), at(20)), (Ok(()), Ok(())));
    assert_eq!(at(21), Err(Unauthenticated::CertificateExpired));
}

#[test]
fn a_caller_is_known_by_any_spelling_and_logged_as_presented() {
    let access = test_access();
    let mut credential = test_credential("service");
    credential.identities = vec!["spiffe://TEST.local/service/".to_owned()];
    let caller = access.authenticate(&credential, NOW).unwrap();
    assert_eq!(caller.principal.id.as_str(), "service");
    assert_eq!(caller.identity, "spiffe://TEST.local/service/");
    assert_eq!((caller.credential, &caller.factors[..]), ([7; 32], &["mtls"][..]));
}

#[test]
fn a_credential_that_names_nobody_or_two_is_refused() {
    let access = test_access();
    let mut credential = test_credential("nobody");
    let why = |credential: &Credential| access.authenticate(credential, NOW).unwrap_err();
    assert_eq!(why(&credential), Unauthenticated::Unknown);
    credential.identities.clear();
    assert_eq!(why(&credential), Unauthenticated::Unknown);
    credential.identities = ["service", "admin"].map(|id| format!("spiffe://test.local/{id}")).into();
    assert_eq!(why(&credential), Unauthenticated::Ambiguous);
}

#[test]
fn a_tenant_is_the_callers_or_none() {
    let access = test_access();
    let own = test_caller(Role::Service);
    assert_eq!(access.tenant(&own, ""), Ok(test_tenant()));
    assert_eq!(access.tenant(&own, "demo"), Ok(test_tenant()));
    assert_eq!(access.tenant(&own, "other"), Err(TenantError::NotAllowed));
    for bad in ["*", "Demo", "demo ", "a/b"] {
        assert_eq!(access.tenant(&own, bad), Err(TenantError::Invalid), "{bad}");
    }
    let everywhere = test_caller_everywhere(Role::Service);
    assert_eq!(access.tenant(&everywhere, ""), Err(TenantError::Ambiguous));
    assert_eq!(access.tenant(&everywhere, "other"), Ok(TenantId::parse("other").unwrap()));
}

#[test]
fn the_log_of_all_tenants_is_for_roles_held_everywhere() {
    let access = test_access();
    for &role in Role::ALL {
        for action in [Action::AuditQuery, Action::AuditCheckpoint, Action::AuditExport] {
            let of_tenant = access.decide_for_vault(&test_caller(role), action);
            assert_eq!(of_tenant.reason, Reason::ForeignTenant, "{role} {action}");
            let expected = role == Role::Auditor || role == Role::Admin && action != Action::AuditExport;
            let everywhere = access.decide_for_vault(&test_caller_everywhere(role), action);
            assert_eq!(everywhere.allowed, expected, "{role} {action}");
        }
    }
}

#[test]
fn masks_show_the_year_to_services_only() {
    let access = test_access();
    for &role in Role::ALL {
        let expected = if role == Role::Service { MaskView::Year } else { MaskView::Standard };
        assert_eq!(access.mask_view(&test_caller(role), &test_tenant()), expected, "{role}");
    }
}

#[test]
fn a_kept_verdict_costs_next_to_nothing() {
    let access = test_access();
    let (caller, tenant, ssn) = (test_caller(Role::Service), test_tenant(), class("ssn"));
    let question = Question {
        action: Action::Detokenize,
        class: Some(&ssn),
        purpose: Some(Purpose::Treatment),
        grant: None,
    };
    access.decide(&caller, &tenant, question);
    let rounds = 100_000;
    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(access.decide(&caller, &tenant, question));
    }
    // 2 microseconds are the budget. A busy machine gets some leave; evaluation would take a hundred.
    let each = start.elapsed() / rounds;
    assert!(each.as_micros() < 10, "{each:?}");
}
