//! What requests are made of, after parsing: inside, nobody sees a raw token or an unlimited text.

use crate::audit;
use crate::domain::{ClassName, Plaintext, SubjectId, Token};

use super::{Problem, Refused};

/// A token as it came: good, or what is wrong with it.
pub type ParsedToken = Result<Token, Problem>;

/// A value to keep.
pub struct NewValue {
    /// What kind of PHI.
    pub class: ClassName,
    /// The value.
    pub value: Plaintext,
    /// Whom it is about.
    pub subject: Option<SubjectId>,
}

/// What a caller says about a request, for the log.
#[derive(Default)]
pub struct Note {
    /// Why, in words.
    pub reason: String,
    /// A case number.
    pub ticket: String,
}

impl Note {
    /// The most characters a reason has.
    pub const MAX_REASON: usize = 512;
    /// The most characters a ticket has.
    pub const MAX_TICKET: usize = 128;

    /// Refuses texts that are too long.
    pub fn parse(reason: String, ticket: String) -> Result<Self, Refused> {
        if reason.chars().count() > Self::MAX_REASON {
            return Err(Problem::Field("at most 512 characters").at("reason"));
        }
        if ticket.chars().count() > Self::MAX_TICKET {
            return Err(Problem::Field("at most 128 characters").at("ticket"));
        }
        Ok(Self { reason, ticket })
    }
}

/// The rule of a text that somebody else reads and answers for: in one line, and every character of it shows. One that is not
/// so is refused, not cleaned.
pub(super) struct Words {
    least: usize,
    most: usize,
    rule: &'static str,
}

impl Words {
    /// Why something is done.
    pub(super) const REASON: Self =
        Self { least: 10, most: Note::MAX_REASON, rule: "10 to 512 printable characters in one line" };
    /// What somebody has to say about it, if anything.
    pub(super) const NOTES: Self =
        Self { least: 0, most: Note::MAX_REASON, rule: "at most 512 printable characters in one line" };
    /// A case number, if there is one.
    pub(super) const TICKET: Self =
        Self { least: 0, most: Note::MAX_TICKET, rule: "at most 128 printable characters in one line" };

    /// The text, if it is so.
    pub(super) fn parse(&self, text: String, field: &'static str) -> Result<String, Refused> {
        let is_long_enough = text.trim().chars().count() >= self.least;
        let is_short_enough = text.len() <= self.most * 4 && text.chars().count() <= self.most;
        if is_long_enough && is_short_enough && audit::is_plain(&text) {
            Ok(text)
        } else {
            Err(Problem::Field(self.rule).at(field))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_could_deceive_are_refused() {
        for good in ["ten letters", "Zoë \\ Ångström", &"x".repeat(512), &"😀".repeat(512)] {
            assert_eq!(Words::REASON.parse(good.to_owned(), "reason").unwrap(), good);
        }
        let long = "x".repeat(1 << 20);
        for bad in [
            "",
            "too short",
            "          ",
            "  short      ",
            "a line\nand another",
            "red \u{1b}[31m alert",
            "right \u{202e}to left",
            "no\u{200b}thing to see",
            "tab\tseparated",
            "a null\0 in it",
            "\u{2028}next line",
            &"x".repeat(513),
            &long,
        ] {
            let refused = Words::REASON.parse(bad.to_owned(), "reason").unwrap_err();
            assert!(matches!(refused.problem, Problem::Field(_)), "{bad:?}");
            assert_eq!(refused.field, "reason");
        }
        assert_eq!(Words::NOTES.parse(String::new(), "notes").unwrap(), "");
        assert!(Words::TICKET.parse("x".repeat(129), "ticket").is_err());
    }
}
