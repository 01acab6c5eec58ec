//! STUB, to be replaced: the final module has Crockford base32 and a checksum.
use crate::environment::Environment;

/// The public name of a record: 128 random bits. Means nothing; safe to store and to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// Text form: `phi_<environment>_` + 26 characters + check characters.
    pub fn encode(&self, environment: &Environment) -> String {
        format!("phi_{environment}_{}", hex::encode(self.0))
    }
    /// Parses and checks a token of `environment`.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, TokenError> {
        let (token, of) = Self::parse_any(text)?;
        if of == *environment { Ok(token) } else { Err(TokenError::Environment) }
    }
    /// Parses and checks a token of any environment.
    pub fn parse_any(text: &str) -> Result<(Self, Environment), TokenError> {
        let rest = text.strip_prefix("phi_").ok_or(TokenError::Malformed)?;
        let (env, body) = rest.split_once('_').ok_or(TokenError::Malformed)?;
        let env = Environment::parse(env).map_err(|_| TokenError::Malformed)?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(body, &mut bytes).map_err(|_| TokenError::Malformed)?;
        Ok((Self(bytes), env))
    }
}
