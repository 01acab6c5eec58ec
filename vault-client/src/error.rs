//! What can go wrong, as programs and people need it. No error holds a value.

use std::fmt;
use std::time::Duration;

use tonic::Code;
use vault_proto::v1 as wire;

macro_rules! reasons {
    (wire { $($variant:ident $name:literal $text:literal;)* } own { $($own:ident $own_name:literal $own_text:literal;)* }) => {
        /// Why something failed: stable, for programs. [`Reason::as_str`] gives the name that the API documents.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
            $(#[doc = $own_text] $own,)*
        }

        impl Reason {
            /// The stable name: `TOKEN_CHECKSUM`, `NOT_FOUND` ...
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* $(Self::$own => $own_name,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* $(Self::$own => $own_text,)* }
            }

            fn from_wire(reason: wire::Reason) -> Self {
                match reason {
                    wire::Reason::Unspecified => Self::Unknown,
                    $(wire::Reason::$variant => Self::$variant,)*
                }
            }

            fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    wire {
        TokenMalformed "TOKEN_MALFORMED" "not a token";
        TokenChecksum "TOKEN_CHECKSUM" "mistyped token: its check characters do not match";
        TokenEnvironment "TOKEN_ENVIRONMENT" "a token of another environment";
        ValueInvalid "VALUE_INVALID" "the value is not of its class";
        ValueEmpty "VALUE_EMPTY" "the value is empty";
        ValueTooLarge "VALUE_TOO_LARGE" "the value is too large";
        ValueNotUtf8 "VALUE_NOT_UTF8" "the value is not UTF-8";
        ClassUnknown "CLASS_UNKNOWN" "no such data class";
        ClassNotIndexed "CLASS_NOT_INDEXED" "values of this class can't be searched for";
        PurposeMissing "PURPOSE_MISSING" "a purpose of use is required";
        PurposeUnknown "PURPOSE_UNKNOWN" "no such purpose of use";
        FieldInvalid "FIELD_INVALID" "a field of the request is not valid";
        TooManyItems "TOO_MANY_ITEMS" "too many items in one request";
        NoItems "NO_ITEMS" "the request holds no items";
        NotFound "NOT_FOUND" "no such token, key, job or grant, or not yours to see";
        ActionNotAllowed "ACTION_NOT_ALLOWED" "this identity may not do that";
        TenantNotAllowed "TENANT_NOT_ALLOWED" "the tenant is not this identity's";
        PrincipalUnknown "PRINCIPAL_UNKNOWN" "the vault does not know this identity";
        ResponseTooLarge "RESPONSE_TOO_LARGE" "the answer is too large for one message";
        Overloaded "OVERLOADED" "over a limit, or the vault is overloaded";
        LogUnavailable "LOG_UNAVAILABLE" "the vault's log can't be written";
        StoreUnavailable "STORE_UNAVAILABLE" "the vault's store is not available";
        KmsUnavailable "KMS_UNAVAILABLE" "the vault's key service is not available";
        ShuttingDown "SHUTTING_DOWN" "the vault is stopping";
        RecordCorrupt "RECORD_CORRUPT" "the record does not open";
        Erased "ERASED" "the value was erased";
        KeyDestroyed "KEY_DESTROYED" "the value's key was destroyed";
        KeyUnusable "KEY_UNUSABLE" "the value's key can't be used";
        IdempotencyConflict "IDEMPOTENCY_CONFLICT" "the idempotency key was used for another request";
        Internal "INTERNAL" "a fault of the vault's own; its server log has more";
        Deadline "DEADLINE" "the deadline passed";
        MessageTooLarge "MESSAGE_TOO_LARGE" "the request is too large for one message";
        MessageMalformed "MESSAGE_MALFORMED" "the vault can't read the request";
        KeyActive "KEY_ACTIVE" "the key is active: rotate it first";
        KeyState "KEY_STATE" "the key's state or purpose is not one for that";
        KeyInUse "KEY_IN_USE" "records refer to the key";
        JobUnderWay "JOB_UNDER_WAY" "another job of this kind is under way for the tenant";
        JobState "JOB_STATE" "the job is not in a state for that";
        SecondPerson "SECOND_PERSON" "it needs another person than who asked";
        SecondFactor "SECOND_FACTOR" "it needs a fresh second factor";
        GrantState "GRANT_STATE" "the grant is not in a state for that";
        GrantScope "GRANT_SCOPE" "the grant is not about that";
        GrantChanged "GRANT_CHANGED" "the grant's terms are not those that were seen";
        ReviewOverdue "REVIEW_OVERDUE" "an earlier grant was not reviewed in time";
        LimitReached "LIMIT_REACHED" "over a limit of this identity's";
        ChangedMeanwhile "CHANGED_MEANWHILE" "somebody else changed it meanwhile";
        Taken "TAKEN" "the id or the identity is another's";
        Configured "CONFIGURED" "it comes from the configuration's file";
        SessionInvalid "SESSION_INVALID" "the access token or the session is not good, or is over";
    }
    own {
        Connection "CONNECTION" "the vault can't be reached";
        CertificateRefused "CERTIFICATE_REFUSED" "the vault refused this identity's certificate";
        ServerNotTrusted "SERVER_NOT_TRUSTED" "the server's certificate is not signed by the profile's CA, or is for another name";
        Configuration "CONFIGURATION" "the client's configuration is not usable";
        BadAnswer "BAD_ANSWER" "the vault's answer does not fit the request";
        Unknown "UNKNOWN" "an error this client does not know";
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What went wrong with one item of a batch. The other items are not touched by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", place(.field, .message))]
pub struct ItemError {
    reason: Reason,
    code: Code,
    message: Box<str>,
    field: Box<str>,
    retry_after: Option<Duration>,
}

impl ItemError {
    pub(crate) fn new(reason: Reason, code: Code, message: &str) -> Self {
        Self { reason, code, message: message.into(), field: "".into(), retry_after: None }
    }

    pub(crate) fn of(reason: Reason, code: Code) -> Self {
        Self::new(reason, code, reason.text())
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The gRPC code that the same trouble would give a whole call.
    pub fn code(&self) -> Code {
        self.code
    }

    /// For people; names a field, never a value.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Path of the field that is meant (`items[3].value`), as the server saw the request; may be empty.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        crate::retry::may_repeat(self.code, self.reason, self.retry_after)
    }

    /// How long the vault asks to wait before that.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<wire::ItemError> for ItemError {
    fn from(error: wire::ItemError) -> Self {
        let reason = Reason::from_wire(error.reason());
        let message = if error.message.is_empty() { reason.text() } else { &error.message };
        Self {
            reason,
            code: Code::from_i32(error.code),
            message: printable(message),
            field: printable(&error.field),
            retry_after: (error.retry_after_ms > 0)
                .then(|| believed(Duration::from_millis(u64::from(error.retry_after_ms)))),
        }
    }
}

/// A call failed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: ItemError,
    request_id: Option<Box<str>>,
}

impl Error {
    pub(crate) fn new(reason: Reason, code: Code, message: &str) -> Self {
        ItemError::new(reason, code, message).into()
    }

    pub(crate) fn configuration(message: &str) -> Self {
        Self::new(Reason::Configuration, Code::InvalidArgument, message)
    }

    pub(crate) fn bad_answer(what: &str) -> Self {
        Self::new(Reason::BadAnswer, Code::Internal, &format!("{}: {what}", Reason::BadAnswer.text()))
    }

    pub(crate) fn deadline() -> Self {
        ItemError::of(Reason::Deadline, Code::DeadlineExceeded).into()
    }

    pub(crate) fn connection(cause: &str) -> Self {
        Self::new(
            Reason::Connection,
            Code::Unavailable,
            &format!("{}: {}", Reason::Connection.text(), printable(cause)),
        )
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        self.what.reason
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.what.code
    }

    /// For people; names a field, never a value.
    pub fn message(&self) -> &str {
        &self.what.message
    }

    /// Path of the field that is meant; may be empty.
    pub fn field(&self) -> &str {
        &self.what.field
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.what.is_retryable()
    }

    /// How long the vault asks to wait before that.
    pub fn retry_after(&self) -> Option<Duration> {
        self.what.retry_after
    }

    /// The request's id in the vault's log, if the vault told it.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// From a status that the server sent (one that the transport made is `transport::fault`'s to explain).
    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        use tonic_types::StatusExt as _;

        let details = status.get_error_details();
        let named = details.error_info().and_then(|info| Reason::from_name(&info.reason));
        let reason = named.unwrap_or_else(|| reason_of(status.code()));
        let message = if status.message().is_empty() { reason.text() } else { status.message() };
        let field = details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map_or("", |violation| violation.field.as_str());
        Self {
            what: ItemError {
                reason,
                code: status.code(),
                message: printable(message),
                field: printable(field),
                retry_after: details.retry_info().and_then(|info| info.retry_delay).map(believed),
            },
            request_id: details.request_info().map(|info| printable(&info.request_id)),
        }
    }
}

impl From<ItemError> for Error {
    fn from(what: ItemError) -> Self {
        Self { what, request_id: None }
    }
}

impl From<Error> for ItemError {
    fn from(error: Error) -> Self {
        error.what
    }
}

/// A pause that was asked for: a vault's are short, but what stands between may ask for more years than there are.
fn believed(pause: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_hours(24);
    pause.min(LONGEST)
}

/// The likeliest reason where a status names none (a proxy's, or a server's of another version).
fn reason_of(code: Code) -> Reason {
    match code {
        Code::InvalidArgument => Reason::FieldInvalid,
        Code::DeadlineExceeded => Reason::Deadline,
        Code::NotFound => Reason::NotFound,
        Code::PermissionDenied => Reason::ActionNotAllowed,
        Code::Unauthenticated => Reason::PrincipalUnknown,
        Code::ResourceExhausted => Reason::Overloaded,
        Code::OutOfRange => Reason::ResponseTooLarge,
        Code::Unavailable => Reason::Connection,
        Code::DataLoss => Reason::RecordCorrupt,
        Code::AlreadyExists => Reason::IdempotencyConflict,
        Code::Internal => Reason::Internal,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented => Reason::Unknown,
    }
}

/// Names the field, unless the message begins with it, as the vault's own messages do.
fn place(field: &str, message: &str) -> String {
    let is_named = message.strip_prefix(field).is_some_and(|rest| rest.starts_with(':'));
    if field.is_empty() || is_named { String::new() } else { format!(" ({field})") }
}

/// Text of another machine, made safe for a terminal or a log line: one line, no control characters, short.
fn printable(text: &str) -> Box<str> {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(512).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn a_status_keeps_its_reason_field_delay_and_request() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("LOG_UNAVAILABLE", "phi-vault", std::collections::HashMap::new())
            .set_retry_info(Some(Duration::from_millis(250)))
            .add_bad_request_violation("items[3].value", "no")
            .set_request_info("00ff", "");
        let error = Error::from_status(&tonic::Status::with_error_details(Code::Unavailable, "x", details));
        assert_eq!(error.reason(), Reason::LogUnavailable);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert_eq!(error.field(), "items[3].value");
        assert_eq!(error.request_id(), Some("00ff"));
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), "x (items[3].value)");
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("notes", "no");
        let error =
            tonic::Status::with_error_details(Code::InvalidArgument, "notes: must be longer", details);
        assert_eq!(Error::from_status(&error).to_string(), "notes: must be longer", "once is enough");
    }

    #[test]
    fn nobody_can_ask_for_a_pause_without_end() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::MAX));
        let error = Error::from_status(&tonic::Status::with_error_details(Code::Unavailable, "x", details));
        assert_eq!(error.retry_after(), Some(Duration::from_hours(24)));
        let item = wire::ItemError { retry_after_ms: u32::MAX, ..wire::ItemError::default() };
        assert_eq!(ItemError::from(item).retry_after(), Some(Duration::from_hours(24)));
    }

    #[test]
    fn a_status_without_details_gets_the_reason_of_its_code() {
        let error = Error::from_status(&tonic::Status::permission_denied(""));
        assert_eq!(error.reason(), Reason::ActionNotAllowed);
        assert!(!error.is_retryable());
        assert!(!error.message().is_empty());
    }

    #[test]
    fn every_reason_of_the_wire_has_its_name_here() {
        for number in 1..=49 {
            let wire = wire::Reason::try_from(number).unwrap();
            let reason = Reason::from_wire(wire);
            assert_eq!(format!("REASON_{reason}"), wire.as_str_name());
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason));
        }
        assert!(wire::Reason::try_from(50).is_err(), "a new reason: add it here");
    }

    #[test]
    fn messages_from_afar_can_not_forge_a_line() {
        let error = Error::from_status(&tonic::Status::unknown("a\n\u{1b}[31mb"));
        assert!(!error.to_string().contains(['\n', '\u{1b}']));
    }
}
