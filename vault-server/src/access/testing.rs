//! For tests, of other modules too: an [`Access`] with one principal of each role, and callers that came in the
//! real way. Permits are had from [`Access::permit`], as anywhere.

use std::fmt::Write as _;

use crate::access::{Access, Caller, Credential, CredentialKind, Directory, Policies, Role};
use crate::domain::{Environment, TenantId, Timestamp};

/// The tenant at which the test principals hold their roles.
pub(crate) fn test_tenant() -> TenantId {
    TenantId::parse("demo").unwrap()
}

/// The default policies, in environment `dev`, and for each role two programs: `<role>`, which holds it
/// at [`test_tenant`], and `<role>@all`, which holds it everywhere; and a person, `<role>@person`, who holds it there.
pub(crate) fn test_access() -> Access {
    Access::new(test_directory(), test_policies("dev"))
}

/// The default policies.
pub(crate) fn test_policies(environment: &str) -> Policies {
    Policies::builtin(Environment::parse(environment).unwrap()).unwrap()
}

/// The principals of [`test_access`].
pub(crate) fn test_directory() -> Directory {
    let mut text = String::new();
    for role in Role::ALL {
        let (here, everywhere) = (test_tenant().to_string(), "*".to_owned());
        for (id, kind, scope) in [
            (role.to_string(), "service", &here),
            (format!("{role}@all"), "service", &everywhere),
            (format!("{role}@person"), "human", &here),
        ] {
            let path = id.replace('@', "/");
            write!(
                text,
                "[[principal]]\nid = '{id}'\nkind = '{kind}'\nidentities = ['spiffe://test.local/{path}']\n\
                 [principal.roles]\n'{scope}' = ['{role}']\n"
            )
            .unwrap();
        }
    }
    Directory::parse(&text).unwrap()
}

/// The credential of the principal whose SPIFFE id ends in `path`.
pub(crate) fn test_credential(path: &str) -> Credential {
    Credential {
        fingerprint: [7; 32],
        identities: vec![format!("spiffe://test.local/{path}")],
        source: None,
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        kind: CredentialKind::Certificate,
    }
}

/// A caller who holds `role` at [`test_tenant`].
pub(crate) fn test_caller(role: Role) -> Caller {
    test_access().authenticate(&test_credential(role.as_str()), Timestamp(1)).unwrap()
}

/// A caller who holds `role` everywhere.
pub(crate) fn test_caller_everywhere(role: Role) -> Caller {
    test_access().authenticate(&test_credential(&format!("{role}/all")), Timestamp(1)).unwrap()
}

/// A person who holds `role` at [`test_tenant`].
pub(crate) fn test_person(role: Role) -> Caller {
    test_access().authenticate(&test_credential(&format!("{role}/person")), Timestamp(1)).unwrap()
}
