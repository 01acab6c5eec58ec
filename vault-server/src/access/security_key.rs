//! The public half of a FIDO2/U2F security key, as OpenSSH writes it (PROTOCOL.u2f):
//!
//! ```text
//! line         kind ' ' base64(blob) (' ' comment)?
//! blob         string kind | string Ed25519 key (32) | string application
//! blob         string kind | string "nistp256" | string point (65, uncompressed) | string application
//! fingerprint  "SHA256:" base64, without padding, of SHA-256(blob)
//! ```
//!
//! Two kinds, both in hardware: a key in a file is no second factor.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};

use crate::access::ssh::Reader;

/// The longest line.
const MAX_LINE: usize = 2048;
/// The most characters of a label.
const MAX_LABEL: usize = 128;
/// The longest application.
const MAX_APPLICATION: usize = 128;
const CURVE: &[u8] = b"nistp256";

/// The kinds of keys that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityKeyKind {
    /// `ssh-keygen -t ed25519-sk`.
    Ed25519,
    /// `ssh-keygen -t ecdsa-sk`.
    EcdsaP256,
}

impl SecurityKeyKind {
    /// OpenSSH's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "sk-ssh-ed25519@openssh.com",
            Self::EcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        [Self::Ed25519, Self::EcdsaP256].into_iter().find(|kind| kind.as_str().as_bytes() == name)
    }
}

/// SHA-256 of a key's blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    const LEAD: &str = "SHA256:";

    /// From its text, exactly as [`Display`](fmt::Display) writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::LEAD)?;
        BASE64_STANDARD_NO_PAD.decode(digits).ok()?.try_into().ok().map(Self)
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::LEAD, BASE64_STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not the public half of a security key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSecurityKey {
    /// Not one line of OpenSSH.
    Line,
    /// A key of another kind.
    Kind,
    /// A key that is in a file.
    InFile,
    /// A certificate.
    Certificate,
    /// What is in it is not a key of its kind.
    Blob,
    /// A point that is not on the curve, or that nobody owns.
    Point,
    /// Not made for SSH.
    Application,
    /// The comment can't be a label.
    Label,
}

impl InvalidSecurityKey {
    /// The rule that it breaks.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Line => "one line as in the .pub file of `ssh-keygen -t ed25519-sk`",
            Self::Kind => "a key of sk-ssh-ed25519@openssh.com or sk-ecdsa-sha2-nistp256@openssh.com",
            Self::InFile => {
                "a security key's: ssh-ed25519, ecdsa-sha2-*, ssh-rsa and ssh-dss are keys in files"
            }
            Self::Certificate => "a key, not a certificate",
            Self::Blob => "a key of the kind it says",
            Self::Point => "a point on its curve",
            Self::Application => {
                "made for an application that begins with ssh: and has at most 128 printable characters"
            }
            Self::Label => {
                "labelled by a comment of at most 128 characters, none of them a control character"
            }
        }
    }
}

impl fmt::Display for InvalidSecurityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())
    }
}

impl std::error::Error for InvalidSecurityKey {}

/// The point that verifies.
#[derive(Clone)]
pub(super) enum Point {
    Ed25519(VerifyingKey),
    /// Uncompressed.
    EcdsaP256([u8; 65]),
}

/// The public half of a security key.
#[derive(Clone)]
pub struct SecurityKey {
    blob: Vec<u8>,
    kind: SecurityKeyKind,
    pub(super) point: Point,
    pub(super) application: Vec<u8>,
}

impl SecurityKey {
    /// From the line of a `.pub` file; the comment is the label, and may be missing.
    pub fn parse_line(text: &str) -> Result<(Self, String), InvalidSecurityKey> {
        use InvalidSecurityKey as E;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.len() > MAX_LINE {
            return Err(E::Line);
        }
        let mut parts = line.splitn(3, ' ');
        let (name, encoded) = (parts.next().unwrap_or_default(), parts.next());
        let kind = SecurityKeyKind::parse(name.as_bytes()).ok_or_else(|| other_kind(name))?;
        let blob = BASE64_STANDARD.decode(encoded.ok_or(E::Line)?).map_err(|_| E::Line)?;
        let key = Self::from_blob(&blob)?;
        if key.kind != kind {
            return Err(E::Blob);
        }
        let label = parts.next().unwrap_or_default().trim();
        if label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(E::Label);
        }
        Ok((key, label.to_owned()))
    }

    /// From its blob.
    pub fn from_blob(blob: &[u8]) -> Result<Self, InvalidSecurityKey> {
        use InvalidSecurityKey as E;
        let mut reader = Reader::new(blob);
        let name = reader.string().ok_or(E::Blob)?;
        let kind = SecurityKeyKind::parse(name)
            .ok_or_else(|| std::str::from_utf8(name).map_or(E::Kind, other_kind))?;
        let point = match kind {
            SecurityKeyKind::Ed25519 => {
                let bytes = reader.string().and_then(|bytes| bytes.try_into().ok()).ok_or(E::Blob)?;
                let key = VerifyingKey::from_bytes(bytes).map_err(|_| E::Point)?;
                // Of a point of small order anybody signs.
                if key.is_weak() {
                    return Err(E::Point);
                }
                Point::Ed25519(key)
            }
            SecurityKeyKind::EcdsaP256 => {
                if reader.string() != Some(CURVE) {
                    return Err(E::Blob);
                }
                let bytes: [u8; 65] =
                    reader.string().and_then(|bytes| bytes.try_into().ok()).ok_or(E::Blob)?;
                if bytes[0] != 4 || ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).is_err() {
                    return Err(E::Point);
                }
                Point::EcdsaP256(bytes)
            }
        };
        let application = reader.string().ok_or(E::Blob)?;
        reader.end().ok_or(E::Blob)?;
        let printable = application.iter().all(u8::is_ascii_graphic);
        if !application.starts_with(b"ssh:") || application.len() > MAX_APPLICATION || !printable {
            return Err(E::Application);
        }
        Ok(Self { blob: blob.to_vec(), kind, point, application: application.to_vec() })
    }

    /// Which kind.
    pub fn kind(&self) -> SecurityKeyKind {
        self.kind
    }

    /// The key as it is in the line.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// What it is called by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.blob).into())
    }

    /// The line of a `.pub` file.
    pub fn line(&self, label: &str) -> String {
        let line = format!("{} {}", self.kind.as_str(), BASE64_STANDARD.encode(&self.blob));
        if label.is_empty() { line } else { format!("{line} {label}") }
    }
}

impl PartialEq for SecurityKey {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl Eq for SecurityKey {}

impl fmt::Debug for SecurityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecurityKey({})", self.fingerprint())
    }
}

/// What is wrong with a key of a kind that is not taken.
fn other_kind(name: &str) -> InvalidSecurityKey {
    match name {
        "ssh-ed25519" | "ssh-rsa" | "ssh-dss" => InvalidSecurityKey::InFile,
        name if name.starts_with("ecdsa-sha2-") && !name.contains('@') => InvalidSecurityKey::InFile,
        name if name.ends_with("-cert-v01@openssh.com") => InvalidSecurityKey::Certificate,
        // An empty line, options before the key, a private key.
        name if name.is_empty() || !name.is_ascii() || name.starts_with('-') => InvalidSecurityKey::Line,
        _ => InvalidSecurityKey::Kind,
    }
}

#[cfg(test)]
#[path = "security_key_tests.rs"]
mod tests;
