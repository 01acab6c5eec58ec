//! `vaultctl audit`

mod export;
mod layout;
pub(crate) mod query;
mod verify;

use clap::Subcommand;

use crate::args::Global;
use crate::failure::{Exit, Failure};

/// Read, export and verify the log.
#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Look entries up: newest first.
    Query(query::QueryArgs),
    /// Write all logs to files (C2SP tlog-tiles), for verification by this or by other tools.
    Export(export::ExportArgs),
    /// Verify exported logs with the public key alone. Needs no vault.
    Verify(verify::VerifyArgs),
}

pub(crate) async fn run(global: &Global, command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Query(args) => query::run(global, args).await,
        AuditCommand::Export(args) => export::run(global, args).await,
        AuditCommand::Verify(args) => verify::run(global, &args),
    }
}
