//! What holds for grants: the configuration's words.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::TenantId;

/// What holds for grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRules {
    /// How many people must approve one.
    pub approvals: u32,
    /// How long one is good for, if nobody said.
    pub duration: Duration,
    /// The longest that may be asked for.
    pub max_duration: Duration,
    /// How long one waits for approval.
    pub wait: Duration,
    /// Within how long one must be reviewed once it is over.
    pub review_within: Duration,
    /// How many values one about a person is good for, if nobody said.
    pub values: u32,
    /// The most that may be asked for.
    pub max_values: u32,
    /// How many one requester may have at a time that wait or are in force.
    pub max_open: usize,
    /// What may be given as a reason.
    pub reason_codes: Vec<String>,
    /// What holds for some tenants instead.
    pub tenants: BTreeMap<TenantId, TenantRules>,
}

/// What holds for a tenant instead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantRules {
    /// How many people must approve; 0: nobody.
    pub approvals: Option<u32>,
    /// The longest that may be asked for.
    pub max_duration: Option<Duration>,
    /// The most values that may be asked for.
    pub max_values: Option<u32>,
}

impl GrantRules {
    pub(super) fn approvals(&self, tenant: &TenantId) -> u32 {
        self.tenants.get(tenant).and_then(|rules| rules.approvals).unwrap_or(self.approvals)
    }

    pub(super) fn max_duration(&self, tenant: &TenantId) -> Duration {
        self.tenants.get(tenant).and_then(|rules| rules.max_duration).unwrap_or(self.max_duration)
    }

    pub(super) fn max_values(&self, tenant: &TenantId) -> u32 {
        self.tenants.get(tenant).and_then(|rules| rules.max_values).unwrap_or(self.max_values)
    }

    #[cfg(test)]
    pub(in crate::vault) fn for_tests() -> Self {
        Self {
            approvals: 1,
            duration: Duration::from_mins(15),
            max_duration: Duration::from_hours(1),
            wait: Duration::from_hours(1),
            review_within: Duration::from_hours(72),
            values: 20,
            max_values: 1000,
            max_open: 3,
            reason_codes: vec!["patient_safety".to_owned(), "outage".to_owned()],
            tenants: BTreeMap::new(),
        }
    }
}
