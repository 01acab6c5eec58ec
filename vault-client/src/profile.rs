//! Profiles: where a vault is and which identities may be used with it, in a file.
//!
//! ```toml
//! endpoints = ["https://127.0.0.1:8443"]
//! ca = "pki/ca.pem"
//! # server_name = "vault.example.org"   # if the certificate is for another name than the endpoint's host
//! # tenant = "st-mary"                  # for identities that serve several
//! # environment = "prod"                # tokens of other environments are refused without a call
//! identity = "service"                  # used when none is named
//!
//! [identities.service]
//! certificate = "pki/service.pem"
//! key = "pki/service.key"
//!
//! [identities.joan]                     # a person, who comes by an identity provider: `vaultctl login`
//! session_file = "joan.session"         # where the session is kept; certificate and key may be there, too
//! login = { issuer = "https://idp.example.org", client_id = "vaultctl" }
//! ```
//!
//! Paths are relative to the profile's own directory. Unknown keys are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use vault_format::told;

use crate::error::Error;

/// A profile, as read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `https://host:port`; several for several instances of one vault.
    pub endpoints: Vec<String>,
    /// Certificates that sign the servers' ones, PEM.
    pub ca: PathBuf,
    /// The name in the servers' certificates, if it is not the host of the endpoint.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Whose data is meant; needed if the identity serves several tenants.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The environment of the vault's tokens; others are refused without a call.
    #[serde(default)]
    pub environment: Option<String>,
    /// The identity to use when none is named.
    pub identity: String,
    /// Identities by name.
    pub identities: BTreeMap<String, ProfileIdentity>,
}

/// One identity of a profile: a certificate and its key, a session, or both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileIdentity {
    /// Certificate chain, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Private key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Where a person's session is kept.
    #[serde(default)]
    pub session_file: Option<PathBuf>,
    /// By which identity provider the person comes.
    #[serde(default)]
    pub login: Option<ProfileLogin>,
}

/// An identity provider, for a person to log in at (RFC 8628).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileLogin {
    /// `https://...`, as the provider calls itself.
    pub issuer: String,
    /// What `vaultctl` is called there.
    pub client_id: String,
    /// What is asked for.
    #[serde(default = "ProfileLogin::default_scope")]
    pub scope: String,
    /// Whom the access token is for, where the provider has to be told (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// Certificates that sign the provider's ones, PEM; the system's if unset.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

impl ProfileLogin {
    fn default_scope() -> String {
        "openid".to_owned()
    }
}

impl ProfileIdentity {
    fn check(&self) -> Result<(), &'static str> {
        match (&self.certificate, &self.key, &self.session_file) {
            (Some(_), None, _) | (None, Some(_), _) => Err("certificate and key belong together"),
            (None, None, None) => Err("has neither a certificate nor a session_file"),
            (_, _, None) if self.login.is_some() => Err("login needs a session_file"),
            _ => Ok(()),
        }
    }

    fn resolve(&mut self, base: &Path) {
        let Self { certificate, key, session_file, login } = self;
        let ca = login.as_mut().and_then(|login| login.ca.as_mut());
        let paths = [certificate.as_mut(), key.as_mut(), session_file.as_mut(), ca];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
    }
}

impl Profile {
    /// Reads a profile; its paths come back usable from the current directory.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unusable = |what: &dyn std::fmt::Display| {
            Error::configuration(&format!("profile {}: {what}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            // Whatever stands where a path should: it may be a value, and there is no such file to tell by its name.
            if error.kind() == std::io::ErrorKind::NotFound {
                return Error::configuration("the profile is not there: no file has the name that was given");
            }
            unusable(&error)
        })?;
        let mut profile: Self = from_toml(&text).map_err(|error| unusable(&error))?;
        let base = path.parent().unwrap_or(Path::new(""));
        profile.ca = base.join(&profile.ca);
        for (name, identity) in &mut profile.identities {
            identity.check().map_err(|what| unusable(&format!("identity `{name}`: {what}")))?;
            identity.resolve(base);
        }
        Ok(profile)
    }

    /// The identity of that name, or the default one.
    pub fn identity(&self, name: Option<&str>) -> Result<&ProfileIdentity, Error> {
        self.identities.get(name.unwrap_or(&self.identity)).ok_or_else(|| {
            let known: Vec<_> = self.identities.keys().map(String::as_str).collect();
            // What a caller names may be anything; the profile's own choice is in the profile.
            let which = match name {
                Some(_) => "of that name".to_owned(),
                None => format!("`{}`, which is its own choice", self.identity),
            };
            Error::configuration(&format!("the profile has no identity {which}; it has {}", known.join(", ")))
        })
    }
}

/// Reads TOML. An error tells the line and what should stand there. Not what does, which may be a value: somebody gave
/// another file.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let told = told::expected(error.message());
        let before = error.span().and_then(|span| text.get(..span.start));
        before.map_or_else(
            || told.clone(),
            |before| format!("line {}: {told}", before.matches('\n').count() + 1),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "endpoints = ['https://127.0.0.1:8443']\nca = 'pki/ca.pem'\nidentity = 'service'\n\
                        [identities.service]\ncertificate = 'pki/service.pem'\nkey = '/abs/service.key'\n";

    fn load(text: &str) -> Result<Profile, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        std::fs::write(&path, text).unwrap();
        Profile::load(&path)
    }

    #[test]
    fn paths_are_relative_to_the_profile() {
        let profile = load(GOOD).unwrap();
        assert!(profile.ca.is_absolute() && profile.ca.ends_with("pki/ca.pem"));
        assert_eq!(profile.identity(None).unwrap().key.as_deref(), Some(Path::new("/abs/service.key")));
    }

    #[test]
    fn a_typo_is_refused_and_named() {
        let error = load(&GOOD.replace("identity =", "identiti =")).unwrap_err();
        assert!(error.message().contains("identiti"), "{error}");
        assert!(load(&format!("{GOOD}pin = 'x'\n")).is_err());
    }

    #[test]
    fn what_stands_in_another_file_is_not_repeated() {
        let texts = [
            "999-68-7171",
            "Orla Quillfeather,999-68-7171\n",
            "a\n999-68-7171 1\n",
            "endpoints = '999-68-7171'",
            "endpoints = [999687171]",
            "ca = ['999-68-7171']",
            "ca = \"999-68-7171",
            "ca = 999-68-7171",
            "ca = 'ca'\nca = '999-68-7171'",
        ];
        for text in texts {
            let error = load(text).unwrap_err();
            let told = error.message();
            assert!(!told.contains("7171") && !told.contains("Orla") && told.contains("line "), "{told}");
        }
        let error = load(&GOOD.replace("'service'\n", "7\n")).unwrap_err();
        assert!(error.message().ends_with("line 3: expected a string"), "{error}");
    }

    #[test]
    fn what_is_no_profile_is_not_repeated() {
        let error = Profile::load(Path::new("999-68-7171")).unwrap_err();
        assert!(!error.message().contains("7171") && error.message().contains("not there"), "{error}");
    }

    #[test]
    fn a_person_needs_no_certificate_but_a_place_for_the_session() {
        let person = |body: &str| load(&format!("{GOOD}[identities.joan]\n{body}\n"));
        let login = "login = { issuer = 'https://idp', client_id = 'a', ca = 'idp.pem' }";
        let profile = person(&format!("session_file = 'joan.session'\n{login}")).unwrap();
        let joan = profile.identity(Some("joan")).unwrap();
        assert!(joan.session_file.as_ref().unwrap().is_absolute());
        assert!(joan.login.as_ref().unwrap().ca.as_ref().unwrap().is_absolute());
        for bad in ["", login, "certificate = 'a'\nsession_file = 'b'", "key = 'a'"] {
            assert!(person(bad).unwrap_err().message().contains("`joan`"), "{bad}");
        }
    }

    #[test]
    fn an_unknown_identity_is_refused_with_the_known_ones() {
        let error = load(GOOD).unwrap().identity(Some("999-68-7171")).unwrap_err();
        assert!(error.message().contains("service") && !error.message().contains("7171"), "{error}");
        let error = load(&GOOD.replace("identity = 'service'", "identity = 'root'")).unwrap();
        assert!(error.identity(None).unwrap_err().message().contains("`root`"));
    }
}
