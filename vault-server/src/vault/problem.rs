//! What can be wrong with a request or an item, in words that hold no value.

use std::time::Duration;

use crate::audit::LogError;
use crate::crypto::OpenError;
use crate::domain::class::InvalidValue;
use crate::domain::{RequestId, TokenError};
use crate::keyring::KeyringError;
use crate::store::StoreError;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The text is not a token of this vault's environment.
    Token(TokenError),
    /// The value is not of its class.
    Value(InvalidValue),
    /// The value is not UTF-8.
    ValueNotUtf8,
    /// No such class.
    ClassUnknown,
    /// The class can't be searched.
    ClassNotIndexed,
    /// A purpose of use is required.
    PurposeMissing,
    /// Not a known purpose.
    PurposeUnknown,
    /// Another field that is not what it must be: the rule.
    Field(&'static str),
    /// More items than a request may have.
    TooManyItems {
        /// How many it may have.
        most: usize,
    },
    /// No items.
    NoItems,
    /// Unknown, another tenant's, or hidden.
    NotFound,
    /// Policy says no.
    ActionNotAllowed,
    /// Not the caller's tenant.
    TenantNotAllowed,
    /// The certificate names nobody.
    PrincipalUnknown,
    /// The answer would be too large.
    ResponseTooLarge,
    /// Too much is going on.
    Overloaded,
    /// The log can't be written.
    LogUnavailable,
    /// The store does not answer.
    StoreUnavailable,
    /// The KMS does not answer.
    KmsUnavailable,
    /// The vault is stopping.
    ShuttingDown,
    /// The record does not open.
    RecordCorrupt,
    /// The value was erased.
    Erased,
    /// Its key was destroyed.
    KeyDestroyed,
    /// Its key may not be used.
    KeyUnusable,
    /// The idempotency key belongs to another request.
    IdempotencyConflict,
    /// The key is active: it must be rotated first.
    KeyActive,
    /// The key's state or purpose is not one for that.
    KeyState,
    /// Records refer to the key.
    KeyInUse,
    /// The key has so many versions that no more are made.
    TooManyVersions,
    /// Another job of the kind is under way for the tenant.
    JobUnderWay,
    /// The job is over, or not in a state for that.
    JobState,
    /// It needs another person than who asked.
    SecondPerson,
    /// It needs a fresh second factor; why the one that came is none, for the log.
    SecondFactor(&'static str),
    /// The grant waits, is over, or is used up.
    GrantState,
    /// The grant is not about that.
    GrantScope,
    /// The grant's terms are not those that were seen.
    GrantChanged,
    /// A grant of the caller's was not reviewed in time.
    ReviewOverdue,
    /// Over a limit of the principal's: which, for the log, and when it ends.
    LimitReached {
        /// Its name.
        limit: &'static str,
        /// From when on there is room again.
        again: Duration,
    },
    /// Somebody else changed it meanwhile.
    ChangedMeanwhile,
    /// The id or an identity is another's.
    Taken,
    /// It comes from the configuration's file.
    Configured,
    /// The access token or the session is not good, or is over; why, for the log.
    SessionInvalid(&'static str),
    /// A fault of the vault's own.
    Internal,
}

/// A refused request or item: what is wrong, and with which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub problem: Problem,
    /// The path of the field, such as `items[3].value`; empty if it is none's.
    pub field: String,
    /// The request, once it has a name.
    pub request: Option<RequestId>,
    /// Whether it is on record, or can't be.
    pub(super) logged: bool,
}

impl Problem {
    /// Wrong with a field.
    pub fn at(self, field: impl Into<String>) -> Refused {
        Refused { problem: self, field: field.into(), request: None, logged: false }
    }

    /// Wrong with the request as a whole.
    pub fn whole(self) -> Refused {
        self.at("")
    }

    /// The name of the cause in the log. Never change one.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Token(TokenError::Malformed) => "token_malformed",
            Self::Token(TokenError::Checksum) => "token_checksum",
            Self::Token(TokenError::Environment) => "token_environment",
            Self::Value(InvalidValue::Empty) => "value_empty",
            Self::Value(InvalidValue::TooLarge { .. }) => "value_too_large",
            Self::Value(InvalidValue::NotOfClass { .. }) => "value_invalid",
            Self::ValueNotUtf8 => "value_not_utf8",
            Self::ClassUnknown => "class_unknown",
            Self::ClassNotIndexed => "class_not_indexed",
            Self::PurposeMissing => "purpose_missing",
            Self::PurposeUnknown => "purpose_unknown",
            Self::Field(_) => "field_invalid",
            Self::TooManyItems { .. } => "too_many_items",
            Self::NoItems => "no_items",
            Self::NotFound => "not_found",
            Self::ActionNotAllowed => "action_not_allowed",
            Self::TenantNotAllowed => "tenant_not_allowed",
            Self::PrincipalUnknown => "principal_unknown",
            Self::ResponseTooLarge => "response_too_large",
            Self::Overloaded => "overloaded",
            Self::LogUnavailable => "log_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::KmsUnavailable => "kms_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::RecordCorrupt => "record_corrupt",
            Self::Erased => "erased",
            Self::KeyDestroyed => "key_destroyed",
            Self::KeyUnusable => "key_unusable",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::KeyActive => "key_active",
            Self::KeyState => "key_state",
            Self::KeyInUse => "key_in_use",
            Self::TooManyVersions => "too_many_versions",
            Self::JobUnderWay => "job_under_way",
            Self::JobState => "job_state",
            Self::SecondPerson => "second_person",
            Self::SecondFactor(cause) | Self::SessionInvalid(cause) => cause,
            Self::GrantState => "grant_state",
            Self::GrantScope => "grant_scope",
            Self::GrantChanged => "grant_changed",
            Self::ReviewOverdue => "review_overdue",
            Self::LimitReached { limit, .. } => limit,
            Self::ChangedMeanwhile => "changed_meanwhile",
            Self::Taken => "taken",
            Self::Configured => "configured",
            Self::Internal => "internal",
        }
    }

    /// How long to wait before trying again, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded | Self::LogUnavailable | Self::StoreUnavailable => {
                Some(Duration::from_millis(200))
            }
            Self::KmsUnavailable | Self::ShuttingDown => Some(Duration::from_secs(1)),
            Self::LimitReached { again, .. } => Some(*again),
            _ => None,
        }
    }
}

impl Refused {
    /// It is on record, or can't be.
    pub(super) fn logged(mut self) -> Self {
        self.logged = true;
        self
    }

    /// Names the request.
    #[must_use]
    pub fn of(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable | LogError::Fatal | LogError::Deadline => Problem::LogUnavailable,
            LogError::Overloaded => Problem::Overloaded,
            LogError::Corrupt => Problem::RecordCorrupt,
            LogError::Conflict { .. } | LogError::Mismatch | LogError::TooLarge => Problem::Internal,
        }
        .whole()
        .logged()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "store refused");
        match error {
            StoreError::Unavailable { .. } | StoreError::Fatal { .. } | StoreError::Taken => {
                Problem::StoreUnavailable
            }
            StoreError::Late => Problem::Overloaded,
            StoreError::Corrupt { .. } => Problem::RecordCorrupt,
            StoreError::Conflict { .. } | StoreError::Foreign { .. } => Problem::Internal,
        }
        .whole()
    }
}

impl From<KeyringError> for Problem {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::KmsUnavailable => Self::KmsUnavailable,
            KeyringError::KmsRefused | KeyringError::Unusable => Self::KeyUnusable,
            KeyringError::Destroyed => Self::KeyDestroyed,
            KeyringError::Corrupt => Self::RecordCorrupt,
            KeyringError::Store(_) => Self::StoreUnavailable,
            KeyringError::Random | KeyringError::LockedMemory => Self::Internal,
        }
    }
}

impl From<KeyringError> for Refused {
    fn from(error: KeyringError) -> Self {
        Problem::from(error).whole()
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed
            | OpenError::WrongKey
            | OpenError::Commitment
            | OpenError::Authentication
            | OpenError::Padding => Self::RecordCorrupt,
            OpenError::Erased => Self::Erased,
        }
    }
}
