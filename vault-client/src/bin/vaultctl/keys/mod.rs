//! `vaultctl keys` and `vaultctl jobs`

mod approve;
mod confirm;
mod jobs;
mod revoke;
mod show;
mod watch;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use vault_client::Client;
use vault_client::keys::{JobKind, JobOrder, KeyId, KeyPurpose, KeyVersion};

use crate::args::{self, Global};
use crate::failure::{Exit, Failure};
use crate::words::NoteArgs;

pub(crate) use jobs::{JobsCommand, run as run_jobs};

/// See, rotate and retire a tenant's keys.
#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// List all versions, newest first.
    List(ListArgs),
    /// Make a new active version; the one before opens what it sealed, and seals nothing more.
    Rotate(RotateArgs),
    /// Begin to wrap all keys under the KMS keys that are configured, and under no others.
    Rewrap(RewrapArgs),
    /// Begin to seal records anew under the active data key.
    Reencrypt(ReencryptArgs),
    /// Begin to make blind indexes anew under the active index key.
    Reindex(ReindexArgs),
    /// Mark a version as compromised: nobody gets what it sealed until `reencrypt` has sealed it anew.
    Revoke(revoke::RevokeArgs),
    /// Ask for a version to be destroyed that no record refers to. Another admin has to approve it.
    Destroy(DestroyArgs),
    /// Ask for all keys of a tenant to be destroyed, and with them every value. Another admin has to approve it.
    Shred(ShredArgs),
}

/// What is listed.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Count the records under each version of data keys, too: the vault looks at all of them.
    #[arg(long)]
    count: bool,
}

/// What a rotation is about.
#[derive(Args)]
pub(crate) struct RotateArgs {
    /// Which key.
    #[arg(long, value_enum, default_value = "data")]
    purpose: PurposeName,

    /// The version to replace: if another one is active by now, nothing is done. Whichever is active unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,

    #[command(flatten)]
    note: NoteArgs,
}

/// Purposes by name.
#[derive(Clone, Copy, ValueEnum)]
enum PurposeName {
    /// Seals records.
    Data,
    /// Makes blind indexes.
    Index,
    /// Signs the vault's logs; with `--tenant '*'`.
    LogSigning,
}

/// How a job is begun.
#[derive(Args)]
struct Start {
    /// Show what there would be to do, and change nothing.
    #[arg(long, conflicts_with = "watch")]
    dry_run: bool,

    /// Stay and show how far it is, until it is over. It goes on without that, too.
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    patience: Patience,

    #[command(flatten)]
    note: NoteArgs,
}

/// How much a job may write in a second.
#[derive(Args)]
struct Bytes {
    /// Write at most so many bytes of records in a second; the vault's default unless given.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bytes_per_second: u64,
}

/// How often a job may call the KMS in a second.
#[derive(Args)]
struct Calls {
    /// Call the KMS at most so many times in a second; the vault's default unless given.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    kms_calls_per_second: u32,
}

/// For a watch.
#[derive(Args)]
struct Patience {
    /// How long to wait for a vault that went away while a job is watched.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = args::duration)]
    patience: Duration,
}

/// In place of an answer on a terminal.
#[derive(Args)]
struct Yes {
    /// Don't ask. Required without a terminal.
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
pub(crate) struct RewrapArgs {
    #[command(flatten)]
    calls: Calls,

    #[command(flatten)]
    start: Start,
}

#[derive(Args)]
pub(crate) struct ReencryptArgs {
    /// Only what is sealed under this version; under all but the active one unless given.
    #[arg(long, value_name = "ID")]
    key: Option<KeyId>,

    #[command(flatten)]
    bytes: Bytes,

    #[command(flatten)]
    calls: Calls,

    #[command(flatten)]
    start: Start,
}

#[derive(Args)]
pub(crate) struct ReindexArgs {
    #[command(flatten)]
    bytes: Bytes,

    #[command(flatten)]
    calls: Calls,

    #[command(flatten)]
    start: Start,
}

#[derive(Args)]
pub(crate) struct DestroyArgs {
    /// The version's id, as `keys list` shows it.
    key: KeyId,

    #[command(flatten)]
    yes: Yes,

    #[command(flatten)]
    start: Start,
}

#[derive(Args)]
pub(crate) struct ShredArgs {
    #[command(flatten)]
    yes: Yes,

    #[command(flatten)]
    start: Start,
}

impl From<PurposeName> for KeyPurpose {
    fn from(name: PurposeName) -> Self {
        match name {
            PurposeName::Data => Self::Data,
            PurposeName::Index => Self::Index,
            PurposeName::LogSigning => Self::LogSigning,
        }
    }
}

pub(crate) async fn run(global: &Global, command: KeysCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    match command {
        KeysCommand::List(ListArgs { count }) => {
            show::keys(global.json, count, &client.list_keys(count).await?)?;
            Ok(Exit::Done)
        }
        KeysCommand::Rotate(args) => rotate(global, &client, args).await,
        KeysCommand::Rewrap(args) => {
            let mut order = JobOrder::new(JobKind::Rewrap);
            order.kms_calls_per_second = args.calls.kms_calls_per_second;
            start(global, &client, &order, args.start).await
        }
        KeysCommand::Reencrypt(args) => {
            let mut order = paced(JobKind::Reencrypt, &args.bytes, &args.calls);
            order.key = args.key;
            start(global, &client, &order, args.start).await
        }
        KeysCommand::Reindex(args) => {
            let order = paced(JobKind::Reindex, &args.bytes, &args.calls);
            start(global, &client, &order, args.start).await
        }
        KeysCommand::Revoke(args) => revoke::revoke(global, &client, args).await,
        KeysCommand::Destroy(args) => {
            if !args.start.dry_run {
                confirm::key(args.yes.yes, args.key, "this asks for the version to be destroyed for good")?;
            }
            start(global, &client, &JobOrder::new(JobKind::Destroy).of_key(args.key), args.start).await
        }
        KeysCommand::Shred(args) => {
            if !args.start.dry_run {
                confirm::tenant(args.yes.yes, &client).await?;
            }
            start(global, &client, &JobOrder::new(JobKind::Shred), args.start).await
        }
    }
}

async fn rotate(global: &Global, client: &Client, args: RotateArgs) -> Result<Exit, Failure> {
    let replace = args.version.map(KeyVersion);
    let rotation = client.rotate_key(args.purpose.into(), replace, &args.note.into()).await?;
    if !rotation.rotated && !global.json {
        eprintln!("vaultctl: version {} is active already", rotation.key.version);
    }
    show::rotation(global.json, &rotation)?;
    Ok(Exit::Done)
}

fn paced(kind: JobKind, bytes: &Bytes, calls: &Calls) -> JobOrder {
    let mut order = JobOrder::new(kind);
    order.bytes_per_second = bytes.bytes_per_second;
    order.kms_calls_per_second = calls.kms_calls_per_second;
    order
}

/// Begins a job, or only shows what it would have to do.
async fn start(global: &Global, client: &Client, order: &JobOrder, args: Start) -> Result<Exit, Failure> {
    if args.dry_run {
        let preview = client.preview_job(order).await?;
        show::preview(global.json, order, &preview)?;
        return Ok(if preview.refused.is_none() { Exit::Done } else { Exit::SomeFailed });
    }
    let job = client.start_job(order, &args.note.into()).await?;
    if args.watch {
        if !global.json {
            eprintln!("vaultctl: job {}", job.id);
        }
        return watch::follow(global, client, job.id, args.patience.patience).await;
    }
    show::jobs(global.json, std::slice::from_ref(&job))?;
    watch::tell_of_approval(global, &job);
    watch::tell_of_pause(global, &job);
    Ok(watch::exit_of(&job))
}
