//! A server on loopback that speaks just enough of PostgreSQL's wire protocol, version 3, to do harm by it.
//!
//! It plays one [`Trick`] on every connection. It holds few connections, none for long, and ends when dropped.

mod messages;
#[cfg(test)]
mod tests;
mod tricks;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How many connections it has at once; further ones are closed.
const CONNECTIONS: usize = 64;

/// How long it keeps one.
const PATIENCE: Duration = Duration::from_mins(1);

/// An object identifier of a type: 16 `bool`, 17 `bytea`, 20 `int8`, 23 `int4`, 25 `text`.
pub type Oid = u32;

/// What it does to whoever connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trick {
    /// Closes the connection after the startup message.
    Close,
    /// Answers the startup message with bytes that are no message.
    Garbage,
    /// Agrees to TLS and answers the handshake with bytes that are no record. Closes a connection without TLS.
    TlsGarbage,
    /// Goes through SCRAM-SHA-256 and proves at its end that it does not know the password.
    WrongSignature,
    /// Asks for this iteration count in SCRAM-SHA-256.
    Iterations(u32),
    /// Gives a nonce in SCRAM-SHA-256 that does not begin with the client's.
    ForeignNonce,
    /// Goes on with SCRAM-SHA-256 without an end.
    EndlessScram,
    /// Announces a message of 2 GiB in answer to the startup message, and sends the first few MiB of it.
    HugeMessage,
    /// Lets everybody in, and announces a row of 2 GiB in answer to every statement.
    HugeRow,
    /// Answers every statement with columns of these types and a row that has none.
    TooFewColumns(Vec<Oid>),
    /// Answers every statement with columns of these types and values that are none of any of them.
    WrongTypes(Vec<Oid>),
    /// Answers every statement with columns of these types and values of negative lengths, other than that of NULL.
    NegativeLengths(Vec<Oid>),
    /// Answers every statement with columns of these types and values that are longer than the message.
    TooLongColumns(Vec<Oid>),
    /// Accepts the connection and says nothing.
    Silence,
    /// Answers the startup message with an error of 16 MiB of escape sequences and line breaks.
    LongError,
}

/// A running fake; ended when dropped.
pub struct FakePostgres {
    /// Its port on 127.0.0.1.
    pub port: u16,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakePostgres {
    /// Starts one, on a thread of its own.
    pub fn start(trick: Trick) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("a listener");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, trick, &counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, connections, stop: Some(stop), thread: Some(thread) }
    }

    /// `postgres://phi_vault@127.0.0.1:<port>/phi_vault`
    pub fn url(&self) -> String {
        format!("postgres://phi_vault@127.0.0.1:{}/phi_vault", self.port)
    }

    /// How often somebody has connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FakePostgres {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it panicked, the connections have ended too.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, trick: Trick, counted: &AtomicUsize) {
    let trick = Arc::new(trick);
    let mut running = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        counted.fetch_add(1, Ordering::Relaxed);
        while running.try_join_next().is_some() {}
        if running.len() < CONNECTIONS {
            let trick = trick.clone();
            // A client that goes away is no fault of ours.
            running.spawn(tokio::time::timeout(PATIENCE, async move { tricks::play(stream, &trick).await }));
        }
    }
}
