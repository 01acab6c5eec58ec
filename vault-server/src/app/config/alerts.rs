//! `[alerts]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::units;

/// `[alerts]`: where alerts go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// The receiver's URL. `None`: alerts are lines of the operator's log alone.
    pub webhook: Option<String>,
    /// File of the secrets that deliveries are signed with.
    pub secret_file: Option<PathBuf>,
    /// PEM certificates of the authorities that issue the receiver's certificate; those of the machine if unset.
    pub ca: Option<PathBuf>,
    /// How long a delivery may take.
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// After how long of trying an alert is given up.
    #[serde(deserialize_with = "units::duration")]
    pub give_up_after: Duration,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            webhook: None,
            secret_file: None,
            ca: None,
            timeout: Duration::from_secs(5),
            give_up_after: Duration::from_hours(72),
        }
    }
}

impl Alerts {
    /// Makes relative paths relative to the file's directory.
    pub(super) fn resolve(&mut self, dir: &Path) {
        for path in [&mut self.secret_file, &mut self.ca].into_iter().flatten() {
            *path = dir.join(&*path);
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |option, why: &str| Err((option, why.to_owned()));
        match &self.webhook {
            Some(url) if receiver(url).is_none() => {
                return refuse(
                    "alerts.webhook",
                    "must be https://HOST[:PORT]/PATH, without a user or a fragment",
                );
            }
            Some(_) if self.secret_file.is_none() => {
                return refuse(
                    "alerts.secret_file",
                    "is needed: without a signature a receiver can't tell who calls",
                );
            }
            None if self.secret_file.is_some() || self.ca.is_some() => {
                return refuse("alerts.webhook", "is needed where there is a secret_file or a ca");
            }
            Some(_) | None => {}
        }
        if !(Duration::from_millis(100)..=Duration::from_mins(1)).contains(&self.timeout) {
            return refuse("alerts.timeout", "must be \"100ms\" to \"1m\"");
        }
        if self.give_up_after < Duration::from_secs(1) {
            return refuse("alerts.give_up_after", "must be at least \"1s\"");
        }
        Ok(())
    }
}

/// The receiver's address, if deliveries may go there: TLS, or this very machine.
pub fn receiver(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let protected = match uri.scheme_str()? {
        "https" => true,
        "http" => authority.host() == "127.0.0.1",
        _ => false,
    };
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty() && !url.contains('#');
    (protected && plain).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_go_over_tls_or_stay_on_the_machine() {
        for good in
            ["https://alerts.example.org/vault", "https://10.0.0.1:8443/?a=b", "http://127.0.0.1:80/x"]
        {
            assert!(receiver(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "alerts.example.org",
            "/vault",
            "http://alerts.example.org/",
            "http://localhost/",
            "http://127.0.0.1.example.org/",
            "http://127.0.0.1@example.org/",
            "https://user:word@example.org/",
            "https://example.org/#part",
            "ftp://127.0.0.1/",
        ] {
            assert!(receiver(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_webhook_has_a_secret_and_a_secret_has_a_webhook() {
        let section = |text: &str| toml::from_str::<Alerts>(text).unwrap().check();
        let both = "webhook = \"https://a.example/\"\nsecret_file = \"s\"\n";
        assert_eq!(section(both), Ok(()));
        assert_eq!(section("webhook = \"https://a.example/\"").unwrap_err().0, "alerts.secret_file");
        assert_eq!(section("secret_file = \"s\"").unwrap_err().0, "alerts.webhook");
        assert_eq!(
            section("webhook = \"http://a.example/\"\nsecret_file = \"s\"").unwrap_err().0,
            "alerts.webhook"
        );
        assert_eq!(section(&format!("{both}timeout = \"2m\"")).unwrap_err().0, "alerts.timeout");
        assert_eq!(section(&format!("{both}give_up_after = \"1ms\"")).unwrap_err().0, "alerts.give_up_after");
    }
}
