//! Makes a vault: its id, its configuration, its principals' file, its root key. Overwrites nothing.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::config::{self, Config, Engine};
use super::files::{self, Access};
use super::wire;
use crate::domain::{Environment, VaultId};

/// The configuration's file in a vault's directory.
pub const CONFIG_FILE: &str = "vault.toml";
/// The principals' file there.
pub const PRINCIPALS_FILE: &str = "principals.toml";
/// The local KMS's root key there.
pub const ROOT_KEY_FILE: &str = "root.key";

/// What wraps the new vault's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewKms {
    /// A root key in a file, made now; in `prod` with the words that allow it.
    Local {
        /// What `kms.local_in_prod` says, if anything.
        in_prod: Option<String>,
    },
    /// Keys of AWS KMS, by ARN.
    Aws {
        /// In order.
        arns: Vec<String>,
    },
}

/// The database that a new vault is kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDatabase {
    hosts: Vec<(String, u16)>,
    database: String,
    user: String,
}

impl NewDatabase {
    /// From `postgres://user@host:port,host:port/database`. There is no password in it: it would be seen in the list
    /// of processes.
    pub fn parse(url: &str) -> Result<Self, String> {
        let form = || "must be postgres://user@host:port/database".to_owned();
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let (user, rest) = rest.and_then(|rest| rest.split_once('@')).ok_or_else(form)?;
        let (hosts, database) = rest.split_once('/').ok_or_else(form)?;
        if user.contains(':') {
            return Err("must not have a password in it: see password_file in [store.postgres]".to_owned());
        }
        let hosts: Option<Vec<_>> = hosts.split(',').map(config::address).collect();
        let hosts = hosts.ok_or_else(form)?;
        let name = |text: &str| !text.is_empty() && !text.contains(['?', '/', '%', '"']);
        if !name(user) || !name(database) {
            return Err(form());
        }
        Ok(Self { hosts, database: database.to_owned(), user: user.to_owned() })
    }

    /// Whether a vault's configuration says that it is kept here.
    pub fn is_of(&self, config: &Config) -> bool {
        config.store.engine == Engine::Postgres
            && config.store.postgres.as_ref().is_some_and(|section| {
                section.addresses() == self.hosts
                    && section.database == self.database
                    && section.user == self.user
            })
    }

    /// Whether it needs a password and an authority for its certificate.
    pub fn is_remote(&self) -> bool {
        !self.hosts.iter().all(|(host, _)| config::is_loopback(host))
    }

    fn text(&self) -> String {
        let quoted = |value: &str| toml::Value::from(value).to_string();
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let hosts: Vec<_> =
            self.hosts.iter().map(|(host, port)| quoted(&format!("{}:{port}", bracketed(host)))).collect();
        let protection = if self.is_remote() {
            "password_file = \"db-password\"\ntls = \"verify-full\"\nca = \"pki/db-ca.pem\"\n"
        } else {
            "tls = \"off\"\n"
        };
        format!(
            "\n[store]\nengine = \"postgres\"\n\n[store.postgres]\nhosts = [{}]\ndatabase = {}\nuser = {}\n{protection}",
            hosts.join(", "),
            quoted(&self.database),
            quoted(&self.user),
        )
    }
}

/// A vault to be made.
#[derive(Debug, Clone)]
pub struct NewVault {
    /// Its directory; may be there, but without a vault.
    pub dir: PathBuf,
    /// Its environment.
    pub environment: Environment,
    /// What wraps its keys.
    pub kms: NewKms,
    /// Where its rows are kept, if not in its directory.
    pub database: Option<NewDatabase>,
    /// Where it will listen.
    pub listen: SocketAddr,
    /// The text of its principals' file.
    pub principals: String,
    /// Whether a change that makes more of somebody needs a second person.
    pub second_person: bool,
}

/// A principals' file with one entry, disabled: nobody may call before somebody has decided who.
pub fn example_principals(environment: &Environment) -> String {
    format!(
        "# Who may call. One [[principal]] for each caller; nobody else is let in. Read again whenever it changes.\n\
         \n\
         [[principal]]\n\
         id = \"example\"\n\
         kind = \"service\"\n\
         # By what its certificate is known: its one SPIFFE id.\n\
         identities = [\"spiffe://{environment}.phi-vault.internal/example\"]\n\
         enabled = false\n\
         # Roles by tenant: service, console, oncall, approver, rotator, auditor, admin.\n\
         [principal.roles]\n\
         \"demo\" = [\"service\"]\n"
    )
}

/// Makes the vault's files; the configuration last, so that what has one is whole.
pub fn init(vault: &NewVault) -> anyhow::Result<VaultId> {
    let file = vault.dir.join(CONFIG_FILE);
    anyhow::ensure!(!file.exists(), "{}: there is a vault already", file.display());
    let id = VaultId::random().context("no randomness from the operating system")?;
    let text = config_text(vault, id);
    // Before anything is written: what would be refused at the start is refused now.
    let config = Config::parse(&file, &text)?;
    files::make_dir(&vault.dir).with_context(|| format!("can't make {}", vault.dir.display()))?;
    files::make_dir(&config.vault.data)
        .with_context(|| format!("can't make {}", config.vault.data.display()))?;
    if let Some(root_key) = &config.kms.root_key_file {
        wire::create_root_key(root_key).with_context(|| format!("can't make {}", root_key.display()))?;
    }
    write(&config.access.principals, &vault.principals)?;
    write(&file, &text)?;
    Ok(id)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    files::write_new(file, text.as_bytes(), Access::Public)
        .with_context(|| format!("can't make {}", file.display()))
}

fn config_text(vault: &NewVault, id: VaultId) -> String {
    let NewVault { environment, listen, .. } = vault;
    let mut text = format!(
        "# Made by `vault-server init`. docs/vault.sample.toml explains every option and those that are not here.\n\
         \n\
         [vault]\n\
         # Part of everything that is kept: never change these two.\n\
         id = \"{id}\"\n\
         environment = \"{environment}\"\n\
         data = \"data\"\n\
         \n\
         [listen]\n\
         address = \"{listen}\"\n\
         \n\
         [tls]\n\
         certificate = \"pki/server.pem\"\n\
         key = \"pki/server.key\"\n\
         client_ca = \"pki/ca.pem\"\n\
         \n\
         [access]\n\
         principals = \"{PRINCIPALS_FILE}\"\n"
    );
    if !vault.second_person {
        text.push_str(
            "# One admin alone gives anybody any role: for trying out, and not for a vault with anything in it.\n\
             second_person_for_roles = false\n",
        );
    }
    text.push_str(&vault.database.as_ref().map(NewDatabase::text).unwrap_or_default());
    text.push_str("\n[kms]\n");
    let quoted = |value: &str| toml::Value::from(value).to_string();
    match &vault.kms {
        NewKms::Local { in_prod } => {
            let _ = writeln!(text, "kind = \"local\"\nroot_key_file = \"{ROOT_KEY_FILE}\"");
            if let Some(words) = in_prod {
                let _ = writeln!(text, "local_in_prod = {}", quoted(words));
            }
        }
        NewKms::Aws { arns } => {
            text.push_str("kind = \"aws\"\n");
            for arn in arns {
                let _ = writeln!(text, "\n[[kms.key]]\narn = {}", quoted(arn));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::config::LOCAL_IN_PROD;
    use super::*;

    fn vault(dir: &Path, environment: &str, kms: NewKms) -> NewVault {
        let environment = Environment::parse(environment).unwrap();
        let principals = example_principals(&environment);
        let listen = SocketAddr::from(([127, 0, 0, 1], 8443));
        NewVault {
            dir: dir.join("vault"),
            environment,
            kms,
            database: None,
            listen,
            principals,
            second_person: true,
        }
    }

    #[test]
    fn init_makes_a_vault_and_does_not_overwrite_it() {
        let dir = tempfile::tempdir().unwrap();
        let vault = vault(dir.path(), "qa", NewKms::Local { in_prod: None });
        let id = init(&vault).unwrap();
        let config = Config::load(&vault.dir.join(CONFIG_FILE)).unwrap();
        assert_eq!((config.identity().vault, config.identity().environment.as_str()), (id, "qa"));
        assert!(config.access.second_person_for_roles);
        let root_key = vault.dir.join(ROOT_KEY_FILE);
        let before = std::fs::read(&root_key).unwrap();
        assert_eq!(root_key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(vault.dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(init(&vault).unwrap_err().to_string().contains("already"));
        // Even without its configuration, the root key is not made anew.
        std::fs::remove_file(vault.dir.join(CONFIG_FILE)).unwrap();
        assert!(init(&vault).is_err());
        assert_eq!(std::fs::read(&root_key).unwrap(), before);
    }

    #[test]
    fn init_with_a_database_says_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let new = |url: &str| NewVault {
            database: Some(NewDatabase::parse(url).unwrap()),
            ..vault(dir.path(), "qa", NewKms::Local { in_prod: None })
        };
        let near = new("postgres://vault@127.0.0.1:5432,[::1]:5433/phi");
        let text = config_text(&near, VaultId::from_bytes([1; 16]));
        let config = Config::parse(Path::new("vault.toml"), &text).unwrap();
        let section = config.store.postgres.unwrap();
        assert_eq!(section.addresses(), [("127.0.0.1".to_owned(), 5432), ("::1".to_owned(), 5433)]);
        assert_eq!((section.user.as_str(), section.tls), ("vault", config::PostgresTls::Off));
        let far = config_text(&new("postgresql://vault@db.internal:5432/phi"), VaultId::from_bytes([1; 16]));
        let section = Config::parse(Path::new("vault.toml"), &far).unwrap().store.postgres.unwrap();
        assert_eq!(section.tls, config::PostgresTls::VerifyFull);
        for bad in
            ["", "postgres://host:1/db", "postgres://u@host/db", "postgres://u@h:0/db", "postgres://u@h:1/"]
        {
            assert!(NewDatabase::parse(bad).is_err(), "{bad}");
        }
        assert!(NewDatabase::parse("postgres://u:secret@h:1/db").unwrap_err().contains("password_file"));
    }

    #[test]
    fn init_leaves_nothing_behind_when_the_configuration_would_be_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = vault(dir.path(), "prod", NewKms::Local { in_prod: None });
        assert!(init(&refused).unwrap_err().to_string().contains(LOCAL_IN_PROD));
        assert!(!refused.dir.exists());
        assert!(init(&vault(dir.path(), "prod", NewKms::Aws { arns: vec!["alias/x".to_owned()] })).is_err());
        assert!(!refused.dir.exists());
        init(&vault(dir.path(), "prod", NewKms::Local { in_prod: Some(LOCAL_IN_PROD.to_owned()) })).unwrap();
    }

    #[test]
    fn init_with_aws_keeps_the_order_of_the_keys_and_makes_no_root_key() {
        let dir = tempfile::tempdir().unwrap();
        let arns: Vec<String> = ["eu-west-1", "eu-central-1"]
            .map(|region| format!("arn:aws:kms:{region}:111122223333:key/abcd"))
            .into();
        let vault = vault(dir.path(), "prod", NewKms::Aws { arns: arns.clone() });
        init(&vault).unwrap();
        let config = Config::load(&vault.dir.join(CONFIG_FILE)).unwrap();
        assert_eq!(config.kms.key.iter().map(|key| key.arn.clone()).collect::<Vec<_>>(), arns);
        assert!(!vault.dir.join(ROOT_KEY_FILE).exists());
    }
}
