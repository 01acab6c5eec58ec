//! Connections: to the server that takes writes, and only to one whose commits are durable.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures::stream::{FuturesUnordered, poll_fn};
use futures::{StreamExt as _, pin_mut};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{Failure, printable};
use super::options::{Password, PostgresOptions, Transport};
use super::read::identity;
use crate::domain::VaultIdentity;

/// How long one server may take until it is ready for statements.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one address of a server may take to be connected to: a name may have several.
const ADDRESS: Duration = Duration::from_secs(2);

/// How long one server has to itself before the next is tried, too.
const STAGGER: Duration = Duration::from_millis(250);

/// The longest a connection is used: a server that does not take writes any more, or not durably, is not used for longer.
const OLDEST: Duration = Duration::from_mins(1);

/// No host.
const NONE: usize = usize::MAX;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectError(String);

/// A connection that was checked.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    /// Whether the server has warned. A commit that is not replicated as it should be comes with a warning.
    warned: Arc<AtomicBool>,
    driver: JoinHandle<()>,
    made: Instant,
    epoch: u64,
}

impl Connection {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Before a commit: what it warned of until now is not about that.
    pub(super) fn forget_warnings(&self) {
        self.warned.store(false, Ordering::SeqCst);
    }

    pub(super) fn has_warned(&self) -> bool {
        self.warned.load(Ordering::SeqCst)
    }
}

impl Drop for Connection {
    /// Closes it at once: what it was about to do goes on only if the server has it already.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    options: PostgresOptions,
    /// The host that is tried first.
    first: AtomicUsize,
    /// The host that was right the last time; [`NONE`] before the first.
    last: AtomicUsize,
    /// Raised when connections that were made before are not to be used any more.
    epoch: AtomicU64,
    /// Whose database it must be, once that is known.
    identity: OnceLock<VaultIdentity>,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Self {
        Self {
            options,
            first: AtomicUsize::new(0),
            last: AtomicUsize::new(NONE),
            epoch: AtomicU64::new(0),
            identity: OnceLock::new(),
        }
    }

    pub(super) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// From now on only a database of this vault is connected to.
    pub(super) fn expect(&self, identity: &VaultIdentity) {
        self.identity.get_or_init(|| identity.clone());
    }

    /// Connections that were made before are not used any more: their server may not be the one that takes writes.
    pub(super) fn renew_connections(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it is young enough, and to the server that was right the last time.
    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        connection.epoch == self.epoch.load(Ordering::SeqCst) && connection.made.elapsed() < OLDEST
    }

    /// The next connection is to another host, if one takes writes.
    pub(super) fn pass_over(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// To the first host, from the one that was right the last time on, that takes writes durably. One that has not
    /// answered for a while is not waited for before the next is tried: a machine that is gone says nothing at all.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        let hosts = self.options.hosts.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut order = (0..hosts).map(|step| (first + step) % hosts);
        let mut trying: FuturesUnordered<_> = order.next().map(|at| self.try_host(at)).into_iter().collect();
        let mut reasons = Vec::new();
        while !trying.is_empty() {
            let (at, tried) = tokio::select! {
                Some(tried) = trying.next() => tried,
                () = sleep(STAGGER), if order.len() > 0 => {
                    trying.extend(order.next().map(|at| self.try_host(at)));
                    continue;
                }
            };
            match tried {
                Ok(mut connection) => {
                    self.first.store(at, Ordering::Relaxed);
                    if self.last.swap(at, Ordering::Relaxed) != at {
                        self.renew_connections();
                        connection.epoch = self.epoch.load(Ordering::SeqCst);
                    }
                    return Ok(connection);
                }
                Err(reason) => {
                    reasons.push(reason);
                    trying.extend(order.next().map(|at| self.try_host(at)));
                }
            }
        }
        Err(ConnectError(reasons.join("; ")))
    }

    async fn try_host(&self, at: usize) -> (usize, Result<Connection, String>) {
        let (host, port) = &self.options.hosts[at];
        let tried = timeout(PATIENCE, self.connect_to(host, *port)).await;
        let tried = tried.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        (at, tried.map_err(|reason| format!("{host}:{port}: {reason}")))
    }

    async fn connect_to(&self, host: &str, port: u16) -> Result<Connection, String> {
        let options = &self.options;
        let mut config = Config::new();
        config.host(host).port(port).dbname(&options.database).user(&options.user);
        config.application_name(options.instance.as_deref().unwrap_or("phi-vault"));
        config.connect_timeout(ADDRESS).keepalives_idle(Duration::from_secs(20));
        config.tcp_user_timeout(Duration::from_secs(30));
        if let Some(password) = password(&options.password)? {
            // Exposed: to the connection's configuration, which is dropped once it is made.
            config.password(password.expose_secret());
        }
        match &options.transport {
            Transport::Plain => {
                config.ssl_mode(SslMode::Disable);
                self.finish(config, NoTls).await
            }
            Transport::Tls { ca, identity } => {
                config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Prefer);
                let identity = identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
                self.finish(config, MakeRustlsConnect::new(tls(ca, identity)?)).await
            }
        }
    }

    async fn finish<T>(&self, config: Config, tls: T) -> Result<Connection, String>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let failed = |error: tokio_postgres::Error| Failure::from(error).why().to_owned();
        let (client, mut driver) = config.connect(tls).await.map_err(failed)?;
        let warned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&warned);
        let driver = tokio::spawn(async move {
            let messages = poll_fn(move |cx| driver.poll_message(cx));
            pin_mut!(messages);
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message
                    && is_warning(&notice)
                {
                    // Once for what is under way, however much it says.
                    if !flag.swap(true, Ordering::SeqCst) {
                        tracing::warn!(message = printable(notice.message()), "the database warns");
                    }
                }
            }
        });
        let connection = Connection { client, warned, driver, made: Instant::now(), epoch };
        check(&connection.client).await?;
        if let Some(expected) = self.identity.get() {
            let there = identity(&connection).await.map_err(|error| error.to_string())?;
            if there.as_ref() != Some(expected) {
                return Err("it is the database of another vault".to_owned());
            }
        }
        Ok(connection)
    }
}

/// Its severity is in the server's own language, unless it also says it in English.
fn is_warning(notice: &DbError) -> bool {
    const HARMLESS: [&str; 4] = ["DEBUG", "LOG", "INFO", "NOTICE"];
    // That transaction ids run out is told at each of the last forty million. It says nothing about the commit.
    if matches!(notice.routine(), Some("GetNewTransactionId" | "GetNewMultiXactId")) {
        return false;
    }
    match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => !HARMLESS.contains(&notice.severity()),
    }
}

/// Refuses a server that takes no writes, or would acknowledge what a crash takes back.
async fn check(client: &Client) -> Result<(), String> {
    const SETTINGS: &str = "SELECT current_setting('transaction_read_only', true), \
                            current_setting('synchronous_commit', true), current_setting('fsync', true), \
                            current_setting('full_page_writes', true), \
                            current_setting('client_min_messages', true)";
    let rows = client.query_typed(SETTINGS, &[]).await;
    let rows = rows.map_err(|error| Failure::from(error).why().to_owned())?;
    let setting = |column: usize| -> Option<String> { rows.first()?.try_get(column).ok()? };
    if rows.len() != 1 || setting(0).is_none() {
        return Err("it does not answer like a database".to_owned());
    }
    if setting(0).as_deref() != Some("off") {
        return Err("it takes no writes (a standby?)".to_owned());
    }
    if setting(1).is_some_and(|mode| mode != "on" && mode != "remote_apply") {
        return Err(
            "synchronous_commit is neither on nor remote_apply: it would acknowledge what it may lose"
                .to_owned(),
        );
    }
    if setting(4).is_some_and(|least| matches!(least.as_str(), "error" | "fatal" | "panic")) {
        return Err(
            "client_min_messages hides warnings: it would not say that a commit may be lost".to_owned()
        );
    }
    for (column, name) in [(2, "fsync"), (3, "full_page_writes")] {
        if setting(column).is_some_and(|value| value != "on") {
            return Err(format!("{name} is off: it would acknowledge what it may lose"));
        }
    }
    Ok(())
}

fn password(source: &Password) -> Result<Option<SecretString>, String> {
    let text = match source {
        Password::None => return Ok(None),
        Password::File(file) => {
            let text = fs::read_to_string(file)
                .map_err(|error| format!("password file {}: {error}", file.display()));
            SecretString::from(text?)
        }
        Password::Environment(name) => {
            let text =
                std::env::var(name).map_err(|_| format!("there is no password in the environment's {name}"));
            SecretString::from(text?)
        }
    };
    // Exposed: to take its first line.
    let line = text.expose_secret().lines().next().unwrap_or_default();
    if line.is_empty() { Err("the password is empty".to_owned()) } else { Ok(Some(SecretString::from(line))) }
}

/// Files are read at every connection, so that new ones need no restart.
fn tls(
    ca: &std::path::Path,
    identity: Option<(&std::path::Path, &std::path::Path)>,
) -> Result<ClientConfig, String> {
    let bad = |what: &str, file: &std::path::Path, why: &dyn std::fmt::Display| {
        format!("{what} {}: {why}", file.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| bad("ca", ca, &error))? {
        let certificate = certificate.map_err(|error| bad("ca", ca, &error))?;
        roots.add(certificate).map_err(|error| bad("ca", ca, &error))?;
    }
    if roots.is_empty() {
        return Err(bad("ca", ca, &"no certificate in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some((chain, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad("certificate", chain, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad("key", key, &error))?;
    builder.with_client_auth_cert(certificates, secret).map_err(|error| bad("certificate", chain, &error))
}

/// The pool's.
pub(super) struct Manager(pub(super) Arc<Connector>);

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        // Boxed: it is large and rare, and every read would carry it.
        Box::pin(self.0.connect()).await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<ConnectError> {
        let usable = !connection.is_closed() && self.0.is_current(connection);
        if usable { Ok(()) } else { Err(RecycleError::message("closed, or of an earlier server")) }
    }
}
