//! What an instance knows of sessions, for a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::Session;
use crate::access::oidc;

/// How long a session is taken as it was read: so that one that is closed is over everywhere within a second.
const KNOWN: Duration = Duration::from_millis(900);
/// Past so many, those that are known for too long are put out.
const MANY: usize = 4096;

/// A session as it was read.
pub(super) struct Kept {
    pub(super) session: Session,
    pub(super) revision: u64,
    pub(super) factors: Vec<&'static str>,
    noting: AtomicBool,
}

impl Kept {
    pub(super) fn new(session: Session, revision: u64) -> Self {
        let factors = oidc::factors(session.factors.iter().map(String::as_str));
        Self { session, revision, factors, noting: AtomicBool::new(false) }
    }

    /// Whether its use is not being noted yet; it is, then.
    pub(super) fn begin_note(&self) -> bool {
        !self.noting.swap(true, Ordering::Relaxed)
    }
}

/// Sessions by name. A secret is compared nowhere: a name is a hash of one.
#[derive(Default)]
pub(super) struct Cache(Mutex<Known>);

/// With when the look at the store began.
type Known = HashMap<[u8; 32], (Instant, Arc<Kept>)>;

/// When a look at the store begins: what it finds is that old.
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Cache {
    pub(super) fn get(&self, name: &[u8; 32]) -> Option<Arc<Kept>> {
        let known = self.0.lock();
        known.get(name).filter(|(read, _)| read.elapsed() < KNOWN).map(|(_, kept)| Arc::clone(kept))
    }

    pub(super) fn put(&self, name: [u8; 32], kept: Arc<Kept>, read: Instant) {
        let mut known = self.0.lock();
        if known.len() >= MANY {
            known.retain(|_, (read, _)| read.elapsed() < KNOWN);
        }
        known.insert(name, (read, kept));
    }

    pub(super) fn forget(&self, name: &[u8; 32]) {
        self.0.lock().remove(name);
    }
}
