//! The files that say who we are and whom we trust, read again when they change.
//!
//! A rotated certificate is used by the next connection. A file that can't be used (half-written, gone, a key that
//! does not fit) leaves the last good configuration in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct IdentityFiles {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What tells one version of a file from the next.
type Stamp = [(Option<SystemTime>, u64); 3];

/// A TLS configuration that follows its files.
pub(crate) struct Identity {
    files: IdentityFiles,
    current: Mutex<(Stamp, Arc<ClientConfig>)>,
}

impl Identity {
    /// Reads the files; they must be good now.
    pub(crate) fn load(files: IdentityFiles) -> Result<Self, Error> {
        let stamp = files.stamp();
        let config = Arc::new(files.read()?);
        Ok(Self { files, current: Mutex::new((stamp, config)) })
    }

    /// Reads the files again if they changed. Whether the configuration is a new one.
    pub(crate) fn refresh(&self) -> bool {
        let stamp = self.files.stamp();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == stamp {
            return false;
        }
        match self.files.read() {
            Ok(config) => {
                *current = (stamp, Arc::new(config));
                true
            }
            Err(_) => false,
        }
    }

    /// For a new connection.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.refresh();
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl IdentityFiles {
    fn stamp(&self) -> Stamp {
        [&self.ca, &self.certificate, &self.key]
            .map(|path| std::fs::metadata(path).map_or((None, 0), |meta| (meta.modified().ok(), meta.len())))
    }

    fn read(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| unusable(&self.ca, &error))?;
        }
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, &error))?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|error| Error::configuration(&error.to_string()))?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would speak for the old certificate.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(Error::configuration(&format!("{}: holds no certificate", path.display())));
    }
    Ok(found)
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::configuration(&format!("{}: {error}", path.display()))
}
