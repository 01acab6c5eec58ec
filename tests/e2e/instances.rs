//! Many instances on one database: killed, restarted and drained under load, and no caller notices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use vault_format::note::Verifier;
use vault_server::store::postgres;
use vault_tests::fleet::check::{self, Found};
use vault_tests::fleet::load::{Dice, Load, Told};
use vault_tests::fleet::{Fleet, Place, Witness};
use vault_tests::postgres::Server;

const INSTANCES: usize = 3;
const TASKS: usize = 64;

/// A fleet on a database of its own; `None` where there is no PostgreSQL.
fn fleet(dir: &TempDir) -> Option<Arc<Fleet>> {
    let server = Server::shared()?;
    let place = Place::of_url(&server.url(&server.create_database()));
    Some(Arc::new(Fleet::make(&dir.path().join("vault"), &place, INSTANCES)))
}

/// Does something that takes its time, beside the load.
async fn beside<T: Send + 'static>(fleet: &Arc<Fleet>, work: impl FnOnce(&Fleet) -> T + Send + 'static) -> T {
    let fleet = Arc::clone(fleet);
    tokio::task::spawn_blocking(move || work(&fleet)).await.unwrap()
}

/// Compares what callers were told with what is there; ends the fleet.
pub(crate) async fn checked(fleet: &Arc<Fleet>, witness: Witness, told: &Told) -> Found {
    let mut found = Found::default();
    check::values(&fleet.client("service"), told, &mut found).await;
    let checkpoint = fleet.client("auditor").audit_checkpoint(0, false).await.unwrap();
    let verifier = Verifier::parse(&checkpoint.verifier_key).unwrap();
    beside(fleet, Fleet::stop_all).await;
    let seen = witness.stop().await;
    let store = postgres::open(fleet.place().options("checker"), None).await.unwrap();
    check::logs(&*store, &verifier, &seen, told, &mut found).await;
    store.close().await.unwrap();
    found
}

fn assert_fine(told: &Told, found: &Found) {
    assert!(told.wrong.is_empty(), "{} wrong answers: {:?}", told.wrong.len(), &told.wrong[..1]);
    assert!(found.is_fine(), "{}", found.faults());
    for log in &found.logs {
        assert_eq!(log.entries, log.covered, "log {} ended, and is not all under a checkpoint", log.log);
    }
}

fn soak() -> Duration {
    let seconds = std::env::var("PHI_VAULT_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// Kills an instance each second, whichever the dice say of those that are up, and starts it again meanwhile. One is
/// always left: where starts are slow, the next kill waits for one. How many kills there were; all are up again.
async fn kill_every_second(fleet: &Arc<Fleet>, until: Instant) -> usize {
    let (mut dice, mut kills) = (Dice(7), 0);
    let mut up: Vec<usize> = (0..INSTANCES).collect();
    let mut starting = JoinSet::new();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds.tick().await;
    while Instant::now() < until {
        seconds.tick().await;
        while let Some(started) = starting.try_join_next() {
            up.push(started.unwrap());
        }
        while up.len() < 2 {
            up.push(starting.join_next().await.unwrap().unwrap());
        }
        let victim = up.swap_remove(dice.below(up.len() as u64) as usize);
        let fleet = Arc::clone(fleet);
        starting.spawn_blocking(move || {
            fleet.kill(victim);
            fleet.start(victim);
            victim
        });
        kills += 1;
    }
    starting.join_all().await;
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_that_instances_are_killed() {
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    beside(&fleet, Fleet::start_all).await;
    let witness = Witness::start(fleet.place());
    let client = fleet.client("service");
    let load = Load::start(&client, TASKS);
    let kills = kill_every_second(&fleet, Instant::now() + soak()).await;
    let told = load.stop().await;
    let found = checked(&fleet, witness, &told).await;
    println!(
        "{kills} kills of {INSTANCES} instances: {} calls, {} acknowledged writes, {} repeats, longest call {:?}, {} \
         entries in {} logs, {} checkpoints compared",
        told.answered,
        told.writes(),
        client.repeats(),
        told.longest,
        found.entries(),
        found.logs.len(),
        found.checkpoints,
    );
    assert!(told.failed.is_empty(), "calls that failed: {:?}", told.failed);
    assert_fine(&told, &found);
    assert_eq!(found.logs.len(), INSTANCES, "an instance that comes back goes on with its log");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_spread_over_instances_and_do_not_notice_a_rolling_restart() {
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    beside(&fleet, Fleet::start_all).await;
    let witness = Witness::start(fleet.place());
    let client = fleet.client("service");

    let load = Load::start(&client, TASKS);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut told = load.stop().await;
    let store = postgres::open(fleet.place().options("checker"), None).await.unwrap();
    let mut shares = Vec::new();
    for log in store.logs().await.unwrap() {
        if log != store.log() {
            shares.push(store.log_size(log).await.unwrap());
        }
    }
    store.close().await.unwrap();
    let all: u64 = shares.iter().sum();
    assert_eq!(shares.len(), INSTANCES);
    let fair = all / INSTANCES as u64;
    assert!(shares.iter().all(|share| *share > fair / 2), "one had little to do: {shares:?}");

    let load = Load::start(&client, TASKS);
    let mut codes = BTreeSet::new();
    for number in 0..INSTANCES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        codes.insert(
            beside(&fleet, move |fleet| {
                let code = fleet.stop(number);
                fleet.start(number);
                code
            })
            .await,
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    told.merge(load.stop().await);
    let found = checked(&fleet, witness, &told).await;
    println!(
        "a rolling restart: {} calls, {} repeats, longest call {:?}; entries by instance before it: {shares:?}",
        told.answered,
        client.repeats(),
        told.longest,
    );
    assert_eq!(codes, BTreeSet::from([Some(0)]), "each drains and ends well");
    assert!(told.failed.is_empty(), "calls that failed: {:?}", told.failed);
    assert_fine(&told, &found);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_that_an_instance_stands_still() {
    let dir = TempDir::new().unwrap();
    let Some(fleet) = fleet(&dir) else { return };
    beside(&fleet, Fleet::start_all).await;
    let witness = Witness::start(fleet.place());
    let client = fleet.client("service");
    let load = Load::start(&client, TASKS);
    for number in 0..INSTANCES {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fleet.pause(number);
        tokio::time::sleep(Duration::from_secs(8)).await;
        fleet.resume(number);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = load.stop().await;
    let found = checked(&fleet, witness, &told).await;
    println!(
        "{INSTANCES} instances stood still for 8 s, one after another: {} calls, {} repeats, longest call {:?}",
        told.answered,
        client.repeats(),
        told.longest,
    );
    assert!(told.failed.is_empty(), "calls that failed: {:?}", told.failed);
    assert_fine(&told, &found);
}
