//! Reads records one by one through a window that is wiped, and counts bytes.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use zeroize::Zeroizing;

use super::error::BulkError;
use super::secret::copy;

/// The most bytes of a row.
pub const MAX_RECORD: usize = 16 << 20;

const WINDOW: usize = 64 << 10;

/// The UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Source<R> {
    input: R,
    window: Zeroizing<Vec<u8>>,
    /// What is read and not yet taken is `window[start..end]`.
    start: usize,
    end: usize,
    /// Of `window[start]` in the input.
    offset: u64,
    at_end: bool,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, window: Zeroizing::new(vec![0; WINDOW]), start: 0, end: 0, offset: 0, at_end: false }
    }

    /// Where the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes a byte order mark, if the input begins with one.
    pub(super) fn byte_order_mark(&mut self) -> Result<Zeroizing<Vec<u8>>, BulkError> {
        while self.end - self.start < BOM.len() && !self.at_end {
            self.fill()?;
        }
        let marked = self.window[self.start..self.end].starts_with(BOM);
        Ok(self.take(if marked { BOM.len() } else { 0 }))
    }

    /// Takes bytes up to and with the first for which `ends` holds, or to the end of the input; `None` there.
    pub(super) fn record(
        &mut self,
        row: u64,
        mut ends: impl FnMut(u8) -> bool,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, BulkError> {
        let mut seen = 0;
        loop {
            let unseen = &self.window[self.start + seen..self.end];
            if let Some(at) = unseen.iter().position(|byte| ends(*byte)) {
                return self.sized(seen + at + 1, row).map(Some);
            }
            seen = self.end - self.start;
            if self.at_end {
                return if seen == 0 { Ok(None) } else { self.sized(seen, row).map(Some) };
            }
            if seen > MAX_RECORD {
                return Err(BulkError::RecordTooLarge { row });
            }
            self.fill()?;
        }
    }

    fn sized(&mut self, len: usize, row: u64) -> Result<Zeroizing<Vec<u8>>, BulkError> {
        if len > MAX_RECORD { Err(BulkError::RecordTooLarge { row }) } else { Ok(self.take(len)) }
    }

    fn take(&mut self, len: usize) -> Zeroizing<Vec<u8>> {
        let taken = copy(&self.window[self.start..self.start + len]);
        self.start += len;
        self.offset += len as u64;
        taken
    }

    /// Reads more, behind what is there; makes room by moving that to the front or into a larger window.
    fn fill(&mut self) -> Result<(), BulkError> {
        if self.end == self.window.len() {
            let held = self.end - self.start;
            if self.start > 0 && held <= self.window.len() / 2 {
                self.window.copy_within(self.start..self.end, 0);
            } else {
                let mut larger = Zeroizing::new(vec![0; self.window.len() * 2]);
                larger[..held].copy_from_slice(&self.window[self.start..self.end]);
                self.window = larger;
            }
            (self.start, self.end) = (0, held);
        }
        loop {
            match self.input.read(&mut self.window[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(BulkError::Read(error)),
            }
            return Ok(());
        }
    }
}

impl<R: Read + Seek> Source<R> {
    /// Goes on at `offset`.
    pub(super) fn seek(&mut self, offset: u64) -> Result<(), BulkError> {
        self.input.seek(SeekFrom::Start(offset)).map_err(BulkError::Read)?;
        (self.start, self.end, self.offset, self.at_end) = (0, 0, offset, false);
        Ok(())
    }
}
