//! Proof that policy allowed an action.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::access::Action;
use crate::crypto;
use crate::domain::{Record, RequestId};

/// A way for a value out of the vault. Sealed: these are all there are.
pub trait OpenAction: sealed::Sealed {
    /// What policy is asked for.
    const ACTION: Action;
}

impl OpenAction for crypto::Detokenize {
    const ACTION: Action = Action::Detokenize;
}

impl OpenAction for crypto::Mask {
    const ACTION: Action = Action::Mask;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::crypto::Detokenize {}
    impl Sealed for crate::crypto::Mask {}
}

/// Policy allowed `A` on these records, for this request. Only [`Access::permit`](crate::access::Access::permit)
/// makes one; there is no `Clone`, so it is good for one use.
#[must_use = "a permit is there to be used, once"]
pub struct Permit<A> {
    request: RequestId,
    records: Vec<Record>,
    policies: BTreeSet<String>,
    action: PhantomData<fn() -> A>,
}

impl<A: OpenAction> Permit<A> {
    /// What policy allowed.
    pub(super) fn new(request: RequestId, records: Vec<Record>, policies: BTreeSet<String>) -> Self {
        Self { request, records, policies, action: PhantomData }
    }
}

impl<A> Permit<A> {
    /// For which request.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The allowed records, in the order of the request.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Ids of the policies that allowed them.
    pub fn policies(&self) -> &BTreeSet<String> {
        &self.policies
    }

    /// Gives the permit up for its records.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }
}
