//! Runs a command beside a PostgreSQL server that is there for it alone: `with-postgres COMMAND [ARGUMENT]...`.
//!
//! `PHI_VAULT_TEST_POSTGRES` names the server to the command. If it is set already, the command is just run. Exits as
//! the command does, and with 2 if PostgreSQL is not to be had here or the command cannot be run.
#![forbid(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use vault_tests::postgres::{Cluster, Options};

const NAMES_A_SERVER: &str = "PHI_VAULT_TEST_POSTGRES";

/// How long an interrupted command may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command beside a PostgreSQL server that is there for it alone.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is run, with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("with-postgres: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<u8> {
    // Before the server starts, so that it is never left behind.
    let mut interrupts = Interrupts::new()?;
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(rest);
    let mut cluster = None;
    if std::env::var_os(NAMES_A_SERVER).is_none() {
        let started = tokio::task::spawn_blocking(|| {
            Cluster::start(&Options::default().set("max_connections", "400").set("shared_buffers", "64MB"))
        });
        let Some(server) = started.await? else { bail!("no server") };
        command.env(NAMES_A_SERVER, server.url("postgres"));
        cluster = Some(server);
    }
    let child = command.spawn().with_context(|| program.display().to_string());
    let ended = match child {
        Ok(child) => wait(child, &mut interrupts).await,
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(|| drop(cluster)).await?;
    Ok(code(ended?))
}

/// Waits for the command; an interruption is passed on to it.
async fn wait(mut child: Child, interrupts: &mut Interrupts) -> Result<ExitStatus> {
    let kind = tokio::select! {
        status = child.wait() => return Ok(status?),
        kind = interrupts.next() => kind,
    };
    let id = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        // It may have ended, or have got the terminal's signal itself.
        let _ = rustix::process::kill_process(id, kind);
    }
    if let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await {
        return Ok(status?);
    }
    child.start_kill()?;
    Ok(child.wait().await?)
}

/// As a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// What asks to end.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
        }
    }
}
