//! `vaultctl jobs`

use clap::{Args, Subcommand};
use vault_client::keys::{Job, JobId};
use vault_client::{Client, Reason};

use super::{Patience, show, watch};
use crate::args::Global;
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::short_id::{self, ShortId};
use crate::touch::{TouchArgs, second_factor};
use crate::words::NoteArgs;

/// See, approve and steer jobs on keys.
#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List the newest job of each kind, under way or over; of all tenants with `--tenant '*'`.
    List,
    /// Show how far a job is, until it is over. It ends at once if the job asks for approval.
    Watch(WatchArgs),
    /// Approve a job that somebody else asked for; by a touch of your security key, if you ever had one.
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
    /// The job's id, or its first digits (6 at least).
    job: ShortId<OfJob>,
}

#[derive(Debug, Clone)]
struct OfJob;

impl short_id::Kind for OfJob {
    const NAME: &'static str = "job";
    const LIST: &'static str = "jobs list";
}

impl JobArgs {
    async fn resolve(&self, client: &Client) -> Result<JobId, Failure> {
        if let Some(Ok(id)) = self.job.whole().map(str::parse) {
            return Ok(id);
        }
        let known = client.list_jobs().await?;
        Ok(self.job.of(known, |job| job.id.to_string())?.id)
    }
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
    let id = args.job.resolve(client).await?;
    let approval = client.job_approval(id, &args.note.into());
    match client.approve_job_by(&approval, None).await {
        Err(refused) if refused.reason() == Reason::SecondFactor => {
            let signer = args.touch.signer()?;
            let (_, factor) = second_factor(client, &signer, approval.action(), approval.hash()).await?;
            Ok(client.approve_job_by(&approval, Some(factor)).await?)
        }
        done => Ok(done?),
    }
}

pub(crate) async fn run(global: &Global, command: JobsCommand) -> Result<Exit, Failure> {
    let client = global.connect()?;
    let is_approval = matches!(command, JobsCommand::Approve(_));
    let job: Job = match command {
        JobsCommand::List => {
            let jobs = client.list_jobs().await?;
            if jobs.is_empty() && !global.json {
                tell("no job was ever begun here");
            } else {
                show::jobs(global.json, &jobs)?;
            }
            return Ok(Exit::Done);
        }
        JobsCommand::Watch(args) => {
            let id = args.job.resolve(&client).await?;
            return watch::follow(global, &client, id, args.patience.patience).await;
        }
        JobsCommand::Approve(args) => approve(&client, args).await?,
        JobsCommand::Pause(job) => client.pause_job(job.resolve(&client).await?).await?,
        JobsCommand::Resume(job) => client.resume_job(job.resolve(&client).await?).await?,
        JobsCommand::Cancel(job) => client.cancel_job(job.resolve(&client).await?).await?,
    };
    show::jobs(global.json, std::slice::from_ref(&job))?;
    if is_approval && !global.json {
        let watch = global.paste().mine(&job.tenant, &format!("jobs watch {}", job.id));
        let when =
            job.not_before.map_or_else(|| "now".to_owned(), |then| format!("not before {}", time(then)));
        tell(&format!("done: it is approved, and begins {when}. to see how far it is:\n    {watch}"));
    }
    Ok(Exit::Done)
}
