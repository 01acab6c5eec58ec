//! The database fails over under load: what was acknowledged is there, on record, and no log has two pasts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::sleep;
use vault_tests::fleet::load::Load;
use vault_tests::fleet::{Fleet, Place, Witness};
use vault_tests::postgres::{Options, Pair};

use crate::instances::checked;

const INSTANCES: usize = 3;
const TASKS: usize = 32;

/// A pair, and a fleet that knows both of its servers; `None` where there is no PostgreSQL.
fn pair(dir: &TempDir, options: &Options) -> Option<(Pair, Arc<Fleet>)> {
    let pair = Pair::start(&options.clone().set("max_connections", "200"))?;
    let place = Place::on(&pair.ports(), &pair.primary().create_database());
    let fleet = Fleet::make(&dir.path().join("vault"), &place, INSTANCES);
    fleet.start_all();
    Some((pair, Arc::new(fleet)))
}

async fn with_pair(dir: TempDir, options: Options) -> Option<(TempDir, Pair, Arc<Fleet>)> {
    let made = tokio::task::spawn_blocking(move || {
        let (pair, fleet) = pair(&dir, &options)?;
        Some((dir, pair, fleet))
    });
    made.await.unwrap()
}

/// Does something to the pair that takes its time, beside the load.
async fn beside(mut pair: Pair, work: impl FnOnce(&mut Pair) + Send + 'static) -> Pair {
    let done = tokio::task::spawn_blocking(move || {
        work(&mut pair);
        pair
    });
    done.await.unwrap()
}

fn rounds() -> u32 {
    std::env::var("PHI_VAULT_FAILOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_loses_nothing_that_was_acknowledged() {
    let Some((_dir, mut pair, fleet)) = with_pair(TempDir::new().unwrap(), Options::default()).await else {
        return;
    };
    let witness = Witness::start(fleet.place());
    let client = fleet.client("service");
    let load = Load::start(&client, TASKS);
    let rounds = rounds();
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        // At an odd moment.
        sleep(Duration::from_millis(1500 + u64::from(round) * 37 % 101)).await;
        let begun = Instant::now();
        pair = beside(pair, |pair| {
            pair.fail_over();
            pair.rebuild();
        })
        .await;
        longest = longest.max(begun.elapsed());
    }
    sleep(Duration::from_secs(2)).await;
    let told = load.stop().await;
    let found = checked(&fleet, witness, &told).await;
    let ambiguous = |made: bool| {
        let line = format!("it is known what became of the commit made={made}");
        fleet.count_lines(&line)
    };
    println!(
        "{rounds} fail-overs under load of {INSTANCES} instances (the longest until a standby followed again: \
         {longest:?}): {} calls answered, {} failed, {} acknowledged writes, {} repeats, longest call {:?}; commits of \
         which it was not known: {} were made, {} were not; {} entries in {} logs, {} checkpoints compared",
        told.answered,
        told.failures(),
        told.writes(),
        client.repeats(),
        told.longest,
        ambiguous(true),
        ambiguous(false),
        found.entries(),
        found.logs.len(),
        found.checkpoints,
    );
    println!("calls that failed: {:?}", told.failed);
    assert!(told.wrong.is_empty(), "{} wrong answers: {:?}", told.wrong.len(), &told.wrong[..1]);
    assert!(found.is_fine(), "{}", found.faults());
    assert_eq!(found.logs.len(), INSTANCES);
    assert!(told.writes() > 100, "too little was written to prove anything: {}", told.writes());
    drop(pair);
}

/// The control: without a synchronous standby a fail-over does lose writes, and the check finds them.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_what_an_asynchronous_standby_loses() {
    let options = Options::default().set("synchronous_standby_names", "");
    let Some((_dir, mut pair, fleet)) = with_pair(TempDir::new().unwrap(), options).await else { return };
    let witness = Witness::start(fleet.place());
    let load = Load::start(&fleet.client("service"), TASKS);
    sleep(Duration::from_secs(1)).await;
    // It falls behind, and learns nothing more before it is promoted.
    pair.standby().unwrap().pause();
    sleep(Duration::from_secs(4)).await;
    pair = beside(pair, |pair| pair.primary_mut().kill()).await;
    pair.standby().unwrap().resume();
    pair = beside(pair, |pair| {
        pair.fail_over();
        pair.rebuild();
    })
    .await;
    let told = load.stop().await;
    // Those that have noticed have ended.
    let again = Arc::clone(&fleet);
    tokio::task::spawn_blocking(move || {
        for number in 0..again.len() {
            again.kill(number);
            again.start(number);
        }
    })
    .await
    .unwrap();
    let found = checked(&fleet, witness, &told).await;
    println!("what an asynchronous standby loses: {}", found.faults());
    assert!(!found.lost.is_empty(), "nothing was lost, so the check proves nothing");
    assert!(!found.forked.is_empty(), "checkpoints of lost entries were seen");
    drop(pair);
}
