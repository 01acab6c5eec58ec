//! The power-cut rig: is what the store acknowledged still there after the power was cut?
//!
//! A file with an ext4 in it is mounted from a loop device. A child process commits changes to a store in it, from
//! many tasks, and tells each acknowledged one through a pipe. At a random instant the child is stopped, the
//! acknowledgements it had sent are noted, and the file is copied. The copy holds what ext4 had given to its disk
//! by then and nothing of the page cache above it: what a disk without a volatile cache would hold after a power
//! cut. The copy is mounted (ext4 replays its journal), the store in it is opened, and
//! everything noted must be there. Then the child goes on. After some cuts a new child goes on with what the last
//! one left, so that stores which have been through a cut are written to and cut again.
//!
//! Not shown: loss in a drive's own volatile cache (every submitted block counts as written here), and torn
//! sectors.

mod audit;
mod bench;
mod disk;
mod rig;
mod workload;

use std::path::Path;
use std::sync::Arc;

use vault_server::store::embedded::{EngineKind, StoreOptions, open};
use vault_server::store::{Store, StoreError};

pub use self::bench::{BenchOptions, bench};
pub use self::rig::{Outcome, RigOptions, cut_power};
pub use self::workload::{Entries, write_until_killed};

/// What is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// fjall as the vault uses it.
    Fjall,
    /// sled as the vault uses it.
    Sled,
    /// sled with nothing but its own flush: a negative control.
    SledRawFlush,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fjall, Self::Sled, Self::SledRawFlush];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::SledRawFlush => "sled-raw-flush",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.as_str() == name)
    }

    fn open(self, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        let kind = if self == Self::Fjall { EngineKind::Fjall } else { EngineKind::Sled };
        let options = StoreOptions {
            cache_bytes: 32 << 20,
            sled_explicit_sync: self != Self::SledRawFlush,
            ..StoreOptions::default()
        };
        open(kind, dir, options)
    }
}
