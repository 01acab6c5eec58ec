//! The vault on PostgreSQL: how much of the database's own speed it gives, and what more instances do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::load::{Case, Target, WARM_UP};
use crate::replay::Recorder;
use crate::{Arguments, servers};

/// Of one length, so that one can stand for the other.
const DATABASES: (&str, &str) = ("bench_recorded", "bench_replayed");

/// The instances, ended by their id.
struct Instances(Vec<Child>);

impl Drop for Instances {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, instances: usize) -> anyhow::Result<()> {
    let url = std::env::var("PHI_VAULT_TEST_POSTGRES")
        .context("PHI_VAULT_TEST_POSTGRES: run under with-postgres")?;
    println!(
        "{:<28} {:>12} {:>14} {:>7} {:>11} {:>24}",
        "case", "vault /s", "database /s", "ratio", "statements", "vault p50 / p99"
    );
    for case in Case::ALL.iter().filter(|case| case.name().starts_with(&arguments.case)) {
        for _ in 0..arguments.rounds {
            measure(arguments, &url, *case, instances).await?;
        }
    }
    Ok(())
}

async fn measure(arguments: &Arguments, url: &str, case: Case, instances: usize) -> anyhow::Result<()> {
    let (server, user) = server(url)?;
    for name in [DATABASES.0, DATABASES.1] {
        administer(url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        administer(url, &format!("CREATE DATABASE {name}")).await?;
    }
    let recorder = Recorder::start(server).await?;
    let binary = std::env::current_exe()?.with_file_name("vault-server");
    let dir = TempDir::new_in(binary.parent().unwrap_or(Path::new(".")))?;
    let database = format!("postgres://{user}@{}/{}", recorder.address, DATABASES.0);
    let mut running = Instances(Vec::new());
    let mut addresses = Vec::new();
    for _ in 0..instances {
        let mut command = Command::new(&binary);
        command.arg("dev").arg("--dir").arg(dir.path()).args([
            "--listen",
            "127.0.0.1:0",
            "--postgres",
            &database,
        ]);
        command.stderr(Stdio::null());
        let (process, address) = servers::ready(command)?;
        running.0.push(process);
        addresses.push(address);
    }
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let target = Target::connect(&dir.path().join("pki"), &addresses).await?;
    let seconds = Duration::from_secs(arguments.seconds);
    let from = Instant::now() + WARM_UP;
    let until = from + seconds;
    let vault = target.measure(case, arguments.callers, seconds).await?;
    drop(running);
    let (alone, statements) = recorder.replay(server, DATABASES, (from, until)).await?;
    let ratio = alone.as_secs_f64() / seconds.as_secs_f64();
    println!(
        "{:<28} {:>12.0} {:>14.0} {:>6.2}x {:>11} {:>11.2?} / {:>9.2?}",
        case.name(),
        vault.items_per_second,
        vault.items_per_second / ratio,
        ratio,
        statements,
        vault.p50,
        vault.p99
    );
    Ok(())
}

fn server(url: &str) -> anyhow::Result<(SocketAddr, String)> {
    let config: tokio_postgres::Config = url.parse()?;
    let user = config.get_user().context("the URL names no user")?.to_owned();
    let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else {
        anyhow::bail!("the URL names no host");
    };
    let port = *config.get_ports().first().context("the URL names no port")?;
    Ok((SocketAddr::new(host.parse()?, port), user))
}

async fn administer(url: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    client.batch_execute(statement).await?;
    drop(client);
    driver.await??;
    Ok(())
}
