//! The vault on PostgreSQL: how much of the database's own speed it gives, and what more instances do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::time::sleep_until;

use crate::bare::{Loops, Order};
use crate::load::{Case, Figures, Target, WARM_UP};
use crate::replay::Recorder;
use crate::{Arguments, cpu, servers};

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

/// A recording's database, and one for the bare loop.
const RECORDED: &str = "bench_recorded";
const LOOPED: &str = "bench_looped";
/// Of the loop that keeps the order of the recording.
const ORDERED: &str = "bench_ordered";
/// Where the vault is measured, with nothing between.
const MEASURED: &str = "bench_measured";

/// What of the machine the database has.
pub(crate) struct Place<'a> {
    /// So many cores for itself; 0: it shares all.
    pub(crate) cores: usize,
    /// A control group, whose bounds it has.
    pub(crate) cgroup: Option<&'a Path>,
}

pub(crate) async fn run(arguments: &Arguments, instances: usize, place: &Place<'_>) -> anyhow::Result<()> {
    let url = std::env::var("PHI_VAULT_TEST_POSTGRES")
        .context("PHI_VAULT_TEST_POSTGRES: run under with-postgres")?;
    let database = || async { postmaster(&url).await.context("the database is not on this machine") };
    if place.cores > 0 {
        share_out(database().await?, place.cores)?;
        println!(
            "{} of the cores for the database, the others for all else: vault, callers, loop.",
            place.cores
        );
    }
    if let Some(cgroup) = place.cgroup {
        put_into(database().await?, cgroup)?;
        println!("The database has what its control group lets it have.");
    }
    println!("Ratios: vault to ordered loop and bare loop, by time; bare loop to vault, by processor time.");
    println!(
        "The ordered loop sends nothing before what had been answered when it was recorded; the bare loop does."
    );
    println!(
        "Batches are log entries a commit, as measured and as recorded: the loop has the recorded ones."
    );
    println!(
        "{:<28} {:>9} {:>17} {:>17} {:>6}   {:<44} {:>11} {:>22}",
        "case",
        "vault /s",
        "ordered loop /s",
        "bare loop /s",
        "by CPU",
        "us of CPU: vault + database + callers : loop",
        "batches",
        "vault p50 / p99"
    );
    for case in Case::ALL.iter().chain(Case::SHARED).filter(|case| case.name().starts_with(&arguments.case)) {
        for _ in 0..arguments.rounds {
            measure(arguments, &url, *case, instances).await?;
        }
    }
    Ok(())
}

async fn measure(arguments: &Arguments, url: &str, case: Case, instances: usize) -> anyhow::Result<()> {
    for name in [RECORDED, LOOPED, ORDERED, MEASURED] {
        administer(url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        administer(url, &format!("CREATE DATABASE {name}")).await?;
    }
    let (server, user) = server(url)?;
    let of = |address: SocketAddr, name: &str| format!("postgres://{user}@{address}/{name}");
    let database = postmaster(url).await;
    let vault = load(arguments, case, instances, &of(server, MEASURED), database).await?;

    let recorder = Recorder::start(server).await?;
    let recorded = load(arguments, case, instances, &of(recorder.address, RECORDED), database).await?;
    let recording = recorder.recording(recorded.from, recorded.until)?;
    let values = recorded.figures.items_per_second * (recorded.until - recorded.from).as_secs_f64();
    let spent = || database.map(cpu::of_family).unwrap_or_default() + cpu::of_process(std::process::id());
    let looped = async |name: &str, order: Order| {
        let loops = Loops::prepare(&of(server, name), &recording).await?;
        let (begin, before) = (Instant::now(), spent());
        loops.run(order).await?;
        let (elapsed, cost) = (begin.elapsed(), spent().saturating_sub(before));
        anyhow::Ok((values / elapsed.as_secs_f64(), cost.as_secs_f64() * 1e6 / values))
    };
    let (ordered, _) = looped(ORDERED, Order::AsRecorded).await?;
    let (looped, of_loop) = looped(LOOPED, Order::Free).await?;
    let (in_order, ahead) = (written(&of(server, ORDERED)).await?, written(&of(server, LOOPED)).await?);
    anyhow::ensure!(in_order == ahead, "one loop wrote {in_order:?}, the other one {ahead:?}");
    anyhow::ensure!(in_order.iter().all(|count| *count > 0), "a loop wrote nothing: {in_order:?}");

    let Figures { items_per_second: speed, p50, p99 } = vault.figures;
    // Of the run with the loop's batches; but the recorder is in the callers' process, so their part is of the other.
    let ([of_vault, of_database, _], [.., of_callers]) = (recorded.cost, vault.cost);
    let (batch, recorded_batch) =
        (entries_a_commit(&of(server, MEASURED)).await?, entries_a_commit(&of(server, RECORDED)).await?);
    println!(
        "{:<28} {speed:>9.0} {ordered:>9.0} ({:>4.2}x) {looped:>9.0} ({:>4.2}x) {:>5.2}x   {of_vault:>9.2} + \
         {of_database:>8.2} + {of_callers:>8.2} : {of_loop:>8.2} {batch:>5.1}, {recorded_batch:>4.1} {p50:>11.2?} / {p99:>8.2?}",
        case.name(),
        speed / ordered,
        speed / looped,
        of_loop / (of_vault + of_database + of_callers),
    );
    Ok(())
}

/// What came of some load.
struct Loaded {
    figures: Figures,
    from: Instant,
    until: Instant,
    /// Microseconds of processor time for a value: of the vault, of the database, and of the callers.
    cost: [f64; 3],
}

/// Starts instances on a database and calls them. They are gone when it returns.
async fn load(
    arguments: &Arguments,
    case: Case,
    instances: usize,
    database: &str,
    postmaster: Option<u32>,
) -> anyhow::Result<Loaded> {
    let binary = std::env::current_exe()?.with_file_name("vault-server");
    let dir = TempDir::new_in(binary.parent().unwrap_or(Path::new(".")))?;
    let mut running = Instances(Vec::new());
    let mut addresses = Vec::new();
    for _ in 0..instances {
        let mut command = Command::new(&binary);
        command.arg("dev").arg("--dir").arg(dir.path()).args([
            "--listen",
            "127.0.0.1:0",
            "--postgres",
            database,
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
    let times = || {
        let vaults = running.0.iter().map(|process| cpu::of_process(process.id())).sum::<Duration>();
        [vaults, postmaster.map(cpu::of_family).unwrap_or_default(), cpu::of_process(std::process::id())]
    };
    let spent = async {
        sleep_until(from.into()).await;
        let before = times();
        sleep_until(until.into()).await;
        let after = times();
        [0, 1, 2].map(|party| after[party].saturating_sub(before[party]))
    };
    let (figures, spent) = tokio::join!(target.measure(case, arguments.callers, seconds), spent);
    let figures = figures?;
    let values = figures.items_per_second * seconds.as_secs_f64();
    let cost = spent.map(|time| time.as_secs_f64() * 1e6 / values);
    Ok(Loaded { figures, from, until, cost })
}

/// Gives the database the first cores, and this process, with all that it starts, the others.
fn share_out(postmaster: u32, cores: usize) -> anyhow::Result<()> {
    let all = std::thread::available_parallelism()?.get();
    anyhow::ensure!(cores < all, "there are {all} cores, and all else needs one, too");
    for process in cpu::family(postmaster) {
        pin(process, (0, cores - 1))?;
    }
    pin(std::process::id(), (cores, all - 1))
}

fn pin(process: u32, (first, last): (usize, usize)) -> anyhow::Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-acp", &format!("{first}-{last}"), &process.to_string()]).stdout(Stdio::null());
    anyhow::ensure!(command.status().context("taskset (util-linux)")?.success(), "can't choose cores");
    Ok(())
}

/// Puts the database's processes into a control group.
fn put_into(postmaster: u32, cgroup: &Path) -> anyhow::Result<()> {
    let join = |process: u32| {
        let written = std::fs::write(cgroup.join("cgroup.procs"), process.to_string());
        written.context("can't put the database into the control group")
    };
    // What it starts from now on is there, too.
    join(postmaster)?;
    for process in cpu::family(postmaster) {
        let joined = join(process);
        // One that has ended meanwhile needs no place.
        if Path::new("/proc").join(process.to_string()).exists() {
            joined?;
        }
    }
    Ok(())
}

/// The database's first process, if it is on this machine and says so.
async fn postmaster(url: &str) -> Option<u32> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.ok()?;
    tokio::spawn(connection);
    let file = client.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await.ok()?;
    file.try_get::<_, &str>(0).ok()?.lines().next()?.trim().parse().ok()
}

/// How many entries a commit had, over all logs.
async fn entries_a_commit(url: &str) -> anyhow::Result<f64> {
    let row = ask(url, "SELECT (sum(size) / sum(commits))::float8 FROM logs").await?;
    Ok(row.try_get(0)?)
}

/// Records, log entries and index rows. Statements say under what conditions they write: who sends them out of their order
/// may write nothing.
async fn written(url: &str) -> anyhow::Result<[i64; 3]> {
    let counts = "SELECT (SELECT count(*) FROM records), (SELECT sum(size)::int8 FROM logs), (SELECT count(*) FROM log_index)";
    let row = ask(url, counts).await?;
    Ok([row.try_get(0)?, row.try_get(1)?, row.try_get(2)?])
}

async fn ask(url: &str, query: &str) -> anyhow::Result<tokio_postgres::Row> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let row = client.query_one(query, &[]).await?;
    drop(client);
    driver.await??;
    Ok(row)
}

pub(crate) fn server(url: &str) -> anyhow::Result<(SocketAddr, String)> {
    let config: tokio_postgres::Config = url.parse()?;
    let user = config.get_user().context("the URL names no user")?.to_owned();
    let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else {
        anyhow::bail!("the URL names no host");
    };
    let port = *config.get_ports().first().context("the URL names no port")?;
    Ok((SocketAddr::new(host.parse()?, port), user))
}

pub(crate) async fn administer(url: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    client.batch_execute(statement).await?;
    drop(client);
    driver.await??;
    Ok(())
}
