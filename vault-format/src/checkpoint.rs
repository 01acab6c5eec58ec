//! Checkpoints: C2SP tlog-checkpoint v1 (<https://c2sp.org/tlog-checkpoint>), what a log signs of itself.
//!
//! ```text
//! <origin>\n<size in decimal>\n<base64(root)>\n
//! ```
//!
//! The origin names the log, and is the name of its key. This log writes no extension lines, so none is
//! accepted: whatever has been signed is understood whole.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::history::Verifiers;
use crate::note::{self, NoteError, Signer};
use crate::tree::Hash;

/// The state of a log at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// Root of the tree of those entries.
    pub root: Hash,
}

/// Why a checkpoint is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Its signature, or its form as a note.
    #[error("checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The signed text is not a checkpoint.
    #[error("checkpoint: its text is not origin, size and root")]
    Malformed,
    /// It is of another log than its key.
    #[error("checkpoint: its origin is not the name of its key")]
    Origin,
    /// It is signed by keys alone that are marked as compromised, or by those before them.
    #[error("checkpoint: signed only by a key that is marked as compromised, or by one before it")]
    Compromised,
    /// It has signatures that were not checked.
    #[error("checkpoint: {count} signatures by unknown keys")]
    UnknownSignatures {
        /// How many.
        count: usize,
    },
}

impl Checkpoint {
    /// Its text.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root.0))
    }

    /// Parses a text, in its only written form. Says nothing about who signed it: see [`Checkpoint::open`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed);
        };
        let size = size.parse().map_err(|_| CheckpointError::Malformed)?;
        let root = BASE64_STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = Hash(root.ok_or(CheckpointError::Malformed)?);
        let checkpoint = Self { origin: origin.to_owned(), size, root };
        // The one written form: this settles signs and leading zeros.
        if !origin.is_empty() && checkpoint.text() == text {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::Malformed)
        }
    }

    /// Checks the signatures of a signed checkpoint, and reads it. Signatures of others are ignored.
    pub fn open(signed: &str, by: impl Into<Verifiers>) -> Result<Self, CheckpointError> {
        Self::open_counting(signed, &by.into()).map(|(checkpoint, _)| checkpoint)
    }

    /// As [`Checkpoint::open`], and refuses signatures that were not checked.
    pub fn open_strict(signed: &str, by: impl Into<Verifiers>) -> Result<Self, CheckpointError> {
        match Self::open_counting(signed, &by.into())? {
            (checkpoint, 0) => Ok(checkpoint),
            (_, count) => Err(CheckpointError::UnknownSignatures { count }),
        }
    }

    /// The signed checkpoint.
    pub fn sign(&self, signer: &Signer) -> Result<String, NoteError> {
        signer.sign(&self.text())
    }

    /// The checkpoint, and how many of its signatures are not needed.
    fn open_counting(signed: &str, by: &Verifiers) -> Result<(Self, usize), CheckpointError> {
        let known: Vec<_> = by.all().cloned().collect();
        let note = note::open(signed, &known)?;
        let checkpoint = Self::parse(note.text)?;
        if by.all().any(|verifier| checkpoint.origin != verifier.name()) {
            return Err(CheckpointError::Origin);
        }
        let signatures_by = |key| note::open(signed, std::slice::from_ref(key)).map_or(0, |note| note.known);
        if by.accepted.iter().all(|key| signatures_by(key) == 0) {
            return Err(CheckpointError::Compromised);
        }
        // One signature by each of the log's own keys is all there is to say; more would be bytes without meaning.
        let twice: usize = known.iter().map(|key| signatures_by(key).saturating_sub(1)).sum();
        Ok((checkpoint, note.unknown + twice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "phi-vault/dev/0".into(), size: 1_234_567, root: Hash::leaf(b"x") }
    }

    #[test]
    fn text_has_three_lines_and_parses_to_itself() {
        let text = checkpoint().text();
        assert!(text.starts_with("phi-vault/dev/0\n1234567\n"));
        assert_eq!(text.lines().count(), 3);
        assert_eq!(Checkpoint::parse(&text), Ok(checkpoint()));
    }

    #[test]
    fn other_spellings_are_refused() {
        let root = BASE64_STANDARD.encode([0; 32]);
        for bad in [
            String::new(),
            "o\n1\n".into(),
            format!("o\n1\n{root}"),
            format!("\n1\n{root}\n"),
            format!("o\n01\n{root}\n"),
            format!("o\n+1\n{root}\n"),
            format!("o\n-1\n{root}\n"),
            format!("o\n18446744073709551616\n{root}\n"),
            format!("o\n1\n{}\n", &root[..40]),
            format!("o\n1\n{root}\nextension\n"),
        ] {
            assert_eq!(Checkpoint::parse(&bad), Err(CheckpointError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn opens_only_with_the_key_of_its_origin() {
        let signer = Signer::from_seed("phi-vault/dev/0", &[1; 32]).unwrap();
        let signed = checkpoint().sign(&signer).unwrap();
        assert_eq!(Checkpoint::open_strict(&signed, signer.verifier()), Ok(checkpoint()));

        let other = Signer::from_seed("phi-vault/dev/1", &[1; 32]).unwrap();
        let mixed = checkpoint().sign(&other).unwrap();
        assert_eq!(Checkpoint::open(&mixed, other.verifier()), Err(CheckpointError::Origin));
        assert_eq!(Checkpoint::open(&mixed, signer.verifier()), Err(NoteError::Unsigned.into()));
    }

    #[test]
    fn only_the_strict_reading_refuses_cosignatures() {
        let signer = Signer::from_seed("phi-vault/dev/0", &[1; 32]).unwrap();
        let witness = Signer::from_seed("witness", &[2; 32]).unwrap();
        let signed = checkpoint().sign(&signer).unwrap();
        let cosigned = signed + checkpoint().sign(&witness).unwrap().rsplit_once("\n\n").unwrap().1;
        assert_eq!(Checkpoint::open(&cosigned, signer.verifier()), Ok(checkpoint()));
        let refused = Checkpoint::open_strict(&cosigned, signer.verifier());
        assert_eq!(refused, Err(CheckpointError::UnknownSignatures { count: 1 }));
    }
}
