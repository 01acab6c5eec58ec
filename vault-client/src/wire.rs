//! Typed values to messages and back: padding, and cutting batches into messages that a server takes.
//!
//! Everything that holds PHI is padded so that its encoded length is a multiple of [`BUCKET`]: the sizes of
//! encrypted packets then tell neither a value from another of its class nor one short class from another.

use bytes::Bytes;
use prost::Message as _;
use vault_proto::v1 as wire;
use zeroize::Zeroizing;

use crate::error::{Error, ItemError};
use crate::value::{NewValue, Plaintext};

/// Encoded items and values fill multiples of so many bytes.
pub(crate) const BUCKET: usize = 64;

static ZEROS: [u8; 2 * BUCKET] = [0; 2 * BUCKET];

/// A value's bytes for the wire; wiped when the message is dropped.
fn bytes(value: Plaintext) -> Bytes {
    Bytes::from_owner(Text(value.into_inner()))
}

struct Text(Zeroizing<String>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Adds padding until `length` of the message is a multiple of the bucket. `None` if there is no such padding
/// (a length prefix that grows by a byte can jump over it within one bucket, not within two).
fn pad<M>(message: &mut M, length: impl Fn(&M) -> usize, padding: impl Fn(&mut M, Bytes)) {
    for size in 0..ZEROS.len() {
        padding(message, Bytes::from_static(&ZEROS[..size]));
        let over = length(message) % BUCKET;
        if over == 0 {
            return;
        }
        // Jump to where it is nearly full; each step beyond adds at least a byte.
        if size == 0 && BUCKET - over > 4 {
            padding(message, Bytes::from_static(&ZEROS[..BUCKET - over - 4]));
        }
    }
}

/// A padded value of its own (Find).
pub(crate) fn value(value: Plaintext) -> wire::Value {
    let mut value = wire::Value { data: bytes(value), padding: Bytes::new() };
    pad(&mut value, wire::Value::encoded_len, |value, padding| value.padding = padding);
    value
}

/// A padded item: value, class and subject together fill a bucket.
pub(crate) fn item(new: NewValue) -> wire::TokenizeItem {
    let mut item = wire::TokenizeItem {
        data_class: new.class.as_str().to_owned(),
        value: Some(wire::Value { data: bytes(new.value), padding: Bytes::new() }),
        subject: new.subject.map(|subject| wire::SubjectId { id: subject.into_inner() }),
    };
    pad(&mut item, wire::TokenizeItem::encoded_len, |item, padding| {
        if let Some(value) = &mut item.value {
            value.padding = padding;
        }
    });
    item
}

/// Cuts a batch so that each part has at most `most_items` items of together at most `most_bytes`. An item that is
/// larger than that goes alone: the vault says what is wrong with it.
pub(crate) fn parts<T>(
    items: Vec<T>,
    most_items: usize,
    most_bytes: usize,
    size: impl Fn(&T) -> usize,
) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0_usize;
    for item in items {
        let more = size(&item);
        if !part.is_empty() && (part.len() >= most_items || bytes.saturating_add(more) > most_bytes) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += more;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// A value from the wire. The transport's buffer is not ours to wipe: see the crate's docs on memory.
pub(crate) fn plaintext(value: &wire::Value) -> Result<Plaintext, Error> {
    Plaintext::from_utf8(value.data.to_vec()).map_err(|_| Error::bad_answer("a value is not UTF-8"))
}

/// An answer's results: as many as were asked for, each with an outcome.
pub(crate) fn results<R, T>(
    asked: usize,
    results: Vec<R>,
    one: impl Fn(R) -> Result<Result<T, ItemError>, Error>,
) -> Result<Vec<Result<T, ItemError>>, Error> {
    if results.len() != asked {
        return Err(Error::bad_answer("it has another number of results than were asked for"));
    }
    results.into_iter().map(one).collect()
}

/// What to say where an answer's result is empty.
pub(crate) fn no_outcome() -> Error {
    Error::bad_answer("a result has no outcome")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::class::DataClass;
    use crate::value::SubjectId;

    fn new(value: String, class: &str, subject: Option<String>) -> NewValue {
        let class: DataClass = class.parse().unwrap();
        let subject = subject.map(|id| SubjectId::new(id).unwrap());
        NewValue { class, value: Plaintext::new(value), subject }
    }

    proptest! {
        #[test]
        fn every_item_fills_its_bucket(length in 0_usize..70_000, class in "[a-z]{1,32}", subject in "[a-z]{1,256}") {
            let item = item(new("x".repeat(length), &class, Some(subject)));
            prop_assert_eq!(item.encoded_len() % BUCKET, 0);
        }

        #[test]
        fn every_value_fills_its_bucket(length in 0_usize..70_000) {
            let value = value(Plaintext::new("x".repeat(length)));
            prop_assert_eq!(value.encoded_len() % BUCKET, 0);
            prop_assert_eq!(value.data.len(), length);
        }
    }

    #[test]
    fn short_values_of_all_lengths_and_classes_look_alike() {
        for length in 1..=30 {
            for class in ["zip", "ssn", "member_id"] {
                assert_eq!(item(new("x".repeat(length), class, None)).encoded_len(), BUCKET);
            }
        }
    }

    #[test]
    fn parts_keep_order_and_bounds_and_lose_nothing() {
        let cut = parts((0..10).collect(), 4, 1000, |_| 1);
        assert_eq!(cut, vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        let cut = parts(vec![5, 5, 50, 5], 10, 10, |n| *n);
        assert_eq!(cut, vec![vec![5, 5], vec![50], vec![5]]);
        assert!(parts(Vec::<usize>::new(), 4, 4, |_| 1).is_empty());
    }
}
