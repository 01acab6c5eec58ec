//! What was rejected, and why: a file with a line for each row (row, column, class, reason; never a value), and the
//! summary at the end, which is made from that file, so that it tells of the time before an interruption as well.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use vault_client::bulk::{Done, Paths, RejectedRow};

use crate::failure::Failure;
use crate::output;

const HEADER: &str = "row,column,class,reason\n";

/// `<rejects>.csv`
pub(super) fn path(rejects: &Path) -> PathBuf {
    let mut name = rejects.as_os_str().to_owned();
    name.push(".csv");
    name.into()
}

/// What is done with a report that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It is of the interrupted run that goes on.
    GoOn,
    Empty,
    Refuse,
}

pub(super) struct Report {
    path: PathBuf,
    /// Made with the first line; locked.
    file: Option<File>,
}

impl Report {
    /// Goes on with the report of an interrupted run, or begins one.
    pub(super) fn open(path: &Path, left: Left) -> Result<Self, Failure> {
        let mut report = Self { path: path.to_owned(), file: None };
        if !path.exists() {
            return Ok(report);
        }
        if left == Left::Refuse {
            return Err(Failure::wrong_use(format!("{} exists already", path.display()))
                .hint("choose another --rejects, or overwrite it with --fresh"));
        }
        let file = report.append().map_err(|error| report.unwritable(&error))?;
        if left == Left::Empty {
            // It is locked now: of no other run. A report is made with its first line.
            std::fs::remove_file(path).map_err(|error| report.unwritable(&error))?;
        } else {
            report.file = Some(file);
        }
        Ok(report)
    }

    /// A rejected row.
    pub(super) fn add(&mut self, row: &RejectedRow, class: &str) -> Result<(), Failure> {
        let line = format!("{},{},{class},{}\n", row.row, quoted(&row.column), row.reason);
        let written = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => self.append().and_then(|mut file| {
                file.write_all(format!("{HEADER}{line}").as_bytes())?;
                self.file = Some(file);
                Ok(())
            }),
        };
        written.map_err(|error| self.unwritable(&error))
    }

    /// Prints the summary. Without rejected rows there is no report.
    pub(super) fn finish(self, as_json: bool, done: &Done, paths: &Paths, verb: &str) -> Result<(), Failure> {
        let reasons = self.by_class_and_reason().map_err(|error| self.unwritable(&error))?;
        let counts = &done.counts;
        if as_json {
            let reasons: Vec<_> = reasons
                .iter()
                .map(|((class, reason), rows)| json!({ "class": class, "reason": reason, "rows": rows }))
                .collect();
            let (rejects, report) =
                (done.rejects.then_some(&paths.rejects), done.rejects.then_some(&self.path));
            output::json(&json!({
                "rows": counts.rows, "values": counts.cells, "rejected_rows": counts.rejected,
                "rejected": reasons, "by_column": counts.by_column, "unmatched": done.unmatched,
                "out": paths.output, "rejects": rejects, "report": report,
            }))?;
            return Ok(());
        }
        eprintln!("{} rows, {} values {verb}, {} rows rejected", counts.rows, counts.cells, counts.rejected);
        for place in &done.unmatched {
            eprintln!(
                "vaultctl: no value was found at `{place}`: is it misspelled, or are there tokens already?"
            );
        }
        if counts.cells == 0 && counts.rejected == 0 && done.unmatched.is_empty() {
            eprintln!("vaultctl: nothing in it was {verb}: is it the right file?");
        }
        for ((class, reason), rows) in &reasons {
            let hint = super::explain(reason).map(|hint| format!("; {hint}")).unwrap_or_default();
            eprintln!("  {rows} rejected: class {class}, {reason}{hint}");
        }
        if done.rejects {
            eprintln!("rejected rows, as they came: {}", paths.rejects.display());
            eprintln!("row and column of each:      {}", self.path.display());
        }
        Ok(())
    }

    fn by_class_and_reason(&self) -> io::Result<BTreeMap<(String, String), u64>> {
        let mut counts = BTreeMap::new();
        if self.file.is_none() {
            return Ok(counts);
        }
        for line in BufReader::new(File::open(&self.path)?).lines().skip(1) {
            let line = line?;
            // Class and reason hold no comma; a column may.
            let mut end = line.rsplitn(3, ',');
            if let (Some(reason), Some(class)) = (end.next(), end.next()) {
                *counts.entry((class.to_owned(), reason.to_owned())).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn append(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        file.try_lock()?;
        Ok(file)
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        Failure::wrong_use(format!("{}: {error}", self.path.display()))
    }
}

/// A name of a column as a cell of its own, on one line.
fn quoted(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if name.contains(['"', ',']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vault_client::bulk::Reason;

    use super::*;

    #[test]
    fn the_summary_tells_of_the_time_before_an_interruption() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        let row = |row, column: &str| RejectedRow { row, column: Arc::from(column), reason: Reason::Utf8 };
        let mut first = Report::open(&path, Left::Refuse).unwrap();
        first.add(&row(2, "A,\"B\"\n"), "ssn").unwrap();
        assert!(Report::open(&path, Left::Empty).is_err(), "nor one that another process writes");
        drop(first);
        assert!(Report::open(&path, Left::Refuse).is_err(), "a report is not overwritten");
        let mut again = Report::open(&path, Left::GoOn).unwrap();
        again.add(&row(3, "C"), "dob").unwrap();
        again.add(&row(4, "C"), "dob").unwrap();
        let counts = again.by_class_and_reason().unwrap();
        assert_eq!(counts[&("ssn".into(), "utf8".into())], 1);
        assert_eq!(counts[&("dob".into(), "utf8".into())], 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
    }
}
