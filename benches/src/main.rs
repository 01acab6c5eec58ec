//! The load generator: the vault against a bare tonic service with the same messages over the same TLS, in one run.
//!
//! `cargo run --release -p vault-benches` starts both, measures each in turn and prints ratios: absolute figures of a
//! shared machine mean little.
#![forbid(unsafe_code)]

mod access;
mod bare;
mod cpu;
mod echo;
mod jobs;
mod load;
mod postgres;
mod replay;
mod report;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// What the vault's has beneath its wiping: what is measured beside it is to be no slower for another one.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
#[command(about = "Measures phi-vault against a bare tonic echo over the same TLS")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Seconds for each figure.
    #[arg(long, default_value_t = 4)]
    seconds: u64,

    /// Callers at the same time.
    #[arg(long, default_value_t = 64)]
    callers: usize,

    /// Rounds; the median ratio counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Only cases whose name begins with this.
    #[arg(long, default_value = "")]
    case: String,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the echo (started by the measurement itself).
    #[command(hide = true)]
    Echo {
        /// Directory with the certificates.
        #[arg(long)]
        pki: PathBuf,
    },
    /// Measures the vault on PostgreSQL against the database alone, sent the same statements. Run it under
    /// `with-postgres`, or with PHI_VAULT_TEST_POSTGRES naming a server.
    Postgres {
        /// Instances of the vault that share the load.
        #[arg(long, default_value_t = 1)]
        instances: usize,

        /// So many cores for the database alone, and the others for all else, as where it has a machine of its own.
        /// 0: they share all.
        #[arg(long, default_value_t = 0)]
        database_cores: usize,

        /// The directory of a control group, which this process may write to. The database's processes are put into it, and
        /// stay there: with a bound of their processor time, the vault has as much more of the machine as it would on
        /// machines of its own.
        #[arg(long)]
        database_cgroup: Option<PathBuf>,
    },
    /// Measures what deciding costs: default policies, limits and honeytokens against a constant yes.
    Access,
    /// Measures jobs on keys: what callers notice of them, how fast they are alone, and what the store allows.
    Jobs(jobs::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Echo { pki }) = &arguments.command {
        return echo::serve(pki).await;
    }
    if let Some(Command::Postgres { instances, database_cores, database_cgroup }) = &arguments.command {
        let place = postgres::Place { cores: *database_cores, cgroup: database_cgroup.as_deref() };
        return postgres::run(&arguments, *instances, &place).await;
    }
    if let Some(Command::Jobs(options)) = &arguments.command {
        return jobs::run(options).await;
    }
    let seconds = Duration::from_secs(arguments.seconds);
    if let Some(Command::Access) = &arguments.command {
        return access::run(arguments.callers, arguments.rounds, seconds, &arguments.case).await;
    }
    let servers = servers::Servers::start()?;
    let vault = load::Target::connect(&servers.pki, &[&servers.vault_address]).await?;
    let echo = load::Target::connect(&servers.pki, &[&servers.echo_address]).await?;
    let mut rows = Vec::new();
    for case in load::Case::ALL.iter().filter(|case| case.name().starts_with(&arguments.case)) {
        let mut pairs = Vec::new();
        for _ in 0..arguments.rounds {
            let bare = echo.measure(*case, arguments.callers, seconds).await?;
            let real = vault.measure(*case, arguments.callers, seconds).await?;
            pairs.push((bare, real));
        }
        rows.push(report::Row::new(*case, pairs));
        report::print(["echo", "vault"], &rows[rows.len() - 1..], rows.len() == 1);
    }
    Ok(())
}
