//! Parses messages once: inside, there are no raw strings.

use bytes::Bytes;
use vault_proto::v1;

use crate::domain::{ClassName, Environment, IdempotencyKey, Plaintext, Purpose, SubjectId, Token};
use crate::vault::{NewValue, ParsedToken, Problem, Refused};

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
