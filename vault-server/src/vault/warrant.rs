//! Permit and receipt together make a warrant; nothing else in the tree does.

use crate::access::Permit;
use crate::audit::Receipt;
use crate::crypto::Warrant;

use super::{Problem, Refused};

/// What policy allowed, now that its log entry is durable.
pub(super) fn warrant<A>(permit: Permit<A>, receipt: &Receipt<A>) -> Result<Warrant<A>, Refused> {
    if !receipt.covers(&permit) {
        return Err(Problem::Internal.whole());
    }
    Ok(Warrant::assertion(receipt.request(), permit.into_records()))
}
