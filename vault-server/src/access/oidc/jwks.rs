//! The public keys of an issuer (JWK set, RFC 7517): those that can sign a token and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, DecodingKey};

use super::json::{Json, Object};
use super::token::TokenFault;

/// The most bytes that a set may have.
pub const MAX_SET: usize = 256 * 1024;
/// The most keys that are looked at.
const MAX_KEYS: usize = 64;
/// The most bytes of a key's id.
pub(super) const MAX_KID: usize = 256;
/// Of an RSA modulus, in bytes: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Modulo each of them, what [`is_roca`] looks for is a power of 65537.
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// The keys of an issuer, as it published them together.
#[derive(Default)]
pub struct KeySet(Vec<Key>);

/// A public key that tokens may be signed with.
struct Key {
    id: String,
    kind: Kind,
    /// The one algorithm that it is for, if it says so.
    only: Option<String>,
    decoding: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why a document is not a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    /// Too many bytes.
    #[error("the key set is too large")]
    TooLarge,
    /// Not JSON, not a set, or a name stands twice.
    #[error("not a JWK set")]
    Malformed,
    /// None of its keys can be used.
    #[error("no key in it can be used")]
    Empty,
}

impl KeySet {
    /// Reads a set. Keys that are of no use here (for encryption, of other kinds, without an id) are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKeySet> {
        if bytes.len() > MAX_SET {
            return Err(BadKeySet::TooLarge);
        }
        let set = Object::parse(bytes).ok_or(BadKeySet::Malformed)?;
        let Some(Json::Array(listed)) = set.get("keys") else { return Err(BadKeySet::Malformed) };
        let objects = listed.iter().take(MAX_KEYS).filter_map(|key| match key {
            Json::Object(object) => Key::read(object),
            _ => None,
        });
        let keys: Vec<_> = objects.collect();
        if keys.is_empty() { Err(BadKeySet::Empty) } else { Ok(Self(keys)) }
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one key of this id that is for this algorithm.
    pub(super) fn find(&self, id: &str, algorithm: Algorithm) -> Result<&DecodingKey, TokenFault> {
        let named: Vec<_> = self.0.iter().filter(|key| key.id == id).collect();
        if named.is_empty() {
            return Err(TokenFault::KeyUnknown);
        }
        let mut fitting = named.into_iter().filter(|key| key.is_for(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.decoding),
            _ => Err(TokenFault::Key),
        }
    }
}

impl Key {
    fn read(object: &Object) -> Option<Self> {
        let id = object.text("kid").filter(|id| (1..=MAX_KID).contains(&id.len()))?;
        if object.get("use").is_some() && object.text("use") != Some("sig") {
            return None;
        }
        if let Some(uses) = object.get("key_ops")
            && !uses.texts()?.contains(&"verify")
        {
            return None;
        }
        let only = match object.get("alg") {
            None => None,
            Some(Json::Text(name)) => Some(name.clone()),
            Some(_) => return None,
        };
        let part = |name: &str| BASE64URL.decode(object.text(name)?).ok();
        let (kind, key) = match (object.text("kty")?, object.text("crv")) {
            ("RSA", _) => {
                let (n, e) = (part("n")?, part("e")?);
                if !MODULUS.contains(&n.len()) || !(1..=8).contains(&e.len()) || is_roca(&n) {
                    return None;
                }
                (Kind::Rsa, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (kind, len) = if curve == "P-256" { (Kind::P256, 32) } else { (Kind::P384, 48) };
                if part("x")?.len() != len || part("y")?.len() != len {
                    return None;
                }
                (kind, DecodingKey::from_ec_components(object.text("x")?, object.text("y")?).ok()?)
            }
            ("OKP", Some("Ed25519")) if part("x")?.len() == 32 => {
                (Kind::Ed25519, DecodingKey::from_ed_components(object.text("x")?).ok()?)
            }
            // A symmetric key ("oct") among them: an issuer that publishes a secret has none.
            _ => return None,
        };
        Some(Self { id: id.to_owned(), kind, only, decoding: key })
    }

    /// An algorithm is taken with keys of its own kind only, whatever the token says (RFC 8725 section 3.1).
    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        let kind = match algorithm {
            A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512 => Kind::Rsa,
            A::ES256 => Kind::P256,
            A::ES384 => Kind::P384,
            A::EdDSA => Kind::Ed25519,
            A::HS256 | A::HS384 | A::HS512 => return false,
        };
        let named = |name: &str| super::algorithm(name) == Some(algorithm);
        self.kind == kind && self.only.as_deref().is_none_or(named)
    }
}

/// Whether the modulus is of the kind that a faulty library of Infineon's made in smart cards and TPMs (ROCA,
/// CVE-2017-15361): its factors can be found. By chance a modulus is of that kind once in 2^150.
fn is_roca(modulus: &[u8]) -> bool {
    ROCA_PRIMES.into_iter().all(|prime| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65_537 % prime));
        powers.take(prime as usize).any(|power| power == rest)
    })
}
