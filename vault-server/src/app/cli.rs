//! The command line of `vault-server`, and its exit codes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use super::config::{Config, ConfigError, Log, LogLevel};
use super::dev;
use super::init::{self, CONFIG_FILE, NewDatabase, NewKms, NewVault};
use super::migrate::{self, MoveError};
use super::seal_rows;
use super::serve::{self, Outcome};
use super::shutdown::Fatality;
use super::telemetry;
use super::tls::{Callers, ReloadingTls};
use super::wire;
use crate::domain::Environment;

/// Stopped as asked.
pub const EXIT_OK: u8 = 0;
/// Could not start, or ended by an error.
pub const EXIT_FAILED: u8 = 1;
/// Stopped as asked, but with requests at work.
pub const EXIT_UNDRAINED: u8 = 3;
/// The store failed for good.
pub const EXIT_FATAL: u8 = 4;
/// Another instance has taken this one's log: start anew.
pub const EXIT_TAKEN: u8 = 5;
/// The configuration is refused (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

const EXIT_CODES: &str = "\
Exit codes:
  0   stopped as asked
  1   could not start, or ended by an error
  2   wrong command line
  3   stopped as asked, but with requests at work
  4   the store failed for good: see the log before starting anew
  5   another instance has taken this one's log: start anew
  78  the configuration is refused";

/// phi-vault: keeps protected health information field by field.
#[derive(Debug, Parser)]
#[command(name = "vault-server", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a vault.
    Serve {
        /// The vault's configuration.
        #[arg(long, env = "VAULT_CONFIG")]
        config: PathBuf,
    },
    /// Reads everything that `serve` would read, and says what is wrong.
    Check {
        /// The vault's configuration.
        #[arg(long, env = "VAULT_CONFIG")]
        config: PathBuf,
    },
    /// Makes a vault: id, configuration, principals' file, and for a local KMS the root key.
    Init(Init),
    /// Moves a stopped vault's store to another kind of engine; run again, it goes on where it was.
    Migrate(migrate::Options),
    /// Gives seals to the rows of a stopped vault from before there were seals, once; run again, it goes on, or says how they are.
    SealRows(seal_rows::Options),
    /// Serves a vault to try out; makes it, with certificates, on the first start.
    Dev {
        /// Where the vault is kept.
        #[arg(long, default_value = "./phi-vault-dev")]
        dir: PathBuf,
        /// Where callers connect; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: SocketAddr,
        /// When it is made: keep it in this database instead of its directory.
        #[arg(long, value_name = "URL")]
        postgres: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The new vault's directory.
    #[arg(long)]
    dir: PathBuf,
    /// Its environment: prod, demo, qa ...; part of every token, never to be changed.
    #[arg(long, value_parser = parse_environment)]
    environment: Environment,
    /// What wraps its keys.
    #[arg(long, value_enum, default_value = "local")]
    kms: KmsChoice,
    /// With --kms aws: the full ARN of a key; the first makes new keys, all wrap them.
    #[arg(long = "kms-key", required_if_eq("kms", "aws"))]
    kms_keys: Vec<String>,
    /// With --kms local in environment prod: the words of kms.local_in_prod.
    #[arg(long)]
    local_in_prod: Option<String>,
    /// Where callers will connect.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Keep it in this database instead of its directory: postgres://user@host:port/database.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KmsChoice {
    Local,
    Aws,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    telemetry::install_panic_hook();
    let ended = match Cli::parse().command {
        Command::Serve { config } => serve(&config),
        Command::Check { config } => check(&config),
        Command::Init(options) => make(options),
        Command::Migrate(options) => relocate(&options),
        Command::SealRows(options) => seal(&options),
        Command::Dev { dir, listen, postgres } => develop(dir, listen, postgres.as_deref()),
    };
    ExitCode::from(ended.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
        if error.is::<ConfigError>() { EXIT_CONFIG } else { EXIT_FAILED }
    }))
}

fn serve(file: &Path) -> anyhow::Result<u8> {
    let config = Config::load(file)?;
    telemetry::init(&config.log)?;
    block_on(serve::run(config, |address| {
        // A supervisor may wait for this line: it must not stay in a buffer.
        let mut out = std::io::stdout().lock();
        std::io::Write::write_all(&mut out, format!("ready: phi-vault on https://{address}\n").as_bytes())?;
        Ok(std::io::Write::flush(&mut out)?)
    }))
}

fn check(file: &Path) -> anyhow::Result<u8> {
    let config = Config::load(file)?;
    ReloadingTls::load(config.tls.clone(), Callers::Certified)?;
    wire::check(&config)?;
    println!("{}: good", file.display());
    Ok(EXIT_OK)
}

fn make(options: Init) -> anyhow::Result<u8> {
    let Init { dir, environment, kms, kms_keys, local_in_prod, listen, postgres } = options;
    let database = database(postgres.as_deref())?;
    let kms = match kms {
        KmsChoice::Local => NewKms::Local { in_prod: local_in_prod },
        KmsChoice::Aws => NewKms::Aws { arns: kms_keys },
    };
    let principals = init::example_principals(&environment);
    let vault = NewVault { dir, environment, kms, database, listen, principals, second_person: true };
    let id = init::init(&vault)?;
    let config = vault.dir.join(CONFIG_FILE);
    println!("made vault {id} in {}", vault.dir.display());
    println!(
        "next: put the server's certificate and the clients' authority into {}/pki,",
        vault.dir.display()
    );
    if vault.database.as_ref().is_some_and(NewDatabase::is_remote) {
        println!("      the database's password into {}/db-password and", vault.dir.display());
        println!("      the authority of its certificate into {}/pki/db-ca.pem,", vault.dir.display());
    }
    println!("      provision callers in {}/{},", vault.dir.display(), init::PRINCIPALS_FILE);
    println!(
        "      then: vault-server check --config {0} && vault-server serve --config {0}",
        config.display()
    );
    Ok(EXIT_OK)
}

fn relocate(options: &migrate::Options) -> anyhow::Result<u8> {
    if options.from == options.to {
        let why = "--from and --to are the same kind of store";
        Cli::command().error(clap::error::ErrorKind::ArgumentConflict, why).exit();
    }
    let config = Config::load(&options.config)?;
    telemetry::init(&Log { level: LogLevel::Warn, ..Log::default() })?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A thread that rests keeps nothing of the requests it worked on.
    let runtime = runtime.enable_all().on_thread_park(vault_mem::wipe_stack).build()?;
    match runtime.block_on(migrate::run(&config, options)) {
        Ok(()) => Ok(EXIT_OK),
        Err(error) if error.downcast_ref().is_some_and(MoveError::is_fatal) => {
            eprintln!("error: {error}");
            Ok(EXIT_FATAL)
        }
        Err(error) => Err(error),
    }
}

fn seal(options: &seal_rows::Options) -> anyhow::Result<u8> {
    let config = Config::load(&options.config)?;
    telemetry::init(&Log { level: LogLevel::Warn, ..Log::default() })?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A thread that rests keeps nothing of the requests it worked on.
    let runtime = runtime.enable_all().on_thread_park(vault_mem::wipe_stack).build()?;
    runtime.block_on(seal_rows::run(&config, options))?;
    Ok(EXIT_OK)
}

fn develop(dir: PathBuf, listen: SocketAddr, postgres: Option<&str>) -> anyhow::Result<u8> {
    let database = database(postgres)?;
    telemetry::init(&Log::default())?;
    let config = dev::prepare(&dir, listen, database)?;
    block_on(dev::run(dir, config))
}

fn block_on(serving: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<u8> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A thread that rests keeps nothing of the requests it worked on.
    let runtime = runtime.enable_all().on_thread_park(vault_mem::wipe_stack).build()?;
    let outcome = runtime.block_on(serving);
    // What is still running has had its time.
    runtime.shutdown_background();
    Ok(match outcome? {
        Outcome::Stopped => EXIT_OK,
        Outcome::Undrained => EXIT_UNDRAINED,
        Outcome::Fatal(why) => {
            eprintln!("error: {why}");
            match why {
                Fatality::StoreFailed(_) => EXIT_FATAL,
                Fatality::LogTaken => EXIT_TAKEN,
            }
        }
    })
}

/// Not by the command line's own parser, which would print what it refuses: there may be a password in it.
fn database(url: Option<&str>) -> anyhow::Result<Option<NewDatabase>> {
    url.map(NewDatabase::parse).transpose().map_err(|why| anyhow::anyhow!("--postgres {why}"))
}

fn parse_environment(text: &str) -> Result<Environment, String> {
    Environment::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn init_with_aws_needs_a_key() {
        let parse = |arguments: &str| Cli::try_parse_from(arguments.split(' '));
        assert!(parse("vault-server init --dir d --environment prod --kms aws").is_err());
        assert!(
            parse("vault-server init --dir d --environment prod --kms aws --kms-key arn:aws:kms:x").is_ok()
        );
        assert!(parse("vault-server init --dir d --environment Prod").is_err());
    }
}
