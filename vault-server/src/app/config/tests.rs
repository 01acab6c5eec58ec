use std::time::Duration;

use super::*;

const SAMPLE: &str = include_str!("../../../../docs/vault.sample.toml");

const MINIMAL: &str = "\
[vault]
id = \"000102030405060708090a0b0c0d0e0f\"
environment = \"qa\"

[kms]
kind = \"local\"
root_key_file = \"root.key\"
";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/vault/vault.toml"), text).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err()
}

/// Switches on the sample's lines that begin with one of `marks`.
fn uncommented(marks: &[&str]) -> String {
    SAMPLE
        .lines()
        .map(|line| marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Names that files of before have, and new ones don't.
const OLD_NAMES: [&str; 1] = ["for_destruction"];

/// The names serde knows in a section, taken from its complaint about one it does not know.
fn known_names(section: &str) -> Vec<String> {
    let error = toml::from_str::<Config>(&format!("{section}\nno_such_option = 1\n")).unwrap_err();
    let names = error.message().split('`').skip(1).step_by(2).skip(1);
    let names = names.filter(|name| !OLD_NAMES.contains(name)).map(str::to_owned).collect::<Vec<_>>();
    assert!(!names.is_empty(), "{section}: {}", error.message());
    names
}

#[test]
fn sample_is_accepted_as_it_is() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config.tls.certificate, Path::new("/etc/vault/pki/server.pem"));
    assert_eq!(config.store_dir(), Path::new("/etc/vault/data/store"));
}

#[test]
fn sample_states_the_true_defaults() {
    let as_it_is = parse(SAMPLE).unwrap();
    assert_eq!(parse(&uncommented(&["#="])).unwrap(), as_it_is);
}

#[test]
fn sample_mentions_every_option() {
    let everything = uncommented(&["#=", "#?"]);
    let table: toml::Table = toml::from_str(&everything).unwrap();
    for section in known_names("") {
        let options =
            table.get(&section).unwrap_or_else(|| panic!("[{section}] is missing")).as_table().unwrap();
        for option in known_names(&format!("[{section}]")) {
            assert!(options.contains_key(&option), "{section}.{option} is missing");
        }
    }
    let key = table["kms"]["key"][0].as_table().unwrap();
    for option in known_names("[[kms.key]]") {
        assert!(key.contains_key(&option), "kms.key.{option} is missing");
    }
    let residency = table["kms"]["residency"][0].as_table().unwrap();
    for option in known_names("[[kms.residency]]") {
        assert!(residency.contains_key(&option), "kms.residency.{option} is missing");
    }
    let tenant = table["break_glass"]["tenant"][0].as_table().unwrap();
    for option in known_names("[[break_glass.tenant]]") {
        assert!(tenant.contains_key(&option), "break_glass.tenant.{option} is missing");
    }
    let issuer = table["oidc"]["issuer"][0].as_table().unwrap();
    for option in known_names("[[oidc.issuer]]") {
        assert!(issuer.contains_key(&option), "oidc.issuer.{option} is missing");
    }
    // Alternatives of others are mentioned, but not with them.
    for option in known_names("[store.postgres]") {
        let there =
            table["store"]["postgres"].get(&option).is_some() || SAMPLE.contains(&format!("\n##{option} = "));
        assert!(there, "store.postgres.{option} is missing");
    }
}

#[test]
fn a_database_must_be_whole_and_protected() {
    let with = |options: &str| {
        let section =
            "hosts = [\"db.internal:5432\"]\ndatabase = \"phi\"\nuser = \"vault\"\nca = \"ca.pem\"\n";
        parse(&format!("{MINIMAL}\n[store]\nengine = \"postgres\"\n[store.postgres]\n{section}{options}"))
    };
    let config = with("").unwrap();
    let section = config.store.postgres.unwrap();
    assert_eq!(section.ca.as_deref(), Some(Path::new("/etc/vault/ca.pem")));
    assert_eq!((section.connections, section.lease), (8, Duration::from_secs(10)));
    for (option, said) in [
        ("tls = \"off\"", "store.postgres.tls: may be off on loopback"),
        ("key = \"k\"", "store.postgres.certificate: and key belong together"),
        ("password_file = \"f\"\npassword_env = \"E\"", "store.postgres.password_env: and password_file"),
        ("instance = \"a b\"", "store.postgres.instance: must be"),
        ("connections = 0", "store.postgres.connections: must be"),
        ("lease = \"1ms\"", "store.postgres.lease: must be"),
    ] {
        let error = with(option).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert!(
        refused(&format!("{MINIMAL}\n[store]\nengine = \"postgres\"\n")).contains("needs [store.postgres]")
    );
}

#[test]
fn issuers_are_named_in_one_spelling_and_asked_over_tls() {
    let with = |options: &str| {
        parse(&format!(
            "{MINIMAL}\n[oidc]\n[[oidc.issuer]]\nissuer = \"https://idp.example.org\"\naudience = \"phi\"\n{options}"
        ))
    };
    let config = with("ca = \"ca.pem\"").unwrap();
    assert_eq!(config.oidc.unwrap().issuer[0].ca.as_deref(), Some(Path::new("/etc/vault/ca.pem")));
    let second = |issuer: &str| format!("[[oidc.issuer]]\nissuer = \"{issuer}\"\naudience = \"phi\"");
    for (option, said) in [
        (second("http://127.0.0.1:8080"), "oidc.issuer.issuer: must be"),
        (second("https://IDP.example.org"), "oidc.issuer.issuer: must be"),
        (second("https://idp.example.org"), "oidc.issuer.issuer: stands twice"),
        ("jwks_uri = \"http://127.0.0.1/keys\"".to_owned(), "oidc.issuer.jwks_uri: must begin"),
        ("algorithms = [\"HS256\"]".to_owned(), "oidc.issuer.algorithms: must be of ES256"),
        ("algorithms = [\"none\"]".to_owned(), "oidc.issuer.algorithms: must be of ES256"),
        ("algorithms = []".to_owned(), "oidc.issuer.algorithms: must be of ES256"),
    ] {
        let error = with(&option).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert!(
        refused(&format!("{MINIMAL}\n[oidc]\nissuer = []\n")).contains("oidc.issuer: must be at least one")
    );
    let sessions = |option: &str| refused(&format!("{MINIMAL}\n[sessions]\n{option}\n"));
    assert!(sessions("idle = \"16m\"").contains("sessions.idle: must be 1s to 15m"));
    assert!(sessions("lifetime = \"1d\"").contains("sessions.lifetime: must be 1s to 12h"));
    assert!(sessions("per_principal = 0").contains("sessions.per_principal: must be"));
}

#[test]
fn examples_of_the_sample_are_accepted() {
    let local = uncommented(&["#=", "#?"]).replace("\n[[kms.", "\n[[skip.");
    let mut table: toml::Table = toml::from_str(&local).unwrap();
    let aws = table.remove("skip").unwrap();
    let config = parse(&toml::to_string(&table).unwrap()).unwrap();
    assert!(config.metrics.listen.is_some());
    assert_eq!(config.tls.crl, [Path::new("/etc/vault/pki/ca.crl")]);
    let mut kms = aws.as_table().unwrap().clone();
    kms.insert("kind".to_owned(), "aws".into());
    table.insert("kms".to_owned(), kms.into());
    let config = parse(&toml::to_string(&table).unwrap()).unwrap();
    assert_eq!(config.kms.residency[0].keys, [config.kms.key[0].arn.clone()]);
}

#[test]
fn typo_is_answered_with_file_line_key_and_the_nearest_name() {
    let text = format!("{MINIMAL}\n[limits]\nmax_itmes = 5\n");
    assert_eq!(
        refused(&text),
        "/etc/vault/vault.toml:10: unknown option `max_itmes` in [limits]; did you mean `max_items`?"
    );
    let text = format!("{MINIMAL}\n[lisen]\naddress = \"127.0.0.1:1\"\n");
    assert_eq!(
        refused(&text),
        "/etc/vault/vault.toml:9: unknown section or option `lisen`; did you mean `listen`?"
    );
    let text = format!("{MINIMAL}\n[idempotency]\nqqq = 1\n");
    assert_eq!(
        refused(&text),
        "/etc/vault/vault.toml:10: unknown option `qqq` in [idempotency]; known are: remember"
    );
}

#[test]
fn value_of_the_wrong_kind_is_answered_with_line_and_option() {
    let text = format!("{MINIMAL}\n[cache]\nlifetime = \"5\"\n");
    let error = refused(&text);
    assert!(error.starts_with("/etc/vault/vault.toml:10: cache.lifetime: \"5\" is no duration"), "{error}");
    let error = refused(&format!("{MINIMAL}\n[limits]\nmax_items = -1\n"));
    assert!(error.starts_with("/etc/vault/vault.toml:10: limits.max_items: "), "{error}");
    let error = refused(&MINIMAL.replace("\"qa\"", "\"QA\""));
    assert!(error.starts_with("/etc/vault/vault.toml:3: vault.environment: "), "{error}");
    // It may be a password that stands in the wrong place.
    let error = refused(&format!("{MINIMAL}\n[limits]\nmax_items = \"hunter2\"\n"));
    assert_eq!(error, "/etc/vault/vault.toml:10: limits.max_items: expected usize");
    let error = refused(&format!("{MINIMAL}\n[limits]\nmax_items = 0\n"));
    assert_eq!(error, "/etc/vault/vault.toml:10: limits.max_items: must be at least 1");
}

#[test]
fn missing_option_is_named() {
    let error = refused(&MINIMAL.replace("environment = \"qa\"", ""));
    assert!(error.contains(":1: [vault]: missing field `environment`"), "{error}");
}

#[test]
fn local_kms_is_refused_in_prod_but_for_the_exact_words() {
    let prod = MINIMAL.replace("\"qa\"", "\"prod\"");
    let error = refused(&prod);
    assert!(
        error.starts_with("/etc/vault/vault.toml:6: kms.kind: \"local\" is refused in environment `prod`")
    );
    assert!(error.contains(LOCAL_IN_PROD));
    for no in ["yes", "true", "", "Yes, the root key lies on this machine's disk"] {
        refused(&format!("{prod}local_in_prod = \"{no}\"\n"));
    }
    assert!(parse(&format!("{prod}local_in_prod = \"{LOCAL_IN_PROD}\"\n")).is_ok());
}

#[test]
fn aws_kms_takes_full_key_arns_only() {
    let aws = |arn: &str| {
        MINIMAL.replace("\"local\"\nroot_key_file = \"root.key\"", "\"aws\"")
            + &format!("[[kms.key]]\narn = \"{arn}\"\n")
    };
    let arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    assert_eq!(parse(&aws(arn)).unwrap().kms.key[0].arn, arn);
    for bad in ["", "alias/vault", "arn:aws:kms:eu-west-1:111122223333:alias/vault", "1234abcd"] {
        assert!(refused(&aws(bad)).contains(":8: kms.key.arn: "), "{bad}");
    }
    assert!(
        refused(&MINIMAL.replace("\"local\"\nroot_key_file = \"root.key\"", "\"aws\""))
            .contains("[[kms.key]]")
    );
}

#[test]
fn a_tenant_is_pinned_once_and_to_kms_keys_that_are_there() {
    const ARNS: [&str; 2] =
        ["arn:aws:kms:eu-west-1:111122223333:key/1", "arn:aws:kms:us-east-1:111122223333:key/2"];
    let with = |residency: &str| {
        let head = MINIMAL.replace("\"local\"\nroot_key_file = \"root.key\"", "\"aws\"");
        let keys = ARNS.map(|arn| format!("[[kms.key]]\narn = \"{arn}\"\n")).concat();
        parse(&format!("{head}{keys}{residency}"))
    };
    let pin =
        |tenant: &str, keys: &[&str]| format!("[[kms.residency]]\ntenant = \"{tenant}\"\nkeys = {keys:?}\n");
    let config = with(&(pin("st-mary", &ARNS[..1]) + &pin("st-john", &[ARNS[1], ARNS[0]]))).unwrap();
    assert_eq!(config.kms.residency[0].tenant.as_str(), "st-mary");
    assert_eq!(config.kms.residency[1].keys, [ARNS[1], ARNS[0]]);
    for (residency, said) in [
        (pin("st-mary", &[]), ":13: kms.residency.keys: st-mary needs at least one KMS key"),
        (
            pin("st-mary", &["arn:aws:kms:eu-west-1:111122223333:key/3"]),
            ":13: kms.residency.keys: st-mary is pinned to arn:aws:kms:eu-west-1:111122223333:key/3, which is no [[kms.key]]",
        ),
        (pin("st-mary", &[ARNS[0], ARNS[0]]), "twice"),
        (
            pin("st-mary", &ARNS) + &pin("st-mary", &ARNS[..1]),
            ":12: kms.residency.tenant: st-mary is there twice",
        ),
        (pin("St Mary", &ARNS), "kms.residency.tenant: "),
        (pin("*", &ARNS), "kms.residency.tenant: "),
        (pin("st-mary", &ARNS).replace("keys", "regions"), "unknown option `regions` in [kms.residency]"),
    ] {
        let error = with(&residency).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    assert!(
        refused(&format!("{MINIMAL}{}", pin("st-mary", &ARNS)))
            .contains("\"local\" has no [[kms.residency]]")
    );
}

#[test]
fn synthetic_values_are_accepted_outside_prod_unless_told_otherwise() {
    assert!(parse(MINIMAL).unwrap().accept_synthetic());
    assert!(!parse(&format!("{MINIMAL}\n[classes]\naccept_synthetic = false\n")).unwrap().accept_synthetic());
    let prod = MINIMAL.replace("\"qa\"", "\"prod\"") + &format!("local_in_prod = \"{LOCAL_IN_PROD}\"\n");
    assert!(!parse(&prod).unwrap().accept_synthetic());
}

#[test]
fn log_deadline_is_shorter_than_the_requests() {
    let error = refused(&format!("{MINIMAL}\n[audit]\ndeadline = \"30s\"\n"));
    assert!(error.contains(":10: audit.deadline: must be shorter"), "{error}");
    assert_eq!(parse(MINIMAL).unwrap().audit.deadline, Duration::from_secs(2));
}

#[test]
fn glass_breaks_for_no_longer_than_an_hour_and_not_without_approval_by_mistake() {
    let with = |options: &str| parse(&format!("{MINIMAL}\n[break_glass]\n{options}\n"));
    let config = with("approvals = 2\n[[break_glass.tenant]]\nname = \"st-mary\"\napprovals = 0").unwrap();
    assert_eq!((config.break_glass.approvals, config.break_glass.tenant[0].approvals), (2, Some(0)));
    for (options, said) in [
        ("approvals = 0", "break_glass.approvals: must be 1 to 5"),
        ("max_duration = \"61m\"", "break_glass.max_duration: must be"),
        ("max_duration = \"10m\"", "break_glass.duration: must be"),
        ("duration = \"0s\"", "break_glass.duration: must be"),
        ("wait = \"25h\"", "break_glass.wait: must be"),
        ("review_within = \"31d\"", "break_glass.review_within: must be"),
        ("max_values = 1001", "break_glass.max_values: must be"),
        ("values = 0", "break_glass.values: must be"),
        ("max_open = 0", "break_glass.max_open: must be"),
        ("reason_codes = []", "break_glass.reason_codes: must be"),
        ("reason_codes = [\"a b\"]", "break_glass.reason_codes: must be"),
        ("[[break_glass.tenant]]\nname = \"a\"\nmax_duration = \"2h\"", "break_glass.tenant: max_duration"),
        (
            "[[break_glass.tenant]]\nname = \"a\"\n[[break_glass.tenant]]\nname = \"a\"",
            "names a tenant twice",
        ),
    ] {
        let error = with(options).unwrap_err();
        assert!(error.contains(said), "{options}: {error}");
    }
}
