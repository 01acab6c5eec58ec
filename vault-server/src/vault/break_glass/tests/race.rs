//! However many ask at once, on however many instances: no value more than was granted.

use super::*;
use crate::domain::{Environment, VaultId, VaultIdentity};
use crate::store::LogId;
use crate::store::embedded::{self, EngineKind, StoreOptions};
use crate::store::postgres::{self, Password, PostgresOptions, Transport};

/// So many values are told, however many ask at once on so many instances.
async fn exactly_ten(instances: Vec<Rig>, clients: usize) {
    let tokens = instances[0].keep("demo", 4, None).await;
    let grant = instances[0].granted(&tokens, 10).await;
    let instances: Arc<Vec<Rig>> = Arc::new(instances);
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (instances, grant, tokens) = (Arc::clone(&instances), grant.clone(), tokens.clone());
        tasks.spawn(async move {
            let rig = &instances[client % instances.len()];
            let dora = rig.cx("dora").await;
            let mut told = 0;
            // One asks for one, another for three at once.
            while let Ok(shown) = rig.reveal(&dora, &grant, &tokens[..=2 * (client % 2)]).await {
                told += shown.iter().filter(|shown| shown.is_ok()).count();
            }
            told
        });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 10);
    let rig = &instances[0];
    assert_eq!(rig.get(&grant).await.seen(), 10);
    let mut on_record = 0;
    for rig in instances.iter() {
        let opened =
            rig.entries().await.into_iter().filter(|entry| entry.action() == AuditAction::Detokenize);
        on_record += opened.flat_map(|entry| entry.items).filter(|item| item.outcome == 1).count();
    }
    assert_eq!(on_record, 10);
    let firsts = rig.alerts().await.into_iter().filter(|kind| kind == "grant_first_use").count();
    assert_eq!(firsts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_in_memory() {
    let store = MemoryStore::new();
    let one = Rig::with(Arc::new(store.clone()), rules(), None).await;
    let two = Rig::with(Arc::new(store.instance(LogId(1))), rules(), Some(&one)).await;
    exactly_ten(vec![one, two], 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_on_disk() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = || embedded::open(EngineKind::Fjall, dir.path(), StoreOptions::default()).unwrap();
    let store = tokio::task::block_in_place(open);
    exactly_ten(vec![Rig::with(store, rules(), None).await], 32).await;
}

/// So many instances on one database; `None` where there is no server to test with.
async fn on_postgres(instances: usize) -> Option<Vec<Rig>> {
    let Ok(url) = std::env::var("PHI_VAULT_TEST_POSTGRES") else {
        println!("skipped: no PostgreSQL to test with (PHI_VAULT_TEST_POSTGRES)");
        return None;
    };
    let server: tokio_postgres::Config = url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &server.get_hosts()[0] else { panic!("{url}") };
    let database = format!("glass_{}_{instances}", std::process::id());
    let (client, connection) = server.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
    let mut rigs: Vec<Rig> = Vec::new();
    for number in 0..instances {
        let options = PostgresOptions {
            hosts: vec![(host.clone(), server.get_ports()[0])],
            database: database.clone(),
            user: server.get_user().unwrap().to_owned(),
            password: Password::None,
            transport: Transport::Plain,
            connections: 4,
            instance: Some(format!("glass-{number}")),
            lease: Duration::from_mins(1),
        };
        let store = postgres::open(options, None).await.unwrap();
        let environment = Environment::parse("dev").unwrap();
        store.found(&VaultIdentity { vault: VaultId::from_bytes([7; 16]), environment }).await.unwrap();
        rigs.push(Rig::with(store, rules(), rigs.first()).await);
    }
    Some(rigs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_who_race_for_ten_values_get_ten_on_one_and_on_three_instances() {
    for instances in [1, 3] {
        let Some(rigs) = on_postgres(instances).await else { return };
        exactly_ten(rigs, 32).await;
    }
}
