//! Statements from tests that may or may not be asynchronous themselves.

use std::thread;

use anyhow::{Context, Result, anyhow};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Rows of text.
pub type Rows = Vec<Vec<Option<String>>>;

/// Runs `text`, which may be several statements, on a connection of its own; gives the rows of all of them.
///
/// On a thread of its own, because a runtime cannot wait within another.
pub(super) fn run(config: &Config, text: &str) -> Result<Rows> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(query(config, text))
        });
        thread.join().map_err(|_| anyhow!("the thread of a statement panicked"))?
    })
}

async fn query(config: &Config, text: &str) -> Result<Rows> {
    let (client, connection) = config.connect(NoTls).await.context("connect")?;
    let connection = tokio::spawn(connection);
    let messages = client.simple_query(text).await;
    drop(client);
    // How the connection ended is said by the statement.
    let _ = connection.await;
    Ok(rows(messages?))
}

/// Rows of what came back.
pub(super) fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    });
    rows.collect()
}

/// Makes a database whose name nobody else has.
pub(super) fn create_database(run: impl Fn(&str) -> Result<Rows>) -> String {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("randomness");
    let name = format!("test_{}", hex::encode(random));
    run(&format!("CREATE DATABASE {name}")).expect("CREATE DATABASE");
    name
}
