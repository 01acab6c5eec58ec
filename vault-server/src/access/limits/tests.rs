use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::access::testing::{test_caller, test_person, test_tenant};
use crate::access::{Action, Caller, PrincipalKind, Role};
use crate::domain::{ClassName, KeyVersion, TenantId, Timestamp};
use crate::store::memory::MemoryStore;

const HOUR: u64 = KEPT;
const BEGIN: u64 = 490_000 * HOUR;

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct Rig {
    store: MemoryStore,
    clock: Arc<SetClock>,
    caller: Caller,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(SetClock(AtomicU64::new(BEGIN)));
        Self { store: MemoryStore::new(), clock, caller: test_caller(Role::Service) }
    }

    fn at(&self, time: u64) {
        self.clock.0.store(time, Ordering::SeqCst);
    }

    /// An instance.
    fn instance(&self, rules: LimitRules) -> UsageLimits {
        UsageLimits::new(Arc::new(self.store.clone()), Arc::clone(&self.clock) as _, rules)
    }

    fn limited(&self, most: [Option<u64>; 3]) -> UsageLimits {
        self.instance(LimitRules { limits: vec![rule(most)], ..LimitRules::default() })
    }

    async fn spend(&self, limits: &UsageLimits, values: &[(ClassName, Option<SubjectRef>)]) -> Vec<Crossing> {
        self.spend_as(limits, &self.caller, &test_tenant(), Action::Detokenize, values).await
    }

    async fn spend_as(
        &self,
        limits: &UsageLimits,
        caller: &Caller,
        tenant: &TenantId,
        action: Action,
        values: &[(ClassName, Option<SubjectRef>)],
    ) -> Vec<Crossing> {
        limits.spend(&Use { caller, tenant, action, values }).await.unwrap()
    }

    /// How many requests for one value each go through before one does not.
    async fn requests(&self, limits: &UsageLimits) -> u64 {
        let mut count = 0;
        while self.spend(limits, &[ssn(0)]).await.is_empty() {
            count += 1;
            assert!(count < 10_000, "nothing bounds it");
        }
        count
    }

    async fn rows(&self) -> usize {
        self.store.entities(&EntityScope::Kind(EntityKind::Counter), None, 1000).await.unwrap().len()
    }
}

fn class(name: &str) -> ClassName {
    ClassName::parse(name).unwrap()
}

/// A value about a subject.
fn ssn(subject: u8) -> (ClassName, Option<SubjectRef>) {
    (class("ssn"), Some(SubjectRef { version: KeyVersion(1), mac: [subject; 16] }))
}

fn rule(most: [Option<u64>; 3]) -> LimitRule {
    LimitRule {
        name: "bulk".to_owned(),
        whom: Whom::default(),
        actions: [Action::Detokenize, Action::Mask].into(),
        classes: [].into(),
        window: Duration::from_hours(1),
        most,
        then: Then::Deny,
    }
}

#[tokio::test]
async fn requests_values_and_subjects_are_bounded_each() {
    let rig = Rig::new();
    assert_eq!(rig.requests(&rig.limited([Some(40), None, None])).await, 40);

    let rig = Rig::new();
    let limits = rig.limited([None, Some(10), None]);
    let seven = vec![ssn(1); 7];
    assert!(rig.spend(&limits, &seven).await.is_empty());
    // Too much as a whole is refused as a whole, and takes nothing.
    let crossing = &rig.spend(&limits, &seven).await[0];
    assert_eq!((crossing.rule, crossing.kind), ("bulk", AlertKind::LimitReached));
    assert_eq!(crossing.denied, Some(Duration::from_hours(1)));
    assert!(rig.spend(&limits, &seven[..3]).await.is_empty());
    assert_eq!(rig.spend(&limits, &seven[..1]).await.len(), 1);

    let rig = Rig::new();
    let limits = rig.limited([None, None, Some(2)]);
    for values in [vec![ssn(1); 5], vec![ssn(1), ssn(2)], vec![ssn(2), (class("ssn"), None)]] {
        assert!(rig.spend(&limits, &values).await.is_empty());
    }
    assert_eq!(rig.spend(&limits, &[ssn(1), ssn(3)]).await.len(), 1);
    assert!(rig.spend(&limits, &[ssn(1)]).await.is_empty());
}

#[tokio::test]
async fn a_new_window_begins_anew_and_an_old_one_goes_on_when_the_clock_is_set_back() {
    let rig = Rig::new();
    let limits = rig.limited([Some(10), None, None]);
    rig.at(BEGIN + HOUR / 2);
    assert_eq!(rig.requests(&limits).await, 10);
    assert_eq!(rig.spend(&limits, &[]).await[0].denied, Some(Duration::from_mins(30)));
    rig.at(BEGIN + HOUR);
    assert!(rig.spend(&limits, &[]).await.is_empty());
    // Back in the first window, all of it is used still; and in the second what was reserved there stays used.
    rig.at(BEGIN + HOUR - 1);
    assert_eq!(rig.requests(&limits).await, 0);
    rig.at(BEGIN + HOUR);
    assert_eq!(rig.requests(&limits).await, 9);
}

#[tokio::test]
async fn a_restart_gives_nothing_back() {
    let rig = Rig::new();
    let mut used = 0;
    // Each takes a share of 10 and spends 3 of it.
    for _ in 0..20 {
        let limits = rig.limited([Some(160), None, None]);
        for _ in 0..3 {
            used += u64::from(rig.spend(&limits, &[]).await.is_empty());
        }
    }
    assert_eq!(used, 16 * 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_that_race_never_spend_more_than_the_limit() {
    for most in [1, 7, 100] {
        let rig = Arc::new(Rig::new());
        let instances: Vec<_> =
            (0..2).map(|_| Arc::new(rig.limited([Some(most), Some(most), None]))).collect();
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (rig, limits) = (Arc::clone(&rig), Arc::clone(&instances[task % 2]));
                tokio::spawn(async move {
                    let mut spent = 0;
                    for _ in 0..most {
                        spent += u64::from(rig.spend(&limits, &[ssn(1)]).await.is_empty());
                    }
                    spent
                })
            })
            .collect();
        let mut spent = 0;
        for task in tasks {
            spent += task.await.unwrap();
        }
        assert!(spent <= most, "{spent} of {most}");
        // What both have reserved and nobody could spend is at most the other's last share.
        assert!(spent + most / SHARES >= most, "{spent} of {most}");
    }
}

#[tokio::test]
async fn a_share_is_spent_without_the_store() {
    let rig = Rig::new();
    let limits = rig.limited([Some(160), None, None]);
    rig.spend(&limits, &[]).await;
    let used = Use { caller: &rig.caller, tenant: &test_tenant(), action: Action::Mask, values: &[] };
    let place = counter("limit", &rule([None; 3]), &used, BEGIN);
    for reserved in [1, 1, 2, 2] {
        let row = rig.store.entity(&place).await.unwrap().unwrap();
        assert_eq!((row.revision + 1, row::read(&row).unwrap()), (reserved, [reserved * 10, 0, 0]));
        for _ in 0..5 {
            assert!(rig.spend(&limits, &[]).await.is_empty());
        }
    }
}

#[tokio::test]
async fn only_what_a_rule_is_about_is_counted() {
    let (service, person) = (test_caller(Role::Service), test_person(Role::Service));
    let oncall = test_person(Role::OnCall);
    let mut narrow = rule([Some(1), None, None]);
    narrow.classes = [class("ssn")].into();
    narrow.whom.kinds = [PrincipalKind::Human].into();
    narrow.whom.roles = [Role::Service].into();
    let rig = Rig::new();
    let limits = rig.instance(LimitRules { limits: vec![narrow], ..LimitRules::default() });
    let dob = [(class("dob"), None)];
    for _ in 0..3 {
        for (caller, action, values) in [
            (&service, Action::Mask, &[ssn(1)]),
            (&oncall, Action::Mask, &[ssn(1)]),
            (&person, Action::Find, &[ssn(1)]),
            (&person, Action::Mask, &dob),
        ] {
            assert!(rig.spend_as(&limits, caller, &test_tenant(), action, values).await.is_empty());
        }
    }
    assert_eq!(rig.rows().await, 0);
    assert!(rig.spend_as(&limits, &person, &test_tenant(), Action::Mask, &[ssn(1)]).await.is_empty());
    assert_eq!(rig.spend_as(&limits, &person, &test_tenant(), Action::Mask, &[ssn(1)]).await.len(), 1);
}

#[tokio::test]
async fn of_two_limits_one_that_denies_takes_nothing_of_the_other() {
    let rig = Rig::new();
    let mut day = rule([None, Some(10), None]);
    (day.name, day.window) = ("day".to_owned(), Duration::from_hours(24));
    let rules = LimitRules { limits: vec![day, rule([None, Some(4), None])], ..LimitRules::default() };
    let limits = rig.instance(rules);
    assert_eq!(rig.spend(&limits, &vec![ssn(1); 5]).await.len(), 1);
    for hour in [0, 1] {
        rig.at(BEGIN + hour * HOUR);
        assert!(rig.spend(&limits, &vec![ssn(1); 4]).await.is_empty());
    }
    rig.at(BEGIN + 2 * HOUR);
    let crossings = rig.spend(&limits, &vec![ssn(1); 3]).await;
    assert_eq!(crossings.iter().map(|crossing| crossing.rule).collect::<Vec<_>>(), ["day"]);
    assert!(rig.spend(&limits, &vec![ssn(1); 2]).await.is_empty());
}

#[tokio::test]
async fn a_crossing_is_told_once_by_whichever_instance() {
    let rig = Rig::new();
    let (one, other) = (rig.limited([Some(1), None, None]), rig.limited([Some(1), None, None]));
    assert!(rig.spend(&one, &[]).await.is_empty());
    let (first, second) = (rig.spend(&one, &[]).await.remove(0), rig.spend(&other, &[]).await.remove(0));
    assert_eq!(first, second);
    assert!(!one.is_told(&first).await.unwrap() && !other.is_told(&second).await.unwrap());
    let tell = |crossing: &Crossing| {
        let writes = vec![Write::PutEntity(crossing.told.clone())];
        rig.store.commit(Change { writes, entries: Vec::new() })
    };
    tell(&first).await.unwrap();
    assert!(matches!(tell(&second).await, Err(StoreError::Conflict { .. })));
    assert!(one.is_told(&first).await.unwrap() && other.is_told(&second).await.unwrap());
}

#[tokio::test]
async fn unusual_hours_are_those_of_persons_by_their_clock() {
    let rig = Rig::new();
    let hours = |minutes, offset| HoursRule { name: "h".to_owned(), whom: Whom::default(), minutes, offset };
    let person = test_person(Role::Service);
    let at = async |rule: HoursRule, caller: &Caller, minute: u64| {
        rig.at(20_000 * 24 * HOUR + minute * 60_000_000);
        let limits = rig.instance(LimitRules { hours: vec![rule], ..LimitRules::default() });
        let crossings = rig.spend_as(&limits, caller, &test_tenant(), Action::Mask, &[]).await;
        assert!(crossings.iter().all(|one| one.denied.is_none() && one.kind == AlertKind::UnusualHour));
        crossings.first().map(|crossing| crossing.told.place.clone())
    };
    let day = hours((420, 1140), 0);
    for (minute, is_unusual) in [(0, true), (419, true), (420, false), (1139, false), (1140, true)] {
        assert_eq!(at(day.clone(), &person, minute).await.is_some(), is_unusual, "{minute}");
    }
    assert_eq!(at(day.clone(), &test_caller(Role::Service), 0).await, None);
    // Over midnight, and where the clock is ahead.
    let night = hours((1320, 360), 0);
    for (minute, is_unusual) in [(0, false), (359, false), (360, true), (1319, true), (1320, false)] {
        assert_eq!(at(night.clone(), &person, minute).await.is_some(), is_unusual, "{minute}");
    }
    assert_eq!(at(hours((420, 1140), 60), &person, 360).await, None);
    // From an hour to the same: all of them.
    for minute in [0, 419, 420, 1439] {
        assert_eq!(at(hours((420, 420), 0), &person, minute).await, None, "{minute}");
    }
    // Once a day, by the clock there.
    let (early, late, next) = (
        at(day.clone(), &person, 1).await,
        at(day.clone(), &person, 1200).await,
        at(day, &person, 1441).await,
    );
    assert!(early == late && early != next);
}

#[tokio::test]
async fn the_first_use_at_each_tenant_is_told_for_good() {
    let rig = Rig::new();
    let rules = LimitRules { first_seen_tenant: true, ..LimitRules::default() };
    let limits = rig.instance(rules);
    let elsewhere = TenantId::parse("elsewhere").unwrap();
    let here = rig.spend(&limits, &[]).await.remove(0);
    let there = rig.spend_as(&limits, &rig.caller, &elsewhere, Action::Find, &[]).await.remove(0);
    assert!(here.kind == AlertKind::FirstSeenTenant && here.told.place != there.told.place);
    let writes = vec![Write::PutEntity(here.told.clone())];
    rig.store.commit(Change { writes, entries: Vec::new() }).await.unwrap();
    rig.at(BEGIN + 1_000_000 * HOUR);
    assert_eq!(limits.sweep().await.unwrap(), 0);
    assert!(limits.is_told(&here).await.unwrap() && !limits.is_told(&there).await.unwrap());
}

#[tokio::test]
async fn counters_are_swept_when_their_windows_are_long_over() {
    let rig = Rig::new();
    let limits = rig.limited([Some(10), None, None]);
    rig.spend(&limits, &[]).await;
    rig.at(BEGIN + 3 * HOUR);
    assert_eq!((limits.sweep().await.unwrap(), rig.rows().await), (0, 1));
    rig.at(BEGIN + 3 * HOUR + 1);
    assert_eq!((limits.sweep().await.unwrap(), rig.rows().await), (1, 0));
}

#[tokio::test]
async fn a_counter_that_is_not_what_was_written_allows_nothing() {
    let rig = Rig::new();
    let used = Use { caller: &rig.caller, tenant: &test_tenant(), action: Action::Mask, values: &[] };
    let row = row::told(counter("limit", &rule([None; 3]), &used, BEGIN), 9);
    rig.store.commit(Change { writes: vec![Write::PutEntity(row)], entries: Vec::new() }).await.unwrap();
    assert_eq!(rig.limited([Some(9), None, None]).spend(&used).await, Err(LimitError::Corrupt));
}

#[tokio::test]
async fn what_was_told_is_remembered_within_bounds() {
    let rig = Rig::new();
    let limits = rig.limited([Some(1), None, None]);
    rig.spend(&limits, &[]).await;
    let crossing = rig.spend(&limits, &[]).await.remove(0);
    let fill = |expires: u64| {
        let name = |n: usize| EntityName::new(&n.to_be_bytes()).unwrap();
        let mut told = limits.told.lock();
        told.clear();
        told.extend((0..MOST_TOLD).map(|n| (name(n), if n == 0 { BEGIN + 1 } else { expires })));
    };
    let count = || limits.told.lock().len();
    // What is over goes first. It is over when its time has come.
    fill(BEGIN);
    limits.has_told(&crossing);
    assert_eq!(count(), 2);
    assert!(limits.is_told(&crossing).await.unwrap(), "without a row: it is remembered");
    // If nothing is over, all goes: the rows tell.
    fill(BEGIN + 1);
    limits.has_told(&crossing);
    assert_eq!(count(), 1);
    let other = Crossing { told: row::told(row::place("other", &[]), u64::MAX), ..crossing };
    limits.has_told(&other);
    assert_eq!(count(), 2, "there is room");
    assert_eq!(limits.told.lock()[&other.told.place.name], u64::MAX);
}

#[tokio::test]
async fn an_unusual_hour_is_remembered_for_two_days() {
    let rig = Rig::new();
    let (person, other) = (test_person(Role::Service), test_person(Role::Admin));
    let whom = Whom { principals: [person.principal.id.clone()].into(), ..Whom::default() };
    let rule = HoursRule { name: "h".to_owned(), whom, minutes: (1, 2), offset: 0 };
    let limits = rig.instance(LimitRules { hours: vec![rule], ..LimitRules::default() });
    let spend = async |caller| rig.spend_as(&limits, caller, &test_tenant(), Action::Mask, &[]).await;
    let crossing = spend(&person).await.remove(0);
    assert_eq!(row::expires(&crossing.told), Some(BEGIN + 48 * HOUR));
    assert_eq!(spend(&other).await, [], "another than the rule is about");
}

#[tokio::test]
async fn windows_are_forgotten_when_they_are_many_but_not_those_at_work() {
    let rig = Rig::new();
    let limits = rig.limited([Some(160), None, None]);
    let fill = || {
        let mut windows = limits.windows.lock();
        for n in 0..MOST_WINDOWS {
            windows.entry((PrincipalId::parse(&format!("p{n}")).unwrap(), 0)).or_default();
        }
    };
    fill();
    let at_work = Arc::clone(&limits.windows.lock()[&(PrincipalId::parse("p7").unwrap(), 0)]);
    rig.spend(&limits, &[]).await;
    let mut left: Vec<_> = limits.windows.lock().keys().map(|(id, _)| id.to_string()).collect();
    left.sort();
    assert_eq!(left, ["p7", "service"]);
    drop(at_work);
    // One that was forgotten takes another share; what it had of the last one counts as used.
    fill();
    rig.spend_as(&limits, &test_caller(Role::Console), &test_tenant(), Action::Mask, &[]).await;
    rig.spend(&limits, &[]).await;
    let used = Use { caller: &rig.caller, tenant: &test_tenant(), action: Action::Mask, values: &[] };
    let place = counter("limit", &rule([None; 3]), &used, BEGIN);
    let row = rig.store.entity(&place).await.unwrap().unwrap();
    assert_eq!(row::read(&row), Some([20, 0, 0]));
}

#[test]
fn without_rules_there_is_nothing_to_ask() {
    let rig = Rig::new();
    assert!(rig.instance(LimitRules::default()).is_empty());
    assert!(!rig.limited([Some(1), None, None]).is_empty());
    assert!(!rig.instance(LimitRules { first_seen_tenant: true, ..LimitRules::default() }).is_empty());
}
