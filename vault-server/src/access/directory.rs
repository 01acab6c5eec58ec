//! The provisioned principals, from the text of the principals file (TOML). `example.toml` beside this file
//! explains every key, and a test reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use vault_format::told;

use crate::access::identity::{self, InvalidIdentity};
use crate::access::{
    Fingerprint, InvalidSecurityKey, Principal, PrincipalKind, Role, SecurityKey, TenantScope,
};
use crate::domain::{PrincipalId, TenantId, Timestamp};

/// Who may call.
#[derive(Debug)]
pub struct Directory {
    principals: BTreeMap<PrincipalId, Arc<Principal>>,
    by_identity: HashMap<String, Arc<Principal>>,
    security_keys: HashMap<Fingerprint, ListedKey>,
}

/// A security key that the principals file lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Whose it is.
    pub principal: PrincipalId,
    /// The key.
    pub key: SecurityKey,
    /// What people call it.
    pub label: String,
}

/// Why a principals file is not taken, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Not TOML of this shape; the text names the line.
    #[error("{0}")]
    Syntax(String),
    /// Nobody could call.
    #[error("there is no [[principal]]")]
    NoPrincipals,
    /// One entry is wrong.
    #[error("principal {number} ({id:?}): {key}: {fault}")]
    Principal {
        /// Which `[[principal]]`, from 1.
        number: usize,
        /// Its id, as written.
        id: String,
        /// The key within it.
        key: String,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with a key of a principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a principal's or a tenant's name.
    #[error(transparent)]
    Name(#[from] crate::domain::id::InvalidName),
    /// Another entry has that id.
    #[error("another principal has this id")]
    DuplicateId,
    /// Not an identity.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// The identity would name two principals.
    #[error("it is the identity of {0:?}, too")]
    SharedIdentity(String),
    /// The identity is there twice.
    #[error("it is there twice")]
    DuplicateIdentity,
    /// No such role.
    #[error("there is no role {0:?}")]
    UnknownRole(String),
    /// Something that needs at least one has none.
    #[error("it is empty")]
    Empty,
    /// Not a security key.
    #[error("it is not {0}")]
    SecurityKey(#[from] InvalidSecurityKey),
    /// The security key is listed for another principal, or twice.
    #[error("it is a security key of {0:?}")]
    SharedSecurityKey(String),
    /// Programs have no security keys.
    #[error("only a person has security keys")]
    NotHuman,
    /// Not a time.
    #[error("it is not a time such as \"2027-01-01T00:00:00Z\" (RFC 3339)")]
    Time,
}

impl Directory {
    /// Reads a principals file.
    pub fn parse(text: &str) -> Result<Self, DirectoryError> {
        let file: File = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        if file.principal.is_empty() {
            return Err(DirectoryError::NoPrincipals);
        }
        let mut directory =
            Self { principals: BTreeMap::new(), by_identity: HashMap::new(), security_keys: HashMap::new() };
        for (index, entry) in file.principal.into_iter().enumerate() {
            let id = entry.id.clone();
            directory.add(entry).map_err(|(key, fault)| DirectoryError::Principal {
                number: index + 1,
                id,
                key,
                fault,
            })?;
        }
        Ok(directory)
    }

    /// Without anybody.
    pub(super) fn nobody() -> Self {
        Self { principals: BTreeMap::new(), by_identity: HashMap::new(), security_keys: HashMap::new() }
    }

    /// All principals, by id.
    pub fn principals(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.principals.values()
    }

    /// With principals that were provisioned in the vault besides. One that has an id or an identity of another's is left
    /// out, and named: the file may have been given it later.
    pub(super) fn with(&self, provisioned: &[Arc<Principal>]) -> (Self, Vec<PrincipalId>) {
        let mut all = Self {
            principals: self.principals.clone(),
            by_identity: self.by_identity.clone(),
            security_keys: self.security_keys.clone(),
        };
        let mut clashing = Vec::new();
        for principal in provisioned {
            let clashes = all.principals.contains_key(&principal.id)
                || principal.identities.iter().any(|identity| all.by_identity.contains_key(identity));
            if clashes {
                clashing.push(principal.id.clone());
                continue;
            }
            for identity in &principal.identities {
                all.by_identity.insert(identity.clone(), Arc::clone(principal));
            }
            all.principals.insert(principal.id.clone(), Arc::clone(principal));
        }
        (all, clashing)
    }

    /// A principal by its id.
    pub fn principal(&self, id: &PrincipalId) -> Option<&Arc<Principal>> {
        self.principals.get(id)
    }

    /// A security key that the file lists.
    pub fn security_key(&self, key: &Fingerprint) -> Option<&ListedKey> {
        self.security_keys.get(key)
    }

    /// Those that it lists for a principal, in no order.
    pub fn security_keys_of(&self, principal: &PrincipalId) -> impl Iterator<Item = &ListedKey> {
        self.security_keys.values().filter(move |listed| listed.principal == *principal)
    }

    /// Whose identity it is, in any spelling.
    pub fn by_identity(&self, identity: &str) -> Option<&Arc<Principal>> {
        self.by_identity.get(identity::canonical(identity).ok()?.as_ref())
    }

    fn add(&mut self, entry: Entry) -> Result<(), (String, Fault)> {
        let at = |key: &str| {
            let key = key.to_owned();
            move |fault| (key, fault)
        };
        let id = PrincipalId::parse(&entry.id).map_err(|error| at("id")(error.into()))?;
        if self.principals.contains_key(&id) {
            return Err(at("id")(Fault::DuplicateId));
        }
        let expires = entry.expires.as_deref().map(time).transpose().map_err(at("expires"))?;
        let principal = Arc::new(Principal {
            id: id.clone(),
            kind: match entry.kind {
                Kind::Service => PrincipalKind::Service,
                Kind::Human => PrincipalKind::Human,
            },
            identities: self.identities(&entry.identities)?,
            roles: roles(&entry.roles)?,
            owner: entry.owner,
            enabled: entry.enabled,
            expires,
            revision: None,
        });
        self.add_security_keys(&principal, &entry.security_keys)?;
        for identity in &principal.identities {
            self.by_identity.insert(identity.clone(), Arc::clone(&principal));
        }
        self.principals.insert(id, principal);
        Ok(())
    }

    fn add_security_keys(&mut self, of: &Principal, lines: &[String]) -> Result<(), (String, Fault)> {
        for (index, line) in lines.iter().enumerate() {
            let at = |fault| (format!("security_keys[{index}]"), fault);
            if of.kind != PrincipalKind::Human {
                return Err(at(Fault::NotHuman));
            }
            let (key, label) = SecurityKey::parse_line(line).map_err(|error| at(error.into()))?;
            let fingerprint = key.fingerprint();
            let listed = ListedKey { principal: of.id.clone(), key, label };
            if let Some(other) = self.security_keys.insert(fingerprint, listed) {
                return Err(at(Fault::SharedSecurityKey(other.principal.to_string())));
            }
        }
        Ok(())
    }

    /// The canonical identities of an entry, none of which is another's.
    fn identities(&self, listed: &[String]) -> Result<BTreeSet<String>, (String, Fault)> {
        let mut identities = BTreeSet::new();
        for (index, text) in listed.iter().enumerate() {
            let at = |fault| (format!("identities[{index}]"), fault);
            let canonical = identity::canonical(text).map_err(|error| at(error.into()))?;
            if let Some(other) = self.by_identity.get(canonical.as_ref()) {
                return Err(at(Fault::SharedIdentity(other.id.to_string())));
            }
            if !identities.insert(canonical.into_owned()) {
                return Err(at(Fault::DuplicateIdentity));
            }
        }
        if identities.is_empty() { Err(("identities".to_owned(), Fault::Empty)) } else { Ok(identities) }
    }
}

/// The line, and not what stands there: somebody may have given another file.
fn syntax(text: &str, error: &toml::de::Error) -> DirectoryError {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map_or(0, |before| before.matches('\n').count())
            + 1;
    DirectoryError::Syntax(format!("line {line}: {}", told::expected(error.message())))
}

fn roles(
    listed: &BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<TenantScope, BTreeSet<Role>>, (String, Fault)> {
    let mut roles = BTreeMap::new();
    for (scope, names) in listed {
        let at = |fault| (format!("roles.{scope:?}"), fault);
        let place = match scope.as_str() {
            "*" => TenantScope::All,
            tenant => TenantScope::One(TenantId::parse(tenant).map_err(|error| at(error.into()))?),
        };
        let held = names
            .iter()
            .map(|name| Role::parse(name).ok_or_else(|| at(Fault::UnknownRole(name.clone()))))
            .collect::<Result<BTreeSet<_>, _>>()?;
        if held.is_empty() {
            return Err(at(Fault::Empty));
        }
        roles.insert(place, held);
    }
    if roles.is_empty() { Err(("roles".to_owned(), Fault::Empty)) } else { Ok(roles) }
}

fn time(text: &str) -> Result<Timestamp, Fault> {
    let time: jiff::Timestamp = text.parse().map_err(|_| Fault::Time)?;
    u64::try_from(time.as_microsecond()).map(Timestamp).map_err(|_| Fault::Time)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    principal: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    kind: Kind,
    identities: Vec<String>,
    owner: Option<String>,
    #[serde(default = "enabled")]
    enabled: bool,
    expires: Option<String>,
    #[serde(default)]
    security_keys: Vec<String>,
    roles: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Service,
    Human,
}

/// An entry that does not say so is meant to be used.
const fn enabled() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(body: &str) -> String {
        format!("[[principal]]\n{body}\n[principal.roles]\n\"demo\" = [\"service\"]\n")
    }

    fn fault(text: &str) -> (usize, String, Fault) {
        match Directory::parse(text).unwrap_err() {
            DirectoryError::Principal { number, key, fault, .. } => (number, key, fault),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_example_is_valid_and_shows_every_key() {
        let text = include_str!("example.toml");
        let directory = Directory::parse(text).unwrap();
        let billing = directory.by_identity("spiffe://dev.phi-vault.local/billing").unwrap();
        assert_eq!(billing.id.as_str(), "billing");
        assert_eq!(billing.roles[&TenantScope::One(TenantId::parse("demo").unwrap())].len(), 1);
        assert!(directory.principals().any(|p| p.expires.is_some() && p.owner.is_some()));
        assert!(directory.principals().any(|p| !p.enabled));
        assert!(directory.principals().any(|p| p.roles.contains_key(&TenantScope::All)));
        let grace = PrincipalId::parse("grace@example.org").unwrap();
        assert_eq!(directory.security_keys_of(&grace).count(), 1);
        for key in ["id", "kind", "identities", "owner", "enabled", "expires", "security_keys"] {
            assert!(text.contains(&format!("\n{key} = ")), "{key}");
        }
        for role in Role::ALL {
            assert!(text.contains(role.as_str()), "{role}");
        }
    }

    #[test]
    fn aliases_of_an_identity_do_not_make_a_second_principal() {
        for alias in
            ["spiffe://dev.local/a", "spiffe://DEV.local/a", "spiffe://dev.local/a/", "SPIFFE://dev.local/a"]
        {
            let text = one("id = 'a'\nkind = 'service'\nidentities = ['spiffe://dev.local/a']")
                + &one(&format!("id = 'b'\nkind = 'service'\nidentities = ['{alias}']"));
            let wanted = (2, "identities[0]".to_owned(), Fault::SharedIdentity("a".to_owned()));
            assert_eq!(fault(&text), wanted, "{alias}");
            let directory =
                Directory::parse(&one("id = 'a'\nkind = 'service'\nidentities = ['spiffe://dev.local/a']"))
                    .unwrap();
            assert_eq!(directory.by_identity(alias).unwrap().id.as_str(), "a", "{alias}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let good = "id = 'a'\nkind = 'service'\nidentities = ['spiffe://d/a']";
        let twice = one(good) + &one(&good.replace("spiffe://d/a", "spiffe://d/b"));
        assert_eq!(fault(&twice), (2, "id".to_owned(), Fault::DuplicateId));

        let doubled = one(&good.replace("['spiffe://d/a']", "['spiffe://d/a', 'spiffe://D/a']"));
        assert_eq!(fault(&doubled), (1, "identities[1]".to_owned(), Fault::DuplicateIdentity));

        let nobody = one(&good.replace("['spiffe://d/a']", "[]"));
        assert_eq!(fault(&nobody), (1, "identities".to_owned(), Fault::Empty));

        let (_, key, _) = fault(&one(&good.replace("'a'", "'A B'")));
        assert_eq!(key, "id");

        let late = one(&format!("{good}\nexpires = 'tomorrow'"));
        assert_eq!(fault(&late), (1, "expires".to_owned(), Fault::Time));

        let role = one(good).replace("service\"]", "root\"]");
        assert_eq!(fault(&role), (1, "roles.\"demo\"".to_owned(), Fault::UnknownRole("root".to_owned())));
        let none = one(good).replace("[\"service\"]", "[]");
        assert_eq!(fault(&none), (1, "roles.\"demo\"".to_owned(), Fault::Empty));
        let nowhere = one(good).replace("\"demo\" = [\"service\"]", "");
        assert_eq!(fault(&nowhere), (1, "roles".to_owned(), Fault::Empty));
        let (_, key, _) = fault(&one(good).replace("\"demo\"", "\"Demo\""));
        assert_eq!(key, "roles.\"Demo\"");

        let error = Directory::parse(&twice).unwrap_err().to_string();
        assert_eq!(error, "principal 2 (\"a\"): id: another principal has this id");
    }

    #[test]
    fn who_was_provisioned_under_anothers_id_or_identity_is_left_out_and_named() {
        let of = |id: &str, identity: &str| {
            let text = one(&format!("id = '{id}'\nkind = 'service'\nidentities = ['spiffe://d/{identity}']"));
            let directory = Directory::parse(&text).unwrap();
            Arc::clone(directory.principals().next().unwrap())
        };
        let file =
            Directory::parse(&one("id = 'a'\nkind = 'service'\nidentities = ['spiffe://d/a']")).unwrap();
        let provisioned =
            [of("a", "x"), of("b", "a"), of("c", "c"), of("c", "d"), of("e", "c"), of("f", "f")];
        let (all, clashing) = file.with(&provisioned);
        assert_eq!(clashing, ["a", "b", "c", "e"].map(|id| PrincipalId::parse(id).unwrap()));
        assert_eq!(all.principals().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["a", "c", "f"]);
        let whose =
            |identity: &str| all.by_identity(&format!("spiffe://d/{identity}")).map(|p| p.id.as_str());
        assert_eq!(["a", "c", "f"].map(whose), [Some("a"), Some("c"), Some("f")]);
        assert_eq!(["x", "d"].map(whose), [None, None]);
        let c = PrincipalId::parse("c").unwrap();
        assert_eq!(all.principal(&c), Some(&provisioned[2]));
        assert_eq!(file.principal(&c), None);
    }

    #[test]
    fn a_security_key_is_one_persons() {
        let line = include_str!("security_key_vectors/ed25519.pub").trim_end();
        let person = |id: &str, kind: &str, keys: &[&str]| {
            let keys: Vec<_> = keys.iter().map(|key| format!("'{key}'")).collect();
            let keys = keys.join(",");
            one(&format!(
                "id = '{id}'\nkind = '{kind}'\nidentities = ['spiffe://d/{id}']\nsecurity_keys = [{keys}]"
            ))
        };
        let good = person("a", "human", &[line]);
        let directory = Directory::parse(&good).unwrap();
        let a = PrincipalId::parse("a").unwrap();
        let listed: Vec<_> = directory.security_keys_of(&a).collect();
        assert_eq!((listed.len(), listed[0].label.as_str()), (1, "ada blue"));
        assert_eq!(directory.security_key(&listed[0].key.fingerprint()), Some(listed[0]));
        assert_eq!(directory.security_keys_of(&PrincipalId::parse("b").unwrap()).count(), 0);
        let shared = |number, at: &str| {
            (number, format!("security_keys[{at}]"), Fault::SharedSecurityKey("a".to_owned()))
        };
        // Also under another label.
        let relabelled = line.replace("blue", "red");
        assert_eq!(fault(&(good + &person("b", "human", &[&relabelled]))), shared(2, "0"));
        assert_eq!(fault(&person("a", "human", &[line, line])), shared(1, "1"));
        let (_, key, why) = fault(&person("a", "service", &[line]));
        assert_eq!((key.as_str(), why), ("security_keys[0]", Fault::NotHuman));
        let (_, _, why) = fault(&person("a", "human", &["ssh-ed25519 AAAA me"]));
        assert_eq!(why, Fault::SecurityKey(InvalidSecurityKey::InFile));
    }

    #[test]
    fn what_stands_in_another_file_is_not_repeated() {
        let told = Directory::parse("# a list\n999-68-7171").unwrap_err().to_string();
        assert_eq!(told, "line 2: key with no value, expected `=`");
        let told = Directory::parse("principal = '999-68-7171'").unwrap_err().to_string();
        assert_eq!(told, "line 1: expected a sequence");
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let good = one("id = 'a'\nkind = 'service'\nidentities = ['spiffe://d/a']");
        assert!(Directory::parse(&good).is_ok());
        assert_eq!(Directory::parse("").unwrap_err(), DirectoryError::NoPrincipals);
        for bad in [
            good.replace("kind", "kinds"),
            good.replace("'service'", "'robot'"),
            good.replace("[[principal]]", "[[principle]]"),
            good.replace("[[principal]]", "[[principal]]\nenabled = 'yes'"),
            good.replace("id = 'a'\n", ""),
        ] {
            assert!(matches!(Directory::parse(&bad), Err(DirectoryError::Syntax(_))), "{bad}");
        }
    }
}
