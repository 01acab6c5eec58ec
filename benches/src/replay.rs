//! What a vault sends to its database, recorded on the way: what a loop of the same SQL needs ([`crate::bare`]).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Of what is read at once.
const BUFFER: usize = 64 << 10;

/// What was sent on one connection until an answer was due.
struct Request {
    at: Instant,
    connection: usize,
    bytes: Bytes,
    /// How many had been answered on each connection when it was sent.
    answered: Vec<usize>,
}

/// What went by so far.
#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    answered: Vec<usize>,
}

impl Seen {
    fn sent(&mut self, connection: usize, bytes: Bytes) {
        let answered = self.answered.clone();
        self.requests.push(Request { at: Instant::now(), connection, bytes, answered });
    }

    fn answered(&mut self, connection: usize) {
        if self.answered.len() <= connection {
            self.answered.resize(connection + 1, 0);
        }
        self.answered[connection] += 1;
    }
}

/// Stands between a vault and its database, and records.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Recorder {
    pub(crate) async fn start(database: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Seen>>::default();
        let recorded = Arc::clone(&seen);
        tokio::spawn(async move {
            let connections = AtomicUsize::new(0);
            while let Ok((client, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                let recorded = Arc::clone(&recorded);
                tokio::spawn(async move {
                    // It ends when either side does.
                    let _ = pass(client, database, connection, &recorded).await;
                });
            }
        });
        Ok(Self { address, seen })
    }

    /// What was sent before `until`, of which what came from `from` on is measured.
    pub(crate) fn recording(&self, from: Instant, until: Instant) -> anyhow::Result<Vec<Sending>> {
        let mut seen = seen(&self.seen)?;
        let mut recording = Vec::new();
        for Request { at, connection, bytes, answered } in seen.requests.drain(..) {
            if at >= until {
                break;
            }
            if recording.len() <= connection {
                recording.resize_with(connection + 1, Sending::default);
            }
            let of: &mut Sending = &mut recording[connection];
            of.before += usize::from(at < from);
            of.sent.push(Sent { bytes, after: answered });
        }
        Ok(recording)
    }
}

/// What a vault sent on one connection: at each time as much as is answered together.
#[derive(Default)]
pub(crate) struct Sending {
    pub(crate) sent: Vec<Sent>,
    /// How many of them come before the measured ones.
    pub(crate) before: usize,
}

/// What was sent at once.
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    /// How many had been answered on each connection by then.
    pub(crate) after: Vec<usize>,
}

fn seen(seen: &Mutex<Seen>) -> anyhow::Result<MutexGuard<'_, Seen>> {
    seen.lock().map_err(|_| anyhow::anyhow!("a recording failed"))
}

async fn pass(
    client: TcpStream,
    database: SocketAddr,
    connection: usize,
    recorded: &Arc<Mutex<Seen>>,
) -> anyhow::Result<()> {
    let server = TcpStream::connect(database).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::with_capacity(BUFFER, from_client);
    let answers = tokio::spawn(pass_answers(from_server, to_client, connection, Arc::clone(recorded)));
    let mut bytes = Vec::new();
    let mut first = true;
    loop {
        // The first message has no tag.
        let tag = if first { 0 } else { from_client.read_u8().await? };
        let length = from_client.read_u32().await?;
        if !first {
            bytes.push(tag);
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        let body = bytes.len();
        bytes.resize(body + length.saturating_sub(4) as usize, 0);
        from_client.read_exact(&mut bytes[body..]).await?;
        // After these the database says that it is ready; after an X it says nothing.
        if first || matches!(tag, b'S' | b'Q' | b'X') {
            let sent = Bytes::from(std::mem::take(&mut bytes));
            // Before the database has it: none of what it answers before is to this.
            if tag != b'X' {
                seen(recorded)?.sent(connection, sent.clone());
            }
            to_server.write_all(&sent).await?;
            if tag == b'X' {
                break;
            }
        }
        first = false;
    }
    drop(to_server);
    answers.await??;
    Ok(())
}

/// Hands on what the database says, and notes each time that it is ready for more.
async fn pass_answers(
    from_server: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    connection: usize,
    recorded: Arc<Mutex<Seen>>,
) -> anyhow::Result<()> {
    let mut from_server = BufReader::with_capacity(BUFFER, from_server);
    let mut to_client = BufWriter::with_capacity(BUFFER, to_client);
    let mut body = Vec::new();
    loop {
        let tag = match from_server.read_u8().await {
            Ok(tag) => tag,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let length = from_server.read_u32().await?;
        body.resize(length.checked_sub(4).context("a length")? as usize, 0);
        from_server.read_exact(&mut body).await?;
        to_client.write_u8(tag).await?;
        to_client.write_u32(length).await?;
        to_client.write_all(&body).await?;
        if tag == b'Z' {
            // Before the client has it: what it sends then is after this.
            seen(&recorded)?.answered(connection);
        }
        if from_server.buffer().is_empty() {
            to_client.flush().await?;
        }
    }
}
