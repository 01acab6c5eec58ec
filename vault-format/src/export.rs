//! Writes a log as files, in the layout of C2SP tlog-tiles: what [`crate::verify`] reads.
//!
//! ```text
//! checkpoint                   the signed note
//! tile/<L>/<N>[.p/<W>]         hashes
//! tile/entries/<N>[.p/<W>]     entries
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::history::Verifiers;
use crate::tile::{self, Edge, Kind, Tile, WIDTH};
use crate::tree::Hash;

/// Why a log could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The directory has something in it.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file could not be written.
    #[error("{file}: {source}")]
    Io {
        /// Which, within the directory.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// An entry is too long for the layout.
    #[error("entry {entry} has more than 65535 bytes")]
    EntryTooLong {
        /// Its sequence number.
        entry: u64,
    },
    /// The checkpoint is not one of the log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is not one of these entries.
    #[error("the entries are not those of the checkpoint: {size} entries with root {root}")]
    OtherEntries {
        /// How many entries were given.
        size: u64,
        /// Root of their tree.
        root: Hash,
    },
}

/// Writes a log, entry by entry. Without [`DirWriter::finish`] there is no checkpoint file, so that half an
/// export does not pass for one. Directories and files that it makes are the owner's alone: who asked for whose data,
/// and when, is not for everybody.
#[derive(Debug)]
pub struct DirWriter {
    dir: PathBuf,
    edge: Edge,
    /// Entries since the last whole bundle, as their bundle.
    bundle: Vec<u8>,
}

impl DirWriter {
    /// Into a directory that is empty, or is made.
    pub fn create(dir: &Path) -> Result<Self, ExportError> {
        let name = |source| ExportError::Io { file: dir.display().to_string(), source };
        make_dirs(dir).map_err(name)?;
        if fs::read_dir(dir).map_err(name)?.next().is_some() {
            return Err(ExportError::NotEmpty(dir.to_owned()));
        }
        Ok(Self { dir: dir.to_owned(), edge: Edge::new(), bundle: Vec::new() })
    }

    /// The next entry.
    pub fn push(&mut self, entry: &[u8]) -> Result<(), ExportError> {
        let sequence = self.edge.size();
        tile::append_entry(&mut self.bundle, entry)
            .map_err(|_| ExportError::EntryTooLong { entry: sequence })?;
        let mut whole = Vec::new();
        self.edge.push(Hash::leaf(entry), |tile, hashes| whole.push((tile, tile::tile_bytes(hashes))));
        for (tile, bytes) in whole {
            self.write(&tile.to_string(), &bytes)?;
            if tile.kind == Kind::Hashes(0) {
                self.write_bundle(Tile { kind: Kind::Entries, ..tile })?;
            }
        }
        Ok(())
    }

    /// How many entries it has been given.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Writes what is partial, and the signed checkpoint, which must be one of exactly these entries.
    pub fn finish(mut self, signed: &str, by: impl Into<Verifiers>) -> Result<Checkpoint, ExportError> {
        let checkpoint = Checkpoint::open(signed, by)?;
        let (size, root) = (self.edge.size(), self.edge.root());
        if (checkpoint.size, checkpoint.root) != (size, root) {
            return Err(ExportError::OtherEntries { size, root });
        }
        for (tile, hashes) in self.edge.partial() {
            self.write(&tile.to_string(), &tile::tile_bytes(hashes))?;
        }
        let width = (size % u64::from(WIDTH)) as u16;
        if width > 0 {
            self.write_bundle(Tile { kind: Kind::Entries, index: size / u64::from(WIDTH), width })?;
        }
        self.write("checkpoint", signed.as_bytes())?;
        Ok(checkpoint)
    }

    fn write_bundle(&mut self, bundle: Tile) -> Result<(), ExportError> {
        self.write(&bundle.to_string(), &self.bundle)?;
        self.bundle.clear();
        Ok(())
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.dir.join(file);
        let written = path.parent().map_or(Ok(()), make_dirs).and_then(|()| {
            let mut out = make_file(&path)?;
            out.write_all(bytes)?;
            out.sync_all()
        });
        written.map_err(|source| ExportError::Io { file: file.to_owned(), source })
    }
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

fn make_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}
