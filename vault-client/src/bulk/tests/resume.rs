//! A run that is broken off goes on where it was.

use std::fs;

use tempfile::TempDir;

use super::*;

const LIMITS: Limits = Limits { rows: 3, cells: 4, bytes: 1000 };

struct Place {
    dir: TempDir,
    paths: Paths,
    vault: FakeVault,
}

fn input() -> String {
    let row = |at: u32| {
        format!("{at},{},\"{}\"\r\n", at * 7, if at.is_multiple_of(5) { "REFUSE" } else { "x\"\"y" })
    };
    "ID,SSN,NAME\r\n".to_owned() + &(1..=20).map(row).collect::<String>()
}

fn plan() -> Plan {
    Plan::import(Format::CSV, &["SSN=ssn", "NAME=name"], Some("ID")).unwrap().with_limits(LIMITS).unwrap()
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::beside(dir.path().join("in.csv"), dir.path().join("out.csv"));
        fs::write(&paths.input, input()).unwrap();
        Self { dir, paths, vault: FakeVault::default() }
    }

    fn open(&self) -> Result<Run, BulkError> {
        Run::open(plan(), self.paths.clone())
    }

    /// Finishes up to so many chunks; their idempotency keys.
    fn work(&self, run: &mut Run, most: usize) -> Vec<String> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(chunk) = run.next_chunk().unwrap()
        {
            keys.push(run.idempotency_key());
            let answers = self.vault.tokenize(chunk.cells());
            run.finish_chunk(chunk, answers).unwrap();
        }
        keys
    }

    fn outputs(&self) -> (Vec<u8>, Vec<u8>) {
        (fs::read(&self.paths.output).unwrap(), fs::read(&self.paths.rejects).unwrap())
    }
}

#[test]
fn a_run_broken_off_after_any_chunk_gives_what_an_unbroken_one_gives() {
    let whole = Place::new();
    let mut run = whole.open().unwrap();
    let chunks = whole.work(&mut run, usize::MAX).len();
    let done = run.complete().unwrap();
    assert_eq!((done.counts.rows, done.counts.rejected, done.counts.cells), (20, 4, 32));
    assert!(done.rejects && done.unmatched.is_empty() && !whole.paths.state.exists());
    assert_eq!(whole.dir.path().read_dir().unwrap().count(), 3);

    for broken_after in 0..=chunks {
        let place = Place::new();
        let mut run = place.open().unwrap();
        let mut keys = place.work(&mut run, broken_after);
        // The vault answered one more, and half of it is on the disk.
        let _lost = run.next_chunk().unwrap();
        let lost_key = run.idempotency_key();
        drop(run);
        for path in [&place.paths.output, &place.paths.rejects] {
            let mut bytes = fs::read(path).unwrap();
            bytes.extend_from_slice(b"half of a ch");
            fs::write(path, bytes).unwrap();
        }

        let mut run = place.open().unwrap();
        assert!(run.resumed());
        assert_eq!(run.idempotency_key(), lost_key);
        keys.extend(place.work(&mut run, usize::MAX));
        assert_eq!(run.complete().unwrap(), done, "{broken_after}");
        assert_eq!(place.outputs(), whole.outputs(), "{broken_after}");
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!((keys.len(), distinct.len()), (chunks, chunks));
    }
}

#[test]
fn without_rejected_rows_there_is_no_rejects_file() {
    let place = Place::new();
    fs::write(&place.paths.input, "ID,SSN,NAME\n1,2,\n").unwrap();
    let mut run = place.open().unwrap();
    place.work(&mut run, usize::MAX);
    let done = run.complete().unwrap();
    assert_eq!((done.rejects, done.unmatched), (false, vec!["NAME".to_owned()]));
    assert!(!place.paths.rejects.exists() && place.paths.output.exists());
}

#[test]
fn nothing_that_another_run_or_nobody_of_this_kind_wrote_is_overwritten() {
    for taken in ["out.csv", "out.csv.rejects"] {
        let place = Place::new();
        fs::write(place.dir.path().join(taken), "precious").unwrap();
        assert!(matches!(place.open().err(), Some(BulkError::OutputExists { .. })), "{taken}");
        assert_eq!(fs::read(place.dir.path().join(taken)).unwrap(), b"precious");
        assert!(!place.paths.state.exists());
    }
}

#[test]
fn a_run_does_not_go_on_with_another_input_plan_or_output() {
    let broken = || {
        let place = Place::new();
        let mut run = place.open().unwrap();
        place.work(&mut run, 2);
        drop(run);
        place
    };
    let place = broken();
    fs::write(&place.paths.input, input() + "21,1,x\r\n").unwrap();
    assert!(matches!(place.open().err(), Some(BulkError::InputChanged { .. })));

    let place = broken();
    for other in [
        Plan::import(Format::CSV, &["SSN=ssn", "NAME=text"], Some("ID")).unwrap().with_limits(LIMITS),
        Plan::import(Format::CSV, &["SSN=ssn", "NAME=name"], None).unwrap().with_limits(LIMITS),
        Plan::import(Format::CSV, &["SSN=ssn", "NAME=name"], Some("ID")),
        Plan::export(Format::CSV).unwrap().with_limits(LIMITS),
    ] {
        let refused = Run::open(other.unwrap(), place.paths.clone()).err();
        assert!(matches!(refused, Some(BulkError::PlanChanged { .. })), "{refused:?}");
    }

    fs::write(&place.paths.output, "short").unwrap();
    assert!(matches!(place.open().err(), Some(BulkError::OutputChanged { .. })));
    fs::write(&place.paths.state, "{}").unwrap();
    assert!(matches!(place.open().err(), Some(BulkError::State { .. })));
}

#[test]
fn two_processes_do_not_write_one_output() {
    let place = Place::new();
    let _run = place.open().unwrap();
    assert!(matches!(place.open().err(), Some(BulkError::Busy { .. })));
}

#[test]
fn a_run_that_begins_anew_touches_nothing_before_input_and_columns_are_good() {
    let place = Place::new();
    fs::write(&place.paths.output, "precious").unwrap();
    for bad in ["ID,NAME\n1,x\n", "", "\"ID,SSN,NAME\n"] {
        fs::write(&place.paths.input, bad).unwrap();
        assert!(Run::open_anew(plan(), place.paths.clone()).is_err(), "{bad}");
        assert_eq!(fs::read(&place.paths.output).unwrap(), b"precious");
    }
    fs::remove_file(&place.paths.input).unwrap();
    assert!(matches!(Run::open_anew(plan(), place.paths.clone()).err(), Some(BulkError::Read(_))));
    assert_eq!(fs::read(&place.paths.output).unwrap(), b"precious");
}

#[test]
fn a_run_that_begins_anew_empties_what_is_left_and_makes_it_the_owners_alone() {
    let whole = Place::new();
    let mut run = whole.open().unwrap();
    whole.work(&mut run, usize::MAX);
    run.complete().unwrap();

    let place = Place::new();
    let mut run = place.open().unwrap();
    place.work(&mut run, 2);
    drop(run);
    #[cfg(unix)]
    fs::set_permissions(&place.paths.output, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut run = Run::open_anew(plan(), place.paths.clone()).unwrap();
    assert!(!run.resumed() && run.counts().rows == 0);
    #[cfg(unix)]
    {
        let metadata = fs::metadata(&place.paths.output).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
    }
    place.work(&mut run, usize::MAX);
    run.complete().unwrap();
    assert_eq!(place.outputs(), whole.outputs());
}

#[test]
fn a_run_does_not_begin_anew_over_one_that_goes_on() {
    let place = Place::new();
    let mut run = place.open().unwrap();
    place.work(&mut run, 2);
    let (out, state) = (fs::read(&place.paths.output).unwrap(), fs::read(&place.paths.state).unwrap());
    assert!(matches!(Run::open_anew(plan(), place.paths.clone()).err(), Some(BulkError::Busy { .. })));
    assert_eq!(fs::read(&place.paths.output).unwrap(), out);
    assert_eq!(fs::read(&place.paths.state).unwrap(), state);
}

#[test]
fn one_file_has_one_part_in_a_run_whatever_it_is_called() {
    let place = Place::new();
    let dir = place.dir.path();
    fs::hard_link(&place.paths.input, dir.join("linked.csv")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&place.paths.input, dir.join("symlink.csv")).unwrap();
    let paths = &place.paths;
    let mut same = vec![
        Paths { output: dir.join("in.csv"), ..paths.clone() },
        Paths { output: dir.join("./in.csv"), ..paths.clone() },
        Paths { output: dir.join("linked.csv"), ..paths.clone() },
        Paths { rejects: dir.join("in.csv"), ..paths.clone() },
        Paths { rejects: dir.join("./out.csv"), ..paths.clone() },
        Paths { state: dir.join("out.csv"), ..paths.clone() },
        Paths { rejects: dir.join("out.csv.resume.new"), ..paths.clone() },
    ];
    if cfg!(unix) {
        same.push(Paths { output: dir.join("symlink.csv"), ..paths.clone() });
    }
    for paths in same {
        for open in [Run::open, Run::open_anew] {
            let refused = open(plan(), paths.clone()).err();
            assert!(matches!(refused, Some(BulkError::SameFile { .. })), "{refused:?} {paths:?}");
        }
        assert_eq!(fs::read(&place.paths.input).unwrap(), input().as_bytes());
        assert!(!place.paths.output.exists() && !place.paths.state.exists());
    }
    assert!(paths.check_different(&[&dir.join("in.csv")]).is_err());
    assert!(paths.check_different(&[&dir.join("other.csv")]).is_ok());
}

#[test]
fn a_run_that_is_given_up_leaves_what_is_finished_and_nothing_else() {
    let place = Place::new();
    place.open().unwrap().give_up().unwrap();
    assert!(!place.paths.output.exists() && !place.paths.rejects.exists() && !place.paths.state.exists());
    let mut run = place.open().unwrap();
    place.work(&mut run, 1);
    run.give_up().unwrap();
    assert!(place.open().unwrap().resumed());
}

#[test]
fn the_state_holds_nothing_of_the_data_and_outputs_are_the_owners_alone() {
    let place = Place::new();
    fs::write(&place.paths.input, "ID,SSN,NAME\n1,CANARY,REFUSE\n").unwrap();
    let mut run = place.open().unwrap();
    place.work(&mut run, 1);
    assert!(!fs::read_to_string(&place.paths.state).unwrap().contains("CANARY"));
    #[cfg(unix)]
    for path in [&place.paths.output, &place.paths.rejects, &place.paths.state] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
