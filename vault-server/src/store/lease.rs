//! Leases: who works on what, one worker at a time.
//!
//! A lease is a row that changes by compare-and-set. Who takes it gets a *fence*, a number that grows with every
//! holder, and puts it into every change made under the lease ([`Write::Fence`]): a worker that was paused, and
//! whose lease somebody else has taken meanwhile, writes nothing. Safety is the fence's alone.
//!
//! Time only says when a lease may be taken from a holder that fell silent: once it was seen as it is for a whole
//! lifetime, by the time that passes for the one who looks. No two clocks are compared. Instances whose clocks differ by
//! more than a lifetime would each take the other's lease for one that has expired.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Change, Store, StoreError, Write};
use crate::domain::{Clock, InstanceId, LeaseName, Timestamp};

/// A lease at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is about.
    pub name: LeaseName,
    /// Who took it last.
    pub holder: InstanceId,
    /// Grows by one with every taking.
    pub fence: u64,
    /// Until when its holder means to keep it, by the holder's clock; 0 once it was given back.
    pub expires: Timestamp,
    /// Counts changes of this row, from 0; compare-and-set goes by it.
    pub revision: u64,
}

/// A lease that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held(Lease);

impl Held {
    /// The condition that goes with every write under the lease.
    pub fn fence(&self) -> Write {
        Write::Fence { lease: self.0.name.clone(), fence: self.0.fence }
    }

    /// The number of that condition.
    pub fn number(&self) -> u64 {
        self.0.fence
    }
}

/// Why a lease was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else has taken it.
    #[error("the lease {0} was taken by another instance")]
    Lost(LeaseName),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes leases for one instance.
pub struct Leases {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    instance: InstanceId,
    /// Leases that others hold, as they were seen last.
    seen: Mutex<HashMap<LeaseName, Sight>>,
}

/// A lease in another's hands. While its holder lives it does not stay as it is.
struct Sight {
    fence: u64,
    revision: u64,
    since: Instant,
}

impl Leases {
    /// For an instance.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, instance: InstanceId) -> Self {
        Self { store, clock, instance, seen: Mutex::default() }
    }

    /// Takes a lease that is free, or that was seen to be left alone for `lifetime`; `None` if another holds it, or was
    /// faster. So one that a dead instance held is had by who asks again and again, a lifetime after it first asked.
    pub async fn take(&self, name: &LeaseName, lifetime: Duration) -> Result<Option<Held>, StoreError> {
        let there = self.store.lease(name).await?;
        if there.as_ref().is_some_and(|there| !self.is_free(there, lifetime)) {
            return Ok(None);
        }
        let (fence, revision) = there.map_or((1, 0), |there| (there.fence + 1, there.revision + 1));
        let expires = after(self.clock.now(), lifetime);
        let lease = Lease { name: name.clone(), holder: self.instance, fence, expires, revision };
        Ok(self.put(lease.clone()).await?.then_some(Held(lease)))
    }

    /// Whether it was given back, is this instance's own, or has not changed for a lifetime under its eyes.
    fn is_free(&self, there: &Lease, lifetime: Duration) -> bool {
        let mut seen = self.seen.lock();
        if there.expires == Timestamp(0) || there.holder == self.instance {
            seen.remove(&there.name);
            return true;
        }
        let Lease { fence, revision, .. } = *there;
        let now = Sight { fence, revision, since: Instant::now() };
        let sight = seen.entry(there.name.clone()).or_insert(now);
        if (sight.fence, sight.revision) != (fence, revision) {
            *sight = Sight { fence, revision, since: Instant::now() };
        }
        sight.since.elapsed() >= lifetime
    }

    /// Holds it for another lifetime, under the same fence.
    pub async fn renew(&self, held: &mut Held, lifetime: Duration) -> Result<(), LeaseError> {
        self.change(held, after(self.clock.now(), lifetime)).await
    }

    /// Gives it back: another may take it at once.
    pub async fn release(&self, mut held: Held) -> Result<(), LeaseError> {
        self.change(&mut held, Timestamp(0)).await
    }

    async fn change(&self, held: &mut Held, expires: Timestamp) -> Result<(), LeaseError> {
        let lease = Lease { expires, revision: held.0.revision + 1, ..held.0.clone() };
        if !self.put(lease.clone()).await? {
            return Err(LeaseError::Lost(lease.name));
        }
        held.0 = lease;
        Ok(())
    }

    async fn put(&self, lease: Lease) -> Result<bool, StoreError> {
        let change = Change { writes: vec![Write::PutLease(lease)], entries: Vec::new() };
        match self.store.commit(change).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn after(now: Timestamp, lifetime: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX)))
}
