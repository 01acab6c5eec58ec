//! A vault whose configuration, principals and policies a test edits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use vault_server::jobs::DIE_AT;
use vault_server::store::Store;
use vault_server::store::embedded::{self, EngineKind, StoreOptions};
use vault_server::store::postgres::{self, Password, PostgresOptions, Transport};

use crate::database::Database;
use crate::process::{DevVault, Ended};

/// The signature of the fake KMS is not checked, but there must be one.
const KMS_CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")];

/// A vault's directory: made by `vault-server dev`, then served with what the test made of it.
pub struct Site {
    dir: PathBuf,
}

impl Site {
    /// Makes certificates, principals, a profile and a configuration, and removes what the first start has kept.
    pub fn make(dir: &Path) -> Self {
        DevVault::start(dir).stop();
        let site = Self { dir: dir.to_owned() };
        site.empty();
        // As a vault has it that is not for trying out.
        site.edit("vault.toml", |text| {
            let lines = text.lines().filter(|line| !line.starts_with("second_person_for_roles"));
            lines.fold(String::new(), |text, line| text + line + "\n")
        });
        site
    }

    /// One whose files something else made.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Lets it begin anew: what its store holds is not there any more.
    pub fn empty(&self) {
        fs::remove_dir_all(self.dir.join("data")).unwrap();
        if let (Some(old), Some(new)) = (self.database(), Database::wanted()) {
            self.edit("vault.toml", |text| text.replace(old.name(), new.name()));
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of its store, where that is embedded.
    pub fn store(&self) -> PathBuf {
        self.dir.join("data/store")
    }

    /// The database of its store, where that is one.
    pub fn database(&self) -> Option<Database> {
        Database::of(&self.dir)
    }

    /// Opens its store, while no server does.
    ///
    /// # Panics
    /// If that fails.
    pub async fn open_store(&self) -> Arc<dyn Store> {
        let Some(database) = self.database() else {
            return embedded::open(EngineKind::Fjall, &self.store(), StoreOptions::default()).unwrap();
        };
        let (port, user) = database.address();
        let options = PostgresOptions {
            hosts: vec![("127.0.0.1".to_owned(), port)],
            database: database.name().to_owned(),
            user,
            password: Password::None,
            transport: Transport::Plain,
            connections: 1,
            instance: None,
            lease: Duration::from_secs(10),
        };
        postgres::open(options, None).await.unwrap()
    }

    /// Whether its store was begun.
    pub fn is_begun(&self) -> bool {
        self.database().map_or_else(|| self.store().exists(), |database| database.is_begun())
    }

    /// Changes one of its files.
    pub fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.dir.join(file);
        let before = fs::read_to_string(&path).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "{file}: nothing to change");
        fs::write(path, after).unwrap();
    }

    /// Uses keys of AWS KMS: ARN and endpoint of each.
    pub fn use_kms(&self, keys: &[(String, String)]) {
        self.edit("vault.toml", |text| {
            let (head, _) = text.split_once("[kms]").unwrap();
            let keys = keys.iter().map(|(arn, endpoint)| {
                format!("\n[[kms.key]]\narn = \"{arn}\"\nendpoint = \"{endpoint}\"\n")
            });
            format!("{head}[kms]\nkind = \"aws\"\n{}", keys.collect::<String>())
        });
    }

    /// Another admin of the vault beside `admin`, to approve what that one asks for.
    pub fn add_second_admin(&self, id: &str) {
        let spiffe = format!("spiffe://dev.phi-vault.internal/{id}");
        self.edit("principals.toml", |text| {
            format!(
                "{text}\n[[principal]]\nid = \"{id}\"\nkind = \"human\"\nidentities = [\"{spiffe}\"]\n\
                 [principal.roles]\n\"*\" = [\"admin\"]\n"
            )
        });
        self.add_identity(id);
    }

    /// Lets the dev identities in: `roles` is the body of `[principal.roles]` of one of them.
    pub fn provision(&self, id: &str, roles: &str) {
        self.edit("principals.toml", |text| {
            let at = text.find(&format!("id = \"{id}\"")).unwrap();
            let begin = at + text[at..].find("[principal.roles]\n").unwrap() + "[principal.roles]\n".len();
            let end = text[begin..].find("\n\n").map_or(text.len(), |len| begin + len);
            format!("{}{roles}\n{}", &text[..begin], &text[end..])
        });
    }

    /// A new principal, known by `spiffe://dev.phi-vault.internal/<id>`, with a certificate of that name.
    pub fn add_service(&self, id: &str, tenant: &str) {
        let spiffe = format!("spiffe://dev.phi-vault.internal/{id}");
        self.edit("principals.toml", |text| {
            format!(
                "{text}\n[[principal]]\nid = \"{id}\"\nkind = \"service\"\nidentities = [\"{spiffe}\"]\n\
                 [principal.roles]\n\"{tenant}\" = [\"service\"]\n"
            )
        });
        self.issue(id, &spiffe, true, (2040, 1, 1));
    }

    /// A certificate for `spiffe://dev.phi-vault.internal/<id>`, of whom the vault knows nothing yet, as identity `<id>` of the
    /// profile.
    pub fn add_identity(&self, id: &str) {
        self.issue(id, &format!("spiffe://dev.phi-vault.internal/{id}"), true, (2040, 1, 1));
        self.edit("profile.toml", |text| {
            format!("{text}\n[identities.{id}]\ncertificate = \"pki/{id}.pem\"\nkey = \"pki/{id}.key\"\n")
        });
    }

    /// Replaces the built-in policies.
    pub fn use_policies(&self, text: &str) {
        fs::write(self.dir.join("policy.cedar"), text).unwrap();
        self.edit("vault.toml", |text| text.replace("[access]\n", "[access]\npolicy = \"policy.cedar\"\n"));
    }

    /// Serves it with `vault-server dev`.
    pub fn dev(&self) -> DevVault {
        DevVault::start(&self.dir)
    }

    /// Serves it with `vault-server serve`; the profile leads there.
    pub fn serve(&self) -> DevVault {
        self.serve_with(&self.dir.join("vault.toml"))
    }

    /// Serves it with another configuration; the profile leads there.
    pub fn serve_with(&self, config: &Path) -> DevVault {
        self.serve_as(config, "profile.toml")
    }

    /// The same, with a profile of its own, which is made: so that several instances serve at once.
    pub fn serve_beside(&self, config: &Path, profile: &str) -> DevVault {
        fs::copy(self.dir.join("profile.toml"), self.dir.join(profile)).unwrap();
        self.serve_as(config, profile)
    }

    fn serve_as(&self, config: &Path, profile: &str) -> DevVault {
        let vault = DevVault::serve(&self.dir, config, &self.dir.join(profile), &KMS_CREDENTIALS);
        self.lead_to(&vault, profile);
        vault
    }

    /// Serves it with `vault-server serve` until it is dead, which may be before it serves: `at` is a kind of job, a step,
    /// and the how many-th time.
    pub fn serve_until(&self, at: &str) -> Result<DevVault, Ended> {
        let env = [KMS_CREDENTIALS[0], KMS_CREDENTIALS[1], (DIE_AT, at)];
        let (config, profile) = (self.dir.join("vault.toml"), self.dir.join("profile.toml"));
        let vault = DevVault::try_serve(&self.dir, &config, &profile, &env)?;
        self.lead_to(&vault, "profile.toml");
        Ok(vault)
    }

    /// Lets a profile lead to the server.
    fn lead_to(&self, vault: &DevVault, profile: &str) {
        let profile = self.dir.join(profile);
        let text = fs::read_to_string(&profile).unwrap();
        let lines = text.lines().map(|line| {
            if line.starts_with("endpoints") {
                format!("endpoints = [\"https://{}\"]\n", vault.address())
            } else {
                format!("{line}\n")
            }
        });
        fs::write(&profile, lines.collect::<String>()).unwrap();
    }

    /// A client certificate for a SPIFFE id, from the site's own authority or from a look-alike that has another key:
    /// `<name>.pem` and `<name>.key` beside the others.
    pub fn issue(&self, name: &str, spiffe: &str, own_authority: bool, until: (i32, u8, u8)) {
        let pki = self.dir.join("pki");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "phi-vault dev authority");
        let key = if own_authority {
            KeyPair::from_pem(&fs::read_to_string(pki.join("ca.key")).unwrap()).unwrap()
        } else {
            KeyPair::generate().unwrap()
        };
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(pki.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(pki.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
