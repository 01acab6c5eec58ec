//! Verifies an exported log offline, with nothing but the public key.
//!
//! Everything is computed anew from the entries: their hashes, every tile byte for byte, the root, which must be
//! the one that was signed. Each entry must be an `AuditEntry` of version 1 in its canonical encoding, and the
//! parts of a request must follow each other. A file that does not belong there is refused like one that lacks, so
//! that no byte of an export may change. With an older checkpoint, kept elsewhere, it also shows that the older
//! log is the beginning of this one: without that, nothing shows that the newest entries were not cut off.
//!
//! Reads entry by entry: memory does not grow with the log.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use prost::Message as _;
use vault_proto::v1::AuditEntry;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::history::Verifiers;
use crate::tile::{self, Edge, Kind, Tile, WIDTH};
use crate::tree::Hash;

/// No checkpoint with all its witnesses is longer.
const MAX_CHECKPOINT: u64 = 64 * 1024;

/// What else to check, or to let pass.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A signed checkpoint of the same log from before.
    pub old_checkpoint: Option<String>,
    /// Accept signatures of others (witnesses) on the checkpoint, which are not checked.
    pub other_signatures: bool,
    /// Let a directory [`LOGS`] be there, with the vault's other logs, and do not look into it.
    pub logs_beside: bool,
    /// Let a file [`KEYS`] be there, and do not look into it.
    pub keys_beside: bool,
}

/// The file beside log 0's files that may hold the history of the keys that signed the vault's logs
/// ([`History`](crate::history::History)).
pub const KEYS: &str = "keys";

/// The directory beside a log's files that may hold the other logs of its vault.
pub const LOGS: &str = "logs";

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The log's state, as signed, and as computed from the entries.
    pub checkpoint: Checkpoint,
    /// The older checkpoint whose entries are the beginning of this log, if one was given.
    pub old_checkpoint: Option<Checkpoint>,
    /// How many files the export has.
    pub files: u64,
}

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// Which, within the export.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The file `checkpoint` is not a checkpoint signed by the key.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The older checkpoint is not a checkpoint signed by the key.
    #[error("older {0}")]
    OldCheckpoint(CheckpointError),
    /// A file that the log must have is not there.
    #[error("{file} is missing")]
    Missing {
        /// Which.
        file: String,
    },
    /// A file is there that the log does not have, or that is not a plain file.
    #[error("{file} does not belong to the log")]
    Unexpected {
        /// Which.
        file: String,
    },
    /// A bundle ends within an entry or before it.
    #[error("entry {entry}: {file} is cut off")]
    Cut {
        /// The bundle.
        file: String,
        /// Sequence number of the entry that lacks.
        entry: u64,
    },
    /// A bundle has bytes after its last entry.
    #[error("{file} has more than its entries, after entry {entry}")]
    Trailing {
        /// The bundle.
        file: String,
        /// Sequence number of its last entry.
        entry: u64,
    },
    /// An entry is not what an entry must be.
    #[error("entry {entry}: {rule}")]
    Entry {
        /// Its sequence number.
        entry: u64,
        /// What does not hold.
        rule: &'static str,
    },
    /// A tile is not made of the entries.
    #[error("entry {entry}: {file} is not the tile of the entries")]
    Tile {
        /// The tile.
        file: String,
        /// Sequence number of the first entry whose hash, or whose subtree's hash, differs.
        entry: u64,
    },
    /// The entries and the tiles fit each other, but not the signed root.
    #[error("the {size} entries have the root {computed}, but {signed} was signed")]
    Root {
        /// How many entries.
        size: u64,
        /// Root of the entries.
        computed: Hash,
        /// Root of the checkpoint.
        signed: Hash,
    },
    /// The log is shorter than it was.
    #[error("entry {size} is missing: the log had {old} entries")]
    Shorter {
        /// How many entries there are.
        size: u64,
        /// How many there were.
        old: u64,
    },
    /// The log does not begin with what it was before.
    #[error("among the first {old} entries one was changed since the older checkpoint")]
    Rewritten {
        /// Size of the older log.
        old: u64,
    },
}

/// Verifies the export in `dir`.
pub fn verify_dir(dir: &Path, by: impl Into<Verifiers>, options: &Options) -> Result<Report, VerifyError> {
    let by = by.into();
    // Whoever kept it knows since when: a key that was marked later counts for it.
    let before = by.as_before_the_mark();
    let old_checkpoint = options.old_checkpoint.as_ref().map(|old| Checkpoint::open(old, &before));
    let old_checkpoint = old_checkpoint.transpose().map_err(VerifyError::OldCheckpoint)?;
    let signed = read_checkpoint(dir)?;
    let open = if options.other_signatures { Checkpoint::open } else { Checkpoint::open_strict };
    let opened = match open(&signed, &by) {
        // Of a log that nobody has written since.
        Err(CheckpointError::Compromised) => match open(&signed, &before) {
            Ok(same) if old_checkpoint.as_ref() == Some(&same) => Ok(same),
            _ => Err(CheckpointError::Compromised),
        },
        opened => opened,
    };
    let checkpoint = opened.map_err(VerifyError::Checkpoint)?;
    if let Some(old) = &old_checkpoint
        && old.size > checkpoint.size
    {
        return Err(VerifyError::Shorter { size: checkpoint.size, old: old.size });
    }

    let mut walk = Walk { dir, edge: Edge::new(), parts: Parts::default(), old: old_checkpoint.as_ref() };
    walk.compare_old()?;
    for index in 0..checkpoint.size.div_ceil(u64::from(WIDTH)) {
        let width = (checkpoint.size - index * u64::from(WIDTH)).min(u64::from(WIDTH)) as u16;
        walk.bundle(Tile { kind: Kind::Entries, index, width })?;
    }
    walk.finish(&checkpoint)?;
    let files = count_files(dir, "", checkpoint.size, options)?;
    Ok(Report { checkpoint, old_checkpoint, files })
}

/// One way through the entries.
struct Walk<'a> {
    dir: &'a Path,
    edge: Edge,
    parts: Parts,
    old: Option<&'a Checkpoint>,
}

impl Walk<'_> {
    fn bundle(&mut self, bundle: Tile) -> Result<(), VerifyError> {
        let file = bundle.to_string();
        let mut reader = BufReader::with_capacity(64 * 1024, open(self.dir, &file)?);
        let mut leaf = Vec::new();
        for _ in 0..bundle.width {
            let entry = self.edge.size();
            let at = |error: io::Error| match error.kind() {
                io::ErrorKind::UnexpectedEof => VerifyError::Cut { file: file.clone(), entry },
                _ => VerifyError::Io { file: file.clone(), source: error },
            };
            let mut length = [0; 2];
            reader.read_exact(&mut length).map_err(at)?;
            leaf.resize(usize::from(u16::from_be_bytes(length)), 0);
            reader.read_exact(&mut leaf).map_err(at)?;
            self.entry(&leaf)?;
        }
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(VerifyError::Trailing { file, entry: self.edge.size() - 1 }),
            Err(source) => Err(VerifyError::Io { file, source }),
        }
    }

    fn entry(&mut self, leaf: &[u8]) -> Result<(), VerifyError> {
        let entry = self.edge.size();
        self.parts.check(leaf).map_err(|rule| VerifyError::Entry { entry, rule })?;
        let mut whole = Vec::new();
        self.edge.push(Hash::leaf(leaf), |tile, hashes| whole.push((tile, tile::tile_bytes(hashes))));
        for (tile, bytes) in whole {
            compare_tile(self.dir, tile, &bytes)?;
        }
        self.compare_old()
    }

    fn compare_old(&self) -> Result<(), VerifyError> {
        match self.old {
            Some(old) if old.size == self.edge.size() && old.root != self.edge.root() => {
                Err(VerifyError::Rewritten { old: old.size })
            }
            _ => Ok(()),
        }
    }

    fn finish(&self, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
        for (tile, hashes) in self.edge.partial() {
            compare_tile(self.dir, tile, &tile::tile_bytes(hashes))?;
        }
        let computed = self.edge.root();
        if computed != checkpoint.root {
            return Err(VerifyError::Root { size: checkpoint.size, computed, signed: checkpoint.root });
        }
        let rule = "the log ends before the last part of a request";
        let entry = checkpoint.size;
        if self.parts.open.is_none() { Ok(()) } else { Err(VerifyError::Entry { entry, rule }) }
    }
}

/// Follows the parts of requests.
#[derive(Default)]
struct Parts {
    /// Request id, next part, number of parts, of a request that has begun.
    open: Option<(Vec<u8>, u32, u32)>,
}

impl Parts {
    /// Checks the next entry by itself and in its place.
    fn check(&mut self, leaf: &[u8]) -> Result<(), &'static str> {
        let entry = AuditEntry::decode(leaf).map_err(|_| "does not decode")?;
        if !is_canonical(&entry, leaf) {
            return Err("is not in its canonical encoding");
        }
        if entry.version != 1 {
            return Err("is not of version 1");
        }
        if entry.request_id.len() != 16 {
            return Err("has no request id");
        }
        if entry.part >= entry.parts {
            return Err("is a part beyond the number of parts");
        }
        let fits = match self.open.take() {
            None => entry.part == 0,
            Some((request, part, parts)) => {
                request == entry.request_id && (part, parts) == (entry.part, entry.parts)
            }
        };
        if !fits {
            return Err("is not the next part of its request");
        }
        if entry.part + 1 < entry.parts {
            self.open = Some((entry.request_id.to_vec(), entry.part + 1, entry.parts));
        }
        Ok(())
    }
}

/// Whether the bytes are what the entry encodes to: fields by number, details by name.
fn is_canonical(entry: &AuditEntry, leaf: &[u8]) -> bool {
    entry.encode_to_vec() == leaf
}

fn read_checkpoint(dir: &Path) -> Result<String, VerifyError> {
    let file = "checkpoint";
    let mut text = String::new();
    let read = open(dir, file)?.take(MAX_CHECKPOINT).read_to_string(&mut text);
    read.map_err(|source| VerifyError::Io { file: file.to_owned(), source })?;
    Ok(text)
}

fn open(dir: &Path, file: &str) -> Result<File, VerifyError> {
    let path = dir.join(file);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            VerifyError::Missing { file: file.to_owned() }
        }
        _ => VerifyError::Io { file: file.to_owned(), source },
    };
    if !fs::symlink_metadata(&path).map_err(failed)?.is_file() {
        return Err(VerifyError::Unexpected { file: file.to_owned() });
    }
    File::open(&path).map_err(failed)
}

fn compare_tile(dir: &Path, tile: Tile, computed: &[u8]) -> Result<(), VerifyError> {
    let Kind::Hashes(level) = tile.kind else { return Ok(()) };
    let file = tile.to_string();
    let mut found = Vec::with_capacity(computed.len() + 1);
    let read = open(dir, &file)?.take(computed.len() as u64 + 1).read_to_end(&mut found);
    read.map_err(|source| VerifyError::Io { file: file.clone(), source })?;
    if found == computed {
        return Ok(());
    }
    let same = found.iter().zip(computed).take_while(|(found, computed)| found == computed).count();
    let last = u64::from(tile.width) - 1;
    let hash = tile.index * u64::from(WIDTH) + (same as u64 / 32).min(last);
    Err(VerifyError::Tile { file, entry: hash << (8 * u32::from(level)) })
}

/// Counts the files under `prefix`; each must be one of the log, or, at the top, what may be beside it.
fn count_files(dir: &Path, prefix: &str, size: u64, beside: &Options) -> Result<u64, VerifyError> {
    let failed = |source| VerifyError::Io { file: format!("{prefix}."), source };
    let mut files = 0;
    for item in fs::read_dir(dir.join(prefix)).map_err(failed)? {
        let item = item.map_err(failed)?;
        let file = format!("{prefix}{}", item.file_name().to_string_lossy());
        let kind = item.file_type().map_err(failed)?;
        // No path of a log is longer: a deeper tree is not one.
        let may_be = kind.is_dir() && beside.logs_beside && file == LOGS
            || kind.is_file() && beside.keys_beside && file == KEYS;
        if may_be {
            continue;
        }
        if kind.is_dir() && file.len() < 80 {
            files += count_files(dir, &format!("{file}/"), size, &Options::default())?;
        } else if kind.is_file()
            && (file == "checkpoint" || Tile::parse(&file).is_some_and(|tile| tile.belongs(size)))
        {
            files += 1;
        } else {
            return Err(VerifyError::Unexpected { file });
        }
    }
    Ok(files)
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
