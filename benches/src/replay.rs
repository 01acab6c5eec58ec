//! What the database alone takes for the same work: everything that a vault sent to it is recorded on the way, then
//! sent again, byte for byte, to a database of the same beginnings, with nothing in front of it.
//!
//! Each connection sends its next statement when the last is answered, as the vault's do. The database's name, which
//! is in each connection's first message, is replaced by one of the same length.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
    pub(crate) fn recording(&self, from: Instant, until: Instant) -> anyhow::Result<Recording> {
        let mut seen = seen(&self.seen)?;
        let mut recording = Recording::default();
        let mut before = Vec::new();
        for Request { at, connection, bytes, answered } in seen.requests.drain(..) {
            if at >= until {
                break;
            }
            if recording.measured.len() <= connection {
                recording.measured.resize_with(connection + 1, Vec::new);
                before.resize(connection + 1, 0);
            }
            if at < from {
                recording.before.push((connection, bytes));
                before[connection] += 1;
            } else {
                let after = (0..).zip(answered).map(|(of, count): (usize, usize)| {
                    count.saturating_sub(before.get(of).copied().unwrap_or_default())
                });
                recording.measured[connection].push(Sent { bytes, after: after.collect() });
            }
        }
        Ok(recording)
    }
}

/// What a vault sent: at each time as much as is answered together.
#[derive(Default)]
pub(crate) struct Recording {
    /// In their order, each with its connection.
    pub(crate) before: Vec<(usize, Bytes)>,
    /// By connection.
    pub(crate) measured: Vec<Vec<Sent>>,
}

/// What was sent at once.
pub(crate) struct Sent {
    pub(crate) bytes: Bytes,
    /// How many of each connection's measured ones had been answered by then.
    pub(crate) after: Vec<usize>,
}

impl Recording {
    /// Sends it all again: what came before, one by one; what is measured as fast as the database takes it. How long the
    /// latter took.
    pub(crate) async fn replay(&self, database: SocketAddr, names: (&str, &str)) -> anyhow::Result<Duration> {
        let mut lines = Vec::new();
        for _ in &self.measured {
            lines.push(Line::connect(database).await?);
        }
        for (connection, bytes) in &self.before {
            lines[*connection].ask(&renamed(bytes, names)).await?;
        }
        let begin = Instant::now();
        let replays = lines.into_iter().zip(&self.measured).map(|(mut line, requests)| {
            let requests: Vec<_> = requests.iter().map(|sent| renamed(&sent.bytes, names)).collect();
            tokio::spawn(async move {
                for bytes in requests {
                    line.ask(&bytes).await?;
                }
                anyhow::Ok(())
            })
        });
        for replay in replays.collect::<Vec<_>>() {
            replay.await??;
        }
        Ok(begin.elapsed())
    }
}

/// A connection to the database.
struct Line {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Line {
    async fn connect(database: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(database).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: BufReader::with_capacity(BUFFER, read), write })
    }

    /// Sends, and reads until the database is ready for more.
    async fn ask(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write.write_all(bytes).await?;
        let mut body = Vec::new();
        loop {
            let tag = self.read.read_u8().await?;
            let length = self.read.read_u32().await?.checked_sub(4).context("a length")?;
            body.resize(length as usize, 0);
            self.read.read_exact(&mut body).await?;
            match tag {
                b'Z' => return Ok(()),
                b'E' => anyhow::bail!("the database refuses what it took before: {}", text(&body)),
                _ => {}
            }
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', " ")
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

/// The first message with the other database's name; all others as they are.
fn renamed(bytes: &Bytes, (from, to): (&str, &str)) -> Bytes {
    let needle = [b"database\0", from.as_bytes(), b"\0"].concat();
    // Only the first begins with a length, not with a tag.
    let at = if bytes.starts_with(&[0]) {
        bytes.windows(needle.len()).position(|window| window == needle)
    } else {
        None
    };
    let Some(at) = at else { return bytes.clone() };
    let (mut bytes, at) = (bytes.to_vec(), at + b"database\0".len());
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes.into()
}
