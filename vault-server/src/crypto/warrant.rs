//! The proof without which nothing opens.

use std::marker::PhantomData;

use crate::domain::{Record, RequestId};

/// A warrant for this hands out values.
pub enum Detokenize {}

/// A warrant for this hands out masked values only.
pub enum Mask {}

/// That these records may be opened for `A`: access permitted it and the log has it, durably. No `Clone`.
pub struct Warrant<A> {
    request: RequestId,
    records: Vec<Record>,
    action: PhantomData<fn() -> A>,
}

impl<A> Warrant<A> {
    /// Asserts that permit and receipt were there. Only the use cases' `warrant` module may call this; a test keeps
    /// it so.
    pub(crate) fn assertion(request: RequestId, records: Vec<Record>) -> Self {
        Self { request, records, action: PhantomData }
    }

    /// The request that it was given for.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The records it is for, in the order asked.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    fn asserts(source: &str) -> bool {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        code.lines().any(|line| {
            !line.trim_start().starts_with("//") && line.contains("Warrant") && line.contains("::assertion(")
        })
    }

    #[test]
    fn only_the_use_cases_warrant_module_asserts_a_warrant() {
        assert!(asserts("let w = Warrant::<Mask>::assertion(request, records);"), "the check can fail");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(files.len() > 20);
        for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
            let allowed = file.ends_with("vault/warrant.rs");
            assert!(allowed || !asserts(&fs::read_to_string(file).unwrap()), "{}", file.display());
        }
    }
}
