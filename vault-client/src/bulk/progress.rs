//! How far a run is, beside its output: `<out>.resume`, JSON, without anything of the data.
//!
//! It is replaced by a rename after the outputs were synced, so what it says of them is on the disk. What they have
//! beyond it is cut off when the run goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::chunk::Counts;
use super::error::BulkError;
use super::files;
use super::reader::Position;

const VERSION: u32 = 1;

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// Random name of the run, for idempotency keys.
    pub(super) id: String,
    /// [`super::Plan::fingerprint`].
    pub(super) plan: String,
    pub(super) input: InputStamp,
    /// The end of the last finished chunk; `None`: none was finished.
    pub(super) position: Option<Position>,
    pub(super) next_chunk: u64,
    /// Lengths of the outputs then.
    pub(super) out: u64,
    pub(super) rejects: u64,
    pub(super) counts: Counts,
}

/// Tells an input that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputStamp {
    bytes: u64,
    modified_seconds: u64,
    modified_nanos: u32,
}

impl InputStamp {
    pub(super) fn of(input: &File) -> Result<Self, BulkError> {
        let metadata = input.metadata().map_err(BulkError::Read)?;
        let modified = metadata.modified().map_err(BulkError::Read)?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            bytes: metadata.len(),
            modified_seconds: since.as_secs(),
            modified_nanos: since.subsec_nanos(),
        })
    }
}

impl State {
    pub(super) fn new(plan: String, input: InputStamp) -> Result<Self, BulkError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| BulkError::Random)?;
        Ok(Self {
            version: VERSION,
            id: hex::encode(id),
            plan,
            input,
            position: None,
            next_chunk: 0,
            out: 0,
            rejects: 0,
            counts: Counts::default(),
        })
    }

    /// The state of an interrupted run; `None` if there is none.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, BulkError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(BulkError::File { what: "read", path: path.to_owned(), source }),
        };
        let state: Option<Self> = serde_json::from_slice(&bytes).ok();
        match state.filter(|state| state.version == VERSION) {
            Some(state) => Ok(Some(state)),
            None => Err(BulkError::State { state: path.to_owned() }),
        }
    }

    /// Replaces the state on the disk, durably and at once.
    pub(super) fn save(&self, path: &Path) -> Result<(), BulkError> {
        let new = new_beside(path);
        let written = || -> std::io::Result<()> {
            let mut file = files::private().create(true).truncate(true).open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            sync_directory(path)
        };
        written().map_err(|source| BulkError::File { what: "write", path: path.to_owned(), source })
    }

    /// Removes it: the run is complete.
    pub(super) fn remove(path: &Path) -> Result<(), BulkError> {
        fs::remove_file(path).and_then(|()| sync_directory(path)).map_err(|source| BulkError::File {
            what: "remove",
            path: path.to_owned(),
            source,
        })
    }
}

/// Where a state is written before it takes its place.
pub(super) fn new_beside(state: &Path) -> PathBuf {
    let mut new = state.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Makes a rename, a new file or a removal last.
pub(super) fn sync_directory(of: &Path) -> std::io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
