//! `vaultctl jobs`

use clap::{Args, Subcommand};
use vault_client::keys::{Job, JobId};
use vault_client::{Client, Reason};

use super::{NoteArgs, Patience, show, watch};
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::touch::{TouchArgs, second_factor};

/// See, approve and steer jobs on keys.
#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List the newest job of each kind, under way or over; of all tenants with `--tenant '*'`.
    List,
    /// Show how far a job is, until it is over. It ends at once if the job asks for approval.
    Watch(WatchArgs),
    /// Approve a job that somebody else asked for.
    Approve(ApproveArgs),
    /// Let a job rest where it is.
    Pause(JobArgs),
    /// Let a job go on.
    Resume(JobArgs),
    /// End a job where it is. What is done stays done.
    Cancel(JobArgs),
}

/// Which job.
#[derive(Args)]
pub(crate) struct JobArgs {
    /// The job's id, as `jobs list` shows it.
    job: JobId,
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    job: JobArgs,

    #[command(flatten)]
    patience: Patience,
}

#[derive(Args)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    job: JobArgs,

    #[command(flatten)]
    note: NoteArgs,

    #[command(flatten)]
    touch: TouchArgs,
}

/// Approves a job; with a touch of the security key, if the vault wants one.
async fn approve(client: &Client, args: ApproveArgs) -> Result<Job, Failure> {
    let approval = client.job_approval(args.job.job, &args.note.into());
    match client.approve_job_by(&approval, None).await {
        Err(refused) if refused.reason() == Reason::SecondFactor => {
            let (_, factor) = second_factor(client, &args.touch, approval.action(), approval.hash()).await?;
            Ok(client.approve_job_by(&approval, Some(factor)).await?)
        }
        done => Ok(done?),
    }
}

pub(crate) async fn run(global: &Global, command: JobsCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let job: Job = match command {
        JobsCommand::List => {
            show::jobs(global.json, &client.list_jobs().await?)?;
            return Ok(Exit::Done);
        }
        JobsCommand::Watch(args) => {
            return watch::follow(global.json, &client, args.job.job, args.patience.patience).await;
        }
        JobsCommand::Approve(args) => approve(&client, args).await?,
        JobsCommand::Pause(JobArgs { job }) => client.pause_job(job).await?,
        JobsCommand::Resume(JobArgs { job }) => client.resume_job(job).await?,
        JobsCommand::Cancel(JobArgs { job }) => client.cancel_job(job).await?,
    };
    show::jobs(global.json, &[job])?;
    Ok(Exit::Done)
}
