//! The proof without which nothing opens.

use std::marker::PhantomData;

use crate::domain::{Record, RequestId};

/// A warrant for this hands out values.
pub enum Detokenize {}

/// A warrant for this hands out masked values only.
pub enum Mask {}

/// That these records may be opened for `A`: access permitted it and the log has it, durably. No `Clone`.
pub struct Warrant<A> {
    request: RequestId,
    records: Vec<Record>,
    action: PhantomData<fn() -> A>,
}

impl<A> Warrant<A> {
    /// Asserts that permit and receipt were there. Only the use cases' `warrant` module may call this; a test keeps
    /// it so.
    pub(crate) fn assertion(request: RequestId, records: Vec<Record>) -> Self {
        Self { request, records, action: PhantomData }
    }

    /// The request that it was given for.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The records it is for, in the order asked.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}
