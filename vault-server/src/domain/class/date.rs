//! Dates of birth.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use zeroize::Zeroizing;

use super::MaskView;
use super::value::{Context, InvalidValue, copy};
use crate::domain::Timestamp;

/// `YYYY-MM-DD` (ISO 8601), a day that exists, not after today in UTC.
pub(super) fn dob(value: &str, context: Context) -> Result<Zeroizing<String>, InvalidValue> {
    const FORM: InvalidValue =
        InvalidValue::NotOfClass { rule: "a date of birth is a real date as YYYY-MM-DD" };
    const FUTURE: InvalidValue = InvalidValue::NotOfClass { rule: "a date of birth is not in the future" };

    let value = value.trim();
    let date = parse(value).ok_or(FORM)?;
    if date > today(context.now) { Err(FUTURE) } else { Ok(copy(value)) }
}

/// `****-**-**`, or with the year, which 45 CFR 164.514(b)(2)(i)(C) lets stand: `1956-**-**`.
pub(super) fn mask_dob(value: &str, view: MaskView) -> String {
    let value = value.trim();
    match (view, parse(value), value.get(..4)) {
        (MaskView::Year, Some(_), Some(year)) => format!("{year}-**-**"),
        _ => "****-**-**".to_owned(),
    }
}

fn parse(value: &str) -> Option<Date> {
    let bytes = value.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().try_fold(0_i16, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + i16::from(byte - b'0'))
        })
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Year 0 is what systems write that do not know.
    if year == 0 {
        return None;
    }
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn today(now: Timestamp) -> Date {
    let micros = i64::try_from(now.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros)
        .map_or(Date::MAX, |instant| TimeZone::UTC.to_datetime(instant).date())
}
