//! Signatures of deliveries, as Standard Webhooks has them (standardwebhooks.com, "Verifying signatures", symmetric):
//!
//! ```text
//! webhook-signature  v1,base64(HMAC-SHA256(secret, id "." timestamp "." body)) for each secret, a space between
//! secret file        a line for each: "whsec_" base64(24 to 64 bytes)
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What each secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// More than this is no file of secrets.
const MOST: usize = 8;

/// The secrets that deliveries are signed with; at least one.
pub(super) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

/// Why a file is not one of secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// It can't be read.
    #[error("{}: can't be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anybody can read it.
    #[error("{}: others can read these secrets (chmod o-rwx)", file.display())]
    Exposed {
        /// Which.
        file: PathBuf,
    },
    /// It is not what it should be.
    #[error("{}: no lines of \"whsec_\" and the base64 of 24 to 64 bytes, 1 to 8", file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
    },
}

impl Secrets {
    /// Reads the file.
    pub(super) fn read(file: &Path) -> Result<Self, SecretsError> {
        let failed = |source| SecretsError::Read { file: file.to_owned(), source };
        let mode = std::fs::metadata(file).map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(SecretsError::Exposed { file: file.to_owned() });
        }
        let text = Zeroizing::new(std::fs::read(file).map_err(failed)?);
        Self::parse(&text).ok_or_else(|| SecretsError::Malformed { file: file.to_owned() })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(text).ok()?.lines().map(str::trim).filter(|line| !line.is_empty());
        let secret = |line: &str| {
            let bytes = STANDARD.decode(line.strip_prefix(PREFIX)?).map(Zeroizing::new).ok()?;
            LENGTHS.contains(&bytes.len()).then_some(bytes)
        };
        let secrets: Vec<_> = lines.map(secret).collect::<Option<_>>()?;
        (1..=MOST).contains(&secrets.len()).then_some(Self(secrets))
    }

    /// The header of a delivery; `seconds` since 1970.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let signature = |secret: &Zeroizing<Vec<u8>>| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test suite of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn sign(secrets: &str) -> String {
        let secrets = Secrets::parse(secrets.as_bytes()).unwrap();
        secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}")
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        assert_eq!(sign(SECRET), SIGNED);
        let two = sign(&format!("\n{SECRET}\nwhsec_{}\n", STANDARD.encode([7; 24])));
        assert_eq!(two.split(' ').count(), 2);
        assert!(two.starts_with(SIGNED) && two.split(' ').all(|one| one.starts_with("v1,")), "{two}");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let of = |len: usize| format!("whsec_{}", STANDARD.encode(vec![1; len]));
        assert!(Secrets::parse(of(24).as_bytes()).is_some() && Secrets::parse(of(64).as_bytes()).is_some());
        let many = vec![of(24); 9].join("\n");
        for bad in ["", "\n", "secret", "whsec_", "whsec_???", &of(23), &of(65), &SECRET[6..], &many] {
            assert!(Secrets::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Secrets::parse(format!("{SECRET}\nrubbish").as_bytes()).is_none());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, SECRET).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(Secrets::read(&file), Err(SecretsError::Exposed { .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Secrets::read(&file).is_ok());
    }
}
