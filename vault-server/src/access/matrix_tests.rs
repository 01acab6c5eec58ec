use super::*;
use crate::access::policy::BUILTIN;
use crate::domain::JobKind;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/matrix.txt");

#[test]
fn the_default_policies_do_what_the_committed_matrix_says() {
    let now = matrix(BUILTIN).unwrap();
    if std::env::var_os("UPDATE_MATRIX").is_some() {
        std::fs::write(COMMITTED, &now).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap();
    let changed = now.lines().zip(committed.lines()).find(|(now, committed)| now != committed);
    assert!(now == committed, "policies/matrix.txt is out of date, first at (now, committed): {changed:?}");
}

/// The matrix of the default policies and one more.
fn with(policy: &str) -> String {
    matrix(&format!("{BUILTIN}\n{policy}")).unwrap()
}

/// The lines that are in `changed` and not in the default's matrix.
fn news(changed: &str) -> Vec<String> {
    let default = matrix(BUILTIN).unwrap();
    let new = changed.lines().filter(|line| !default.lines().any(|known| known == *line));
    new.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn an_over_broad_permit_shows_in_the_matrix() {
    let all = with("@id(\"oops\") permit (principal, action, resource);");
    let news_of_all = news(&all);
    assert!(news_of_all.iter().any(|line| line.starts_with("detokenize")), "{all}");
    // Even then the guards hold, and another tenant stays out of reach.
    let beyond = |line: &String| {
        let ungranted = line.replace("BTG+grant", "");
        ungranted.contains("BTG") || line.contains("TREAT+grant") || line.contains("other")
    };
    assert!(!news_of_all.iter().any(beyond), "{all}");

    let one = with(
        "@id(\"oops\") permit (principal in Role::\"console\", action == Action::\"detokenize\", resource) \
         when { context has purpose && context.purpose == Purpose::\"TREAT\" };",
    );
    let news_of_one = news(&one);
    assert_eq!(news_of_one[0], "detokenize        own, everywhere: TREAT");
    // And it is not among what is never allowed any more, whichever lines of that are new for it.
    assert!(news_of_one.len() > 1 && !news_of_one[1..].concat().contains("detokenize"), "{news_of_one:?}");
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
    let none = matrix("").unwrap();
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
    let text = matrix(BUILTIN).unwrap();
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
    ("ListPrincipalChanges", Action::PrincipalRead),
    ("ApprovePrincipalChange", Action::PrincipalApprove),
    ("RejectPrincipalChange", Action::PrincipalApprove),
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
const ABOUT_ONESELF: &[&str] =
    &["WhoAmI", "BeginSecondFactor", "ConfirmSecurityKey", "OpenSession", "CloseSession"];

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
