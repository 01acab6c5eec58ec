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
use crate::session::SessionToken;

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct IdentityFiles {
    pub(crate) ca: PathBuf,
    /// Certificate and key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// A session's token.
    pub(crate) session: Option<PathBuf>,
}

/// What tells one version of a file from the next.
type Stamp = [(Option<SystemTime>, u64); 3];

/// A TLS configuration and a session that follow their files.
pub(crate) struct Identity {
    files: IdentityFiles,
    current: Mutex<(Stamp, Arc<ClientConfig>)>,
    session: Mutex<(Stamp, Option<Arc<SessionToken>>)>,
}

impl Identity {
    /// Reads the files; they must be good now.
    pub(crate) fn load(files: IdentityFiles) -> Result<Self, Error> {
        let (stamp, session_stamp) = (files.stamp(), files.session_stamp());
        let config = Arc::new(files.read()?);
        let session = files.read_session()?;
        Ok(Self {
            files,
            current: Mutex::new((stamp, config)),
            session: Mutex::new((session_stamp, session)),
        })
    }

    /// The session that calls are made in, if there is one.
    pub(crate) fn session(&self) -> Option<Arc<SessionToken>> {
        self.files.session.as_ref()?;
        self.session.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Reads the session again if it changed: after a login, or a logout.
    fn refresh_session(&self) {
        let stamp = self.files.session_stamp();
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.0 != stamp
            && let Ok(read) = self.files.read_session()
        {
            *session = (stamp, read);
        }
    }

    /// Reads the files again if they changed. Whether the configuration is a new one.
    pub(crate) fn refresh(&self) -> bool {
        self.refresh_session();
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
        let pair = self.certificate.as_ref();
        stamp([Some(&self.ca), pair.map(|(certificate, _)| certificate), pair.map(|(_, key)| key)])
    }

    fn session_stamp(&self) -> Stamp {
        stamp([self.session.as_ref(), None, None])
    }

    fn read_session(&self) -> Result<Option<Arc<SessionToken>>, Error> {
        let Some(path) = &self.session else { return Ok(None) };
        Ok(SessionToken::read_from(path)?.map(Arc::new))
    }

    fn read(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| unusable(&self.ca, &error))?;
        }
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|error| Error::configuration(&error.to_string()))?
                .with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| unusable(certificate, &error))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would speak for the old certificate.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn stamp(paths: [Option<&PathBuf>; 3]) -> Stamp {
    paths.map(|path| {
        let meta = path.and_then(|path| std::fs::metadata(path).ok());
        meta.map_or((None, 0), |meta| (meta.modified().ok(), meta.len()))
    })
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
