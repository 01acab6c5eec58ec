//! A database without room: nothing more is acknowledged, the vault lives, and goes on when there is room.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::task::block_in_place;
use vault_tests::postgres::{Cluster, Options};
use vault_tests::process::DevVault;
use vault_tests::wire::Wire;

use super::load::{Told, read, verify, write};
use crate::full_disk::Tmpfs;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tablespace_stops_writes_until_there_is_room() {
    let dir = TempDir::new().unwrap();
    // The server may run as another user.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let small = dir.path().join("small");
    let Some(cluster) = block_in_place(|| Cluster::start(&Options::default())) else { return };
    let Some(_disk) = Tmpfs::mount(&small, "size=48m,mode=700,uid=65534,gid=65534") else { return };
    let place = small.join("space");
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::chown(&place, Some(65534), Some(65534)).unwrap();
    let vault = block_in_place(|| {
        let sql = |text: &str| cluster.sql("postgres", text).unwrap();
        sql(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display()));
        sql("CREATE DATABASE small TABLESPACE small");
        DevVault::start_with(&dir.path().join("vault"), &["--postgres", &cluster.url("small")], &[])
    });
    let mut wire = Wire::connect(&vault, "service").await;
    let (note, mut told) = ("n".repeat(60_000), Told::default());
    let first = write(&mut wire, &note, &mut told).await.unwrap();
    // All but a little is taken.
    let filler = small.join("filler");
    let _ = fs::write(&filler, vec![0; 64 << 20]);
    let taken = fs::metadata(&filler).unwrap().len();
    fs::File::options().write(true).open(&filler).unwrap().set_len(taken - (1 << 20)).unwrap();
    let mut written = 0;
    while write(&mut wire, &note, &mut told).await.is_some() {
        written += 1;
        assert!(written < 200, "the disk does not become full");
    }
    let refused_at = told.kept.len();
    for _ in 0..5 {
        assert!(write(&mut wire, &note, &mut told).await.is_none(), "there is no room");
    }
    assert_eq!(told.kept.len(), refused_at);
    // A read needs little room, for its log entry; where there is none, nothing is shown.
    let mut shown = 0;
    for _ in 0..5 {
        shown += u32::from(read(&mut wire, &first, &note, &mut told).await);
    }
    println!("{refused_at} notes fitted; with a full disk {shown} of 5 reads were served");
    assert!(told.slowest < Duration::from_secs(5), "{:?}", told.slowest);

    fs::remove_file(&filler).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while write(&mut wire, &note, &mut told).await.is_none() {
        assert!(Instant::now() < until, "it does not go on:\n{}", vault.log());
    }
    verify(&vault, &told).await;
    assert_eq!(vault.stop(), Some(0));
    drop(cluster);
}
