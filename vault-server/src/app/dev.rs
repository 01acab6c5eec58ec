//! `vault-server dev`: a vault to try out, made on the first start and kept for the next ones.
//!
//! ```text
//! vault.toml principals.toml root.key data/     as made by init, environment `dev`
//! pki/                                          see the module pki
//! profile.toml                                  for vaultctl: where, and one identity a role
//! ```

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::config::Config;
use super::files::{self, Access};
use super::init::{self, CONFIG_FILE, NewDatabase, NewKms, NewVault};
use super::pki::{self, ROLES};
use super::serve::{self, Outcome};
use crate::domain::Environment;

/// The only tenant.
const TENANT: &str = "demo";
const ENVIRONMENT: &str = "dev";
const PKI_DIR: &str = "pki";
const PROFILE_FILE: &str = "profile.toml";

/// Makes what is missing; the configuration, listening on `listen`.
pub fn prepare(dir: &Path, listen: SocketAddr, database: Option<NewDatabase>) -> anyhow::Result<Config> {
    let (file, wanted) = (dir.join(CONFIG_FILE), database.clone());
    let environment = Environment::parse(ENVIRONMENT).context("the environment's name")?;
    if !file.exists() {
        let vault = NewVault {
            dir: dir.to_owned(),
            environment: environment.clone(),
            kms: NewKms::Local { in_prod: None },
            database,
            listen,
            principals: principals(&environment),
            second_person: false,
        };
        init::init(&vault)?;
    }
    let mut config = Config::load(&file)?;
    if let Some(database) = &wanted {
        anyhow::ensure!(
            database.is_of(&config),
            "{}: there is a vault already, and it is not kept in that database. Edit its [store], or take another --dir",
            file.display()
        );
    }
    anyhow::ensure!(
        config.vault.environment == environment,
        "{}: is of environment `{}`; `vault-server dev` serves `{ENVIRONMENT}` only",
        file.display(),
        config.vault.environment
    );
    pki::ensure(&dir.join(PKI_DIR), &environment, listen.ip())?;
    config.listen.address = listen;
    Ok(config)
}

/// Serves, and says on standard output how to use it.
pub async fn run(dir: PathBuf, config: Config) -> anyhow::Result<Outcome> {
    serve::run(config, |address| {
        let address = SocketAddr::new(reachable(address.ip()), address.port());
        let profile = dir.join(PROFILE_FILE);
        files::replace(&profile, profile_text(address).as_bytes(), Access::Public)
            .with_context(|| format!("can't write {}", profile.display()))?;
        let profile = std::path::absolute(&profile)?;
        // Whoever waits for this line reads a pipe: it must not stay in a buffer.
        let mut out = std::io::stdout().lock();
        std::io::Write::write_all(&mut out, greeting(address, &profile).as_bytes())?;
        std::io::Write::flush(&mut out)?;
        Ok(())
    })
    .await
}

/// An address that a client on this machine can connect to.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn principals(environment: &Environment) -> String {
    let mut text = String::from("# One principal a role, for trying out.\n");
    for role in ROLES {
        let kind = if matches!(role, "service" | "console" | "rotator") { "service" } else { "human" };
        let identity = pki::spiffe_id(environment, role);
        // Who reads the log reads all of it, also what is of no tenant.
        let scope = if matches!(role, "auditor" | "admin") { "*" } else { TENANT };
        let _ = write!(
            text,
            "\n[[principal]]\nid = \"{role}\"\nkind = \"{kind}\"\nidentities = [\"{identity}\"]\n\
             [principal.roles]\n\"{scope}\" = [\"{role}\"]\n"
        );
    }
    text
}

fn profile_text(address: SocketAddr) -> String {
    let mut text = format!(
        "# For vaultctl; written at each start of `vault-server dev`.\n\
         endpoints = [\"https://{address}\"]\n\
         ca = \"{PKI_DIR}/ca.pem\"\n\
         server_name = \"localhost\"\n\
         tenant = \"{TENANT}\"\n\
         environment = \"{ENVIRONMENT}\"\n\
         identity = \"service\"\n"
    );
    for role in ROLES {
        let _ = write!(
            text,
            "\n[identities.{role}]\ncertificate = \"{PKI_DIR}/{role}.pem\"\nkey = \"{PKI_DIR}/{role}.key\"\n"
        );
    }
    text
}

fn greeting(address: SocketAddr, profile: &Path) -> String {
    let profile = shell_quoted(&profile.to_string_lossy());
    let (place, command) = vaultctl();
    format!(
        "ready: phi-vault dev on https://{address}\n\
         \n\
         In another shell{place}:\n\
         \n  {command}\n\
         \n  export PHI_VAULT_PROFILE={profile}\n\
         \n  TOKEN=$(printf %s 999-68-7171 | vaultctl tokenize --class ssn)\n\
         \n  vaultctl --as console mask \"$TOKEN\"\n\
         \n  vaultctl detokenize --purpose TREAT \"$TOKEN\"\n\
         \nThis vault is for trying out: its root key lies beside its data. Ctrl-C stops it.\n"
    )
}

/// How a shell gets to call `vaultctl`, and from where: the one that was built or installed beside this program, or
/// cargo in the source's directory.
fn vaultctl() -> (&'static str, String) {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("vaultctl"));
    let (place, command) = match beside.filter(|path| path.exists()) {
        Some(path) => ("", shell_quoted(&path.to_string_lossy())),
        None => (", in the same directory", "cargo run --quiet --release --bin vaultctl --".to_owned()),
    };
    (place, format!("vaultctl() {{ {command} \"$@\"; }}"))
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: &str = "127.0.0.1:0";

    #[test]
    fn second_start_uses_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = prepare(dir.path(), LISTEN.parse().unwrap(), None).unwrap();
        let root_key = std::fs::read(dir.path().join(init::ROOT_KEY_FILE)).unwrap();
        let second = prepare(dir.path(), "127.0.0.1:9".parse().unwrap(), None).unwrap();
        assert_eq!(first.vault, second.vault);
        assert!(!first.access.second_person_for_roles, "there is one admin");
        assert_eq!(second.listen.address.port(), 9);
        assert_eq!(std::fs::read(dir.path().join(init::ROOT_KEY_FILE)).unwrap(), root_key);
    }

    #[test]
    fn dev_does_not_serve_another_environments_vault() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), LISTEN.parse().unwrap(), None).unwrap();
        let file = dir.path().join(CONFIG_FILE);
        let text = std::fs::read_to_string(&file).unwrap().replace("\"dev\"", "\"qa\"");
        std::fs::write(&file, text).unwrap();
        assert!(prepare(dir.path(), LISTEN.parse().unwrap(), None).unwrap_err().to_string().contains("`qa`"));
    }

    #[test]
    fn profile_and_principals_have_every_role() {
        let profile: toml::Table = toml::from_str(&profile_text("127.0.0.1:8443".parse().unwrap())).unwrap();
        assert_eq!(profile["endpoints"][0].as_str(), Some("https://127.0.0.1:8443"));
        let principals: toml::Table =
            toml::from_str(&principals(&Environment::parse("dev").unwrap())).unwrap();
        for (number, role) in ROLES.iter().enumerate() {
            assert_eq!(profile["identities"][role]["key"].as_str(), Some(format!("pki/{role}.key").as_str()));
            let scope = if matches!(*role, "auditor" | "admin") { "*" } else { TENANT };
            assert_eq!(principals["principal"][number]["roles"][scope][0].as_str(), Some(*role));
        }
    }

    #[test]
    fn path_with_a_quote_can_be_pasted() {
        assert_eq!(shell_quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
