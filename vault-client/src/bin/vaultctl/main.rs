//! `vaultctl`: phi-vault from a terminal or a script. `docs/vaultctl.md` has its manual.
#![forbid(unsafe_code)]

mod args;
mod audit;
mod break_glass;
mod bulk;
mod completions;
mod describe;
mod detokenize;
mod erase;
mod failure;
mod find;
mod help;
mod honeytokens;
mod input;
mod keys;
mod login;
mod mask;
mod meant;
mod output;
mod paste;
mod policy;
mod principals;
mod security_keys;
mod short_id;
mod tokenize;
mod touch;
mod usage;
mod words;

use std::process::ExitCode;

use args::{Cli, Command};
use failure::{Exit, Failure};

/// Values pass through buffers of TLS, HTTP/2 and protobuf; none outlives its use.
#[global_allocator]
static ALLOCATOR: vault_mem::WipingAllocator = vault_mem::WipingAllocator::SYSTEM;

fn main() -> ExitCode {
    let hardened = vault_mem::harden();
    let cli = match help::parse() {
        Ok(cli) => cli,
        Err(error) => return usage::end(&error),
    };
    let json = cli.global.json;
    let outcome = hardened
        .map_err(|error| Failure::wrong_use(error.to_string()))
        .and_then(|()| start().map_err(|error| Failure::wrong_use(format!("cannot start: {error}"))))
        .and_then(|runtime| runtime.block_on(run(cli)));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(json);
            failure.exit().into()
        }
    }
}

fn start() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let global = cli.global;
    match cli.command {
        Command::Tokenize(args) => tokenize::run(&global, args).await,
        Command::Detokenize(args) => detokenize::run(&global, args).await,
        Command::Mask(args) => mask::run(&global, args).await,
        Command::Find(args) => find::run(&global, args).await,
        Command::Describe(args) => describe::run(&global, args).await,
        Command::Erase(args) => erase::run(&global, args).await,
        Command::Import(args) => bulk::import::run(&global, args).await,
        Command::Export(args) => bulk::export::run(&global, args).await,
        Command::Audit(command) => audit::run(&global, command).await,
        Command::Keys(command) => keys::run(&global, command).await,
        Command::Jobs(command) => keys::run_jobs(&global, command).await,
        Command::Principals(command) => principals::run(&global, command).await,
        Command::Honeytokens(command) => honeytokens::run(&global, command).await,
        Command::Whoami => principals::who_am_i(&global).await,
        Command::Policy(command) => policy::run(&global, command).await,
        Command::BreakGlass(command) => break_glass::run(&global, command).await,
        Command::SecurityKeys(command) => security_keys::run(&global, command).await,
        Command::Login(args) => login::run(&global, args).await,
        Command::Logout(args) => login::run_logout(&global, args).await,
        Command::Completions(args) => completions::run(&args),
    }
}
