//! One server.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::Config;

use super::USER;
use super::authority::Authority;
use super::backup;
use super::files::{clean_up, free_port, write_private};
use super::guard::Guard;
use super::options::{Options, Tls};
use super::process::Process;
use super::programs::{Programs, give};
use super::query::{self, Rows};

/// How long a server may take to accept connections, or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often another port is tried, if somebody has taken it meanwhile.
const PORTS_TRIED: u32 = 5;

/// Keeps the log that a standby has yet to read.
const SLOT: &str = "standby";

/// A running server; ended and removed when dropped.
pub struct Cluster {
    programs: Programs,
    options: Options,
    port: u16,
    authority: Option<Arc<Authority>>,
    postmaster: Option<Child>,
    // Dropped in this order: nobody needs to watch any more, then the directory goes.
    _guard: Guard,
    home: TempDir,
}

impl Cluster {
    /// Starts one. `None`, after saying why, if PostgreSQL is not to be had here.
    ///
    /// # Panics
    /// If PostgreSQL is there and does not start.
    pub fn start(options: &Options) -> Option<Self> {
        let programs = Programs::find()?;
        Some(Self::try_start(programs, options, None).unwrap_or_else(|error| panic!("PostgreSQL: {error:#}")))
    }

    /// Makes one anew and starts it; with an authority that is there already, if it has one.
    fn try_start(programs: Programs, options: &Options, authority: Option<Arc<Authority>>) -> Result<Self> {
        let mut cluster = Self::prepare(programs, options.clone(), authority)?;
        cluster.initialize()?;
        cluster.launch()?;
        Ok(cluster)
    }

    /// All but its data.
    fn prepare(programs: Programs, options: Options, authority: Option<Arc<Authority>>) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("phi-vault-postgres-").tempdir()?;
        give(home.path())?;
        let authority = match (options.tls, authority) {
            (Tls::Off, _) => None,
            (_, Some(authority)) => Some(authority),
            (_, None) => Some(Arc::new(Authority::make()?)),
        };
        write_private(&home.path().join("hba.conf"), &access(&options))?;
        let guard = Guard::watch(home.path())?;
        Ok(Self { programs, options, port: free_port()?, authority, postmaster: None, _guard: guard, home })
    }

    /// A running standby of this one, on the port that is given or on any.
    pub(super) fn standby(&self, options: &Options, port: Option<u16>) -> Result<Self> {
        let upstream = [
            (
                "primary_conninfo",
                format!("host='{}' port={} user={USER}", self.home.path().display(), self.port),
            ),
            ("primary_slot_name", SLOT.to_owned()),
            ("wal_retrieve_retry_interval", "100ms".to_owned()),
        ];
        let mut options = options.clone();
        let upstream = upstream.into_iter().map(|(name, value)| (name.to_owned(), value));
        options.settings.splice(0..0, upstream);
        let mut standby = Self::prepare(self.programs.clone(), options, self.authority.clone())?;
        query::session(&self.local("postgres"), |session| {
            // One that is gone may have left it.
            session.run(&format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{SLOT}'; \
                 SELECT pg_create_physical_replication_slot('{SLOT}', true)"
            ))?;
            backup::copy(session, &self.data(), &standby.data())
        })?;
        if let Some(port) = port {
            standby.port = port;
            ensure!(standby.launch_here()?, "somebody else listens on port {port}");
        } else {
            standby.launch()?;
        }
        Ok(standby)
    }

    /// Makes its data.
    fn initialize(&self) -> Result<()> {
        let password = self.home.path().join("password");
        let mut arguments = vec!["--pgdata".into(), self.data().into_os_string()];
        arguments
            .extend(["--username", USER, "--auth=trust", "--no-sync", "--wal-segsize=1"].map(Into::into));
        arguments.extend(["--encoding=UTF8", "--locale=C"].map(Into::into));
        if let Some(text) = &self.options.password {
            write_private(&password, text)?;
            arguments.extend(["--pwfile".into(), password.clone().into_os_string()]);
        }
        self.programs.run("initdb", &arguments)?;
        if self.options.password.is_some() {
            fs::remove_file(password)?;
        }
        Ok(())
    }

    /// Starts it, and waits until it accepts connections.
    fn launch(&mut self) -> Result<()> {
        for _ in 0..PORTS_TRIED {
            if self.launch_here()? {
                return Ok(());
            }
            self.port = free_port()?;
        }
        bail!("no port that stays free");
    }

    /// Starts it on its port; `false` if somebody else listens there.
    fn launch_here(&mut self) -> Result<bool> {
        let log = File::options().create(true).append(true).open(self.home.path().join("log"))?;
        let begin = log.metadata()?.len();
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(self.data()).stdout(Stdio::null()).stderr(log);
        for (name, value) in self.settings() {
            command.args(["-c", &format!("{name}={value}")]);
        }
        self.postmaster = Some(command.spawn().context("postgres")?);
        let until = Instant::now() + PATIENCE;
        loop {
            let Err(failure) = self.sql("postgres", "SELECT 1") else { return Ok(true) };
            if let Some(postmaster) = &mut self.postmaster
                && let Some(status) = postmaster.try_wait()?
            {
                self.postmaster = None;
                let log = self.log_from(begin);
                if log.contains("could not bind") {
                    return Ok(false);
                }
                bail!("postgres ended: {status}\n{log}");
            }
            if Instant::now() > until {
                self.kill();
                bail!("postgres does not accept connections: {failure:#}\n{}", self.log_from(begin));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All settings; of two of a name the last one counts.
    fn settings(&self) -> Vec<(String, String)> {
        let home = self.home.path().display();
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", home.to_string()),
            ("hba_file", format!("{home}/hba.conf")),
            // In its directory, so that nothing of a killed server stays in memory.
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            ("shared_buffers", "32MB".to_owned()),
            ("max_wal_size", "256MB".to_owned()),
        ];
        if let Some(authority) = &self.authority {
            let file = |name| authority.file(name).display().to_string();
            settings.push(("ssl", "on".to_owned()));
            settings.push(("ssl_cert_file", file("server.pem")));
            settings.push(("ssl_key_file", file("server.key")));
            settings.push(("ssl_ca_file", file("ca.pem")));
        }
        let own = settings.into_iter().map(|(name, value)| (name.to_owned(), value));
        own.chain(self.options.settings.iter().cloned()).collect()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://phi_vault@127.0.0.1:<port>/<database>`
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The authority of its certificate, in PEM, if it speaks TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(|authority| authority.file("ca.pem"))
    }

    /// Certificate and key of the superuser, in PEM, if it speaks TLS.
    pub fn client_certificate(&self) -> Option<(PathBuf, PathBuf)> {
        self.authority.as_ref().map(|authority| (authority.file("client.pem"), authority.file("client.key")))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    fn log_from(&self, begin: u64) -> String {
        let bytes = fs::read(self.home.path().join("log")).unwrap_or_default();
        let begin = usize::try_from(begin).map_or(bytes.len(), |begin| begin.min(bytes.len()));
        String::from_utf8_lossy(&bytes[begin..]).into_owned()
    }

    /// Makes a database; gives its name.
    pub fn create_database(&self) -> String {
        query::create_database(|text| self.sql("postgres", text))
    }

    /// Runs statements as the superuser, over the server's own socket: neither password nor TLS are asked for there.
    pub fn sql(&self, database: &str, text: &str) -> Result<Rows> {
        query::run(&self.local(database), text)
    }

    /// How its own socket is reached.
    fn local(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.home.path()).port(self.port).user(USER).dbname(database);
        config
    }

    /// The directory of its data.
    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Kills all its processes (SIGKILL) and waits until they are gone.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        // It must not start another while its children are counted.
        let children = Process::of(postmaster.id()).map(stop).unwrap_or_default();
        let _ = postmaster.kill();
        for child in &children {
            child.signal(Signal::KILL);
        }
        let _ = postmaster.wait();
        for child in children {
            child.wait_gone();
        }
        clean_up(&self.data());
    }

    /// Ends it without a checkpoint (SIGQUIT): when it starts again it recovers, as after a crash.
    pub fn stop_immediately(&mut self) {
        self.resume();
        let Some(postmaster) = &mut self.postmaster else { return };
        if let Some(process) = Process::of(postmaster.id()) {
            process.signal(Signal::QUIT);
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(postmaster.try_wait(), Ok(None)) {
                self.postmaster = None;
                clean_up(&self.data());
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill();
    }

    /// Starts it again on the same port; ends it first, if it runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        self.stop_immediately();
        match self.launch_here() {
            Ok(true) => {}
            Ok(false) => panic!("PostgreSQL: somebody else listens on port {}", self.port),
            Err(error) => panic!("PostgreSQL: {error:#}"),
        }
    }

    /// Lets all its processes stand still (SIGSTOP): it answers nothing, and no connection breaks.
    pub fn pause(&self) {
        if let Some(process) = self.process() {
            for child in stop(process) {
                child.signal(Signal::STOP);
                child.wait_stopped();
            }
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        if let Some(process) = self.process() {
            for child in process.children() {
                child.signal(Signal::CONT);
            }
            process.signal(Signal::CONT);
        }
    }

    fn process(&self) -> Option<Process> {
        self.postmaster.as_ref().and_then(|postmaster| Process::of(postmaster.id()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_immediately();
    }
}

/// Lets a postmaster stand still; gives its children.
fn stop(postmaster: Process) -> Vec<Process> {
    postmaster.signal(Signal::STOP);
    postmaster.wait_stopped();
    postmaster.children()
}

/// Who is let in, as `pg_hba.conf` has it.
fn access(options: &Options) -> String {
    let (kind, certificate) = match options.tls {
        Tls::Off => ("host", ""),
        Tls::Required => ("hostssl", ""),
        Tls::ClientCertificate => ("hostssl", " clientcert=verify-full"),
    };
    let method = if options.password.is_some() { "scram-sha-256" } else { "trust" };
    format!(
        "local all all trust\nlocal replication all trust\n{kind} all all 127.0.0.1/32 {method}{certificate}\n"
    )
}
