//! Where the logs of a vault are in an export, and what they are called.
//!
//! ```text
//! DIR/...              log 0
//! DIR/logs/<n>/...     log n
//! DIR/logs/list        the numbers of all logs, one a line; written last
//! DIR/keys             statements on the keys that have signed the logs, once there was more than one
//! ```
//!
//! Without other logs there is no directory `logs`. The list is not signed: it shows that an export is whole, not
//! that the vault has no further log.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use vault_format::history::{History, Verifiers};
use vault_format::note::Verifier;
use vault_format::verify::{KEYS, LOGS};

const LIST: &str = "list";
/// No list of a vault is longer.
const MOST_LIST: u64 = 1 << 20;

/// Where a log is.
pub(super) fn dir_of(dir: &Path, log: u32) -> PathBuf {
    if log == 0 { dir.to_owned() } else { dir.join(LOGS).join(log.to_string()) }
}

/// What verifies a log: the keys are the same, their name is the log's origin. `first` is one of them, of log 0.
pub(super) fn verifiers_of(history: &History, first: &Verifier, log: u32) -> Result<Verifiers, String> {
    let vault = first.name();
    let origin = if log == 0 { vault.to_owned() } else { format!("{vault}/{log}") };
    history.of_log(&origin).map_err(|error| error.to_string())
}

/// The keys that the statements lead to from a trusted one.
pub(super) fn history(statements: &str, trusted: &Verifier) -> Result<History, String> {
    History::read(statements, trusted).map_err(|error| error.to_string())
}

/// The statements of an export; empty if there are none.
pub(super) fn read_keys(dir: &Path) -> Result<String, String> {
    match fs::read_to_string(dir.join(KEYS)) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{KEYS}: {error}")),
    }
}

/// Writes the statements, if there are any.
pub(super) fn write_keys(dir: &Path, statements: &str) -> io::Result<()> {
    if statements.is_empty() { Ok(()) } else { fs::write(dir.join(KEYS), statements) }
}

/// Of which log a checkpoint says that it is, if it is one of this vault.
pub(super) fn log_of(checkpoint: &str, first: &Verifier) -> Option<u32> {
    let origin = checkpoint.lines().next()?;
    match origin.strip_prefix(first.name())? {
        "" => Some(0),
        rest => number(rest.strip_prefix('/')?),
    }
}

/// Says which logs an export has. `logs` are in ascending order.
pub(super) fn write_list(dir: &Path, logs: &[u32]) -> io::Result<()> {
    if logs == [0] {
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(dir.join(LOGS).join(LIST))?;
    file.write_all(list(logs).as_bytes())?;
    file.sync_all()
}

/// The logs that an export has, by its list; it must have no others beside them.
pub(super) fn read_list(dir: &Path) -> Result<Vec<u32>, String> {
    let beside = dir.join(LOGS);
    match fs::symlink_metadata(&beside) {
        Ok(found) if found.is_dir() => {}
        // What is no directory does not belong to log 0, and is named there.
        _ => return Ok(vec![0]),
    }
    let path = beside.join(LIST);
    let unread = |error: io::Error| format!("{LOGS}/{LIST}: {error}");
    let found = fs::symlink_metadata(&path).map_err(unread)?;
    if !found.is_file() || found.len() > MOST_LIST {
        return Err(format!("{LOGS}/{LIST} is not a list of logs"));
    }
    let text = fs::read_to_string(&path).map_err(unread)?;
    let logs: Option<Vec<u32>> = text.lines().map(number).collect();
    let logs = logs.filter(|logs| logs.is_sorted_by(|one, next| one < next));
    let logs = logs.filter(|logs| logs.len() > 1 && logs.first() == Some(&0) && list(logs) == text);
    let logs = logs.ok_or_else(|| format!("{LOGS}/{LIST} is not a list of logs"))?;
    for item in fs::read_dir(&beside).map_err(unread)? {
        let item = item.map_err(unread)?;
        let name = item.file_name().to_string_lossy().into_owned();
        let known = number(&name).is_some_and(|log| log > 0 && logs.contains(&log));
        if name != LIST && !(known && item.file_type().is_ok_and(|kind| kind.is_dir())) {
            return Err(format!("{LOGS}/{name} does not belong to the export"));
        }
    }
    Ok(logs)
}

fn list(logs: &[u32]) -> String {
    logs.iter().flat_map(|log| [log.to_string(), "\n".to_owned()]).collect()
}

/// A number in its only written form.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use vault_format::note::Signer;

    use super::*;

    #[test]
    fn a_checkpoint_says_of_which_log_it_is() {
        let signer = Signer::from_seed("phi-vault/dev/x", &[1; 32]).unwrap();
        let of = |origin: &str| log_of(&format!("{origin}\n1\n"), signer.verifier());
        assert_eq!((of("phi-vault/dev/x"), of("phi-vault/dev/x/12")), (Some(0), Some(12)));
        for other in ["", "phi-vault/dev/y", "phi-vault/dev/x1", "phi-vault/dev/x/", "phi-vault/dev/x/01"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_in_no_other_form() {
        let dir = tempfile::tempdir().unwrap();
        write_list(dir.path(), &[0]).unwrap();
        assert_eq!(read_list(dir.path()), Ok(vec![0]));
        fs::create_dir_all(dir_of(dir.path(), 7)).unwrap();
        assert!(read_list(dir.path()).unwrap_err().starts_with("logs/list: "));
        write_list(dir.path(), &[0, 7]).unwrap();
        assert_eq!(read_list(dir.path()), Ok(vec![0, 7]));
        for bad in ["", "0\n", "7\n", "0\n7", "0\n07\n", "7\n0\n", "0\n7\n7\n", "0\n+7\n", "0\r\n7\n"] {
            fs::write(dir.path().join("logs/list"), bad).unwrap();
            assert!(read_list(dir.path()).is_err(), "{bad:?}");
        }
    }
}
