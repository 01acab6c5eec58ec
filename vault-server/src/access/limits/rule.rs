//! What a site says of how its principals usually behave.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::access::{Action, Caller, PrincipalKind, Role, TenantScope};
use crate::domain::{ClassName, PrincipalId, SubjectRef, TenantId, Timestamp};

/// What a principal uses in one request.
#[derive(Debug, Clone, Copy)]
pub struct Use<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// Whose data.
    pub tenant: &'a TenantId,
    /// What it does with them.
    pub action: Action,
    /// The values that it gets: their classes, and whom they are about.
    pub values: &'a [(ClassName, Option<SubjectRef>)],
}

/// Whom a rule is about. An empty list is everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whom {
    /// Who holds one of these at the tenant.
    pub roles: BTreeSet<Role>,
    /// Programs or persons.
    pub kinds: BTreeSet<PrincipalKind>,
    /// These.
    pub principals: BTreeSet<PrincipalId>,
}

/// What happens past a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The request is refused, and an alert goes out.
    Deny,
    /// An alert goes out.
    Alert,
}

/// How much a principal may use in a window of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRule {
    /// Its name, in the log and in alerts.
    pub name: String,
    /// Whom it is about.
    pub whom: Whom,
    /// What is counted.
    pub actions: BTreeSet<Action>,
    /// Values of which classes; empty: of all.
    pub classes: BTreeSet<ClassName>,
    /// How long a window is. Windows begin at multiples of it since 1970.
    pub window: Duration,
    /// The most requests, values and subjects of a window.
    pub most: [Option<u64>; 3],
    /// What happens past that.
    pub then: Then,
}

/// When persons usually work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoursRule {
    /// Its name, in alerts.
    pub name: String,
    /// Whom it is about: of these only persons.
    pub whom: Whom,
    /// From which minute of the day, and before which one; over midnight if the second is earlier.
    pub minutes: (u32, u32),
    /// Minutes that the clock there is ahead of UTC.
    pub offset: i32,
}

/// All that a site says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitRules {
    /// Limits.
    pub limits: Vec<LimitRule>,
    /// Usual hours.
    pub hours: Vec<HoursRule>,
    /// Whether it is told when a principal uses a role at a tenant for the first time.
    pub first_seen_tenant: bool,
}

impl Whom {
    fn contains(&self, used: &Use<'_>) -> bool {
        let principal = &used.caller.principal;
        let held = principal.roles_at(&TenantScope::One(used.tenant.clone()));
        (self.principals.is_empty() || self.principals.contains(&principal.id))
            && (self.kinds.is_empty() || self.kinds.contains(&principal.kind))
            && (self.roles.is_empty() || held.iter().any(|role| self.roles.contains(&role)))
    }
}

impl LimitRule {
    /// Whether it counts this.
    pub(super) fn applies(&self, used: &Use<'_>) -> bool {
        self.actions.contains(&used.action)
            && self.whom.contains(used)
            && (self.classes.is_empty() || self.counted(used).next().is_some())
    }

    /// The values that it counts.
    pub(super) fn counted<'a>(&'a self, used: &Use<'a>) -> impl Iterator<Item = Option<SubjectRef>> + 'a {
        let counts = |class: &ClassName| self.classes.is_empty() || self.classes.contains(class);
        used.values.iter().filter(move |(class, _)| counts(class)).map(|(_, subject)| *subject)
    }

    /// When the window begins that a time is in, in microseconds.
    pub(super) fn start(&self, now: Timestamp) -> u64 {
        now.0 - now.0 % self.micros()
    }

    /// How long a window is, in microseconds.
    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.window.as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

impl HoursRule {
    const DAY: i64 = 24 * 60;

    /// The day there, if the use is at an unusual hour of it.
    pub(super) fn unusual_day(&self, used: &Use<'_>, now: Timestamp) -> Option<i64> {
        let minute = (now.0 / 60_000_000).cast_signed() + i64::from(self.offset);
        let (day, minute) = (minute.div_euclid(Self::DAY), minute.rem_euclid(Self::DAY));
        let (from, to) = (i64::from(self.minutes.0), i64::from(self.minutes.1));
        let usual = if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to };
        let is_person = used.caller.principal.kind == PrincipalKind::Human;
        (is_person && !usual && self.whom.contains(used)).then_some(day)
    }
}
