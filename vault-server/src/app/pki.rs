//! Certificates for a vault to try out: an authority, a server certificate and one client certificate a role.
//!
//! Files in the directory, each key readable by its owner alone:
//!
//! ```text
//! ca.pem ca.key                    the authority
//! server.pem server.key            SAN: localhost, 127.0.0.1, ::1, the listening address
//! <role>.pem <role>.key            SAN: spiffe://<environment>.phi-vault.internal/<role>
//! ```
//!
//! A production vault uses the site's own authority.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::GeneralName;

use super::files::{self, Access};
use crate::domain::Environment;

/// The roles that get a client certificate; the certificate's file has the same name.
pub const ROLES: [&str; 7] = ["service", "console", "oncall", "approver", "rotator", "auditor", "admin"];

/// How long the authority is good for.
const CA_LIFETIME: Duration = Duration::from_hours(3650 * 24);
/// How long a certificate is good for.
const LIFETIME: Duration = Duration::from_hours(365 * 24);
/// A certificate with less than this left is made anew.
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);
/// Clocks differ.
const BACKDATE: Duration = Duration::from_hours(1);

/// The SPIFFE id of a role's certificate.
pub fn spiffe_id(environment: &Environment, role: &str) -> String {
    format!("spiffe://{environment}.phi-vault.internal/{role}")
}

/// Makes whatever is missing, about to expire, or (the server's) not for `listen`. The authority stays.
pub fn ensure(dir: &Path, environment: &Environment, listen: IpAddr) -> Result<(), PkiError> {
    files::make_dir(dir).map_err(|source| PkiError::Write { file: dir.to_owned(), source })?;
    let now = since_epoch();
    let issuer = authority(dir, environment, now)?;
    let names = server_names(listen);
    if needs_renewal(&dir.join("server.pem"), now, |covered| names.iter().all(|name| covered.contains(name)))
    {
        let sans = names.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
        issue(dir, "server", sans, ExtendedKeyUsagePurpose::ServerAuth, &issuer, now)?;
    }
    for role in ROLES {
        let id = spiffe_id(environment, role);
        if needs_renewal(&dir.join(format!("{role}.pem")), now, |covered| covered.contains(&id)) {
            let uri = SanType::URI(id.try_into()?);
            issue(dir, role, vec![uri], ExtendedKeyUsagePurpose::ClientAuth, &issuer, now)?;
        }
    }
    Ok(())
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read.
    #[error("{}: can't be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file can't be written.
    #[error("{}: can't be written", file.display())]
    Write {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate can't be made.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The authority in the directory, made if there is none.
fn authority(
    dir: &Path,
    environment: &Environment,
    now: Duration,
) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let (certificate, key_file) = (dir.join("ca.pem"), dir.join("ca.key"));
    let params = authority_params(environment, now);
    if certificate.exists() {
        let text = std::fs::read_to_string(&key_file)
            .map(zeroize::Zeroizing::new)
            .map_err(|source| PkiError::Read { file: key_file, source })?;
        // The same subject and, for the same key, the same key identifier as in ca.pem.
        return Ok(Issuer::new(params, KeyPair::from_pem(&text)?));
    }
    let key = KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    // The key first: a certificate without its key would be taken for a whole authority.
    write(&key_file, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes(), Access::Secret)?;
    write(&certificate, made.pem().as_bytes(), Access::Public)?;
    Ok(Issuer::new(params, key))
}

fn authority_params(environment: &Environment, now: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("phi-vault {environment} authority"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, CA_LIFETIME);
    params
}

fn issue(
    dir: &Path,
    name: &str,
    sans: Vec<SanType>,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
    now: Duration,
) -> Result<(), PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("phi-vault {name}"));
    params.subject_alt_names = sans;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, LIFETIME);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    write(&dir.join(format!("{name}.key")), key_pem.as_bytes(), Access::Secret)?;
    write(&dir.join(format!("{name}.pem")), certificate.pem().as_bytes(), Access::Public)
}

fn set_validity(params: &mut CertificateParams, now: Duration, lifetime: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + (now + lifetime);
}

fn write(file: &Path, content: &[u8], access: Access) -> Result<(), PkiError> {
    files::replace(file, content, access).map_err(|source| PkiError::Write { file: file.to_owned(), source })
}

fn server_names(listen: IpAddr) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !listen.is_unspecified() {
        names.insert(listen.to_string());
    }
    names
}

fn san(name: &str) -> Result<SanType, PkiError> {
    Ok(match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}

/// Whether a certificate is not there, not for long, or not for the right names.
fn needs_renewal(file: &Path, now: Duration, right: impl FnOnce(&BTreeSet<String>) -> bool) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(file) else { return true };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return true };
    let until = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(name_text).collect(),
        _ => BTreeSet::new(),
    };
    until < (now + RENEW_BEFORE).as_secs() || !right(&names) || !file.with_extension("key").exists()
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made() -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::parse("dev").unwrap();
        ensure(dir.path(), &environment, [127, 0, 0, 1].into()).unwrap();
        (dir, environment)
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        let (dir, _) = made();
        let mut keys = 0;
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().unwrap() == "key" {
                keys += 1;
                assert_eq!(
                    path.metadata().unwrap().permissions().mode() & 0o777,
                    0o600,
                    "{}",
                    path.display()
                );
            }
        }
        assert_eq!(keys, ROLES.len() + 2);
    }

    #[test]
    fn second_time_keeps_what_is_good_and_renews_the_server_for_another_address() {
        let (dir, environment) = made();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let before: Vec<_> = ["ca.pem", "service.pem", "server.pem"].map(read).into();
        ensure(dir.path(), &environment, [127, 0, 0, 1].into()).unwrap();
        assert_eq!(before, ["ca.pem", "service.pem", "server.pem"].map(read));
        ensure(dir.path(), &environment, [192, 0, 2, 7].into()).unwrap();
        assert_eq!(before[..2], ["ca.pem", "service.pem"].map(read));
        assert_ne!(before[2], read("server.pem"));
    }

    #[test]
    fn certificates_of_a_role_name_it_and_nothing_else() {
        let (dir, _) = made();
        let der = CertificateDer::from_pem_file(dir.path().join("console.pem")).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        let names: Vec<_> = names.iter().filter_map(name_text).collect();
        assert_eq!(names, ["spiffe://dev.phi-vault.internal/console"]);
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
    }
}
