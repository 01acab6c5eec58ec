//! Parses messages once: inside, there are no raw strings.

use bytes::Bytes;
use vault_proto::v1;

use crate::domain::{
    ClassName, Environment, IdempotencyKey, JobBudget, JobId, JobKind, KeyId, KeyPurpose, Plaintext, Purpose,
    SubjectId, Token,
};
use crate::vault::{JobAsked, NewValue, ParsedToken, Problem, Refused};

/// The rule of ids.
const ID: Problem = Problem::Field("32 hexadecimal digits");

pub(super) fn tokens(texts: &[String], environment: &Environment) -> Vec<ParsedToken> {
    texts.iter().map(|text| Token::parse(text, environment).map_err(Problem::Token)).collect()
}

pub(super) fn purpose(code: &str) -> Result<Purpose, Problem> {
    if code.is_empty() {
        return Err(Problem::PurposeMissing);
    }
    Purpose::parse(code).ok_or(Problem::PurposeUnknown)
}

pub(super) fn class(name: &str, field: impl Into<String>) -> Result<ClassName, Refused> {
    ClassName::parse(name).map_err(|_| Problem::ClassUnknown.at(field))
}

/// A missing value is an empty one, and is refused as such by its class.
pub(super) fn value(value: Option<v1::Value>) -> Result<Plaintext, Problem> {
    let data: Bytes = value.map(|value| value.data).unwrap_or_default();
    Plaintext::from_utf8(data.into()).map_err(|_| Problem::ValueNotUtf8)
}

pub(super) fn subject(
    subject: Option<v1::SubjectId>,
    field: impl Into<String>,
) -> Result<Option<SubjectId>, Refused> {
    let Some(subject) = subject else { return Ok(None) };
    let rule = Problem::Field("a subject's id of 1 to 256 bytes");
    SubjectId::parse(subject.id).map(Some).ok_or_else(|| rule.at(field))
}

pub(super) fn idempotency(key: &str) -> Result<Option<IdempotencyKey>, Refused> {
    if key.is_empty() {
        return Ok(None);
    }
    let rule = Problem::Field("1 to 128 printable ASCII characters");
    IdempotencyKey::parse(key).map(Some).map_err(|_| rule.at("idempotency_key"))
}

pub(super) fn new_values(items: Vec<v1::TokenizeItem>) -> Vec<Result<NewValue, Refused>> {
    items.into_iter().map(new_value).collect()
}

fn new_value(item: v1::TokenizeItem) -> Result<NewValue, Refused> {
    Ok(NewValue {
        class: class(&item.data_class, "data_class")?,
        value: value(item.value).map_err(|problem| problem.at("value"))?,
        subject: subject(item.subject, "subject")?,
    })
}

/// The person to erase, if it is a person; `tokens`: there are tokens beside.
pub(super) fn erase_target(who: Option<v1::SubjectId>, tokens: bool) -> Result<Option<SubjectId>, Refused> {
    match subject(who, "subject")? {
        Some(_) if tokens => Err(Problem::Field("either tokens or a subject, not both").at("subject")),
        subject => Ok(subject),
    }
}

pub(super) fn key_id(text: &str) -> Result<KeyId, Refused> {
    KeyId::parse(text).map_err(|_| ID.at("key_id"))
}

pub(super) fn job_id(text: &str) -> Result<JobId, Refused> {
    JobId::parse(text).map_err(|_| ID.at("job_id"))
}

pub(super) fn key_purpose(number: i32) -> Result<KeyPurpose, Refused> {
    match v1::KeyPurpose::try_from(number) {
        Ok(v1::KeyPurpose::Data) => Ok(KeyPurpose::Data),
        Ok(v1::KeyPurpose::Index) => Ok(KeyPurpose::Index),
        Ok(v1::KeyPurpose::LogSigning) => Ok(KeyPurpose::LogSigning),
        Ok(v1::KeyPurpose::RowMac) => Ok(KeyPurpose::RowMac),
        Ok(v1::KeyPurpose::Unspecified) | Err(_) => {
            Err(Problem::Field("one of the purposes of keys").at("purpose"))
        }
    }
}

fn job_kind(number: i32) -> Result<JobKind, Refused> {
    match v1::JobKind::try_from(number) {
        Ok(v1::JobKind::Reencrypt) => Ok(JobKind::Reencrypt),
        Ok(v1::JobKind::Reindex) => Ok(JobKind::Reindex),
        Ok(v1::JobKind::Rewrap) => Ok(JobKind::Rewrap),
        Ok(v1::JobKind::Destroy) => Ok(JobKind::Destroy),
        Ok(v1::JobKind::Shred) => Ok(JobKind::Shred),
        Ok(v1::JobKind::Unspecified) | Err(_) => Err(Problem::Field("one of the kinds of jobs").at("kind")),
    }
}

/// What a job is to do. A key is named where it must be, and where it means nothing it is not.
pub(super) fn job_asked(
    kind: i32,
    key: &str,
    bytes_per_second: u64,
    kms_calls_per_second: u32,
) -> Result<JobAsked, Refused> {
    let kind = job_kind(kind)?;
    let key = match (kind, key) {
        (JobKind::Reencrypt | JobKind::Reindex | JobKind::Rewrap | JobKind::Shred, "") => None,
        (JobKind::Reencrypt | JobKind::Destroy, key) => Some(key_id(key)?),
        (JobKind::Reindex | JobKind::Rewrap | JobKind::Shred, _) => {
            return Err(Problem::Field("empty for a job of this kind").at("key_id"));
        }
    };
    Ok(JobAsked { kind, key, budget: JobBudget { bytes: bytes_per_second, kms_calls: kms_calls_per_second } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(parsed: Result<T, Refused>) -> String {
        let refused = parsed.map(|_| ()).unwrap_err();
        assert!(matches!(refused.problem, Problem::Field(_)));
        refused.field
    }

    #[test]
    fn ids_are_32_hexadecimal_digits() {
        let digits = "0123456789abcdef0123456789abcdef";
        assert_eq!(key_id(digits).unwrap().to_string(), digits);
        assert_eq!(job_id(digits).unwrap().to_string(), digits);
        for bad in ["", "0", &digits[1..], &format!("{digits}0"), &digits.replace('f', "g")] {
            assert_eq!(refused(key_id(bad)), "key_id");
            assert_eq!(refused(job_id(bad)), "job_id");
        }
    }

    #[test]
    fn purposes_and_kinds_that_are_not_known_are_refused() {
        assert_eq!(key_purpose(2).unwrap(), KeyPurpose::Index);
        for bad in [-1, 0, 5] {
            assert_eq!(refused(key_purpose(bad)), "purpose");
        }
        for bad in [-1, 0, 6] {
            assert_eq!(refused(job_asked(bad, "", 0, 0)), "kind");
        }
    }

    #[test]
    fn a_job_names_a_key_where_that_means_something() {
        let key = "ab".repeat(16);
        for (number, kind, without, with) in [
            (1, JobKind::Reencrypt, true, true),
            (2, JobKind::Reindex, true, false),
            (3, JobKind::Rewrap, true, false),
            (4, JobKind::Destroy, false, true),
            (5, JobKind::Shred, true, false),
        ] {
            for (allowed, key) in [(without, ""), (with, key.as_str())] {
                match job_asked(number, key, 1, 2) {
                    Ok(asked) => {
                        assert!(allowed, "{kind:?} {key:?}");
                        assert_eq!((asked.kind, asked.key.is_some()), (kind, !key.is_empty()));
                        assert_eq!(asked.budget, JobBudget { bytes: 1, kms_calls: 2 });
                    }
                    Err(refused) => assert!(!allowed && refused.field == "key_id", "{kind:?} {key:?}"),
                }
            }
        }
    }
}
