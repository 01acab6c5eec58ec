//! What the configuration says, in the words of each part.

use anyhow::Context as _;

use crate::app::config::Config;
use crate::domain::JobBudget;
use crate::domain::class::{ClassOptions, Classes, CustomClass};
use crate::grpc::WireLimits;
use crate::jobs::{Options, Schedule};
use crate::vault::{GrantRules, JobRules, Limits, PeopleRules, SecondFactorRules, TenantRules};

/// Messages of one stream that are served at once.
const STREAM_WINDOW: usize = 4;

/// The data classes: the built-in ones, and the vault's own.
pub(super) fn classes(config: &Config) -> anyhow::Result<Classes> {
    let custom = config.classes.custom.iter().enumerate().map(|(n, value)| {
        let class: Result<CustomClass, _> = value.clone().try_into();
        class.with_context(|| format!("[[classes.custom]] number {}", n + 1))
    });
    let custom = custom.collect::<anyhow::Result<Vec<_>>>()?;
    let builtin = Classes::builtin(ClassOptions { accept_synthetic: config.accept_synthetic() });
    builtin.with_custom(custom).context("[[classes.custom]]")
}

/// What a request may ask for.
pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        items: config.limits.max_items,
        value_bytes: config.limits.max_value,
        response_bytes: config.limits.max_message,
        remember: config.idempotency.remember,
    }
}

/// What a connection may ask for.
pub(super) fn on_the_wire(config: &Config) -> WireLimits {
    WireLimits {
        message: config.limits.max_message,
        stream_window: STREAM_WINDOW,
        stream_messages: config.limits.max_requests,
        stream_idle: config.limits.stream_idle,
    }
}

/// What holds for jobs.
pub(super) fn jobs(config: &Config) -> JobRules {
    let Config { jobs, keys, .. } = config;
    JobRules {
        budget: JobBudget { bytes: jobs.bytes_per_second as u64, kms_calls: jobs.kms_calls_per_second },
        waiting: keys.destroy_after,
        kms_price: millionths(keys.kms_price),
    }
}

/// How workers do them.
pub(super) fn workers(config: &Config) -> Options {
    let Config { jobs, keys, .. } = config;
    Options { poll: jobs.poll, lease: jobs.lease, at_once: jobs.at_once, waiting: keys.destroy_after }
}

/// When keys are due to be rotated.
pub(super) fn schedule(config: &Config) -> Schedule {
    Schedule { after: config.keys.rotate_after, after_records: config.keys.rotate_after_records }
}

/// What holds for grants of break-glass.
pub(super) fn grants(config: &Config) -> GrantRules {
    let section = &config.break_glass;
    let tenants = section.tenant.iter().map(|tenant| {
        let rules = TenantRules {
            approvals: tenant.approvals,
            max_duration: tenant.max_duration,
            max_values: tenant.max_values,
        };
        (tenant.name.clone(), rules)
    });
    GrantRules {
        approvals: section.approvals,
        duration: section.duration,
        max_duration: section.max_duration,
        wait: section.wait,
        review_within: section.review_within,
        values: section.values,
        max_values: section.max_values,
        max_open: section.max_open,
        reason_codes: section.reason_codes.clone(),
        tenants: tenants.collect(),
    }
}

/// What holds for changes of who may.
pub(super) fn people(config: &Config) -> PeopleRules {
    let access = &config.access;
    PeopleRules { second_person: access.second_person_for_roles, wait: access.second_person_wait }
}

/// What holds for second factors.
pub(super) fn second_factor(config: &Config) -> SecondFactorRules {
    let section = &config.second_factor;
    SecondFactorRules { user_verification: section.user_verification, for_approvals: section.for_approvals }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to a million")]
fn millionths(price: f64) -> u64 {
    (price * 1e6).round() as u64
}
