//! Where a page of a query ended: a position in each log.
//!
//! ```text
//! cursor   = order log *("." log)     order = "o" (oldest first) / "n" (newest first)
//! log      = number ":" position      both in hexadecimal, without leading zeros, by ascending number
//! ```
//!
//! Oldest first, the position is that of the next entry, and a log that is not named is read from its beginning:
//! it may be new. Newest first, entries before the position are left, and a log that is not named has none.
//! No position is 0.

use std::collections::BTreeMap;
use std::fmt;

use crate::store::LogId;

/// A position in each log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    oldest_first: bool,
    positions: BTreeMap<LogId, u64>,
}

impl Cursor {
    pub(super) fn new(oldest_first: bool, positions: impl IntoIterator<Item = (LogId, u64)>) -> Self {
        let positions = positions.into_iter().filter(|(_, position)| *position > 0).collect();
        Self { oldest_first, positions }
    }

    /// Reads the only written form; `None` if it is not one in this order.
    pub(super) fn parse(text: &str, oldest_first: bool) -> Option<Self> {
        let mut positions = BTreeMap::new();
        for log in text.strip_prefix(order(oldest_first))?.split('.') {
            let (number, position) = log.split_once(':')?;
            let number = u32::from_str_radix(number, 16).ok()?;
            positions.insert(LogId(number), u64::from_str_radix(position, 16).ok()?);
        }
        let cursor = Self::new(oldest_first, positions);
        // The one written form: this settles signs, leading zeros, order and repetition.
        (cursor.to_string() == text).then_some(cursor)
    }

    /// The logs it names.
    pub(super) fn logs(&self) -> impl Iterator<Item = LogId> {
        self.positions.keys().copied()
    }

    /// What is left of a log with `size` entries.
    pub(super) fn left(&self, log: LogId, size: u64) -> (u64, u64) {
        let position = self.positions.get(&log).copied().unwrap_or(0).min(size);
        if self.oldest_first { (position, size) } else { (0, position) }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(order(self.oldest_first))?;
        for (n, (log, position)) in self.positions.iter().enumerate() {
            let separator = if n == 0 { "" } else { "." };
            write!(f, "{separator}{:x}:{position:x}", log.0)?;
        }
        Ok(())
    }
}

fn order(oldest_first: bool) -> &'static str {
    if oldest_first { "o" } else { "n" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_written_form_is_read() {
        for bad in [
            "",
            "o",
            "n",
            "o1",
            "n0:",
            "n:1",
            "n0:1.",
            "n.0:1",
            "n0:01",
            "n00:1",
            "n0:A",
            "n0:+1",
            "n0:0",
            "n1:1.0:1",
            "n0:1.0:1",
            "n0:1,1:1",
            "n100000000:1",
            "n0:10000000000000000",
            " n0:1",
            "o0:1",
        ] {
            assert_eq!(Cursor::parse(bad, false), None, "{bad:?}");
        }
        assert_eq!(Cursor::parse("n0:1.a:1f", false).unwrap().left(LogId(10), 100), (0, 0x1F));
    }

    #[test]
    fn a_log_that_is_not_named_is_read_from_its_beginning_or_not_at_all() {
        assert_eq!(Cursor::parse("o0:5", true).unwrap().left(LogId(1), 7), (0, 7));
        assert_eq!(Cursor::parse("n0:5", false).unwrap().left(LogId(1), 7), (0, 0));
        assert_eq!(Cursor::parse("o0:5", true).unwrap().left(LogId(0), 7), (5, 7));
        assert_eq!(Cursor::parse("n0:5", false).unwrap().left(LogId(0), 4), (0, 4));
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(
            positions in proptest::collection::btree_map(any::<u32>(), 1..u64::MAX, 1..5),
            oldest_first in any::<bool>(),
        ) {
            let positions = positions.into_iter().map(|(log, position)| (LogId(log), position));
            let cursor = Cursor::new(oldest_first, positions);
            let text = cursor.to_string();
            prop_assert_eq!(Cursor::parse(&text, oldest_first), Some(cursor));
            prop_assert_eq!(Cursor::parse(&text, !oldest_first), None);
        }
    }
}
