//! What an operator chooses.

use serde::{Deserialize, Serialize};

/// Which engine keeps the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// fjall: an LSM tree with a journal. The default.
    Fjall,
    /// sled: a B+ tree over a log. Slower; see docs/decisions/0001-default-engine.md.
    Sled,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sled];

    /// Its name, on disk and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        }
    }
}

/// How an embedded store works.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Memory for the engine's cache of blocks, in bytes.
    pub cache_bytes: u64,
    /// At most this many changes share a sync.
    pub max_batch_changes: usize,
    /// A batch with this many bytes takes no more changes.
    pub max_batch_bytes: usize,
    /// Whether sled's flush is followed by a sync of its file. Without it acknowledged changes are lost in a
    /// power cut; the power-cut rig shows it.
    #[doc(hidden)]
    pub sled_explicit_sync: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            max_batch_changes: 4096,
            max_batch_bytes: 2 << 20,
            sled_explicit_sync: true,
        }
    }
}
