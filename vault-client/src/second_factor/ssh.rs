//! What is signed, and what is made of a signature (PROTOCOL.sshsig):
//!
//! ```text
//! signed  "SSHSIG" | string namespace | string "" | string "sha512" | string SHA-512(text)
//! blob    "SSHSIG" | uint32 1 | string key | string namespace | string "" | string "sha512" | string signature
//! ```

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha512};

/// The SSHSIG namespace of second factors.
pub const NAMESPACE: &str = "phi-vault-second-factor";

const MAGIC: &[u8] = b"SSHSIG";
const HASH: &[u8] = b"sha512";
/// As wide as `ssh-keygen` makes a line.
const WIDTH: usize = 70;

/// What the key is to sign for a text.
pub(super) fn to_sign(text: &str) -> Vec<u8> {
    [MAGIC, &common(), &string(&Sha512::digest(text))].concat()
}

/// The signature of a key over [`to_sign`], PEM.
pub(super) fn armored(key: &[u8], signature: &[u8]) -> String {
    let version = 1_u32.to_be_bytes();
    let blob = [MAGIC, &version, &string(key), &common(), &string(signature)].concat();
    let encoded = BASE64_STANDARD.encode(blob);
    let mut rest = encoded.as_str();
    let mut pem = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(WIDTH));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END SSH SIGNATURE-----\n"
}

/// The key in the line of a `.pub` file.
pub(super) fn blob_of(line: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(line.split(' ').nth(1)?).ok()
}

/// A `string` of the SSH protocol.
pub(super) fn string(bytes: &[u8]) -> Vec<u8> {
    // Nothing here comes near 4 GiB.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), bytes].concat()
}

/// Takes a `string` off the front.
pub(super) fn take_string<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(from)?;
    let (taken, rest) = from.split_at_checked(len.try_into().ok()?)?;
    *from = rest;
    Some(taken)
}

/// Takes a `uint32` off the front.
pub(super) fn take_number(from: &mut &[u8]) -> Option<u32> {
    let (number, rest) = from.split_at_checked(4)?;
    *from = rest;
    number.try_into().ok().map(u32::from_be_bytes)
}

fn common() -> Vec<u8> {
    [string(NAMESPACE.as_bytes()), string(b""), string(HASH)].concat()
}
