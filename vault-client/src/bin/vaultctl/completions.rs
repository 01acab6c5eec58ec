//! `vaultctl completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output;

/// Print a completion script: `vaultctl completions bash > /etc/bash_completion.d/vaultctl`
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vaultctl", &mut script);
    output::bytes(&[&script])?;
    Ok(Exit::Done)
}
