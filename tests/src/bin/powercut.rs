//! Cuts the power of a store and looks for what it had acknowledged: `powercut --help`.
//!
//! Exits with 1 if something was lost, and with 2 if it cannot run here.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use vault_tests::powercut::{
    BenchOptions, Entries, RigOptions, Subject, bench, cut_power, write_until_killed,
};

/// Cuts the power of a store and looks for what it had acknowledged. Needs root, mkfs.ext4 and loop devices.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is under test: fjall, sled or sled-raw-flush.
    #[arg(long, value_parser = |name: &str| Subject::parse(name).ok_or("fjall, sled or sled-raw-flush"))]
    engine: Subject,
    /// How many times the power is cut.
    #[arg(long, default_value_t = 100)]
    cuts: u32,
    /// Where images, mount points and stores go.
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// How many tasks write at once.
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// Write no log entries of several pages.
    #[arg(long)]
    short_entries: bool,
    /// Of the instants at which the power is cut; random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Measure throughput for this many seconds and cut nothing.
    #[arg(long)]
    bench: Option<u64>,
    /// Be the writer.
    #[arg(long, hide = true)]
    write_to: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("powercut: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { engine: subject, cuts, dir, writers, .. } = arguments;
    let entries = if arguments.short_entries { Entries::Short } else { Entries::Any };
    if let Some(store) = arguments.write_to {
        write_until_killed(subject, &store, writers, entries).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = arguments.bench {
        let time = Duration::from_secs(seconds);
        bench(&BenchOptions { subject, writers, time, dir }).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = arguments.seed.map_or_else(random_seed, Ok)?;
    let outcome = cut_power(&RigOptions { subject, cuts, dir, writers, entries, seed }).await?;
    println!(
        "{}: {} cuts, {} acknowledgements checked, {} lost, {} bad cuts ({} did not open), seed {seed}",
        subject.as_str(),
        outcome.cuts,
        outcome.acknowledged,
        outcome.lost,
        outcome.bad_cuts,
        outcome.unreadable,
    );
    if outcome.bad_cuts == 0 {
        let bound = 300.0 / f64::from(outcome.cuts.max(1));
        println!("with 95% confidence fewer than {bound:.1}% of such cuts lose something (3/N)");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("no randomness")?;
    Ok(u64::from_be_bytes(bytes))
}
