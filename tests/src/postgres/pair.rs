//! A primary and a synchronous standby of it: what is acknowledged is on the disks of both.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cluster::Cluster;
use super::options::Options;

/// How long a standby may take to catch up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A primary and its standby; both ended when dropped.
///
/// Each waits with every commit until its standby has it too, also while there is none. The two ports stay the same
/// over any number of fail-overs.
pub struct Pair {
    options: Options,
    primary: Cluster,
    standby: Option<Cluster>,
    dead: Option<Cluster>,
}

impl Pair {
    /// Starts both. `None`, after saying why, if PostgreSQL is not to be had here.
    ///
    /// # Panics
    /// If PostgreSQL is there and they do not start.
    pub fn start(options: &Options) -> Option<Self> {
        let own =
            [("synchronous_standby_names", "*"), ("synchronous_commit", "on"), ("shared_buffers", "16MB")];
        let mut options = options.clone();
        options.settings.splice(0..0, own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let primary = Cluster::start(&options)?;
        let standby = primary.standby(&options, None).unwrap_or_else(|error| panic!("standby: {error:#}"));
        let pair = Self { options, primary, standby: Some(standby), dead: None };
        pair.wait_streaming();
        Some(pair)
    }

    /// The one that takes writes.
    pub fn primary(&self) -> &Cluster {
        &self.primary
    }

    /// The same, to be killed or started again.
    pub fn primary_mut(&mut self) -> &mut Cluster {
        &mut self.primary
    }

    /// The one that follows; there is none between [`Self::fail_over`] and [`Self::rebuild`].
    pub fn standby(&self) -> Option<&Cluster> {
        self.standby.as_ref()
    }

    /// The same, to be killed or started again.
    pub fn standby_mut(&mut self) -> Option<&mut Cluster> {
        self.standby.as_mut()
    }

    /// The ports of both on 127.0.0.1, in ascending order: the same for as long as the pair lives.
    pub fn ports(&self) -> [u16; 2] {
        let other = self.standby.as_ref().or(self.dead.as_ref()).map_or(0, Cluster::port);
        let mut ports = [self.primary.port(), other];
        ports.sort_unstable();
        ports
    }

    /// Waits until the primary says that its standby is synchronous: from then on commits are acknowledged.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_synchronous(&self) {
        self.wait("sync_state = 'sync' AND state = 'streaming'");
    }

    /// Kills the primary (SIGKILL) and promotes the standby. Returns when it would take writes; they are not
    /// acknowledged before [`Self::rebuild`].
    ///
    /// # Panics
    /// If there is no standby or it cannot be promoted.
    pub fn fail_over(&mut self) {
        self.primary.kill();
        let standby = self.standby.take().expect("a standby to promote");
        let promoted = standby.sql("postgres", "SELECT pg_promote(true, 60), pg_is_in_recovery()");
        let promoted = promoted.unwrap_or_else(|error| panic!("promote: {error:#}\n{}", standby.log()));
        assert_eq!(promoted, [["t", "f"].map(|value| Some(value.to_owned()))], "{}", standby.log());
        self.dead = Some(std::mem::replace(&mut self.primary, standby));
    }

    /// Throws the dead server away, if there is one, or the standby, and makes a new standby on its port. Returns when
    /// it is synchronous.
    ///
    /// # Panics
    /// If it does not start.
    pub fn rebuild(&mut self) {
        let old = self.dead.take().or_else(|| self.standby.take()).expect("a server to replace");
        let port = old.port();
        drop(old);
        self.standby = Some(self.try_rebuild(port).unwrap_or_else(|error| panic!("rebuild: {error:#}")));
        self.wait_streaming();
    }

    fn try_rebuild(&self, port: u16) -> Result<Cluster> {
        let until = Instant::now() + PATIENCE;
        // The primary may not have noticed yet that the old one is gone.
        while !self.primary.sql("postgres", "SELECT 1 FROM pg_stat_replication")?.is_empty() {
            ensure!(Instant::now() < until, "the old standby does not go away");
            thread::sleep(Duration::from_millis(5));
        }
        self.primary.standby(&self.options, Some(port))
    }

    /// As synchronous as the options have it: a test may want to see what is lost without.
    fn wait_streaming(&self) {
        let names = self.primary.sql("postgres", "SHOW synchronous_standby_names");
        let names = names.expect("a primary that answers");
        if names == [[Some(String::new())]] {
            self.wait("state = 'streaming'");
        } else {
            self.wait_synchronous();
        }
    }

    fn wait(&self, condition: &str) {
        let statement = format!("SELECT 1 FROM pg_stat_replication WHERE {condition}");
        let until = Instant::now() + PATIENCE;
        while self.primary.sql("postgres", &statement).map_or(true, |rows| rows.is_empty()) {
            assert!(Instant::now() < until, "no standby that follows:\n{}", self.primary.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}
