//! Tokens: the public names of records, parsed and checked offline.
//!
//! ```text
//! phi_<environment>_<value: 26 characters><check: 6 characters>
//! ```
//!
//! * The alphabet is Crockford's base32 in lower case: `0123456789abcdefghjkmnpqrstvwxyz` (no `i`, `l`, `o`, `u`).
//! * value: the 16 random bytes as one big-endian number, 5 bits a character, the highest first. 26 characters have
//!   130 bits; the two highest are zero, so the first character is `0` to `7`.
//! * check: the first 30 bits of `SHA-256("phi-vault/token/1" | length of environment(1) | environment | bytes(16))`,
//!   the same way.
//!
//! One token has one spelling: upper case, Crockford's aliases (`o` for `0`, `i` and `l` for `1`) and hyphens are
//! refused. A mistyped token passes with a chance of 2^-30.
//!
//! The check is no secret and no proof: anyone can make a token that parses. Only the vault knows which ones name a
//! record.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::environment::Environment;

/// The public name of a record: 128 random bits. Means nothing; safe to store and to log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token([u8; 16]);

/// Why a text is not a token of this environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form of a token.
    #[error("not a token")]
    Malformed,
    /// Of the form, but its check characters do not hold: mistyped.
    #[error("mistyped token: its check characters do not match")]
    Checksum,
    /// A good token of another environment.
    #[error("token of another environment")]
    Environment,
}

impl Token {
    /// From its 128 random bits.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 128 bits.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Text form.
    pub fn encode(&self, environment: &Environment) -> String {
        let environment = environment.as_str();
        let mut text =
            String::with_capacity(PREFIX.len() + environment.len() + 1 + VALUE_CHARS + CHECK_CHARS);
        text.push_str(PREFIX);
        text.push_str(environment);
        text.push('_');
        push_base32(&mut text, u128::from_be_bytes(self.0), VALUE_CHARS);
        push_base32(&mut text, u128::from(self.check(environment)), CHECK_CHARS);
        text
    }

    /// Parses and checks a token of `environment`.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, TokenError> {
        let (of, body) = split(text)?;
        if of == environment.as_str() {
            return Self::parse_body(body, of);
        }
        Environment::parse(of).map_err(|_| TokenError::Malformed)?;
        Self::parse_body(body, of).and(Err(TokenError::Environment))
    }

    /// Parses and checks a token of any environment.
    pub fn parse_any(text: &str) -> Result<(Self, Environment), TokenError> {
        let (of, body) = split(text)?;
        let environment = Environment::parse(of).map_err(|_| TokenError::Malformed)?;
        Ok((Self::parse_body(body, of)?, environment))
    }

    fn parse_body(body: &str, environment: &str) -> Result<Self, TokenError> {
        let (value, check) = body.as_bytes().split_at_checked(VALUE_CHARS).ok_or(TokenError::Malformed)?;
        if check.len() != CHECK_CHARS || value[0] > HIGHEST_FIRST {
            return Err(TokenError::Malformed);
        }
        let token = Self(parse_base32(value)?.to_be_bytes());
        if parse_base32(check)? == u128::from(token.check(environment)) {
            Ok(token)
        } else {
            Err(TokenError::Checksum)
        }
    }

    fn check(&self, environment: &str) -> u32 {
        let length = u8::try_from(environment.len()).expect("an environment's name is at most 16 bytes");
        let mut hash = Sha256::new();
        hash.update(CHECK_LABEL);
        hash.update([length]);
        hash.update(environment);
        hash.update(self.0);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        u32::from_be_bytes([a, b, c, d]) >> 2
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:032x})", u128::from_be_bytes(self.0))
    }
}

const PREFIX: &str = "phi_";
const CHECK_LABEL: &[u8] = b"phi-vault/token/1";
const VALUE_CHARS: usize = 26;
const CHECK_CHARS: usize = 6;
/// The first character carries the three bits that 25 others leave of 128.
const HIGHEST_FIRST: u8 = b'7';
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const NOT_A_DIGIT: u8 = 0xFF;
const DIGITS: [u8; 256] = digits();

const fn digits() -> [u8; 256] {
    let mut table = [NOT_A_DIGIT; 256];
    let mut digit = 0;
    while digit < ALPHABET.len() {
        table[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
}

/// Splits a token's text into the name of its environment and the rest.
fn split(text: &str) -> Result<(&str, &str), TokenError> {
    text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(TokenError::Malformed)
}

fn push_base32(text: &mut String, number: u128, characters: usize) {
    for place in (0..characters).rev() {
        let digit = (number >> (5 * place)) & 31;
        text.push(char::from(ALPHABET[digit as usize]));
    }
}

fn parse_base32(text: &[u8]) -> Result<u128, TokenError> {
    text.iter().try_fold(0, |number, character| match DIGITS[usize::from(*character)] {
        NOT_A_DIGIT => Err(TokenError::Malformed),
        digit => Ok((number << 5) | u128::from(digit)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by another implementation; a token that was given out must parse forever.
    const VECTORS: &str = include_str!("token_vectors.txt");

    fn environment(name: &str) -> Environment {
        Environment::parse(name).unwrap()
    }

    fn tokens() -> impl Strategy<Value = (Token, Environment)> {
        (any::<[u8; 16]>(), "[a-z][a-z0-9]{0,15}")
            .prop_map(|(bytes, name)| (Token::from_bytes(bytes), environment(&name)))
    }

    #[test]
    fn vectors_encode_and_parse() {
        let lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in lines {
            let [name, bytes, text] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let mut expected = [0; 16];
            hex::decode_to_slice(bytes, &mut expected).unwrap();
            let token = Token::from_bytes(expected);
            assert_eq!(token.encode(&environment(name)), text);
            assert_eq!(Token::parse(text, &environment(name)), Ok(token));
            count += 1;
        }
        assert!(count >= 5);
    }

    #[test]
    fn only_the_one_spelling_parses() {
        let prod = environment("prod");
        let good = Token::from_bytes([0x01; 16]).encode(&prod);
        assert!(Token::parse(&good, &prod).is_ok());
        let body = good.strip_prefix("phi_prod_").unwrap();
        for bad in [
            String::new(),
            good.to_uppercase(),
            format!("phi_prod_{}", body.to_uppercase()),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}\n"),
            format!("{good}0"),
            format!("phi_{body}"),
            format!("phi__{body}"),
            format!("phi_prod__{body}"),
            format!("phi_PROD_{body}"),
            format!("phi_2prod_{body}"),
            format!("phi_{}_{body}", "a".repeat(17)),
            format!("PHI_prod_{body}"),
            good.replacen('0', "o", 1),
            good.replacen('0', "O", 1),
            good.replacen('1', "i", 1),
            good.replacen('1', "l", 1),
            good[..good.len() - 1].to_owned(),
            format!("phi_prod_8{}", &body[1..]),
            format!("phi_prod_{}é", &body[..body.len() - 2]),
            format!("phi_prod_{}é{}", &body[..25], &body[27..]),
        ] {
            assert_eq!(Token::parse(&bad, &prod), Err(TokenError::Malformed), "{bad:?}");
            assert_eq!(Token::parse_any(&bad).err(), Some(TokenError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_good_token_of_another_environment_is_told_from_a_mistyped_one() {
        let (prod, qa) = (environment("prod"), environment("qa"));
        let token = Token::from_bytes([7; 16]);
        let text = token.encode(&qa);
        assert_eq!(Token::parse(&text, &prod), Err(TokenError::Environment));
        assert_eq!(Token::parse_any(&text), Ok((token, qa)));
        let renamed = text.replacen("phi_qa_", "phi_prod_", 1);
        assert_eq!(Token::parse(&renamed, &prod), Err(TokenError::Checksum));
    }

    proptest! {
        #[test]
        fn every_token_comes_back((token, of) in tokens()) {
            let text = token.encode(&of);
            prop_assert_eq!(text.len(), 4 + of.as_str().len() + 1 + 32);
            prop_assert_eq!(Token::parse(&text, &of), Ok(token));
            prop_assert_eq!(Token::parse_any(&text), Ok((token, of)));
        }

        #[test]
        fn every_substitution_of_one_character_is_refused((token, of) in tokens()) {
            let text = token.encode(&of);
            for place in 0..text.len() {
                for other in (b'!'..=b'~').filter(|other| *other != text.as_bytes()[place]) {
                    let mut bad = text.clone().into_bytes();
                    bad[place] = other;
                    let bad = String::from_utf8(bad).unwrap();
                    prop_assert!(Token::parse_any(&bad).is_err(), "{} passes for {}", bad, text);
                }
            }
        }

        #[test]
        fn every_transposition_of_neighbours_is_refused((token, of) in tokens()) {
            let text = token.encode(&of);
            for place in 1..text.len() {
                let mut bad = text.clone().into_bytes();
                bad.swap(place - 1, place);
                let bad = String::from_utf8(bad).unwrap();
                prop_assert!(bad == text || Token::parse_any(&bad).is_err(), "{} passes for {}", bad, text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Token::parse_any(&text);
            let _ = Token::parse_any(&format!("phi_prod_{text}"));
        }
    }
}
