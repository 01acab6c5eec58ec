//! Many instances of one vault on one database, each a process of its own.
//!
//! * [`load`]: tasks that call the vault and remember what they were told.
//! * [`check`]: whether all that they were told is true, and on record.

pub mod check;
pub mod load;
mod witness;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use vault_client::Client;
use vault_server::store::postgres::{Password, PostgresOptions, Transport};

pub use self::witness::Witness;
use crate::postgres::USER;
use crate::process::DevVault;

/// Where the database is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Ports on 127.0.0.1, in the order in which they are tried.
    pub ports: Vec<u16>,
    /// Its name.
    pub database: String,
    /// Who uses it.
    pub user: String,
}

impl Place {
    /// On servers that were started here.
    pub fn on(ports: &[u16], database: &str) -> Self {
        Self { ports: ports.to_vec(), database: database.to_owned(), user: USER.to_owned() }
    }

    /// Of a URL without a password.
    ///
    /// # Panics
    /// If it is not one.
    pub fn of_url(url: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
        Self { ports: config.get_ports().to_vec(), database: database.to_owned(), user: user.to_owned() }
    }

    /// For a store that a test opens itself, as an instance of that name.
    pub fn options(&self, instance: &str) -> PostgresOptions {
        PostgresOptions {
            hosts: self.ports.iter().map(|port| ("127.0.0.1".to_owned(), *port)).collect(),
            database: self.database.clone(),
            user: self.user.clone(),
            password: Password::None,
            transport: Transport::Plain,
            connections: 4,
            instance: Some(instance.to_owned()),
            lease: std::time::Duration::from_secs(2),
        }
    }
}

/// A vault and its instances.
pub struct Fleet {
    home: PathBuf,
    place: Place,
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    port: u16,
    running: Mutex<Option<DevVault>>,
}

impl Fleet {
    /// Makes a vault in a directory and in a database that is empty. None of its instances runs.
    ///
    /// # Panics
    /// If that fails.
    pub fn make(home: &Path, place: &Place, count: usize) -> Self {
        Self::make_with(home, place, count, "")
    }

    /// The same, with more at the end of the configuration.
    ///
    /// # Panics
    /// If that fails.
    pub fn make_with(home: &Path, place: &Place, count: usize, more: &str) -> Self {
        let hosts: Vec<_> = place.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let url = format!("postgres://{}@{}/{}", place.user, hosts.join(","), place.database);
        DevVault::start_with(home, &["--postgres", &url], &[]).stop();
        let config = fs::read_to_string(home.join("vault.toml")).unwrap();
        // As a vault has it that is not for trying out.
        let config = config.replace("second_person_for_roles = false", "second_person_for_roles = true");
        let instances = free_ports(count).into_iter().enumerate().map(|(number, port)| {
            let name = format!("vault-{number}");
            let text = config
                .replacen("address = \"127.0.0.1:0\"", &format!("address = \"127.0.0.1:{port}\""), 1)
                .replacen("[store.postgres]\n", &format!("[store.postgres]\ninstance = \"{name}\"\n"), 1);
            assert!(text.contains(&port.to_string()) && text.contains(&name), "{config}");
            fs::write(home.join(format!("{name}.toml")), text + more).unwrap();
            Instance { name, port, running: Mutex::new(None) }
        });
        let fleet = Self { home: home.to_owned(), place: place.clone(), instances: instances.collect() };
        fleet.write_profile();
        fleet
    }

    fn write_profile(&self) {
        let endpoints: Vec<_> =
            self.instances.iter().map(|at| format!("\"https://127.0.0.1:{}\"", at.port)).collect();
        let line = format!("endpoints = [{}]", endpoints.join(", "));
        let text = fs::read_to_string(self.home.join("profile.toml")).unwrap();
        let lines = text.lines().map(|old| if old.starts_with("endpoints") { &line } else { old });
        fs::write(self.profile(), lines.fold(String::new(), |text, line| text + line + "\n")).unwrap();
    }

    /// How many instances there can be.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there can be none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Where an instance listens.
    pub fn address(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.instances[number].port)
    }

    /// Where its rows are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The profile that names every instance.
    pub fn profile(&self) -> PathBuf {
        self.home.join("fleet.toml")
    }

    /// A client of all instances. Needs a runtime.
    ///
    /// # Panics
    /// If its files are not there.
    pub fn client(&self, identity: &str) -> Client {
        Client::from_profile(self.profile(), Some(identity)).unwrap()
    }

    /// Where an instance is.
    pub fn endpoint(&self, number: usize) -> String {
        format!("https://127.0.0.1:{}", self.instances[number].port)
    }

    /// A client of one instance.
    ///
    /// # Panics
    /// If its files are not there.
    pub fn client_of(&self, number: usize, identity: &str) -> Client {
        let pki = self.home.join("pki");
        let file = |end: &str| pki.join(format!("{identity}.{end}"));
        Client::builder()
            .endpoint(format!("https://127.0.0.1:{}", self.instances[number].port))
            .server_name("localhost")
            .ca_file(pki.join("ca.pem"))
            .identity_files(file("pem"), file("key"))
            .tenant("demo")
            .environment("dev")
            .connect()
            .unwrap()
    }

    /// Starts an instance and waits until it serves.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub fn start(&self, number: usize) {
        let instance = &self.instances[number];
        let mut running = instance.running.lock();
        assert!(running.is_none(), "{} runs", instance.name);
        let config = self.home.join(format!("{}.toml", instance.name));
        *running = Some(DevVault::serve(&self.home.join(&instance.name), &config, &self.profile(), &[]));
    }

    /// Starts all of them.
    pub fn start_all(&self) {
        (0..self.len()).for_each(|number| self.start(number));
    }

    /// Kills an instance at once (SIGKILL).
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&self, number: usize) {
        self.take(number).kill();
    }

    /// Asks an instance to stop (SIGTERM), waits until it has drained, and gives its exit code.
    ///
    /// # Panics
    /// If it does not run, or does not stop.
    pub fn stop(&self, number: usize) -> Option<i32> {
        self.take(number).stop()
    }

    /// Lets an instance stand still (SIGSTOP): it answers nothing, and no connection breaks, as if its machine were gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self, number: usize) {
        self.signal(number, Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self, number: usize) {
        self.signal(number, Signal::CONT);
    }

    fn signal(&self, number: usize, signal: Signal) {
        let running = self.instances[number].running.lock();
        let pid = running.as_ref().and_then(|vault| Pid::from_raw(vault.pid().cast_signed())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops all that run; each must end well.
    ///
    /// # Panics
    /// If one does not.
    pub fn stop_all(&self) {
        for (number, instance) in self.instances.iter().enumerate() {
            if instance.running.lock().is_some() {
                assert_eq!(self.stop(number), Some(0), "{}:\n{}", instance.name, self.log(number));
            }
        }
    }

    /// What an instance wrote to its operator's log, over all its lives.
    pub fn log(&self, number: usize) -> String {
        let file = self.home.join(&self.instances[number].name).with_extension("stderr.log");
        fs::read_to_string(file).unwrap_or_default()
    }

    /// How many lines of all operators' logs have this in them.
    pub fn count_lines(&self, text: &str) -> usize {
        (0..self.len())
            .map(|number| self.log(number).lines().filter(|line| line.contains(text)).count())
            .sum()
    }

    fn take(&self, number: usize) -> DevVault {
        let taken = self.instances[number].running.lock().take();
        taken.unwrap_or_else(|| panic!("{} does not run", self.instances[number].name))
    }
}

/// Ports that nobody listens on now.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
