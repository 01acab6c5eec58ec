//! Accepts connections: TCP, then TLS in a task of its own, so that a client that stalls holds up nobody.
//!
//! What bounds a connection that means ill, or none:
//!
//! * `max_handshakes` at once, each for `handshake_timeout` at most;
//! * `max_connections` past their handshake, a quarter of them without a certificate; one more is closed at once;
//! * `header_timeout` until the HTTP/2 preface and settings are there (hyper has no deadline for these); a frame
//!   that comes byte by byte runs into HTTP/2's own ping, which its sender can't answer before the frame's end;
//! * `idle_timeout` without a request;
//! * a certificate that is revoked, or ends, while the connection lives: see [`Connections::sweep`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::config::Limits;
use super::connections::{Connections, Registered};
use super::metrics::{Metrics, ReasonLabels};
use super::tls::{ALPN_H2, ReloadingTls};

pub use super::connections::PeerInfo;

/// The HTTP/2 preface (24 bytes) and the head of the settings frame that must follow it (9), RFC 9113 section 3.4.
const PREFACE: usize = 24 + 9;

/// Rest after an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A socket with an address. Until it accepts, callers are refused at once, and try another instance.
pub struct Listener {
    socket: TcpSocket,
}

/// What a listener needs to know of the rest.
#[derive(Clone)]
pub struct Surroundings {
    /// The TLS settings in force.
    pub tls: Arc<ReloadingTls>,
    /// The live connections.
    pub connections: Arc<Connections>,
    /// Where refusals are counted.
    pub metrics: Arc<Metrics>,
}

impl Listener {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the process before this one may not be quite gone.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket })
    }

    /// The address, with the true port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Begins to accept. The socket is closed when the stream is dropped.
    pub fn accept(self, surroundings: Surroundings, limits: &Limits) -> io::Result<Incoming> {
        let socket = self.socket.listen(BACKLOG)?;
        let (ready, connections) = mpsc::channel(16);
        let gate = Arc::new(Gate {
            ready,
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            uncertified: Arc::new(Semaphore::new((limits.max_connections / 4).max(1))),
            handshakes: Arc::new(Semaphore::new(limits.max_handshakes)),
            handshake_timeout: limits.handshake_timeout,
            header_timeout: limits.header_timeout,
            surroundings,
        });
        tokio::spawn(gate.run(socket));
        Ok(Incoming(connections))
    }
}

/// The connections that have come through their handshake.
pub struct Incoming(mpsc::Receiver<Connection>);

impl futures::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// Accepts TCP and shakes hands.
struct Gate {
    ready: mpsc::Sender<Connection>,
    slots: Arc<Semaphore>,
    /// Of the slots, those for connections without a certificate: so that a crowd of strangers keeps no service out.
    uncertified: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
    header_timeout: Duration,
    surroundings: Surroundings,
}

impl Gate {
    async fn run(self: Arc<Self>, socket: TcpListener) {
        let accept = async {
            loop {
                let Ok(turn) = self.handshakes.clone().acquire_owned().await else { return };
                match socket.accept().await {
                    Ok((tcp, source)) => {
                        tokio::spawn(self.clone().admit(tcp, source, turn));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        self.refused("accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = self.ready.closed() => {}
        }
    }

    async fn admit(self: Arc<Self>, tcp: TcpStream, source: SocketAddr, turn: OwnedSemaphorePermit) {
        let config = self.surroundings.tls.grpc();
        let shaken = match handshake(tcp, config, ALPN_H2, self.handshake_timeout).await {
            Ok(shaken) => shaken,
            Err(refusal) => {
                tracing::debug!(%source, reason = refusal.word(), %refusal, "handshake refused");
                return self.refused(refusal.word());
            }
        };
        drop(turn);
        if shaken.chain.is_empty() && !self.surroundings.tls.accepts_people() {
            return self.refused(Refusal::Certificate.word());
        }
        let uncertified =
            shaken.chain.is_empty().then(|| self.uncertified.clone().try_acquire_owned()).transpose();
        let (Ok(uncertified), Ok(slot)) = (uncertified, self.slots.clone().try_acquire_owned()) else {
            return self.refused("too_many");
        };
        let slot = Slot { _any: slot, _uncertified: uncertified };
        let registered = self.surroundings.connections.register(shaken.chain, source);
        let connection = Connection::new(shaken.stream, registered, slot, self.header_timeout);
        // The receiver goes when the server stops; the connection then goes with it.
        let _ = self.ready.send(connection).await;
    }

    fn refused(&self, reason: &'static str) {
        self.surroundings.metrics.refused_connections.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// A place among the connections.
struct Slot {
    _any: OwnedSemaphorePermit,
    _uncertified: Option<OwnedSemaphorePermit>,
}

/// A connection after its handshake.
pub(super) struct Shaken {
    /// The encrypted stream.
    pub(super) stream: TlsStream<TcpStream>,
    /// The client's certificates, leaf first; none if it showed none, and need not.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// TLS says no.
    #[error("{0}")]
    Tls(io::Error),
    /// The client did not say that it speaks the protocol.
    #[error("the client did not offer the protocol (ALPN)")]
    Protocol,
    /// No certificate. The verifier does not let it come to this.
    #[error("no client certificate")]
    Certificate,
}

impl Refusal {
    /// A fixed word for a metric's label.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::Protocol => "protocol",
            Self::Certificate => "certificate",
        }
    }
}

/// TLS, as the settings ask for, for one protocol, within a deadline.
pub(super) async fn handshake(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    protocol: &[u8],
    deadline: Duration,
) -> Result<Shaken, Refusal> {
    tcp.set_nodelay(true).map_err(Refusal::Tls)?;
    let stream = timeout(deadline, TlsAcceptor::from(config).accept(tcp))
        .await
        .map_err(|_| Refusal::Timeout)?
        .map_err(Refusal::Tls)?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(protocol) {
        return Err(Refusal::Protocol);
    }
    let chain: Vec<_> =
        session.peer_certificates().unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect();
    Ok(Shaken { stream, chain })
}

/// A live connection. Its slot is free, and it is no longer registered, once it is dropped.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    registered: Registered,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    opening: Option<Opening>,
    _slot: Slot,
}

/// A connection that has not sent its HTTP/2 preface.
struct Opening {
    deadline: Pin<Box<Sleep>>,
    missing: usize,
}

impl Connection {
    fn new(
        stream: TlsStream<TcpStream>,
        registered: Registered,
        slot: Slot,
        header_timeout: Duration,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(header_timeout));
        Self {
            stream,
            closing: Box::pin(registered.closing()),
            registered,
            opening: Some(Opening { deadline, missing: PREFACE }),
            _slot: slot,
        }
    }

    /// An error once the connection is to end.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(opening) = &mut self.opening
            && opening.deadline.as_mut().poll(cx).is_ready()
        {
            self.registered.count_closed("preface");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<PeerInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.registered.peer()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(opening) = &mut self.opening {
            opening.missing = opening.missing.saturating_sub(buffer.filled().len() - before);
            if opening.missing == 0 {
                self.opening = None;
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that does not read could hold up the shutdown for good.
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
