//! A channel that shows a session's token with each call.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::HeaderValue;
use http::header::AUTHORIZATION;
use tonic::body::Body;
use tonic::transport::channel::ResponseFuture;
use tower::Service;

use super::identity::Identity;

/// A channel to one endpoint, as one identity.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(super) inner: tonic::transport::Channel,
    pub(super) identity: Arc<Identity>,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // A call that opens a session brings a token of its own.
        if !request.headers().contains_key(AUTHORIZATION)
            && let Some(value) = self.identity.session().as_deref().and_then(|token| header(token.expose()))
        {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.inner.call(request)
    }
}

/// `Bearer` and a token; marked so that it is not printed, nor kept in the compressor's table.
pub(crate) fn header(token: &str) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
