//! Statements from tests that may or may not be asynchronous themselves.

use std::thread;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Rows of text.
pub type Rows = Vec<Vec<Option<String>>>;

/// A connection.
pub(super) struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    /// Runs `text`, which may be several statements; gives the rows of all of them.
    pub(super) fn run(&self, text: &str) -> Result<Rows> {
        let messages = self.runtime.block_on(self.client.simple_query(text))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// Does something on a connection of its own, and on a thread of its own, because a runtime cannot wait within another.
pub(super) fn session<T: Send>(
    config: &Config,
    work: impl FnOnce(&Session) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (client, connection) = runtime.block_on(config.connect(NoTls)).context("connect")?;
            // How it ends is said by the statements.
            runtime.spawn(connection);
            work(&Session { runtime, client })
        });
        thread.join().map_err(|_| anyhow!("the thread of a statement panicked"))?
    })
}

/// Runs `text` on a connection of its own.
pub(super) fn run(config: &Config, text: &str) -> Result<Rows> {
    session(config, |session| session.run(text))
}

/// Makes a database whose name nobody else has.
pub(super) fn create_database(run: impl Fn(&str) -> Result<Rows>) -> String {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("randomness");
    let name = format!("test_{}", hex::encode(random));
    run(&format!("CREATE DATABASE {name}")).expect("CREATE DATABASE");
    name
}
