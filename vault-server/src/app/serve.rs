//! The life of a serving process: start, serve, reload, drain, end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::config::{Config, Limits};
use super::connections::Connections;
use super::listener::{Listener, Surroundings};
use super::metrics::Metrics;
use super::metrics_server::MetricsServer;
use super::observe::ObserveLayer;
use super::reload::{self, Reloadable};
use super::shutdown::{FatalSwitch, Fatality, Reason, StopSignals};
use super::tls::{Callers, ReloadingTls};
use super::wire::{self, Context, Wired};

/// How long requests have to get their error when the store is gone: nothing they do could be made durable.
const FATAL_DRAIN: Duration = Duration::from_secs(2);
/// How long closed connections have to end.
const CLOSE: Duration = Duration::from_secs(1);
/// Bytes in flight to the server on one stream and on one connection: bounds what a caller can make it buffer.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams reset by the peer, or by our own errors, before the connection is (CVE-2023-44487, CVE-2025-8671).
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 256;
/// A certificate with less than this left is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);
/// Open files that are neither connections nor handshakes: the store's, sockets, a reserve.
const OTHER_FILES: usize = 256;

/// How serving ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As asked, with every request answered.
    Stopped,
    /// As asked, but requests were still at work when the time was up, or a second signal came.
    Undrained,
    /// The server could not keep its promises.
    Fatal(Fatality),
}

/// Serves until it is told to stop. `ready` is called once with the address when callers can connect.
pub async fn run(
    mut config: Config,
    ready: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    fit_open_files(&mut config.limits);
    let fatal = FatalSwitch::default();
    // Before anything that takes its time: a signal during the start is not lost.
    let mut signals = StopSignals::new(&fatal)?;
    let callers = if config.oidc.is_some() { Callers::People } else { Callers::Certified };
    let tls = Arc::new(ReloadingTls::load(config.tls.clone(), callers).context("TLS")?);
    let metrics = Arc::new(Metrics::new(build_info()));
    let context = Context { metrics: metrics.clone(), fatal, stopping: CancellationToken::new() };
    let listener = Listener::bind(config.listen.address)
        .with_context(|| format!("can't listen on {}", config.listen.address))?;
    let address = listener.address()?;
    let Wired { routes, doorkeeper, reloads, sample, close } = wire::wire(&config, &context).await?;

    let mut background = JoinSet::new();
    if let Some(address) = config.metrics.listen {
        let server = MetricsServer::bind(address, tls.clone(), metrics.clone(), sample).await;
        let server = server.with_context(|| format!("can't listen on {address} for [metrics]"))?;
        tracing::info!(address = %server.address()?, "metrics are served");
        background.spawn(server.run());
    }
    let connections = Arc::new(Connections::new(metrics.clone()));
    background.spawn(watch_files(tls.clone(), reloads, config.tls.reload_every, metrics.clone())?);
    background.spawn(sweep(connections.clone(), tls.clone(), metrics.clone(), config.clone()));

    let surroundings = Surroundings { tls, connections: connections.clone(), metrics: metrics.clone() };
    let incoming = listener
        .accept(surroundings, &config.limits)
        .with_context(|| format!("can't listen on {address}"))?;
    let stopping = context.stopping.clone();
    let server = server(&config.limits)
        .layer(ObserveLayer::new(doorkeeper, metrics, &config.limits, context.stopping.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move { stopping.cancelled().await });
    let mut serving = tokio::spawn(server);
    tracing::info!(%address, environment = %config.vault.environment, fast_poly1305 = wire::FAST_POLY1305, "serving");
    if !wire::FAST_POLY1305 {
        tracing::warn!(
            "built without --cfg poly1305_backend=\"soft\": sealing short values is several times slower"
        );
    }
    ready(address)?;

    let reason = tokio::select! {
        reason = signals.next() => reason,
        ended = &mut serving => {
            ended.context("the server's task")?.context("the server")?;
            anyhow::bail!("the server ended by itself");
        }
    };
    context.stopping.cancel();
    let outcome = drain(&reason, &mut signals, serving, &connections, config.limits.drain_timeout).await;
    background.shutdown().await;
    match (&outcome, close.await.context("closing the store")) {
        // Why it stops is known already, and is what counts.
        (Outcome::Fatal(_) | Outcome::Undrained, Err(error)) => tracing::error!("{error:#}"),
        (_, closed) => closed?,
    }
    Ok(outcome)
}

fn server(limits: &Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.max_concurrent_streams)
        .concurrency_limit_per_connection(limits.max_concurrent_streams as usize)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
        .http2_max_header_list_size(u32::try_from(limits.max_headers).unwrap_or(u32::MAX))
        .max_connection_age(limits.max_connection_age)
}

/// Lets requests end, for as long as they may.
async fn drain(
    reason: &Reason,
    signals: &mut StopSignals,
    mut serving: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    connections: &Connections,
    drain_timeout: Duration,
) -> Outcome {
    let within = match reason {
        Reason::Signal(signal) => {
            tracing::info!(
                signal,
                connections = connections.count(),
                "stopping: no new connections or requests"
            );
            drain_timeout
        }
        Reason::Fatal(why) => {
            tracing::error!(%why, "stopping: nothing more is served");
            FATAL_DRAIN.min(drain_timeout)
        }
    };
    let drained = tokio::select! {
        drained = tokio::time::timeout(within, &mut serving) => drained.is_ok(),
        () = signals.signal() => {
            tracing::warn!("second signal: stopping at once");
            return Outcome::Undrained;
        }
    };
    if !drained {
        tracing::warn!(
            connections = connections.count(),
            "time is up: closing connections with requests at work"
        );
        connections.close_all();
        // They end by themselves within moments; the process ends in any case.
        let _ = tokio::time::timeout(CLOSE, serving).await;
    }
    match reason {
        Reason::Fatal(why) => Outcome::Fatal(why.clone()),
        Reason::Signal(_) if drained => Outcome::Stopped,
        Reason::Signal(_) => Outcome::Undrained,
    }
}

fn watch_files(
    tls: Arc<ReloadingTls>,
    mut reloads: Vec<Reloadable>,
    every: Duration,
    metrics: Arc<Metrics>,
) -> anyhow::Result<impl Future<Output = ()>> {
    reloads.insert(
        0,
        Reloadable { name: "tls", files: tls.files(), reload: Box::new(move || Ok(tls.reload()?)) },
    );
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let now = Notify::new();
        let on_hangup = async {
            while hangup.recv().await.is_some() {
                now.notify_one();
            }
        };
        tokio::join!(on_hangup, reload::watch(reloads, every, &now, &metrics));
    })
}

async fn sweep(connections: Arc<Connections>, tls: Arc<ReloadingTls>, metrics: Arc<Metrics>, config: Config) {
    let mut warned_of = 0;
    loop {
        let expires = tls.expires();
        metrics.certificate_expires.set(i64::try_from(expires).unwrap_or(i64::MAX));
        let now = rustls::pki_types::UnixTime::now().as_secs();
        if expires < now + EXPIRES_SOON.as_secs() && warned_of != expires {
            let days = expires.saturating_sub(now) / 86_400;
            tracing::warn!(days, "the server's certificate ends soon");
            warned_of = expires;
        }
        connections.sweep(&tls, config.limits.idle_timeout);
        tokio::time::sleep(config.tls.reload_every).await;
    }
}

fn build_info() -> Vec<(&'static str, String)> {
    vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("fast_poly1305", wire::FAST_POLY1305.to_string()),
    ]
}

/// Keeps connections and handshakes within what the process may open: past that `accept` itself would fail, and a
/// crowd of idle sockets would keep everyone else out.
fn fit_open_files(limits: &mut Limits) {
    let Some(most) = std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files) else {
        return;
    };
    let each = (most.saturating_sub(OTHER_FILES) / 2).max(16);
    if limits.max_connections > each || limits.max_handshakes > each {
        limits.max_connections = limits.max_connections.min(each);
        limits.max_handshakes = limits.max_handshakes.min(each);
        tracing::warn!(
            open_files = most,
            connections = each,
            "the limit of open files allows fewer connections"
        );
    }
}

/// The soft limit in the text of `/proc/self/limits`; `None` if there is none.
fn open_files(limits: &str) -> Option<usize> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_open_files() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files(&text.replace("1024 ", "unlimited ")), None);
        assert!(std::fs::read_to_string("/proc/self/limits").unwrap().contains("Max open files"));
    }
}
