//! A run over files: reads, writes, syncs, and remembers how far it is.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::chunk::{Answer, Chunk, Counts, RejectedRow};
use super::error::BulkError;
use super::files;
use super::plan::Plan;
use super::progress::{InputStamp, State, new_beside};
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

    /// That these and `others` are all different files, whatever they are called. Opening a run asks this too, of its
    /// own files.
    pub fn check_different(&self, others: &[&Path]) -> Result<(), BulkError> {
        let new = new_beside(&self.state);
        let own: [&Path; 5] = [&self.input, &self.output, &self.rejects, &self.state, &new];
        files::all_different(&[&own, others].concat())
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
        let (reader, fingerprint, stamp) = read_beginning(&plan, &paths)?;
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
        let out = open_output(&paths.output, state.out)?;
        let rejects = open_output(&paths.rejects, state.rejects)?;
        Self { plan, paths, reader, out, rejects, state, resumed }.begin()
    }

    /// Begins anew, over what a run left, interrupted or not. Nothing of it is touched before the input, the plan
    /// and the header are known to be good, nor while another process writes it.
    pub fn open_anew(plan: Plan, paths: Paths) -> Result<Self, BulkError> {
        let (reader, fingerprint, stamp) = read_beginning(&plan, &paths)?;
        let left = |path: &Path| files::open_locked(path, false);
        let (out, rejects) = (left(&paths.output)?, left(&paths.rejects)?);
        // What is no state may be the output of another run.
        drop(left(&paths.state)?);
        let state = State::new(fingerprint, stamp)?;
        for (file, path) in [(&out, &paths.output), (&rejects, &paths.rejects)] {
            file.as_ref().map_or(Ok(()), |file| files::make_private(file, path))?;
        }
        // It says that the outputs are empty: broken off here, the run goes on by emptying them.
        state.save(&paths.state)?;
        let emptied = |file: Option<File>, path: &Path| match file {
            Some(mut file) => files::cut(&mut file, path, 0).map(|()| file),
            None => open_output(path, 0),
        };
        let (out, rejects) = (emptied(out, &paths.output)?, emptied(rejects, &paths.rejects)?);
        Self { plan, paths, reader, out, rejects, state, resumed: false }.begin()
    }

    fn begin(mut self) -> Result<Self, BulkError> {
        if let Some(position) = self.state.position {
            self.reader.seek(position)?;
        } else {
            write(&mut self.out, self.reader.header(), &self.paths.output)?;
            write(&mut self.rejects, self.reader.header(), &self.paths.rejects)?;
        }
        Ok(self)
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

    /// Gives the run up. If nothing of it is finished, what it made is removed.
    pub fn give_up(self) -> Result<(), BulkError> {
        if self.state.position.is_some() {
            return Ok(());
        }
        State::remove(&self.paths.state)?;
        [&self.paths.output, &self.paths.rejects].into_iter().try_for_each(|path| remove(path))
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
            remove(&self.paths.rejects)?;
        }
        let unmatched =
            self.plan.places().filter(|place| !counts.by_column.contains_key(*place)).map(str::to_owned);
        Ok(Done { unmatched: unmatched.collect(), rejects, counts })
    }
}

/// The input after its header, what names the plan, and what tells the input from others.
fn read_beginning(plan: &Plan, paths: &Paths) -> Result<(Reader<File>, String, InputStamp), BulkError> {
    paths.check_different(&[])?;
    let input = File::open(&paths.input).map_err(BulkError::Read)?;
    let stamp = InputStamp::of(&input)?;
    let reader = Reader::new(input, plan)?;
    let fingerprint = plan.fingerprint(reader.header());
    Ok((reader, fingerprint, stamp))
}

/// Opens an output, cuts off what is beyond `len`, and goes to its end.
fn open_output(path: &Path, len: u64) -> Result<File, BulkError> {
    let missing = || files::failed("open", path, std::io::ErrorKind::NotFound.into());
    let mut file = files::open_locked(path, len == 0)?.ok_or_else(missing)?;
    files::cut(&mut file, path, len)?;
    Ok(file)
}

fn write(file: &mut File, bytes: &[u8], path: &Path) -> Result<(), BulkError> {
    file.write_all(bytes).map_err(|source| files::failed("write", path, source))
}

fn remove(path: &Path) -> Result<(), BulkError> {
    std::fs::remove_file(path).map_err(|source| files::failed("remove", path, source))
}

/// Syncs and tells the length.
fn sync(file: &mut File, path: &Path) -> Result<u64, BulkError> {
    file.sync_data()
        .and_then(|()| file.stream_position())
        .map_err(|source| files::failed("sync", path, source))
}
