//! Sizes at rest. All classes share the buckets, so that a size tells neither the length of a value nor its class:
//! up to 60 bytes are one size, and only long values are told apart, roughly.
//!
//! `padded = length(4) | value | zeros`, in buckets of 64, 128, 256 ... 4096 bytes, then in steps of a quarter of
//! the power of two below: 5120, 6144, 7168, 8192, 10240 ...

/// The smallest bucket.
pub(super) const LEAST: usize = 64;

/// The smallest bucket of free text, whose length says more.
pub(super) const LEAST_TEXT: usize = 256;

/// The bytes of the length before the value.
const PREFIX: usize = 4;

/// Above this, doubling costs more than it hides.
const DOUBLING_ENDS: usize = 4096;

/// The padded size of a value of `len` bytes, with its length prefix.
pub(super) fn padded_len(len: usize, least: usize) -> usize {
    let needed = len.saturating_add(PREFIX);
    let bucket = if needed <= DOUBLING_ENDS {
        needed.next_power_of_two()
    } else {
        let step = (1 << needed.ilog2()) / 4;
        needed.checked_next_multiple_of(step).unwrap_or(usize::MAX)
    };
    bucket.max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_has_one_size() {
        for len in 0..=60 {
            assert_eq!(padded_len(len, LEAST), 64, "{len}");
        }
        assert_eq!(padded_len(61, LEAST), 128);
    }

    #[test]
    fn buckets_hold_the_value_and_its_length_and_grow_with_it() {
        let mut before = 0;
        for len in 0..200_000 {
            let padded = padded_len(len, LEAST);
            assert!(padded >= len + PREFIX && padded >= before, "{len}");
            assert!(len < 4096 || padded <= (len + PREFIX) * 5 / 4 + 1, "{len}");
            before = padded;
        }
        assert_eq!(padded_len(4092, LEAST), 4096);
        assert_eq!(padded_len(4093, LEAST), 5120);
        assert_eq!(padded_len(usize::MAX, LEAST), usize::MAX);
    }

    #[test]
    fn text_is_padded_to_more() {
        assert_eq!(padded_len(1, LEAST_TEXT), 256);
        assert_eq!(padded_len(252, LEAST_TEXT), 256);
        assert_eq!(padded_len(253, LEAST_TEXT), 512);
    }
}
