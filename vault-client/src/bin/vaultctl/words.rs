//! Texts that somebody else reads and answers for. The vault has the last word; what it would refuse is told here before
//! anybody touches a security key.

use clap::Args;
use vault_client::keys::Note;

/// The most characters of a reason, of notes.
const MOST: usize = 512;
/// The most characters of a ticket.
const MOST_TICKET: usize = 128;

/// Why something is done that others look at later.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    parse(text, 10, MOST, "10 to 512 characters, in one line, all of which show")
}

/// What somebody has to say about it, if anything.
pub(crate) fn notes(text: &str) -> Result<String, String> {
    parse(text, 0, MOST, "at most 512 characters, in one line, all of which show")
}

/// A case number.
pub(crate) fn ticket(text: &str) -> Result<String, String> {
    parse(text, 0, MOST_TICKET, "at most 128 characters, in one line, all of which show")
}

/// A reason code, as a vault's configuration may have it.
pub(crate) fn reason_code(text: &str) -> Result<String, String> {
    let good =
        (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if good { Ok(text.to_owned()) } else { Err("a code such as patient_safety: a to z and `_`".to_owned()) }
}

/// What admins say about what they do, for the log.
#[derive(Args)]
pub(crate) struct NoteArgs {
    /// Why, for the log, in at most 512 characters. Put no PHI into it.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = reason_for_log)]
    reason: String,

    /// A ticket or case number for the log, of at most 128 characters.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = ticket_for_log)]
    ticket: String,
}

impl From<NoteArgs> for Note {
    fn from(NoteArgs { reason, ticket }: NoteArgs) -> Self {
        Self { reason, ticket }
    }
}

fn reason_for_log(text: &str) -> Result<String, String> {
    no_longer(text, MOST)
}

fn ticket_for_log(text: &str) -> Result<String, String> {
    no_longer(text, MOST_TICKET)
}

fn no_longer(text: &str, most: usize) -> Result<String, String> {
    if text.chars().count() <= most { Ok(text.to_owned()) } else { Err(format!("at most {most} characters")) }
}

fn parse(text: &str, least: usize, most: usize, rule: &str) -> Result<String, String> {
    let is_long_enough = text.trim().chars().count() >= least;
    if is_long_enough && text.chars().count() <= most && text.chars().all(shows) {
        return Ok(text.to_owned());
    }
    Err(rule.to_owned())
}

/// Whether a character shows as itself. Asked behind a letter, so that combining marks are left alone.
fn shows(c: char) -> bool {
    let pair = String::from_iter(['a', c]);
    matches!(c, '\\' | '"' | '\'') || pair.escape_debug().nth(1) != Some('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_long_enough_and_a_line_that_shows() {
        for good in ["merged charts", "Zoe\u{308} said \"it's \\ urgent\"", &"x".repeat(512)] {
            assert_eq!(reason(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "because",
            "          ",
            "two\nlines of text",
            "right \u{202e}to left",
            "red \u{1b}[31m alert",
        ] {
            assert!(reason(bad).is_err_and(|rule| rule.contains("10 to 512")), "{bad}");
        }
        assert!(reason(&"x".repeat(513)).is_err());
    }

    #[test]
    fn notes_and_tickets_may_be_missing_and_not_endless() {
        assert!(notes("").is_ok() && ticket("").is_ok() && ticket("INC-7").is_ok());
        assert!(notes(&"x".repeat(513)).is_err() && ticket(&"x".repeat(129)).is_err());
        assert!(reason_for_log(&"x".repeat(513)).is_err() && ticket_for_log(&"x".repeat(129)).is_err());
        assert!(reason_for_log("two\nlines").is_ok(), "that is for the vault to say");
    }

    #[test]
    fn a_code_is_spelled_as_codes_are() {
        assert!(reason_code("patient_safety").is_ok() && reason_code("own_code").is_ok());
        for bad in ["", "patient-safety", "Outage", "a b", &"x".repeat(33)] {
            assert!(reason_code(bad).is_err(), "{bad}");
        }
    }
}
