//! The client and how it is made.

mod batcher;
mod call;
mod single;
mod stream;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vault_format::environment::Environment;

use crate::error::Error;
use crate::profile::Profile;
use crate::retry::{Budget, RetryPolicy};
use crate::transport::identity::{Identity, IdentityFiles};
use crate::transport::pool::Pool;

pub(crate) use call::MOST_ANSWER;
pub use stream::{BatchResult, TokenizeBatch};
pub use values::{DetokenizeOptions, EraseOptions, Erased, Found, TokenizeOptions};

/// A client of one vault: cheap to clone, made once for a program, shared by all its tasks.
///
/// Connections are made when the first call needs them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    tenant: Arc<str>,
}

/// What all clones share.
struct Shared {
    pool: Pool,
    budget: Budget,
    repeats: AtomicU64,
    limits: Limits,
    environment: Option<Environment>,
    singles: single::Singles,
}

/// Bounds of single calls and messages.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) timeout: Duration,
    retry: RetryPolicy,
    batch_items: usize,
    batch_bytes: usize,
}

/// Says where the vault is and as whom to speak; see [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    session: Option<PathBuf>,
    server_name: Option<String>,
    tenant: String,
    environment: Option<String>,
    timeout: Duration,
    retry: RetryPolicy,
    batch_items: usize,
    batch_bytes: usize,
}

impl Client {
    /// Starts to configure a client without a profile:
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), vault_client::Error> {
    /// let client = vault_client::Client::builder()
    ///     .endpoint("https://vault-1.internal:8443")
    ///     .endpoint("https://vault-2.internal:8443")
    ///     .ca_file("/run/pki/ca.pem")
    ///     .identity_files("/run/pki/billing.pem", "/run/pki/billing.key")
    ///     .environment("prod")
    ///     .connect()?;
    /// # Ok(()) }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            endpoints: Vec::new(),
            ca: None,
            certificate: None,
            key: None,
            session: None,
            server_name: None,
            tenant: String::new(),
            environment: None,
            timeout: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            batch_items: 10_000,
            batch_bytes: 8 << 20,
        }
    }

    /// Reads a [profile](crate::profile) and connects as the identity of that name, or as the profile's default one.
    pub fn from_profile(path: impl AsRef<Path>, identity: Option<&str>) -> Result<Self, Error> {
        ClientBuilder::from_profile(path, identity)?.connect()
    }

    /// The same client for the data of another tenant.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), tenant: tenant.into() }
    }

    /// The environment whose tokens it speaks of, if that is known.
    pub fn environment(&self) -> Option<&Environment> {
        self.shared.environment.as_ref()
    }

    /// Uses new connections from now on; calls under way end on the old ones. Changed certificate files are noticed
    /// without this, within seconds.
    pub fn reconnect(&self) {
        self.shared.pool.reconnect();
    }

    /// How many attempts were made beyond the first of their call, since the client was made: for metrics.
    pub fn repeats(&self) -> u64 {
        self.shared.repeats.load(Ordering::Relaxed)
    }

    /// Whose data is meant; empty: the identity's own.
    pub fn tenant_name(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn tenant(&self) -> String {
        String::from(&*self.tenant)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Everything that a [profile](crate::profile) says; may be changed further.
    pub fn from_profile(path: impl AsRef<Path>, identity: Option<&str>) -> Result<Self, Error> {
        let profile = Profile::load(path.as_ref())?;
        let files = profile.identity(identity)?;
        Ok(Self {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            session: files.session_file.clone(),
            ca: Some(profile.ca),
            endpoints: profile.endpoints,
            server_name: profile.server_name,
            tenant: profile.tenant.unwrap_or_default(),
            environment: profile.environment,
            ..Client::builder()
        })
    }

    /// Adds an endpoint, `https://host:port`. Several serve one vault: calls go round them, and one that fails is
    /// left alone for a while.
    pub fn endpoint(mut self, uri: impl Into<String>) -> Self {
        self.endpoints.push(uri.into());
        self
    }

    /// The certificates that sign the servers' ones, PEM. The system's roots are not used.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// The certificate chain and the private key to present, PEM. They are read again when they change.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self.key = Some(key.into());
        self
    }

    /// The file that a person's session is kept in; see [`session`](crate::session). It is read again when it changes, and
    /// need not be there before there is a session.
    pub fn session_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.session = Some(path.into());
        self
    }

    /// The name in the servers' certificates, if it is not the host of the endpoint.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Whose data is meant. Needed only by identities that serve several tenants.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Tokens of other environments are then refused without a call.
    pub fn environment(mut self, environment: impl Into<String>) -> Self {
        self.environment = Some(environment.into());
        self
    }

    /// How long one call to the vault may take with all its repeats; 10 seconds unless set. The vault is told, too.
    /// Where there are several endpoints, another is asked after half of it if the first is silent.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How calls are repeated when the vault is not available.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Larger batches are cut into messages of so many items and bytes; 10,000 and 8 MiB unless set.
    pub fn batch_limits(mut self, items: usize, bytes: usize) -> Self {
        self.batch_items = items.max(1);
        self.batch_bytes = bytes;
        self
    }

    /// Checks the configuration and reads the certificates. Does not wait for a connection: the first call makes it.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn connect(self) -> Result<Client, Error> {
        let missing = |what: &str| Error::configuration(&format!("no {what} is configured"));
        let files = IdentityFiles {
            ca: self.ca.ok_or_else(|| missing("CA file"))?,
            certificate: match (self.certificate, self.key) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) if self.session.is_some() => None,
                (None, _) => return Err(missing("certificate file")),
                (Some(_), None) => return Err(missing("key file")),
            },
            session: self.session,
        };
        let environment = self
            .environment
            .map(|name| Environment::parse(&name).map_err(|error| Error::configuration(&error.to_string())))
            .transpose()?;
        let pool = Pool::new(&self.endpoints, self.server_name.as_deref(), Identity::load(files)?)?;
        let limits = Limits {
            timeout: self.timeout,
            retry: self.retry,
            batch_items: self.batch_items,
            batch_bytes: self.batch_bytes,
        };
        let singles = single::Singles::new();
        let shared =
            Shared { pool, budget: Budget::new(), repeats: AtomicU64::new(0), limits, environment, singles };
        Ok(Client { shared: Arc::new(shared), tenant: self.tenant.into() })
    }
}
