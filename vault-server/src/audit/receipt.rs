//! Proof that a request is on record.

use std::fmt;
use std::marker::PhantomData;

use crate::access::Permit;
use crate::domain::{RequestId, Token};

/// The entries that say `A` was done to these records, for this request, are durable. Only
/// [`Log::before_open_with`](super::Log::before_open_with) makes one; there is no `Clone`, so it is good for one use.
#[must_use = "a receipt is there to be used, once"]
pub struct Receipt<A> {
    request: RequestId,
    tokens: Vec<Token>,
    action: PhantomData<fn() -> A>,
}

impl<A> Receipt<A> {
    /// Called when the entries are durable, and at no other time.
    pub(super) fn new(request: RequestId, tokens: Vec<Token>) -> Self {
        Self { request, tokens, action: PhantomData }
    }

    /// For which request.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Whether what is on record is what the permit allows: the same request, the same records in the same order.
    pub fn covers(&self, permit: &Permit<A>) -> bool {
        self.request == permit.request()
            && self.tokens.iter().eq(permit.records().iter().map(|record| &record.token))
    }
}

impl<A> fmt::Debug for Receipt<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("request", &self.request).finish_non_exhaustive()
    }
}
