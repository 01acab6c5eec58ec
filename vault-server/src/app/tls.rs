//! Mutual TLS, reloadable.
//!
//! * TLS 1.3 only: every caller is a service of the site's own or `vaultctl`, so that there is nobody to be
//!   compatible with, and 1.3 has no suite without forward secrecy and AEAD. Key exchange prefers X25519MLKEM768.
//! * Client certificates are required (but where people come by an identity provider, who show tokens) and verified against the configured authorities, with their revocation lists
//!   if there are any. A list past its "next update" fails closed (RFC 5280 section 5.1.2.5), and so does an
//!   authority without a list once there is one.
//! * No resumption and no early data: a resumed session would skip the verification of the client's certificate,
//!   and early data can be replayed.
//! * New files are taken up as a whole, or not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::config::Tls;

/// What HTTP/2 is called in ALPN (RFC 9113 section 3.1).
pub const ALPN_H2: &[u8] = b"h2";
/// What HTTP/1.1 is called in ALPN (RFC 7301 section 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// TLS settings that change while the server runs.
pub struct ReloadingTls {
    files: Tls,
    callers: Callers,
    current: ArcSwap<Loaded>,
}

/// Who may shake hands at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Who has a client certificate.
    Certified,
    /// Also who has none: people, who show a token with each request.
    People,
}

/// What was read together.
struct Loaded {
    grpc: Arc<ServerConfig>,
    metrics: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the server's certificate ends, in seconds since 1970.
    expires: u64,
}

impl ReloadingTls {
    /// Reads the files.
    pub fn load(files: Tls, callers: Callers) -> Result<Self, TlsError> {
        let loaded = Loaded::read(&files, callers, UnixTime::now())?;
        Ok(Self { files, callers, current: ArcSwap::from_pointee(loaded) })
    }

    /// Reads the files again. On an error the settings stay as they were.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(Loaded::read(&self.files, self.callers, UnixTime::now())?));
        Ok(())
    }

    /// For gRPC connections: ALPN is `h2`.
    pub fn grpc(&self) -> Arc<ServerConfig> {
        self.current.load().grpc.clone()
    }

    /// For the metrics endpoint: ALPN is `http/1.1`.
    pub fn metrics(&self) -> Arc<ServerConfig> {
        self.current.load().metrics.clone()
    }

    /// Whether a connection without a certificate is.
    pub fn accepts_people(&self) -> bool {
        self.callers == Callers::People
    }

    /// Whether a client's chain, leaf first, would be accepted by the settings in force now.
    pub fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        if chain.is_empty() {
            return self.accepts_people();
        }
        chain.split_first().is_some_and(|(leaf, rest)| {
            self.current.load().verifier.verify_client_cert(leaf, rest, now).is_ok()
        })
    }

    /// When the server's certificate ends, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.current.load().expires
    }

    /// The files it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let Tls { certificate, key, client_ca, crl, reload_every: _ } = &self.files;
        [certificate, key, client_ca].into_iter().chain(crl).cloned().collect()
    }
}

/// Why the files are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: can't be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A private key that anybody can read.
    #[error("{}: others can read this private key (chmod o-rwx)", file.display())]
    Exposed {
        /// Which.
        file: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{}: no {what} in PEM", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The server's certificate can't be used.
    #[error("{}: {why}", file.display())]
    Certificate {
        /// Which.
        file: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not known.
    #[error("{}: does not go with {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// An authority or a revocation list is malformed.
    #[error("{}: {why}", file.display())]
    Authority {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
}

impl Loaded {
    fn read(files: &Tls, callers: Callers, now: UnixTime) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = read_verifier(files, Callers::Certified, &provider)?;
        let of_callers = read_verifier(files, callers, &provider)?;
        let chain = read_certificates(&files.certificate)?;
        let key = read_key(&files.key)?;
        let expires = check_validity(&files.certificate, &chain, now)?;
        let config = |verifier: &Arc<dyn ClientCertVerifier>, protocol: &[u8]| {
            let made = server_config(provider.clone(), verifier.clone(), chain.clone(), key.clone_key());
            let mut config = made.map_err(|source| TlsError::Pair {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                source,
            })?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(config))
        };
        // Figures are for programs, which have certificates.
        let (grpc, metrics) = (config(&of_callers, ALPN_H2)?, config(&verifier, ALPN_HTTP1)?);
        Ok(Self { grpc, metrics, verifier, expires })
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn read_verifier(
    files: &Tls,
    callers: Callers,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let authority = |why: String| TlsError::Authority { file: files.client_ca.clone(), why };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(&files.client_ca)? {
        roots.add(certificate).map_err(|error| authority(error.to_string()))?;
    }
    let mut crls = Vec::new();
    for file in &files.crl {
        crls.extend(read_crls(file)?);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(crls)
        .enforce_revocation_expiration();
    // A certificate that is shown must be good in any case.
    let builder = match callers {
        Callers::Certified => builder,
        Callers::People => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| match (&error, files.crl.first()) {
        (rustls::server::VerifierBuilderError::InvalidCrl(_), Some(file)) => {
            TlsError::Authority { file: file.clone(), why: error.to_string() }
        }
        _ => authority(error.to_string()),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    found
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::Pem { file: file.to_owned(), what: "certificate" })
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = std::fs::metadata(file)
        .map_or(0, |meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()));
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed { file: file.to_owned() });
    }
    let text = zeroize::Zeroizing::new(read(file)?);
    // The parser's error could quote the key: it is left out.
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| TlsError::Pem { file: file.to_owned(), what: "private key" })
}

/// A revocation list in DER, or any number of them in PEM.
fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let content = read(file)?;
    if !content.starts_with(b"-----BEGIN") {
        return Ok(vec![CertificateRevocationListDer::from(content)]);
    }
    let found: Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(&content).collect();
    found
        .ok()
        .filter(|crls| !crls.is_empty())
        .ok_or_else(|| TlsError::Pem { file: file.to_owned(), what: "revocation list" })
}

/// The leaf must be valid now; when it ends.
fn check_validity(file: &Path, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<u64, TlsError> {
    let refuse = |why| TlsError::Certificate { file: file.to_owned(), why };
    let mut leaf_expires = None;
    for certificate in chain {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| refuse("a certificate of the chain is malformed"))?;
        let validity = parsed.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < validity.not_before.timestamp() {
            return Err(refuse("a certificate of the chain is not yet valid"));
        }
        if now > validity.not_after.timestamp() {
            return Err(refuse("a certificate of the chain has expired"));
        }
        leaf_expires = leaf_expires.or(u64::try_from(validity.not_after.timestamp()).ok());
    }
    leaf_expires.ok_or_else(|| refuse("the chain is empty"))
}
