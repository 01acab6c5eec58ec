//! A run over files: reads, writes, syncs, and remembers how far it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::chunk::{Answer, Chunk, Counts, RejectedRow};
use super::error::BulkError;
use super::plan::Plan;
use super::progress::{InputStamp, State, sync_directory};
use super::reader::Reader;

/// The files of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What is read.
    pub input: PathBuf,
    /// What is written.
    pub output: PathBuf,
    /// Where rejected rows go, as they came. Removed at the end if there are none.
    pub rejects: PathBuf,
    /// How far it is.
    pub state: PathBuf,
}

impl Paths {
    /// `<out>.rejects` and `<out>.resume`.
    pub fn beside(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        let output = output.into();
        let with = |suffix: &str| {
            let mut path = output.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self { input: input.into(), rejects: with(".rejects"), state: with(".resume"), output }
    }
}

/// A run that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// All that was done, before an interruption as well.
    pub counts: Counts,
    /// Mapped columns or paths of which no value was found: misspelled, or empty.
    pub unmatched: Vec<String>,
    /// Whether there are rejected rows, and so a rejects file.
    pub rejects: bool,
}

/// A run. Dropped before [`Run::complete`], it is interrupted, and opened again it goes on.
pub struct Run {
    plan: Plan,
    paths: Paths,
    reader: Reader<File>,
    out: File,
    rejects: File,
    state: State,
    resumed: bool,
}

impl Run {
    /// Begins, or goes on if there is the state of an interrupted run. An output that no such run wrote is never
    /// overwritten. Outputs are readable by their owner only.
    pub fn open(plan: Plan, paths: Paths) -> Result<Self, BulkError> {
        let input = File::open(&paths.input).map_err(BulkError::Read)?;
        let stamp = InputStamp::of(&input)?;
        let mut reader = Reader::new(input, &plan)?;
        let fingerprint = plan.fingerprint(reader.header());

        let (state, resumed) = match State::load(&paths.state)? {
            Some(state) if state.input != stamp => {
                return Err(BulkError::InputChanged { state: paths.state });
            }
            Some(state) if state.plan != fingerprint => {
                return Err(BulkError::PlanChanged { state: paths.state });
            }
            Some(state) => (state, true),
            None => {
                for path in [&paths.output, &paths.rejects] {
                    if path.exists() {
                        return Err(BulkError::OutputExists { path: path.clone() });
                    }
                }
                let state = State::new(fingerprint, stamp)?;
                state.save(&paths.state)?;
                (state, false)
            }
        };
        let mut out = open_output(&paths.output, state.out)?;
        let mut rejects = open_output(&paths.rejects, state.rejects)?;
        if let Some(position) = state.position {
            reader.seek(position)?;
        } else {
            write(&mut out, reader.header(), &paths.output)?;
            write(&mut rejects, reader.header(), &paths.rejects)?;
        }
        Ok(Self { plan, paths, reader, out, rejects, state, resumed })
    }

    /// Whether this goes on with an interrupted run.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// What was done so far.
    pub fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// The bytes of the input that were dealt with.
    pub fn offset(&self) -> u64 {
        self.state.position.map_or(0, |position| position.offset)
    }

    /// Names the chunk that [`Run::next_chunk`] gave last; the same after an interruption, when the same rows are
    /// read again.
    pub fn idempotency_key(&self) -> String {
        format!("import-{}-{}", self.state.id, self.state.next_chunk)
    }

    /// The next rows; `None` at the end. Finish each before the next.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, BulkError> {
        self.reader.next_chunk()
    }

    /// Writes a chunk with the vault's answers (see [`Chunk::render`]), durably. Gives the rows that were rejected.
    pub fn finish_chunk(
        &mut self,
        chunk: Chunk,
        answers: Vec<Answer>,
    ) -> Result<Vec<RejectedRow>, BulkError> {
        let end = chunk.end();
        let rendered = chunk.render(answers)?;
        write(&mut self.out, &rendered.out, &self.paths.output)?;
        write(&mut self.rejects, &rendered.rejected, &self.paths.rejects)?;
        self.state.out = sync(&mut self.out, &self.paths.output)?;
        self.state.rejects = sync(&mut self.rejects, &self.paths.rejects)?;
        self.state.position = Some(end);
        self.state.next_chunk += 1;
        self.state.counts.add(&rendered.counts);
        self.state.save(&self.paths.state)?;
        Ok(rendered.reasons)
    }

    /// Ends the run: everything is on the disk, and the state is gone.
    pub fn complete(mut self) -> Result<Done, BulkError> {
        sync(&mut self.out, &self.paths.output)?;
        sync(&mut self.rejects, &self.paths.rejects)?;
        let counts = self.state.counts;
        let rejects = counts.rejected > 0;
        // The state first: without it nobody misses the rejects file.
        State::remove(&self.paths.state)?;
        if !rejects {
            std::fs::remove_file(&self.paths.rejects).map_err(|source| BulkError::File {
                what: "remove",
                path: self.paths.rejects.clone(),
                source,
            })?;
        }
        let unmatched =
            self.plan.places().filter(|place| !counts.by_column.contains_key(*place)).map(str::to_owned);
        Ok(Done { unmatched: unmatched.collect(), rejects, counts })
    }
}

/// Opens an output, cuts off what is beyond `len`, and goes to its end.
fn open_output(path: &Path, len: u64) -> Result<File, BulkError> {
    let failed = |what, source| BulkError::File { what, path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(len == 0).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|source| failed("open", source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BulkError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(failed("lock", source)),
    }
    let found = file.metadata().map_err(|source| failed("read", source))?.len();
    if found < len {
        return Err(BulkError::OutputChanged { path: path.to_owned() });
    }
    file.set_len(len)
        .and_then(|()| file.seek(SeekFrom::Start(len)))
        .and_then(|_| sync_directory(path))
        .map_err(|source| failed("write", source))?;
    Ok(file)
}

fn write(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), BulkError> {
    file.write_all(bytes).map_err(|source| BulkError::File { what: "write", path: path.to_owned(), source })
}

/// Syncs and tells the length.
fn sync(file: &mut File, path: &Path) -> Result<u64, BulkError> {
    file.sync_data().and_then(|()| file.stream_position()).map_err(|source| BulkError::File {
        what: "sync",
        path: path.to_owned(),
        source,
    })
}
