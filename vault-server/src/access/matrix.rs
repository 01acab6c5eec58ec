//! The effect of a policy set, as text that a person can review. `policies/matrix.txt` is that of the default set;
//! the tests here compare it, and `UPDATE_MATRIX=1` writes it anew.
//!
//! Every combination of role, action, class, purpose, relation to the tenant and environment is asked, by
//! [`Access::decide`] and [`Access::decide_for_vault`]; only then are answers that are the same merged into one line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::access::testing::{
    test_caller, test_caller_everywhere, test_directory, test_person, test_person_everywhere, test_policies,
    test_tenant,
};
use crate::access::{Access, Action, Caller, GrantSeen, Policies, Question, Role};
use crate::domain::{ClassName, Environment, JobKind, Purpose, TenantId};

const HEAD: &str = "\
# What the default policies (default.cedar) allow, by role and action. What is not listed is denied.
#
# A test asks for every combination of role, action, class of data (npi, which is public; ssn; none: may it be
# done at all), purpose of use (each, and none; BTG and TREAT also under a grant of break-glass that covers the value),
# relation to the tenant, environment (prod, dev), and kind of principal (person, program), merges what is the same, and
# compares. `UPDATE_MATRIX=1 cargo test -p vault-server --lib access::matrix` writes this
# file anew: review the difference.
#
#   own           a tenant at which the role is held
#   other         a tenant at which it is not
#   everywhere    any tenant, for a role that is held at *
#   vault         the vault as a whole: the log of all tenants and of none, keys and jobs
#   vault (at *)  the same, for a role that is held at *
";

/// What a question is about, in relation to where the role is held.
const RELATIONS: &[&str] = &["own", "other", "everywhere", "vault", "vault (at *)"];
/// Purposes that are asked for under a grant, too: the one that grants are for, and one that they are not.
const GRANTED: &[Purpose] = &[Purpose::BreakTheGlass, Purpose::Treatment];
const CLASSES: &[&str] = &["class npi", "class ssn", "at all"];
const ENVIRONMENTS: &[&str] = &["in prod", "in dev"];

/// One answer for all purposes: `yes`, `no`, or the purposes for which it is yes.
type Cell = String;

fn matrix(policies: impl Fn(&str) -> Policies) -> String {
    let access: Vec<_> = ENVIRONMENTS
        .iter()
        .map(|environment| Access::new(test_directory(), policies(environment.trim_start_matches("in "))))
        .collect();
    let mut text = HEAD.to_owned();
    for &role in Role::ALL {
        let program = block(&access, &[test_caller(role), test_caller_everywhere(role)]);
        let person = block(&access, &[test_person(role), test_person_everywhere(role)]);
        if program == person {
            let _ = write!(text, "\n{role}\n{program}");
        } else {
            let _ = write!(text, "\n{role} (a person)\n{person}\n{role} (a program)\n{program}");
        }
    }
    text
}

/// What callers that hold a role may do, at one tenant and everywhere.
fn block(access: &[Access], callers: &[Caller; 2]) -> String {
    let mut text = String::new();
    let mut never = Vec::new();
    for &action in Action::ALL {
        let lines = merged(|environment, class, relation| {
            cell(&access[environment], callers, action, class, relation)
        });
        if lines.is_empty() {
            never.push(action.as_str());
        }
        for (place, cell) in lines {
            write_wrapped(&mut text, &format!("{:<17} {place}: ", action.as_str()), &cell);
        }
    }
    write_wrapped(&mut text, &format!("{:<17} ", "never"), &never.join(" "));
    text
}

fn cell(access: &Access, callers: &[Caller; 2], action: Action, class: usize, relation: usize) -> Cell {
    let [here, everywhere] = callers;
    let other = TenantId::parse("other").unwrap();
    let class = CLASSES[class].strip_prefix("class ").filter(|_| action.of_class());
    let class = class.map(|name| ClassName::parse(name).unwrap());
    let purposes: Vec<_> = [None].into_iter().chain(Purpose::ALL.iter().copied().map(Some)).collect();
    let mut asked: Vec<_> = purposes.iter().map(|purpose| (*purpose, None)).collect();
    asked.extend(GRANTED.iter().map(|purpose| (Some(*purpose), Some(GrantSeen { approvals: 1 }))));
    let allowed = asked.iter().filter(|(purpose, grant)| {
        let question = Question { action, class: class.as_ref(), purpose: *purpose, grant: *grant };
        let verdict = match RELATIONS[relation] {
            "own" => access.decide(here, &test_tenant(), question),
            "other" => access.decide(here, &other, question),
            "everywhere" => access.decide(everywhere, &other, question),
            "vault" => access.decide_for_vault(here, action),
            _ => access.decide_for_vault(everywhere, action),
        };
        verdict.allowed
    });
    let name = |(purpose, grant): &(Option<Purpose>, Option<GrantSeen>)| {
        let purpose = purpose.map_or("(none)", Purpose::code);
        if grant.is_some() { format!("{purpose}+grant") } else { purpose.to_owned() }
    };
    let allowed: Vec<_> = allowed.map(name).collect();
    match allowed.len() {
        0 => "no".to_owned(),
        n if n == asked.len() => "yes".to_owned(),
        _ => allowed.join(" "),
    }
}

/// Asks for all places and merges those with the same answer; what is denied is left out.
fn merged(cell: impl Fn(usize, usize, usize) -> Cell) -> Vec<(String, Cell)> {
    // (class, environment, cell) -> relations; empty: whichever it is.
    let mut lines: BTreeMap<(&str, &str, Cell), Vec<&str>> = BTreeMap::new();
    for (relation, name) in RELATIONS.iter().enumerate() {
        let mut add = |class, environment, cell: Cell| {
            if cell != "no" {
                lines.entry((class, environment, cell)).or_default().push(name);
            }
        };
        let of = |environment, class| cell(environment, class, relation);
        let classless = |e| (1..CLASSES.len()).all(|c| of(e, c) == of(e, 0));
        let same_everywhere = (0..CLASSES.len()).all(|c| of(0, c) == of(1, c));
        match ((0..2).all(classless), same_everywhere) {
            (true, true) => add("", "", of(0, 0)),
            (true, false) => (0..2).for_each(|e| add("", ENVIRONMENTS[e], of(e, 0))),
            (false, true) => (0..CLASSES.len()).for_each(|c| add(CLASSES[c], "", of(0, c))),
            (false, false) => (0..2)
                .for_each(|e| (0..CLASSES.len()).for_each(|c| add(CLASSES[c], ENVIRONMENTS[e], of(e, c)))),
        }
    }
    let line = |((class, environment, cell), relations): ((&str, &str, Cell), Vec<&str>)| {
        let mut place = relations.join(", ");
        for detail in [class, environment] {
            if !detail.is_empty() {
                let _ = write!(place, "; {detail}");
            }
        }
        (place, cell)
    };
    lines.into_iter().map(line).collect()
}

fn write_wrapped(text: &mut String, head: &str, words: &str) {
    let mut line = format!("  {head}");
    for word in words.split(' ') {
        if line.len() + word.len() > 100 {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(22);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/matrix.txt");

#[test]
fn the_default_policies_do_what_the_committed_matrix_says() {
    let now = matrix(test_policies);
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(COMMITTED, &now).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap();
    let changed = now.lines().zip(committed.lines()).find(|(now, committed)| now != committed);
    assert!(now == committed, "policies/matrix.txt is out of date, first at (now, committed): {changed:?}");
}

/// The matrix of the default policies and one more.
fn with(policy: &str) -> String {
    let default = include_str!("../../policies/default.cedar");
    matrix(|environment| {
        Policies::parse(&format!("{default}\n{policy}"), Environment::parse(environment).unwrap()).unwrap()
    })
}

/// The lines that are in `changed` and not in the default's matrix.
fn news(changed: &str) -> Vec<String> {
    let default = matrix(test_policies);
    let new = changed.lines().filter(|line| !default.lines().any(|known| known == *line));
    new.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn an_over_broad_permit_shows_in_the_matrix() {
    let all = with("@id(\"oops\") permit (principal, action, resource);");
    let news_of_all = news(&all);
    assert!(news_of_all.iter().any(|line| line.starts_with("detokenize")), "{all}");
    // Even then the guards hold, and another tenant stays out of reach.
    let broken = |line: &String| line.split(' ').any(|word| word == "BTG") || line.contains("other");
    assert!(!news_of_all.iter().any(broken), "{all}");

    let one = with(
        "@id(\"oops\") permit (principal in Role::\"console\", action == Action::\"detokenize\", resource) \
         when { context has purpose && context.purpose == Purpose::\"TREAT\" };",
    );
    let news_of_one = news(&one);
    assert_eq!(news_of_one[0], "detokenize        own, everywhere: TREAT");
    assert!(
        news_of_one[1].starts_with("never  ") && !news_of_one[1..].concat().contains("detokenize"),
        "{one}"
    );
}

#[test]
fn nobody_who_reads_values_gets_at_keys_by_an_over_broad_permit() {
    let text = with("@id(\"oops\") permit (principal, action, resource);");
    let roles = text.strip_prefix(HEAD).unwrap().trim().split("\n\n");
    for role in roles.filter(|role| ["service", "console", "oncall"].iter().any(|who| role.starts_with(who)))
    {
        let allowed = role.split("never").next().unwrap();
        assert!(!allowed.contains("key_") && !allowed.contains("job_"), "{role}");
    }
}

#[test]
fn a_permit_for_one_class_or_environment_shows_in_the_matrix() {
    let one = with(
        "@id(\"oops\") permit (principal in Role::\"admin\", action == Action::\"mask\", \
         resource == DataClass::\"npi\") when { context.environment != \"prod\" };",
    );
    assert_eq!(
        news(&one)[..2],
        [
            "mask              own, everywhere; at all; in dev: yes",
            "mask              own, everywhere; class npi; in dev: yes"
        ]
    );
}

#[test]
fn without_policies_the_matrix_is_empty() {
    let none = matrix(|environment| Policies::parse("", Environment::parse(environment).unwrap()).unwrap());
    let lines: Vec<_> =
        none.strip_prefix(HEAD).unwrap().lines().filter(|line| line.starts_with("  ")).collect();
    let never = lines.iter().filter(|line| line.starts_with("  never")).count();
    assert_eq!(never, Role::ALL.len());
    let others = lines.iter().filter(|line| !line.starts_with("  never"));
    assert!(
        others.clone().all(|line| line.starts_with(&" ".repeat(22))),
        "only what is never allowed: {lines:?}"
    );
}

#[test]
fn every_action_is_in_the_matrix_of_every_role() {
    let text = matrix(test_policies);
    let roles: Vec<_> = text.strip_prefix(HEAD).unwrap().trim().split("\n\n").collect();
    for block in &roles {
        for action in Action::ALL {
            assert!(block.split_whitespace().any(|word| word == action.as_str()), "{block} {action}");
        }
    }
    let mut heads: Vec<_> =
        roles.iter().filter_map(|block| block.lines().next()?.split(' ').next()).collect();
    heads.dedup();
    assert_eq!(heads, Role::ALL.iter().map(|role| role.as_str()).collect::<Vec<_>>());
}

/// What policy is asked for at each call of the API; for jobs it depends on their kind.
const CALLS: &[(&str, Action)] = &[
    ("Tokenize", Action::Tokenize),
    ("Detokenize", Action::Detokenize),
    ("Mask", Action::Mask),
    ("Find", Action::Find),
    ("Describe", Action::Describe),
    ("Erase", Action::Erase),
    ("TokenizeStream", Action::Tokenize),
    ("DetokenizeStream", Action::Detokenize),
    ("Query", Action::AuditQuery),
    ("ListLogs", Action::AuditCheckpoint),
    ("GetCheckpoint", Action::AuditCheckpoint),
    ("GetEntries", Action::AuditExport),
    ("ListKeys", Action::KeyList),
    ("RotateKey", Action::KeyRotate),
    ("MarkCompromised", Action::KeyCompromise),
    ("PreviewJob", Action::of_job(JobKind::Reencrypt)),
    ("PreviewJob", Action::of_job(JobKind::Reindex)),
    ("PreviewJob", Action::of_job(JobKind::Rewrap)),
    ("PreviewJob", Action::of_job(JobKind::Destroy)),
    ("PreviewJob", Action::of_job(JobKind::Shred)),
    ("StartJob", Action::of_job(JobKind::Reencrypt)),
    ("StartJob", Action::of_job(JobKind::Reindex)),
    ("StartJob", Action::of_job(JobKind::Rewrap)),
    ("StartJob", Action::of_job(JobKind::Destroy)),
    ("StartJob", Action::of_job(JobKind::Shred)),
    ("ApproveJob", Action::JobApprove),
    ("PauseJob", Action::JobControl),
    ("ResumeJob", Action::JobControl),
    ("CancelJob", Action::JobControl),
    ("ListJobs", Action::JobRead),
    ("WatchJob", Action::JobRead),
    ("ListPrincipals", Action::PrincipalRead),
    ("PutPrincipal", Action::PrincipalChange),
    ("SetPrincipalState", Action::PrincipalChange),
    ("EnrollSecurityKey", Action::PrincipalChange),
    ("RevokeSecurityKey", Action::PrincipalChange),
    ("RequestGrant", Action::GrantRequest),
    ("ApproveGrant", Action::GrantApprove),
    ("DenyGrant", Action::GrantApprove),
    ("Reveal", Action::Detokenize),
    ("CloseGrant", Action::GrantEnd),
    ("ReviewGrant", Action::GrantReview),
    ("ListGrants", Action::GrantRead),
    ("GetGrant", Action::GrantRead),
    ("CheckPolicies", Action::PolicyRead),
    ("GetMatrix", Action::PolicyRead),
    ("ExplainAccess", Action::PolicyRead),
    ("PlantHoneytoken", Action::HoneytokenChange),
    ("ListHoneytokens", Action::HoneytokenRead),
    ("RemoveHoneytoken", Action::HoneytokenChange),
];

/// Calls for which policy is not asked: whoever is known may make them, about itself and nobody else.
const ABOUT_ONESELF: &[&str] = &["WhoAmI", "BeginSecondFactor", "OpenSession", "CloseSession"];

#[test]
fn every_call_of_the_api_has_its_action() {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/vault/v1");
    let mut calls = Vec::new();
    for file in std::fs::read_dir(proto).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        calls.extend(names.map(|name| name.trim().to_owned()));
    }
    calls.sort();
    let of_policy = CALLS.iter().map(|(call, _)| *call);
    let mut known: Vec<_> = of_policy.chain(ABOUT_ONESELF.iter().copied()).map(str::to_owned).collect();
    known.sort();
    known.dedup();
    assert_eq!(calls, known);
    // The other way round: nothing in the matrix but what can be called, and the view of a masked read.
    for action in Action::ALL {
        assert!(*action == Action::MaskYear || CALLS.iter().any(|(_, of)| of == action), "{action}");
    }
}
