//! How durations, sizes and names are written in a configuration: `"5s"`, `"32MiB"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::domain::{Environment, TenantId, VaultId};

/// Units of time, in milliseconds.
const TIME: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of size, in bytes.
const SIZE: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// `"250ms"`, `"5s"`, `"10m"`, `"24h"`, `"7d"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "{text:?} is no duration: write a whole number and ms, s, m, h or d, as \"5s\""
        ))
    })
}

/// As [`duration`]; for options that need not be there.
pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// `"512B"`, `"64KiB"`, `"32MiB"`, `"1GiB"`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "{text:?} is no size: write a whole number and B, KiB, MiB or GiB, as \"32MiB\""
        ))
    })
}

/// An environment's name.
pub(super) fn environment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Environment, D::Error> {
    Environment::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// A vault's id.
pub(super) fn vault_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VaultId, D::Error> {
    VaultId::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// A tenant's name.
pub(super) fn tenant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TenantId, D::Error> {
    TenantId::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn parse_duration(text: &str) -> Option<Duration> {
    with_unit(text, &TIME).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<usize> {
    with_unit(text, &SIZE).and_then(|bytes| usize::try_from(bytes).ok())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_a_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_mins(2)));
        assert_eq!(parse_duration("1d"), Some(Duration::from_hours(24)));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("7B"), Some(7));
        for bad in ["", "5", "s", "5 s", "-5s", "5S", "1.5s", "5sec", "18446744073709551615h"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for bad in ["", "5", "5KB", "5kib", "18446744073709551615GiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
