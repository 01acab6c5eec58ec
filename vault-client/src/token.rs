//! Tokens, checked offline.

use std::fmt;
use std::str::FromStr;

use tonic::Code;
use vault_format::environment::Environment;
use vault_format::token::TokenError;

use crate::error::{ItemError, Reason};

/// The public name of a value: `phi_<environment>_` and 128 random bits with check characters. Means nothing by
/// itself; safe to store, to log and to show.
///
/// Parsing checks it offline, so a mistyped token never costs a call:
///
/// ```
/// use vault_client::{Reason, Token};
/// let error = "phi_dev_hello".parse::<Token>().unwrap_err();
/// assert_eq!(error.reason(), Reason::TokenMalformed);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    text: Box<str>,
    environment: Environment,
}

impl Token {
    /// Its text form, as [`fmt::Display`] gives it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// From the 16 bytes that stand for it in log entries; `None` if they are not 16.
    pub fn from_log(bytes: &[u8], environment: &Environment) -> Option<Self> {
        let token = vault_format::token::Token::from_bytes(bytes.try_into().ok()?);
        Some(Self { text: token.encode(environment).into(), environment: environment.clone() })
    }

    /// The environment of the vault that made it.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl FromStr for Token {
    type Err = ItemError;

    fn from_str(text: &str) -> Result<Self, ItemError> {
        let (token, environment) = vault_format::token::Token::parse_any(text).map_err(explain)?;
        Ok(Self { text: token.encode(&environment).into(), environment })
    }
}

/// What a foreign token is refused with, here as by the vault.
pub(crate) fn foreign() -> ItemError {
    explain(TokenError::Environment)
}

fn explain(error: TokenError) -> ItemError {
    let reason = match error {
        TokenError::Malformed => Reason::TokenMalformed,
        TokenError::Checksum => Reason::TokenChecksum,
        TokenError::Environment => Reason::TokenEnvironment,
    };
    ItemError::of(reason, Code::InvalidArgument)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_through_text() {
        let environment = Environment::parse("qa").unwrap();
        let text = vault_format::token::Token::from_bytes([7; 16]).encode(&environment);
        let token: Token = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
        assert_eq!(token.environment(), &environment);
    }

    #[test]
    fn what_is_not_a_token_is_refused_with_its_reason() {
        for bad in ["", "phi_", "phi_dev_", "tok_dev_x", "phi_DEV_0000"] {
            assert_eq!(bad.parse::<Token>().unwrap_err().reason(), Reason::TokenMalformed, "{bad:?}");
        }
    }
}
