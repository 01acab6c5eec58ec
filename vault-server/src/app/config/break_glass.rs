//! `[break_glass]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::units;
use crate::domain::TenantId;

/// `[break_glass]`: grants of plain values in an emergency.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakGlass {
    /// How many people must approve a grant.
    pub approvals: u32,
    /// How long a grant is good for from its approval, if nobody said.
    #[serde(deserialize_with = "units::duration")]
    pub duration: Duration,
    /// The longest that may be asked for.
    #[serde(deserialize_with = "units::duration")]
    pub max_duration: Duration,
    /// How long a request waits for its approval.
    #[serde(deserialize_with = "units::duration")]
    pub wait: Duration,
    /// Within how long a grant must be reviewed once it is over.
    #[serde(deserialize_with = "units::duration")]
    pub review_within: Duration,
    /// How many values a grant about a person is good for, if nobody said.
    pub values: u32,
    /// The most values that may be asked for.
    pub max_values: u32,
    /// Grants that one requester may have at a time that wait or are in force.
    pub max_open: usize,
    /// What may be given as a reason.
    pub reason_codes: Vec<String>,
    /// What holds for some tenants instead.
    pub tenant: Vec<BreakGlassTenant>,
}

/// `[[break_glass.tenant]]`: what holds for a tenant instead.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassTenant {
    /// Which.
    #[serde(deserialize_with = "tenant")]
    pub name: TenantId,
    /// How many people must approve; 0: nobody.
    pub approvals: Option<u32>,
    /// The longest that may be asked for.
    #[serde(default, deserialize_with = "units::some_duration")]
    pub max_duration: Option<Duration>,
    /// The most values that may be asked for.
    pub max_values: Option<u32>,
}

impl Default for BreakGlass {
    fn default() -> Self {
        Self {
            approvals: 1,
            duration: Duration::from_mins(15),
            max_duration: Duration::from_hours(1),
            wait: Duration::from_hours(1),
            review_within: Duration::from_hours(72),
            values: 20,
            max_values: 1000,
            max_open: 3,
            reason_codes: ["patient_safety", "outage", "data_repair", "legal", "security_incident"]
                .map(str::to_owned)
                .into(),
            tenant: Vec::new(),
        }
    }
}

/// Nobody needs plain values in an emergency for longer than that: who does asks again.
const LONGEST: Duration = Duration::from_hours(1);
/// Values that one grant may be good for: as many as one call gives.
const MOST_VALUES: u32 = 1000;
/// People that one grant may need.
const MOST_APPROVALS: u32 = 5;
/// A grant that nobody looks at for longer is forgotten.
const LONGEST_REVIEW: Duration = Duration::from_hours(24 * 30);

impl BreakGlass {
    /// What the types alone do not say.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let between =
            |duration: Duration, most: Duration| (Duration::from_secs(1)..=most).contains(&duration);
        let is_code = |code: &String| {
            (1..=32).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let tenants = &self.tenant;
        let rules: [(&'static str, bool, &str); 12] = [
            (
                "break_glass.approvals",
                (1..=MOST_APPROVALS).contains(&self.approvals),
                "must be 1 to 5; 0 is for [[break_glass.tenant]] to say",
            ),
            ("break_glass.max_duration", between(self.max_duration, LONGEST), "must be \"1s\" to \"1h\""),
            (
                "break_glass.duration",
                between(self.duration, self.max_duration),
                "must be \"1s\" to break_glass.max_duration",
            ),
            ("break_glass.wait", between(self.wait, Duration::from_hours(24)), "must be \"1s\" to \"24h\""),
            (
                "break_glass.review_within",
                between(self.review_within, LONGEST_REVIEW),
                "must be \"1s\" to \"30d\"",
            ),
            ("break_glass.max_values", (1..=MOST_VALUES).contains(&self.max_values), "must be 1 to 1000"),
            (
                "break_glass.values",
                (1..=self.max_values).contains(&self.values),
                "must be 1 to break_glass.max_values",
            ),
            ("break_glass.max_open", (1..=16).contains(&self.max_open), "must be 1 to 16"),
            (
                "break_glass.reason_codes",
                (1..=64).contains(&self.reason_codes.len()) && self.reason_codes.iter().all(is_code),
                "must be 1 to 64 names of 1 to 32 characters of a-z and '_'",
            ),
            (
                "break_glass.tenant",
                tenants.iter().all(|tenant| tenant.approvals.is_none_or(|count| count <= MOST_APPROVALS)),
                "approvals must be 0 to 5",
            ),
            (
                "break_glass.tenant",
                tenants.iter().all(|tenant| {
                    tenant.max_duration.is_none_or(|longest| between(longest, LONGEST))
                        && tenant.max_values.is_none_or(|most| (1..=MOST_VALUES).contains(&most))
                }),
                "max_duration must be \"1s\" to \"1h\", and max_values 1 to 1000",
            ),
            (
                "break_glass.tenant",
                tenants
                    .iter()
                    .enumerate()
                    .all(|(at, tenant)| tenants[..at].iter().all(|other| other.name != tenant.name)),
                "names a tenant twice",
            ),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((option, _, why)) => Err((option, why.to_owned())),
            None => Ok(()),
        }
    }
}

fn tenant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TenantId, D::Error> {
    TenantId::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}
