//! JSON as it must be where two readers may not read two things: a name stands once in an object, at every depth, and a
//! number is a whole number or of no use.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Something in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    Text(String),
    /// A whole number from 0, written as one.
    Whole(u64),
    Array(Vec<Json>),
    Object(Object),
    /// Anything else: no claim that counts here is one.
    Other,
}

/// An object. No name stands in it twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Object(BTreeMap<String, Json>);

impl Object {
    /// From the bytes of one object and nothing else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        match serde_json::from_slice(bytes) {
            Ok(Json::Object(object)) => Some(object),
            Ok(_) | Err(_) => None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    /// A text, if there is one of that name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl Json {
    /// The texts of an array of texts, or of one text.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        match self {
            Self::Text(text) => Some(vec![text]),
            Self::Array(items) => items.iter().map(Self::as_text).collect(),
            Self::Whole(_) | Self::Object(_) | Self::Other => None,
        }
    }

    fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

struct Strict;

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Whole(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = from.next_entry::<String, Json>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Json::Object(Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_however_it_is_written() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            "[]",
            "1",
            "{}{}",
            "\u{feff}{}",
            "",
        ] {
            assert_eq!(Object::parse(bad.as_bytes()), None, "{bad}");
        }
        let good = Object::parse(br#"{"a":1,"A":2,"b":["x"],"c":1.0,"d":-1,"e":1e3}"#).unwrap();
        assert_eq!(good.get("a"), Some(&Json::Whole(1)));
        assert_eq!(good.get("b").unwrap().texts(), Some(vec!["x"]));
        for other in ["c", "d", "e"] {
            assert_eq!(good.get(other), Some(&Json::Other), "{other}");
        }
    }
}
