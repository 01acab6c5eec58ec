//! Whether what is about to be done is meant, by who was shown what it is.

use std::io::{self, IsTerminal as _, stderr, stdin};

use crate::failure::Failure;

/// Whether somebody is there to be asked.
pub(crate) fn is_somebody_there() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Refuses what nobody could be asked about. `yes`: nobody is to be asked. `look`: the command that shows what is meant.
pub(crate) fn can_be_asked(yes: bool, what: &str, look: &str) -> Result<(), Failure> {
    if yes || is_somebody_there() {
        return Ok(());
    }
    Err(Failure::wrong_use(format!("nobody is there to be asked whether {what} is meant"))
        .hint(format!("look at it with `vaultctl {look}`, then give --yes")))
}

/// Asks. Whatever is not yes is no.
pub(crate) fn agreed(question: &str) -> io::Result<bool> {
    eprint!("vaultctl: {question} [y/N] ");
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    Ok(agrees(&line))
}

fn agrees(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(agrees("y\n") && agrees("YES\r\n"));
        for no in ["", "\n", "n", "yo", "yy", "j"] {
            assert!(!agrees(no), "{no:?}");
        }
    }
}
