use super::*;
use crate::access::{Action, PrincipalKind, Reason, Role, RoleSet};
use crate::domain::{ClassName, PrincipalId, Purpose, TenantId};

fn policies(text: &str) -> Result<Policies, PolicyError> {
    Policies::parse(text, Environment::parse("dev").unwrap())
}

fn asked(action: Action, class: Option<&str>) -> Asked {
    Asked {
        principal: PrincipalId::parse("billing").unwrap(),
        kind: PrincipalKind::Service,
        roles: RoleSet::from_iter([Role::Service]),
        place: TenantScope::One(TenantId::parse("demo").unwrap()),
        action,
        class: class.map(|class| ClassName::parse(class).unwrap()),
        purpose: None,
        grant: None,
    }
}

fn faults(text: &str) -> Vec<InvalidPolicy> {
    match policies(text).map(|_| ()) {
        Err(PolicyError::Invalid(faults)) => faults,
        other => panic!("{other:?}"),
    }
}

const ALL: &str = "@id(\"all\") permit (principal, action, resource);";

#[test]
fn the_schema_knows_the_codes_words() {
    let schema = schema().unwrap();
    let enumerated = |name: &str| {
        let choices = cedar_policy::SchemaFragment::from_cedarschema_str(SCHEMA).unwrap().0;
        let json = choices.to_json_value().unwrap();
        let list = json[""]["entityTypes"][name]["enum"].as_array().unwrap().clone();
        list.iter().map(|id| id.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(enumerated("Role"), Role::ALL.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(enumerated("Purpose"), Purpose::ALL.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut actions: Vec<_> = schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
    let mut known: Vec<_> = Action::ALL.iter().map(ToString::to_string).collect();
    actions.sort();
    known.sort();
    assert_eq!(actions, known);
}

#[test]
fn an_empty_set_denies_everything() {
    let policies = policies("").unwrap();
    for &action in Action::ALL {
        for class in [None, Some("ssn")] {
            let verdict = policies.evaluate(&asked(action, class));
            assert_eq!(
                (verdict.reason, &verdict.policies[..]),
                (Reason::DeniedByPolicy, &[][..]),
                "{action}"
            );
        }
    }
}

#[test]
fn a_forbid_wins_and_is_named() {
    let text = format!("{ALL} @id(\"no-ssn\") forbid (principal, action, resource == DataClass::\"ssn\");");
    let policies = policies(&text).unwrap();
    let verdict = policies.evaluate(&asked(Action::Mask, Some("ssn")));
    assert_eq!((verdict.allowed, verdict.policies.concat().as_str()), (false, "no-ssn"));
    let verdict = policies.evaluate(&asked(Action::Mask, Some("dob")));
    assert_eq!((verdict.allowed, verdict.policies.concat().as_str()), (true, "all"));
}

#[test]
fn a_policy_that_fails_to_evaluate_denies() {
    // Overflows: the validator can't see it, and Cedar by itself would skip the forbid.
    let text = format!(
        "{ALL} @id(\"breaks\") forbid (principal, action == Action::\"mask\", resource) \
         when {{ context.environment == \"dev\" && 9223372036854775807 + 1 > 0 }};"
    );
    let policies = policies(&text).unwrap();
    let verdict = policies.evaluate(&asked(Action::Mask, Some("ssn")));
    assert_eq!((verdict.allowed, verdict.policies.concat().as_str()), (false, "breaks"));
    assert!(policies.evaluate(&asked(Action::Find, Some("ssn"))).allowed);
}

#[test]
fn a_question_the_schema_does_not_know_is_denied() {
    let named = "@id(\"npi\") permit (principal, action, resource == DataClass::\"npi\");";
    let policies = policies(&format!("{ALL} {named}")).unwrap();
    assert!(!policies.evaluate(&asked(Action::AuditQuery, Some("npi"))).allowed);
    for class in [None, Some("npi")] {
        let mut of_the_vault = asked(Action::Detokenize, class);
        of_the_vault.place = TenantScope::All;
        assert!(!policies.evaluate(&of_the_vault).allowed, "{class:?}");
    }
}

#[test]
fn whether_at_all_takes_policies_for_single_classes_into_account() {
    let text = "@id(\"npi\") permit (principal, action == Action::\"mask\", resource == DataClass::\"npi\") \
                when { resource in Tenant::\"demo\" };";
    let policies = policies(text).unwrap();
    assert!(policies.evaluate(&asked(Action::Mask, None)).allowed);
    assert!(policies.evaluate(&asked(Action::Mask, Some("npi"))).allowed);
    assert!(!policies.evaluate(&asked(Action::Mask, Some("ssn"))).allowed);
    assert!(!policies.evaluate(&asked(Action::Find, None)).allowed);
    let mut elsewhere = asked(Action::Mask, None);
    elsewhere.place = TenantScope::One(TenantId::parse("st-mary").unwrap());
    assert!(!policies.evaluate(&elsewhere).allowed);
}

#[test]
fn what_is_allowed_for_any_class_is_by_the_policies_that_say_so() {
    let npi = "@id(\"npi\") permit (principal, action == Action::\"mask\", resource == DataClass::\"npi\");";
    let policies = policies(&format!("{npi} {ALL}")).unwrap();
    assert_eq!(policies.ids(), ["all", "npi"]);
    assert_eq!(policies.evaluate(&asked(Action::Mask, None)).policies[..], ["all"]);
    assert_eq!(policies.evaluate(&asked(Action::Mask, Some("npi"))).policies[..], ["all", "npi"]);
}

#[test]
fn a_mistyped_word_is_an_error_that_names_the_policy() {
    for (text, word) in [
        ("@id(\"p\") permit (principal in Role::\"root\", action, resource);", "root"),
        ("@id(\"p\") permit (principal, action == Action::\"detokenise\", resource);", "detokenise"),
        ("@id(\"p\") permit (principal, action, resource == Class::\"ssn\");", "Class"),
        (
            "@id(\"p\") permit (principal, action, resource) \
             when { context has purpose && context.purpose == Purpose::\"TREATMENT\" };",
            "TREATMENT",
        ),
        ("@id(\"p\") permit (principal, action, resource) when { context.purpos == 1 };", "purpos"),
        (
            "@id(\"p\") permit (principal, action, resource) when { context.purpose == Purpose::\"TREAT\" };",
            "purpose",
        ),
    ] {
        let shown = policies(text).map(|_| ()).unwrap_err().to_string();
        assert!(shown.starts_with("policies: \"p\": ") && shown.contains(word), "{shown}");
        let faults = faults(text);
        assert!(faults.iter().all(|fault| fault.id == "p"), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.reason.contains(word)), "{faults:?}");
    }
}

#[test]
fn a_policy_that_can_never_apply_is_an_error() {
    let text = "@id(\"p\") forbid (principal, action, resource) when { principal.kind == \"a\" && false };";
    assert!(matches!(&faults(text)[..], [fault] if fault.id == "p"));
}

#[test]
fn every_policy_has_an_id_of_its_own() {
    let nameless = "permit (principal, action, resource);";
    let error = policies(nameless).map(|_| ()).unwrap_err();
    assert!(matches!(&error, PolicyError::NoId(text) if text.starts_with("permit")), "{error}");
    for bad in ["", "a b", "a\\n", "é", &"a".repeat(65)] {
        let text = format!("@id(\"{bad}\") {nameless}");
        assert!(matches!(policies(&text), Err(PolicyError::BadId(_))), "{bad:?}");
    }
    assert!(matches!(policies(&format!("{ALL}{ALL}")), Err(PolicyError::DuplicateId(id)) if id == "all"));
    let template = "@id(\"t\") permit (principal == ?principal, action, resource);";
    assert!(matches!(policies(template), Err(PolicyError::Template)));
}

#[test]
fn a_syntax_error_names_its_line() {
    let error =
        policies(&format!("{ALL}\n\n@id(\"b\") permit (principal, action);\n")).map(|_| ()).unwrap_err();
    assert!(matches!(&error, PolicyError::Syntax(text) if text.starts_with("line 3: ")), "{error}");
}

#[test]
fn the_examples_in_the_documentation_are_valid() {
    let docs = include_str!("../../../docs/access.md");
    let examples = |language: &str| {
        let fence = format!("```{language}\n");
        let blocks = docs.split(&fence).skip(1);
        blocks.map(|block| block.split("```").next().unwrap()).collect::<Vec<_>>()
    };
    let (cedar, toml) = (examples("cedar"), examples("toml"));
    assert_eq!((cedar.len(), toml.len()), (1, 1));
    policies(cedar[0]).map(|_| ()).unwrap();
    crate::access::Directory::parse(toml[0]).unwrap();
    let policies = Policies::builtin(Environment::parse("prod").unwrap()).unwrap();
    for &purpose in Purpose::ALL {
        let asked = Asked { purpose: Some(purpose), ..asked(Action::Detokenize, Some("ssn")) };
        let said_not_to = docs.contains(&format!("`{purpose}`"));
        assert_eq!(policies.evaluate(&asked).allowed, !said_not_to, "{purpose}");
    }
}
