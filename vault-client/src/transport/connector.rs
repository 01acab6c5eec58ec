//! Makes one connection: TCP, then TLS 1.3, then it watches for what TLS says later.
//!
//! In TLS 1.3 a server judges the client's certificate after the client thinks that it is connected, so a refusal
//! comes as an alert on the first read, and is lost if a write meets the closed connection first. So the first bytes
//! are read before anything is written (an HTTP/2 server has its settings to send). What TLS says later is forgotten
//! by HTTP/2: [`Watched`] keeps it in the endpoint's [`Faults`], so that the caller is told why.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::TlsFault;
use super::identity::Identity;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address may take of that.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the server may take to say the first word. One that waits for ours is spoken to then.
const FIRST_WORD: Duration = Duration::from_millis(200);

/// The newest thing that TLS had against an endpoint.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<Option<TlsFault>>>);

impl Faults {
    pub(crate) fn newest(&self) -> Option<TlsFault> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, error: &io::Error) {
        if let Some(fault) = TlsFault::find(error) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Where to connect, and as whom.
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) faults: Faults,
}

/// The transport's own wrapping of a connection.
pub(crate) type Connection = TokioIo<Watched>;

/// Connects once.
pub(crate) async fn connect(target: Arc<Target>) -> io::Result<Connection> {
    target.faults.forget();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, handshake(&target)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten();
    stream.map(TokioIo::new).inspect_err(|error| target.faults.note(error))
}

/// To the first of the name's addresses that answers: one that says nothing at all does not use up the time of the others.
async fn connect_tcp(target: &Target) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((target.host.as_str(), target.port)).await? {
        match tokio::time::timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

async fn handshake(target: &Target) -> io::Result<Watched> {
    let tcp = connect_tcp(target).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(target.identity.config());
    let mut inner = connector.connect(target.server_name.clone(), tcp).await?;
    let mut early = BytesMut::with_capacity(1024);
    match tokio::time::timeout(FIRST_WORD, inner.read_buf(&mut early)).await {
        Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) | Err(_) => {}
    }
    Ok(Watched { inner, early, faults: target.faults.clone() })
}

/// A TLS stream that remembers why TLS ended it.
pub(crate) struct Watched {
    inner: TlsStream<TcpStream>,
    /// Read, and not yet taken.
    early: BytesMut,
    faults: Faults,
}

impl Watched {
    fn watch<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &poll {
            self.faults.note(error);
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let count = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.watch(poll)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// [`connect`] as a service, which tonic asks for.
pub(crate) fn service(
    target: Arc<Target>,
) -> impl tower::Service<
    http::Uri,
    Response = Connection,
    Error = io::Error,
    Future = impl Future<Output = io::Result<Connection>> + Send + 'static,
> + Send
+ 'static {
    tower::service_fn(move |_: http::Uri| connect(Arc::clone(&target)))
}
