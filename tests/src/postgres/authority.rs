//! The certificate authority of a server that speaks TLS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tempfile::TempDir;

use super::USER;
use super::files::write_private;
use super::programs::give;

/// An authority, one certificate for servers on loopback and one for the superuser; removed when dropped.
pub(super) struct Authority {
    dir: TempDir,
}

impl Authority {
    /// Makes one.
    pub(super) fn make() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("phi-vault-postgres-pki-").tempdir()?;
        give(dir.path())?;
        let mut params = named("phi-vault test database authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);

        let mut server = named("localhost");
        server.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        ];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(dir.path(), "server", &server, &issuer)?;
        let mut client = named(USER);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(dir.path(), "client", &client, &issuer)?;
        // The server refuses to start if it cannot read them; a tester of the same machine may.
        for name in ["ca.pem", "server.pem", "client.pem"] {
            give(&dir.path().join(name))?;
        }
        Ok(Self { dir })
    }

    /// One of `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn issue(dir: &Path, name: &str, params: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
    let key = KeyPair::generate()?;
    fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, issuer)?.pem())?;
    write_private(&dir.join(format!("{name}.key")), &key.serialize_pem())
}
