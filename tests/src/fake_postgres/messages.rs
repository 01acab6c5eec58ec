//! Messages, as <https://www.postgresql.org/docs/18/protocol-message-formats.html> has them:
//! `tag(1) | length(4), itself included | body`.

use super::Oid;

/// The bytes of one message.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// The start of one that is said to have 2 GiB.
pub(super) fn huge(tag: u8) -> Vec<u8> {
    [&[tag], &i32::MAX.to_be_bytes()[..]].concat()
}

/// A request for authentication: 0 nothing, 10 SASL, 11 and 12 its second and last message.
pub(super) fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], body].concat())
}

/// What a server says to somebody it lets in.
pub(super) fn welcome() -> Vec<u8> {
    let parameter = |name: &str, value: &str| message(b'S', format!("{name}\0{value}\0").as_bytes());
    [
        authentication(0, &[]),
        parameter("server_version", "18.4"),
        parameter("server_encoding", "UTF8"),
        parameter("client_encoding", "UTF8"),
        parameter("standard_conforming_strings", "on"),
        parameter("in_hot_standby", "off"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        ready(),
    ]
    .concat()
}

/// The next statement may come.
pub(super) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A statement is done.
pub(super) fn complete() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

/// Types of parameters.
pub(super) fn parameters(types: &[Oid]) -> Vec<u8> {
    let types = types.iter().flat_map(|oid| oid.to_be_bytes());
    message(b't', &counted(types))
}

/// Names and types of columns.
pub(super) fn columns(types: &[Oid]) -> Vec<u8> {
    let columns = types.iter().flat_map(|oid| {
        let name = b"column\0".to_vec();
        let (table, attribute, format) = ([0; 4], [0; 2], [0, 1]);
        let (length, modifier) = ((-1_i16).to_be_bytes(), (-1_i32).to_be_bytes());
        [name, table.to_vec(), attribute.to_vec(), oid.to_be_bytes().to_vec(), length.to_vec()]
            .into_iter()
            .chain([modifier.to_vec(), format.to_vec()])
            .flatten()
    });
    let body: Vec<u8> = columns.collect();
    let count = u16::try_from(types.len()).expect("few columns");
    message(b'T', &[&count.to_be_bytes()[..], &body].concat())
}

/// A row of values: the length that is said, and the bytes that follow.
pub(super) fn row(values: &[(i32, &[u8])]) -> Vec<u8> {
    let count = u16::try_from(values.len()).expect("few columns");
    let mut body = count.to_be_bytes().to_vec();
    for (length, bytes) in values {
        body.extend(length.to_be_bytes());
        body.extend(*bytes);
    }
    message(b'D', &body)
}

/// An error that ends the connection.
pub(super) fn error(text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0CXX000\0M{text}\0\0").as_bytes())
}

fn counted(bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.collect();
    let count = u16::try_from(bytes.len() / 4).expect("few parameters");
    [&count.to_be_bytes()[..], &bytes].concat()
}
