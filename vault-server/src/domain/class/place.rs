//! Addresses and ZIP codes: geography below the state, which 45 CFR 164.514(b)(2)(i)(B) counts as identifying, but
//! for the first three digits of a ZIP code where enough people live.

use zeroize::Zeroizing;

use super::value::{Context, InvalidValue, all_digits, nfc};

/// `02139`, `02139-4307` or `021394307`; normalized to the first or the second.
pub(super) fn zip(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    let (five, four) = zip_parts(value.trim())
        .ok_or(InvalidValue::NotOfClass { rule: "a ZIP code is five digits, or five and four" })?;
    let mut zip = Zeroizing::new(String::with_capacity(10));
    zip.push_str(five);
    if let Some(four) = four {
        zip.push('-');
        zip.push_str(four);
    }
    Ok(zip)
}

/// `021**`; `000**` where few people live, and for what is not a ZIP code.
pub(super) fn mask_zip(value: &str) -> String {
    let area = zip_parts(value.trim()).map(|(five, _)| &five[..3]).filter(|zip3| !restricted(zip3));
    format!("{}**", area.unwrap_or("000"))
}

/// Lines of text: NFC, each trimmed, empty ones dropped, parted by a line feed.
pub(super) fn address(value: &str, _: Context) -> Result<Zeroizing<String>, InvalidValue> {
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(InvalidValue::NotOfClass { rule: "an address has no control characters but line ends" });
    }
    let composed = nfc(value);
    let mut lines = Zeroizing::new(String::with_capacity(composed.len()));
    for line in composed.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()) {
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(line);
    }
    Ok(lines)
}

/// `*** MA`, if the address ends in a state of the US that is set off by a comma or a line end before it or a ZIP
/// code after it; else `***`. Stricter than a reader would be: `456 Washington` is a street.
pub(super) fn mask_address(value: &str) -> String {
    match state_at_end(value) {
        Some(code) => format!("*** {code}"),
        None => "***".to_owned(),
    }
}

/// See the file's head.
const RESTRICTED: &str = include_str!("zip3_restricted.txt");

fn restricted(zip3: &str) -> bool {
    RESTRICTED.lines().any(|line| line == zip3)
}

fn zip_parts(value: &str) -> Option<(&str, Option<&str>)> {
    let (five, four) = match value.len() {
        5 => (value, None),
        9 => value.split_at_checked(5).map(|(five, four)| (five, Some(four)))?,
        10 => value.split_once('-').map(|(five, four)| (five, Some(four)))?,
        _ => return None,
    };
    let formed = five.len() == 5 && all_digits(five) && four.is_none_or(|f| f.len() == 4 && all_digits(f));
    formed.then_some((five, four))
}

fn state_at_end(address: &str) -> Option<&'static str> {
    let address = address.trim_end();
    let last = address.rsplit(char::is_whitespace).next()?;
    let (address, has_zip) = match address.strip_suffix(last) {
        Some(before) if zip_parts(last).is_some() => (before, true),
        _ => (address, false),
    };
    let address = address.trim_end_matches(|c: char| c.is_whitespace() || c == ',');
    STATES
        .iter()
        .find(|(code, name)| ends_in(address, code, has_zip) || ends_in(address, name, has_zip))
        .map(|s| s.0)
}

/// Whether `address` ends in `state` as a part of its own. A code counts only in capitals: `Ma` may be a name.
fn ends_in(address: &str, state: &str, has_zip: bool) -> bool {
    let Some((before, end)) =
        address.len().checked_sub(state.len()).and_then(|at| address.split_at_checked(at))
    else {
        return false;
    };
    let same = if state.len() == 2 { end == state } else { end.eq_ignore_ascii_case(state) };
    let space = before.trim_end_matches([' ', '\t']);
    let set_off = space.ends_with([',', '\n', '\r']);
    let parted = set_off || space.len() < before.len();
    // `West Virginia` is not Virginia, whatever stands before it.
    let other = state == "Virginia" && space.to_ascii_lowercase().ends_with("west");
    same && !other && parted && (set_off || has_zip) && !space.trim_matches([',', '\n', '\r', ' ']).is_empty()
}

/// Postal codes and names of states, the District of Columbia and the territories (USPS Publication 28, appendix B).
const STATES: &[(&str, &str)] = &[
    ("AL", "Alabama"),
    ("AK", "Alaska"),
    ("AZ", "Arizona"),
    ("AR", "Arkansas"),
    ("CA", "California"),
    ("CO", "Colorado"),
    ("CT", "Connecticut"),
    ("DE", "Delaware"),
    ("DC", "District of Columbia"),
    ("FL", "Florida"),
    ("GA", "Georgia"),
    ("HI", "Hawaii"),
    ("ID", "Idaho"),
    ("IL", "Illinois"),
    ("IN", "Indiana"),
    ("IA", "Iowa"),
    ("KS", "Kansas"),
    ("KY", "Kentucky"),
    ("LA", "Louisiana"),
    ("ME", "Maine"),
    ("MD", "Maryland"),
    ("MA", "Massachusetts"),
    ("MI", "Michigan"),
    ("MN", "Minnesota"),
    ("MS", "Mississippi"),
    ("MO", "Missouri"),
    ("MT", "Montana"),
    ("NE", "Nebraska"),
    ("NV", "Nevada"),
    ("NH", "New Hampshire"),
    ("NJ", "New Jersey"),
    ("NM", "New Mexico"),
    ("NY", "New York"),
    ("NC", "North Carolina"),
    ("ND", "North Dakota"),
    ("OH", "Ohio"),
    ("OK", "Oklahoma"),
    ("OR", "Oregon"),
    ("PA", "Pennsylvania"),
    ("RI", "Rhode Island"),
    ("SC", "South Carolina"),
    ("SD", "South Dakota"),
    ("TN", "Tennessee"),
    ("TX", "Texas"),
    ("UT", "Utah"),
    ("VT", "Vermont"),
    ("VA", "Virginia"),
    ("WA", "Washington"),
    ("WV", "West Virginia"),
    ("WI", "Wisconsin"),
    ("WY", "Wyoming"),
    ("AS", "American Samoa"),
    ("GU", "Guam"),
    ("MP", "Northern Mariana Islands"),
    ("PR", "Puerto Rico"),
    ("VI", "Virgin Islands"),
];
