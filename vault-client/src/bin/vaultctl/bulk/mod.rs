//! `vaultctl import` and `vaultctl export`: whole files, over [`vault_client::bulk`].
//!
//! The engine reads, replaces, writes and remembers; here a chunk's values go to the vault and its answers come
//! back. A chunk is sent as several requests at once, under idempotency keys that are the same when it is sent
//! again, so nothing is tokenized twice by an interruption that both sides survive.

pub(crate) mod export;
pub(crate) mod import;
mod report;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vault_client::bulk::{
    Answer, BulkError, Cell, Chunk, Format, Limits, MapError, Paths, Plan, Rejection, Run,
};
use vault_client::{Client, Code, Error, ItemError, Reason};

use crate::args::{self, Global};
use crate::failure::{Exit, Failure, hint};
use report::{Left, Report};

/// Values a request; a chunk is several requests.
const REQUEST: usize = 1_000;
/// The longest pause between attempts while the vault is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const KEPT: &str = "what is done is kept: the same command goes on from there";

/// What import and export have in common.
#[derive(Args)]
pub(crate) struct Files {
    /// The file to read: CSV with a header line, or a JSON object a line.
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// The file to write. It is made readable by its owner only; one that is there is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The format, if the file's name does not tell (.csv, .tsv, .ndjson, .jsonl).
    #[arg(long, value_enum)]
    format: Option<FormatName>,

    /// Where rows go, as they came, of which a value was rejected; OUT.rejects unless given.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,

    /// So many values at a time.
    #[arg(long, value_name = "N", default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,

    /// Begin anew, over the output, the rejects and the state that are there: once the file and its columns are
    /// known to be good, they are emptied.
    #[arg(long)]
    fresh: bool,

    /// How long to wait for a vault that went away in the middle.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = args::duration)]
    patience: Duration,
}

/// Formats by name.
#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Csv,
    Tsv,
    Ndjson,
}

/// Gives the answers to a chunk's cells.
trait Ask {
    /// One answer a cell, in order.
    async fn ask(&self, client: &Client, key: &str, chunk: &Chunk) -> Result<Vec<Answered>, Error>;

    /// The class of a column, for the summary.
    fn class_of(&self, column: &str) -> &str;

    /// `tokenized` or `restored`.
    fn done(&self) -> &'static str;
}

type Answered = Result<zeroize::Zeroizing<String>, ItemError>;

impl Files {
    fn format(&self) -> Result<Format, Failure> {
        let by_name = || match self.input.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(FormatName::Csv),
            "tsv" | "tab" => Some(FormatName::Tsv),
            "ndjson" | "jsonl" => Some(FormatName::Ndjson),
            _ => None,
        };
        match self.format.or_else(by_name) {
            Some(FormatName::Csv) => Ok(Format::CSV),
            Some(FormatName::Tsv) => Ok(Format::Csv { delimiter: b'\t' }),
            Some(FormatName::Ndjson) => Ok(Format::Ndjson),
            None => Err(Failure::wrong_use("the file's name does not tell its format")
                .hint("say --format csv, tsv or ndjson")),
        }
    }

    fn paths(&self) -> Paths {
        let mut paths = Paths::beside(&self.input, &self.out);
        if let Some(rejects) = &self.rejects {
            paths.rejects.clone_from(rejects);
        }
        paths
    }

    fn limits(&self) -> Limits {
        let cells = self.batch as usize;
        Limits { rows: cells.max(Limits::STANDARD.rows), cells, bytes: 4 << 20 }
    }
}

/// Goes through the file.
async fn drive(global: &Global, files: Files, plan: Plan, asker: &impl Ask) -> Result<Exit, Failure> {
    let client = global.builder()?.batch_limits(REQUEST, 4 << 20).connect()?;
    let paths = files.paths();
    let plan = plan.with_limits(files.limits())?;
    let report = report::path(&paths.rejects);
    paths.check_different(&[&report])?;
    let size = std::fs::metadata(&files.input).map_or(0, |meta| meta.len());
    let mut run = if files.fresh { Run::open_anew } else { Run::open }(plan, paths.clone())?;
    let left = match (run.resumed(), files.fresh) {
        (true, _) => Left::GoOn,
        (false, true) => Left::Empty,
        (false, false) => Left::Refuse,
    };
    let mut report = Report::open(&report, left)?;
    let bar = progress(size, global.json);
    if run.resumed() {
        bar.println(format!("going on after {} rows", run.counts().rows));
    }
    loop {
        // Only then is it true.
        let kept = run.counts().rows > 0;
        let Some(chunk) = run.next_chunk().map_err(|error| stopped(error, kept))? else { break };
        bar.set_position(run.offset());
        let key = run.idempotency_key();
        let answers = answers(&client, &key, &chunk, asker, files.patience, &bar).await;
        let answers = answers.map_err(|failure| waited_in_vain(failure, kept))?;
        if let Some(column) = (!kept).then(|| unknown_class(chunk.cells(), &answers)).flatten() {
            let column = column.escape_debug();
            let failure =
                Failure::wrong_use(format!("the vault has no class as the map has it for column `{column}`"));
            run.give_up()?;
            return Err(failure.hint_of(Reason::ClassUnknown));
        }
        let rejected = run.finish_chunk(chunk, answers).map_err(|error| stopped(error, kept))?;
        rejected.iter().try_for_each(|row| report.add(row, asker.class_of(&row.column)))?;
    }
    bar.finish_and_clear();
    let done = run.complete()?;
    report.finish(global.json, &done, &paths, asker.done())?;
    Ok(if done.rejects { Exit::SomeFailed } else { Exit::Done })
}

/// A column of which no value was taken, because the vault does not know the class: the map is wrong, not the rows.
fn unknown_class(cells: &[Cell], answers: &[Answer]) -> Option<Arc<str>> {
    let unknown = |answer: &Answer| {
        answer
            .as_ref()
            .is_err_and(|rejection| rejection.reason.eq_ignore_ascii_case(Reason::ClassUnknown.as_str()))
    };
    let mut columns = BTreeMap::new();
    for (cell, answer) in cells.iter().zip(answers) {
        if cell.class.is_some() {
            *columns.entry(&cell.column).or_insert(true) &= unknown(answer);
        }
    }
    columns.into_iter().find(|(_, all)| *all).map(|(column, _)| Arc::clone(column))
}

/// Why no answer came to a chunk.
enum Unanswered {
    Refused(Failure),
    /// Patience ended.
    Away(Failure),
}

fn waited_in_vain(why: Unanswered, kept: bool) -> Failure {
    match why {
        Unanswered::Away(failure) if kept => failure.hint(KEPT),
        Unanswered::Away(failure) | Unanswered::Refused(failure) => failure,
    }
}

/// What stopped a run in the middle.
fn stopped(error: BulkError, kept: bool) -> Failure {
    let mendable = matches!(error, BulkError::File { .. } | BulkError::Read(_));
    let failure = Failure::from(error);
    if mendable && kept { failure.hint(KEPT) } else { failure }
}

/// Asks until the vault answers, or patience ends.
async fn answers(
    client: &Client,
    key: &str,
    chunk: &Chunk,
    asker: &impl Ask,
    patience: Duration,
    bar: &ProgressBar,
) -> Result<Vec<Answer>, Unanswered> {
    if chunk.cells().is_empty() {
        return Ok(Vec::new());
    }
    let begun = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let error = match asker.ask(client, key, chunk).await {
            Ok(answers) => match judge(answers) {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !worth_waiting(error.code()) {
            return Err(Unanswered::Refused(error.into()));
        }
        let wait = error.retry_after().unwrap_or_default().max(pause);
        if begun.elapsed() + wait > patience {
            return Err(Unanswered::Away(error.into()));
        }
        bar.set_message("waiting for the vault");
        tokio::time::sleep(wait).await;
        bar.set_message("");
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells what is wrong with a cell, which goes to the rejects, from what is wrong with the vault or the caller,
/// which stops or delays the run: nobody's row is rejected for that.
fn judge(answers: Vec<Answered>) -> Result<Vec<Answer>, Error> {
    let refused =
        |answer: &Answered| answer.as_ref().is_err_and(|error| error.code() == Code::PermissionDenied);
    let all_refused = answers.iter().all(refused);
    answers
        .into_iter()
        .map(|answer| match answer {
            Ok(text) => Ok(Ok(text)),
            Err(error) if all_refused || !is_of_the_cell(error.code()) => Err(error.into()),
            Err(error) => Ok(Err(Rejection { reason: error.reason().as_str().to_ascii_lowercase() })),
        })
        .collect()
}

fn is_of_the_cell(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::DataLoss
            | Code::PermissionDenied
            | Code::OutOfRange
    )
}

/// Chunks may be repeated, so a late answer is as good as none.
fn worth_waiting(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
}

fn progress(size: u64, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}% {bytes}/{total_bytes} {eta} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Self::wrong_use(error.to_string())
    }
}

impl From<BulkError> for Failure {
    fn from(error: BulkError) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            // Writing to a string does not fail.
            let _ = write!(message, ": {next}");
            cause = next.source();
        }
        let failure = Self::wrong_use(message);
        match error {
            BulkError::OutputExists { .. } => {
                failure.hint("choose another --out, or overwrite it with --fresh")
            }
            BulkError::InputChanged { .. } | BulkError::PlanChanged { .. } | BulkError::State { .. } => {
                failure.hint("or begin anew with --fresh")
            }
            BulkError::SameFile { .. } => failure.hint(
                "what is read, the output, the rejects, their report and the state are files of their own",
            ),
            BulkError::MissingColumn { .. } => failure.hint("`head -1 FILE` shows what there is"),
            BulkError::Ragged { .. } | BulkError::Json { .. } => {
                failure.hint("mend the file, then begin anew with --fresh")
            }
            _ => failure,
        }
    }
}

/// For a class of errors that the summary names.
fn explain(reason: &str) -> Option<String> {
    let known = |known: &Reason| known.as_str().eq_ignore_ascii_case(reason);
    [Reason::ClassUnknown, Reason::TokenEnvironment, Reason::ActionNotAllowed]
        .iter()
        .find(|r| known(r))
        .copied()
        .and_then(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> ItemError {
        "x".parse::<vault_client::Token>().unwrap_err()
    }

    #[test]
    fn a_bad_cell_is_rejected_and_the_others_are_kept() {
        let answers = judge(vec![Ok(String::from("t").into()), Err(bad())]).unwrap();
        assert!(answers[0].is_ok());
        assert_eq!(answers[1].as_ref().unwrap_err().reason, "token_malformed");
    }

    #[test]
    fn nobodys_row_is_rejected_for_an_outage() {
        for code in (1..=16).map(Code::from_i32) {
            assert!(!(is_of_the_cell(code) && worth_waiting(code)), "{code:?}");
        }
        assert!(!is_of_the_cell(Code::Unavailable) && !is_of_the_cell(Code::Internal));
    }
}
