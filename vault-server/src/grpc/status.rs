//! The one place where a problem becomes a status.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use vault_proto::v1::{ItemError, Reason};

use crate::domain::TokenError;
use crate::domain::class::InvalidValue;
use crate::vault::{Problem, Refused};

const DOMAIN: &str = "phi-vault";

/// What a problem is on the wire.
struct Wire {
    code: Code,
    reason: Reason,
    text: String,
}

#[expect(clippy::too_many_lines, reason = "one match, which must be exhaustive")]
fn wire(problem: &Problem) -> Wire {
    use Code as C;
    use Reason as R;
    let (code, reason, text) = match problem {
        Problem::Token(TokenError::Malformed) => (C::InvalidArgument, R::TokenMalformed, "not a token"),
        Problem::Token(TokenError::Checksum) => {
            (C::InvalidArgument, R::TokenChecksum, "mistyped token: its check characters do not match")
        }
        Problem::Token(TokenError::Environment) => {
            (C::InvalidArgument, R::TokenEnvironment, "token of another environment")
        }
        Problem::Value(InvalidValue::Empty) => (C::InvalidArgument, R::ValueEmpty, "empty value"),
        Problem::Value(InvalidValue::TooLarge { most }) => {
            return Wire {
                code: C::InvalidArgument,
                reason: R::ValueTooLarge,
                text: format!("value too large: at most {most} bytes"),
            };
        }
        Problem::Value(InvalidValue::NotOfClass { rule }) => {
            return Wire {
                code: C::InvalidArgument,
                reason: R::ValueInvalid,
                text: format!("value not of its class: {rule}"),
            };
        }
        Problem::ValueNotUtf8 => (C::InvalidArgument, R::ValueNotUtf8, "value is not UTF-8"),
        Problem::ClassUnknown => (C::InvalidArgument, R::ClassUnknown, "no such data class"),
        Problem::ClassNotIndexed => {
            (C::InvalidArgument, R::ClassNotIndexed, "values of this class can't be searched")
        }
        Problem::PurposeMissing => (C::InvalidArgument, R::PurposeMissing, "a purpose of use is required"),
        Problem::PurposeUnknown => {
            (C::InvalidArgument, R::PurposeUnknown, "not a purpose of use (HL7 v3 ActReason code)")
        }
        Problem::Field(rule) => {
            return Wire {
                code: C::InvalidArgument,
                reason: R::FieldInvalid,
                text: format!("must be {rule}"),
            };
        }
        Problem::TooManyItems { most } => {
            return Wire {
                code: C::InvalidArgument,
                reason: R::TooManyItems,
                text: format!("too many items: at most {most} in a request"),
            };
        }
        Problem::NoItems => (C::InvalidArgument, R::NoItems, "no items"),
        Problem::NotFound => (C::NotFound, R::NotFound, "no such token, key, job or grant"),
        Problem::ActionNotAllowed => (C::PermissionDenied, R::ActionNotAllowed, "not allowed"),
        Problem::TenantNotAllowed => {
            (C::PermissionDenied, R::TenantNotAllowed, "not a tenant of the caller's")
        }
        Problem::PrincipalUnknown => (
            C::Unauthenticated,
            R::PrincipalUnknown,
            "the client certificate names no principal of this vault",
        ),
        Problem::ResponseTooLarge => {
            (C::ResourceExhausted, R::ResponseTooLarge, "the answer would be too large: ask for fewer items")
        }
        Problem::Overloaded => (C::ResourceExhausted, R::Overloaded, "too much is going on"),
        Problem::LogUnavailable => (C::Unavailable, R::LogUnavailable, "the audit log can't be written"),
        Problem::StoreUnavailable => (C::Unavailable, R::StoreUnavailable, "the store does not answer"),
        Problem::KmsUnavailable => (C::Unavailable, R::KmsUnavailable, "the KMS does not answer"),
        Problem::ShuttingDown => (C::Unavailable, R::ShuttingDown, "the vault is stopping"),
        Problem::RecordCorrupt => (C::DataLoss, R::RecordCorrupt, "the record does not open"),
        Problem::Erased => (C::FailedPrecondition, R::Erased, "the value was erased"),
        Problem::KeyDestroyed => (C::FailedPrecondition, R::KeyDestroyed, "the value's key was destroyed"),
        Problem::KeyUnusable => (C::FailedPrecondition, R::KeyUnusable, "the value's key may not be used"),
        Problem::IdempotencyConflict => {
            (C::AlreadyExists, R::IdempotencyConflict, "the idempotency key was used for another request")
        }
        Problem::KeyActive => (C::FailedPrecondition, R::KeyActive, "the key is active: rotate it first"),
        Problem::KeyState => {
            (C::FailedPrecondition, R::KeyState, "the key's state or purpose is not one for that")
        }
        Problem::TooManyVersions => {
            (C::FailedPrecondition, R::KeyState, "the key has too many versions: destroy old ones first")
        }
        Problem::KeyInUse => (C::FailedPrecondition, R::KeyInUse, "records refer to the key"),
        Problem::JobUnderWay => {
            (C::AlreadyExists, R::JobUnderWay, "another job of this kind is under way for the tenant")
        }
        Problem::JobState => (C::FailedPrecondition, R::JobState, "the job is not in a state for that"),
        Problem::SecondPerson => (
            C::PermissionDenied,
            R::SecondPerson,
            "it needs two people: another than who asked, and no service",
        ),
        Problem::SecondFactor(_) => (
            C::PermissionDenied,
            R::SecondFactor,
            "it needs a fresh touch of a security key, for this very request",
        ),
        Problem::GrantState => (
            C::FailedPrecondition,
            R::GrantState,
            "the grant is not in a state for that, is over, is used up, or was asked for by another certificate or session",
        ),
        Problem::GrantScope => (C::FailedPrecondition, R::GrantScope, "the grant is not about that"),
        Problem::GrantChanged => {
            (C::FailedPrecondition, R::GrantChanged, "the grant's terms are not those that were seen")
        }
        Problem::ReviewOverdue => (
            C::FailedPrecondition,
            R::ReviewOverdue,
            "an earlier grant of the caller's was not reviewed in time: have it reviewed first",
        ),
        Problem::LimitReached { .. } => {
            (C::ResourceExhausted, R::LimitReached, "over a limit of the caller's")
        }
        Problem::ChangedMeanwhile => {
            (C::Aborted, R::ChangedMeanwhile, "somebody else changed it meanwhile: look again")
        }
        Problem::Taken => (C::AlreadyExists, R::Taken, "the id or an identity is another's"),
        Problem::Configured => (
            C::FailedPrecondition,
            R::Configured,
            "it comes from the configuration's file, and is changed there",
        ),
        Problem::SessionInvalid(_) => (
            C::Unauthenticated,
            R::SessionInvalid,
            "the access token or the session is not good, or is over: log in again",
        ),
        Problem::Internal => (C::Internal, R::Internal, "a fault of the vault's own; its log has more"),
    };
    Wire { code, reason, text: text.to_owned() }
}

/// The status of a refused call.
pub(super) fn status(refused: &Refused) -> Status {
    let Wire { code, reason, text } = wire(&refused.problem);
    let mut details = ErrorDetails::new();
    let name = reason.as_str_name().trim_start_matches("REASON_").to_owned();
    details.set_error_info(name, DOMAIN, std::collections::HashMap::<String, String>::new());
    if !refused.field.is_empty() {
        details.add_bad_request_violation(refused.field.clone(), text.clone());
    }
    if let Some(wait) = refused.problem.retry_after() {
        details.set_retry_info(Some(wait));
    }
    if let Some(request) = refused.request {
        details.set_request_info(request.to_string(), "");
    }
    let message = if refused.field.is_empty() { text } else { format!("{}: {text}", refused.field) };
    Status::with_error_details(code, message, details)
}

/// The error of one item. `field` is its path.
pub(super) fn item_error(problem: &Problem, field: impl FnOnce() -> String) -> ItemError {
    let Wire { code, reason, text } = wire(problem);
    let retry_after_ms =
        problem.retry_after().map_or(0, |wait| wait.as_millis().try_into().unwrap_or(u32::MAX));
    // What is wrong with the request is named by its field; of anything else the place tells enough.
    let field = if code == Code::InvalidArgument { field() } else { String::new() };
    ItemError { code: code.into(), reason: reason.into(), message: text, field, retry_after_ms }
}

/// The error of one message of a stream.
pub(super) fn message_error(refused: &Refused) -> ItemError {
    let field = refused.field.clone();
    ItemError { field: field.clone(), ..item_error(&refused.problem, || field) }
}
