//! Limits of principals: how much of what they may, they may do in a window of time, on all instances together.
//!
//! A window's counter is a row. An instance *reserves* a share of the limit in it, by compare-and-set, before it spends any of it,
//! and then counts in memory: so there is no round trip but where a share is used up, and all instances together never spend more
//! than the limit. What goes wrong makes it stricter: what an instance reserved and did not spend when it stopped, or when its clock
//! went back to another window, counts as used; a subject that two instances see, or that is seen under two versions of the index
//! key, may count twice.

mod row;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::rule::{HoursRule, LimitRule, LimitRules, Then, Use, Whom};
use crate::access::AlertKind;
use crate::domain::{
    Clock, Entity, EntityKind, EntityName, EntityPlace, EntityScope, PrincipalId, SubjectRef,
};
use crate::store::{Change, EntityRow, Store, StoreError, Write};

/// A share is this part of the limit.
const SHARES: u64 = 16;
/// How often a reservation is tried against those of other instances.
const ATTEMPTS: usize = 32;
/// Windows, and things told, that are remembered at once. What is forgotten makes it stricter, or costs a read.
const MOST_WINDOWS: usize = 10_000;
const MOST_TOLD: usize = 100_000;
/// Rows are kept for so long after their windows, and for another window: as far as clocks may be apart.
const KEPT: u64 = 3_600_000_000;
/// Rows that are swept at once.
const PAGE: usize = 1000;

/// Why it is not known whether a limit is crossed. Then it counts as crossed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were faster each time.
    #[error("too many reserve at once")]
    Contended,
    /// A counter's row is not what was written.
    #[error("a counter's row is not what was written")]
    Corrupt,
}

/// What is to be told of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// What it is.
    pub kind: AlertKind,
    /// The rule's name; empty for a tenant's first use.
    pub rule: &'static str,
    /// If the request is refused for it: from when on there is room again.
    pub denied: Option<Duration>,
    /// The row that says that it was told: written with what tells of it, and never changed.
    pub told: Entity,
}

/// The limits, and how much of them is used.
pub struct UsageLimits {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    rules: LimitRules,
    /// The names of the limits and of the hours, in the order of the rules.
    names: (Vec<&'static str>, Vec<&'static str>),
    windows: Mutex<Windows>,
    /// What was told, and until when that is of use.
    told: Mutex<HashMap<EntityName, u64>>,
}

/// By principal and number of the rule.
type Windows = HashMap<(PrincipalId, usize), Arc<tokio::sync::Mutex<Window>>>;

/// What this instance knows of a counter.
#[derive(Default)]
struct Window {
    /// When the window begins; `None` before the row was read.
    start: Option<u64>,
    /// The row as it was last seen: its revision, and what all instances have reserved.
    revision: Option<u64>,
    reserved: [u64; 3],
    /// What of it is this instance's to spend.
    have: [u64; 3],
    /// Subjects that were counted.
    subjects: HashSet<SubjectRef>,
}

/// What a request takes of a window.
struct Need {
    counts: [u64; 3],
    subjects: HashSet<SubjectRef>,
}

impl UsageLimits {
    /// By these rules.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, rules: LimitRules) -> Self {
        // Rules are read once, at the start: what is leaked is as large as the configuration.
        let leak = |name: &String| -> &'static str { Box::leak(name.clone().into_boxed_str()) };
        let names = (
            rules.limits.iter().map(|rule| leak(&rule.name)).collect(),
            rules.hours.iter().map(|rule| leak(&rule.name)).collect(),
        );
        Self { store, clock, rules, names, windows: Mutex::default(), told: Mutex::default() }
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules == LimitRules::default()
    }

    /// Counts what a request uses, unless a limit denies it: then nothing of it is counted. What there is to be told of it.
    pub async fn spend(&self, used: &Use<'_>) -> Result<Vec<Crossing>, LimitError> {
        let now = self.clock.now();
        let mut crossings = self.unusual(used);
        let mut held = Vec::new();
        // Always in the order of the rules, so that two requests do not wait for each other.
        for (number, rule) in self.rules.limits.iter().enumerate().filter(|(_, rule)| rule.applies(used)) {
            let mut window = self.window(used, number).lock_owned().await;
            let start = rule.start(now);
            if window.start != Some(start) {
                *window = self.open(rule, used, start).await?;
            }
            let need = window.need(rule, used);
            if self.reserve(rule, used, start, &mut window, &need).await? {
                held.push((window, need));
            } else {
                crossings.push(self.crossed(number, rule, used, start));
            }
        }
        if crossings.iter().all(|crossing| crossing.denied.is_none()) {
            for (mut window, need) in held {
                window.spend(need);
            }
        }
        Ok(crossings)
    }

    /// Whether it was told already.
    pub async fn is_told(&self, crossing: &Crossing) -> Result<bool, LimitError> {
        let place = &crossing.told.place;
        if self.told.lock().contains_key(&place.name) {
            return Ok(true);
        }
        let is_told = self.store.entity(place).await?.is_some();
        if is_told {
            self.has_told(crossing);
        }
        Ok(is_told)
    }

    /// It was told: here, or by somebody who was faster.
    pub fn has_told(&self, crossing: &Crossing) {
        let expires = row::expires(&crossing.told).unwrap_or(0);
        let mut told = self.told.lock();
        if told.len() >= MOST_TOLD {
            let now = self.clock.now().0;
            told.retain(|_, expires| *expires > now);
            if told.len() >= MOST_TOLD {
                told.clear();
            }
        }
        told.insert(crossing.told.place.name.clone(), expires);
    }

    /// Removes what is of no use any more; how many rows.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let now = self.clock.now().0;
        let (mut after, mut swept) = (None, 0);
        loop {
            let page =
                self.store.entity_rows(&EntityScope::Kind(EntityKind::Counter), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(swept) };
            after = Some(last.place().clone());
            // One that is not the vault's stays: as long as it is there, its window is closed.
            let page = page.into_iter().filter_map(EntityRow::sound);
            for Entity { place, revision, .. } in
                page.filter(|entity| row::expires(entity).is_some_and(|expires| expires < now))
            {
                let gone =
                    Change { writes: vec![Write::DropEntity { place, revision }], entries: Vec::new() };
                match self.store.commit(gone).await {
                    Ok(_) => swept += 1,
                    // Another instance sweeps, too.
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Unusual hours, and the first use at a tenant.
    fn unusual(&self, used: &Use<'_>) -> Vec<Crossing> {
        const TWO_DAYS: u64 = 2 * 24 * KEPT;
        let (now, principal) = (self.clock.now(), used.caller.principal.id.as_str().as_bytes());
        let mut unusual = Vec::new();
        for (rule, name) in self.rules.hours.iter().zip(&self.names.1) {
            if let Some(day) = rule.unusual_day(used, now) {
                let place = row::place("hours told", &[principal, name.as_bytes(), &day.to_be_bytes()]);
                let told = row::told(place, now.0.saturating_add(TWO_DAYS));
                unusual.push(Crossing { kind: AlertKind::UnusualHour, rule: name, denied: None, told });
            }
        }
        if self.rules.first_seen_tenant {
            let place = row::place("tenant told", &[principal, used.tenant.as_str().as_bytes()]);
            let told = row::told(place, u64::MAX);
            unusual.push(Crossing { kind: AlertKind::FirstSeenTenant, rule: "", denied: None, told });
        }
        unusual
    }

    fn window(&self, used: &Use<'_>, number: usize) -> Arc<tokio::sync::Mutex<Window>> {
        let mut windows = self.windows.lock();
        if windows.len() >= MOST_WINDOWS {
            // Those at work keep theirs; shares of the others count as used.
            windows.retain(|_, window| Arc::strong_count(window) > 1);
        }
        Arc::clone(windows.entry((used.caller.principal.id.clone(), number)).or_default())
    }

    async fn open(&self, rule: &LimitRule, used: &Use<'_>, start: u64) -> Result<Window, LimitError> {
        let mut window = Window { start: Some(start), ..Window::default() };
        window.take_up(self.store.entity(&counter("limit", rule, used, start)).await?.as_ref())?;
        Ok(window)
    }

    /// Makes sure that the window has what is needed; `false`: there is not so much left.
    async fn reserve(
        &self,
        rule: &LimitRule,
        used: &Use<'_>,
        start: u64,
        window: &mut Window,
        need: &Need,
    ) -> Result<bool, LimitError> {
        let place = counter("limit", rule, used, start);
        for _ in 0..ATTEMPTS {
            let mut more = [0; 3];
            for (n, most) in rule.most.iter().enumerate() {
                let missing = need.counts[n].saturating_sub(window.have[n]);
                let (Some(most), 1..) = (*most, missing) else { continue };
                // Others may have reserved more than is known here, never less.
                let left = most.saturating_sub(window.reserved[n]);
                if missing > left {
                    return Ok(false);
                }
                more[n] = missing.max(most / SHARES).min(left);
            }
            if more == [0; 3] {
                return Ok(true);
            }
            let reserved = add(window.reserved, more);
            let revision = window.revision.map_or(0, |revision| revision + 1);
            let expires = start.saturating_add(rule.micros().saturating_mul(2)).saturating_add(KEPT);
            let row = row::reserved(place.clone(), revision, expires, reserved);
            let change = Change { writes: vec![Write::PutEntity(row)], entries: Vec::new() };
            match self.store.commit(change).await {
                Ok(_) => {
                    (window.revision, window.reserved) = (Some(revision), reserved);
                    window.have = add(window.have, more);
                    return Ok(true);
                }
                Err(StoreError::Conflict { .. }) => {
                    window.take_up(self.store.entity(&place).await?.as_ref())?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(LimitError::Contended)
    }

    fn crossed(&self, number: usize, rule: &LimitRule, used: &Use<'_>, start: u64) -> Crossing {
        let end = start.saturating_add(rule.micros());
        let again = Duration::from_micros(end.saturating_sub(self.clock.now().0));
        let place = counter("limit told", rule, used, start);
        Crossing {
            kind: AlertKind::LimitReached,
            rule: self.names.0[number],
            denied: (rule.then == Then::Deny).then_some(again),
            told: row::told(place, end.saturating_add(rule.micros()).saturating_add(KEPT)),
        }
    }
}

fn counter(what: &str, rule: &LimitRule, used: &Use<'_>, start: u64) -> EntityPlace {
    let principal = used.caller.principal.id.as_str().as_bytes();
    row::place(what, &[principal, rule.name.as_bytes(), &start.to_be_bytes()])
}

fn add(one: [u64; 3], other: [u64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|n| one[n].saturating_add(other[n]))
}

impl Window {
    fn take_up(&mut self, row: Option<&Entity>) -> Result<(), LimitError> {
        (self.revision, self.reserved) = match row {
            Some(row) => (Some(row.revision), row::read(row).ok_or(LimitError::Corrupt)?),
            None => (None, [0; 3]),
        };
        Ok(())
    }

    /// What a request takes of what the rule bounds.
    fn need(&self, rule: &LimitRule, used: &Use<'_>) -> Need {
        let [_, _, subjects] = rule.most;
        let values = rule.counted(used).count() as u64;
        let new = rule.counted(used).flatten().filter(|subject| !self.subjects.contains(subject));
        let subjects: HashSet<_> = if subjects.is_some() { new.collect() } else { HashSet::new() };
        let counts = [1, values, subjects.len() as u64];
        let bounded = [0, 1, 2].map(|n| if rule.most[n].is_some() { counts[n] } else { 0 });
        Need { counts: bounded, subjects }
    }

    fn spend(&mut self, need: Need) {
        for (have, needed) in self.have.iter_mut().zip(need.counts) {
            *have = have.saturating_sub(needed);
        }
        self.subjects.extend(need.subjects);
    }
}
