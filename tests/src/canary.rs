//! Looks for values where none may be: files, output, the memory of a process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine as _;

/// Forms of values to look for.
pub struct Canaries {
    /// By their first eight bytes.
    by_head: HashMap<[u8; 8], Vec<(Vec<u8>, String)>>,
    /// Which first two bytes any of them has.
    first: Vec<bool>,
}

/// Where one was found: the place, and which value's which form (never the value).
#[derive(Debug, PartialEq, Eq)]
pub struct Hit {
    /// File or address range.
    pub place: String,
    /// Which value, which form.
    pub what: String,
}

impl Canaries {
    /// Takes values of at least eight bytes; each is looked for raw, in hex, base64, UTF-16 and reversed.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut canaries = Self::none();
        for (number, value) in values.into_iter().enumerate() {
            if value.len() < 8 {
                continue;
            }
            let raw = value.as_bytes().to_vec();
            let utf16: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let reversed: Vec<u8> = raw.iter().rev().copied().collect();
            let hex = hex::encode(&raw).into_bytes();
            // The part of the base64 text that does not depend on what stands around the value.
            let base64 =
                base64::engine::general_purpose::STANDARD.encode(&raw[..raw.len() / 3 * 3]).into_bytes();
            for (form, bytes) in
                [("raw", raw), ("utf-16", utf16), ("reversed", reversed), ("hex", hex), ("base64", base64)]
            {
                canaries.add(bytes, format!("value {number}, {form}"));
            }
        }
        canaries
    }

    /// Takes secrets that are no text, such as keys: each is looked for raw, in hex and in base64.
    pub fn of_bytes<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut canaries = Self::none();
        for (number, secret) in secrets.into_iter().enumerate() {
            canaries.add(secret.to_vec(), format!("secret {number}, raw"));
            canaries.add(hex::encode(secret).into_bytes(), format!("secret {number}, hex"));
            let base64 = base64::engine::general_purpose::STANDARD.encode(&secret[..secret.len() / 3 * 3]);
            canaries.add(base64.into_bytes(), format!("secret {number}, base64"));
        }
        canaries
    }

    fn none() -> Self {
        Self { by_head: HashMap::new(), first: vec![false; 1 << 16] }
    }

    fn add(&mut self, bytes: Vec<u8>, what: String) {
        let Some(head) = bytes.first_chunk::<8>() else { return };
        self.first[usize::from(u16::from_le_bytes([head[0], head[1]]))] = true;
        self.by_head.entry(*head).or_default().push((bytes, what));
    }

    /// Whether anything is looked for.
    pub fn is_empty(&self) -> bool {
        self.by_head.is_empty()
    }

    /// What stands in these bytes.
    pub fn scan(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for at in 0..bytes.len().saturating_sub(7) {
            if !self.first[usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))] {
                continue;
            }
            let Some(head) = bytes[at..].first_chunk::<8>() else { break };
            for (value, what) in self.by_head.get(head).into_iter().flatten() {
                if bytes[at..].starts_with(value) {
                    hits.push(Hit { place: format!("{place}+{at}"), what: what.clone() });
                }
            }
        }
        hits
    }

    /// What stands in the files of a directory, their names included.
    pub fn scan_dir(&self, dir: &Path) -> Vec<Hit> {
        let mut hits = Vec::new();
        for path in files(dir) {
            hits.extend(self.scan("a file's name", path.to_string_lossy().as_bytes()));
            hits.extend(self.scan(&path.display().to_string(), &fs::read(&path).unwrap()));
        }
        hits
    }

    /// What stands in a process's memory; `None` if it can't be read.
    pub fn scan_memory(&self, pid: u32) -> Option<(u64, Vec<Hit>)> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let mut read = 0;
        let mut hits = Vec::new();
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|p| p.starts_with("rw"))) {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
            let mut bytes = Vec::new();
            if memory.seek(SeekFrom::Start(from)).is_ok() {
                // Pages that can't be read (secret memory) end the read: that is what they are for.
                let _ = (&memory).take(to - from).read_to_end(&mut bytes);
            }
            read += bytes.len() as u64;
            hits.extend(self.scan(line, &bytes));
        }
        Some((read, hits))
    }
}

/// All files below a directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_value_is_found() {
        let canaries = Canaries::new(["999-68-7171"]);
        for form in [
            b"..999-68-7171..".to_vec(),
            b"..1717-86-999".to_vec(),
            hex::encode("999-68-7171").into_bytes(),
            base64::engine::general_purpose::STANDARD.encode("999-68-7171").into_bytes(),
            "999-68-7171".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ] {
            assert!(!canaries.scan("here", &form).is_empty(), "{form:?}");
        }
        assert_eq!(canaries.scan("here", b"999-68-7172"), []);
    }

    #[test]
    fn a_value_in_memory_is_found() {
        let value = "a-canary-in-memory-77".to_owned();
        let canaries = Canaries::new([value.as_str()]);
        let (read, hits) = canaries.scan_memory(std::process::id()).unwrap();
        assert!(read > 0 && !hits.is_empty());
    }
}
