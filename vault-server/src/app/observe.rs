//! Around every request: who nobody knows is turned away, it is counted and timed, its time is bounded, and there are
//! not too many at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

use super::config::Limits;
use super::connections::{ActiveRequest, PeerInfo};
use super::metrics::{Metrics, RpcMetrics};
use crate::access::Credential;
use crate::grpc::PeerIdentity;

/// How long a caller should wait when there are too many requests.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// All rpcs of the health service.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Those whose answer goes on for as long as there may be news.
const WATCHES: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/vault.v1.KeyService/WatchJob"];

/// Knows who may come in at all: asked before a request takes up anything.
#[async_trait]
pub trait Doorkeeper: Send + Sync + 'static {
    /// Whose request at `path` it is, by what its connection and its headers show. Somebody nobody knows is turned away, on
    /// record: what they are told.
    async fn admit(
        &self,
        connection: &Arc<Credential>,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Arc<Credential>, Status>;

    /// Puts on record that a message at `path` was refused unread.
    async fn refused_unread(&self, credential: &Credential, path: &str, cause: &'static str);
}

/// Makes [`Observe`].
#[derive(Clone)]
pub struct ObserveLayer {
    doorkeeper: Arc<dyn Doorkeeper>,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    timeout: Duration,
    stopping: CancellationToken,
}

impl ObserveLayer {
    /// With the process's limits. Watches, of the health service or of a job, end when the server is `stopping`: they
    /// would hold up the drain for as long as it may take.
    pub fn new(
        doorkeeper: Arc<dyn Doorkeeper>,
        metrics: Arc<Metrics>,
        limits: &Limits,
        stopping: CancellationToken,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(limits.max_requests));
        Self { doorkeeper, metrics, slots, timeout: limits.request_timeout, stopping }
    }

    /// A place among the requests at work. Health checks need none: they must answer under load, too.
    fn slot(&self, path: &str) -> Result<Option<OwnedSemaphorePermit>, Status> {
        // A stream takes a place for each of its messages (in `grpc`), not for as long as it is open.
        if path.starts_with(HEALTH) || path.ends_with("Stream") {
            return Ok(None);
        }
        self.slots.clone().try_acquire_owned().map(Some).map_err(|_| {
            refusal(Code::ResourceExhausted, "too many requests at work", "OVERLOADED", Some(RETRY_AFTER))
        })
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, layer: self.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<ObservedBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let mut observation = Observation::new(&self.layer.metrics, &path);
        let peer = request.extensions().get::<Arc<PeerInfo>>().cloned();
        // What was polled to be ready is used; its clone waits its turn.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let layer = self.layer.clone();
        Box::pin(async move {
            let doorkeeper = &layer.doorkeeper;
            let mut credential = None;
            if let Some(peer) = peer {
                match doorkeeper.admit(&peer.credential, request.headers(), &path).await {
                    Ok(admitted) => credential = Some(admitted),
                    Err(status) => return Ok(observation.answer(status.into_http())),
                }
                observation.active = Some(peer.request());
            }
            // A secret, and of no use behind the door.
            request.headers_mut().remove(http::header::AUTHORIZATION);
            match layer.slot(&path) {
                Ok(slot) => observation.slot = slot,
                Err(status) => return Ok(observation.answer(status.into_http())),
            }
            let ending =
                WATCHES.contains(&path.as_str()).then(|| Box::pin(layer.stopping.clone().cancelled_owned()));
            if let Some(credential) = &credential {
                request.extensions_mut().insert(PeerIdentity(Arc::clone(credential)));
            }
            let within = layer.timeout;
            let answer = inner.call(request);
            let mut answer = match tokio::time::timeout(within, answer).await {
                Ok(answer) => answer?,
                Err(_) => {
                    refusal(Code::DeadlineExceeded, "the request took too long", "DEADLINE", None).into_http()
                }
            };
            if let Some((status, cause)) = unread(answer.headers()) {
                if let Some(credential) = &credential {
                    doorkeeper.refused_unread(credential, &path, cause).await;
                }
                answer = status.into_http();
            }
            if ending.is_some() {
                // What is left of a watch makes next to no work.
                observation.slot = None;
            }
            let mut answer = observation.answer(answer);
            answer.body_mut().ending = ending;
            Ok(answer)
        })
    }
}

/// What a message that the gRPC library could not read gets from us, and its cause for the log.
fn unread(headers: &HeaderMap) -> Option<(Status, &'static str)> {
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    match Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes()) {
        Code::OutOfRange => {
            let status =
                refusal(Code::ResourceExhausted, "the message is too large", "MESSAGE_TOO_LARGE", None);
            Some((status, "message_too_large"))
        }
        Code::Internal if text.starts_with("failed%20to%20decode") => {
            let status =
                refusal(Code::InvalidArgument, "the message does not decode", "MESSAGE_MALFORMED", None);
            Some((status, "message_malformed"))
        }
        _ => None,
    }
}

fn refusal(code: Code, message: &str, reason: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "phi-vault", std::collections::HashMap::<String, String>::new());
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, message, details)
}

/// One request, counted when it is over, however it ends.
struct Observation {
    metrics: Arc<Metrics>,
    rpc: Arc<RpcMetrics>,
    started: Instant,
    /// What the answer says; until then, and if it never does, the request was given up.
    code: Code,
    active: Option<ActiveRequest>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Observation {
    fn new(metrics: &Arc<Metrics>, path: &str) -> Self {
        metrics.requests_in_flight.inc();
        Self {
            metrics: metrics.clone(),
            rpc: metrics.rpc(path),
            started: Instant::now(),
            code: Code::Cancelled,
            active: None,
            slot: None,
        }
    }

    fn answer(mut self, answer: Response<Body>) -> Response<ObservedBody> {
        self.note(answer.headers());
        answer.map(|inner| ObservedBody { inner, observation: self, ending: None })
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.code = Code::from_bytes(status.as_bytes());
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.rpc.answered(self.code, self.started.elapsed());
        self.metrics.requests_in_flight.dec();
    }
}

/// The body of an answer; the request is over when it is.
pub struct ObservedBody {
    inner: Body,
    observation: Observation,
    /// When the answer ends, though it has no end of its own.
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.observation.note(trailers);
        }
        if polled.is_pending()
            && let Some(ending) = &mut self.ending
            && ending.as_mut().poll(cx).is_ready()
        {
            return self.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl ObservedBody {
    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ending = None;
        self.inner = Body::empty();
        self.observation.code = Code::Unavailable;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(match Status::unavailable("shutting down").add_header(&mut trailers) {
            Ok(()) => Ok(Frame::trailers(trailers)),
            Err(status) => Err(status),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    const PATH: &str = "/vault.v1.VaultService/Mask";

    struct Anybody;

    #[async_trait]
    impl Doorkeeper for Anybody {
        async fn admit(
            &self,
            connection: &Arc<Credential>,
            _: &HeaderMap,
            _: &str,
        ) -> Result<Arc<Credential>, Status> {
            Ok(Arc::clone(connection))
        }

        async fn refused_unread(&self, _: &Credential, _: &str, _: &'static str) {}
    }

    #[test]
    fn what_the_library_could_not_read_is_the_callers_fault() {
        let headers = |status: Status| status.into_http::<Body>().headers().clone();
        let large =
            unread(&headers(Status::out_of_range("Error, decoded message length too large"))).unwrap();
        assert_eq!((large.0.code(), large.1), (Code::ResourceExhausted, "message_too_large"));
        let garbage = unread(&headers(Status::internal("failed to decode Protobuf message: x"))).unwrap();
        assert_eq!((garbage.0.code(), garbage.1), (Code::InvalidArgument, "message_malformed"));
        assert!(unread(&headers(Status::internal("a fault of the vault's own"))).is_none());
    }

    fn layer(max_requests: usize) -> ObserveLayer {
        let limits = Limits { max_requests, request_timeout: Duration::from_millis(50), ..Limits::default() };
        let metrics = Arc::new(Metrics::new(Vec::new()));
        ObserveLayer::new(Arc::new(Anybody), metrics, &limits, CancellationToken::new())
    }

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    fn count(layer: &ObserveLayer, code: &str) -> bool {
        let line = format!("requests_total{{rpc=\"vault.v1.VaultService/Mask\",code=\"{code}\"}} 1\n");
        layer.metrics.encode().contains(&line)
    }

    #[tokio::test]
    async fn status_in_the_trailers_is_counted_once_the_body_is_over() {
        let layer = layer(1);
        let service = layer.layer(service_fn(|_: Request<Body>| async {
            let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, "5".parse().unwrap())]);
            let body = http_body_util::Empty::<Bytes>::new().with_trailers(async { Some(Ok(trailers)) });
            Ok::<_, Infallible>(Response::new(Body::new(body)))
        }));
        let answer = service.oneshot(request(PATH)).await.unwrap();
        assert!(!count(&layer, "NOT_FOUND"));
        answer.into_body().collect().await.unwrap();
        assert!(count(&layer, "NOT_FOUND"));
    }

    #[tokio::test]
    async fn one_request_too_many_is_refused_but_health_is_answered() {
        let layer = layer(1);
        let service = layer.layer(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        // The first one's body is not over yet.
        let first = service.clone().oneshot(request(PATH)).await.unwrap();
        let second = service.clone().oneshot(request(PATH)).await.unwrap();
        assert_eq!(second.headers()[Status::GRPC_STATUS], "8");
        let health = service.clone().oneshot(request("/grpc.health.v1.Health/Check")).await.unwrap();
        assert!(!health.headers().contains_key(Status::GRPC_STATUS));
        drop(first);
        let third = service.oneshot(request(PATH)).await.unwrap();
        assert!(!third.headers().contains_key(Status::GRPC_STATUS));
    }

    #[tokio::test]
    async fn request_that_takes_too_long_is_answered_with_deadline_exceeded() {
        let layer = layer(1);
        let service = layer.layer(service_fn(|_: Request<Body>| {
            futures::future::pending::<Result<Response<Body>, Infallible>>()
        }));
        let answer = service.oneshot(request(PATH)).await.unwrap();
        assert_eq!(answer.headers()[Status::GRPC_STATUS], "4");
        drop(answer);
        assert!(count(&layer, "DEADLINE_EXCEEDED"));
    }

    #[tokio::test]
    async fn watches_end_when_the_server_stops_and_other_streams_do_not() {
        let layer = layer(1);
        let service = layer.layer(service_fn(|_: Request<Body>| async {
            let never =
                http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>());
            Ok::<_, Infallible>(Response::new(Body::new(never)))
        }));
        let mut watches = Vec::new();
        for path in WATCHES {
            let watch = service.clone().oneshot(request(path)).await.unwrap().into_body();
            watches.push(Box::pin(watch.collect()));
        }
        // The watches left it its place.
        let other = service.oneshot(request(PATH)).await.unwrap().into_body();
        let mut other = Box::pin(other.collect());
        assert!(futures::poll!(&mut other).is_pending());
        for watch in &mut watches {
            assert!(futures::poll!(watch).is_pending());
        }
        layer.stopping.cancel();
        for watch in watches {
            assert_eq!(watch.await.unwrap().trailers().unwrap()[Status::GRPC_STATUS], "14");
        }
        assert!(futures::poll!(&mut other).is_pending());
    }

    #[tokio::test]
    async fn request_given_up_is_counted_as_cancelled() {
        let layer = layer(1);
        let service = layer.layer(service_fn(|_: Request<Body>| {
            futures::future::pending::<Result<Response<Body>, Infallible>>()
        }));
        let mut answer = Box::pin(service.oneshot(request(PATH)));
        assert!(futures::poll!(&mut answer).is_pending());
        drop(answer);
        assert!(count(&layer, "CANCELLED"));
    }
}
