//! `GET /metrics` over the same mutual TLS as the API: any client certificate that the API's TLS would accept.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::listener::handshake;
use super::metrics::Metrics;
use super::tls::{ALPN_HTTP1, ReloadingTls};

/// Scrapes at once; more wait.
const MOST: usize = 16;
/// The longest a handshake, a request's head or a whole connection may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEADERS: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_mins(1);
/// The longest that figures are waited for; after that the last ones are told.
const SAMPLE: Duration = Duration::from_secs(2);
/// Rest after an error of `accept`.
const PAUSE: Duration = Duration::from_millis(50);

/// Brings figures up to date that are counted elsewhere.
#[async_trait]
pub trait Sample: Send + Sync {
    /// Called before each scrape.
    async fn sample(&self, metrics: &Metrics);
}

/// A bound socket for scrapes.
pub struct MetricsServer {
    socket: TcpListener,
    scrapes: Arc<Scrapes>,
}

struct Scrapes {
    tls: Arc<ReloadingTls>,
    metrics: Arc<Metrics>,
    sample: Option<Box<dyn Sample>>,
}

impl MetricsServer {
    /// Binds.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ReloadingTls>,
        metrics: Arc<Metrics>,
        sample: Option<Box<dyn Sample>>,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { socket, scrapes: Arc::new(Scrapes { tls, metrics, sample }) })
    }

    /// The address, with the true port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(self) {
        let slots = Arc::new(Semaphore::new(MOST));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match self.socket.accept().await {
                Ok((tcp, _)) => {
                    let scrapes = self.scrapes.clone();
                    tokio::spawn(async move {
                        // A scrape that fails is the scraper's to tell.
                        let _ = tokio::time::timeout(CONNECTION, scrapes.serve(tcp)).await;
                        drop(slot);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl Scrapes {
    async fn serve(self: Arc<Self>, tcp: TcpStream) {
        let Ok(shaken) = handshake(tcp, self.tls.metrics(), ALPN_HTTP1, HANDSHAKE).await else { return };
        let service = service_fn(move |request| {
            let scrapes = self.clone();
            async move { Ok::<_, Infallible>(scrapes.answer(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(shaken.stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "scrape ended early");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if (request.method(), request.uri().path()) != (&Method::GET, "/metrics") {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            return answer;
        }
        if let Some(sample) = &self.sample
            && tokio::time::timeout(SAMPLE, sample.sample(&self.metrics)).await.is_err()
        {
            tracing::warn!("figures are late: telling the last ones");
        }
        let mut answer = Response::new(Full::from(self.metrics.encode()));
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        answer
    }
}
