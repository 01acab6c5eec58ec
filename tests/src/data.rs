//! Synthetic people: a few of our own beside this crate, and many more where `PHI_VAULT_TEST_DATA` leads.

use std::path::{Path, PathBuf};

/// A file of the small data set that is part of the project.
pub fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// A file of the larger data set, if it is there; says so if it is not.
pub fn larger(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("PHI_VAULT_TEST_DATA").map_or(beside, PathBuf::from);
    let path = dir.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {name} is not there (PHI_VAULT_TEST_DATA)");
    None
}

/// The columns of a CSV that has no quotes, by name: enough for the test data.
pub fn columns<'a>(text: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let places: Vec<usize> = names.iter().filter_map(|name| header.iter().position(|h| h == name)).collect();
    lines
        .flat_map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            places.iter().filter_map(move |place| cells.get(*place).copied()).collect::<Vec<_>>()
        })
        .filter(|cell| !cell.is_empty())
        .collect()
}
