//! Internet addresses.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::value::{Context, InvalidValue};

/// Version 4 or 6, without zone or prefix length, in its canonical text (RFC 5952); a version 4 address mapped into
/// version 6 is the version 4 address.
pub(super) fn ip(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    parse(value)
        .map(|address| Zeroizing::new(address.to_string()))
        .ok_or(InvalidValue::NotOfClass { rule: "an IP address is one of version 4 or 6" })
}

/// `203.0.113.*`, or the first 48 bits: `2001:0db8:85a3:*`.
pub(super) fn mask_ip(value: &str) -> String {
    match parse(value) {
        Some(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.*")
        }
        Some(IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:04x}:{b:04x}:{c:04x}:*")
        }
        None => "*.*.*.*".to_owned(),
    }
}

fn parse(value: &str) -> Option<IpAddr> {
    value.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
