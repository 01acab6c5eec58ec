//! What OpenSSH's formats are made of (RFC 4251, section 5), read strictly: a length that does not fit, or anything that is
//! left over, makes the whole unreadable.

/// Reads from the front.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// So many bytes.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// `uint32`.
    pub(super) fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// `string`: a length and so many bytes.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(len.try_into().ok()?)
    }

    /// `mpint` that is positive and has at most 256 bits: big-endian, padded with zeros. Only its shortest form is one.
    pub(super) fn scalar(&mut self) -> Option<[u8; 32]> {
        let bytes = self.string()?;
        let digits = match bytes {
            [] => return None,
            [0, rest @ ..] => rest.first().is_some_and(|first| first & 0x80 != 0).then_some(rest)?,
            [first, ..] => (first & 0x80 == 0).then_some(bytes)?,
        };
        let mut scalar = [0; 32];
        scalar.get_mut(32_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
        Some(scalar)
    }

    /// There is no more.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends a `string`.
pub(super) fn put_string(into: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing here comes near 4 GiB.
    into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        let mut into = Vec::new();
        put_string(&mut into, bytes);
        into
    }

    #[test]
    fn what_is_cut_off_or_left_over_is_unreadable() {
        let whole = string(b"abc");
        for cut in 0..whole.len() {
            assert_eq!(Reader::new(&whole[..cut]).string(), None, "{cut}");
        }
        let mut reader = Reader::new(&whole);
        assert_eq!(reader.string(), Some(b"abc".as_slice()));
        assert_eq!(reader.end(), Some(()));
        let mut reader = Reader::new(b"\0\0\0\x01ab");
        assert_eq!(reader.string(), Some(b"a".as_slice()));
        assert_eq!(reader.end(), None);
        assert_eq!(Reader::new(&[0xff; 8]).string(), None);
    }

    #[test]
    fn a_number_has_one_form() {
        let scalar = |bytes: &[u8]| Reader::new(&string(bytes)).scalar();
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(scalar(&[1]), Some(one));
        assert_eq!(scalar(&[&[0], [0xff; 32].as_slice()].concat()), Some([0xff; 32]));
        assert_eq!(scalar(&[0x7f; 32]), Some([0x7f; 32]));
        for bad in [
            &[][..],
            &[0],
            &[0, 1],
            &[0, 0, 0x80],
            &[0x80],
            &[0xff; 32],
            &[1; 33],
            &[&[0][..], &[0x80; 33]].concat(),
        ] {
            assert_eq!(scalar(bad), None, "{bad:02x?}");
        }
    }
}
