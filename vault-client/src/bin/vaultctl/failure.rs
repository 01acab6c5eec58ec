//! How a command ends when it does not end well. Nothing here holds a value.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;
use vault_client::{Code, DataClass, Error, ItemError, Reason};

/// How a command ended; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done.
    Done = 0,
    /// Some items failed.
    SomeFailed = 1,
    /// Wrong use.
    WrongUse = 2,
    /// The vault refused it.
    Refused = 3,
    /// The vault is not available.
    Unavailable = 4,
    /// A job failed, was cancelled or is paused, or some of its items failed.
    JobFailed = 5,
    /// A job asks for approval: nothing is done yet.
    AsksApproval = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A command that could not be carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    reason: Reason,
    message: String,
    hint: Option<String>,
    request: Option<String>,
}

impl Failure {
    pub(crate) fn wrong_use(message: impl Into<String>) -> Self {
        Self::new(Exit::WrongUse, Reason::Configuration, message.into())
    }

    pub(crate) fn new(exit: Exit, reason: Reason, message: String) -> Self {
        Self { exit, reason, message, hint: None, request: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With what is to be done about a reason, where that can be said.
    pub(crate) fn hint_of(self, reason: Reason) -> Self {
        Self { hint: hint(reason), ..self }
    }

    /// The same, about the one of several that it is about.
    pub(crate) fn of_case(self, number: usize) -> Self {
        Self { message: format!("case {number}: {}", self.message), ..self }
    }

    /// The same in other words.
    pub(crate) fn told(self, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), ..self }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// To standard error.
    pub(crate) fn print(&self, json: bool) {
        let mut err = std::io::stderr().lock();
        // There is nobody left to tell if this fails.
        let _ = if json {
            let error = json!({ "reason": self.reason.as_str(), "message": self.message, "hint": self.hint,
                "request": self.request });
            writeln!(err, "{}", json!({ "error": error }))
        } else {
            let hint = self
                .hint
                .as_ref()
                .map(|hint| format!("\n  {}", hint.replace('\n', "\n  ")))
                .unwrap_or_default();
            let request = self.request.as_ref().map(|id| format!("\n  request {id}")).unwrap_or_default();
            writeln!(err, "vaultctl: {}{hint}{request}", self.message)
        };
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            exit: exit_of(error.code(), error.reason()),
            reason: error.reason(),
            message: error.to_string(),
            hint: hint(error.reason()),
            request: error.request_id().map(str::to_owned),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::wrong_use(error.to_string())
    }
}

/// What a call that failed as a whole means for the exit code.
pub(crate) fn exit_of(code: Code, reason: Reason) -> Exit {
    match code {
        Code::Ok => Exit::Done,
        Code::PermissionDenied | Code::Unauthenticated => Exit::Refused,
        Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => Exit::WrongUse,
        Code::FailedPrecondition if reason == Reason::ServerNotTrusted => Exit::Unavailable,
        Code::NotFound | Code::FailedPrecondition | Code::DataLoss => Exit::SomeFailed,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable => Exit::Unavailable,
    }
}

/// The exit code of a batch: refused or not available if that is what all of its items were.
pub(crate) fn exit_of_items<'a>(failed: impl Iterator<Item = Option<&'a ItemError>>) -> Exit {
    let mut all = None;
    let mut any_done = false;
    for error in failed {
        match error {
            None => any_done = true,
            Some(error) => {
                let exit = match exit_of(error.code(), error.reason()) {
                    exit @ (Exit::Refused | Exit::Unavailable) => exit,
                    Exit::Done | Exit::SomeFailed | Exit::WrongUse | Exit::JobFailed | Exit::AsksApproval => {
                        Exit::SomeFailed
                    }
                };
                all = Some(if all.is_none_or(|all| all == exit) { exit } else { Exit::SomeFailed });
            }
        }
    }
    match all {
        None => Exit::Done,
        Some(_) if any_done => Exit::SomeFailed,
        Some(exit) => exit,
    }
}

/// What to do about it, where that can be said.
pub(crate) fn hint(reason: Reason) -> Option<String> {
    let hint = match reason {
        Reason::Connection => "is the vault running, and is the endpoint in the profile the right one?",
        Reason::CertificateRefused => {
            "the certificate may have expired or be of another CA: look at the profile's identity, or choose one by --as"
        }
        Reason::ServerNotTrusted => {
            "compare `ca` and `server_name` in the profile with the server's certificate"
        }
        Reason::PrincipalUnknown => {
            "an administrator has to provision and enable this certificate's principal"
        }
        Reason::SessionInvalid => "vaultctl login",
        Reason::ActionNotAllowed => "another identity of the profile may be allowed to: --as NAME",
        Reason::TenantNotAllowed => "name one of the identity's own tenants: --tenant TENANT",
        Reason::TokenChecksum => "a character was mistyped or lost: copy the token again",
        Reason::TokenEnvironment => "use the profile of the vault that made the token",
        Reason::ClassUnknown => {
            let names: Vec<_> = DataClass::BUILTIN.iter().map(DataClass::as_str).collect();
            return Some(format!("built in are {}", names.join(", ")));
        }
        Reason::KeyActive => "make another version active first: vaultctl keys rotate",
        Reason::KeyInUse => "have its records sealed anew first: vaultctl keys reencrypt --key KEY",
        Reason::JobUnderWay => "`vaultctl jobs list` names it: let it end, or cancel it",
        Reason::SecondPerson => "somebody else has to: not who asked for it, nor who approved it before",
        Reason::ChangedMeanwhile => "look at it again, and say what shall become of it then",
        Reason::Configured => "edit the vault's principals file",
        Reason::LimitReached => "come again later, or have the limit raised",
        Reason::SecondFactor => {
            "run it again, and touch the key within five minutes; `vaultctl security-keys list` shows whether yours is \
             enrolled and good: if it is not, an admin has to enroll it, and then you confirm it"
        }
        Reason::GrantState => {
            "see how it stands with it: vaultctl break-glass show GRANT; after a renewed certificate or login, ask for another one"
        }
        Reason::GrantScope => "ask for a grant that is about that, too: vaultctl break-glass request",
        Reason::GrantChanged => "look at it anew, and approve what you see then",
        Reason::ReviewOverdue => {
            "have your last grant reviewed first, by somebody who had no part in it: vaultctl break-glass list --waiting"
        }
        Reason::Deadline => "try again, or give more time: --timeout 60s",
        Reason::LogUnavailable
        | Reason::StoreUnavailable
        | Reason::KmsUnavailable
        | Reason::ShuttingDown
        | Reason::Overloaded => "try again later",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ItemError {
        text.parse::<vault_client::Token>().unwrap_err()
    }

    #[test]
    fn a_batch_ends_as_its_items_did() {
        let bad = error("x");
        assert_eq!(exit_of_items([None, None].into_iter()), Exit::Done);
        assert_eq!(exit_of_items([None, Some(&bad)].into_iter()), Exit::SomeFailed);
        assert_eq!(exit_of_items([Some(&bad)].into_iter()), Exit::SomeFailed);
        assert_eq!(exit_of_items(std::iter::empty()), Exit::Done);
    }

    #[test]
    fn refusals_and_outages_have_codes_of_their_own() {
        assert_eq!(exit_of(Code::PermissionDenied, Reason::ActionNotAllowed), Exit::Refused);
        assert_eq!(exit_of(Code::Unauthenticated, Reason::CertificateRefused), Exit::Refused);
        assert_eq!(exit_of(Code::Unavailable, Reason::Connection), Exit::Unavailable);
        assert_eq!(exit_of(Code::FailedPrecondition, Reason::ServerNotTrusted), Exit::Unavailable);
        assert_eq!(exit_of(Code::InvalidArgument, Reason::PurposeMissing), Exit::WrongUse);
    }
}
