//! The steps of a job, after each of which a test lets the process die.
//!
//! Only a build for tests does: it has debug assertions, which no release build has, and the feature `dying`, which
//! `vault-tests` alone asks for. In any other build [`reached`] is empty.

use crate::domain::JobKind;

/// The variable that names where the process dies, and at which time it comes there: `reencrypt/committed/2`.
pub const DIE_AT: &str = "PHI_VAULT_DIE_AT";

/// Whether this build has it.
pub const CAN_DIE: bool = cfg!(all(feature = "dying", debug_assertions));

/// What a job has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The lease is taken.
    Leased,
    /// The job's row was read under the lease.
    Read,
    /// The entry on its beginning is durable.
    Begun,
    /// There is a mandate.
    Mandated,
    /// What is to be changed was read: records, or a key.
    Loaded,
    /// It was made anew, and not written.
    Made,
    /// It is written, and not counted.
    Committed,
    /// It is counted, and the figures are about to be written down.
    Counted,
    /// The figures are written down.
    Reported,
    /// All is done, as far as the worker knows; the store is about to be asked.
    Unproven,
    /// The store has nothing left to do.
    Proven,
    /// The entry on its end is durable.
    Ended,
    /// The lease was given back.
    Released,
}

impl Step {
    /// All that a job of a kind comes to.
    pub const fn all_of(kind: JobKind) -> &'static [Self] {
        use Step::{
            Begun, Committed, Counted, Ended, Leased, Loaded, Made, Mandated, Proven, Read, Released,
            Reported, Unproven,
        };
        match kind {
            JobKind::Reencrypt | JobKind::Reindex => &[
                Leased, Read, Begun, Mandated, Loaded, Made, Committed, Counted, Reported, Unproven, Proven,
                Ended, Released,
            ],
            // It asks the KMS, not the store, whether all is done, key by key.
            JobKind::Rewrap => &[
                Leased, Read, Begun, Mandated, Loaded, Made, Committed, Counted, Reported, Proven, Ended,
                Released,
            ],
            // Its figures are in the commit itself.
            JobKind::Destroy => {
                &[Leased, Read, Begun, Mandated, Loaded, Unproven, Proven, Made, Committed, Ended, Released]
            }
            JobKind::Shred => {
                &[Leased, Read, Begun, Mandated, Loaded, Made, Committed, Proven, Ended, Released]
            }
        }
    }

    /// Its name in [`DIE_AT`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Read => "read",
            Self::Begun => "begun",
            Self::Mandated => "mandated",
            Self::Loaded => "loaded",
            Self::Made => "made",
            Self::Committed => "committed",
            Self::Counted => "counted",
            Self::Reported => "reported",
            Self::Unproven => "unproven",
            Self::Proven => "proven",
            Self::Ended => "ended",
            Self::Released => "released",
        }
    }
}

/// A job of the kind has come to the step.
#[cfg(not(all(feature = "dying", debug_assertions)))]
pub(super) const fn reached(_: JobKind, _: Step) {}

#[cfg(all(feature = "dying", debug_assertions))]
pub(super) use dying::reached;

#[cfg(all(feature = "dying", debug_assertions))]
mod dying {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{DIE_AT, Step};
    use crate::domain::JobKind;

    struct Place {
        kind_and_step: String,
        /// So often it is still passed by, and once more.
        left: AtomicU32,
    }

    /// A job of the kind has come to the step: the process dies if that is where it shall.
    pub(in super::super) fn reached(kind: JobKind, step: Step) {
        static PLACE: OnceLock<Option<Place>> = OnceLock::new();
        let Some(place) = PLACE.get_or_init(|| Some(parse(&env::var(DIE_AT).ok()?))) else { return };
        let is_it = place.kind_and_step == format!("{}/{}", kind.as_str(), step.as_str());
        if is_it && place.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // As a power cut for the process: nothing is flushed, no destructor runs.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    fn parse(text: &str) -> Place {
        let (kind_and_step, times) = text.rsplit_once('/').expect("kind/step/times");
        let times = times.parse().expect("kind/step/times");
        Place { kind_and_step: kind_and_step.to_owned(), left: AtomicU32::new(times) }
    }
}
