//! The token of a request: metadata `authorization: Bearer ...` (RFC 6750 section 2.1).

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::access::SessionToken;
use crate::access::oidc::AccessToken;
use crate::vault::Bearer;

const SCHEME: &str = "bearer";

/// What a request brings. Two of them are none: it could not be told which is meant.
pub(super) fn of(headers: &HeaderMap) -> Bearer {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Bearer::Nothing,
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Bearer::Malformed,
    };
    let Some((scheme, token)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return Bearer::Malformed;
    };
    if !scheme.eq_ignore_ascii_case(SCHEME) || token.is_empty() || token.contains([' ', '\t', ',']) {
        return Bearer::Malformed;
    }
    if SessionToken::is_meant(token) {
        return SessionToken::parse(token).map_or(Bearer::Malformed, Bearer::Session);
    }
    Bearer::Access(AccessToken::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&str]) -> &'static str {
        let headers = values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap()));
        match of(&headers.collect::<HeaderMap>()) {
            Bearer::Nothing => "nothing",
            Bearer::Malformed => "malformed",
            Bearer::Session(_) => "session",
            Bearer::Access(_) => "access",
        }
    }

    #[test]
    fn a_request_has_one_token_or_none() {
        let session = format!("Bearer pvs_{}", "0a".repeat(32));
        assert_eq!(told(&[]), "nothing");
        assert_eq!(told(&[&session]), "session");
        assert_eq!(told(&["bearer eyJ.a.b"]), "access");
        for bad in [
            "Bearer",
            "Bearer ",
            "Bearer  a",
            "Bearer a b",
            "Bearer a,b",
            "Basic YTpi",
            "DPoP a",
            "",
            "a.b.c",
            "Bearer pvs_0a",
        ] {
            assert_eq!(told(&[bad]), "malformed", "{bad:?}");
        }
        assert_eq!(told(&["Bearer a.b.c", &session]), "malformed");
        assert_eq!(told(&[&session, &session]), "malformed");
    }
}
