//! A database that stands still, is started again or is killed while a vault works on it.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tonic::Code;
use vault_tests::postgres::{Cluster, Options};
use vault_tests::process::DevVault;
use vault_tests::wire::{Wire, detokenize, item, token};

use super::load::{Load, PATIENCE, Told, verify};

/// A server of its own and a vault in it.
fn vault(dir: &TempDir) -> Option<(Cluster, DevVault)> {
    block_in_place(|| {
        let cluster = Cluster::start(&Options::default())?;
        let url = cluster.url(&cluster.create_database());
        let vault = DevVault::start_with(&dir.path().join("vault"), &["--postgres", &url], &[]);
        Some((cluster, vault))
    })
}

/// After `audit.deadline` (2 s) nobody waits for a write any more.
const WRITE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_stands_still_nothing_is_acknowledged_and_then_it_goes_on() {
    let dir = TempDir::new().unwrap();
    let Some((cluster, vault)) = vault(&dir) else { return };
    let mut service = Wire::connect(&vault, "service").await;
    let mut told = Told::default();
    for number in 0..4 {
        super::load::write(&mut service, &format!("before {number}"), &mut told).await.unwrap();
    }
    let before: Vec<String> = told.kept.keys().cloned().collect();
    cluster.pause();
    let paused = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (mut wire, tokens) = (service.clone(), before[number % 4..][..1].to_vec());
        calls.spawn(async move {
            let text = format!("during {number}");
            let items = vec![item("text", &text)];
            let request = vault_proto::v1::TokenizeRequest { items, ..Default::default() };
            let begun = Instant::now();
            let answer = timeout(PATIENCE, wire.vault.tokenize(request)).await.expect("an answer in time");
            let kept = answer.map(|answer| (token(&answer.into_inner().results[0]).unwrap(), text));
            (begun.elapsed(), kept)
        });
        let mut wire = service.clone();
        calls.spawn(async move {
            let begun = Instant::now();
            let answer = timeout(PATIENCE, wire.vault.detokenize(detokenize("", &tokens))).await;
            let kept = answer.expect("an answer in time").map(|_| (String::new(), String::new()));
            (begun.elapsed(), kept)
        });
    }
    sleep(Duration::from_secs(5).saturating_sub(paused.elapsed())).await;
    cluster.resume();
    let resumed = paused.elapsed();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for (took, kept) in calls.join_all().await {
        match kept {
            Ok((token, text)) => {
                assert!(took >= resumed.saturating_sub(Duration::from_millis(500)), "{took:?}: by whom?");
                if !token.is_empty() {
                    told.kept.insert(token, text);
                }
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                refused += 1;
                slowest = slowest.max(took);
            }
        }
    }
    println!("{refused} of 16 calls were refused, the slowest took {slowest:?}");
    assert!(refused >= 8, "only {refused} of 8 writes were refused: the pause proves little");
    // Without a restart.
    let until = Instant::now() + Duration::from_secs(10);
    let mut after = Told::default();
    while super::load::write(&mut service, "after", &mut after).await.is_none() {
        assert!(Instant::now() < until, "it does not go on:\n{}", vault.log());
    }
    assert!(after.slowest < WRITE, "{:?}", after.slowest);
    told.kept.append(&mut after.kept);
    verify(&vault, &told).await;
    assert_eq!(vault.stop(), Some(0));
}

/// Something happens to the database while callers are at work; then all that they were told is checked.
async fn under_load(befalls: impl Fn(&mut Cluster)) {
    const TIMES: usize = 3;
    let dir = TempDir::new().unwrap();
    let Some((mut cluster, vault)) = vault(&dir) else { return };
    let load = Load::start(&vault).await;
    for time in 0..TIMES {
        load.progress(40).await;
        sleep(Duration::from_millis(time as u64 * 7)).await;
        block_in_place(|| befalls(&mut cluster));
    }
    load.progress(40).await;
    let told = load.end().await;
    println!(
        "{TIMES} times: {} values kept, {} opened, {} calls refused, the slowest took {:?}",
        told.kept.len(),
        told.opened.len(),
        told.refused,
        told.slowest
    );
    verify(&vault, &told).await;
    assert!(!vault.log().contains("panicked"), "{}", vault.log());
    assert_eq!(vault.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_database_under_load_loses_nothing() {
    under_load(Cluster::restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_under_load_loses_nothing() {
    under_load(|cluster| {
        cluster.kill();
        std::thread::sleep(Duration::from_millis(500));
        cluster.restart();
    })
    .await;
}
