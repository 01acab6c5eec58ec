//! What requests are made of, after parsing: inside, nobody sees a raw token or an unlimited text.

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
