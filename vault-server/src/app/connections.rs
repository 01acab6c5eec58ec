//! The live connections: whose they are, whether they do anything, and how they end when they must.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::metrics::{Metrics, ReasonLabels};
use super::tls::ReloadingTls;
use crate::access::Credential;

/// Who is at the other end. In the extensions of every request of the connection, as `Arc<PeerInfo>`.
pub struct PeerInfo {
    /// Whose connection it is, as the client's certificate (the leaf, verified by TLS) says, if there is one. One that
    /// names nobody has no identities.
    pub credential: Arc<Credential>,
    /// Where it connects from.
    pub source: SocketAddr,
    /// All certificates that the client sent, leaf first, to be verified anew.
    chain: Vec<CertificateDer<'static>>,
    opened: Instant,
    /// Requests at work.
    active: AtomicUsize,
    /// When the last request ended, in milliseconds from `opened`.
    last_end: AtomicU64,
    closing: CancellationToken,
}

impl PeerInfo {
    /// Notes that a request is at work, until the guard is dropped.
    pub fn request(self: Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(self)
    }

    /// How long there has been no request; `None` while there is one.
    fn idle(&self) -> Option<Duration> {
        if self.active.load(Ordering::Relaxed) > 0 {
            return None;
        }
        Some(
            self.opened
                .elapsed()
                .saturating_sub(Duration::from_millis(self.last_end.load(Ordering::Relaxed))),
        )
    }
}

/// A request at work.
pub struct ActiveRequest(Arc<PeerInfo>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_end.store(now, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn credential(chain: &[CertificateDer<'_>], source: SocketAddr) -> Credential {
    let Some(leaf) = chain.first() else { return Credential::nothing(Some(source.ip())) };
    Credential::from_certificate(leaf, Some(source.ip())).unwrap_or_else(|error| {
        tracing::warn!(%source, %error, "a client's certificate names no caller");
        Credential::of_nobody(leaf, Some(source.ip()))
    })
}

/// All live connections.
pub struct Connections {
    live: Mutex<HashMap<u64, Arc<PeerInfo>>>,
    next: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { live: Mutex::default(), next: AtomicU64::new(0), metrics }
    }

    /// Adds one. `chain` is the client's, leaf first.
    pub(super) fn register(
        self: &Arc<Self>,
        chain: Vec<CertificateDer<'static>>,
        source: SocketAddr,
    ) -> Registered {
        let peer = Arc::new(PeerInfo {
            credential: Arc::new(credential(&chain, source)),
            source,
            chain,
            opened: Instant::now(),
            active: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            closing: CancellationToken::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.live.lock().insert(id, peer.clone());
        self.metrics.connections.inc();
        Registered { id, peer, all: self.clone() }
    }

    /// Ends every connection whose certificate the settings in force would refuse (revoked, expired, of another
    /// authority), and every one without a request for `idle`.
    pub fn sweep(&self, tls: &ReloadingTls, idle: Duration) {
        let now = UnixTime::now();
        // The verification of many chains takes its time: not under the lock.
        let live: Vec<Arc<PeerInfo>> = self.live.lock().values().cloned().collect();
        for peer in live.iter().filter(|peer| !peer.closing.is_cancelled()) {
            if !tls.accepts(&peer.chain, now) {
                tracing::warn!(source = %peer.source, "closing a connection: its certificate is no longer accepted");
                self.close(peer, "certificate");
            } else if peer.idle().is_some_and(|for_so_long| for_so_long >= idle) {
                self.close(peer, "idle");
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.live.lock().len()
    }

    /// Ends all.
    pub fn close_all(&self) {
        for peer in self.live.lock().values() {
            self.close(peer, "shutdown");
        }
    }

    fn close(&self, peer: &PeerInfo, reason: &'static str) {
        self.metrics.closed_connections.get_or_create(&ReasonLabels { reason }).inc();
        peer.closing.cancel();
    }
}

/// A place in [`Connections`], given back when it is dropped.
pub(super) struct Registered {
    id: u64,
    peer: Arc<PeerInfo>,
    all: Arc<Connections>,
}

impl Registered {
    /// Whose connection it is.
    pub(super) fn peer(&self) -> Arc<PeerInfo> {
        self.peer.clone()
    }

    /// Ready when the connection is to end.
    pub(super) fn closing(&self) -> WaitForCancellationFutureOwned {
        self.peer.closing.clone().cancelled_owned()
    }

    /// Counts an end that the connection itself has decided on.
    pub(super) fn count_closed(&self, reason: &'static str) {
        self.all.close(&self.peer, reason);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.all.live.lock().remove(&self.id);
        self.all.metrics.connections.dec();
    }
}
