//! `vaultctl jobs`

use clap::{Args, Subcommand};
use vault_client::Client;
use vault_client::keys::{Job, JobId, JobState};

use super::approve::{ApproveArgs, approve};
use super::{Patience, show, watch};
use crate::args::Global;
use crate::describe::time;
use crate::failure::{Exit, Failure};
use crate::paste::tell;
use crate::short_id::{self, ShortId};

/// See, approve and steer jobs on keys.
#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// List the newest job of each kind, under way or over; of all tenants with `--tenant '*'`.
    List,
    /// Show how far a job is, until it is over. It ends at once if the job asks for approval, or is paused.
    Watch(WatchArgs),
    /// Approve a job that somebody else asked for. Shows it, and asks whether you mean it.
    Approve(ApproveArgs),
    /// Let a job rest where it is.
    Pause(JobArgs),
    /// Let a job go on. A destruction has to be approved again.
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
        Ok(self.find(client).await?.id)
    }

    /// The job as it stands.
    pub(super) async fn find(&self, client: &Client) -> Result<Job, Failure> {
        let known = client.list_jobs().await?;
        self.job.of(known, |job| job.id.to_string())
    }
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    job: JobArgs,

    #[command(flatten)]
    patience: Patience,
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
        JobsCommand::Approve(args) => approve(global, &client, args).await?,
        JobsCommand::Pause(job) => client.pause_job(job.resolve(&client).await?).await?,
        JobsCommand::Resume(job) => client.resume_job(job.resolve(&client).await?).await?,
        JobsCommand::Cancel(job) => client.cancel_job(job.resolve(&client).await?).await?,
    };
    show::jobs(global.json, std::slice::from_ref(&job))?;
    if job.state == JobState::Asked {
        // It was held back, and resumed.
        watch::tell_of_approval(global, &job);
        return Ok(Exit::AsksApproval);
    }
    if is_approval && !global.json {
        let watch = global.paste().mine(&job.tenant, &format!("jobs watch {}", job.id));
        let when =
            job.not_before.map_or_else(|| "now".to_owned(), |then| format!("not before {}", time(then)));
        tell(&format!("done: it is approved, and begins {when}. to see how far it is:\n    {watch}"));
    }
    Ok(Exit::Done)
}
