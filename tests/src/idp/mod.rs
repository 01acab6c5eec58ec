//! An identity provider: a real server over TLS with real keys (ES256, RS256, EdDSA), discovery, a key set that rotates, the
//! device authorization grant (RFC 8628), and faults on demand.

mod keys;
mod server;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use keys::Keys;

/// What its access tokens for the vault have in `aud`.
pub const AUDIENCE: &str = "phi-vault";

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Connections are closed.
    Down,
    /// Nothing is answered.
    Hang,
    /// Its metadata is of another issuer.
    WrongIssuer,
    /// It answers with something else.
    Garbage,
    /// It answers with a fault of its own.
    Error,
}

/// A running one; it ends when it is dropped.
pub struct Idp {
    shared: Arc<Shared>,
    ca: PathBuf,
    _runtime: Runtime,
}

struct Shared {
    issuer: String,
    keys: Mutex<Keys>,
    fault: Mutex<Option<Fault>>,
    requests: Mutex<HashMap<String, usize>>,
    devices: Mutex<HashMap<String, Device>>,
}

/// A device that waits for its person.
#[derive(Default)]
struct Device {
    user_code: String,
    /// Who allowed it.
    subject: Option<String>,
    denied: bool,
}

impl Idp {
    /// Starts one; its authority's certificate is in the directory.
    ///
    /// # Panics
    /// If it can't.
    pub fn start(dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (ca, config) = tls(dir);
        let shared = Arc::new(Shared {
            issuer,
            keys: Mutex::new(Keys::generate(1)),
            fault: Mutex::default(),
            requests: Mutex::default(),
            devices: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(server::serve(listener, config, Arc::clone(&shared)));
        Self { shared, ca, _runtime: runtime }
    }

    /// Its name.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// A person of its.
    pub fn identity(&self, subject: &str) -> String {
        format!("oidc:{}#{subject}", self.issuer())
    }

    /// The certificate of its authority, PEM.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// How it behaves from now on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock() = fault;
    }

    /// Takes new keys; the old ones are published no more.
    pub fn rotate(&self) {
        let mut keys = self.shared.keys.lock();
        *keys = keys.next();
    }

    /// How often a path was asked for.
    pub fn requests(&self, path: &str) -> usize {
        self.shared.requests.lock().get(path).copied().unwrap_or_default()
    }

    /// What it says of a person who logged in just now.
    pub fn claims(&self, subject: &str) -> Value {
        self.shared.claims(subject)
    }

    /// An access token, signed by its newest key.
    pub fn token(&self, subject: &str) -> String {
        self.sign("ES256", &self.claims(subject))
    }

    /// An access token that says whatever it is to say.
    pub fn sign(&self, algorithm: &str, claims: &Value) -> String {
        self.shared.keys.lock().sign(algorithm, claims)
    }

    /// An access token under a key that it never had.
    pub fn sign_by_nobody(&self, subject: &str) -> String {
        Keys::generate(0).sign("ES256", &self.claims(subject))
    }

    /// Waits until a device asks, and lets a person allow it (or deny it).
    ///
    /// # Panics
    /// If none does.
    pub fn decide_device(&self, subject: Option<&str>) {
        for _ in 0..1_200 {
            let mut devices = self.shared.devices.lock();
            if let Some(device) =
                devices.values_mut().find(|device| device.subject.is_none() && !device.denied)
            {
                device.subject = subject.map(str::to_owned);
                device.denied = subject.is_none();
                return;
            }
            drop(devices);
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no device asks");
    }
}

impl Shared {
    fn claims(&self, subject: &str) -> Value {
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut id = [0; 16];
        getrandom::fill(&mut id).unwrap();
        json!({
            "iss": self.issuer, "aud": AUDIENCE, "sub": subject, "exp": now + 300, "iat": now,
            "auth_time": now, "jti": hex::encode(id), "client_id": "vaultctl", "amr": ["pwd", "hwk"],
        })
    }
}

fn tls(dir: &Path) -> (PathBuf, rustls::ServerConfig) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "phi-vault test identity provider authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = dir.join("idp-ca.pem");
    fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (ca, config)
}
