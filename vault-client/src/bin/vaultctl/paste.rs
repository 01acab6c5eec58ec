//! Commands that people paste: into the terminal they sit at, or into a chat for somebody else.

use std::path::{Path, PathBuf};

/// What somebody else puts in place of a name that only that person knows.
const THEIR_PROFILE: &str = "YOUR_PROFILE";
const THEIR_NAME: &str = "YOUR_NAME";

/// How the vault and the identity were named on this command line. What the environment named is not repeated: it names them
/// for the next command, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paste {
    pub(crate) profile: Option<PathBuf>,
    pub(crate) identity: Option<String>,
}

impl Paste {
    /// A command for who typed this one: it works as it is.
    pub(crate) fn mine(&self, tenant: &str, command: &str) -> String {
        let profile = self.profile.as_deref().map(Path::to_string_lossy);
        line(profile.as_deref(), self.identity.as_deref(), tenant, command)
    }

    /// A command for somebody else. Where this one had to name a profile or an identity, that one has to name its own.
    pub(crate) fn theirs(&self, tenant: &str, command: &str) -> String {
        let profile = self.profile.as_ref().map(|_| THEIR_PROFILE);
        let identity = self.identity.as_ref().map(|_| THEIR_NAME);
        line(profile, identity, tenant, command)
    }

    /// What somebody else has to know about [`Paste::theirs`], as a shell's comment; empty if it works as it is.
    pub(crate) fn legend(&self) -> String {
        let names = match (&self.profile, &self.identity) {
            (None, None) => return String::new(),
            (Some(_), None) => format!("{THEIR_PROFILE} is your own profile"),
            (None, Some(_)) => format!("{THEIR_NAME} is your own identity in the profile"),
            (Some(_), Some(_)) => {
                format!("{THEIR_PROFILE} is your own profile, {THEIR_NAME} your identity in it")
            }
        };
        format!("    # {names}")
    }

    /// [`Paste::theirs`] with its legend.
    pub(crate) fn theirs_told(&self, tenant: &str, command: &str) -> String {
        format!("    {}\n{}", self.theirs(tenant, command), self.legend()).trim_end().to_owned()
    }
}

/// Tells people something, on standard error. Indented lines are commands: nothing stands before them, so that they can be
/// copied as they are.
pub(crate) fn tell(text: &str) {
    for line in text.lines() {
        if line.starts_with("    ") { eprintln!("{line}") } else { eprintln!("vaultctl: {line}") }
    }
}

/// So many of them.
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn line(profile: Option<&str>, identity: Option<&str>, tenant: &str, command: &str) -> String {
    let options = [("--profile", profile), ("--as", identity), ("--tenant", Some(tenant))];
    let mut line = "vaultctl".to_owned();
    for (name, value) in options {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line.extend([" ", name, " ", &quoted(value)]);
        }
    }
    line + " " + command
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_for_oneself_names_what_this_one_named() {
        let paste = Paste { profile: Some("my vault/p.toml".into()), identity: Some("ann".to_owned()) };
        assert_eq!(
            paste.mine("demo", "break-glass close 0123"),
            "vaultctl --profile 'my vault/p.toml' --as ann --tenant demo break-glass close 0123"
        );
        assert_eq!(Paste::default().mine("*", "jobs list"), "vaultctl --tenant '*' jobs list");
        assert_eq!(Paste::default().mine("", "jobs list"), "vaultctl jobs list");
    }

    #[test]
    fn a_command_for_somebody_else_has_nobody_elses_name_in_it() {
        let paste = Paste { profile: Some("ann.toml".into()), identity: Some("ann".to_owned()) };
        let told = paste.theirs_told("demo", "break-glass approve 0123");
        assert!(!told.contains("ann"), "{told}");
        for part in ["--profile YOUR_PROFILE --as YOUR_NAME --tenant demo", "# YOUR_PROFILE is your own"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(Paste::default().theirs_told("demo", "x"), "    vaultctl --tenant demo x");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("st-mary"), "st-mary");
        assert_eq!(quoted("a b$(c)'d"), r"'a b$(c)'\''d'");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!(
            (count(1_u32, "value"), count(0_u32, "value"), count(2_u32, "token")),
            ("1 value".to_owned(), "0 values".to_owned(), "2 tokens".to_owned())
        );
    }
}
