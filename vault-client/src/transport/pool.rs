//! Several endpoints: round robin among the healthy ones; one that failed is left alone for a while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls_pki_types::ServerName;
use tonic::transport::Endpoint;

use super::bearer::Channel;
use super::connector::{self, Faults, Target};
use super::fault;
use super::identity::Identity;
use crate::error::Error;
use crate::retry;

/// How often the identity's files are looked at while connections are up.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long an endpoint is left alone after its first failure; doubles with each.
const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// However long it asked for: a request is what finds out that it is back.
const LONGEST_ASKED: Duration = Duration::from_mins(1);
/// Large enough for a batch to flow without waiting for window updates.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// All endpoints of one vault.
pub(crate) struct Pool {
    lanes: Vec<Lane>,
    next: AtomicUsize,
    identity: Arc<Identity>,
    made: Instant,
    looked_ms: AtomicU64,
}

/// Which endpoints a call has tried.
#[derive(Default)]
pub(crate) struct Tried(Vec<usize>);

/// One endpoint.
pub(crate) struct Lane {
    endpoint: Endpoint,
    target: Arc<Target>,
    channel: ArcSwap<Channel>,
    rest: Mutex<Rest>,
}

#[derive(Clone, Copy)]
struct Rest {
    until: Instant,
    failures: u32,
}

impl Rest {
    /// After one more failure: twice as long.
    fn again(self, now: Instant, at_least: Duration) -> Self {
        let span = FIRST_REST.saturating_mul(1 << self.failures.min(16)).min(LONGEST_REST);
        let span = span.max(at_least.min(LONGEST_ASKED));
        Self { until: now + span, failures: self.failures.saturating_add(1) }
    }
}

impl Pool {
    /// Connects to none yet. Needs a Tokio runtime.
    pub(crate) fn new(uris: &[String], server_name: Option<&str>, identity: Identity) -> Result<Self, Error> {
        if uris.is_empty() {
            return Err(Error::configuration("no endpoint is configured"));
        }
        let identity = Arc::new(identity);
        let lanes =
            uris.iter().map(|uri| Lane::new(uri, server_name, &identity)).collect::<Result<_, _>>()?;
        // Clients that start together shall not all begin with the same endpoint.
        let next = AtomicUsize::new(retry::dice() as usize);
        Ok(Self { lanes, next, identity, made: Instant::now(), looked_ms: AtomicU64::new(0) })
    }

    /// The endpoint for the next attempt: one that this call has not tried; of those the next one that is not resting,
    /// else the one that rests least longer.
    pub(crate) fn pick(&self, tried: &mut Tried) -> &Lane {
        self.follow_identity();
        let now = Instant::now();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let at = (0..self.lanes.len())
            .map(|step| first.wrapping_add(step) % self.lanes.len())
            .min_by_key(|at| (tried.0.contains(at), self.lanes[*at].rests_for(now)))
            .expect("a pool has at least one endpoint");
        tried.0.push(at);
        let lane = &self.lanes[at];
        lane.probe(now);
        lane
    }

    /// Whether there is an endpoint that a call has not tried yet, though it may be resting: it may be back by now.
    pub(crate) fn has_untried(&self, tried: &Tried) -> bool {
        (0..self.lanes.len()).any(|at| !tried.0.contains(&at))
    }

    /// Whether there is an endpoint besides this one that is not resting.
    pub(crate) fn has_other(&self, than: &Lane) -> bool {
        let now = Instant::now();
        self.lanes.iter().any(|lane| !std::ptr::eq(lane, than) && lane.rests_for(now).is_zero())
    }

    /// A rotated certificate shall be in use before the old one expires, so connections are made anew when the
    /// files changed. Calls under way end on the old connection.
    fn follow_identity(&self) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked = self.looked_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked) >= LOOK_EVERY.as_millis() as u64;
        let mine =
            || self.looked_ms.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if due && mine() && self.identity.refresh() {
            self.reconnect();
        }
    }

    /// Uses new connections from now on.
    pub(crate) fn reconnect(&self) {
        for lane in &self.lanes {
            lane.channel.store(Arc::new(lane.open()));
        }
    }
}

fn open(endpoint: &Endpoint, target: &Arc<Target>) -> Channel {
    let inner = endpoint.connect_with_connector_lazy(connector::service(Arc::clone(target)));
    Channel { inner, identity: Arc::clone(&target.identity) }
}

impl Lane {
    fn new(text: &str, server_name: Option<&str>, identity: &Arc<Identity>) -> Result<Self, Error> {
        let bad = |what: &str| Error::configuration(&format!("endpoint `{text}`: {what}"));
        let uri: http::Uri = text.parse().map_err(|_| bad("not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("must begin with https://"));
        }
        let host = uri.host().ok_or_else(|| bad("names no host"))?.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(server_name.unwrap_or(&host).to_owned())
            .map_err(|_| bad("the server's name is not a DNS name or an address"))?;
        let target = Arc::new(Target {
            port: uri.port_u16().unwrap_or(443),
            host,
            server_name: name,
            identity: Arc::clone(identity),
            faults: Faults::default(),
        });
        let endpoint = Endpoint::from(uri)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .user_agent(concat!("vault-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| bad("not usable"))?;
        let channel = open(&endpoint, &target);
        let rest = Mutex::new(Rest { until: Instant::now(), failures: 0 });
        Ok(Self { endpoint, target, channel: ArcSwap::from_pointee(channel), rest })
    }

    fn open(&self) -> Channel {
        open(&self.endpoint, &self.target)
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::clone(&self.channel.load())
    }

    /// What a failed attempt on this endpoint means.
    pub(crate) fn explain(&self, status: &tonic::Status) -> Error {
        fault::explain(status, self.target.faults.newest())
    }

    /// Notes that an attempt succeeded.
    pub(crate) fn succeeded(&self) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.failures > 0 {
            *rest = Rest { until: Instant::now(), failures: 0 };
        }
    }

    /// Notes that the endpoint is not available: it is left alone for a while, and no shorter than it asked for.
    /// What fails while it is left alone was under way before, and is the same failure.
    pub(crate) fn failed(&self, asked: Option<Duration>) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if rest.until <= now {
            *rest = rest.again(now, asked.unwrap_or_default());
        }
    }

    /// One that has failed is tried by one call. It rests on for the others until that one succeeds, which may take
    /// long to fail.
    fn probe(&self, now: Instant) {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if rest.failures > 0 && rest.until <= now {
            *rest = rest.again(now, Duration::ZERO);
        }
    }

    fn rests_for(&self, now: Instant) -> Duration {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_endpoint_is_left_alone_for_ever() {
        let now = Instant::now();
        let rest = |failures, asked| Rest { until: now, failures }.again(now, asked).until - now;
        assert_eq!(rest(0, Duration::ZERO), FIRST_REST);
        assert_eq!(rest(0, Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(rest(u32::MAX, Duration::ZERO), LONGEST_REST);
        assert_eq!(rest(u32::MAX, Duration::from_hours(24)), LONGEST_ASKED);
    }
}
